"""How many times as much data one network needs to match another, from accuracies over training sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convjax.analysis.statistics import LEVEL, Interval, Values
from convjax.errors import UserError

_RESAMPLES = 4999
_SEED = 0


@dataclass(frozen=True)
class DataFactor:
    """Examples that the baseline needs, divided by examples that the arm needs for the same accuracy.

    Attributes:
      at: training size of the baseline; accuracy: the mean accuracy that it reaches with it.
      examples: training size with which the arm reaches that accuracy.
      factor: at / examples.
      interval: percentile bootstrap over seeds; None for fewer than 3 seeds.
      bound: `at least` if the arm's smallest size is already above the accuracy, `at most` if its largest is still
        below; the factor is then that size's. Empty if the arm's curve crosses the accuracy.
      seeds: in common to both.
    """

    at: int
    accuracy: float
    examples: float
    factor: float
    interval: Interval | None
    bound: str
    seeds: int


def data_factor(baseline: Values, arm: Mapping[int, Values], at: int) -> DataFactor:
    """The factor at the accuracy that the baseline reaches with `at` examples.

    The arm's curve is the mean over seeds, replaced by its running maximum so that it never falls. Between the sizes
    that were run it is linear in the logarithm of the size.

    Args:
      baseline: accuracies with `at` examples, by seed.
      arm: accuracies by seed, by training size.
      at: the baseline's training size.

    Raises:
      UserError: the arm has no size, or no seed is in common to all.
    """
    sizes = sorted(arm)
    seeds = sorted(set(baseline).intersection(*(arm[size] for size in sizes))) if sizes else []
    if not seeds:
        raise UserError("the learning curves have no size or no seed in common")
    reached = np.array([baseline[seed] for seed in seeds])
    curve = np.array([[arm[size][seed] for seed in seeds] for size in sizes])
    examples, bound = _crossing(sizes, curve.mean(1)[None], reached.mean()[None])
    interval = None
    if len(seeds) >= 3:
        # One draw of seeds for both curves and all sizes, which share initial weights and order of the data.
        drawn = np.random.default_rng(_SEED).integers(0, len(seeds), (_RESAMPLES, len(seeds)))
        resampled, _ = _crossing(sizes, curve[:, drawn].mean(2).T, reached[drawn].mean(1))
        low, high = np.quantile(at / resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        interval = Interval(float(low), float(high), "bootstrap")
    return DataFactor(
        at=at,
        accuracy=float(reached.mean()),
        examples=float(examples[0]),
        factor=at / float(examples[0]),
        interval=interval,
        bound=("at most", "", "at least")[int(bound[0]) + 1],
        seeds=len(seeds),
    )


def _crossing(
    sizes: Sequence[int], curves: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Where each of `curves`, `[n, sizes]`, reaches its target, and 1, 0, -1 for below, within, beyond the sizes."""
    logs = np.log(sizes)
    rising = np.maximum.accumulate(curves, axis=1)
    above = rising >= targets[:, None]
    first = np.where(above.any(1), above.argmax(1), len(sizes))
    right = np.clip(first, 1, len(sizes) - 1)
    rows = np.arange(len(curves))
    low, high = rising[rows, right - 1], rising[rows, right]
    share = np.divide(targets - low, high - low, out=np.zeros_like(targets), where=high > low)
    between = logs[right - 1] + np.clip(share, 0.0, 1.0) * (logs[right] - logs[right - 1])
    at = np.where(first == 0, logs[0], np.where(first == len(sizes), logs[-1], between))
    # An accuracy that the smallest size reaches exactly is reached there, not below it.
    bound = np.where((first == 0) & (rising[:, 0] > targets), 1, np.where(first == len(sizes), -1, 0))
    return np.exp(at), bound
