"""The charts of a report as HTML: inline SVG with captions, and descriptions for readers who cannot see them."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from convjax.analysis.arms import Arms
from convjax.analysis.comparisons import ArmComparison
from convjax.analysis.curves import Lines, arm_curve, mean_curve
from convjax.analysis.metrics import metric_named, short_number
from convjax.analysis.plots.accuracy import MOST_HEAT_MAPS, accuracy_plot, heat_map
from convjax.analysis.plots.cost import COST_NAMES, cost_plot, pareto_front, varying_costs
from convjax.analysis.plots.curves import learning_curves
from convjax.analysis.plots.theme import to_page_svg
from convjax.analysis.report.html import capital, figure_box
from convjax.analysis.wording import counted, listed

_COST_WORDS = {
    "parameters": "the number of parameters",
    "flops": "the FLOPs of one image's forward pass",
    "seconds": "the mean wall time of a run (it depends on the machine and on its other load)",
}
_MOST_DESCRIBED = 12
_LARGEST, _SMALLEST = 1.3, 0.7
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def figures(arms: Arms, comparisons: Sequence[ArmComparison], lines: Sequence[Mapping[int, Lines]]) -> str:
    """All charts, as HTML."""
    boxes = [*_means_boxes(arms, comparisons), *_heat_map_boxes(arms), *_curve_boxes(arms, lines), *_cost_boxes(arms)]
    return "\n".join(boxes)


def _means_boxes(arms: Arms, comparisons: Sequence[ArmComparison]) -> list[str]:
    if not any(arm.values for arm in arms.arms):
        return []
    caption = "Every seed is a small dot, the mean over seeds a large mark with its 95 % t interval."
    if comparisons:
        caption += (
            " The dashed line is the baseline's mean. Overlapping intervals decide nothing: arms are compared seed by "
            "seed."
        )
    title = f"{capital(arms.metric.title)} by {listed(arms.varying)}"
    return [chart_box(accuracy_plot(arms, comparisons, theme="page"), "means", title, _means_text(arms), caption)]


def _heat_map_boxes(arms: Arms) -> list[str]:
    fields = arms.varying
    if len(fields) < 2 or not any(arm.values for arm in arms.arms):
        return []
    levels = {name: len(arms.levels[name]) for name in fields}
    cells, maps = math.prod(levels.values()), math.prod(levels[name] for name in fields[2:])
    # Arms that are no grid would leave a map of holes.
    if min(levels[fields[0]], levels[fields[1]]) < 2 or cells > 1.5 * len(arms.arms) or maps > MOST_HEAT_MAPS:
        return []
    # A page has more room down than across.
    row_field, column_field = sorted(fields[:2], key=lambda name: -levels[name])
    metric = arms.metric
    return [
        chart_box(
            heat_map(arms, row_field, column_field, theme="page"),
            "grid",
            f"{capital(metric.title)} by {row_field} and {column_field}",
            _means_text(arms),
            f"Mean {metric.heading} of every combination, {_PLUS_MINUS} half the width of its 95 % t interval. "
            "Brighter is higher.",
        )
    ]


def _curve_boxes(arms: Arms, lines: Sequence[Mapping[int, Lines]]) -> list[str]:
    # One epoch is a point, and no curve.
    if not any(len(by_epoch) > 1 for by_seed in lines for by_epoch in by_seed.values()):
        return []
    by = listed(arms.varying)
    boxes: list[str] = []
    for quantity in ("accuracy", "loss"):
        caption = f"{capital(quantity)} by epoch: mean over seeds, and a band from the lowest seed to the highest."
        if not boxes:
            caption += (
                " Training values are means over an epoch, during which the network changes, so they lag behind those "
                "that are measured after it."
            )
        figure = learning_curves(arms, lines, quantity, theme="page")
        title = f"{capital(quantity)} by epoch for every {by}"
        boxes.append(chart_box(figure, f"curves-{quantity}", title, _curves_text(arms, lines, quantity), caption))
    return boxes


def _cost_boxes(arms: Arms) -> list[str]:
    metric = arms.metric
    boxes: list[str] = []
    for cost in varying_costs(arms):
        if metric.name.startswith(cost):
            continue
        caption = f"Mean {metric.title} against {_COST_WORDS[cost]}."
        if not boxes and metric.lower_is_better is not None:
            caption += (
                " The dashed line joins the arms that no other arm beats in both. It is made of means: neighbors on "
                "it may differ by chance only."
            )
        title = f"{capital(metric.title)} against {COST_NAMES[cost]}"
        figure = cost_plot(arms, cost, theme="page")
        boxes.append(chart_box(figure, f"cost-{cost}", title, _front_text(arms, cost), caption))
    return boxes


def chart_box(figure: Figure, name: str, title: str, description: str, caption: str) -> str:
    """A chart, made with the theme `page`, as a figure of the page; see `convjax.analysis.plots.theme.to_page_svg`."""
    pixels = figure.get_figwidth() * 96
    svg = to_page_svg(figure, name, title=title, description=description)
    return figure_box(svg, caption, width=pixels * _LARGEST, least=pixels * _SMALLEST)


def _means_text(arms: Arms) -> str:
    """What the chart of means shows, for readers who cannot see it."""
    metric = arms.metric
    means = {arms.label(arm): arm.mean for arm in arms.arms if math.isfinite(arm.mean)}
    if len(means) <= _MOST_DESCRIBED:
        listing = "; ".join(f"{label}: {metric.with_unit(mean)}" for label, mean in means.items())
        return f"Mean {metric.title} of {counted(len(means), 'arm')}. {listing}."
    low, high = min(means, key=lambda label: means[label]), max(means, key=lambda label: means[label])
    return (
        f"Mean {metric.title} of {len(means):,} arms, from {metric.with_unit(means[low])} ({low}) to "
        f"{metric.with_unit(means[high])} ({high}). The table has every value."
    )


def _curves_text(arms: Arms, lines: Sequence[Mapping[int, Lines]], quantity: str) -> str:
    metric = metric_named(quantity)
    ends = []
    for arm, by_seed in zip(arms.arms, lines, strict=True):
        curve = arm_curve(by_seed, f"train_{quantity}")
        if not curve.empty:
            mean, start, end = mean_curve(curve), curve.index[0], curve.index[-1]
            first, last = (metric.with_unit(mean.loc[epoch]) for epoch in (start, end))
            ends.append(f"{arms.label(arm)}: from {first} in epoch {start} to {last} in epoch {end}")
    rest = len(ends) - _MOST_DESCRIBED
    listing = "; ".join(ends[:_MOST_DESCRIBED]) + (f"; and {rest:,} more" if rest > 0 else "")
    return f"Mean training {quantity} by epoch. {listing}."


def _front_text(arms: Arms, cost: str) -> str:
    metric = arms.metric
    text = f"Mean {metric.title} against {_COST_WORDS[cost]}."
    if metric.lower_is_better is None:
        return text
    costs, means = [getattr(arm, cost) for arm in arms.arms], [summary.mean for summary in arms.summaries]
    front = pareto_front(costs, means, lower_is_better=metric.lower_is_better)
    listing = "; ".join(
        f"{arms.label(arms.arms[index])}, {short_number(costs[index])}, {metric.format(means[index])}"
        for index in front
    )
    return f"{text} On the Pareto front: {listing}."
