"""The answer of an ablation, in sentences that say no more than its statistics do."""

import math
from collections.abc import Mapping, Sequence

from convjax.analysis.arms import Arms
from convjax.analysis.comparisons import BASELINE, ArmComparison, baseline_text, leader, rivals
from convjax.analysis.metrics import Metric, short_number
from convjax.analysis.plots.cost import COST_NAMES, varying_costs
from convjax.analysis.statistics import (
    BETTER,
    CONSTANT,
    HIGHER,
    LOWER,
    NOT_SHOWN,
    ONE_SEED,
    WORSE,
    Interval,
    Summary,
)
from convjax.analysis.wording import counted, listed, some

_SHOWN = (BETTER, WORSE, HIGHER, LOWER)
_MOST_NAMED = 8


def answer(
    arms: Arms, comparisons: Sequence[ArmComparison] = (), baseline: Mapping[str, str] | None = None
) -> list[str]:
    """The answer in sentences, the most important first.

    Args:
      arms: the arms.
      comparisons: each arm with its baseline arm; empty without a baseline.
      baseline: the fields that name the baseline.
    """
    summaries = arms.summaries
    measured = [index for index, summary in enumerate(summaries) if summary.n]
    if not measured:
        return ["No run has a result yet, so there is no answer."]
    if arms.mixed_data:
        return ["The arms use different data: they are listed side by side and not compared."]
    if len(measured) == 1:
        [index] = measured
        label, mean = arms.label(arms.arms[index]), _mean_text(summaries[index], arms.metric)
        return [f"Only one arm has results: {label} with {mean}."]
    sentences = _best_sentence(arms)
    sentences += _baseline_sentences(arms, comparisons, baseline or {})
    if max(summary.n for summary in summaries) == 1:
        sentences.append(
            "There is one seed per arm, so chance and real differences cannot be told apart: run at least 5 seeds of "
            "each."
        )
    return sentences


def _best_sentence(arms: Arms) -> list[str]:
    best = leader(arms)
    if best is None:
        return []
    label, others = arms.label(arms.arms[best]), rivals(arms, best)
    words = f"{label} ({_mean_text(arms.summaries[best], arms.metric)})"
    compared = sum(bool(summary.n) for summary in arms.summaries) - 1
    if not others:
        than = "the other arm" if compared == 1 else f"each of the other {compared:,} arms"
        return [f"{words} is shown to be better than {than}."]
    extreme = "lowest" if arms.metric.lower_is_better else "highest"
    return [
        f"No arm is shown to be the best. The {extreme} mean is that of {words}, which is not shown to be better than "
        f"{arms.labels([arms.arms[index] for index in others])}."
    ]


def _baseline_sentences(arms: Arms, comparisons: Sequence[ArmComparison], wanted: Mapping[str, str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for arm, one in zip(arms.arms, comparisons, strict=False):
        if one.verdict == BASELINE:
            continue
        size = ""
        if one.paired is not None and one.verdict in (*_SHOWN, CONSTANT):
            size = f" ({_difference_text(one.paired.mean_difference, one.paired.t_interval, arms.metric)})"
        groups.setdefault(one.verdict, []).append(f"{arms.label(arm)}{size}")
    if not groups:
        return []
    bases = [one.baseline for one in comparisons]
    against = baseline_text(arms, bases, wanted)
    if len(distinct := {base for base in bases if base is not None}) == 1:
        against += f" ({_mean_text(arms.summaries[distinct.pop()], arms.metric)})"
    order = [*_SHOWN, CONSTANT, NOT_SHOWN, ONE_SEED]
    verdicts = sorted(groups, key=lambda words: (order.index(words) if words in order else len(order), words))
    sentences = []
    for words in verdicts:
        prefix = words if words in (CONSTANT, NOT_SHOWN) else f"nothing can be said ({words})"
        prefix = f"shown to be {words}" if words in _SHOWN else prefix
        start = "Against the same" if sentences else f"Compared with {against}"
        sentences.append(f"{start}, {prefix}: {_listing(groups[words])}.")
    return sentences


def cost_sentences(arms: Arms) -> list[str]:
    """What the arms differ in besides their fields: parameters and FLOPs."""
    if sum(math.isfinite(arm.parameters) for arm in arms.arms) < 2:
        return []
    parts = []
    for cost in varying_costs(arms):
        if cost != "seconds":
            values = [getattr(arm, cost) for arm in arms.arms if arm.values and math.isfinite(getattr(arm, cost))]
            parts.append(f"{COST_NAMES[cost]} ({short_number(min(values))} to {short_number(max(values))})")
    if not parts:
        return ["All arms have about the same number of parameters and FLOPs."]
    text = f"The arms also differ in {listed(parts)}, which may explain a difference between them"
    # Matching scales the channels, so it is no help where these are the question.
    if not {"channels", "model"} & set(arms.by):
        text += "; --match=params or --match=flops makes them equal in one of the two"
    return [f"{text}."]


def _listing(names: Sequence[str]) -> str:
    return "; ".join(names) if len(names) <= _MOST_NAMED else some(names, "; ")


def _mean_text(summary: Summary, metric: Metric) -> str:
    if summary.n == 1:
        return f"{metric.title} {metric.with_unit(summary.mean)}, 1 seed"
    return f"mean {metric.title} {metric.with_unit(summary.mean)} over {counted(summary.n, 'seed')}"


def _difference_text(difference: float, interval: Interval | None, metric: Metric) -> str:
    text = metric.difference_with_unit(difference)
    if interval is None:
        return text
    low, high = (metric.format(end, signed=True) for end in (interval.low, interval.high))
    return f"{text}, 95 % interval {low} to {high}"
