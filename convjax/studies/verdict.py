"""Verdicts: from effects with intervals to `supported`, `not shown` or `contradicted`.

A claim has parts, each with an effect and its 95 % interval. A part that claims a direction is supported if the whole
interval lies on the claimed side and contradicted if it lies on the other side. A part that claims equality names the
largest difference that does not matter, its margin. It is supported if the whole interval lies within the margin (two
one-sided tests, Schuirmann 1987, at 2.5 % a side) and contradicted if it lies outside. Everything else is not shown:
the data do not decide.

A claim is supported if all its deciding parts are; that needs no correction for their number (the intersection-union
principle, Berger 1982). It is contradicted if any of them is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from convjax.analysis.arms import counted
from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.statistics import LEVEL, Interval, Values, paired, prediction_interval

SUPPORTED = "supported"
NOT_SHOWN = "not shown"
CONTRADICTED = "contradicted"
WORDS = (SUPPORTED, NOT_SHOWN, CONTRADICTED)


@dataclass(frozen=True)
class Claimed:
    """The effects that a part of a claim allows: those between `low` and `high`; see `above`, `below` and `within`."""

    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half the width; infinite for a direction."""
        return (self.high - self.low) / 2


def above(bound: float = 0.0) -> Claimed:
    """Effects above a bound."""
    return Claimed(bound, math.inf)


def below(bound: float = 0.0) -> Claimed:
    """Effects below a bound."""
    return Claimed(-math.inf, bound)


def within(margin: float, of: float = 0.0) -> Claimed:
    """Effects that differ from `of` by less than the margin.

    Raises:
      ValueError: the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"no effect lies within {margin:g} of {of:g}")
    return Claimed(of - margin, of + margin)


@dataclass(frozen=True)
class Finding:
    """One part of a claim, judged.

    Attributes:
      part: what is claimed, as a clause: `the convnet is more accurate than the dense net`.
      word: one of `WORDS`.
      effect: what was measured; NaN if the part is settled by arithmetic.
      interval: of the effect; None if there is none.
      evidence: effect and interval in words, with units.
      decides: whether the claim's verdict depends on it; the page lists the others below the verdict.
    """

    part: str
    word: str
    effect: float
    interval: Interval | None
    evidence: str
    decides: bool = True

    @property
    def sentence(self) -> str:
        """`The convnet is more accurate than the dense net: supported (+1.20 points, ...).`"""
        return f"{self.part[:1].upper()}{self.part[1:]}: {self.word} ({self.evidence})."


def judge(interval: Interval | None, claimed: Claimed) -> str:
    """The word for an effect with this interval; an interval that touches a bound, or None, decides nothing."""
    if interval is None or not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return NOT_SHOWN
    if claimed.low < interval.low and interval.high < claimed.high:
        return SUPPORTED
    return CONTRADICTED if interval.high < claimed.low or claimed.high < interval.low else NOT_SHOWN


def overall(findings: Sequence[Finding]) -> str:
    """The claim's word, by the rule at the top of this module.

    Raises:
      ValueError: no finding decides.
    """
    words = {finding.word for finding in findings if finding.decides}
    if not words:
        raise ValueError("no finding decides the claim")
    if CONTRADICTED in words:
        return CONTRADICTED
    return SUPPORTED if words == {SUPPORTED} else NOT_SHOWN


def difference(
    part: str,
    baseline: Values,
    arm: Values,
    claimed: Claimed,
    *,
    metric: str | Metric = "test_accuracy",
    decides: bool = True,
) -> Finding:
    """Judges arm - baseline, paired by seed, by its t interval.

    `claimed` is about the metric itself, whether or not higher is better, in its own unit: accuracies are fractions, so
    0.002 is 0.2 points.
    """
    metric = _metric(metric)
    compared = paired(baseline, arm)
    effect, interval = compared.mean_difference, compared.t_interval
    equal = compared.identical and math.isfinite(claimed.margin)
    word = SUPPORTED if equal else judge(interval, claimed)
    seeds, told = counted(compared.n, "seed"), f"{metric.format(effect, signed=True)}{_unit(metric.difference_unit)}"
    if compared.n < 2:
        evidence = f"{seeds}: no interval"
    elif compared.identical:
        evidence = f"the same in all {seeds}"
    elif interval is None:
        evidence = f"{told} in all {seeds}: no interval"
    else:
        evidence = f"{told}, {_told(interval, metric, signed=True)}, {seeds}"
    return Finding(part, word, effect, interval, evidence + _margin(claimed, metric), decides)


def estimate(
    part: str,
    effect: float,
    interval: Interval | None,
    claimed: Claimed,
    *,
    metric: str | Metric,
    note: str = "",
    decides: bool = True,
) -> Finding:
    """Judges any quantity with an interval, in the metric's own unit.

    `note` is what else a reader must know, such as the number of seeds.
    """
    metric = _metric(metric)
    told = "no interval" if interval is None else _told(interval, metric)
    evidence = ", ".join(filter(None, [f"{metric.format(effect)}{_unit(metric.unit)}", told, note]))
    return Finding(part, judge(interval, claimed), effect, interval, evidence + _margin(claimed, metric), decides)


def rate(part: str, values: Values, images: int, claimed: Claimed, *, decides: bool = True) -> Finding:
    """Judges accuracies themselves, for example against chance, even if all seeds agree to the last image.

    The seed that contradicts the claim most is judged, by the exact interval of a proportion of `images` test images
    (Clopper and Pearson 1934).
    """
    if not values:
        return Finding(part, NOT_SHOWN, math.nan, None, "no run", decides)
    worst = min(values.values(), key=lambda value: min(value - claimed.low, claimed.high - value))
    ends = stats.binomtest(round(worst * images), images).proportion_ci(LEVEL, method="exact")
    interval = Interval(float(ends.low), float(ends.high), "exact")
    note = f"the worst of {counted(len(values), 'seed')}, {images:,} images"
    return estimate(part, worst, interval, claimed, metric="test_accuracy", note=note, decides=decides)


def prediction(part: str, values: Values, one: float) -> Finding:
    """Judges whether `one`, the accuracy of a single run, comes from the distribution that `values` are a sample of.

    It is supported if `one` lies in the 95 % prediction interval, else contradicted. With fewer than three seeds the
    interval says too little, so nothing is shown.
    """
    metric, interval = metric_named("test_accuracy"), prediction_interval(values)
    below = sum(value < one for value in values.values())
    place = f"{below} of {counted(len(values), 'seed')} below it"
    if interval is None or len(values) < 3:
        return Finding(part, NOT_SHOWN, one, interval, f"{place}: too few for an interval")
    mean, unit = math.fsum(values.values()) / len(values), _unit(metric.unit)
    evidence = (
        f"{place}; their mean is {metric.format(mean)}{unit}, and one more run lies in "
        f"{metric.format(interval.low)} to {metric.format(interval.high)}{unit} with 95 % probability"
    )
    return Finding(part, SUPPORTED if interval.contains(one) else CONTRADICTED, one, interval, evidence)


def exact(part: str, holds: bool, evidence: str) -> Finding:
    """A part that arithmetic settles."""
    return Finding(part, SUPPORTED if holds else CONTRADICTED, math.nan, None, evidence)


def _metric(metric: str | Metric) -> Metric:
    return metric_named(metric) if isinstance(metric, str) else metric


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _told(interval: Interval, metric: Metric, *, signed: bool = False) -> str:
    low, high = (metric.format(end, signed=signed) for end in (interval.low, interval.high))
    return f"{100 * interval.level:.0f} % interval {low} to {high}"


def _margin(claimed: Claimed, metric: Metric) -> str:
    if not math.isfinite(claimed.margin):
        return ""
    return f"; margin {metric.format(claimed.margin)}{_unit(metric.difference_unit)}"
