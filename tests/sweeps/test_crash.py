"""A process that dies loses nothing, whether between any two file operations or at any other moment."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convjax.config import RunConfig
from convjax.sweeps import recorder
from convjax.sweeps.frame import read_run, read_runs
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run
from tests.helpers.faults import Snapshots, crash_everywhere
from tests.helpers.player import CONFIG, LINES, RESULT, play
from tests.helpers.sweeps import ROOT, outcome_and_weights


@pytest.fixture(autouse=True, scope="module")
def a_checkpoint_an_epoch():
    """However short the epoch was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "_SAVE_SECONDS", 1e-9)
        yield


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Only a real power loss could tell the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def contents(workdir):
    run = Run.of(workdir, "study", CONFIG)
    return run.result(), run.metrics(), (run.path / "predictions.npy").read_bytes(), run.damage()


@pytest.fixture
def expected(tmp_path):
    """What an undisturbed run leaves."""
    play(tmp_path / "undisturbed")
    return contents(tmp_path / "undisturbed")


def test_a_crash_between_any_two_file_operations_of_the_store_loses_nothing(tmp_path, expected):
    assert expected[:2] == (RESULT, LINES)

    def check(place):
        row = read_run(Run.of(place, "study", CONFIG)) if list(place.glob("study/*/config.json")) else None
        if row is not None:
            assert row["status"] in ("unfinished", "done"), row["reason"]  # a reader in between sees a sound run
        play(place)
        assert contents(place) == expected
        assert not list(place.rglob("*.damaged-*"))
        assert len(read_runs([place])) == 1

    crashes = crash_everywhere(tmp_path, play, check, torn=(None, 0.5))
    assert crashes > 80


def test_a_crash_while_a_run_is_set_aside_loses_nothing(tmp_path, expected):
    spoiled = json.dumps({**RESULT, "test_accuracy": 0.99}, indent=2)

    def prepare(place):
        shutil.copytree(tmp_path / "undisturbed" / "study", place / "study")
        (place / "study" / CONFIG.digest / "result.json").write_text(spoiled)

    def check(place):
        assert read_run(Run.of(place, "study", CONFIG))["status"] != "done" or contents(place) == expected
        play(place)
        assert contents(place) == expected
        assert [path.read_text() for path in place.rglob("*.damaged-*/result.json")] == [spoiled]
        assert len(read_runs([place])) == 1

    assert crash_everywhere(tmp_path, play, check, prepare=prepare) > 40


def test_a_crash_while_a_run_is_reset_loses_nothing(tmp_path, expected):
    def prepare(place):
        shutil.copytree(tmp_path / "undisturbed" / "study", place / "study")

    def reset(place):
        run = Run.of(place, "study", CONFIG)
        with run.lock():
            run.reset()

    def check(place):
        reset(place)
        play(place)
        assert contents(place) == expected
        kept = [path.name for path in place.rglob("*.old-*/*")]
        for name in ("result.json", "metrics.jsonl", "predictions.npy", "config.json", "checkpoints"):
            assert kept.count(name) == 1, "set aside once, and not deleted"

    assert crash_everywhere(tmp_path, reset, check, prepare=prepare) > 15


SMALL = RunConfig(dataset="mnist_5k", train_size=200, model="dense", dense_units="8", epochs=2)


def train(workdir):
    execute([SMALL], "study", Options(workdir=str(workdir)), Reporter())


def outcome(workdir, config=SMALL):
    return outcome_and_weights(Run.of(workdir, "study", config))


@pytest.mark.parametrize(("every", "least"), [(13, 6), pytest.param(1, 80, marks=pytest.mark.slow)])
def test_training_that_crashes_at_a_file_operation_ends_as_an_undisturbed_run(every, least, tmp_path):
    """At each `every`-th operation, those of Orbax in Python included, it goes on from what was on disk before."""
    undisturbed = tmp_path / "undisturbed"
    with Snapshots(undisturbed, tmp_path / "crashed", every=every) as snapshots:
        train(undisturbed)
    expected = outcome(undisturbed)
    places = sorted((tmp_path / "crashed").iterdir(), key=lambda place: int(place.name))
    for place in places:
        train(place)
        assert outcome(place) == expected, place.name
        assert not Run.of(place, "study", SMALL).damage()
        assert len(read_runs([place])) == 1
        assert not [path for path in place.rglob("*") if "damaged" in path.name], place.name
        shutil.rmtree(place)
    print(f"{len(places)} crashes at {snapshots.count} file operations of training")
    assert len(places) >= least


CHILD = """
import sys
from convjax.config import RunConfig
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
# The slow part, before the clock runs:
import convjax.sweeps.recorder, convjax.training.checkpoint, convjax.training.loop

convjax.sweeps.recorder._SAVE_SECONDS = 1e-9
print("ready", flush=True)
config = RunConfig(dataset="mnist_5k", train_size=200, model="dense", dense_units="8", epochs=6)
execute([config], "study", Options(workdir=sys.argv[1]), Reporter())
"""
LONGER = SMALL.replace(epochs=6)


def child(workdir, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(workdir)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Environment that has a process killed at a file operation below a folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("killer") / "kill_at.so"
    source = Path(__file__).with_name("kill_at.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


PLAYER = "import sys; from tests.helpers.player import play; play(sys.argv[1])"


def play_apart(workdir, **environment):
    """`play` in a process of its own; its exit code."""
    command, environment = [sys.executable, "-c", PLAYER, str(workdir)], {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode


@pytest.mark.parametrize(("first", "every", "least"), [(3, 9, 5), pytest.param(1, 1, 50, marks=pytest.mark.slow)])
def test_processes_killed_at_file_operations_of_the_store_lose_nothing(first, every, least, tmp_path, killer):
    log = tmp_path / "operations"
    assert play_apart(tmp_path / "all", KILL_UNDER=str(tmp_path / "all"), KILL_LOG=str(log), **killer) == 0
    expected, operations = contents(tmp_path / "all"), int(log.read_text())
    moments = range(first, operations + 1, every)
    for at in moments:
        place = tmp_path / str(at)
        code = play_apart(place, KILL_UNDER=str(place), KILL_AT=str(at), **killer)
        assert code == -signal.SIGKILL
        run = Run.of(place, "study", CONFIG)
        if (run.path / "config.json").exists():
            assert read_run(run)["status"] in ("unfinished", "done")
        play(place)  # takes the dead process's lock over
        assert contents(place) == expected
        assert not list(place.rglob("*.damaged-*"))
    print(f"{len(moments)} processes killed at {operations} file operations of the store")
    assert len(moments) >= least


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(4))
def test_processes_killed_at_a_hundred_moments_lose_nothing(batch, tmp_path, killer, monkeypatch):
    """25 of them, each going on from the last: at a random time or file operation, TensorStore's included."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = tmp_path / "operations"
    started = time.monotonic()
    undisturbed = child(tmp_path / "undisturbed", KILL_UNDER=str(tmp_path / "undisturbed"), KILL_LOG=str(log), **killer)
    assert undisturbed.stdout.readline() == "ready\n"
    begun = time.monotonic()
    undisturbed.communicate()
    seconds, operations = time.monotonic() - begun, int(log.read_text())
    assert undisturbed.returncode == 0
    expected = outcome(tmp_path / "undisturbed", LONGER)
    choose = random.Random(batch)
    kills, stores, by_operation = 0, 0, 0
    while kills < 25:
        store = tmp_path / str(stores)
        at = choose.randint(1, operations // 3) if choose.random() < 0.6 else 0
        process = child(store, KILL_UNDER=str(store), KILL_AT=str(at), **killer)
        if not at and process.stdout.readline() == "ready\n":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(choose.uniform(0, seconds))
            process.kill()
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        kills += process.returncode != 0
        by_operation += bool(process.returncode and at)
        run = Run.of(store, "study", LONGER)
        assert not run.path.exists() or not (run.path / "config.json").exists() or not run.damage()
        if run.result() is not None:
            assert outcome(store, LONGER) == expected
            assert not [path for path in store.rglob("*") if "damaged" in path.name]
            stores += 1
    child(tmp_path / str(stores)).communicate()
    assert outcome(tmp_path / str(stores), LONGER) == expected
    print(
        f"{kills} kills, {by_operation} at one of {operations} file operations; {stores + 1} runs ended as the "
        f"undisturbed one ({time.monotonic() - started:.0f} s)"
    )
