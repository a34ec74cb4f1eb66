"""Feature maps of whole images, and the responses of single filters."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from convjax.analysis.plots.theme import Theme, ThemedFigure, drawable, styled
from convjax.errors import UserError
from convjax.explain import activations
from convjax.explain.pictures.colors import around_zero, diverging, scale_of
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import (
    SMALL,
    WIDTH,
    bare,
    color_bar,
    put_title,
    shape_text,
    show_image,
    show_sheet,
    write_numbers,
)
from convjax.explain.pictures.subject import Subject
from convjax.nn.geometry import Layer

_COLUMNS = 16
_MOST_CHANNELS = 128
_MOST_BARS = 20
_MOST_NUMBERED = 36
_RESPONSES = 4


@styled
def feature_sheet(
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.floating]],
    layers: Sequence[Layer],
    names: Sequence[str],
    title: str,
    *,
    theme: Theme,
) -> Figure:
    """Every layer's output for one image, channel by channel.

    Args:
      image: `[height, width, channels]`.
      maps: each layer's output, `[rows, columns, channels]` or `[units]`.
      layers: the network's.
      names: of the classes.
      title: of the figure.
      theme: see `convjax.analysis.plots.theme`.
    """
    shown = [layer for layer in layers if layer.kind not in ("Flatten", "Dropout") and layer.name in maps]
    heights = [1.5, *(_height(layer, layer is shown[-1]) for layer in shown)]
    figure = ThemedFigure(WIDTH, sum(heights) + 0.42 * len(heights) + 0.5, theme)
    top, *places = figure.subplots(len(heights), 1, height_ratios=heights)
    show_image(top, image)
    top.set_title(f"the image: {shape_text(image.shape)}")
    top.set_anchor("W")
    for axes, layer in zip(places, shown, strict=True):
        values = maps[layer.name]
        activation = layer.activation if layer.parameters and layer.activation not in ("linear", "softmax") else ""
        kind = f"{layer.kind}, {activation}" if activation else layer.kind
        what = f"{layer.name} ({kind}): {shape_text(layer.output_shape)}"
        if layer is shown[-1] and len(values) <= _MOST_BARS:
            _logit_bars(axes, values, names, theme)
            axes.set_title(f"{what}, before the {layer.activation}")
            continue
        more = f"; the first {_MOST_CHANNELS} channels" * (values.ndim == 3 and values.shape[-1] > _MOST_CHANNELS)
        axes.set_title(what + more)
        _draw_output(figure, axes, values)
    put_title(figure, title)
    return figure


def _height(layer: Layer, last: bool) -> float:
    """Height of a layer's row in inches."""
    if len(layer.output_shape) == 1:
        return 0.9 if last else 0.3
    height, width, channels = layer.output_shape
    rows = math.ceil(min(channels, _MOST_CHANNELS) / _COLUMNS)
    columns = min(_COLUMNS, channels)
    return min(0.9 * WIDTH * rows / columns, 1.2 * rows) * min(max(height / width, 0.3), 3.0)


def _draw_output(figure: Figure, axes: Axes, values: NDArray[np.floating]) -> None:
    if values.ndim == 3:
        tiles = np.moveaxis(values, -1, 0)[:_MOST_CHANNELS]
        drawn = show_sheet(axes, tiles, min(_COLUMNS, len(tiles)), scale_of(tiles))
        axes.set_ylabel("channel", fontsize=SMALL)
    else:
        drawn = show_sheet(axes, values[None, None, :], 1, scale_of(values))
        step = max(1, len(values) // 8)
        axes.set_xticks(range(0, len(values), step), [str(unit) for unit in range(0, len(values), step)])
        axes.set_xlabel("unit", fontsize=SMALL)
        axes.set_aspect("auto")
    axes.set_anchor("W")
    color_bar(figure, drawn, axes, "output", shrink=0.9)


def _logit_bars(axes: Axes, logits: NDArray[np.floating], names: Sequence[str], theme: Theme) -> None:
    best = int(np.argmax(logits))
    colors = [theme.series[0] if index == best else theme.muted for index in range(len(logits))]
    axes.bar(range(len(logits)), logits, color=colors, width=0.7)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    labels = names if len(names) == len(logits) else range(len(logits))
    axes.set_xticks(range(len(logits)), [drawable(str(label))[:12] for label in labels])
    axes.tick_params(labelsize=SMALL, length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("logit", fontsize=SMALL)
    axes.set_xlabel("class", fontsize=SMALL)


@dataclass(frozen=True)
class Response:
    """One filter of a convolution at work on an image.

    Attributes:
      channel: the filter's index.
      kernel: its weights, averaged over input channels, `[height, width]`.
      response: its output before the activation, `[rows, columns]`.
      output: its output, `[rows, columns]`.
    """

    channel: int
    kernel: NDArray[np.floating]
    response: NDArray[np.floating]
    output: NDArray[np.floating]


@styled
def response_plot(
    image: NDArray[np.uint8], found: Sequence[Response], activation: str, title: str, *, theme: Theme
) -> Figure:
    """A row for each filter of the first convolution: image, kernel, response map, output."""
    tall = max(1.0, image.shape[0] / image.shape[1])
    figure = ThemedFigure(WIDTH, len(found) * 1.9 * tall + 1.5, theme)
    grid = figure.subplots(len(found), 4, squeeze=False)
    weights = around_zero(np.stack([row.kernel for row in found]))
    signed = around_zero(np.stack([row.response for row in found]))
    norm, colors = scale_of(np.stack([row.output for row in found]))
    drawn: tuple[AxesImage, ...] = ()
    for row, axes in zip(found, grid, strict=True):
        show_image(axes[0], image)
        axes[0].set_ylabel(f"channel {row.channel}")
        kernel = axes[1].imshow(row.kernel, cmap=diverging(), norm=weights, interpolation="none")
        bare(axes[1])
        if row.kernel.size <= _MOST_NUMBERED:
            write_numbers(axes[1], kernel, row.kernel)
        response = axes[2].imshow(row.response, cmap=diverging(), norm=signed, interpolation="none")
        output = axes[3].imshow(row.output, cmap=colors, norm=norm, interpolation="none")
        drawn = (kernel, response, output)
        for place, size in ((axes[0], image.shape), (axes[2], row.response.shape), (axes[3], row.output.shape)):
            _label_pixels(place, size, first=place is axes[0], last=row is found[-1])
    heads = (
        f"image, {shape_text(image.shape[:2])}",
        f"kernel, {shape_text(found[0].kernel.shape)}",
        f"response, {shape_text(found[0].response.shape)}",
        "output" if activation == "linear" else f"output: {activation}(response)",
    )
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, loc="center")
    labels = ("weight", "correlation + bias", "output")
    for column, (colored, label) in enumerate(zip(drawn, labels, strict=True), 1):
        color_bar(figure, colored, list(grid[:, column]), label, location="bottom", pad=0.02, fraction=0.05)
    put_title(figure, title)
    return figure


def _label_pixels(axes: Axes, size: Sequence[int], *, first: bool, last: bool) -> None:
    rows, columns = size[0] - 1, size[1] - 1
    axes.set_xticks([0, columns], ["0", str(columns)] if last else [])
    axes.set_yticks([0, rows], ["0", str(rows)])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL)
    if last:
        axes.set_xlabel("column", fontsize=SMALL, labelpad=-6)
    if not first:
        axes.set_ylabel("row", fontsize=SMALL, labelpad=-6)


def feature_maps(subject: Subject) -> Chapter:
    """Every layer's output for the chosen images, and the responses of single filters."""
    layers = subject.layers
    if not activations.map_layers(layers):
        raise UserError("a dense network has no feature maps: its first layer already mixes all pixels")
    images = subject.images[list(subject.chosen)]
    found = activations.feature_maps(layers, subject.params, images)
    pictures = []
    for place, index in enumerate(subject.chosen):
        label = f"test image {index}, class {subject.name(int(subject.labels[index]))}"
        maps = {name: values[place] for name, values in found.items()}
        title = f"Feature maps of {label}"
        pictures.append(
            Picture(
                f"feature_maps-{index}",
                f"Outputs of {len(layers)} layers as grids of small images, one per channel.",
                "Each small image is one channel. Each layer has its own color scale.",
                functools.partial(feature_sheet, images[place], maps, layers, subject.class_names, title),
            )
        )
        if layers[0].kind == "Conv2D":
            pictures.append(_responses(subject, index, maps[layers[0].name], label))
    text = (
        "What the network makes of an image, layer by layer: more channels, fewer positions, from strokes to parts. A "
        "channel of a convolution's output is the chapter's response map after the activation: it shows where in the "
        "input the filter's pattern occurs, and how strongly."
    )
    return Chapter("Feature maps", text, pictures)


def _responses(subject: Subject, index: int, outputs: NDArray[np.floating], label: str) -> Picture:
    first, image = subject.layers[0], subject.images[index]
    responses = activations.responses(subject.layers, subject.params, image[None], first.name)[0]
    kernels = np.asarray(subject.params[first.name]["kernel"]).mean(2)
    channels = activations.distinct_channels(outputs, _RESPONSES)
    found = [Response(each, kernels[..., each], responses[..., each], outputs[..., each]) for each in channels]
    return Picture(
        f"responses-{index}",
        f"Image, kernel, response and output of channels {', '.join(map(str, channels))} of {first.name}.",
        "Channels that respond to this image and differ most from one another.",
        functools.partial(response_plot, image, found, first.activation, f"Response maps of {first.name}: {label}"),
    )
