"""`scripts/bench.py --streaming`: an epoch with images streamed from the memory-mapped file, against resident ones.

Both alternate in one process. Besides the chapter's network it measures the dense one: its steps are so short that
waiting for images would show most.
"""

import sys
from typing import Any

from absl.flags import FlagValues

from bench import ours, tables, workers
from convjax import data
from convjax.config import RunConfig

_WAYS = {"resident": False, "streamed": True}


def measure(values: FlagValues) -> dict[str, Any]:
    """Measures, prints, and returns the seconds an epoch by network and way: `--rounds` after one to warm up."""
    dataset = data.load(values.dataset, values.data_dir)
    seconds: dict[str, dict[str, list[float]]] = {}
    for model in ("convnet", "dense"):
        config = RunConfig(dataset=dataset.name, model=model, batch_size=values.batch_size, epochs=1)
        found = seconds[model] = {way: [] for way in _WAYS}
        for number in range(values.rounds + 1):
            for way in list(_WAYS)[:: 1 if number % 2 else -1]:
                found[way].append(ours.epoch_seconds(config, dataset, streaming=_WAYS[way]))
            print(f"{model}: round {number} of {values.rounds} done", file=sys.stderr)
        for way in _WAYS:
            del found[way][0]
    print(_table(seconds))
    return {"seconds_an_epoch": seconds}


def _table(seconds: dict[str, dict[str, list[float]]]) -> str:
    lines = ["| | s an epoch | streamed / resident |", "|---|---|---|"]
    for model, found in seconds.items():
        for way, times in found.items():
            ratio = workers.ratio(times, found["resident"])
            lines.append(f"| {model}, {way} | {tables.spread(times)} | {ratio:.2f} |")
    return "\n".join(lines)
