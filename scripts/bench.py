"""How fast are we, side by side with the peers that are installed, on this machine, in one run.

python scripts/bench.py --peers=torch,keras-tensorflow --rounds=5

Every contender trains the chapter's network in a process of its own, which waits while another is measured; rounds go
through all of them in turn, so that a machine that speeds up or slows down does so for all. Medians are printed with
their range, and ratios are medians of the rounds' own ratios. `scripts/bench.sh` installs the peers in a venv of
their own and runs this.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from absl import flags

from convjax import cli
from convjax.config import UnavailableError, UserError

PEERS = {
    "torch": ("torch", "torch-channels_last"),
    "torch-compile": ("torch-compile",),
    "keras-tensorflow": ("keras-tensorflow",),
    "keras-jax": ("keras-jax",),
    "keras-torch": ("keras-torch",),
    "flax-naive": ("flax-naive",),
}
WORKER = Path(__file__).with_name("bench_peers.py")


@dataclasses.dataclass
class Contender:
    """A worker process and what was measured of it, in seconds; `failure` says why it could not be started."""

    name: str
    process: "subprocess.Popen[str] | None" = None
    failure: str = ""
    compile_seconds: float = 0.0
    peak_memory: float = 0.0
    accuracy: float = 0.0
    step: list[float] = dataclasses.field(default_factory=list)
    epoch: list[float] = dataclasses.field(default_factory=list)
    evaluate: list[float] = dataclasses.field(default_factory=list)
    job: list[float] = dataclasses.field(default_factory=list)

    def ask(self, words: str) -> dict[str, float]:
        """Has the worker do something and returns its answer."""
        assert self.process is not None
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(words + "\n")
        stdin.flush()
        answer = _next_answer(stdout)
        if answer is None:
            raise UnavailableError(f"{self.name} ended while it was measured")
        self.peak_memory = answer["peak_memory"]
        return answer


def _next_answer(stream: IO[str]) -> dict[str, float] | None:
    for line in stream:
        if line.startswith("{"):
            return json.loads(line)
    return None


def _start(name: str, data: Path, batch_size: int) -> Contender:
    command = [sys.executable, str(WORKER), name, str(data), str(batch_size)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    assert process.stdout is not None
    answer = _next_answer(process.stdout)
    if answer is None:
        assert process.stderr is not None
        lines = process.stderr.read().strip().splitlines()
        return Contender(name, failure=lines[-1] if lines else "it ended without a word")
    return Contender(name, process, compile_seconds=answer["compile_seconds"])


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def _job(name: str, data: Path, batch_size: int, epochs: int) -> float:
    """Wall seconds of a whole job, from the start of its process to its end."""
    command = [sys.executable, str(WORKER), name, str(data), str(batch_size), "job", str(epochs)]
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, env=_environment())
    return time.perf_counter() - start


def matmul_peak() -> float:
    """FLOPs a second of the machine's best large float32 matrix product, through XLA."""
    import jax
    import jax.numpy as jnp

    size = 2048
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _measure(values: Any, contenders: Sequence[Contender], data: Path) -> None:
    running = [contender for contender in contenders if not contender.failure]
    for contender in running:
        contender.ask(f"steps {min(50, values.steps)}")
    for number in range(values.rounds):
        # The order turns round by round: nobody always follows the same neighbour.
        turn = running[number % len(running) :] + running[: number % len(running)]
        for contender in turn:
            contender.step.append(contender.ask(f"steps {values.steps}")["seconds"] / values.steps)
            contender.epoch.append(contender.ask("epoch")["seconds"])
            answer = contender.ask("evaluate")
            contender.evaluate.append(answer["seconds"])
            contender.accuracy = answer["accuracy"]
        print(f"round {number + 1} of {values.rounds} done", file=sys.stderr)
    for contender in running:
        assert contender.process is not None
        contender.process.communicate()
    for number in range(values.jobs):
        for contender in running[number % len(running) :] + running[: number % len(running)]:
            contender.job.append(_job(contender.name, data, values.batch_size, values.epochs))


def _best(contenders: Sequence[Contender], peers: Sequence[str]) -> list[Contender]:
    """Of the modes of one peer the one with the quickest epochs."""
    chosen = []
    for peer in ("convjax", *peers):
        modes = [c for c in contenders if c.name in PEERS.get(peer, (peer,)) and not c.failure]
        if modes:
            chosen.append(min(modes, key=lambda c: statistics.median(c.epoch)))
    return chosen


def _row(ours: Contender, contender: Contender, read: Callable[[Contender], list[float]], unit: float) -> str:
    values = read(contender)
    if not values:
        return ""
    middle = statistics.median(values)
    ratio = statistics.median(a / b for a, b in zip(read(ours), values, strict=True))
    spread = f"{min(values) * unit:.4g} - {max(values) * unit:.4g}"
    return f"  {contender.name:<22} {middle * unit:>10.4g}  ({spread})  ours / theirs {ratio:.2f}"


def _print(contenders: Sequence[Contender], best: Sequence[Contender], peak: float, values: Any, tests: int) -> None:
    ours = best[0]
    for title, read, unit in (
        ("milliseconds a step", lambda c: c.step, 1e3),
        ("seconds an epoch", lambda c: c.epoch, 1.0),
        (f"seconds for the whole job of {values.epochs} epochs, process start to end", lambda c: c.job, 1.0),
        ("seconds for one evaluation of the test images", lambda c: c.evaluate, 1.0),
    ):
        rows = [row for contender in contenders if not contender.failure and (row := _row(ours, contender, read, unit))]
        if rows:
            print("\n".join([title, *rows]))
    print("compilation, or the first step, seconds; peak memory, MiB; test accuracy after the rounds")
    for contender in contenders:
        if contender.failure:
            print(f"  {contender.name:<22} not measured: {contender.failure}")
        else:
            memory = contender.peak_memory / 2**20
            print(f"  {contender.name:<22} {contender.compile_seconds:>8.2f}  {memory:>8.0f}  {contender.accuracy:.2%}")
    flops = 3 * 5_588_480 * values.batch_size / statistics.median(ours.step)
    print(f"evaluation: {tests / statistics.median(ours.evaluate):,.0f} images/s")
    print(
        f"matrix-product peak here: {peak / 1e9:.0f} GFLOP/s; a step of ours does the work of "
        f"{flops / 1e9:.0f} GFLOP/s of plain convolution ({flops / peak:.0%} of the peak)"
    )


def main(argv: list[str]) -> None:
    """Measures and prints."""
    import numpy as np

    from convjax import data

    values = flags.FLAGS
    peers = [peer.strip() for peer in values.peers.split(",") if peer.strip()]
    for peer in peers:
        if peer not in PEERS:
            raise UserError(f"--peers: {peer!r} is not known; expected some of {', '.join(PEERS)}")
    loaded = data.load(values.dataset, values.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(
            path,
            train_images=loaded.train.images,
            train_labels=loaded.train.labels,
            test_images=loaded.test.images,
            test_labels=loaded.test.labels,
        )
        names = ["convjax", *(name for peer in peers for name in PEERS[peer])]
        contenders = [_start(name, path, values.batch_size) for name in names]
        if contenders[0].failure:
            raise UnavailableError(f"convjax could not be started: {contenders[0].failure}")
        _measure(values, contenders, path)
        peak = matmul_peak()
    best = _best(contenders, peers)
    _print(contenders, best, peak, values, len(loaded.test.labels))
    if values.json:
        from convjax.files import write_json_atomic
        from convjax.training.backend import environment

        results = [dataclasses.asdict(dataclasses.replace(each, process=None)) for each in contenders]
        write_json_atomic(values.json, {"machine": environment(), "matmul_peak": peak, "contenders": results})


if __name__ == "__main__":
    flags.DEFINE_string("peers", "", f"who else to measure: {', '.join(PEERS)}")
    flags.DEFINE_integer("rounds", 5, "alternating rounds", 1)
    flags.DEFINE_integer("steps", 200, "steps of the short window", 1)
    flags.DEFINE_integer("jobs", 0, "rounds of whole jobs, each in a fresh process", 0)
    flags.DEFINE_integer("epochs", 5, "epochs of a job", 1)
    flags.DEFINE_integer("batch_size", 64, "images a step", 1)
    flags.DEFINE_string("dataset", "mnist", "see experiments.train")
    flags.DEFINE_string("data_dir", "", "see experiments.train")
    flags.DEFINE_string("json", "", "also write everything that was measured to this file")
    cli.run(main)
