"""Learning curves: from the metrics of single runs to one curve an arm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from convjax.analysis.arms import DIVERGED, DONE, Arms
from convjax.config import FIELD_NAMES, field_type
from convjax.errors import UserError
from convjax.sweeps.store import Run

Lines = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl of one run."""


@dataclass(frozen=True)
class Curve:
    """One quantity of an arm by epoch.

    Attributes:
      epochs: the epochs that some seed reached, ascending, `[epochs]`.
      mean: over the seeds, NaN in epochs that not every seed reached: there it would jump.
      low, high: extremes over the seeds that reached the epoch.
      paths: epochs and values of each seed: a seed that diverged ends before the others.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    paths: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.paths)


def field_value(name: str, value: Any) -> Any:
    """A value of a table of runs as an arm's key has it: a column with gaps holds its integers as floats."""
    return field_type(name)(value) if name in FIELD_NAMES else str(value)


def run_paths(frame: pd.DataFrame, arms: Arms) -> list[dict[int, str]]:
    """For every arm the folder of each of its seeds' finished runs: those whose values the arm holds.

    Args:
      frame: what `arms` was made from, one row a run.
    """
    order = {DONE: 0, DIVERGED: 1}
    index = {arm.key: position for position, arm in enumerate(arms.arms)}
    found: list[dict[int, str]] = [{} for _ in arms.arms]
    finished = frame[frame["status"].isin(order) & frame["seed"].notna()]
    # Of copies of a run the first by path counts, a run that is done before one that diverged, as in `group_runs`.
    rows = sorted(finished.to_dict("records"), key=lambda row: (order[row["status"]], str(row["path"])))
    for row in rows:
        key = tuple(field_value(name, row[name]) for name in arms.by)
        if key in index:
            found[index[key]].setdefault(int(row["seed"]), str(row["path"]))
    return found


def read_lines(paths: Sequence[Mapping[int, str]]) -> list[dict[int, Lines]]:
    """The metrics of every run of every arm; runs whose metrics are missing or damaged have none."""
    return [{seed: _lines(path) for seed, path in by_seed.items()} for by_seed in paths]


def arm_curve(lines: Mapping[int, Lines], name: str) -> Curve | None:
    """The curve of a quantity, such as `train_loss`; None where no line of any seed has it."""
    values: list[dict[int, float]] = []
    for by_epoch in lines.values():
        points = {line["epoch"]: float(line[name]) for line in by_epoch if line.get(name) is not None}
        points = {epoch: value for epoch, value in points.items() if math.isfinite(value)}
        if points:
            values.append(points)
    if not values:
        return None
    epochs = sorted({epoch for points in values for epoch in points})
    columns = [[points[epoch] for points in values if epoch in points] for epoch in epochs]
    return Curve(
        epochs=np.array(epochs),
        mean=np.array(
            [math.fsum(column) / len(column) if len(column) == len(values) else np.nan for column in columns]
        ),
        low=np.array([min(column) for column in columns]),
        high=np.array([max(column) for column in columns]),
        paths=tuple((tuple(sorted(points)), tuple(points[epoch] for epoch in sorted(points))) for points in values),
    )


def _lines(path: str) -> Lines:
    try:
        return Run(Path(path)).metrics()
    except (UserError, OSError):
        return []
