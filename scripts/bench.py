"""How fast are we, side by side with the peers that are installed, on this machine, in one run.

python scripts/bench.py --peers=torch,keras-tensorflow --rounds=5 --jobs=5

Every contender trains the chapter's network in a process of its own, which waits while another is measured; rounds go
through all of them in turn, so that a machine that speeds up or slows down does so for all. Medians are printed with
their range, and ratios are medians of the rounds' own ratios. `--conv_grid` measures single convolutions instead.
`scripts/bench.sh` installs the peers in a venv of their own and runs this.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_workers
from absl import flags
from bench_workers import Worker

from convjax.config import RunConfig
from convjax.errors import UnavailableError, UserError
from convjax.flags import run_program

if TYPE_CHECKING:
    from convjax.data import Dataset

PEERS = {
    "torch": ("torch", "torch-channels_last"),
    "torch-compile": ("torch-compile",),
    "keras": ("keras-tensorflow",),
    "keras-tensorflow": ("keras-tensorflow",),
    "keras-jax": ("keras-jax",),
    "keras-torch": ("keras-torch",),
    "flax-naive": ("flax-naive",),
}
TARGET_EPOCHS = 10
"""Epochs after which a contender that has not reached the target accuracy gives up."""


@dataclasses.dataclass
class Contender:
    """What was measured of a worker: seconds, bytes and accuracies, one entry a round.

    Attributes:
      step, epoch, evaluate: of a short window, a whole epoch, all test images.
      job: whole processes, from start to end, with `job_memory` their largest resident set.
      target: the same until the target accuracy is reached, and `target_epochs` how many epochs that took.
    """

    worker: Worker
    step: list[float] = dataclasses.field(default_factory=list)
    epoch: list[float] = dataclasses.field(default_factory=list)
    evaluate: list[float] = dataclasses.field(default_factory=list)
    job: list[float] = dataclasses.field(default_factory=list)
    job_memory: list[float] = dataclasses.field(default_factory=list)
    job_accuracy: list[float] = dataclasses.field(default_factory=list)
    target: list[float] = dataclasses.field(default_factory=list)
    target_epochs: list[float] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """`convjax` or a peer's mode."""
        return self.worker.name

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        lists = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {"name": self.name, "failure": self.worker.failure, "ready": self.worker.first, **lists}


def matmul_peak() -> float:
    """FLOPs a second of the machine's best large float32 matrix product, through XLA."""
    import jax
    import jax.numpy as jnp

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


def _measure_jobs(values: Any, contenders: Sequence[Contender], data: Path) -> None:
    by_name = {each.name: each for each in contenders}
    workers = [each.worker for each in contenders]
    arguments = [data, values.batch_size]
    for number in range(values.jobs):
        for worker in bench_workers.turns(workers, number):
            each = by_name[worker.name]
            if worker.name == "convjax":
                done, accuracy = _our_job(values, number)
            else:
                done, answer = bench_workers.job(worker.name, [*arguments, values.epochs, 0, number])
                accuracy = answer["accuracy"]
            each.job.append(done.seconds)
            each.job_memory.append(done.peak_memory)
            each.job_accuracy.append(accuracy)
        print(f"job {number + 1} of {values.jobs} done", file=sys.stderr)
    for number in range(values.target_jobs):
        for worker in bench_workers.turns(workers, number):
            done, answer = bench_workers.job(worker.name, [*arguments, TARGET_EPOCHS, values.target, number])
            reached = answer["accuracy"] >= values.target
            by_name[worker.name].target.append(done.seconds if reached else float("inf"))
            by_name[worker.name].target_epochs.append(answer["epochs"])
        print(f"job to {values.target:.0%} {number + 1} of {values.target_jobs} done", file=sys.stderr)


def _our_job(values: Any, seed: int) -> tuple[bench_workers.Job, float]:
    """`experiments.train` with all it does (metrics, checkpoints, result), compiled anew; and its test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "dataset": values.dataset,
            "data_dir": values.data_dir,
            "batch_size": values.batch_size,
            "epochs": values.epochs,
            "seed": seed,
            "workdir": folder,
        }
        command = [
            sys.executable,
            "-m",
            "experiments.train",
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        done = bench_workers.run(command, JAX_COMPILATION_CACHE_DIR=str(Path(folder) / "compiled"))
        [result] = Path(folder).glob("train/*/result.json")
        return done, json.loads(result.read_text())["test_accuracy"]


def _best(contenders: Sequence[Contender], peers: Sequence[str]) -> list[Contender]:
    """Ours, and of the modes of each peer the one with the quickest epochs."""
    chosen = []
    for peer in ("convjax", *peers):
        modes = [each for each in contenders if each.name in PEERS.get(peer, (peer,))]
        if modes:
            best = min(modes, key=lambda each: statistics.median(each.epoch))
            chosen += [best] if best not in chosen else []
    return chosen


QUANTITIES: tuple[tuple[str, Callable[[Contender], list[float]], float], ...] = (
    ("compiling or first step, s", lambda c: [c.worker.first["compile_seconds"]], 1),
    ("a step, ms", lambda c: c.step, 1e3),
    ("an epoch, s", lambda c: c.epoch, 1),
    ("evaluation, s", lambda c: c.evaluate, 1),
    ("whole job, s", lambda c: c.job, 1),
    ("whole job, peak MiB", lambda c: c.job_memory, 2**-20),
    ("job to the target accuracy, s", lambda c: c.target, 1),
)


def _table(contenders: Sequence[Contender]) -> str:
    """Markdown, a row for each quantity: median, range, and our time over theirs."""
    ours = contenders[0]
    names = [each.name for each in contenders]
    lines = [f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for title, read, unit in QUANTITIES:
        if not any(read(each) for each in contenders):
            continue
        row = []
        for each in contenders:
            values = [value * unit for value in read(each)]
            if not values:
                row.append("")
                continue
            text = f"{statistics.median(values):.4g} ({min(values):.4g} - {max(values):.4g})"
            row.append(text if each is ours else f"{text}; **{bench_workers.ratio(read(ours), read(each)):.2f}**")
        lines.append(f"| {title} | {' | '.join(row)} |")
    return "\n".join(lines)


def _notes(contenders: Sequence[Contender], peak: float, values: Any, tests: int) -> str:
    from convjax.nn.geometry import plan, total_flops

    ours = contenders[0]
    # Backward takes two products where forward takes one: to the weights and to the input.
    flops = 3 * total_flops(plan(RunConfig(), (28, 28, 1), 10)) * values.batch_size / statistics.median(ours.step)
    notes = [
        f"evaluation: {tests / statistics.median(ours.evaluate):,.0f} images/s",
        f"matrix-product peak here: {peak / 1e9:.0f} GFLOP/s; a step of ours does the work of "
        f"{flops / 1e9:.0f} GFLOP/s of plain convolution ({flops / peak:.0%} of the peak)",
    ]
    for each in contenders:
        if each.job_accuracy:
            notes.append(f"{each.name}: test accuracies of the jobs {', '.join(f'{a:.2%}' for a in each.job_accuracy)}")
        if each.target:
            notes.append(
                f"{each.name}: epochs to {values.target:.0%}: {', '.join(f'{e:g}' for e in each.target_epochs)}"
            )
    return "\n".join(notes)


def _save(loaded: "Dataset", folder: str) -> Path:
    """The data set as the workers read it."""
    import numpy as np

    path = Path(folder) / "data.npz"
    np.savez(
        path,
        train_images=loaded.train.images,
        train_labels=loaded.train.labels,
        test_images=loaded.test.images,
        test_labels=loaded.test.labels,
    )
    return path


def _accelerator(values: Any, peers: Sequence[str]) -> dict[str, Any]:
    """Measures on an accelerator, writes its page, and returns everything for --json."""
    import bench_accelerator

    from convjax import data

    loaded = data.load(values.dataset, values.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        return bench_accelerator.measure(values, _save(loaded, folder), loaded, torch="torch" in peers)


def _training(values: Any, peers: Sequence[str]) -> dict[str, Any]:
    """Measures the chapter's run, prints, and returns everything for --json."""
    from convjax import data

    loaded = data.load(values.dataset, values.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = _save(loaded, folder)
        names = dict.fromkeys(["convjax", *(name for peer in peers for name in PEERS[peer])])
        contenders = [Contender(bench_workers.start(name, [str(path), str(values.batch_size)])) for name in names]
        if contenders[0].worker.failure:
            raise UnavailableError(f"convjax could not be started: {contenders[0].worker.failure}")
        running = [each for each in contenders if not each.worker.failure]
        if values.profile:
            running[0].worker.ask("steps 50")
            running[0].worker.ask(f"profile {Path(values.profile).absolute()} {values.steps}")
            print(f"trace of {values.steps} steps in {values.profile}: open it with xprof or TensorBoard's profiler")
        bench_workers.measure_rounds(values.rounds, values.steps, [(each.worker, each) for each in running])
        for each in running:
            each.worker.close()
        _measure_jobs(values, _best(running, peers), path)
    peak = matmul_peak()
    print(_table(running))
    print("median (range over the rounds); bold: our time over theirs, the median of the rounds' own ratios")
    for each in contenders:
        if each.worker.failure:
            print(f"{each.name} not measured: {each.worker.failure}")
    print(_notes(running, peak, values, len(loaded.test.labels)))
    return {"matmul_peak": peak, "contenders": [each.as_json() for each in contenders]}


def _grid(values: Any, peers: Sequence[str]) -> dict[str, Any]:
    """Measures the grid of convolutions, prints, and returns everything for --json."""
    import bench_grid

    try:
        batches = [int(batch) for batch in values.grid_batches.split(",")]
        if min(batches) < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--grid_batches={values.grid_batches}: expected positive numbers such as 64,256") from None
    grid = bench_grid.measure(peers, batches, values.rounds)
    print(bench_grid.table(grid))
    return {"grid": bench_grid.as_json(grid)}


def _streaming(values: Any) -> dict[str, Any]:
    """Measures streamed epochs against resident ones, prints, and returns everything for --json."""
    import bench_streaming

    from convjax import data

    loaded = data.load(values.dataset, values.data_dir)
    seconds = bench_streaming.measure(loaded, batch_size=values.batch_size, rounds=values.rounds)
    print(bench_streaming.table(seconds))
    return {"seconds_an_epoch": seconds}


def main(argv: list[str]) -> None:
    """Measures and prints."""
    values = flags.FLAGS
    peers = [peer.strip() for peer in values.peers.split(",") if peer.strip()]
    for peer in peers:
        if peer not in PEERS:
            raise UserError(f"--peers: {peer!r} is not known; expected some of {', '.join(PEERS)}")
    if values.platform:
        results = _accelerator(values, peers)
    elif values.streaming:
        results = _streaming(values)
    else:
        results = _grid(values, peers) if values.conv_grid else _training(values, peers)

    from convjax.files import write_json_atomic
    from convjax.training.backend import environment

    machine = environment()
    print(f"on {machine['processor']}, {machine['cpus']} CPUs, JAX {machine['versions']['jax']}")
    if values.json:
        write_json_atomic(values.json, {"machine": machine, **results})


if __name__ == "__main__":
    flags.DEFINE_string("peers", "", f"who else to measure: {', '.join(PEERS)}")
    flags.DEFINE_integer("rounds", 5, "alternating rounds", 1)
    flags.DEFINE_integer("steps", 200, "steps of the short window", 1)
    flags.DEFINE_integer("jobs", 0, "rounds of whole jobs, each in a fresh process; of a peer only its best mode", 0)
    flags.DEFINE_integer("epochs", 5, "epochs of a job", 1)
    flags.DEFINE_integer("target_jobs", 0, "rounds of jobs that end with the epoch that reaches --target", 0)
    flags.DEFINE_float("target", 0.99, "test accuracy", 0, 1)
    flags.DEFINE_integer("batch_size", 64, "images a step", 1)
    flags.DEFINE_bool("conv_grid", False, "single convolutions, forward and backward, against XLA's and PyTorch's")
    flags.DEFINE_string("grid_batches", "64,256,1024", "batch sizes of --conv_grid")
    flags.DEFINE_enum("platform", "", ["", "gpu", "tpu", "cpu"], "measure on this, also seeds trained at once")
    flags.DEFINE_list("seed_counts", ["1", "8", "64", "256"], "how many seeds --platform trains at once")
    flags.DEFINE_string("page", "", "where --platform writes its table; experiments/results/PLATFORM.md by default")
    flags.DEFINE_bool("streaming", False, "streamed images against resident ones; no peers")
    flags.DEFINE_string("profile", "", "also write a JAX trace of --steps steps of ours into this folder")
    flags.DEFINE_string("dataset", "mnist", "see experiments.train")
    flags.DEFINE_string("data_dir", "", "see experiments.train")
    flags.DEFINE_string("json", "", "also write everything that was measured to this file")
    run_program(main)
