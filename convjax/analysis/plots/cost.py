"""Accuracy against what it costs: parameters, FLOPs, time. Pure, as `convjax.analysis.plots.accuracy`."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from convjax.analysis.arms import Arms, listed
from convjax.analysis.plots.parts import (
    LABEL_WIDTH,
    SMALL,
    WIDTH,
    near_window,
    put_title,
    set_log_ticks,
    short_labels,
    tick_number,
    wrapped,
)
from convjax.analysis.plots.placement import place_labels
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.analysis.statistics import Summary

COSTS = ("parameters", "flops", "seconds")
"""What arms cost, by attribute of `ArmRuns`."""

_TITLES = {
    "parameters": "parameters",
    "flops": "FLOPs of one image's forward pass",
    "seconds": "mean wall time of a run (s)",
}
_MOST_LABELLED = 0.14
"""Share of a panel that labels may cover before only the front's are kept."""

_SAME = {"parameters": 1.05, "flops": 1.05, "seconds": 1.2}
"""Costs whose extremes are nearer than this are no axis; wall times also differ by chance."""


@styled
def cost_plot(arms: Arms, costs: Sequence[str] = COSTS, *, theme: Theme) -> Figure:
    """Means with intervals against what arms cost, a panel a cost, with the Pareto front.

    On the front are the arms that no other arm beats in both. It is made of means: neighbours on it need not differ
    by more than chance. Crowded panels label the arms on the front only.

    Args:
      arms: at least one with a result and a known cost.
      costs: of `COSTS`.
      theme: see the module.
    """
    summaries = arms.summaries
    figure = ThemedFigure(WIDTH * len(costs), 3.7, theme)
    for position, cost in enumerate(costs):
        _draw_cost(figure.add_subplot(1, len(costs), position + 1), arms, summaries, cost, theme)
    best = "lowest" if arms.metric.lower_is_better else "highest"
    names = [{"flops": "FLOPs"}.get(cost, cost) for cost in costs]
    put_title(figure, arms, f"{arms.metric.title} against {listed(names)}, by {listed(arms.varying)}")
    front = f"line: Pareto front ({best} mean for the cost); " if arms.metric.lower_is_better is not None else ""
    figure.supxlabel(f"{front}bars: 95 % t interval", fontsize=FONT_SIZE - 0.5, color=theme.muted)
    for axes in figure.axes:
        _label_points(figure, axes, theme)
    return figure


def pareto_front(costs: ArrayLike, values: ArrayLike, *, lower_is_better: bool = False) -> list[int]:
    """Indices of the points that no other point beats, by ascending cost.

    One point beats another if it costs no more and is no worse, and one of the two is strict. Points that are not
    finite are neither on the front nor beat any.
    """
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    gain = -value if lower_is_better else value
    finite = [index for index in range(len(cost)) if math.isfinite(cost[index]) and math.isfinite(gain[index])]
    front: list[int] = []
    best = -math.inf
    for index in sorted(finite, key=lambda index: (cost[index], -gain[index], index)):
        equal = bool(front) and cost[index] == cost[front[-1]] and gain[index] == best
        if gain[index] > best or equal:
            front.append(index)
            best = float(gain[index])
    return front


def varying_costs(arms: Arms) -> list[str]:
    """The costs in which arms with results differ by enough to be an axis."""
    found = []
    for cost in COSTS:
        values = [getattr(arm, cost) for arm in arms.arms if arm.values]
        known = [value for value in values if math.isfinite(value) and value > 0]
        if len(known) > 1 and max(known) > _SAME[cost] * min(known):
            found.append(cost)
    return found


def _draw_cost(axes: Axes, arms: Arms, summaries: Sequence[Summary], cost: str, theme: Theme) -> None:
    metric = arms.metric
    costs, labels = [getattr(arm, cost) for arm in arms.arms], short_labels(arms)
    shown = [
        index
        for index, summary in enumerate(summaries)
        if summary.n and math.isfinite(costs[index]) and costs[index] > 0
    ]
    axes.set_xscale("log")
    axes.set_xlabel(_TITLES[cost])
    axes.set_ylabel(f"mean {metric.heading}")
    if not shown:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=theme.muted)
        return
    xs = np.array([costs[index] for index in shown])
    ys = np.array([summaries[index].mean * metric.scale for index in shown])
    room = max((xs.max() / xs.min()) ** 0.12, 1.02)
    axes.set_xlim(xs.min() / room, xs.max() * room)
    set_log_ticks(axes.xaxis, xs.min() / room, xs.max() * room, tick_number)
    axes.set_ylim(near_window(arms, [summaries[index] for index in shown]))
    low, high = axes.get_ylim()
    front = []
    if metric.lower_is_better is not None:
        front = pareto_front(xs, ys, lower_is_better=metric.lower_is_better)
        axes.plot(
            xs[front],
            ys[front],
            drawstyle="steps-post",
            color=theme.muted,
            linewidth=1,
            linestyle=(0, (3, 2)),
            gid="front",
        )
    for place, index in enumerate(shown):
        colour = theme.series[0] if place in front or not front else theme.muted
        interval = summaries[index].t_interval
        if interval is not None:
            ends = [interval.low * metric.scale, interval.high * metric.scale]
            axes.plot([xs[place]] * 2, ends, color=colour, linewidth=1.6, alpha=0.7, gid="interval")
        far = not low <= ys[place] <= high
        # A mean off the scale is an arrow at the edge; its label tells the value.
        axes.plot(
            [xs[place]],
            [float(np.clip(ys[place], low, high))],
            ("v" if ys[place] < low else "^") if far else "o",
            color=colour,
            markersize=6,
            gid=f"mean-{index}",
            clip_on=not far,
            markeredgecolor="none",
        )
        label = wrapped(labels[index], LABEL_WIDTH) + (f" ({metric.format(summaries[index].mean)})" if far else "")
        kind = "front-label" if place in front else "label"
        axes.text(xs[place], float(np.clip(ys[place], low, high)), label, fontsize=SMALL, gid=kind)


def _label_points(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Moves the labels of `_draw_cost` to where they cover least, with a line to their point where that is far."""
    labels = [text for text in axes.texts if text.get_gid() in ("label", "front-label")]
    for label in labels:
        label.set_in_layout(False)
        label.set(ha="center", va="center", linespacing=1.0)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    boxes = {label: label.get_window_extent(renderer) for label in labels}
    if sum(box.width * box.height for box in boxes.values()) > _MOST_LABELLED * frame.width * frame.height:
        for label in labels:
            if label.get_gid() == "label":
                label.remove()
                del boxes[label]
    labels = list(boxes)
    obstacles = []
    for line in axes.lines:
        points = axes.transData.transform(np.column_stack(line.get_data()))
        if line.get_gid() == "front":
            corners = [(points[k + 1][0], points[k][1]) for k in range(len(points) - 1)]
            path = [point for pair in zip(points, [*corners, points[-1]], strict=True) for point in pair]
        else:
            path = list(points)
        for (x0, y0), (x1, y1) in itertools.pairwise(path):
            obstacles.append((min(x0, x1) - 1.5, min(y0, y1) - 1.5, max(x0, x1) + 1.5, max(y0, y1) + 1.5))
        if str(line.get_gid()).startswith("mean"):
            x, y = points[0]
            obstacles.append((x - 5, y - 5, x + 5, y + 5))
    anchors = [tuple(axes.transData.transform(label.get_position())) for label in labels]
    centres = place_labels(
        anchors,  # type: ignore[arg-type]
        [(box.width + 2, box.height) for box in boxes.values()],
        (frame.x0, frame.y0, frame.x1, frame.y1),
        obstacles,
    )
    inverse = axes.transData.inverted()
    for label, anchor, centre in zip(labels, anchors, centres, strict=True):
        box = boxes[label]
        label.set_position(inverse.transform(centre))
        nearest = (
            min(max(anchor[0], centre[0] - box.width / 2), centre[0] + box.width / 2),
            min(max(anchor[1], centre[1] - box.height / 2), centre[1] + box.height / 2),
        )
        if math.dist(anchor, nearest) > 16:
            start, end = inverse.transform([anchor, nearest])
            axes.plot(*zip(start, end, strict=True), color=theme.muted, linewidth=0.6, gid="leader", zorder=1)
