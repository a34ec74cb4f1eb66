"""Two single runs on the same test images: McNemar's exact test, and its table.

It compares two trained models only. It does not know how much another seed would change them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from convjax.analysis.arms import FINISHED
from convjax.analysis.columns import p_text, with_interval
from convjax.analysis.comparisons import BASELINE
from convjax.analysis.metrics import ABSENT, metric_named
from convjax.analysis.render import Table
from convjax.analysis.statistics import ALPHA, BETTER, LEVEL, NOT_SHOWN, WORSE, Interval
from convjax.analysis.wording import field_text
from convjax.config import FIELD_NAMES
from convjax.errors import UserError


@dataclass(frozen=True)
class McNemar:
    """Two trained models on the same test images.

    Attributes:
      n: images; both_right, only_first, only_second, both_wrong: how many of them each got right.
      difference: accuracy of the second - accuracy of the first.
      interval: exact interval of the difference, given the number of discordant images; None if that is 0.
      p_value: McNemar's exact two-sided test; 1 where no image is discordant.
    """

    n: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    difference: float
    interval: Interval | None
    p_value: float


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """McNemar's exact test of two models on the same images.

    Args:
      first_right, second_right: [images] booleans, whether each model was right, in the same order of images.

    Raises:
      ValueError: the shapes differ, or there is no image.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"two equally long vectors are needed, not shapes {first.shape} and {second.shape}")
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    discordant = only_first + only_second
    p_value, interval = 1.0, None
    if discordant:
        test = stats.binomtest(only_second, discordant, 0.5)
        share = test.proportion_ci(LEVEL, method="exact")
        # Of the discordant images a share s is right in the second: the difference is (2s - 1) of them.
        low, high = ((2 * end - 1) * discordant / first.size for end in (share.low, share.high))
        p_value, interval = float(test.pvalue), Interval(float(low), float(high), "exact")
    return McNemar(
        n=first.size,
        both_right=int(np.sum(first & second)),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int(np.sum(~first & ~second)),
        difference=(only_second - only_first) / first.size,
        interval=interval,
        p_value=p_value,
    )


def mcnemar_table(frame: pd.DataFrame, first: str, second: str, read_correct: Callable[[Any], ArrayLike]) -> Table:
    """Where two runs disagree, and McNemar's exact test.

    Args:
      frame: one row per run.
      first, second: their digests, or prefixes that fit one run only.
      read_correct: from a run's folder to [images] booleans, as `convjax.sweeps.read_correct`.

    Raises:
      UserError: a digest fits no finished run or several, both are one run, or the runs use different data.
    """
    runs = [_run_of(frame, digest) for digest in (first, second)]
    if runs[0]["digest"] == runs[1]["digest"]:
        raise UserError(f"--mcnemar={first},{second}: both are the run {runs[0]['digest']}; name two different runs")
    if any(runs[0][name] != runs[1][name] for name in ("dataset", "dataset_fingerprint")):
        raise UserError(
            f"--mcnemar={first},{second}: the runs use different data, so their predictions cannot be paired"
        )
    test = mcnemar(*(read_correct(run["path"]) for run in runs))
    metric, interval = metric_named("test_accuracy"), test.interval
    shown = test.p_value < ALPHA and interval is not None and not interval.contains(0.0)
    verdict = (BETTER if test.difference > 0 else WORSE) if shown else NOT_SHOWN
    differing = [name for name in FIELD_NAMES if name in frame.columns and runs[0][name] != runs[1][name]]
    alone = np.array([test.only_first, test.only_second])
    right = test.both_right + alone
    fields = {name: [run[name] for run in runs] for name in differing}
    numbers = {
        "run": [run["digest"] for run in runs],
        **fields,
        "test_accuracy": right / test.n,
        "right": right,
        "alone_right": alone,
        "difference": [None, test.difference],
        "difference_low": [None, interval and interval.low],
        "difference_high": [None, interval and interval.high],
        "p": [None, test.p_value],
        "verdict": [BASELINE, verdict],
    }
    text = {
        **{name: [field_text(value) for value in values] for name, values in fields.items()},
        metric.heading: [metric.format(share) for share in right / test.n],
        "right": [f"{count:,}" for count in right],
        "alone right": [f"{count:,}" for count in alone],
        f"difference ({metric.difference_unit})": [ABSENT, with_interval(test.difference, interval, metric)],
        "p": [ABSENT, p_text(test.p_value)],
        "verdict": [BASELINE, verdict],
    }
    return Table(
        caption=f"McNemar's exact test of two runs ({runs[0]['dataset']}, {test.n:,} test images)",
        numbers=pd.DataFrame(numbers, dtype=object),
        panels={"": pd.DataFrame(text, index=pd.Index(numbers["run"], name="run"))},
        notes=(
            f"both right: {test.both_right:,} images, both wrong: {test.both_wrong:,}; alone right: only this run is",
            "difference in percentage points, second - first, with its exact 95 % interval given the number of images "
            "on which the runs disagree",
            "this compares two trained models only; to compare the configurations, run several seeds of each",
        ),
        left=(*differing, "verdict"),
    )


def _run_of(frame: pd.DataFrame, digest: str) -> dict[str, Any]:
    """The finished run of a digest or its prefix."""
    found = frame[frame["digest"].astype(str).str.startswith(digest)]
    if not digest or found.empty:
        raise UserError(f"--mcnemar: no run has the digest {digest!r}; digests are the names of the run folders")
    finished = found[found["status"].isin(FINISHED)].sort_values("path")
    if finished.empty:
        raise UserError(f"--mcnemar: the run {digest} is {found['status'].iloc[0]} and has no predictions")
    if finished["digest"].nunique() > 1:
        raise UserError(f"--mcnemar: {digest!r} fits {finished['digest'].nunique():,} runs; give more digits")
    return {str(name): value for name, value in finished.iloc[:1].to_dict("records")[0].items()}
