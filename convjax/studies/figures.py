"""Figures of claims: accuracies by arm and by training size, and what all figures of claims share. Pure."""

import functools
import itertools
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.plots.parts import LABEL_WIDTH, WIDTH, handle, set_log_ticks, tick_number, wrapped
from convjax.analysis.plots.theme import FONT_SIZE, MARKERS, Theme, ThemedFigure, styled
from convjax.analysis.statistics import Summary, Values, prediction_interval, summarise
from convjax.studies.data_factor import DataFactor
from convjax.studies.page import ClaimFigure

_DASHED: Any = (0, (4, 2))


def accuracy_figure(
    name: str,
    title: str,
    arms: Mapping[str, Values],
    *,
    metric: str = "test_accuracy",
    reference: tuple[float, str] | None = None,
    predicted: Collection[str] = (),
) -> ClaimFigure:
    """Every seed of every arm, with means and their 95 % t intervals.

    Args:
      name, title: the figure's.
      arms: values by seed of every arm, by its label.
      metric: what the values are.
      reference: a value to mark by a dashed line, and its name.
      predicted: labels of the arms that also get the prediction interval of one more run.
    """
    named = metric_named(metric)
    caption = "Small dots are seeds, large marks their means with 95 % t intervals."
    if predicted:
        caption += " The thin line is where one more run lies with 95 % probability."
    if reference is not None:
        caption += f" Dashed: {reference[1]}."
    means = ", ".join(f"{label} {_mean(values, named)}" for label, values in arms.items())
    draw = functools.partial(_values_plot, title, arms, named, reference=reference, predicted=predicted)
    return ClaimFigure(name, draw, caption, f"{title}. Means: {means}.")


def _mean(values: Values, metric: Metric) -> str:
    return f"{metric.format(summarise(values).mean)} {metric.unit}".strip()


@styled
def _values_plot(
    title: str,
    arms: Mapping[str, Values],
    metric: Metric,
    *,
    reference: tuple[float, str] | None,
    predicted: Collection[str],
    theme: Theme,
) -> Figure:
    """One row per arm, from the top."""
    labels = [wrapped(label, LABEL_WIDTH) for label in arms]
    heights = [max(1.9, 1.25 * len(label.splitlines())) * FONT_SIZE * 1.3 / 72 for label in labels]
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    centers = (tops[:-1] + tops[1:]) / 2
    figure = ThemedFigure(WIDTH, float(tops[-1]) + 1.35, theme)
    axes = figure.add_subplot()
    axes.set_ylim(float(tops[-1]), 0.0)
    axes.grid(visible=False, axis="y")
    for top, bottom in list(itertools.pairwise(tops))[::2]:
        axes.axhspan(top, bottom, color=theme.grid, alpha=0.35, linewidth=0)
    if reference is not None:
        axes.axvline(reference[0] * metric.scale, color=theme.ink, linewidth=1, linestyle=_DASHED, gid="reference")
    for (label, values), center in zip(arms.items(), centers, strict=True):
        _put_arm(axes, values, center, metric.scale, theme, predicted=label in predicted)
    if metric.unit == "%":
        # Intervals of very few seeds can reach beyond 0 and 100 %.
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2.0), min(high, 102.0))
    axes.set_yticks(centers, labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(metric.heading)
    _put_legend(figure, theme, reference)
    put_heading(figure, title)
    return figure


def _put_arm(axes: Axes, values: Values, center: float, scale: float, theme: Theme, *, predicted: bool) -> None:
    shown = [value * scale for value in values.values() if math.isfinite(value)]
    axes.plot(shown, [center + 0.07] * len(shown), "o", color=theme.ink, alpha=0.45, markersize=4, mew=0)
    summary, color = summarise(values), theme.series[0]
    one_more = prediction_interval(values) if predicted else None
    for interval, width, kind in ((one_more, 0.9, "prediction"), (summary.t_interval, 2.4, "interval")):
        if interval is not None:
            ends = [interval.low * scale, interval.high * scale]
            axes.plot(ends, [center - 0.07] * 2, color=color, linewidth=width, solid_capstyle="butt", gid=kind)
    if shown:
        axes.plot([summary.mean * scale], [center - 0.07], "o", color=color, markersize=7, markeredgecolor="none")


def _put_legend(figure: Figure, theme: Theme, reference: tuple[float, str] | None) -> None:
    handles = [
        Line2D([], [], color=theme.series[0], marker="o", linewidth=2.4, label="mean, 95 % t interval"),
        handle(theme.ink, "o", "one seed"),
    ]
    handles[-1].set(alpha=0.45, markersize=4)
    if reference is not None:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1, linestyle=_DASHED, label=reference[1]))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def sample_figure(curves: Mapping[str, Mapping[int, Values]], factor: DataFactor) -> ClaimFigure:
    """Accuracy by training size of every arm, and the factor in data.

    Args:
      curves: training size to accuracies by seed of every arm, by its label; the first arm needs less data.
      factor: of the first arm against the last.
    """
    named = metric_named("test_accuracy")
    ends = [
        f"{label} {_mean(by_size[min(by_size)], named)} to {_mean(by_size[max(by_size)], named)}"
        for label, by_size in curves.items()
    ]
    caption = (
        "Means over seeds with 95 % t intervals; small dots are seeds. The arrow starts at the accuracy that the last "
        f"net of the legend reaches with {factor.at:,} examples and ends where the first net reaches it."
    )
    draw = functools.partial(_sample_plot, curves, factor)
    return ClaimFigure("sizes", draw, caption, f"Accuracy by training size: {', '.join(ends)}.")


@styled
def _sample_plot(curves: Mapping[str, Mapping[int, Values]], factor: DataFactor, *, theme: Theme) -> Figure:
    """Mean accuracies over a logarithmic axis of training sizes, one line per arm."""
    figure = ThemedFigure(WIDTH + 0.6, 3.6, theme)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for (label, by_size), color, marker in zip(curves.items(), theme.series, MARKERS, strict=False):
        sizes = sorted(by_size)
        put_means(axes, sizes, [summarise(by_size[size]) for size in sizes], color, marker=marker, width=1, label=label)
        for size in sizes:
            values = [100 * value for value in by_size[size].values()]
            axes.plot([size] * len(values), values, "o", color=color, alpha=0.45, markersize=3, mew=0)
    level = 100 * factor.accuracy
    arrow = {"arrowstyle": "->", "color": theme.ink, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(factor.examples, level), xytext=(factor.at, level), arrowprops=arrow)
    # Nothing else is drawn left of the arrow's tip, above the first arm's curve.
    label = f"{factor.bound} {factor.factor:.1f} times".strip()
    tip = (factor.examples, level)
    axes.annotate(label, tip, (-6, 8), textcoords="offset points", ha="right", va="bottom", color=theme.ink)
    low = min(value for by_size in curves.values() for values in by_size.values() for value in values.values())
    axes.set_ylim(max(0.0, 100 * low - 5.0), 101.0)
    sizes = sorted({size for by_size in curves.values() for size in by_size})
    set_log_ticks(axes.xaxis, sizes[0], sizes[-1], tick_number)
    axes.set_xlabel("training examples")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(loc="lower right")
    put_heading(figure, "Accuracy by training size, at equal numbers of updates")
    return figure


def put_means(
    axes: Axes, places: Sequence[float], summaries: Sequence[Summary], color: str, *, width: float, **style: Any
) -> None:
    """Mean accuracies in percent at these places, as a line of `style`, with t intervals as bars of this `width`."""
    axes.plot(places, [100 * summary.mean for summary in summaries], color=color, **style)
    for place, summary in zip(places, summaries, strict=True):
        if summary.t_interval is not None:
            ends = [100 * summary.t_interval.low, 100 * summary.t_interval.high]
            axes.plot([place] * 2, ends, color=color, linewidth=width, solid_capstyle="butt")


def put_heading(figure: Figure, title: str) -> None:
    """A title at the left, wrapped to the figure."""
    columns = int(50 * figure.get_figwidth() / WIDTH)
    figure.suptitle("\n".join(textwrap.wrap(title, columns)), x=0.01, ha="left")
