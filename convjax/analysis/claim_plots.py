"""Figures of the claims that are no tables of runs. Pure, as `convjax.analysis.plots`."""

import itertools
import math
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from convjax.analysis.claims_page import ClaimFigure
from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.plot_parts import LABEL_WIDTH, WIDTH, handle, wrapped
from convjax.analysis.statistics import Values, prediction_interval, summarise
from convjax.analysis.theme import FONT_SIZE, Theme, ThemedFigure, styled


def accuracy_figure(
    name: str,
    title: str,
    arms: Mapping[str, Values],
    *,
    theme: str,
    metric: str = "test_accuracy",
    reference: tuple[float, str] | None = None,
    predicted: Collection[str] = (),
) -> ClaimFigure:
    """Every seed of every arm, with means; see `values_plot`."""
    named = metric_named(metric)
    figure = values_plot(title, arms, named, reference=reference, predicted=predicted, theme=theme)
    caption = "Every seed is a small dot, the mean a large mark with its 95 % t interval."
    if predicted:
        caption += " The thin line is where one more run would lie with 95 % probability."
    if reference is not None:
        caption += f" Dashed: {reference[1]}."
    means = [f"{label} {_mean(values, named)}" for label, values in arms.items()]
    return ClaimFigure(name, figure, caption, f"{title}. Means: {', '.join(means)}.")


def _mean(values: Values, metric: Metric) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{metric.format(summarise(values).mean)}{unit}"


@styled
def values_plot(
    title: str,
    arms: Mapping[str, Values],
    metric: Metric,
    *,
    reference: tuple[float, str] | None = None,
    predicted: Collection[str] = (),
    theme: Theme,
) -> Figure:
    """A row an arm, from the top: its seeds, its mean with the 95 % t interval.

    Args:
      title: on top.
      arms: values by seed of every arm, by its label.
      metric: what the values are.
      reference: a value to be marked by a dashed line, and its name.
      predicted: the arms that also get the prediction interval of one more run.
      theme: see `convjax.analysis.theme`.
    """
    labels = [wrapped(label, LABEL_WIDTH) for label in arms]
    heights = [max(1.9, 1.25 * len(label.splitlines())) * FONT_SIZE * 1.3 / 72 for label in labels]
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    centres = (tops[:-1] + tops[1:]) / 2
    figure = ThemedFigure(WIDTH, float(tops[-1]) + 1.35, theme)
    axes = figure.add_subplot()
    axes.set_ylim(float(tops[-1]), 0.0)
    axes.grid(visible=False, axis="y")
    for top, bottom in list(itertools.pairwise(tops))[::2]:
        axes.axhspan(top, bottom, color=theme.grid, alpha=0.35, linewidth=0)
    if reference is not None:
        axes.axvline(reference[0] * metric.scale, color=theme.ink, linewidth=1, linestyle=(0, (4, 2)), gid="reference")
    for (label, values), centre in zip(arms.items(), centres, strict=True):
        shown = [value * metric.scale for value in values.values() if math.isfinite(value)]
        summary = summarise(values)
        axes.plot(shown, [centre + 0.07] * len(shown), "o", color=theme.ink, alpha=0.45, markersize=4, mew=0)
        one_more = prediction_interval(values) if label in predicted else None
        if one_more is not None:
            ends = [one_more.low * metric.scale, one_more.high * metric.scale]
            axes.plot(ends, [centre - 0.07] * 2, color=theme.series[0], linewidth=0.9, gid="prediction")
        if summary.t_interval is not None:
            ends = [summary.t_interval.low * metric.scale, summary.t_interval.high * metric.scale]
            axes.plot(ends, [centre - 0.07] * 2, color=theme.series[0], linewidth=2.4, solid_capstyle="butt")
        if shown:
            mean = [summary.mean * metric.scale]
            axes.plot(mean, [centre - 0.07], "o", color=theme.series[0], markersize=7, markeredgecolor="none")
    axes.set_yticks(centres, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(metric.heading)
    put_legend(figure, theme, reference)
    put_heading(figure, title)
    return figure


def put_legend(figure: Figure, theme: Theme, reference: tuple[float, str] | None) -> None:
    """What the marks of `values_plot` are."""
    handles: list[Any] = [
        Line2D([], [], color=theme.series[0], marker="o", linewidth=2.4, label="mean, 95 % t interval"),
        handle(theme.ink, "o", "one seed"),
    ]
    handles[-1].set(alpha=0.45, markersize=4)
    if reference is not None:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1, linestyle=(0, (4, 2)), label=reference[1]))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def put_heading(figure: Figure, title: str) -> None:
    """A title at the left, wrapped to the figure."""
    columns = int(50 * figure.get_figwidth() / WIDTH)
    figure.suptitle("\n".join(textwrap.wrap(title, columns)), x=0.01, ha="left")
