"""From effects with intervals to one of three words: is what was claimed supported, not shown, or contradicted?

A claim is broken into parts, each with an effect and its 95 % interval. A part that claims a direction is supported
where the whole interval lies on the claimed side and contradicted where it lies on the other. A part that claims that
two things are the same names the margin within which differences do not matter: it is supported where the whole
interval lies within the margin (the rule of two one-sided tests, Schuirmann 1987, at 2.5 % a side) and contradicted
where it lies outside. All else is not shown, which says nothing against the claim but that the data do not decide.

The claim is supported where all deciding parts are, which needs no correction for their number (the
intersection-union principle, Berger 1982), and contradicted where any of them is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from convjax.analysis.arms import counted
from convjax.analysis.metrics import MINUS, Metric, metric_named
from convjax.analysis.statistics import LEVEL, Interval, Values, paired, prediction_interval

SUPPORTED = "supported"
NOT_SHOWN = "not shown"
CONTRADICTED = "contradicted"
WORDS = (SUPPORTED, NOT_SHOWN, CONTRADICTED)

Claimed = Literal["higher", "lower", "equal"]


@dataclass(frozen=True)
class Finding:
    """One part of a claim, judged.

    Attributes:
      part: what was claimed, a clause: `the convnet is more accurate than the dense net`.
      word: one of `WORDS`.
      effect: what was measured; NaN where the part is settled by arithmetic.
      interval: of the effect; None where there is none.
      evidence: effect and interval in words, with their units.
      decides: whether the claim's verdict depends on it; others are told beside it.
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


def judge(interval: Interval | None, claimed: Claimed, margin: float = 0.0) -> str:
    """The word for an effect with this interval; an end that touches the bound decides nothing.

    Args:
      interval: of the effect; None (no spread known) decides nothing.
      claimed: `higher`: the effect is above `margin`; `lower`: below minus `margin`; `equal`: within `margin` of 0.
      margin: at least 0; more than 0 for `equal`.

    Raises:
      ValueError: a margin that the claim cannot have, or an unknown claim.
    """
    if claimed not in ("higher", "lower", "equal") or margin < 0 or (claimed == "equal" and margin == 0):
        raise ValueError(f"no claim is {claimed!r} with margin {margin:g}")
    if interval is None or not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return NOT_SHOWN
    low, high = interval.low, interval.high
    if claimed == "lower":
        low, high = -high, -low
    if claimed == "equal":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
    else:
        inside, outside = low > margin, high < margin
    return SUPPORTED if inside else CONTRADICTED if outside else NOT_SHOWN


def overall(findings: Sequence[Finding]) -> str:
    """The claim's word: see the module.

    Raises:
      ValueError: nothing decides.
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
    *,
    claimed: Claimed,
    margin: float = 0.0,
    metric: str | Metric = "test_accuracy",
    decides: bool = True,
) -> Finding:
    """Judges arm - baseline, paired by seed, by its t interval.

    `higher` and `lower` are about the metric itself, whichever of them is better. `margin` is in the metric's own
    unit: accuracies are fractions, so that 0.002 is 0.2 points.
    """
    metric = metric_named(metric) if isinstance(metric, str) else metric
    compared = paired(baseline, arm)
    effect, interval = compared.mean_difference, compared.t_interval
    word = judge(interval, claimed, margin)
    if claimed == "equal" and compared.identical:
        word = SUPPORTED
    seeds = counted(compared.n, "seed")
    if compared.n < 2:
        evidence = f"{seeds}: no interval"
    elif compared.identical:
        evidence = f"the same in all {seeds}"
    elif interval is None:
        evidence = f"{_value(effect, metric)} in all {seeds}: no interval"
    else:
        evidence = f"{_value(effect, metric)}, {_interval(interval, metric, signed=True)}, {seeds}"
    return Finding(part, word, effect, interval, evidence + _margin(claimed, margin, metric), decides)


def estimate(
    part: str,
    effect: float,
    interval: Interval | None,
    *,
    claimed: Claimed,
    than: float = 0.0,
    margin: float = 0.0,
    metric: str | Metric,
    note: str = "",
    decides: bool = True,
) -> Finding:
    """Judges any quantity with an interval: is it higher or lower than `than`, or within `margin` of it?

    Args:
      part, claimed, margin, decides: as everywhere here.
      effect, interval: the quantity, in the metric's own unit.
      than: what it is compared with.
      metric: how the quantity is written.
      note: what else a reader must know, such as the number of seeds.
    """
    metric = metric_named(metric) if isinstance(metric, str) else metric
    moved = None if interval is None else Interval(interval.low - than, interval.high - than, interval.method)
    unit = f" {metric.unit}" if metric.unit else ""
    texts = [
        f"{metric.format(effect)}{unit}",
        "no interval" if interval is None else _interval(interval, metric),
        *([note] if note else []),
    ]
    evidence = ", ".join(texts) + _margin(claimed, margin, metric)
    return Finding(part, judge(moved, claimed, margin), effect, interval, evidence, decides)


def rate(
    part: str, values: Values, images: int, *, claimed: Claimed, than: float, margin: float = 0.0, decides: bool = True
) -> Finding:
    """Judges an accuracy against a fixed one (chance, a limit) where seeds may all agree to the last image.

    The seed that speaks most against the claim is taken, with the exact interval of a proportion of `images` test
    images (Clopper and Pearson 1934).
    """
    if not values:
        return Finding(part, NOT_SHOWN, math.nan, None, "no run", decides)
    against = {"higher": min, "lower": max, "equal": lambda accuracies: max(accuracies, key=lambda a: abs(a - than))}
    worst = against[claimed](list(values.values()))
    ends = stats.binomtest(round(worst * images), images).proportion_ci(LEVEL, method="exact")
    interval = Interval(float(ends.low), float(ends.high), "exact")
    note = f"the seed of {counted(len(values), 'seed')} that speaks most against it, {images:,} images"
    metric = metric_named("test_accuracy")
    return estimate(
        part, worst, interval, claimed=claimed, than=than, margin=margin, metric=metric, note=note, decides=decides
    )


def prediction(
    part: str, values: Values, one: float, *, metric: str = "test_accuracy", decides: bool = True
) -> Finding:
    """Judges whether `one`, a single run's value, comes from the distribution that `values` are a sample of.

    Supported where it lies in the 95 % prediction interval, contradicted where it does not; with fewer than three
    seeds the interval says too little, and nothing is shown.
    """
    named, interval = metric_named(metric), prediction_interval(values)
    below = sum(value < one for value in values.values())
    place = f"{below} of {counted(len(values), 'seed')} below it"
    if interval is None or len(values) < 3:
        return Finding(part, NOT_SHOWN, one, interval, f"{place}: too few for an interval", decides)
    mean = math.fsum(values.values()) / len(values)
    unit = f" {named.unit}" if named.unit else ""
    evidence = (
        f"{place}; their mean is {named.format(mean)}{unit}, and one more run lies in {named.format(interval.low)} to "
        f"{named.format(interval.high)}{unit} with 95 % probability"
    )
    return Finding(part, SUPPORTED if interval.contains(one) else CONTRADICTED, one, interval, evidence, decides)


def exact(part: str, holds: bool, evidence: str, *, decides: bool = True) -> Finding:
    """A part that arithmetic settles: it holds or it does not."""
    return Finding(part, SUPPORTED if holds else CONTRADICTED, math.nan, None, evidence, decides)


def _value(effect: float, metric: Metric) -> str:
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    return f"{metric.format(effect, signed=True)}{unit}"


def _interval(interval: Interval, metric: Metric, *, signed: bool = False) -> str:
    low, high = (metric.format(end, signed=signed) for end in (interval.low, interval.high))
    return f"{interval.level:.0%} interval {low} to {high}".replace("%", " %").replace("-", MINUS)


def _margin(claimed: Claimed, margin: float, metric: Metric) -> str:
    if not margin:
        return ""
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    return f"; margin {metric.format(margin)}{unit}" if claimed == "equal" else f"; by {metric.format(margin)}{unit}"
