"""Long and large: thousands of runs, millions of lines, hundreds of epochs, many processes. `-s` shows the figures."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.sweeps.frame import find_runs, read_runs
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run
from tests.helpers.sweeps import ROOT, begun

pytestmark = pytest.mark.slow

PAGE = resource.getpagesize()


def resident():
    """Bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def script(*arguments):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - started


def test_two_thousand_runs_are_compared_and_examined(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    numbers = np.random.default_rng(0)
    predictions = numbers.integers(0, 10, 10_000)
    for index in range(2_000):
        config = RunConfig(seed=index % 5, learning_rate=1e-3 * (1 + index // 5))
        run = Run.of(tmp_path, "study", config)
        run.path.mkdir(parents=True)
        run.start(config, {"backend": "cpu", "versions": {}, "git_revision": None, "host": "h"})
        for epoch in range(1, 6):
            run.add_metrics({"epoch": epoch, "step": 938 * epoch, "train_loss": 0.1, "train_accuracy": 0.9})
        accuracy = float(numbers.normal(0.99, 0.001))
        common = {"status": "done", "reason": "", "parameters": 93_322, "flops": 10, "dataset_fingerprint": "f"}
        run.finish({**common, "test_accuracy": accuracy, "seconds": {"total": 1.0}}, predictions, predictions)
    started = time.monotonic()
    assert len(read_runs([tmp_path])) == 2_000
    read = time.monotonic() - started
    table, compare = script("scripts/compare.py", tmp_path, "--by=learning_rate", "--format=csv")
    assert table.count("\n") >= 401
    text, doctor = script("scripts/doctor.py", tmp_path)
    assert text.splitlines()[-1] == "2,000 sound"
    print(f"2,000 runs: read in {read:.1f} s, compared in {compare:.1f} s, examined in {doctor:.1f} s")


def test_the_tail_of_ten_million_lines_is_read_without_the_rest(tmp_path):
    run = Run(tmp_path)
    run.add_metrics({"epoch": 1, "step": 1, "train_loss": 0.5})
    line = (tmp_path / "metrics.jsonl").read_bytes()
    with open(tmp_path / "metrics.jsonl", "wb") as file:
        for _ in range(1_000):
            file.write(line * 10_000)
    run.add_metrics({"epoch": 10_000_001, "step": 2, "train_loss": 0.25})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"epoch": 10000002, "st')
    before, started = resident(), time.monotonic()
    assert run.last_metrics() == {"epoch": 10_000_001, "step": 2, "train_loss": 0.25}
    seconds, grown = time.monotonic() - started, resident() - before
    size = (tmp_path / "metrics.jsonl").stat().st_size
    print(f"{size / 1e9:.2f} GB of metrics: last line in {1000 * seconds:.1f} ms, {grown / 2**20:.1f} MiB")
    assert grown < 16 << 20


def test_two_hundred_epochs_take_no_more_memory_than_twenty(tmp_path):
    config = RunConfig(dataset="mnist_5k", train_size=1000, channels="8-8", dense_units="16", epochs=200)
    memory = []

    class Watch(Reporter):
        def epoch(self, metrics, epochs):
            memory.append(resident())

    started = time.monotonic()
    execute([config], "study", Options(workdir=str(tmp_path)), Watch())
    at = {epoch: f"{memory[epoch - 1] / 2**20:.0f}" for epoch in (1, 20, 50, 100, 150, 200)}
    print(f"200 epochs in {time.monotonic() - started:.0f} s; resident MiB by epoch: {at}")
    assert memory[-1] - memory[19] < 64 << 20


SWEEP = """
import sys
from convjax.config import RunConfig
from convjax.sweeps.options import Options
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.runner import run_sweep
from convjax.sweeps.sweep import Sweep
from tests.helpers.sweeps import Printer

base = RunConfig(dataset="mnist_5k", train_size=500, model="dense", dense_units="16", epochs=5)
arms = tuple((base.replace(seed=seed),) for seed in range(24))
run_sweep(Sweep("study", arms, Options(workdir=sys.argv[1])), SweepOptions(seed_mode="serial"), Printer())
"""


def test_eight_processes_share_a_store_and_do_every_run_once(tmp_path):
    started = time.monotonic()
    command, environment = [sys.executable, "-c", SWEEP, str(tmp_path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    out = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 8
    runs = [digest for text in out for digest in begun(text)]
    assert len(runs) == len(set(runs)) == 24
    assert all(run.damage() == {} and run.result()["status"] == "done" for run in find_runs([tmp_path]))
    shares = sorted(text.count("RUN") for text in out)
    print(f"8 processes, 24 runs in {time.monotonic() - started:.0f} s; runs by process: {shares}")
