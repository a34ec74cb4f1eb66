"""scripts/bench.py --conv_grid: single convolutions, forward and backward, against XLA's and PyTorch's."""

import dataclasses
import itertools
import statistics
import sys
from collections.abc import Sequence

import bench_workers

from convjax.errors import UnavailableError

KERNELS, PADDINGS, STRIDES = (1, 2, 3, 4, 5, 6, 7), ("valid", "same"), (1, 2, 3)
SIZE, CHANNELS, FILTERS = 13, 32, 64
"""Of the chapter's second convolution."""

SECONDS = 0.1
"""About how long one measurement takes."""


@dataclasses.dataclass
class Measured:
    """Seconds an iteration of one cell, a list of rounds for each contender."""

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
        """Ours over the quickest other."""
        return bench_workers.ratio(self.seconds["convjax"], self.seconds[self.rival])


def measure(peers: Sequence[str], batches: Sequence[int], rounds: int) -> list[Measured]:
    """Every cell of the grid, on images of `SIZE` x `SIZE` x `CHANNELS`, to `FILTERS` channels."""
    names = ["convjax", "xla", *(name for name in ("torch", "torch-channels_last") if "torch" in peers)]
    workers = []
    for worker in [bench_workers.start(name, ["grid"]) for name in names]:
        if worker.failure:
            print(f"{worker.name} not measured: {worker.failure}", file=sys.stderr)
        else:
            workers.append(worker)
    if not workers or workers[0].name != "convjax" or len(workers) < 2:
        raise UnavailableError("nobody to compare with could be started")
    grid = []
    for batch, kernel, padding, stride in itertools.product(batches, KERNELS, PADDINGS, STRIDES):
        counts = {}
        for worker in workers:
            worker.ask(f"cell {batch} {kernel} {padding} {stride} {SIZE} {CHANNELS} {FILTERS}")
            worker.ask("iterate 1")
            once = worker.ask("iterate 2")["seconds"] / 2
            counts[worker.name] = max(1, round(SECONDS / once))
        cell = Measured(batch, kernel, padding, stride, {worker.name: [] for worker in workers})
        for number in range(rounds):
            for worker in bench_workers.turns(workers, number):
                count = counts[worker.name]
                cell.seconds[worker.name].append(worker.ask(f"iterate {count}")["seconds"] / count)
        grid.append(cell)
        print(_row(cell), file=sys.stderr)
    for worker in workers:
        worker.close()
    return grid


def _row(cell: Measured) -> str:
    medians = "  ".join(f"{name} {statistics.median(each) * 1e3:.2f}" for name, each in cell.seconds.items())
    label = f"batch {cell.batch}, {cell.kernel_size}x{cell.kernel_size} {cell.padding}, stride {cell.stride}"
    return f"{label:<36} {cell.ratio:5.2f} x {cell.rival:<20} ms: {medians}"


def _picked(kernel: int, padding: str, stride: int) -> str:
    """How `--conv=auto` computes the cell on CPU: `patches`, `F(m, r)`, or that in two groups of kernel columns."""
    from convjax.nn.conv import tiling
    from convjax.nn.geometry import output_size

    columns = output_size(SIZE, kernel, stride, padding)
    tile, groups = tiling((kernel, kernel, CHANNELS, FILTERS), stride, columns)
    return "patches" if tile == 1 else f"F({tile}, {-(-kernel // (groups * stride))})" + " x 2" * (groups == 2)


def table(grid: Sequence[Measured]) -> str:
    """Markdown: our time over the quickest other's, a row for each window, padding and stride."""
    batches = list(dict.fromkeys(cell.batch for cell in grid))
    columns = " | ".join(f"batch {batch}: ms | / quickest other | which" for batch in batches)
    lines = [f"| window | padding | stride | computed by | {columns} |", "|---" * (4 + 3 * len(batches)) + "|"]
    for kernel, padding, stride in itertools.product(KERNELS, PADDINGS, STRIDES):
        row = [c for c in grid if (c.kernel_size, c.padding, c.stride) == (kernel, padding, stride)]
        entries = " | ".join(
            f"{statistics.median(c.seconds['convjax']) * 1e3:.2f} | {c.ratio:.2f} | {c.rival}" for c in row
        )
        lines.append(f"| {kernel}x{kernel} | {padding} | {stride} | {_picked(kernel, padding, stride)} | {entries} |")
    slower = [cell for cell in grid if cell.ratio > 1.05]
    lines += [
        "",
        f"{len(grid) - len(slower)} of {len(grid)} cells take at most 1.05 times the quickest other's time.",
        *(f"- slower: {_row(cell)}" for cell in slower),
    ]
    return "\n".join(lines)


def as_json(grid: Sequence[Measured]) -> list[dict[str, object]]:
    """Everything that was measured."""
    return [{**dataclasses.asdict(cell), "ratio": cell.ratio, "rival": cell.rival} for cell in grid]
