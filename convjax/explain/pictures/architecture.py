"""The network as a whole: a diagram of its layers, and its outputs drawn to scale."""

import functools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import SMALL, WIDTH, put_title, shape_text
from convjax.explain.pictures.subject import Subject
from convjax.nn.geometry import Layer, Shape, total_flops, total_parameters

_SLANT = 0.35
"""How far up and to the right a step back is drawn."""

_PIXELS_PER_UNIT = 0.25
_CHANNELS_PER_PIXEL = 4.0
_LONGEST_NAME = 10


@styled
def layer_diagram(layers: Sequence[Layer], title: str, *, theme: Theme) -> Figure:
    """A box for each layer with the shape of its output, beside bars of its parameters and FLOPs."""
    count = len(layers) + 1
    figure = ThemedFigure(WIDTH, 0.52 * count + 1.2, theme)
    boxes, *bars = figure.subplots(1, 3, width_ratios=[2.6, 1, 1], sharey=True)
    boxes.set_xlim(0, 10)
    boxes.set_ylim(count - 0.5, -0.5)
    boxes.set_axis_off()
    _draw_box(boxes, 0, "images", layers[0].input_shape, theme.muted)
    colors = [_color(layer, theme) for layer in layers]
    for row, (layer, color) in enumerate(zip(layers, colors, strict=True), start=1):
        ends = (5, row - 0.68), (5, row - 0.32)
        boxes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=7, color=theme.muted, linewidth=1))
        _draw_box(boxes, row, _words(layer), layer.output_shape, color)
    for axes, name, values in zip(
        bars,
        ("parameters", "FLOPs"),
        ([layer.parameters for layer in layers], [layer.flops for layer in layers]),
        strict=True,
    ):
        axes.barh(range(1, count), values, height=0.5, color=colors)
        largest = max(values) or 1
        for row, value in enumerate(values, start=1):
            if value:
                axes.text(value + 0.02 * largest, row, f"{value:,}", va="center", fontsize=SMALL)
        axes.set_xlim(0, largest * 1.55)
        axes.set_axis_off()
        axes.set_title(f"{name}: {sum(values):,}")
    put_title(figure, title)
    return figure


def _draw_box(axes: Axes, row: int, words: str, shape: Shape, color: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (0.1, row - 0.3), 9.8, 0.6, boxstyle="round,pad=0,rounding_size=0.12", facecolor="none", edgecolor=color,
            linewidth=1.4, mutation_aspect=0.25,
        )
    )  # fmt: skip
    axes.text(0.4, row, words, va="center", fontsize=FONT_SIZE - 0.5)
    axes.text(9.7, row, shape_text(shape), va="center", ha="right", fontsize=FONT_SIZE - 0.5, weight="bold")


def _words(layer: Layer) -> str:
    parts = [layer.name]
    if layer.window != (1, 1) or layer.kind == "Conv2D":
        parts.append(shape_text(layer.window))
        if layer.strides != ((1, 1) if layer.parameters else layer.window):
            parts.append(f"stride {shape_text(layer.strides)}")
    if layer.padding == "same":
        parts.append("same")
    if layer.parameters and layer.activation != "linear":
        parts.append(layer.activation)
    if layer.rate:
        parts.append(f"rate {layer.rate:g}")
    return ", ".join(parts)


def _color(layer: Layer, theme: Theme) -> str:
    if layer.kind in ("Conv2D", "LocallyConnected2D"):
        return theme.series[0]
    if layer.kind == "Dense":
        return theme.series[2]
    return theme.series[1] if "Pooling" in layer.kind else theme.muted


@styled
def scale_drawing(layers: Sequence[Layer], title: str, *, theme: Theme) -> Figure:
    """Every output as a block on one scale: rows up, columns back, channels to the right; units as a column."""
    shapes = [("images", layers[0].input_shape, theme.muted)]
    # Layers that keep the shape, such as dropout and normalization, would repeat the box before them.
    changing = [layer for layer in layers if layer.flops or layer.input_shape != layer.output_shape]
    shapes += [(layer.name, layer.output_shape, _color(layer, theme)) for layer in changing]
    tallest = max(shape[0] for _, shape, _ in shapes if len(shape) == 3)
    figure = ThemedFigure(WIDTH, 4.1, theme)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    # Many channels are drawn thinner, and many units lower, so that the drawing keeps its proportions.
    channels = sum(shape[2] for _, shape, _ in shapes if len(shape) == 3)
    channel_width = min(1 / _CHANNELS_PER_PIXEL, 3.2 * tallest / channels)
    units = max((shape[0] for _, shape, _ in shapes if len(shape) == 1), default=1)
    unit_height = min(_PIXELS_PER_UNIT, 1.3 * tallest / units)
    x = low = high = 0.0
    for name, shape, color in shapes:
        if len(shape) == 3:
            height, back, width = float(shape[0]), _SLANT * shape[1], shape[2] * channel_width
        else:
            height, back, width = shape[0] * unit_height, 0.0, 0.045 * tallest
        _draw_block(axes, x, (height, width, back), color)
        name = _broken(name)
        middle, bottom, top = x + (width + back) / 2, -height / 2 - 0.08 * tallest, height / 2 + back / 2
        axes.text(middle, top + 0.06 * tallest, shape_text(shape), ha="center", va="bottom", fontsize=SMALL)
        axes.text(middle, bottom, name, ha="center", va="top", fontsize=SMALL - 0.5, color=theme.muted, linespacing=1.0)
        longest = max(len(line) for line in (shape_text(shape), *name.split("\n")))
        gap = 0.16 * tallest
        x += width + back + gap + max(0.0, 0.5 * (0.075 * tallest * longest - width - back))
        low, high = min(low, bottom - 0.2 * tallest), max(high, top + 0.2 * tallest)
    axes.set_xlim(-0.1 * tallest, x)
    axes.set_ylim(low, high)
    # The height follows from the drawing's proportions.
    figure.set_figheight(max(2.5, WIDTH * (high - low) / (x + 0.1 * tallest)) + 0.4)
    put_title(figure, title)
    return figure


def _broken(name: str) -> str:
    """A long name in two lines."""
    stem, underscore, rest = name.partition("_")
    return f"{stem}_\n{rest}" if len(name) > _LONGEST_NAME and underscore else name


def _draw_block(axes: Axes, x: float, size: tuple[float, float, float], color: str) -> None:
    """A cuboid of (height, width, depth) centered at height 0: front, top and side in three shades."""
    height, width, back = size
    low, high, right = -height / 2, height / 2, x + width
    front = [(x, low), (right, low), (right, high), (x, high)]
    top = [(x, high), (right, high), (right + back, high + back / 2), (x + back, high + back / 2)]
    side = [(right, low), (right + back, low + back / 2), (right + back, high + back / 2), (right, high)]
    for corners, alpha in ((front, 0.75), (top, 0.45), (side, 0.28)):
        if back or corners is front:
            axes.add_patch(Polygon(corners, closed=True, facecolor=color, alpha=alpha, linewidth=0))
            axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=color, linewidth=0.8))


def model(subject: Subject) -> Chapter:
    """The layers as a diagram and to scale."""
    layers = subject.layers
    total = f"{total_parameters(layers):,} parameters, {total_flops(layers):,} FLOPs per image"
    words = "; ".join(
        f"{layer.name}: {shape_text(layer.output_shape)}, {layer.parameters:,} parameters" for layer in layers
    )
    pictures = [
        Picture(
            "layers",
            words,
            "Blue: convolutions and locally connected layers. Orange or red: pooling. Green: dense layers. Shapes are "
            "those of the outputs, rows x columns x channels.",
            functools.partial(layer_diagram, layers, f"The layers: {total}"),
        ),
        Picture(
            "architecture",
            words,
            "All blocks share one scale: rows go up, columns go back, channels go to the right, four or more to the "
            "width of a pixel. Dense layers are columns of units.",
            functools.partial(scale_drawing, layers, f"The architecture to scale: {total}"),
        ),
    ]
    text = "Images enter at the top of the first drawing and at the left of the second; logits leave at the other end."
    return Chapter("The model as a whole", text, pictures)
