"""Pictures of a whole network: its layers as a diagram, and drawn to scale."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.explain.pictures.parts import SMALL, WIDTH, put_title, shape_text
from convjax.nn.geometry import Layer

_SLANT = 0.35
"""How far a step back is drawn up and to the right."""

_UNIT_AS_PIXELS = 0.25
_CHANNELS_A_PIXEL = 4.0
_LONGEST_NAME = 10


@styled
def layer_diagram(layers: Sequence[Layer], title: str, *, theme: Theme) -> Figure:
    """Every layer as a box with its output's shape; beside it bars of parameters and of FLOPs."""
    count = len(layers) + 1
    figure = ThemedFigure(WIDTH, 0.52 * count + 1.2, theme)
    grid = figure.add_gridspec(1, 3, width_ratios=[2.6, 1, 1])
    boxes = figure.add_subplot(grid[0])
    boxes.set_xlim(0, 10)
    boxes.set_ylim(count - 0.5, -0.5)
    boxes.set_axis_off()
    _box(boxes, 0, "images", shape_text(layers[0].input_shape), theme.muted, theme)
    for row, layer in enumerate(layers, start=1):
        boxes.add_patch(
            FancyArrowPatch(
                (5, row - 0.68), (5, row - 0.32), arrowstyle="-|>", mutation_scale=7, color=theme.muted, linewidth=1
            )
        )
        _box(boxes, row, _words(layer), shape_text(layer.output_shape), _colour(layer, theme), theme)
    for place, (name, values) in enumerate(
        (
            ("parameters", [layer.parameters for layer in layers]),
            ("FLOPs", [x.flops for x in layers]),
        ),
        1,
    ):
        axes = figure.add_subplot(grid[place], sharey=boxes)
        colours = [_colour(layer, theme) for layer in layers]
        axes.barh(range(1, count), values, height=0.5, color=colours)
        largest = max(values, default=0) or 1
        for row, value in enumerate(values, start=1):
            if value:
                axes.text(value + 0.02 * largest, row, f"{value:,}", va="center", fontsize=SMALL)
        axes.set_xlim(0, largest * 1.55)
        axes.set_xticks([])
        axes.tick_params(left=False, labelleft=False)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{name}: {sum(values):,}")
    put_title(figure, title)
    return figure


def _box(axes: Axes, row: int, words: str, shape: str, colour: str, theme: Theme) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (0.1, row - 0.3), 9.8, 0.6, boxstyle="round,pad=0,rounding_size=0.12", facecolor="none", edgecolor=colour,
            linewidth=1.4, mutation_aspect=0.25,
        )
    )  # fmt: skip
    axes.text(0.4, row, words, va="center", fontsize=FONT_SIZE - 0.5)
    axes.text(9.7, row, shape, va="center", ha="right", fontsize=FONT_SIZE - 0.5, weight="bold")


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


def _colour(layer: Layer, theme: Theme) -> str:
    if layer.kind in ("Conv2D", "LocallyConnected2D"):
        return theme.series[0]
    if layer.kind == "Dense":
        return theme.series[2]
    if "Pooling" in layer.kind:
        return theme.series[1]
    return theme.muted


@styled
def scale_drawing(layers: Sequence[Layer], title: str, *, theme: Theme) -> Figure:
    """Every output as a block: rows up, columns back, channels to the right, all on one scale; units as a column."""
    shapes = [("images", layers[0].input_shape, theme.muted)]
    shapes += [
        (layer.name, layer.output_shape, _colour(layer, theme)) for layer in layers if layer.kind not in ("Dropout",)
    ]
    tallest = max((shape[0] for _, shape, _ in shapes if len(shape) == 3), default=28)
    figure = ThemedFigure(WIDTH, 4.1, theme)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    # Wide layers are drawn on a scale of their own where there are many channels.
    thick = [_thickness(shape) for _, shape, _ in shapes]
    scale = min(1.0, 3.2 * tallest / max(sum(thick), 1e-9))
    # Units in a column as high as the image where they fit.
    units = max((shape[0] for _, shape, _ in shapes if len(shape) == 1), default=1)
    unit_height = min(_UNIT_AS_PIXELS, 1.3 * tallest / units)
    x, lowest, highest = 0.0, 0.0, 0.0
    gap = 0.16 * tallest
    for (name, shape, colour), width in zip(shapes, thick, strict=True):
        if len(shape) == 3:
            height, back = shape[0], _SLANT * shape[1]
            width *= scale
        else:
            height, back, width = shape[0] * unit_height, 0.0, 0.045 * tallest
        right = x + width + back
        _block(axes, x, height, width, back, colour, theme)
        middle = x + (width + back) / 2
        axes.text(
            middle, height / 2 + back / 2 + 0.06 * tallest, shape_text(shape), ha="center", va="bottom", fontsize=SMALL
        )
        axes.text(
            middle, -height / 2 - 0.08 * tallest, _broken(name), ha="center", va="top", fontsize=SMALL - 0.5,
            color=theme.muted, linespacing=1.0,
        )  # fmt: skip
        x = right + max(gap, 0.5 * (_label_width(name, shape, tallest) - width - back) + gap)
        lowest = min(lowest, -height / 2 - 0.08 * tallest - 0.2 * tallest)
        highest = max(highest, height / 2 + back / 2 + 0.2 * tallest)
    axes.set_xlim(-0.1 * tallest, x)
    axes.set_ylim(lowest, highest)
    # As high as a drawing of this width is.
    figure.set_figheight(max(2.5, WIDTH * (highest - lowest) / (x + 0.1 * tallest)) + 0.4)
    put_title(figure, title)
    return figure


def _broken(name: str) -> str:
    """A long name in two lines."""
    stem, underscore, rest = name.partition("_")
    return f"{stem}_\n{rest}" if len(name) > _LONGEST_NAME and underscore else name


def _label_width(name: str, shape: Sequence[int], tallest: float) -> float:
    lines = [shape_text(tuple(shape)), *_broken(name).split("\n")]
    return 0.075 * tallest * max(len(line) for line in lines)


def _thickness(shape: Sequence[int]) -> float:
    return shape[2] / _CHANNELS_A_PIXEL if len(shape) == 3 else 0.0


def _block(axes: Axes, x: float, height: float, width: float, back: float, colour: str, theme: Theme) -> None:
    """A cuboid, its middle at height 0; front, side and top in three shades."""
    low, high = -height / 2, height / 2
    front = [(x, low), (x + width, low), (x + width, high), (x, high)]
    top = [(x, high), (x + width, high), (x + width + back, high + back / 2), (x + back, high + back / 2)]
    side = [
        (x + width, low),
        (x + width + back, low + back / 2),
        (x + width + back, high + back / 2),
        (x + width, high),
    ]
    for corners, alpha in ((front, 0.75), (top, 0.45), (side, 0.28)):
        if back or corners is front:
            axes.add_patch(Polygon(corners, closed=True, facecolor=colour, alpha=alpha, linewidth=0))
            axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=colour, linewidth=0.8))
