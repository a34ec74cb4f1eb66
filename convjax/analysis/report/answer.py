"""What an ablation shows, in sentences that claim no more than its statistics do."""

from collections.abc import Mapping, Sequence

from convjax.analysis.arms import Arms, counted, listed, some
from convjax.analysis.comparisons import BASELINE, ArmComparison, leader, rivals
from convjax.analysis.metrics import Metric
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
        return ["The arms use different data: they are listed side by side, and nothing is said of their differences."]
    if len(measured) == 1:
        [index] = measured
        label, mean = arms.label(arms.arms[index]), _mean_text(summaries[index], arms.metric)
        return [f"Only one arm has results: {label} with {mean}."]
    sentences = _best_sentence(arms)
    sentences += _baseline_sentences(arms, comparisons, baseline or {})
    if max(summary.n for summary in summaries) == 1:
        sentences.append(
            "There is one seed an arm, so chance and the arms' own differences cannot be told apart: "
            "run at least 5 seeds of each."
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
    bases = sorted({one.baseline for one in comparisons if one.baseline is not None})
    if len(bases) == 1:
        against = f"{arms.label(arms.arms[bases[0]])} ({_mean_text(arms.summaries[bases[0]], arms.metric)})"
    else:
        spec = ", ".join(f"{name}={value}" for name, value in wanted.items())
        rest = [name for name in arms.by if name not in wanted]
        against = f"the arm of {spec} with the same {listed(rest)}"
    order = [*_SHOWN, CONSTANT, NOT_SHOWN, ONE_SEED]
    verdicts = sorted(groups, key=lambda words: (order.index(words) if words in order else len(order), words))
    sentences = []
    for words in verdicts:
        prefix = words if words in (CONSTANT, NOT_SHOWN) else f"nothing can be said ({words})"
        prefix = f"shown to be {words}" if words in _SHOWN else prefix
        start = "Against the same" if sentences else f"Compared with {against}"
        sentences.append(f"{start}, {prefix}: {_listing(groups[words])}.")
    return sentences


def cost_sentences(arms: Arms, ranges: Mapping[str, tuple[str, str]]) -> list[str]:
    """What the arms differ in besides their fields.

    Args:
      arms: the arms.
      ranges: of the parameters and FLOPs that differ between arms, the least and the most as text.
    """
    if len(arms.arms) < 2:
        return []
    if not ranges:
        return ["All arms have about the same number of parameters and FLOPs."]
    parts = [f"{name} ({low} to {high})" for name, (low, high) in ranges.items()]
    text = f"The arms also differ in {listed(parts)}: a difference between them may come from that alone"
    # Matching scales the channels, so it cannot be had where these are the question.
    if not {"channels", "model"} & set(arms.by):
        text += "; --match=params or --match=flops makes them equal in one of the two"
    return [f"{text}."]


def _listing(names: Sequence[str]) -> str:
    return "; ".join(names) if len(names) <= _MOST_NAMED else some(names, "; ")


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text


def _mean_text(summary: Summary, metric: Metric) -> str:
    mean = _with_unit(metric.format(summary.mean), metric.unit)
    if summary.n == 1:
        return f"{metric.title} {mean}, 1 seed"
    return f"mean {metric.title} {mean} over {counted(summary.n, 'seed')}"


def _difference_text(difference: float, interval: Interval | None, metric: Metric) -> str:
    text = _with_unit(metric.format(difference, signed=True), metric.difference_unit)
    if interval is None:
        return text
    low, high = (metric.format(end, signed=True) for end in (interval.low, interval.high))
    return f"{text}, 95 % interval {low} to {high}"
