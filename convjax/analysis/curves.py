"""Learning curves: from the metrics of single runs to one DataFrame per arm."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from convjax.analysis.arms import Arms
from convjax.errors import UserError
from convjax.sweeps.store import Run

Lines = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl of one run."""


def read_lines(arms: Arms) -> list[dict[int, Lines]]:
    """For every arm the metrics of each finished run by seed; runs whose metrics are missing or damaged have none."""
    return [{seed: _lines(path) for seed, path in arm.paths.items()} for arm in arms.arms]


def arm_curve(lines: Mapping[int, Lines], name: str) -> pd.DataFrame:
    """A quantity of an arm, such as `train_loss`, `[epochs, seeds]`: NaN where a seed did not reach an epoch.

    Epochs ascend. Seeds and epochs without any value are left out, so the frame may be empty.
    """
    values = {seed: {line["epoch"]: line.get(name) for line in by_epoch} for seed, by_epoch in lines.items()}
    curve = pd.DataFrame(values, dtype=float).replace([math.inf, -math.inf], math.nan)
    return curve.dropna(how="all").dropna(axis=1, how="all").sort_index()


def mean_curve(curve: pd.DataFrame) -> pd.Series:
    """Over the seeds; NaN in epochs that not every seed reached, because there the mean would jump."""
    return curve.mean(axis=1).where(curve.notna().all(axis=1))


def _lines(path: str) -> Lines:
    try:
        return Run(Path(path)).metrics()
    except (UserError, OSError):
        return []
