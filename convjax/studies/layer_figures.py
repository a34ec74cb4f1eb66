"""Figures of claims about layers: their windows, their equivariance, what can be read off them. Pure."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from convjax.analysis.plots.parts import WIDTH, wrapped
from convjax.analysis.plots.theme import MARKERS, Theme, ThemedFigure, styled
from convjax.analysis.plots.windows import window_plot
from convjax.analysis.statistics import Values
from convjax.config import RunConfig
from convjax.nn.geometry import plan
from convjax.studies.figures import means_and_halves, put_heading
from convjax.studies.map_figures import KINDS
from convjax.studies.page import ClaimFigure

_SHORT = {"conv2d": "conv", "max_pooling2d": "max", "average_pooling2d": "avg"}


def windows_figure(name: str, title: str, size: int = 5, **fields: str) -> ClaimFigure:
    """The windows of one convolution with these fields of RunConfig, on a square input of this size."""
    config = RunConfig.from_dict({"channels": "1", "pool": "none", "dense_units": "0"} | fields)
    layers = plan(config, (size, size, 1), 1)[:1]
    count = math.prod(layers[0].output_shape[:2])
    caption = f"{title}. One picture per window, in the order of the output's positions."
    draw = functools.partial(window_plot, layers)
    return ClaimFigure(name, draw, caption, f"{count} windows in an input of {size}x{size}.")


def equivariance_figure(found: Mapping[str, Mapping[int, Any]]) -> ClaimFigure:
    """The equivariance error of every arm, layer by layer.

    Args:
      found: what `convjax.studies.measures.shifts.measure_equivariance` found, by seed, of every arm by its label.
    """
    told = []
    for label, by_seed in found.items():
        last = ", ".join(f"{errors[-1]:.2g} at {pixels} px" for pixels, errors in _mean_errors(by_seed).items())
        told.append(f"{label} {last}")
    caption = (
        "How far the feature map of a shifted image is from the shifted feature map, relative to its norm: mean over "
        "seeds and both directions, away from borders and padding. 0 is perfect. A line ends where no position of the "
        "map is away from the borders."
    )
    draw = functools.partial(_equivariance_plot, found)
    return ClaimFigure("errors", draw, caption, f"Equivariance error after the last feature map: {'; '.join(told)}.")


@styled
def _equivariance_plot(found: Mapping[str, Mapping[int, Any]], *, theme: Theme) -> Figure:
    """One panel per arm: error by layer, one line per shift."""
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = ThemedFigure(3.2 * columns, 2.5 * rows + 0.7, theme)
    highest = 0.01
    for number, (label, by_seed) in enumerate(found.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        names = next(iter(by_seed.values()))["layers"]
        for (pixels, errors), color, marker in zip(_mean_errors(by_seed).items(), theme.series, MARKERS, strict=False):
            axes.plot(range(len(names)), errors, marker=marker, color=color, label=f"{pixels} px", clip_on=False)
            highest = max([highest, *filter(math.isfinite, errors)])
        axes.set_xticks(range(len(names)), [_short(name) for name in names])
        axes.set_title(wrapped(label, 34))
        if number % columns == 0:
            axes.set_ylabel("relative error")
    for axes in figure.axes:
        axes.set_ylim(-0.02 * highest, 1.08 * highest)
    lines = figure.axes[0].get_lines()
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), title="shift of the image")
    put_heading(figure, "Do feature maps move as the image does?")
    return figure


def _mean_errors(by_seed: Mapping[int, Any]) -> dict[int, list[float]]:
    """Mean error by layer for each shift, over the seeds that have one; NaN where none has."""
    errors = np.array([one["inside"] for one in by_seed.values()], float)  # None becomes NaN
    means = np.ma.masked_invalid(errors).mean(axis=0).filled(math.nan)
    return dict(zip(next(iter(by_seed.values()))["shifts"], means.T.tolist(), strict=True))


def _short(name: str) -> str:
    stem, _, number = name.rpartition("_")
    return f"{_SHORT.get(stem, stem)} {number}" if number.isdigit() else name


def probes_figure(found: Mapping[int, Any]) -> ClaimFigure:
    """Accuracy of linear probes by layer.

    Args:
      found: what `convjax.studies.measures.probes.measure_probes` found, by seed.
    """
    first = next(iter(found.values()))
    values = {
        kind: {layer: {seed: one[kind][layer]["test_accuracy"] for seed, one in found.items()} for layer in first[kind]}
        for kind in KINDS
    }
    features = {layer: int(one["features"]) for layer, one in first["trained"].items()}
    told = ", ".join(
        f"{layer} {100 * np.mean(list(by_seed.values())):.2f} %" for layer, by_seed in values["trained"].items()
    )
    caption = (
        "Test accuracy of a logistic regression on each layer's activations, mean over seeds with its 95 % t interval. "
        "Below each layer is the number of its features."
    )
    draw = functools.partial(_probe_plot, values, features)
    return ClaimFigure("probes", draw, caption, f"Linear probes of the trained network: {told}.")


@styled
def _probe_plot(values: Mapping[str, Mapping[str, Values]], features: Mapping[str, int], *, theme: Theme) -> Figure:
    """Mean accuracies by layer, of the trained and of the untrained network."""
    figure = ThemedFigure(WIDTH * 1.25, 3.4, theme)
    axes = figure.add_subplot()
    order = list(features)
    for kind, color, style in zip(KINDS, theme.series, ("o-", "s"), strict=False):
        places = [order.index(layer) for layer in values[kind]]
        means, halves = means_and_halves(values[kind].values(), 100)
        axes.errorbar(places, means, halves, fmt=style, color=color, elinewidth=2.4, label=f"{kind} network")
    axes.set_xticks(range(len(order)), [f"{_short(layer)}\n{features[layer]:,}" for layer in order])
    axes.set_ylabel("test accuracy (%)")
    axes.set_xlabel("layer, number of features")
    figure.legend(loc="outside lower center", ncols=2)
    put_heading(figure, "What a linear classifier reads off each layer")
    return figure
