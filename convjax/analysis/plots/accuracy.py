"""The metric of each arm: one row per arm, or a map of a grid. Pure: nothing is read, written or kept.

Every function takes `theme`, one of `light`, `dark` and `page` (see `convjax.analysis.plots.theme`). All intervals are
Student's t, 95 %, of the mean over seeds. Where a few values lie far from the rest the axis leaves them out, and they
are written at its edge.
"""

import itertools
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from convjax.analysis.arms import DONE, ArmRuns, Arms
from convjax.analysis.comparisons import ArmComparison
from convjax.analysis.metrics import Metric
from convjax.analysis.plots.parts import (
    LABEL_WIDTH,
    SMALL,
    WIDTH,
    handle,
    near_range,
    near_window,
    put_title,
    short_labels,
    text_color,
    wrapped,
)
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, drawable, styled
from convjax.analysis.statistics import BETTER, HIGHER, LOWER, WORSE, Summary
from convjax.analysis.wording import counted, field_text, key_text, listed, natural_key
from convjax.errors import UserError

MOST_HEAT_MAPS = 9

_BASELINE = "baseline"
_NOT_COMPARED = "not compared"
_PLAIN = "mean"


@styled
def accuracy_plot(arms: Arms, comparisons: Sequence[ArmComparison] = (), *, theme: Theme) -> Figure:
    """One row per arm: every seed a dot, the mean with its interval, the baseline a vertical line.

    Args:
      arms: in the order in which they are drawn, from the top.
      comparisons: of each arm with its baseline; none where there is no baseline.
      theme: see the module.
    """
    usual = arms.usual_seeds
    texts = [
        "\n".join([wrapped(label, LABEL_WIDTH), *_remarks(arm, summary, usual)])
        for label, arm, summary in zip(short_labels(arms), arms.arms, arms.summaries, strict=True)
    ]
    heights = [max(1.8, 1.25 * len(text.splitlines())) * FONT_SIZE * 1.3 / 72 for text in texts]
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    centers = (tops[:-1] + tops[1:]) / 2

    figure = ThemedFigure(WIDTH, float(tops[-1]) + 1.5, theme)
    axes = figure.add_subplot()
    axes.set_xlim(near_window(arms, arms.summaries))
    axes.set_ylim(float(tops[-1]), 0.0)
    axes.grid(visible=False, axis="y")
    # Bands tell the rows apart: a line through an arm would look like an interval.
    for top, bottom in list(itertools.pairwise(tops))[::2]:
        axes.axhspan(top, bottom, color=theme.grid, alpha=0.35, linewidth=0)
    _draw_baselines(axes, arms, comparisons, tops, theme)
    kinds = [_kind(index, comparisons) for index in range(len(arms.arms))]
    for index, (kind, center) in enumerate(zip(kinds, centers, strict=True)):
        _draw_seeds(axes, arms, index, center, theme)
        _draw_mean(axes, arms, index, center, _look(kind, theme), theme)
    axes.set_yticks(centers, texts)
    axes.tick_params(axis="y", length=0)
    for tick in axes.get_yticklabels():
        tick.set_linespacing(1.1)
    axes.set_xlabel(f"{arms.metric.heading}, {counted(usual, 'seed')} per arm")
    shown = dict.fromkeys(kind for kind, summary in zip(kinds, arms.summaries, strict=True) if summary.n)
    handles = [handle(*_look(kind, theme), kind) for kind in shown]
    if any(summary.t_interval is not None for summary in arms.summaries):
        handles.append(Line2D([], [], color=theme.muted, linewidth=2.2, label="95 % t interval of the mean"))
    handles.append(handle(theme.ink, "o", "one seed"))
    handles[-1].set(alpha=0.45, markersize=4)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    put_title(figure, arms, f"{arms.metric.title} by {listed(arms.varying)}")
    return figure


@styled
def heat_map(arms: Arms, row_field: str, column_field: str, *, theme: Theme) -> Figure:
    """Mean of every cell of a grid with half its interval's width; one map for every value of the other fields.

    Colors span at least four typical half widths, so that chance does not look like a pattern.

    Raises:
      UserError: a field that the arms are not grouped by, or too many maps.
    """
    for name in (row_field, column_field):
        if name not in arms.by:
            raise UserError(f"the arms are not grouped by {name}; expected one of {', '.join(arms.by)}")
    rows, columns = arms.levels[row_field], arms.levels[column_field]
    others = [name for name in arms.by if name not in (row_field, column_field)]
    cells = {}
    for arm, summary in zip(arms.arms, arms.summaries, strict=True):
        fields = dict(zip(arms.by, arm.key, strict=True))
        cells[tuple(fields[name] for name in others), fields[row_field], fields[column_field]] = summary
    maps = sorted({other for other, _, _ in cells}, key=lambda key: [natural_key(value) for value in key])
    if len(maps) > MOST_HEAT_MAPS:
        raise UserError(f"{len(maps):,} heat maps would be needed; at most {MOST_HEAT_MAPS} are drawn")

    metric = arms.metric
    longest = max(len(line) for summary in arms.summaries for line in _cell_text(summary, metric).splitlines())
    across = max(0.095 * longest, 0.085 * max(len(field_text(value)) for value in columns), 0.7)
    width = max(WIDTH, 1.2 + across * len(columns))
    height = 0.55 + 0.42 * len(rows) + 0.35
    figure = ThemedFigure(width, (height + (0.25 if others else 0)) * len(maps) + 0.75, theme)
    norm = _color_scale(arms.summaries)
    for number, other in enumerate(maps):
        axes = figure.add_subplot(len(maps), 1, number + 1)
        grid = [[cells.get((other, row, column)) for column in columns] for row in rows]
        _draw_grid(axes, grid, metric, norm, theme)
        axes.set_xticks(range(len(columns)), [drawable(field_text(value)) for value in columns])
        axes.set_yticks(range(len(rows)), [drawable(field_text(value)) for value in rows])
        axes.set_ylabel(row_field)
        axes.set_title(drawable(key_text(others, other)))
    figure.axes[-1].set_xlabel(column_field)
    unit = f" ({metric.unit})" if metric.unit else ""
    put_title(figure, arms, f"Mean {metric.title}{unit} by {row_field} and {column_field}", width=int(width * 10.5))
    return figure


def _remarks(arm: ArmRuns, summary: Summary, usual: int) -> list[str]:
    """What an arm's label adds: an unusual number of seeds, and runs that are not done."""
    parts = [counted(summary.n, "seed")] if summary.n not in (0, usual) else []
    parts += [f"{count:,} {status}" for status, count in arm.counts.items() if count and status != DONE]
    return textwrap.wrap(", ".join(parts), LABEL_WIDTH)


def _kind(index: int, comparisons: Sequence[ArmComparison]) -> str:
    """What the legend says of an arm."""
    if not comparisons:
        return _PLAIN
    one = comparisons[index]
    if one.baseline == index:
        return _BASELINE
    return _NOT_COMPARED if one.paired is None else one.verdict


def _look(kind: str, theme: Theme) -> tuple[str, str]:
    """Color and marker of an arm's mean."""
    looks = {
        _PLAIN: (theme.series[0], "o"),
        _BASELINE: (theme.ink, "D"),
        BETTER: (theme.good, "^"),
        WORSE: (theme.bad, "v"),
        HIGHER: (theme.series[0], "^"),
        LOWER: (theme.series[1], "v"),
    }
    return looks.get(kind, (theme.muted, "o"))


def _draw_baselines(
    axes: Axes, arms: Arms, comparisons: Sequence[ArmComparison], tops: NDArray[np.float64], theme: Theme
) -> None:
    """A vertical line at the baseline's mean through the rows of the arms that are compared with it."""
    for baseline, group in itertools.groupby(range(len(comparisons)), key=lambda index: comparisons[index].baseline):
        rows = list(group)
        if baseline is not None and arms.summaries[baseline].n:
            mean, ends = arms.summaries[baseline].mean * arms.metric.scale, [tops[rows[0]], tops[rows[-1] + 1]]
            axes.plot([mean] * 2, ends, color=theme.ink, linewidth=1, linestyle=(0, (4, 2)), gid="baseline")


def _draw_mean(axes: Axes, arms: Arms, index: int, center: float, look: tuple[str, str], theme: Theme) -> None:
    """The mean with its interval; words where there is none, and nothing where it is off the scale."""
    summary, scale = arms.summaries[index], arms.metric.scale
    color, marker = look
    low, high = axes.get_xlim()
    if not summary.n:
        axes.text(0.01, center, "no result", transform=axes.get_yaxis_transform(), color=theme.muted, va="center")
    elif low <= summary.mean * scale <= high:
        height = center - 0.05
        if summary.t_interval is not None:
            ends = [summary.t_interval.low * scale, summary.t_interval.high * scale]
            axes.plot(ends, [height] * 2, color=color, linewidth=2.2, gid="interval", solid_capstyle="butt")
        axes.plot([summary.mean * scale], [height], marker, color=color, ms=7, gid="mean", markeredgecolor="none")


def _draw_seeds(axes: Axes, arms: Arms, index: int, center: float, theme: Theme) -> None:
    """Dots, and at the edges words for what is off the scale."""
    metric, mean = arms.metric, arms.summaries[index].mean
    values = [value for value in arms.arms[index].values.values() if math.isfinite(value)]
    dots = [value * metric.scale for value in values]
    axes.plot(dots, [center + 0.09] * len(dots), "o", color=theme.ink, alpha=0.45, markersize=4, gid="seeds", mew=0)
    for edge, sign in zip(axes.get_xlim(), (-1, 1), strict=True):
        off = sorted(value for value in values if (value * metric.scale - edge) * sign > 0)
        if not off:
            continue
        ends = dict.fromkeys(metric.format(value) for value in (off[0], off[-1]))
        text = f"{counted(len(off), 'seed')} at {' to '.join(ends)}"
        mean_off = (mean * metric.scale - edge) * sign > 0
        if mean_off and len(values) > 1:
            text = f"mean {metric.format(mean)}, {text}"
        left, right = "\N{BLACK LEFT-POINTING TRIANGLE}", "\N{BLACK RIGHT-POINTING TRIANGLE}"
        axes.text(
            0.01 if sign < 0 else 0.99,
            # The mean's line is free where the mean is not in the picture.
            center - 0.05 if mean_off else center + 0.09,
            f"{left} {text}" if sign < 0 else f"{text} {right}",
            transform=axes.get_yaxis_transform(),
            ha="left" if sign < 0 else "right",
            va="center",
            fontsize=SMALL,
            gid="off-scale",
        )


def _half_width(summary: Summary) -> float:
    return math.nan if summary.t_interval is None else (summary.t_interval.high - summary.t_interval.low) / 2


def _cell_text(summary: Summary, metric: Metric) -> str:
    half = _half_width(summary)
    spread = f"\n\N{PLUS-MINUS SIGN} {metric.format(half)}" if math.isfinite(half) else ""
    return f"{metric.format(summary.mean)}{spread}"


def _color_scale(summaries: Sequence[Summary]) -> Normalize:
    means = sorted(summary.mean for summary in summaries if summary.n)
    if not means:
        return Normalize(0.0, 1.0)
    halves = sorted(half for half in map(_half_width, summaries) if math.isfinite(half))
    low, high = near_range(means)
    missing = max(4 * halves[len(halves) // 2] - (high - low), 0.0) if halves else 0.0
    if high - low + missing == 0:
        missing = abs(high) * 0.01 or 1.0
    return Normalize(low - missing / 2, high + missing / 2, clip=True)


def _draw_grid(
    axes: Axes, grid: Sequence[Sequence[Summary | None]], metric: Metric, norm: Normalize, theme: Theme
) -> None:
    means = np.array([[math.nan if cell is None or not cell.n else cell.mean for cell in row] for row in grid])
    rows, columns = means.shape
    edges_x, edges_y = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    shown = np.ma.masked_invalid(means)
    mesh = axes.pcolormesh(edges_x, edges_y, shown, cmap="viridis", norm=norm, gid="cells")
    mesh.set(edgecolors=theme.paper, linewidths=1.5)
    for (y, x), mean in np.ndenumerate(means):
        cell = grid[y][x]
        text, color = "no run" if cell is None else "no result", theme.muted
        if cell is not None and cell.n:
            text, color = _cell_text(cell, metric), text_color(mesh.to_rgba(mean))
        axes.text(x, y, text, ha="center", va="center", color=color, fontsize=SMALL, linespacing=1.1, gid="cell")
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
