"""Figures of claims: accuracies by arm and by training size, and what all figures of claims share. Pure."""

import functools
import itertools
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.plots.parts import LABEL_WIDTH, WIDTH, set_log_ticks, tick_number, wrapped
from convjax.analysis.plots.theme import FONT_SIZE, MARKERS, Theme, ThemedFigure, styled
from convjax.analysis.statistics import Values, prediction_interval, summarize
from convjax.studies.data_factor import DataFactor
from convjax.studies.page import ClaimFigure


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
    return f"{metric.format(summarize(values).mean)} {metric.unit}".strip()


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
    centers = dict(zip(arms, (tops[:-1] + tops[1:]) / 2, strict=True))
    figure = ThemedFigure(WIDTH, float(tops[-1]) + 1.35, theme)
    axes = figure.add_subplot()
    axes.set_ylim(float(tops[-1]), 0.0)
    axes.grid(visible=False, axis="y")
    for top, bottom in list(itertools.pairwise(tops))[::2]:
        axes.axhspan(top, bottom, color=theme.grid, alpha=0.35, linewidth=0)
    scale, color = metric.scale, theme.series[0]
    seeds = [(value * scale, centers[label] + 0.07) for label, values in arms.items() for value in values.values()]
    dots = {"color": theme.ink, "alpha": 0.45, "markersize": 4, "mew": 0}
    axes.plot(*np.reshape(seeds, (-1, 2)).T, "o", label="one seed", **dots)
    for label in predicted:
        if (interval := prediction_interval(arms[label])) is not None:
            axes.plot([interval.low * scale, interval.high * scale], [centers[label] - 0.07] * 2, color=color, lw=0.9)
    means, halves = means_and_halves(arms.values(), scale)
    places = [center - 0.07 for center in centers.values()]
    axes.errorbar(means, places, None, halves, "o", color=color, elinewidth=2.4, ms=7, label="mean, 95 % t interval")
    if reference is not None:
        axes.axvline(reference[0] * scale, color=theme.ink, lw=1, linestyle=(0, (4, 2)), label=reference[1])
    if metric.unit == "%":
        # Intervals of very few seeds can reach beyond 0 and 100 %.
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2.0), min(high, 102.0))
    axes.set_yticks(list(centers.values()), labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(metric.heading)
    figure.legend(loc="outside lower center", ncols=2)
    put_heading(figure, title)
    return figure


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
        means, halves = means_and_halves(by_size.values(), 100)
        axes.errorbar(list(by_size), means, halves, color=color, marker=marker, elinewidth=1, label=label)
        seeds = [(size, 100 * value) for size, values in by_size.items() for value in values.values()]
        axes.plot(*np.reshape(seeds, (-1, 2)).T, "o", color=color, alpha=0.45, markersize=3, mew=0)
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


def means_and_halves(arms: Iterable[Values], scale: float) -> tuple[list[float], list[float]]:
    """Mean of each arm and half the width of its 95 % t interval, NaN if it has none, both times `scale`."""
    summaries = [summarize(values) for values in arms]
    halves = [one.t_interval.high - one.mean if one.t_interval is not None else math.nan for one in summaries]
    return [scale * one.mean for one in summaries], [scale * half for half in halves]


def put_heading(figure: Figure, title: str) -> None:
    """A title at the left, wrapped to the figure."""
    columns = int(50 * figure.get_figwidth() / WIDTH)
    figure.suptitle("\n".join(textwrap.wrap(title, columns)), x=0.01, ha="left")
