"""`scripts/bench.py --streaming`: an epoch with its images streamed from the memory-mapped file, against resident ones.

Both ways take turns in one process. The chapter's network is measured, and the dense one, whose steps are so short
that waiting for images would tell most.
"""

import statistics
import sys
from typing import Any

import bench_workers

from convjax.config import RunConfig
from convjax.data import Dataset

_WAYS = {"resident": False, "streamed": True}


def measure(dataset: Dataset, *, batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds an epoch by network and way, `rounds` of each after one to warm up."""
    from convjax.training import backend, loop

    backend.enable_compilation_cache()
    seconds: dict[str, dict[str, list[float]]] = {}
    for model in ("convnet", "dense"):
        config = RunConfig(dataset=dataset.name, model=model, batch_size=batch_size, epochs=1)
        found = seconds[model] = {way: [] for way in _WAYS}
        for number in range(rounds + 1):
            # The order turns round by round, as everywhere in this benchmark.
            for way in list(_WAYS)[:: 1 if number % 2 else -1]:

                def note(index: int, metrics: loop.EpochMetrics, state: Any, to: list[float] = found[way]) -> None:
                    to.append(metrics.seconds)

                loop.fit([config], dataset, streaming=_WAYS[way], on_epoch=note)
            print(f"{model}: round {number} of {rounds} done", file=sys.stderr)
        for way in _WAYS:
            del found[way][0]
    return seconds


def table(seconds: dict[str, Any]) -> str:
    """Markdown: of each network and way the median, its range and the ratio of the rounds."""
    lines = ["| | s an epoch | streamed / resident |", "|---|---|---|"]
    for model, found in seconds.items():
        for way, values in found.items():
            ratio = f"{bench_workers.ratio(values, found['resident']):.2f}"
            middle, spread = statistics.median(values), f"{min(values):.4g} - {max(values):.4g}"
            lines.append(f"| {model}, {way} | {middle:.4g} ({spread}) | {ratio} |")
    return "\n".join(lines)
