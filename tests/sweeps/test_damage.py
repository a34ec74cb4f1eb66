"""Damage to any file of a run is found, set aside under a name that says so, never counted, and mended."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.files import DiskError
from convjax.sweeps import recorder
from convjax.sweeps.frame import read_correct, read_run, read_runs
from convjax.sweeps.options import Options, SweepOptions
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.runner import run_sweep
from convjax.sweeps.store import Run
from convjax.sweeps.sweep import Sweep
from convjax.training.checkpoint import load_params
from tests.helpers.sweeps import Recorder
from tests.helpers.sweeps import outcome_and_weights as outcome

CONFIG = RunConfig(dataset="mnist_5k", train_size=200, model="dense", dense_units="8", epochs=3)


@pytest.fixture(autouse=True, scope="module")
def a_checkpoint_an_epoch():
    """However short the epoch was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "_SAVE_SECONDS", 1e-9)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    execute([CONFIG], "study", Options(workdir=str(workdir)), Reporter())
    return Run.of(workdir, "study", CONFIG)


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to spoil."""
    copy = Run.of(tmp_path, "study", CONFIG)
    shutil.copytree(finished.path, copy.path)
    return copy


def do(run):
    execute([CONFIG], "study", Options(workdir=str(run.path.parents[1])), Reporter())


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_accuracy(path):
    text = path.read_text()
    place = text.index('"test_accuracy": 0.') + len('"test_accuracy": 0.')
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def unfinish(run):
    """Leaves the run as a crash just before its result does."""
    for name in ("result.json", "SHA256SUMS", "predictions.npy", "labels.npy"):
        (run.path / name).unlink()


def of_another_run(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch_size": 32}))


SPOILT = {
    "result cut": ("result.json", cut),
    "result empty": ("result.json", lambda path: path.write_bytes(b"")),
    "accuracy of a result flipped": ("result.json", flip_accuracy),
    "config cut": ("config.json", cut),
    "config gone": ("config.json", os.unlink),
    "config of another run": ("config.json", of_another_run),
    "a version in the config flipped": ("config.json", lambda path: flip(path, 0.9)),
    "predictions cut": ("predictions.npy", cut),
    "a prediction flipped": ("predictions.npy", lambda path: flip(path, 0.9)),
    "labels gone": ("labels.npy", os.unlink),
    "checksums cut": ("SHA256SUMS", cut),
    "a digit of the metrics flipped": ("metrics.jsonl", flip),
    "a line of the metrics gone": (
        "metrics.jsonl",
        lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[::2])),
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_run_is_set_aside_and_mended_by_the_same_command(how, run, finished):
    name, spoil = SPOILT[how]
    spoil(run.path / name)
    spoiled = (run.path / name).read_bytes() if (run.path / name).exists() else None
    assert run.damage(), "found"
    assert not run.is_done()
    if name in ("result.json", "config.json", "SHA256SUMS"):  # tables read these
        row = read_run(run)
        assert row["status"] == "damaged"
        assert "test_accuracy" not in row
    do(run)
    assert outcome(run) == outcome(finished)
    assert run.damage() == {}
    [aside] = run.path.parent.glob(f"{run.digest}.damaged-*")
    assert json.loads((aside / "why.json").read_text())["damage"]
    if spoiled is not None:
        assert (aside / name).read_bytes() == spoiled, "not deleted"
    assert list(read_runs([run.path.parent])["status"]) == ["done"], "what is set aside is not counted"


def test_a_sweep_mends_what_was_done_and_got_damaged(run, finished):
    flip_accuracy(run.path / "result.json")
    recorder = Recorder()
    sweep = Sweep("study", ((CONFIG,),), Options(workdir=str(run.path.parents[1])))
    run_sweep(sweep, SweepOptions(seed_mode="serial"), recorder)
    assert recorder.begun == [CONFIG]
    assert recorder.over == {CONFIG: "done"}
    assert outcome(run) == outcome(finished)


def test_with_the_newest_checkpoint_and_a_line_of_metrics_lost_the_run_goes_on_from_before(run, finished):
    """Two epochs of three are sound: they are not trained again."""
    unfinish(run)
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join([*lines[:2], lines[2].replace("0.", "1.", 1)]))
    do(run)
    assert run.result()["resumed_at_step"] == 8
    assert outcome(run) == outcome(finished)
    assert (run.path / "damaged-checkpoint-12").is_dir()


def test_a_run_whose_metrics_are_lost_starts_anew(run, finished):
    unfinish(run)
    (run.path / "metrics.jsonl").unlink()
    do(run)
    assert run.result()["resumed_at_step"] == 0
    assert outcome(run) == outcome(finished)


def test_every_flipped_bit_of_a_result_is_found_or_harmless(run):
    """A flip in white space or in a name that no table reads changes nothing that counts."""
    path = run.path / "result.json"
    content = path.read_bytes()
    sound = read_run(run)
    generator = np.random.default_rng(0)
    for place in generator.choice(len(content) * 8, 400, replace=False):
        spoiled = bytearray(content)
        spoiled[place // 8] ^= 1 << (place % 8)
        path.write_bytes(spoiled)
        assert read_run(run)["status"] == "damaged"
    path.write_bytes(content)
    assert read_run(run) == sound


def test_predictions_that_claim_to_be_enormous_are_not_allocated(run):
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }"
    (run.path / "predictions.npy").write_bytes(header.ljust(127) + b"\n")
    with pytest.raises(UserError, match="run it again"):
        read_correct(run.path)


def test_a_limit_on_file_sizes_is_one_line_and_the_same_command_goes_on(tmp_path, finished):
    run = Run.of(tmp_path, "study", CONFIG)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (50, 1_500, 5_000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(DiskError, match=r"File too large; raise the limit.*same command") as error:
                do(run)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "\n" not in str(error.value)
    do(run)
    assert outcome(run) == outcome(finished)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 48 KiB, and a function that changes its mount options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0

    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=48k", "tmpfs", str(place)):
        pytest.skip("mounting a file system is not allowed here")
    yield place, lambda options: mount("-o", f"remount,{options}", str(place))
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(small_disk, finished):
    place, remount = small_disk
    run = Run.of(place, "study", CONFIG)
    for _ in range(2):
        with pytest.raises(DiskError, match="No space left on device; free some space") as error:
            do(run)
        assert "\n" not in str(error.value)
    # A sweep has no room to record failures: it stops instead of failing run by run.
    sweep = Sweep("study", ((CONFIG,), (CONFIG.replace(seed=1),)), Options(workdir=str(place)))
    with pytest.raises(DiskError):
        run_sweep(sweep, SweepOptions(seed_mode="serial"), Recorder())
    assert remount("size=16m")
    do(run)
    assert outcome(run) == outcome(finished)


def test_a_read_only_store_can_be_read_but_not_added_to(small_disk, finished):
    place, remount = small_disk
    assert remount("size=16m")
    run = Run.of(place, "study", CONFIG)
    shutil.copytree(finished.path, run.path)
    assert remount("ro")
    do(run)
    assert list(read_runs([place])["status"]) == ["done"]
    assert load_params(run.path)[0] == CONFIG
    with pytest.raises(DiskError, match="Read-only file system; make the file system writable"):
        execute([CONFIG.replace(seed=1)], "study", Options(workdir=str(place)), Reporter())


def test_permission_denied_is_one_line(tmp_path):
    if os.geteuid() == 0:
        os.seteuid(65534)  # file modes do not bind a superuser
        try:
            with pytest.raises(DiskError, match="Permission denied; make it writable"):
                execute([CONFIG], "study", Options(workdir=str(tmp_path / "runs")), Reporter())
        finally:
            os.seteuid(0)
    else:
        tmp_path.chmod(0o500)
        with pytest.raises(DiskError, match="Permission denied; make it writable"):
            execute([CONFIG], "study", Options(workdir=str(tmp_path / "runs")), Reporter())
    assert not Path(tmp_path / "runs").exists()
