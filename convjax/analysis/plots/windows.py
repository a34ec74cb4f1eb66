"""Where the windows of convolutions and poolings sit, drawn as in the chapter's figures 5.5 to 5.7."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from convjax.analysis.plots.parts import SMALL, handle
from convjax.analysis.plots.theme import Theme, ThemedFigure, styled
from convjax.analysis.plots.window_text import centre, has_panels, tiles
from convjax.nn.geometry import Axis, Layer, axes_of

_WIDTH, _NARROWEST = 7.0, 5.2
_TILE = 0.16
"""Inches of a tile in a panel, unless that makes the figure too wide."""

_MOST_TILES = 64
_MOST_CENTRES = 2000


@styled
def window_plot(layers: Sequence[Layer], *, theme: Theme) -> Figure:
    """One row of pictures a layer.

    A layer of few windows on a small input has a panel for each, in the order of the output's positions; another one
    has its input with the first two windows and the last, and all centres where these are not thousands.

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
        handle(theme.ink, "o", "its centre"),
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
            shift = (j * width + columns.pads[0], i * height + rows.pads[0])
            _draw_input(axes, rows, columns, shift, theme)
            _draw_window(axes, rows, columns, (top, left), shift, theme)


def _draw_overview(axes: Axes, layer: Layer, theme: Theme) -> None:
    rows, columns = axes_of(layer)
    _draw_input(axes, rows, columns, (0, 0), theme)
    corners = {
        (rows.starts[0], columns.starts[0]),
        (rows.starts[0], columns.starts[min(1, columns.count - 1)]),
        (rows.starts[-1], columns.starts[-1]),
    }
    for corner in sorted(corners):
        _draw_window(axes, rows, columns, corner, (0, 0), theme, dot=False)
    if rows.count * columns.count <= _MOST_CENTRES:
        middle_rows, middle_columns = ([start + axis.window / 2 for start in axis.starts] for axis in (rows, columns))
        points = [(x, y) for y in middle_rows for x in middle_columns]
        axes.plot(*zip(*points, strict=True), ".", color=theme.ink, markersize=2)


def _draw_input(axes: Axes, rows: Axis, columns: Axis, shift: tuple[float, float], theme: Theme) -> None:
    """The tiles of the input, and around them, dotted, those of its padding."""
    outer, inner = (tiles(rows), tiles(columns)), (range(rows.size), range(columns.size))
    whole = [(0, 0, columns.size, rows.size)]
    _add(axes, whole, shift, facecolor=theme.grid, edgecolor="none")
    for spans, style in ((outer, ":"), (inner, "-")):
        if spans == inner or outer != inner:
            _draw_grid(axes, *spans, shift, color=theme.muted, linewidth=0.5, linestyle=style)


def _draw_grid(axes: Axes, rows: range, columns: range, shift: tuple[float, float], **look: Any) -> None:
    """The lines around tiles, as one path; of very many tiles only the outermost."""
    (top, bottom), (left, right) = ((span.start, span.stop) for span in (rows, columns))
    steps = [max(1, len(span)) if len(span) > _MOST_TILES else 1 for span in (rows, columns)]
    lines = [((left, right), (y, y)) for y in range(top, bottom + 1, steps[0])]
    lines += [((x, x), (top, bottom)) for x in range(left, right + 1, steps[1])]
    xs, ys = ([place for line in lines for place in (*line[axis], math.nan)] for axis in (0, 1))
    axes.plot([x + shift[0] for x in xs], [y + shift[1] for y in ys], **look)


def _draw_window(
    axes: Axes,
    rows: Axis,
    columns: Axis,
    corner: tuple[int, int],
    shift: tuple[float, float],
    theme: Theme,
    *,
    dot: bool = True,
) -> None:
    top, left = corner
    box = [(left, top, columns.window, rows.window)]
    _add(axes, box, shift, facecolor=theme.series[0], alpha=0.45, edgecolor="none")
    _add(axes, box, shift, facecolor="none", edgecolor=theme.series[0], linewidth=1.1)
    row, column = centre(rows, top), centre(columns, left)
    if dot and row is not None and column is not None:
        axes.plot(column + 0.5 + shift[0], row + 0.5 + shift[1], "o", color=theme.ink, markersize=3)


def _add(
    axes: Axes, boxes: Iterable[tuple[float, float, float, float]], shift: tuple[float, float], **look: object
) -> None:
    """Rectangles `(left, top, width, height)`, moved by `shift`."""
    patches = [Rectangle((x + shift[0], y + shift[1]), width, height) for x, y, width, height in boxes]
    axes.add_collection(PatchCollection(patches, **look))
