"""`scripts/bench.py --conv_grid`: single convolutions, forward and backward, against XLA's and PyTorch's."""

import dataclasses
import itertools
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from absl.flags import FlagValues

from bench import ours, workers
from bench.workers import Worker
from convjax.errors import UnavailableError

KERNELS, PADDINGS, STRIDES = (1, 2, 3, 4, 5, 6, 7), ("valid", "same"), (1, 2, 3)
SIZE, CHANNELS, FILTERS = 13, 32, 64
"""Of the chapter's second convolution."""

SECONDS = 0.1
"""About how long one measurement takes."""


@dataclasses.dataclass
class Measured:
    """Seconds an iteration of one convolution: for each contender a list, an entry a round."""

    batch: int
    kernel_size: int
    padding: str
    stride: int
    seconds: dict[str, list[float]]

    @property
    def rival(self) -> str:
        """The quickest of the others."""
        others = [name for name in self.seconds if name != "convjax"]
        return min(others, key=lambda name: statistics.median(self.seconds[name]))

    @property
    def ratio(self) -> float:
        """Our time over the quickest other's."""
        return workers.ratio(self.seconds["convjax"], self.seconds[self.rival])

    def line(self) -> str:
        """All medians."""
        medians = "  ".join(f"{name} {statistics.median(each) * 1e3:.2f}" for name, each in self.seconds.items())
        label = f"batch {self.batch}, {self.kernel_size}x{self.kernel_size} {self.padding}, stride {self.stride}"
        return f"{label:<36} {self.ratio:5.2f} x {self.rival:<20} ms: {medians}"


def measure(values: FlagValues, *, torch: bool) -> dict[str, Any]:
    """Measures every convolution of the grid, prints, and returns all measurements.

    Raises:
      UnavailableError: neither XLA's nor PyTorch's process started.
    """
    batches = workers.numbers("grid_batches", values.grid_batches)
    names = ["convjax", "xla", *(("torch", "torch-channels_last") if torch else ())]
    started = [workers.start(name, "grid") for name in names]
    for worker in started:
        if worker.failure:
            print(f"{worker.name} not measured: {worker.failure}", file=sys.stderr)
    running = [worker for worker in started if not worker.failure]
    if started[0].failure or len(running) < 2:
        raise UnavailableError("no two contenders could be started")
    grid = []
    for batch, kernel, padding, stride in itertools.product(batches, KERNELS, PADDINGS, STRIDES):
        cell = Measured(batch, kernel, padding, stride, {worker.name: [] for worker in running})
        _measure(cell, running, values.rounds)
        grid.append(cell)
        print(cell.line(), file=sys.stderr)
    for worker in running:
        worker.close()
    print(_table(grid, batches))
    return {"grid": [{**dataclasses.asdict(cell), "ratio": cell.ratio, "rival": cell.rival} for cell in grid]}


def _measure(cell: Measured, running: Sequence[Worker], rounds: int) -> None:
    counts = {}
    for worker in running:
        worker.ask(f"cell {cell.batch} {cell.kernel_size} {cell.padding} {cell.stride} {SIZE} {CHANNELS} {FILTERS}")
        worker.ask("iterate 1")
        once = worker.ask("iterate 2")["seconds"] / 2
        counts[worker.name] = max(1, round(SECONDS / once))
    for number in range(rounds):
        for worker in workers.turns(running, number):
            count = counts[worker.name]
            cell.seconds[worker.name].append(worker.ask(f"iterate {count}")["seconds"] / count)


def _table(grid: Sequence[Measured], batches: Sequence[int]) -> str:
    """Our time over the quickest other's: a row for each window, padding and stride."""
    columns = " | ".join(f"batch {batch}: ms | / quickest other | which" for batch in batches)
    lines = [f"| window | padding | stride | computed by | {columns} |", "|---" * (4 + 3 * len(batches)) + "|"]
    for kernel, padding, stride in itertools.product(KERNELS, PADDINGS, STRIDES):
        row = [c for c in grid if (c.kernel_size, c.padding, c.stride) == (kernel, padding, stride)]
        entries = " | ".join(
            f"{statistics.median(c.seconds['convjax']) * 1e3:.2f} | {c.ratio:.2f} | {c.rival}" for c in row
        )
        algorithm = ours.algorithm(kernel, padding, stride, SIZE, (CHANNELS, FILTERS))
        lines.append(f"| {kernel}x{kernel} | {padding} | {stride} | {algorithm} | {entries} |")
    slower = [cell for cell in grid if cell.ratio > 1.05]
    return "\n".join(
        [
            *lines,
            "",
            f"{len(grid) - len(slower)} of {len(grid)} cells take at most 1.05 times the quickest other's time.",
            *(f"- slower: {cell.line()}" for cell in slower),
        ]
    )
