"""scripts/doctor.py: what it says of sound, unfinished, failed, running and damaged runs, and of leftovers."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps import doctor
from convjax.sweeps.frame import read_runs
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run
from tests.helpers.player import RESULT
from tests.helpers.sweeps import ROOT


def make(workdir, seed, *, until="result"):
    run = Run.of(workdir, "study", RunConfig(seed=seed))
    run.path.mkdir(parents=True)
    run.start(RunConfig(seed=seed), {"versions": {}})
    run.add_metrics({"epoch": 1, "step": 10, "train_loss": 0.5})
    if until == "failure":
        run.fail(RuntimeError("out of memory"), "")
    if until == "result":
        run.finish(RESULT, np.array([1, 2]), np.array([1, 2]))
    return run


@pytest.fixture
def store(tmp_path):
    """A run of every kind, by its health."""
    runs = {
        "sound": make(tmp_path, 0),
        "unfinished": make(tmp_path, 1, until="metrics"),
        "failed": make(tmp_path, 2, until="failure"),
        "damaged": make(tmp_path, 3),
    }
    path = runs["damaged"].path / "predictions.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    return tmp_path, runs


def examined(folder, health):
    return [diagnosis for diagnosis in doctor.examine([folder]) if diagnosis.health == health]


def test_each_run_gets_its_diagnosis(store):
    folder, runs = store
    found = {diagnosis.path: diagnosis for diagnosis in doctor.examine([folder])}
    assert {health: found[str(run.path)].health for health, run in runs.items()} == {health: health for health in runs}
    assert "predictions.npy" in found[str(runs["damaged"].path)].what
    assert "out of memory" in found[str(runs["failed"].path)].what
    assert "1 of 5 epochs" in found[str(runs["unfinished"].path)].what
    for health in ("unfinished", "failed", "damaged"):
        assert "experiments.study again" in found[str(runs[health].path)].mend


def test_a_locked_run_is_running_and_one_whose_owner_died_is_not(store):
    folder, runs = store
    with runs["unfinished"].lock():
        [diagnosis] = examined(folder, "running")
        assert diagnosis.path == str(runs["unfinished"].path)
        assert f"process {os.getpid()}" in diagnosis.what
    [path] = runs["unfinished"].path.glob(".lock-*")
    path.write_text(path.read_text().replace("released", "forgotten"))  # as a killed process leaves it
    [diagnosis] = examined(folder, "unfinished")
    assert f"process {os.getpid()}" in diagnosis.what
    assert "died" in diagnosis.what


def test_mending_sets_aside_and_leaves_the_store_sound(store):
    folder, runs = store
    content = (runs["damaged"].path / "predictions.npy").read_bytes()
    [aside] = doctor.mend([folder])
    assert aside.name == f"{runs['damaged'].digest}.damaged-1"
    assert (aside / "predictions.npy").read_bytes() == content
    found = {diagnosis.path: diagnosis.health for diagnosis in doctor.examine([folder])}
    assert found[str(runs["damaged"].path)] == "unfinished"
    assert found[str(aside)] == "set aside"
    assert "damaged" not in found.values()
    assert sorted(read_runs([folder])["status"]) == ["done", "failed", "unfinished", "unfinished"]


def test_what_killed_processes_leave_is_listed_once_it_is_old(store):
    folder, runs = store
    left = [runs["sound"].path / ".result.json.x.tmp", folder / "study" / ".table.md.y.tmp"]
    for path in left:
        path.write_text("half")
    assert not examined(folder, "leftover")
    for path in left:
        os.utime(path, (time.time() - 86400,) * 2)
    assert {diagnosis.path for diagnosis in examined(folder, "leftover")} == set(map(str, left))


def test_a_damaged_checkpoint_is_found_without_being_touched(tmp_path):
    config = RunConfig(dataset="mnist_5k", train_size=200, model="dense", dense_units="8", epochs=2)
    execute([config], "study", Options(workdir=str(tmp_path)), Reporter())
    run = Run.of(tmp_path, "study", config)
    for name in ("result.json", "SHA256SUMS"):
        (run.path / name).unlink()
    assert doctor.examine_run(run).health == "unfinished"
    for path in (run.path / "checkpoints" / "8").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    before = sorted(path for path in run.path.rglob("*"))
    diagnosis = doctor.examine_run(run)
    assert diagnosis.health == "damaged"
    assert "checkpoint 8" in diagnosis.what
    assert sorted(path for path in run.path.rglob("*")) == before


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/doctor.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_script_prints_counts_and_leaves_with_1_for_damage(store):
    folder, runs = store
    done = run_script(folder, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"] == {"sound": 1, "unfinished": 1, "failed": 1, "damaged": 1}
    assert len(found["findings"]) == 4
    shutil.rmtree(runs["damaged"].path)
    done = run_script(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 failed, 1 sound, 1 unfinished"
    done = run_script(folder / "none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_folder_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        doctor.examine([tmp_path / "none"])
