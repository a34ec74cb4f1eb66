"""The columns that several tables have: results, cost, differences. Each as numbers and as text, a dict per row."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from convjax.analysis.arms import DONE, STATUSES, ArmRuns, Arms
from convjax.analysis.comparisons import ArmComparison
from convjax.analysis.metrics import ABSENT, MINUS, Metric, metric_named, short_number
from convjax.analysis.statistics import ALPHA, Interval, PairedComparison, Summary
from convjax.analysis.wording import field_text

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
INTERVAL_NAMES = {"t": "Student's t", "bootstrap": "BCa bootstrap"}
_MOST_SEEDS_WRITTEN = 1000

Row = dict[str, Any]
TextRow = dict[str, str]


def panels_of(
    names: Sequence[str], rows: Sequence[Sequence[Any]], text: Mapping[str, Sequence[TextRow]]
) -> dict[str, pd.DataFrame]:
    """Panels of a `Table`; its rows are named by values of the fields `names`."""
    index = pd.MultiIndex.from_frame(pd.DataFrame([map(field_text, row) for row in rows], columns=list(names)))
    return {panel: pd.DataFrame(texts, index=index) for panel, texts in text.items()}


def interval_numbers(estimate: Summary | PairedComparison | None, prefix: str = "") -> Row:
    """Both ends of both intervals; None where there is none."""
    return {
        f"{prefix}{name}_{end}": getattr(getattr(estimate, f"{name}_interval", None), end, None)
        for name in INTERVAL_NAMES
        for end in ("low", "high")
    }


def result_numbers(summary: Summary, metric: Metric, *, best: bool) -> Row:
    """An arm's seeds, mean and sd, intervals, best and worst seed; whether it is shown to be the best."""
    return {
        "metric": metric.name,
        "n": summary.n,
        "missing": summary.missing,
        "mean": summary.mean,
        "sd": summary.sd,
        **interval_numbers(summary),
        "best": summary.best,
        "best_seed": summary.best_seed,
        "worst": summary.worst,
        "worst_seed": summary.worst_seed,
        "shown_best": best,
    }


def result_text(summary: Summary, metric: Metric, interval: str) -> TextRow:
    """The same for readers; `interval` is `t` or `bootstrap`."""
    spread = f" {PLUS_MINUS} {metric.format(summary.sd)}" if summary.n > 1 else ""
    best, worst = ("highest", "lowest") if metric.lower_is_better is None else ("best", "worst")
    return {
        "seeds": f"{summary.n:,}",
        metric.heading: metric.format(summary.mean) + spread,
        "95 % interval": interval_text(chosen_interval(summary, interval), metric),
        f"{best} (seed)": _with_seed(summary.best, summary.best_seed, metric),
        f"{worst} (seed)": _with_seed(summary.worst, summary.worst_seed, metric),
    }


def cost_numbers(arm: ArmRuns, metric: Metric) -> Row:
    """The model's size, the time a run took, and runs by status. What is the table's metric is left out."""
    costs = {"parameters": _whole(arm.parameters), "flops": _whole(arm.flops), "seconds": arm.seconds}
    return {name: cost for name, cost in costs.items() if name != metric.name} | dict(arm.counts)


def cost_text(arms: Arms) -> list[TextRow]:
    """The same for readers, per arm; a status that no run has is left out."""
    statuses = [name for name in STATUSES if name != DONE and any(arm.counts[name] for arm in arms.arms)]
    rows = []
    for arm in arms.arms:
        costs = {
            "parameters": metric_named("parameters").format(arm.parameters),
            "image FLOPs": short_number(arm.flops),
            "seconds": metric_named("seconds").format(arm.seconds),
        }
        costs.pop("image FLOPs" if arms.metric.name == "flops" else arms.metric.name, None)
        rows.append(costs | {name: f"{arm.counts[name]:,}" for name in statuses})
    return rows


def difference_numbers(comparison: ArmComparison, labels: Sequence[str]) -> Row:
    """One row's difference from its baseline; `labels` names all rows."""
    paired = comparison.paired
    return {
        "baseline": None if comparison.baseline is None else labels[comparison.baseline],
        "pairs": paired and paired.n,
        "difference": paired and paired.mean_difference,
        "difference_sd": paired and paired.sd_difference,
        **interval_numbers(paired, "difference_"),
        "d_z": paired and paired.cohen_dz,
        "p": paired and paired.p_value,
        "p_sign_flip": paired and paired.p_sign_flip,
        "p_holm": paired and comparison.p_holm,
        "verdict": comparison.verdict,
        "seeds_needed": comparison.seeds_needed,
    }


def difference_text(comparisons: Sequence[ArmComparison], metric: Metric, interval: str) -> list[TextRow]:
    """The same for readers, per row; the seeds needed are left out where no row has them."""
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    rows = []
    for one in comparisons:
        texts = [ABSENT] * 3
        if one.paired is not None:
            difference, effect = one.paired.mean_difference, one.paired.cohen_dz
            texts = [
                with_interval(difference, chosen_interval(one.paired, interval), metric),
                ABSENT if math.isnan(effect) else f"{effect:+.2f}".replace("-", MINUS),
                p_text(one.p_holm),
            ]
        row = dict(zip((f"difference{unit}", "d_z", "p (Holm)"), texts, strict=True)) | {"verdict": one.verdict}
        if any(other.seeds_needed for other in comparisons):
            row["seeds needed"] = seeds_text(one.seeds_needed) if one.seeds_needed else ABSENT
        rows.append(row)
    return rows


def chosen_interval(estimate: Summary | PairedComparison, interval: str) -> Interval | None:
    """The `t` or `bootstrap` interval."""
    return estimate.t_interval if interval == "t" else estimate.bootstrap_interval


def half_width_text(summary: Summary, metric: Metric, interval: str) -> str:
    """Mean with half the width of the t interval, or with both ends of the bootstrap interval (it is asymmetric)."""
    text, chosen = metric.format(summary.mean), chosen_interval(summary, interval)
    if chosen is None:
        return text
    if interval == "bootstrap":
        return f"{text} {interval_text(chosen, metric)}"
    return f"{text} {PLUS_MINUS} {metric.format((chosen.high - chosen.low) / 2)}"


def interval_text(interval: Interval | None, metric: Metric, *, signed: bool = False) -> str:
    """`[99.02, 99.28]`."""
    if interval is None:
        return ABSENT
    return f"[{metric.format(interval.low, signed=signed)}, {metric.format(interval.high, signed=signed)}]"


def with_interval(difference: float, interval: Interval | None, metric: Metric) -> str:
    """`+0.12 [+0.03, +0.21]`."""
    text = metric.format(difference, signed=True)
    return text if interval is None else f"{text} {interval_text(interval, metric, signed=True)}"


def p_text(p_value: float) -> str:
    """Three decimals, or as many as show on which side of the threshold the value is."""
    if math.isnan(p_value):
        return ABSENT
    if p_value < 0.001:
        return "<0.001"
    texts = (f"{p_value:.{digits}f}" for digits in range(3, 18))
    return next(text for text in texts if (float(text) < ALPHA) == (p_value < ALPHA))


def seeds_text(count: int, more: str = ">", about: str = "") -> str:
    """The count, or that it is more than 1,000."""
    return f"{more}{_MOST_SEEDS_WRITTEN:,}" if count > _MOST_SEEDS_WRITTEN else f"{about}{count:,}"


def _with_seed(value: float, seed: int | None, metric: Metric) -> str:
    return ABSENT if seed is None else f"{metric.format(value)} ({seed})"


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value
