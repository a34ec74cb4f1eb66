"""Sweeps: the same table however they are run, shared, failed or killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from convjax.errors import UserError
from convjax.sweeps import attempts
from convjax.sweeps.frame import find_runs
from convjax.sweeps.options import Options, SweepOptions
from convjax.sweeps.runner import run_sweep
from convjax.sweeps.sweep import Sweep
from convjax.training import loop
from tests.helpers.sweeps import ROOT, SMALL, Recorder, begun, make_sweep, outcomes

SERIAL = SweepOptions(seed_mode="serial")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("serial")
    recorder = Recorder()
    run_sweep(make_sweep(SMALL, workdir), SERIAL, recorder)
    assert set(recorder.over.values()) == {"done"}
    return outcomes(workdir)


@pytest.mark.parametrize("mode", ["processes", "auto"])
def test_every_mode_gives_the_same_numbers(mode, small, tmp_path, serial):
    recorder = Recorder()
    sweep = make_sweep(small, tmp_path)
    run_sweep(sweep, SweepOptions(seed_mode=mode), recorder)
    assert set(recorder.over) == set(sweep.configs)
    # To the last bit on CPU.
    assert outcomes(tmp_path) == serial


def test_seeds_trained_together_give_the_same_numbers(tmp_path):
    """To the last bit too, but only in optimized programs, which users have and the other tests do not."""
    for mode in ("serial", "vmap"):
        finish(start(tmp_path / mode, mode=mode, epochs=2, XLA_FLAGS=""))
    assert len(outcomes(tmp_path / "serial")) == 4
    assert outcomes(tmp_path / "vmap") == outcomes(tmp_path / "serial")


def test_what_is_done_is_not_done_again(small, tmp_path):
    sweep = make_sweep(small, tmp_path, kernels=("3",))
    run_sweep(sweep, SERIAL, Recorder())
    times = {run.path: (run.path / "result.json").stat().st_mtime_ns for run in find_runs([tmp_path])}
    recorder = Recorder()
    run_sweep(make_sweep(small, tmp_path, kernels=("3",), seeds=3), SERIAL, recorder)
    assert [config.seed for config in recorder.begun] == [2]
    assert len(recorder.over) == 3
    for path, changed in times.items():
        assert (path / "result.json").stat().st_mtime_ns == changed


@pytest.mark.parametrize("mode", ["serial", "processes"])
def test_a_failed_run_is_recorded_and_the_others_go_on(mode, small, tmp_path):
    bad = small.replace(train_size=4001)  # more than there are: found only when the data is cut
    sweep = Sweep("study", ((small,), (bad,), (small.replace(seed=1),)), Options(workdir=str(tmp_path)))
    recorder = Recorder()
    run_sweep(sweep, SweepOptions(seed_mode=mode), recorder)
    assert [recorder.over[config] for config in sweep.configs] == ["done", "failed", "done"]
    assert "4001" in sweep.run(bad).failure()["error"].replace(",", "")
    # The next sweep tries the failed run again.
    again = Recorder()
    run_sweep(Sweep("study", sweep.arms, sweep.options), SERIAL, again)
    assert again.begun == [bad]


def test_a_worker_that_is_killed_fails_its_run_only(small, tmp_path, monkeypatch):
    """A worker that dies (out of memory, say) takes one run with it."""
    long = small.replace(epochs=2000)
    sweep = Sweep("study", ((long,), (small,), (small.replace(seed=1),)), Options(workdir=str(tmp_path)))

    class Killer(Recorder):
        def watch(self, running):
            run = sweep.run(long)
            if long in running and run.metrics() and run.owner_pid():
                os.kill(run.owner_pid(), signal.SIGKILL)

    recorder = Killer()
    run_sweep(sweep, SweepOptions(seed_mode="processes", jobs=2), recorder)
    assert [recorder.over[config] for config in sweep.configs] == ["failed", "done", "done"]
    assert "SIGKILL" in sweep.run(long).failure()["error"]


def test_unknown_modes_are_refused():
    with pytest.raises(UserError, match="seed_mode"):
        SweepOptions(seed_mode="parallel")


SWEEP = """
import sys
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.runner import run_sweep
from tests.helpers.sweeps import SMALL, Printer, make_sweep

workdir, runs, epochs, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sweep = make_sweep(SMALL.replace(epochs=epochs), workdir, seeds=runs // 2)
run_sweep(sweep, SweepOptions(seed_mode=mode), Printer())
"""


def start(workdir, runs=4, epochs=6, mode="serial", **environment):
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(workdir), str(runs), str(epochs), mode],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=300):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0
    return begun(out)


def test_two_processes_share_a_sweep_and_do_no_run_twice(tmp_path):
    together = [start(tmp_path), start(tmp_path)]
    runs = [digest for process in together for digest in finish(process)]
    assert len(runs) == len(set(runs)) == 4
    assert len(outcomes(tmp_path)) == 4


@pytest.mark.parametrize(
    ("kills", "runs", "mode", "seconds"),
    [
        (2, 4, "serial", 8),
        pytest.param(10, 12, "serial", 12, marks=pytest.mark.slow),
        pytest.param(10, 12, "processes", 12, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_killed_at_random_moments_ends_as_an_undisturbed_one(kills, runs, mode, seconds, tmp_path):
    finish(start(tmp_path / "undisturbed", runs, mode=mode))
    moments = random.Random(0)
    for _ in range(kills):
        process = start(tmp_path / "disturbed", runs, mode=mode)
        time.sleep(moments.uniform(0.5, seconds))
        process.kill()
        process.wait()
        process.stdout.close()
    finish(start(tmp_path / "disturbed", runs, mode=mode))
    expected = outcomes(tmp_path / "undisturbed")
    assert len(expected) == runs
    assert outcomes(tmp_path / "disturbed") == expected


def test_a_failure_file_is_json_with_the_traceback(small, tmp_path, monkeypatch):
    def broken(*arguments, **named):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(attempts, "execute", broken)
    sweep = make_sweep(small, tmp_path, kernels=("3",), seeds=1)
    run_sweep(sweep, SERIAL, Recorder())
    failure = json.loads((sweep.run(sweep.configs[0]).path / "failure.json").read_text())
    assert failure["error"] == "RuntimeError: no memory left"
    assert "in broken" in failure["traceback"]


def test_neither_order_nor_display_nor_checkpoints_change_a_number(small, tmp_path, serial, monkeypatch):
    """One step per look at the device and a checkpoint at each; arms and seeds backwards."""
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    sweep = make_sweep(small, tmp_path, checkpoint_minutes=1e-9)
    backwards = tuple(arm[::-1] for arm in sweep.arms[::-1])
    run_sweep(Sweep("study", backwards, sweep.options), SERIAL, Recorder())
    assert outcomes(tmp_path) == serial
