"""Columns and cells that tables have in common: results, differences, cost; and how their numbers are written."""

import math
from collections.abc import Sequence

from convjax.analysis.arms import DONE, STATUSES, Arms
from convjax.analysis.comparisons import ArmComparison
from convjax.analysis.metrics import ABSENT, MINUS, Metric, metric_named, short_number
from convjax.analysis.render import Cell, Column
from convjax.analysis.statistics import ALPHA, Interval, PairedComparison, Summary

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
INTERVAL_NAMES = {"t": "Student's t", "bootstrap": "BCa bootstrap"}
_MOST_SEEDS_WRITTEN = 1000


def chosen_interval(estimate: Summary | PairedComparison, interval: str) -> Interval | None:
    """The interval that is written: `t` or `bootstrap`."""
    return estimate.t_interval if interval == "t" else estimate.bootstrap_interval


def result_columns(metric: Metric) -> list[Column]:
    """Columns of `result_cells`."""
    panel = "result"
    best, worst = ("highest", "lowest") if metric.lower_is_better is None else ("best", "worst")
    return [
        Column("metric", shown=False),
        Column("n", "seeds", panel=panel),
        Column("missing", shown=False),
        Column("mean_sd", metric.heading, panel=panel, exported=False),
        Column("mean", shown=False),
        Column("sd", shown=False),
        Column("interval", "95 % interval", panel=panel, exported=False),
        *interval_columns(),
        Column("best", f"{best} (seed)", panel=panel),
        Column("best_seed", shown=False),
        Column("worst", f"{worst} (seed)", panel=panel),
        Column("worst_seed", shown=False),
        Column("shown_best", shown=False),
    ]


def result_cells(summary: Summary, metric: Metric, interval: str, *, best: bool) -> list[Cell]:
    """An arm's seeds, mean and sd, interval, best and worst seed; `best` marks the mean."""
    spread = f" {PLUS_MINUS} {metric.format(summary.sd)}" if summary.n > 1 else ""
    return [
        Cell(metric.name),
        Cell(summary.n, f"{summary.n:,}"),
        Cell(summary.missing),
        Cell(None, metric.format(summary.mean) + spread, best=best),
        Cell(summary.mean),
        Cell(summary.sd),
        Cell(None, interval_text(chosen_interval(summary, interval), metric)),
        *interval_cells(summary),
        Cell(summary.best, _with_seed(summary.best, summary.best_seed, metric)),
        Cell(summary.best_seed),
        Cell(summary.worst, _with_seed(summary.worst, summary.worst_seed, metric)),
        Cell(summary.worst_seed),
        Cell(best),
    ]


def interval_columns(prefix: str = "") -> list[Column]:
    """Columns of `interval_cells`, for programs only."""
    return [Column(f"{prefix}{name}", shown=False) for name in ("t_low", "t_high", "bootstrap_low", "bootstrap_high")]


def interval_cells(estimate: Summary | PairedComparison) -> list[Cell]:
    """Ends of both intervals."""
    return [*ends(estimate.t_interval), *ends(estimate.bootstrap_interval)]


def ends(interval: Interval | None) -> list[Cell]:
    """Low and high end."""
    return [Cell(interval.low), Cell(interval.high)] if interval else [Cell(), Cell()]


def cost_columns(arms: Arms) -> list[Column]:
    """Columns of `cost_cells`: a count of runs that is 0 everywhere is not shown."""
    costs = [
        Column("parameters", "parameters", panel="cost"),
        Column("flops", "image FLOPs", panel="cost"),
        Column("seconds", "seconds", panel="cost"),
    ]
    counts = [
        Column(status, status, panel="cost", shown=status != DONE and any(arm.counts[status] for arm in arms.arms))
        for status in STATUSES
    ]
    # The metric has columns of its own already.
    return [column for column in costs if column.key != arms.metric.name] + counts


def cost_cells(arms: Arms) -> list[list[Cell]]:
    """For every arm the model's size, the time it took, and its runs by status."""
    rows = []
    for arm in arms.arms:
        costs = {
            "parameters": Cell(_whole(arm.parameters), metric_named("parameters").format(arm.parameters)),
            "flops": Cell(_whole(arm.flops), short_number(arm.flops)),
            "seconds": Cell(arm.seconds, metric_named("seconds").format(arm.seconds)),
        }
        costs.pop(arms.metric.name, None)
        rows.append([*costs.values(), *(Cell(arm.counts[status], f"{arm.counts[status]:,}") for status in STATUSES)])
    return rows


def difference_columns(metric: Metric, comparisons: Sequence[ArmComparison]) -> list[Column]:
    """Columns of `difference_cells`; the seeds needed are shown if they are known for any row."""
    panel = "difference"
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    return [
        Column("baseline", shown=False),
        Column("pairs", shown=False),
        Column("difference", f"difference{unit}", panel=panel),
        Column("difference_sd", shown=False),
        *interval_columns("difference_"),
        Column("d_z", "d_z", panel=panel),
        Column("p", shown=False),
        Column("p_sign_flip", shown=False),
        Column("p_holm", "p (Holm)", panel=panel),
        Column("verdict", "verdict", left=True, panel=panel),
        Column("seeds_needed", "seeds needed", panel=panel, shown=any(c.seeds_needed for c in comparisons)),
    ]


def difference_cells(comparison: ArmComparison, labels: Sequence[str], metric: Metric, interval: str) -> list[Cell]:
    """One row's difference from its baseline; `labels` are the names of all rows."""
    base = Cell(None if comparison.baseline is None else labels[comparison.baseline])
    verdict = Cell(comparison.verdict, comparison.verdict)
    one, needed = comparison.paired, comparison.seeds_needed
    if one is None:
        width = len(difference_columns(metric, []))
        return [base, *[Cell()] * (width - 3), verdict, Cell()]
    return [
        base,
        Cell(one.n),
        Cell(one.mean_difference, difference_text(one.mean_difference, chosen_interval(one, interval), metric)),
        Cell(one.sd_difference),
        *interval_cells(one),
        Cell(one.cohen_dz, ABSENT if math.isnan(one.cohen_dz) else f"{one.cohen_dz:+.2f}".replace("-", MINUS)),
        Cell(one.p_value),
        Cell(one.p_sign_flip),
        Cell(comparison.p_holm, p_text(comparison.p_holm)),
        verdict,
        Cell(needed, seeds_text(needed)) if needed else Cell(),
    ]


def half_width_text(summary: Summary, metric: Metric, interval: str) -> str:
    """Mean with half the width of the t interval, or with the ends of the bootstrap interval (it is not symmetric)."""
    text, shown = metric.format(summary.mean), chosen_interval(summary, interval)
    if shown is None:
        return text
    if interval == "bootstrap":
        return f"{text} {interval_text(shown, metric)}"
    return f"{text} {PLUS_MINUS} {metric.format((shown.high - shown.low) / 2)}"


def interval_text(interval: Interval | None, metric: Metric, *, signed: bool = False) -> str:
    """`[99.02, 99.28]`."""
    if interval is None:
        return ABSENT
    return f"[{metric.format(interval.low, signed=signed)}, {metric.format(interval.high, signed=signed)}]"


def difference_text(difference: float, interval: Interval | None, metric: Metric) -> str:
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
