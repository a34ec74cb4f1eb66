"""Pictures of feature maps and of single filters' responses."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convjax.analysis.plots.theme import Theme, ThemedFigure, drawable, styled
from convjax.explain.pictures.colors import around_zero, diverging, from_zero, sequential
from convjax.explain.pictures.parts import (
    SMALL,
    WIDTH,
    bare,
    colour_bar,
    decimals,
    put_title,
    shape_text,
    show_image,
    show_sheet,
)
from convjax.nn.geometry import Layer

_COLUMNS = 16
_MOST_CHANNELS = 128
_MOST_BARS = 20


@styled
def feature_sheet(
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
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
      layers: of the network.
      names: of the classes.
      title: of the figure.
      theme: see `convjax.analysis.plots.theme`.
    """
    shown = [layer for layer in layers if layer.kind not in ("Flatten", "Dropout") and layer.name in maps]
    heights = [1.5, *(_height(layer, layer is shown[-1]) for layer in shown)]
    figure = ThemedFigure(WIDTH, sum(heights) + 0.42 * len(heights) + 0.5, theme)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    axes = figure.add_subplot(grid[0])
    show_image(axes, image)
    axes.set_title(f"the image: {shape_text(image.shape)}")
    axes.set_anchor("W")
    for place, layer in enumerate(shown, start=1):
        axes = figure.add_subplot(grid[place])
        values = maps[layer.name]
        what = f"{layer.name} ({layer.kind}{_activation(layer)}): {shape_text(layer.output_shape)}"
        if layer is shown[-1] and len(values) <= _MOST_BARS:
            _logit_bars(figure, axes, values, names, theme)
            axes.set_title(f"{what}, before the {layer.activation}")
            continue
        tiles = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None, None, :]
        if len(tiles) > _MOST_CHANNELS:
            what += f"; the first {_MOST_CHANNELS} channels"
            tiles = tiles[:_MOST_CHANNELS]
        signed = tiles.min(initial=0.0) < 0
        norm, colours = (around_zero(tiles), diverging()) if signed else (from_zero(tiles), sequential())
        drawn = show_sheet(axes, tiles, min(_COLUMNS, len(tiles)), norm=norm, colours=colours)
        if values.ndim == 1:
            _number_units(axes, len(values))
            axes.set_aspect("auto")
        axes.set_anchor("W")
        axes.set_title(what)
        axes.set_ylabel("channel" if values.ndim == 3 else "", fontsize=SMALL)
        axes.set_xlabel("unit" if values.ndim == 1 else "", fontsize=SMALL)
        colour_bar(figure, drawn, axes, "output", shrink=0.9)
    put_title(figure, title)
    return figure


def _height(layer: Layer, last: bool) -> float:
    """Inches of a layer's sheet."""
    if len(layer.output_shape) == 1:
        return 0.9 if last else 0.3
    height, width, channels = layer.output_shape
    rows = math.ceil(min(channels, _MOST_CHANNELS) / _COLUMNS)
    columns = min(_COLUMNS, channels)
    return min(0.9 * WIDTH * rows / columns, 1.2 * rows) * min(max(height / width, 0.3), 3.0)


def _activation(layer: Layer) -> str:
    return f", {layer.activation}" if layer.parameters and layer.activation not in ("linear", "softmax") else ""


def _number_units(axes: Axes, units: int) -> None:
    step = max(1, units // 8)
    axes.set_xticks(range(0, units, step), [str(unit) for unit in range(0, units, step)])


def _logit_bars(figure: Figure, axes: Axes, logits: NDArray[np.float32], names: Sequence[str], theme: Theme) -> None:
    best = int(np.argmax(logits))
    colours = [theme.series[0] if index == best else theme.muted for index in range(len(logits))]
    axes.bar(range(len(logits)), logits, color=colours, width=0.7)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    labels = [drawable(str(name))[:12] for name in names] if len(names) == len(logits) else range(len(logits))
    axes.set_xticks(range(len(logits)), labels)
    axes.tick_params(labelsize=SMALL, length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("logit", fontsize=SMALL)
    axes.set_xlabel("class", fontsize=SMALL)


@styled
def response_plot(
    image: NDArray[np.uint8],
    kernels: NDArray[np.float32],
    responses: NDArray[np.float32],
    outputs: NDArray[np.float32],
    channels: Sequence[int],
    layer: Layer,
    title: str,
    *,
    theme: Theme,
) -> Figure:
    """Single filters of the first convolution: image, filter, response over the image, and what the activation leaves.

    Args:
      image: `[height, width, channels]`.
      kernels: `[shown, height, width]`, a mean over input channels where there are several.
      responses: before the activation, `[rows, columns, shown]`.
      outputs: after it.
      channels: which channels of the layer these are.
      layer: the convolution.
      title: of the figure.
      theme: see `convjax.analysis.plots.theme`.
    """
    count = len(channels)
    tall = max(1.0, image.shape[0] / image.shape[1])
    figure = ThemedFigure(WIDTH, count * 1.9 * tall + 1.5, theme)
    grid = figure.subplots(count, 4, squeeze=False)
    weights, signed, positive = around_zero(kernels), around_zero(responses), from_zero(outputs)
    same = layer.activation == "linear"
    for row, channel in enumerate(channels):
        picture, kernel, response, output = grid[row]
        show_image(picture, image)
        picture.set_ylabel(f"channel {channel}")
        drawn_kernel = kernel.imshow(kernels[row], cmap=diverging(), norm=weights, interpolation="none")
        bare(kernel)
        _write_numbers(kernel, kernels[row], weights.vmax or 1.0)
        drawn_response = response.imshow(responses[..., row], cmap=diverging(), norm=signed, interpolation="none")
        drawn_output = output.imshow(
            outputs[..., row],
            cmap=diverging() if outputs.min() < 0 else sequential(),
            norm=around_zero(outputs) if outputs.min() < 0 else positive,
            interpolation="none",
        )
        for axes, size in ((picture, image.shape), (response, responses.shape), (output, outputs.shape)):
            _label_pixels(axes, size, last=row == count - 1, first=axes is picture)
    heads = (
        f"image, {shape_text(image.shape[:2])}",
        f"filter, {shape_text(kernels.shape[1:])}",
        f"response, {shape_text(responses.shape[:2])}",
        "output" if same else f"output: {layer.activation}(response)",
    )
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, loc="center")
    for drawn, column, label in (
        (drawn_kernel, 1, "weight"),
        (drawn_response, 2, "correlation + bias"),
        (drawn_output, 3, "output"),
    ):
        colour_bar(figure, drawn, list(grid[:, column]), label, horizontal=True, pad=0.02, fraction=0.05)
    put_title(figure, title)
    return figure


def _label_pixels(axes: Axes, size: Sequence[int], *, last: bool, first: bool) -> None:
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


def _write_numbers(axes: Axes, values: NDArray[np.float32], largest: float) -> None:
    if values.size > 36:
        return
    for (row, column), value in np.ndenumerate(values):
        # The scale is dark at both ends.
        colour = "#ffffff" if abs(value) > 0.55 * largest else "#000000"
        axes.text(column, row, decimals(value), ha="center", va="center", color=colour, fontsize=SMALL)
