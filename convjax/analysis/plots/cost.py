"""Accuracy against its cost: parameters, FLOPs, time. Pure, as `convjax.analysis.plots.accuracy`."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from convjax.analysis.arms import Arms
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
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.analysis.wording import listed

COST_NAMES = {"parameters": "parameters", "flops": "FLOPs", "seconds": "seconds"}

_TITLES = {
    "parameters": "parameters",
    "flops": "FLOPs of one image's forward pass",
    "seconds": "mean wall time of a run (s)",
}
_MOST_LABELED = 0.14
"""Share of the chart that labels may cover before only the front's are kept."""

_SAME = {"parameters": 1.05, "flops": 1.05, "seconds": 1.2}
"""Costs whose extremes are closer than this are no axis; wall times also differ by chance."""

# Where a label's box may touch a circle around its point, in pixels: nearest first, and right reads best.
_PLACES = [
    (distance, math.cos(angle), math.sin(angle))
    for distance in (7.0, 14.0, 24.0, 36.0, 50.0, 66.0)
    for angle in np.arange(16) * math.pi / 8
]


@styled
def cost_plot(arms: Arms, cost: str, *, theme: Theme) -> Figure:
    """Means with intervals against what arms cost, with the Pareto front.

    On the front are the arms that no other arm beats in both. It is made of means: neighbors on it may differ by
    chance only. A crowded chart labels the arms on the front only.

    Args:
      arms: at least one with a result and a known cost.
      cost: `parameters`, `flops` or `seconds`.
      theme: see the module.
    """
    metric = arms.metric
    figure = ThemedFigure(WIDTH, 3.7, theme)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlabel(_TITLES[cost])
    axes.set_ylabel(f"mean {metric.heading}")
    _draw_points(axes, arms, cost, theme)
    put_title(figure, arms, f"{metric.title} against {COST_NAMES[cost]}, by {listed(arms.varying)}")
    best = "lowest" if metric.lower_is_better else "highest"
    front = f"line: Pareto front ({best} mean for the cost); " if metric.lower_is_better is not None else ""
    figure.supxlabel(f"{front}bars: 95 % t interval", fontsize=FONT_SIZE - 0.5, color=theme.muted)
    _label_points(figure, axes, theme)
    return figure


def pareto_front(costs: ArrayLike, values: ArrayLike, *, lower_is_better: bool = False) -> list[int]:
    """Indices of the points that no other point beats, by ascending cost.

    One point beats another if it costs no more and is no worse, and one of the two is strict. Points that are not
    finite are neither on the front nor beat any.
    """
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    gain = -value if lower_is_better else value
    finite = np.isfinite(cost) & np.isfinite(gain)
    no_worse = (cost[:, None] <= cost) & (gain[:, None] >= gain)
    beats = no_worse & ((cost[:, None] < cost) | (gain[:, None] > gain))
    front = np.flatnonzero(finite & ~beats[finite].any(axis=0))
    return front[np.argsort(cost[front], kind="stable")].tolist()


def varying_costs(arms: Arms) -> list[str]:
    """The costs in which arms with results differ by enough to be an axis."""
    found = []
    for cost, ratio in _SAME.items():
        values = [getattr(arm, cost) for arm in arms.arms if arm.values]
        known = [value for value in values if math.isfinite(value) and value > 0]
        if len(known) > 1 and max(known) > ratio * min(known):
            found.append(cost)
    return found


def _draw_points(axes: Axes, arms: Arms, cost: str, theme: Theme) -> None:
    """Limits, front, intervals, means; and every label at its mean, to be moved later."""
    metric, labels = arms.metric, short_labels(arms)
    costs = np.array([getattr(arm, cost) for arm in arms.arms], dtype=float)
    means = np.array([summary.mean * metric.scale for summary in arms.summaries])
    costs[~(np.isfinite(means) & (costs > 0))] = math.nan
    shown = np.flatnonzero(np.isfinite(costs))
    if not shown.size:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=theme.muted)
        return
    least, most = costs[shown].min(), costs[shown].max()
    room = max((most / least) ** 0.12, 1.02)
    axes.set_xlim(least / room, most * room)
    set_log_ticks(axes.xaxis, least / room, most * room, tick_number)
    low, high = near_window(arms, [arms.summaries[index] for index in shown])
    axes.set_ylim(low, high)
    front = []
    if metric.lower_is_better is not None:
        front = pareto_front(costs, means, lower_is_better=metric.lower_is_better)
        look = {"color": theme.muted, "linewidth": 1, "linestyle": (0, (3, 2))}
        axes.plot(costs[front], means[front], drawstyle="steps-post", gid="front", **look)
    for index in shown:
        color = theme.series[0] if index in front or not front else theme.muted
        summary, mean = arms.summaries[index], means[index]
        if summary.t_interval is not None:
            ends = [summary.t_interval.low * metric.scale, summary.t_interval.high * metric.scale]
            axes.plot([costs[index]] * 2, ends, color=color, linewidth=1.6, alpha=0.7, gid="interval")
        # A mean off the scale is an arrow at the edge; its label tells the value.
        far = not low <= mean <= high
        marker, height = ("v" if mean < low else "^") if far else "o", float(np.clip(mean, low, high))
        gid = f"mean-{index}"
        axes.plot([costs[index]], [height], marker, color=color, ms=6, mec="none", clip_on=not far, gid=gid)
        label = wrapped(labels[index], LABEL_WIDTH) + (f" ({metric.format(summary.mean)})" if far else "")
        axes.text(costs[index], height, label, fontsize=SMALL, gid="front-label" if index in front else "label")


def _label_points(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Moves the labels to where they cover least, with a line to their point where that is far."""
    labels = [text for text in axes.texts if text.get_gid() in ("label", "front-label")]
    for label in labels:
        label.set_in_layout(False)
        label.set(ha="center", va="center", linespacing=1.0)
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    boxes = {label: label.get_window_extent() for label in labels}
    if sum(box.width * box.height for box in boxes.values()) > _MOST_LABELED * frame.width * frame.height:
        for label in labels:
            if label.get_gid() == "label":
                label.remove()
                del boxes[label]
    anchors = [tuple(axes.transData.transform(label.get_position())) for label in boxes]
    sizes = [(box.width + 2, box.height) for box in boxes.values()]
    to_data = axes.transData.inverted().transform
    for label, anchor, box in zip(boxes, anchors, place_labels(anchors, sizes, frame, _obstacles(axes)), strict=True):
        x, y = to_data(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)).tolist()
        label.set_position((x, y))
        nearest = np.clip(anchor, box.min, box.max)
        if math.dist(anchor, nearest) > 16:
            ends = to_data([anchor, nearest])
            axes.plot(ends[:, 0], ends[:, 1], color=theme.muted, linewidth=0.6, gid="leader", zorder=1)


def _obstacles(axes: Axes) -> list[Bbox]:
    """The points and lines of a chart, in pixels."""
    boxes = []
    for line in axes.lines:
        x, y = line.get_data()
        if line.get_gid() == "front":
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        points = axes.transData.transform(np.column_stack([x, y]))
        if len(points) == 1:
            boxes.append(Bbox([points[0] - 5, points[0] + 5]))
        for pair in itertools.pairwise(points):
            boxes.append(Bbox([np.min(pair, axis=0) - 1.5, np.max(pair, axis=0) + 1.5]))
    return boxes


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Bbox,
    obstacles: Sequence[Bbox] = (),
) -> list[Bbox]:
    """A box for each label, near its anchor, in pixels.

    One label after the other takes the place that covers least. In a crowd overlaps may remain, but no label leaves
    the frame while it fits into it.

    Args:
      anchors: the points that the labels belong to; they are obstacles themselves.
      sizes: width and height of each label.
      frame: where labels may be.
      obstacles: boxes to keep clear where possible.
    """
    taken = [*obstacles, *(Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in anchors)]
    placed = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        boxes = []
        for distance, right, up in _PLACES:
            # The box touches the circle from outside, so a wide label stands clear above as well as beside.
            left = x + right * distance - width / 2 * (1 - _side(right))
            boxes.append(Bbox.from_bounds(left, y + up * distance - height / 2 * (1 - _side(up)), width, height))
        inside = [box for box in boxes if frame.containsx(box.x0) and frame.containsx(box.x1)]
        inside = [box for box in inside if frame.containsy(box.y0) and frame.containsy(box.y1)]
        placed.append(min(inside or boxes, key=lambda box: box.count_overlaps(taken)))
        taken.append(placed[-1])
    return placed


def _side(direction: float) -> float:
    return 0.0 if abs(direction) < 0.2 else math.copysign(1.0, direction) if abs(direction) > 0.5 else direction * 2
