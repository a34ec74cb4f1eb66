"""Statistics of a few training runs per arm: summaries, differences paired by seed, corrections, power.

An arm is a mapping from seed to a measured value (test accuracy as a fraction, a loss, seconds, ...). Values that are
not finite are left out and counted. Functions named `..._all` treat many arms at once, which costs little more than
one; the result for an arm does not depend on the others.

There are two kinds of 95 % interval. The t interval assumes roughly normal values, and all verdicts rest on it. The
bootstrap interval (BCa; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 14) assumes less but is known
to be too narrow for 3 to 10 seeds, which are usual here; it is a second opinion.

An interval needs at least two different values. Equal accuracies in every seed are an accident of the finite test
set, not a proof of certainty, so the interval is then None rather than of zero width.

SciPy does the arithmetic; the tests compare it with statsmodels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8

BETTER = "better"
WORSE = "worse"
HIGHER = "higher"
LOWER = "lower"
NOT_SHOWN = "no difference shown"
CONSTANT = "same difference in every seed"
ONE_SEED = "one seed: no interval"
NO_PAIRS = "no seed in common"

_RESAMPLES = 4999
_SEED = 0
_MOST_VALUES_AT_ONCE = 5_000_000
# Losses and accuracies are computed in float32: a spread below its rounding was not measured.
_ROUNDING = 2 * float(np.finfo(np.float32).eps)
# The square of a smaller one would lose its digits.
_SMALLEST_SPREAD = 1e-140
_LARGEST_TABULATED_N = 1000
# Means a thousand times their sd all need the same few seeds; SciPy's noncentral t does not converge far above.
_LARGEST_EFFECT = 1000.0

Values = Mapping[int, float]


@dataclass(frozen=True)
class Interval:
    """An interval; `method` is `t`, `BCa` or `exact` (confidence), `bootstrap` (percentiles) or `prediction`."""

    low: float
    high: float
    method: str
    level: float = LEVEL

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Summary:
    """One arm.

    Attributes:
      n: seeds with a value; missing: seeds without one (not finite).
      mean, sd: NaN where n is 0; sd (ddof 1) is NaN where n is 1.
      t_interval, bootstrap_interval: of the mean; None where there is none (see `summarize`).
      best, worst: the extreme values, with their seeds (the lowest seed among equals); None where n is 0.
    """

    n: int
    missing: int
    mean: float
    sd: float
    t_interval: Interval | None
    bootstrap_interval: Interval | None
    best: float
    best_seed: int | None
    worst: float
    worst_seed: int | None


@dataclass(frozen=True)
class PairedComparison:
    """Differences arm - baseline over the seeds that both have.

    Attributes:
      n: pairs.
      only_baseline, only_arm: seeds with a value in one of the two only; they take no part.
      mean_difference, sd_difference: NaN where n is 0; sd (ddof 1) is NaN where n is 1.
      t_interval, bootstrap_interval: of the mean difference, not corrected for other comparisons; or None.
      cohen_dz: mean_difference / sd_difference; NaN where the sd is 0 or there is none.
      p_value: two-sided paired t-test. 1 where all differences are 0; NaN where there is no test: n < 2, or
        all differences equal and not 0 (no spread to test against).
      p_sign_flip: two-sided permutation test that flips the signs of the differences, exact for n <= 12. It
        assumes no distribution, and cannot fall below 2 / 2**n: with 5 seeds never below 0.0625.
      identical: all differences are 0; constant: all are equal, but not 0 (both up to float32 rounding).
    """

    n: int
    only_baseline: tuple[int, ...]
    only_arm: tuple[int, ...]
    mean_difference: float
    sd_difference: float
    t_interval: Interval | None
    bootstrap_interval: Interval | None
    cohen_dz: float
    p_value: float
    p_sign_flip: float
    identical: bool
    constant: bool


def summarize(values: Values, *, lower_is_better: bool = False) -> Summary:
    """Summary of one arm.

    There is no t interval for fewer than 2 seeds and no bootstrap interval for fewer than 3; neither where
    all values are equal. The bootstrap draws 4,999 resamples with a fixed generator: same values, same interval.
    """
    return summarize_all([values], lower_is_better=lower_is_better)[0]


def summarize_all(arms: Sequence[Values], *, lower_is_better: bool = False) -> list[Summary]:
    """`summarize` for every arm."""
    samples = [_finite(arm) for arm in arms]
    summaries = []
    for arm, sample, estimate in zip(arms, samples, _estimate_means(map(_vector, samples)), strict=True):
        best_seed, worst_seed = None, None
        if sample:
            low, high = min(sample, key=sample.__getitem__), max(sample, key=sample.__getitem__)
            best_seed, worst_seed = (low, high) if lower_is_better else (high, low)
        summaries.append(
            Summary(
                n=len(sample),
                missing=len(arm) - len(sample),
                mean=estimate.mean,
                sd=estimate.sd,
                t_interval=estimate.t_interval,
                bootstrap_interval=estimate.bootstrap_interval,
                best=math.nan if best_seed is None else sample[best_seed],
                best_seed=best_seed,
                worst=math.nan if worst_seed is None else sample[worst_seed],
                worst_seed=worst_seed,
            )
        )
    return summaries


def prediction_interval(values: Values) -> Interval | None:
    """Where the value of one more seed would lie with 95 % probability: wider than the interval of the mean.

    mean +/- t sd sqrt(1 + 1/n), for roughly normal values; None for fewer than 2 seeds or where all values are equal.
    """
    summary = summarize(values)
    if summary.t_interval is None:
        return None
    half = (summary.t_interval.high - summary.mean) * math.sqrt(summary.n + 1)
    return Interval(summary.mean - half, summary.mean + half, "prediction")


def paired(baseline: Values, arm: Values) -> PairedComparison:
    """Comparison of an arm with a baseline, paired by seed.

    A seed fixes initial weights and data order in both arms; pairing removes what they share.
    """
    return paired_all([(baseline, arm)])[0]


def paired_all(pairs: Sequence[tuple[Values, Values]], *, bootstrap: bool = True) -> list[PairedComparison]:
    """`paired` for every `(baseline, arm)`; `bootstrap=False` leaves out bootstrap and sign flips."""
    finite = [(_finite(baseline), _finite(arm)) for baseline, arm in pairs]
    common = [[seed for seed in first if seed in second] for first, second in finite]
    both = [
        np.array([[values[seed] for seed in seeds] for values in pair], dtype=np.float64)
        for pair, seeds in zip(finite, common, strict=True)
    ]
    differences = [right - left for left, right in both]
    scales = [float(np.abs(values).max(initial=0.0)) for values in both]
    estimates = _estimate_means(differences, scales, bootstrap=bootstrap)
    sign_flips = _sign_flip_all(differences) if bootstrap else [math.nan] * len(differences)
    comparisons = []
    for (first, second), difference, scale, estimate, p_sign_flip in zip(
        finite, differences, scales, estimates, sign_flips, strict=True
    ):
        n = difference.size
        equal = n >= 2 and estimate.t_interval is None
        identical = equal and float(np.abs(difference).max()) <= _ROUNDING * scale
        tested = n >= 2 and not equal
        dz = estimate.mean / estimate.sd if tested else math.nan
        p_value = 1.0 if identical else math.nan
        if tested:
            p_value = float(2 * stats.t.sf(abs(dz) * math.sqrt(n), n - 1))
        comparisons.append(
            PairedComparison(
                n=n,
                only_baseline=tuple(seed for seed in first if seed not in second),
                only_arm=tuple(seed for seed in second if seed not in first),
                mean_difference=estimate.mean,
                sd_difference=estimate.sd,
                t_interval=estimate.t_interval,
                bootstrap_interval=estimate.bootstrap_interval,
                cohen_dz=dz,
                p_value=p_value,
                p_sign_flip=p_sign_flip,
                identical=identical,
                constant=equal and not identical,
            )
        )
    return comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's method; NaN (no test made) stays and is not counted.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    # statsmodels' multipletests gives the same, but collects all garbage at every call: a tenth of a second.
    raw = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(raw.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(raw))
    ascending = tested[np.argsort(raw[tested])]
    steps = raw[ascending] * np.arange(ascending.size, 0, -1)
    corrected[ascending] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def verdict(
    comparison: PairedComparison,
    p_corrected: float,
    *,
    lower_is_better: bool | None = False,
    alpha: float = ALPHA,
) -> str:
    """The arm against the baseline in words, which claim no more than p-value and interval both allow.

    Args:
      comparison: the arm against the baseline.
      p_corrected: its p-value after correction for all comparisons made (`holm`).
      lower_is_better: True for losses and times; None where neither direction is better (the words are then
        `higher` and `lower`).
      alpha: the corrected p-value must be below it, and the t interval must leave out 0.
    """
    if comparison.n == 0:
        return NO_PAIRS
    if comparison.n == 1:
        return ONE_SEED
    if comparison.constant:
        return CONSTANT
    interval = comparison.t_interval
    if interval is None or interval.contains(0.0) or not p_corrected < alpha:
        return NOT_SHOWN
    rises = comparison.mean_difference > 0
    if lower_is_better is None:
        return HIGHER if rises else LOWER
    return BETTER if rises != lower_is_better else WORSE


def seeds_needed(
    mean_difference: float, sd_difference: float, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """The fewest seeds with which a paired t-test finds a true difference of this size with this probability.

    For an arm among m comparisons give `alpha / m`, what Holm's method asks of the smallest p-value; the answer
    is then on the safe side. It treats the observed difference as the true one, so it is a rough guide.

    Returns:
      at least 2, or None where no number can be given: no difference, no spread, or either unknown. Above 1,000
      by the normal approximation.
    """
    if not (math.isfinite(mean_difference) and math.isfinite(sd_difference) and sd_difference > 0):
        return None
    effect = min(abs(mean_difference / sd_difference), _LARGEST_EFFECT)
    if effect < 1 / _LARGEST_EFFECT**2:
        return None

    def reaches(n: int) -> bool:
        # The tail of the wrong sign is left out: it only matters where power is near alpha. statsmodels' TTestPower
        # adds it, and is then NaN for many large effects. Beyond 40 times the critical value power is 1 and SciPy's
        # series may not converge; a NaN there is no reason to ask for more seeds.
        critical = -special.stdtrit(n - 1, alpha / 2)
        return not special.nctdtr(n - 1, min(effect * math.sqrt(n), 40 * critical), critical) > 1 - power

    if not reaches(_LARGEST_TABULATED_N):
        z = stats.norm.isf(alpha / 2)
        return max(_LARGEST_TABULATED_N + 1, math.ceil(((z + stats.norm.ppf(power)) / effect) ** 2 + z**2 / 2))
    low, high = 1, _LARGEST_TABULATED_N
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _finite(values: Values) -> dict[int, float]:
    """The values that are finite, by ascending seed."""
    return {seed: float(values[seed]) for seed in sorted(values) if math.isfinite(values[seed])}


def _vector(values: Values) -> NDArray[np.float64]:
    return np.array(list(values.values()), dtype=np.float64)


@dataclass(frozen=True)
class _Estimate:
    mean: float
    sd: float
    t_interval: Interval | None
    bootstrap_interval: Interval | None


def _by_length(samples: Sequence[NDArray[np.float64]]) -> dict[int, list[int]]:
    """Indices of the samples of each length, so that equal lengths make one matrix."""
    groups: dict[int, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.size, []).append(index)
    return groups


def _estimate_means(
    vectors: Iterable[NDArray[np.float64]], scales: Sequence[float] | None = None, *, bootstrap: bool = True
) -> list[_Estimate]:
    """Mean, sd, intervals of every sample; `scales` are the magnitudes whose rounding error is no spread."""
    samples = list(vectors)
    estimates = [_Estimate(math.nan, math.nan, None, None)] * len(samples)
    for n, indices in _by_length(samples).items():
        if n == 0:
            continue
        matrix = np.stack([samples[index] for index in indices])
        means = matrix.mean(axis=1)
        deviations = matrix.std(axis=1, ddof=1) if n > 1 else np.full(len(indices), np.nan)
        scale = np.abs(matrix).max(axis=1) if scales is None else np.array([scales[i] for i in indices])
        varies = np.ptp(matrix, axis=1) > np.maximum(_ROUNDING * scale, _SMALLEST_SPREAD)
        t_intervals: list[Interval | None] = [None] * len(indices)
        bootstraps: list[Interval | None] = [None] * len(indices)
        rows = np.flatnonzero(varies)
        if n >= 2 and rows.size:
            errors = deviations[rows] / math.sqrt(n)
            low, high = stats.t.interval(LEVEL, n - 1, loc=means[rows], scale=errors)
            for row, start, stop in zip(rows, low, high, strict=True):
                t_intervals[row] = Interval(float(start), float(stop), "t")
        if n >= 3 and rows.size and bootstrap:
            for row, interval in zip(rows, _bootstrap(matrix[rows]), strict=True):
                bootstraps[row] = interval
        for row, index in enumerate(indices):
            estimates[index] = _Estimate(float(means[row]), float(deviations[row]), t_intervals[row], bootstraps[row])
    return estimates


def _bootstrap(matrix: NDArray[np.float64]) -> list[Interval]:
    """BCa interval of the mean of every row of a matrix [arms, seeds] without constant rows."""
    means, deviations = matrix.mean(axis=1, keepdims=True), matrix.std(axis=1, keepdims=True)

    def mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        # A resample that is a permutation of the sample ties with it. Of 5 seeds 4 % are, and BCa counts ties as half;
        # rounding in the sum's last digit must not break them.
        return np.round(values.mean(axis=axis), 12)

    # BCa cubes the values, which tiny losses would not survive: standardised, none is tiny.
    # SciPy draws the same resamples for every row, so a row's interval does not depend on the others.
    ends = stats.bootstrap(
        ((matrix - means) / deviations,),
        mean,
        axis=-1,
        n_resamples=_RESAMPLES,
        batch=max(1, _MOST_VALUES_AT_ONCE // matrix.size),
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    low, high = (means[:, 0] + deviations[:, 0] * end for end in (ends.low, ends.high))
    return [Interval(float(start), float(stop), "BCa") for start, stop in zip(low, high, strict=True)]


def _sign_flip_all(differences: Sequence[NDArray[np.float64]]) -> list[float]:
    """p-value of the sign-flip permutation test of every sample; NaN for fewer than 2 differences."""
    p_values = [math.nan] * len(differences)
    for n, indices in _by_length(differences).items():
        if n < 2:
            continue
        matrix = np.stack([differences[index] for index in indices])
        test = stats.permutation_test(
            (matrix,),
            lambda values, axis: values.mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=max(1, _MOST_VALUES_AT_ONCE // matrix.size),
            axis=-1,
            rng=np.random.default_rng(_SEED),
        )
        for index, p_value in zip(indices, test.pvalue, strict=True):
            p_values[index] = float(p_value)
    return p_values
