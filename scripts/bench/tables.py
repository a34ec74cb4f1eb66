"""Markdown of what was measured."""

import statistics
from collections.abc import Callable, Sequence

from bench.workers import Worker, ratio

# Title, values, factor from seconds or bytes to the title's unit.
_ROWS: tuple[tuple[str, Callable[[Worker], list[float]], float], ...] = (
    ("compiling or first step, s", lambda worker: [worker.ready["compile_seconds"]], 1),
    ("a step, ms", lambda worker: worker.measured["step"], 1e3),
    ("an epoch, s", lambda worker: worker.measured["epoch"], 1),
    ("evaluation, s", lambda worker: worker.measured["evaluate"], 1),
    ("whole job, s", lambda worker: worker.measured["job"], 1),
    ("whole job, peak MiB", lambda worker: worker.measured["job_memory"], 2**-20),
    ("job to the target accuracy, s", lambda worker: worker.measured["target"], 1),
)


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """The median and the range."""
    low, middle, high = (value * unit for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.4g} ({low:.4g} - {high:.4g})"


def of_workers(workers: Sequence[Worker]) -> str:
    """A row for each quantity, a column for each worker: median, range, and the first one's time over its own."""
    ours = workers[0]
    lines = [f"| | {' | '.join(worker.name for worker in workers)} |", "|---" * (1 + len(workers)) + "|"]
    for title, read, unit in _ROWS:
        cells = []
        for worker in workers:
            values = read(worker)
            versus = "" if worker is ours or not values else f"; **{ratio(read(ours), values):.2f}**"
            cells.append(spread(values, unit) + versus if values else "")
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)
