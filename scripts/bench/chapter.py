"""`scripts/bench.py`: the chapter's run on this machine's CPU, beside its peers."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl.flags import FlagValues

from bench import ours, tables, task, workers
from bench.workers import Worker
from convjax import data
from convjax.errors import UnavailableError

TARGET_EPOCHS = 10
"""A contender that has not reached the target accuracy after so many epochs gives up."""


def measure(values: FlagValues, peers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Measures, prints, and returns all measurements. `peers` gives the modes in which each peer is measured.

    Raises:
      UnavailableError: our own process did not start.
    """
    dataset = data.load(values.dataset, values.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = task.save(dataset, folder)
        names = dict.fromkeys(["convjax", *(name for modes in peers.values() for name in modes)])
        started = [workers.start(name, path, values.batch_size) for name in names]
        if started[0].failure:
            raise UnavailableError(f"convjax could not be started: {started[0].failure}")
        running = [worker for worker in started if not worker.failure]
        if values.profile:
            running[0].ask("steps 50")
            running[0].ask(f"profile {Path(values.profile).absolute()} {values.steps}")
            print(f"trace of {values.steps} steps in {values.profile}: open it with xprof or TensorBoard's profiler")
        workers.measure_rounds(running, values.rounds, values.steps)
        for worker in running:
            worker.close()
        _measure_jobs(values, _best(running, peers), path)
    peak = _matmul_peak()
    print(tables.of_workers(running))
    print("median (range over the rounds); bold: our time over theirs, the median of the ratios within rounds")
    for worker in started:
        if worker.failure:
            print(f"{worker.name} not measured: {worker.failure}")
    print(_notes(running, peak, values, len(dataset.test.labels)))
    return {"matmul_peak": peak, "contenders": [worker.as_json() for worker in started]}


def _best(running: Sequence[Worker], peers: Mapping[str, Sequence[str]]) -> list[Worker]:
    """Ours, and of each peer's modes the one with the quickest epochs."""
    best = {"convjax": running[0]}
    for modes in peers.values():
        found = [worker for worker in running if worker.name in modes]
        if found:
            quickest = min(found, key=lambda worker: statistics.median(worker.measured["epoch"]))
            best[quickest.name] = quickest
    return list(best.values())


def _measure_jobs(values: FlagValues, chosen: Sequence[Worker], path: Path) -> None:
    arguments = path, values.batch_size
    for number in range(values.jobs):
        for worker in workers.turns(chosen, number):
            if worker.name == "convjax":
                done, accuracy = _our_job(values, number)
            else:
                done, answer = workers.job(worker.name, *arguments, values.epochs, 0, number)
                accuracy = answer["accuracy"]
            worker.measured["job"].append(done.seconds)
            worker.measured["job_memory"].append(done.peak_memory)
            worker.measured["job_accuracy"].append(accuracy)
        print(f"job {number + 1} of {values.jobs} done", file=sys.stderr)
    for number in range(values.target_jobs):
        for worker in workers.turns(chosen, number):
            done, answer = workers.job(worker.name, *arguments, TARGET_EPOCHS, values.target, number)
            reached = answer["accuracy"] >= values.target
            worker.measured["target"].append(done.seconds if reached else float("inf"))
            worker.measured["target_epochs"].append(answer["epochs"])
        print(f"job to {values.target:.0%} {number + 1} of {values.target_jobs} done", file=sys.stderr)


def _our_job(values: FlagValues, seed: int) -> tuple[workers.Job, float]:
    """`experiments.train` with all that it does (metrics, checkpoints, result), compiled anew; and its accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {name: values[name].value for name in ("dataset", "data_dir", "batch_size", "epochs")}
        flags = [f"--{name}={value}" for name, value in {**settings, "seed": seed, "workdir": folder}.items()]
        done = workers.run(
            [sys.executable, "-m", "experiments.train", *flags],
            JAX_COMPILATION_CACHE_DIR=str(Path(folder) / "compiled"),
        )
        [result] = Path(folder).rglob("result.json")
        return done, json.loads(result.read_text())["test_accuracy"]


def _matmul_peak() -> float:
    """FLOPs a second of the machine's best large float32 matrix product, through XLA."""
    size = 2048
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _notes(running: Sequence[Worker], peak: float, values: FlagValues, tests: int) -> str:
    measured = running[0].measured
    rate = ours.step_flops(values.batch_size) / statistics.median(measured["step"])
    notes = [
        f"evaluation: {tests / statistics.median(measured['evaluate']):,.0f} images/s",
        f"matrix-product peak here: {peak / 1e9:.0f} GFLOP/s; our step does the work of {rate / 1e9:.0f} GFLOP/s of "
        f"plain convolution ({rate / peak:.0%} of the peak)",
    ]
    for worker in running:
        accuracies, epochs = worker.measured["job_accuracy"], worker.measured["target_epochs"]
        if accuracies:
            notes.append(f"{worker.name}: test accuracies of the jobs {', '.join(f'{a:.2%}' for a in accuracies)}")
        if epochs:
            notes.append(f"{worker.name}: epochs to {values.target:.0%}: {', '.join(f'{e:g}' for e in epochs)}")
    return "\n".join(notes)
