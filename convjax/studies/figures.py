"""Figures of the claims that are no tables of runs. Pure, as `convjax.analysis.plots.accuracy`."""

import itertools
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.plots.parts import LABEL_WIDTH, WIDTH, handle, set_log_ticks, tick_number, wrapped
from convjax.analysis.plots.theme import FONT_SIZE, MARKERS, Theme, ThemedFigure, styled
from convjax.analysis.statistics import Values, prediction_interval, summarise
from convjax.errors import UserError
from convjax.studies.data_factor import DataFactor
from convjax.studies.page import ClaimFigure


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
      theme: see `convjax.analysis.plots.theme`.
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
    if metric.unit == "%":
        # Intervals of very few seeds reach to where no accuracy can be.
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2.0), min(high, 102.0))
    axes.set_yticks(centres, labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(metric.heading)
    put_legend(figure, theme, reference)
    put_heading(figure, title)
    return figure


def shift_figure(maps: Mapping[str, Mapping[int, Any]], *, theme: str) -> ClaimFigure:
    """Accuracy by shift of every arm.

    Args:
      maps: what `convjax.studies.measures.shifts.shifted_accuracy` found, by seed, of every arm by its label.
      theme: see `convjax.analysis.plots.theme`.

    Raises:
      UserError: an arm has no finished run.
    """
    means = {}
    for label, by_seed in maps.items():
        if not by_seed:
            raise UserError(f"{label}: no run has been measured")
        means[label] = np.mean([found["accuracy"] for found in by_seed.values()], axis=0)
    first = next(iter(next(iter(maps.values())).values()))
    offsets, middle = first["offsets"], len(first["offsets"]) // 2
    figure = shift_maps(means, np.asarray(first["ink"]), offsets, theme=theme)
    edge = {label: mean[middle, [0, -1]].mean() for label, mean in means.items()}
    told = ", ".join(
        f"{label} {100 * mean[middle, middle]:.1f} % centred and {100 * edge[label]:.1f} % moved {offsets[-1]} pixels "
        "to a side"
        for label, mean in means.items()
    )
    caption = (
        f"Mean accuracy (%) over seeds on {first['images']:,} test images, moved by up to {offsets[-1]} pixels down "
        "and to the right (negative: up and to the left). The lines in the maps are where 99 and 90 % of the digits' "
        "grey are still in the image."
    )
    return ClaimFigure("shifts", figure, caption, f"Accuracy of shifted digits: {told}.")


@styled
def shift_maps(means: Mapping[str, np.ndarray], ink: np.ndarray, offsets: Sequence[int], *, theme: Theme) -> Figure:
    """A heat map an arm, on one scale of 0 to 100 %.

    Args:
      means: accuracies `[down, right]` of every arm, by its label.
      ink: the share of the digits that is still in the image, `[down, right]`.
      offsets: pixels of the shifts, along both axes.
      theme: see `convjax.analysis.plots.theme`.
    """
    count = len(means)
    figure = ThemedFigure(2.35 * count + 0.9, 3.1, theme)
    norm, edges = Normalize(0.0, 100.0), np.arange(len(offsets) + 1) + offsets[0] - 0.5
    panels = []
    for number, (label, mean) in enumerate(means.items(), start=1):
        axes = figure.add_subplot(1, count, number)
        panels.append(axes)
        axes.pcolormesh(
            edges, edges, 100 * mean, cmap="viridis", norm=norm, edgecolors="face", linewidth=0.1, gid="cells"
        )
        axes.contour(offsets, offsets, ink, levels=[0.9, 0.99], colors="#ffffff", linewidths=0.8)
        axes.set_aspect("equal")
        axes.set_ylim(edges[-1], edges[0])
        ticks = offsets[:: max(1, len(offsets) // 4)]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.grid(visible=False)
        axes.set_title(wrapped(label, 24))
        axes.set_xlabel("right (pixels)")
        if number == 1:
            axes.set_ylabel("down (pixels)")
        else:
            axes.set_yticklabels([])
    bar = figure.colorbar(ScalarMappable(norm, matplotlib.colormaps["viridis"]), ax=panels, shrink=0.8, pad=0.02)
    bar.set_label("test accuracy (%)")
    bar.outline.set_visible(False)
    put_heading(figure, "Accuracy on shifted digits, after training on centred ones")
    return figure


def equivariance_figure(found: Mapping[str, Mapping[int, Any]], *, theme: str) -> ClaimFigure:
    """The equivariance error of every arm, layer by layer.

    Args:
      found: what `convjax.studies.measures.shifts.equivariance` found, by seed, of every arm by its label.
      theme: see `convjax.analysis.plots.theme`.

    Raises:
      UserError: an arm has no finished run.
    """
    for label, by_seed in found.items():
        if not by_seed:
            raise UserError(f"{label}: no run has been measured")
    figure = equivariance_plot(found, theme=theme)
    told = []
    for label, by_seed in found.items():
        last = [one["inside"][-1] for one in by_seed.values()]
        shifts = next(iter(by_seed.values()))["shifts"]
        means = [_mean_of([values[index] for values in last]) for index in range(len(shifts))]
        told.append(
            f"{label} " + ", ".join(f"{mean:.2g} at {pixels} px" for pixels, mean in zip(shifts, means, strict=True))
        )
    caption = (
        "How far a feature map of a shifted image is from the shifted feature map, in shares of its norm: mean over "
        "seeds and both directions, away from borders and padding. 0 is perfect. A line ends where no position of a "
        "map is away from the borders."
    )
    return ClaimFigure("errors", figure, caption, f"Equivariance error after the last feature map: {'; '.join(told)}.")


@styled
def equivariance_plot(found: Mapping[str, Mapping[int, Any]], *, theme: Theme) -> Figure:
    """A panel an arm: error by layer, a line a shift."""
    count = len(found)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = ThemedFigure(3.2 * columns, 2.5 * rows + 0.7, theme)
    lines: list[Any] = []
    highest = 0.01
    for number, (label, by_seed) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        first = next(iter(by_seed.values()))
        for index, pixels in enumerate(first["shifts"]):
            errors = [
                _mean_of([one["inside"][layer][index] for one in by_seed.values()])
                for layer in range(len(first["layers"]))
            ]
            [line] = axes.plot(
                range(len(errors)), errors, marker=MARKERS[index], color=theme.series[index], label=f"{pixels} px",
                clip_on=False,
            )  # fmt: skip
            highest = max([highest, *(error for error in errors if math.isfinite(error))])
            if number == 1:
                lines.append(line)
        axes.set_xticks(range(len(first["layers"])), [_short_layer(name) for name in first["layers"]])
        axes.set_title(wrapped(label, 34))
        if (number - 1) % columns == 0:
            axes.set_ylabel("relative error")
    for axes in figure.axes:
        axes.set_ylim(-0.02 * highest, 1.08 * highest)
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), title="shift of the image")
    put_heading(figure, "Do feature maps move as the image does?")
    return figure


_SHORT = {"conv2d": "conv", "max_pooling2d": "max", "average_pooling2d": "avg"}


def _short_layer(name: str) -> str:
    stem, _, number = name.rpartition("_")
    return f"{_SHORT.get(stem, stem)} {number}"


def _mean_of(values: Sequence[float | None]) -> float:
    """Of those that are there; NaN where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def sample_figure(curves: Mapping[str, Mapping[int, Values]], factor: DataFactor, *, theme: str) -> ClaimFigure:
    """Accuracy by training size of every arm, and the factor in data.

    Args:
      curves: of every arm, by its label, size to accuracies by seed; the first is the one that needs less.
      factor: the first arm's against the last.
      theme: see `convjax.analysis.plots.theme`.
    """
    named = metric_named("test_accuracy")
    figure = sample_plot(curves, factor, theme=theme)
    ends = [
        f"{label} {_mean(by_size[min(by_size)], named)} to {_mean(by_size[max(by_size)], named)}"
        for label, by_size in curves.items()
    ]
    caption = (
        "Mean over seeds with its 95 % t interval; every seed is a small dot. The arrow goes from the accuracy that "
        f"the last net of the legend reaches with {factor.at:,} examples to where the first reaches it."
    )
    return ClaimFigure("sizes", figure, caption, f"Accuracy by training size: {', '.join(ends)}.")


@styled
def sample_plot(curves: Mapping[str, Mapping[int, Values]], factor: DataFactor, *, theme: Theme) -> Figure:
    """Lines of mean accuracy over a logarithmic axis of training sizes."""
    figure = ThemedFigure(WIDTH + 0.6, 3.6, theme)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    sizes = sorted({size for by_size in curves.values() for size in by_size})
    for index, (label, by_size) in enumerate(curves.items()):
        at = sorted(by_size)
        summaries = [summarise(by_size[size]) for size in at]
        colour = theme.series[index]
        axes.plot(at, [100 * one.mean for one in summaries], color=colour, marker=MARKERS[index], label=label)
        for size, one in zip(at, summaries, strict=True):
            if one.t_interval is not None:
                axes.plot([size] * 2, [100 * one.t_interval.low, 100 * one.t_interval.high], color=colour, linewidth=1)
            values = [100 * value for value in by_size[size].values()]
            axes.plot([size] * len(values), values, "o", color=colour, alpha=0.45, markersize=3, mew=0)
    level = 100 * factor.accuracy
    axes.annotate(
        "",
        xy=(factor.examples, level),
        xytext=(factor.at, level),
        arrowprops={"arrowstyle": "->", "color": theme.ink, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0},
    )
    # Left of the arrow's tip, above the first arm's curve, nothing else is drawn.
    label = f"{factor.bound} {factor.factor:.1f} times".strip()
    axes.annotate(
        label, (factor.examples, level), (-6, 8), textcoords="offset points", ha="right", va="bottom", color=theme.ink
    )
    low = min(min(value for values in by_size.values() for value in values.values()) for by_size in curves.values())
    axes.set_ylim(max(0.0, 100 * low - 5.0), 101.0)
    set_log_ticks(axes.xaxis, sizes[0], sizes[-1], tick_number)
    axes.set_xlabel("training examples")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(loc="lower right")
    put_heading(figure, "Accuracy by training size, at equal numbers of updates")
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
