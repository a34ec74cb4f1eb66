"""Where the windows of convolutions and poolings sit, drawn as in the chapter's figures 5.5 to 5.7."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import Affine2D, Transform

from convjax.analysis.plots.parts import SMALL, handle
from convjax.analysis.plots.theme import Theme, ThemedFigure, styled
from convjax.analysis.plots.window_text import center, has_panels, tiles
from convjax.nn.geometry import Layer, axes_of

_WIDTH, _NARROWEST = 7.0, 5.2
_TILE = 0.16
"""Inches of a tile in a panel, unless that makes the figure too wide."""

_MOST_TILES = 64
_MOST_CENTERS = 2000


@styled
def window_plot(layers: Sequence[Layer], *, theme: Theme) -> Figure:
    """One row of pictures per layer.

    A layer of few windows on a small input has a panel for each window, in the order of the output's positions. Any
    other layer has one picture of its input with the first two windows and the last, and the centers of all windows
    unless there are thousands.

    Args:
      layers: convolutions and poolings, as of `convjax.nn.geometry.plan`.
      theme: see `convjax.analysis.plots.theme`.
    """
    sizes = [_extent(layer) for layer in layers]
    scale = min([_TILE, *(_WIDTH / (width + 1) for width, _ in sizes)])
    # An input of hundreds of tiles is drawn smaller than one of five, but not in proportion.
    scales = [
        max(scale, 3.2 / max(size)) if not has_panels(layer) else scale
        for layer, size in zip(layers, sizes, strict=True)
    ]
    heights = [factor * height + 0.45 for factor, (_, height) in zip(scales, sizes, strict=True)]
    wide = max(factor * width for factor, (width, _) in zip(scales, sizes, strict=True))
    figure = ThemedFigure(max(wide + 0.4, _NARROWEST), sum(heights) + 0.5, theme)
    rows = figure.subplots(len(layers), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, layer in zip(rows, layers, strict=True):
        axes.set_axis_off()
        axes.set_aspect("equal", anchor="W")
        axes.invert_yaxis()
        (_draw_panels if has_panels(layer) else _draw_overview)(axes, layer, theme)
        axes.autoscale_view()
        axes.set_title(_title(layer), fontsize=SMALL + 0.5)
    handles = [
        Patch(facecolor=theme.series[0], alpha=0.45, label="window"),
        handle(theme.ink, "o", "its center"),
        Patch(facecolor=theme.grid, edgecolor=theme.muted, label="input"),
    ]
    if any(axis.pads != (0, 0) for layer in layers for axis in axes_of(layer)):
        handles.append(Patch(facecolor="none", edgecolor=theme.muted, linestyle=":", label="padding"))
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=SMALL)
    return figure


def _title(layer: Layer) -> str:
    (rows, columns), (height, width) = axes_of(layer), layer.window
    stride = f"{layer.strides[0]}" if layer.strides[0] == layer.strides[1] else "x".join(map(str, layer.strides))
    return (
        f"{layer.name}: {rows.count * columns.count} windows of {height}x{width}, stride {stride}, "
        f"padding {layer.padding}: {rows.size}x{columns.size} \N{RIGHTWARDS ARROW} {rows.count}x{columns.count}"
    )


def _extent(layer: Layer) -> tuple[float, float]:
    """Width and height of a layer's drawing in tiles."""
    rows, columns = axes_of(layer)
    width, height = len(tiles(columns)), len(tiles(rows))
    if has_panels(layer):
        return columns.count * (width + 1) - 1, rows.count * (height + 1) - 1
    return width, height


def _draw_panels(axes: Axes, layer: Layer, theme: Theme) -> None:
    rows, columns = axes_of(layer)
    width, height = len(tiles(columns)) + 1, len(tiles(rows)) + 1
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            # Each panel's own coordinates: the input's first tile is at (0, 0).
            place = Affine2D().translate(j * width + columns.pads[0], i * height + rows.pads[0]) + axes.transData
            _draw_input(axes, layer, theme, place)
            _draw_window(axes, layer, (top, left), theme, place)
            row, column = center(rows, top), center(columns, left)
            if row is not None and column is not None:
                axes.plot(column + 0.5, row + 0.5, "o", color=theme.ink, markersize=3, transform=place)


def _draw_overview(axes: Axes, layer: Layer, theme: Theme) -> None:
    rows, columns = axes_of(layer)
    _draw_input(axes, layer, theme, axes.transData)
    corners = {
        (rows.starts[0], columns.starts[0]),
        (rows.starts[0], columns.starts[min(1, columns.count - 1)]),
        (rows.starts[-1], columns.starts[-1]),
    }
    for corner in sorted(corners):
        _draw_window(axes, layer, corner, theme, axes.transData)
    if rows.count * columns.count <= _MOST_CENTERS:
        middle_rows, middle_columns = ([start + axis.window / 2 for start in axis.starts] for axis in (rows, columns))
        points = [(x, y) for y in middle_rows for x in middle_columns]
        axes.plot(*zip(*points, strict=True), ".", color=theme.ink, markersize=2)


def _draw_input(axes: Axes, layer: Layer, theme: Theme, place: Transform) -> None:
    """The tiles of the input, and around them, dotted, those of its padding."""
    rows, columns = axes_of(layer)
    axes.add_patch(Rectangle((0, 0), columns.size, rows.size, facecolor=theme.grid, transform=place))
    for (down, across), style in (
        ((tiles(rows), tiles(columns)), ":"),
        ((range(rows.size), range(columns.size)), "-"),
    ):
        look: dict[str, Any] = {"color": theme.muted, "linewidth": 0.5, "linestyle": style, "transform": place}
        axes.hlines(_edges(down), across.start, across.stop, **look)
        axes.vlines(_edges(across), down.start, down.stop, **look)


def _edges(span: range) -> range:
    """Where the lines around tiles are; of very many tiles only around all of them."""
    return range(span.start, span.stop + 1, len(span) if len(span) > _MOST_TILES else 1)


def _draw_window(axes: Axes, layer: Layer, corner: tuple[int, int], theme: Theme, place: Transform) -> None:
    (height, width), (top, left), color = layer.window, corner, theme.series[0]
    axes.add_patch(Rectangle((left, top), width, height, facecolor=color, alpha=0.45, transform=place))
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=1.1, transform=place))
