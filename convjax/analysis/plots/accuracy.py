"""What the arms of an ablation reach: a row an arm, or a map of a grid. Pure: nothing is read, written or kept.

Every function takes `theme`, one of `light`, `dark` and `page` (see `convjax.analysis.plots.theme`). All intervals are
Student's t, 95 %, of the mean over seeds. Axes that a few values far away would leave to those few are cut, and the
values off the scale are written at the edge.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from convjax.analysis.arms import DONE, Arm, Arms, counted, field_text, natural_key
from convjax.analysis.comparisons import ArmComparison
from convjax.analysis.metrics import Metric
from convjax.analysis.plots.parts import (
    LABEL_WIDTH,
    SMALL,
    WIDTH,
    by_text,
    counted_seeds,
    handle,
    near_range,
    near_window,
    put_title,
    short_labels,
    summaries_of,
    usual_seeds,
    wrapped,
)
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, drawable, styled
from convjax.analysis.statistics import BETTER, HIGHER, LOWER, WORSE, Summary
from convjax.errors import UserError

MOST_HEAT_MAPS = 9

_BASELINE = "baseline"
_NOT_COMPARED = "not compared"
_PLAIN = "mean"


@styled
def accuracy_plot(arms: Arms, comparisons: Sequence[ArmComparison] = (), *, theme: Theme) -> Figure:
    """One row an arm: every seed a dot, the mean with its interval, the baseline a vertical line.

    Args:
      arms: in the order in which they are drawn, from the top.
      comparisons: of each arm with its baseline; none where there is no baseline.
      theme: see the module.
    """
    metric, labels = arms.metric, short_labels(arms)
    summaries = summaries_of(arms)
    usual = usual_seeds(summaries)
    texts = [
        "\n".join([wrapped(label, LABEL_WIDTH), *_remarks(arm, summary, usual)])
        for label, arm, summary in zip(labels, arms.arms, summaries, strict=True)
    ]
    heights = [max(1.8, 1.25 * len(text.splitlines())) * FONT_SIZE * 1.3 / 72 for text in texts]
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    centres = (tops[:-1] + tops[1:]) / 2

    figure = ThemedFigure(WIDTH, float(tops[-1]) + 1.5, theme)
    axes = figure.add_subplot()
    window = near_window(arms, summaries)
    axes.set_xlim(window)
    axes.set_ylim(float(tops[-1]), 0.0)
    axes.grid(visible=False, axis="y")
    # Rows are told apart by bands: a line through an arm would look like an interval.
    for top, bottom in list(itertools.pairwise(tops))[::2]:
        axes.axhspan(top, bottom, color=theme.grid, alpha=0.35, linewidth=0)
    _draw_baselines(axes, arms, summaries, comparisons, tops, theme)
    kinds: dict[str, None] = {}
    for index, (arm, summary, centre) in enumerate(zip(arms.arms, summaries, centres, strict=True)):
        kind = _kind(index, comparisons)
        colour, marker = _look(kind, theme)
        if summary.n:
            kinds[kind] = None
        _draw_seeds(axes, arms, arm, summary.mean * metric.scale, centre, window, theme)
        mean = summary.mean * metric.scale
        if window[0] <= mean <= window[1]:
            if summary.t_interval is not None:
                ends = [summary.t_interval.low * metric.scale, summary.t_interval.high * metric.scale]
                axes.plot(ends, [centre - 0.05] * 2, color=colour, linewidth=2.2, gid="interval", solid_capstyle="butt")
            axes.plot([mean], [centre - 0.05], marker, color=colour, markersize=7, gid="mean", markeredgecolor="none")
        elif not summary.n:
            axes.text(0.01, centre, "no result", transform=axes.get_yaxis_transform(), color=theme.muted, va="center")
    axes.set_yticks(centres, texts)
    axes.tick_params(axis="y", length=0)
    for tick in axes.get_yticklabels():
        tick.set_linespacing(1.1)
    axes.set_xlabel(f"{metric.heading}, {counted_seeds(usual)}")
    handles = [handle(*_look(kind, theme), kind) for kind in kinds]
    if any(summary.t_interval is not None for summary in summaries):
        handles.append(Line2D([], [], color=theme.muted, linewidth=2.2, label="95 % t interval of the mean"))
    handles.append(handle(theme.ink, "o", "one seed"))
    handles[-1].set(alpha=0.45, markersize=4)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    put_title(figure, arms, f"{metric.title} by {by_text(arms)}")
    return figure


@styled
def heat_map(arms: Arms, row_field: str, column_field: str, *, theme: Theme) -> Figure:
    """Mean of every cell of a grid, written in it with half its interval's width; one map for every further field.

    Colours span at least four typical half widths, so that chance does not look like a pattern.

    Raises:
      UserError: a field that the arms are not grouped by, or too many maps.
    """
    for name in (row_field, column_field):
        if name not in arms.by:
            raise UserError(f"the arms are not grouped by {name}; expected one of {', '.join(arms.by)}")
    row_at, column_at = arms.by.index(row_field), arms.by.index(column_field)
    rest_at = [position for position in range(len(arms.by)) if position not in (row_at, column_at)]
    metric, summaries = arms.metric, summaries_of(arms)
    rests = _levels(arms, rest_at)
    if len(rests) > MOST_HEAT_MAPS:
        raise UserError(f"{len(rests):,} heat maps would be needed; at most {MOST_HEAT_MAPS} are drawn")
    rows, columns = _levels(arms, [row_at]), _levels(arms, [column_at])
    places = {arm.key: summary for arm, summary in zip(arms.arms, summaries, strict=True)}

    texts = [_cell_text(summary, metric) for summary in summaries]
    longest = max(len(line) for text in texts for line in text.splitlines())
    across = max(0.095 * longest, 0.085 * max(len(field_text(column[0])) for column in columns), 0.7)
    width = max(WIDTH, 1.2 + across * len(columns))
    height = 0.55 + 0.42 * len(rows) + 0.35
    figure = ThemedFigure(width, (height + (0.25 if rest_at else 0)) * len(rests) + 0.75, theme)
    colours, norm = matplotlib.colormaps["viridis"], _colour_scale(summaries)
    for number, rest in enumerate(rests):
        axes = figure.add_subplot(len(rests), 1, number + 1)
        grid: list[list[Summary | None]] = []
        for row in rows:
            keys = [_key(len(arms.by), {row_at: row[0], column_at: column[0]}, rest_at, rest) for column in columns]
            grid.append([places.get(key) for key in keys])
        _draw_grid(axes, grid, arms, colours, norm, theme)
        axes.set_xticks(range(len(columns)), [drawable(field_text(column[0])) for column in columns])
        axes.set_yticks(range(len(rows)), [drawable(field_text(row[0])) for row in rows])
        axes.set_ylabel(row_field)
        if number == len(rests) - 1:
            axes.set_xlabel(column_field)
        if rest_at:
            named = zip((arms.by[position] for position in rest_at), rest, strict=True)
            axes.set_title(drawable(", ".join(f"{name}={field_text(value)}" for name, value in named)))
    unit = f" ({metric.unit})" if metric.unit else ""
    put_title(figure, arms, f"Mean {metric.title}{unit} by {row_field} and {column_field}", width=int(width * 10.5))
    return figure


def _remarks(arm: Arm, summary: Summary, usual: int) -> list[str]:
    """What an arm's label adds: a number of seeds that is not the usual one, and runs that did not go well."""
    parts = [counted(summary.n, "seed")] if summary.n not in (0, usual) else []
    parts += [f"{count:,} {status}" for status, count in arm.counts.items() if count and status != DONE]
    return textwrap.wrap(", ".join(parts), LABEL_WIDTH)


def _kind(index: int, comparisons: Sequence[ArmComparison]) -> str:
    """What may be said of an arm, as the legend has it."""
    if not comparisons:
        return _PLAIN
    one = comparisons[index]
    if one.baseline == index:
        return _BASELINE
    if one.paired is None:
        return _NOT_COMPARED
    return one.verdict


def _look(kind: str, theme: Theme) -> tuple[str, str]:
    """Colour and marker of an arm's mean."""
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
    axes: Axes,
    arms: Arms,
    summaries: Sequence[Summary],
    comparisons: Sequence[ArmComparison],
    tops: NDArray[np.float64],
    theme: Theme,
) -> None:
    """A vertical line at the baseline's mean over the rows of the arms that are compared with it."""
    for baseline, group in itertools.groupby(range(len(comparisons)), key=lambda index: comparisons[index].baseline):
        rows = list(group)
        if baseline is not None and summaries[baseline].n:
            mean, ends = summaries[baseline].mean * arms.metric.scale, [tops[rows[0]], tops[rows[-1] + 1]]
            axes.plot([mean] * 2, ends, color=theme.ink, linewidth=1, linestyle=(0, (4, 2)), gid="baseline")


def _draw_seeds(
    axes: Axes, arms: Arms, arm: Arm, mean: float, centre: float, window: tuple[float, float], theme: Theme
) -> None:
    """Dots, and at the edges words for what is off the scale."""
    metric = arms.metric
    values = [value * metric.scale for value in arm.values.values() if math.isfinite(value)]
    axes.plot(values, [centre + 0.09] * len(values), "o", color=theme.ink, alpha=0.45, markersize=4, gid="seeds", mew=0)
    for edge, sign in zip(window, (-1, 1), strict=True):
        off = sorted(value for value in values if (value - edge) * sign > 0)
        if not off:
            continue
        ends = list(dict.fromkeys(metric.format(value / metric.scale) for value in (off[0], off[-1])))
        text = f"{counted(len(off), 'seed')} at {' to '.join(ends)}"
        mean_off = (mean - edge) * sign > 0
        if mean_off and len(values) > 1:
            text = f"mean {metric.format(mean / metric.scale)}, {text}"
        left, right = "\N{BLACK LEFT-POINTING TRIANGLE}", "\N{BLACK RIGHT-POINTING TRIANGLE}"
        axes.text(
            0.01 if sign < 0 else 0.99,
            # The mean's line is free where the mean is not in the picture.
            centre - 0.05 if mean_off else centre + 0.09,
            f"{left} {text}" if sign < 0 else f"{text} {right}",
            transform=axes.get_yaxis_transform(),
            ha="left" if sign < 0 else "right",
            va="center",
            fontsize=SMALL,
            gid="off-scale",
        )


def _levels(arms: Arms, positions: Sequence[int]) -> list[tuple[Any, ...]]:
    found = {tuple(arm.key[position] for position in positions) for arm in arms.arms}
    return sorted(found, key=lambda key: tuple(natural_key(value) for value in key))


def _key(length: int, fixed: Mapping[int, Any], rest_at: Sequence[int], rest: Sequence[Any]) -> tuple[Any, ...]:
    values = {**fixed, **dict(zip(rest_at, rest, strict=True))}
    return tuple(values[position] for position in range(length))


def _half_width(summary: Summary) -> float:
    return math.nan if summary.t_interval is None else (summary.t_interval.high - summary.t_interval.low) / 2


def _cell_text(summary: Summary, metric: Metric) -> str:
    half = _half_width(summary)
    spread = f"\n\N{PLUS-MINUS SIGN} {metric.format(half)}" if math.isfinite(half) else ""
    return f"{metric.format(summary.mean)}{spread}"


def _colour_scale(summaries: Sequence[Summary]) -> Normalize:
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
    axes: Axes,
    grid: Sequence[Sequence[Summary | None]],
    arms: Arms,
    colours: Colormap,
    norm: Normalize,
    theme: Theme,
) -> None:
    means = np.array([[math.nan if cell is None or not cell.n else cell.mean for cell in row] for row in grid])
    rows, columns = means.shape
    edges_x, edges_y = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    shown = np.ma.masked_invalid(means)
    axes.pcolormesh(edges_x, edges_y, shown, cmap=colours, norm=norm, edgecolors=theme.paper, lw=1.5, gid="cells")
    mapping = ScalarMappable(norm, colours)
    for (y, x), mean in np.ndenumerate(means):
        cell = grid[y][x]
        if math.isfinite(mean) and cell is not None:
            red, green, blue, _ = mapping.to_rgba(mean)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text, colour = _cell_text(cell, arms.metric), "#ffffff" if dark else "#000000"
        else:
            text, colour = "no run" if cell is None else "no result", theme.muted
        axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=SMALL, linespacing=1.1, gid="cell")
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
