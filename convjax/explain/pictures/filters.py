"""Filters: their kernels, and the images that excite units most."""

import functools
import math
from collections.abc import Sequence

import jax
import matplotlib
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convjax.analysis.plots.theme import Theme, ThemedFigure, styled
from convjax.explain.filters import Maximized, kernel_images, maximize
from convjax.explain.pictures.colors import around_zero, diverging
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import SMALL, WIDTH, color_bar, decimals, put_title, shape_text, show_sheet
from convjax.explain.pictures.subject import Subject
from convjax.nn.geometry import Layer, class_count

_COLUMNS = 16
_FEWER = 8
_MOST = 128
_MOST_NAMED = 20


@styled
def kernel_sheet(kernels: NDArray, layer: Layer, title: str, *, theme: Theme) -> Figure:
    """Kernels `[filters, height, width, channels]` as images on one scale; kernels over RGB are drawn in color."""
    shown = kernels[:_MOST]
    columns = min(_COLUMNS if len(shown) > 2 * _FEWER else _FEWER, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = ThemedFigure(WIDTH, min(0.88 * WIDTH * rows / columns, 14.0) + 1.0, theme)
    axes = figure.add_subplot()
    norm = around_zero(shown)
    if shown.shape[-1] == 3:
        largest = norm.vmax
        assert largest is not None
        show_sheet(axes, 0.5 + shown / (2 * largest), columns, (norm, diverging()))
        ends = f"{decimals(-largest)} (none of its color) to {decimals(largest)} (all of it)"
        axes.set_xlabel(f"gray is 0; a channel's weights go from {ends}")
    else:
        drawn = show_sheet(axes, shown.mean(-1), columns, (norm, diverging()))
        mean = "" if shown.shape[-1] == 1 else f", mean over {shown.shape[-1]} input channels"
        color_bar(figure, drawn, axes, f"weight{mean}")
    axes.set_ylabel("channel" if layer.kind != "Dense" else "unit", fontsize=SMALL)
    more = f"; the first {_MOST} of {len(kernels):,}" if len(kernels) > _MOST else ""
    put_title(figure, title, f"{layer.name}, {len(kernels):,} of {shape_text(kernels.shape[1:])}{more}")
    return figure


@styled
def maximized_sheet(found: Maximized, names: Sequence[str] | None, title: str, *, theme: Theme) -> Figure:
    """The image that excites each unit most, with the unit's name below it if there are `names`."""
    count = len(found.units)
    height, width, channels = found.images.shape[1:]
    columns = min(5 if names and count <= 10 else _FEWER if height > 8 else _COLUMNS, count)
    side = 0.86 * WIDTH / columns
    figure = ThemedFigure(WIDTH, side * math.ceil(count / columns) * height / width + 1.1, theme)
    axes = figure.add_subplot()
    # A background shows where images end whose border is white.
    axes.set_facecolor(theme.grid)
    tiles = found.images if channels == 3 else found.images.mean(-1)
    drawn = show_sheet(axes, tiles, columns, (Normalize(0.0, 1.0), matplotlib.colormaps["gray"]), names)
    if not names:
        axes.set_ylabel("channel" if len(found.layer.output_shape) == 3 else "unit", fontsize=SMALL)
    if channels != 3:
        color_bar(figure, drawn, axes, "pixel: 0 black, 1 white")
    raised = int((found.end > found.start).sum())
    put_title(
        figure,
        title,
        f"{found.layer.name}, {shape_text((height, width))} pixels each; mean output {decimals(found.start.mean())} "
        f"for gray noise, {decimals(found.end.mean())} for these images ({raised} of {count} rose)",
    )
    return figure


def filter_sheets(subject: Subject) -> Chapter:
    """The first layer's weights, and the image that excites each unit most."""
    layers, params = subject.layers, subject.params
    first, kernels = kernel_images(layers, params)
    title = "Weights of the first layer's units" if first.kind == "Dense" else "Kernels of the first layer"
    pictures = [
        Picture(
            "filters",
            f"{len(kernels)} small images of weights, blue negative, orange positive.",
            "Each small image shows the weights of one filter.",
            functools.partial(kernel_sheet, kernels, first, title),
        )
    ]
    weighted = [layer for layer in layers if layer.parameters]
    hidden = [layer for layer in weighted[:-1] if layer.kind != "Dense"] or weighted[:1]
    for layer in dict.fromkeys([*hidden, layers[-1]]):
        last = layer is layers[-1]
        units = range(min(class_count(layers) if last else layer.output_shape[-1], _MOST))
        names = [str(subject.class_names[unit]) for unit in units] if last and len(units) <= _MOST_NAMED else None
        whose = "class" if last else f"unit of {layer.name}" if layer.kind == "Dense" else f"filter of {layer.name}"
        found = maximize(layers, params, layer, units, jax.random.key(0))
        whole = found.images.shape[1:] == tuple(layers[0].input_shape)
        pictures.append(
            Picture(
                f"maximized-{layer.name}",
                f"{len(units)} images found by gradient ascent.",
                "Each image is a whole input." if whole else "Each image is as large as one receptive field.",
                functools.partial(maximized_sheet, found, names, f"The image that excites each {whose} most"),
            )
        )
    text = (
        "What each filter looks for. In the first layer the weights show it. For any layer, gradient ascent finds the "
        "image that excites a filter most: it starts from gray noise and uses random shifts, a total-variation penalty "
        "and decay to gray (Olah et al., 2017). Pixels that stay gray do not matter."
    )
    return Chapter("Filters", text, pictures)
