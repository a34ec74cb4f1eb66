"""What the pictures share: titles, images, sheets of tiles, color bars, numbers."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from convjax.analysis.plots.parts import text_color
from convjax.analysis.plots.theme import FONT_SIZE, drawable
from convjax.nn.geometry import Shape

WIDTH = 9.0
"""Width of every picture, in inches."""

SMALL = FONT_SIZE - 1.5
TIMES = "\N{MULTIPLICATION SIGN}"
_LETTERS_PER_INCH = 11


def shape_text(shape: Shape) -> str:
    """A shape with multiplication signs: `26x26x32`."""
    return TIMES.join(f"{size:,}" for size in shape)


def put_title(figure: Figure, title: str, detail: str = "") -> None:
    """A bold title at the top left, then `detail` on its own lines; both are wrapped to the figure's width."""
    letters = int(_LETTERS_PER_INCH * figure.get_figwidth())
    lines = textwrap.wrap(drawable(title), letters)
    lines += textwrap.wrap(drawable(detail), int(letters * 1.02)) if detail else []
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=FONT_SIZE + 1.5, fontweight="bold")


def mosaic(tiles: NDArray[Any], columns: int, gap: int = 1) -> NDArray[np.float64]:
    """Tiles `[tiles, height, width]` or `[tiles, height, width, 3]` side by side, `columns` a row; NaN between them."""
    count, height, width, *colors = tiles.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *colors), np.nan)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def show_sheet(
    axes: Axes,
    tiles: NDArray[Any],
    columns: int,
    scale: tuple[Normalize, Colormap],
    names: Sequence[str] | None = None,
) -> AxesImage:
    """Draws a mosaic of tiles; those with three channels are RGB, 0..1.

    With `names`, each tile has its name below it. Otherwise rows are labeled with the index of their first tile, and
    columns with their number.
    """
    height, width = tiles.shape[1:3]
    gap = max(1, round(max(height, width) / 9))
    sheet = mosaic(tiles, columns, gap)
    if sheet.ndim == 3:
        empty = np.isnan(sheet[..., :1])
        sheet = np.concatenate([np.nan_to_num(sheet), 1.0 - empty], axis=-1)
    norm, colors = scale
    drawn = axes.imshow(sheet, cmap=colors, norm=norm, interpolation="none")
    axes.set_anchor("N")
    bare(axes)
    rows = math.ceil(len(tiles) / columns)
    middles = [column * (width + gap) + (width - 1) / 2 for column in range(min(columns, len(tiles)))]
    if names:
        for index, name in enumerate(names):
            row, column = divmod(index, columns)
            bottom = row * (height + gap) + height + gap * 0.1
            axes.text(middles[column], bottom, drawable(name)[:18], ha="center", va="top", fontsize=SMALL)
        axes.set_ylim(rows * (height + gap), -0.5)
        return drawn
    if rows > 1:
        places = [row * (height + gap) + (height - 1) / 2 for row in range(rows)]
        axes.set_yticks(places, [str(row * columns) for row in range(rows)])
    axes.set_xticks(middles, [str(column) for column in range(len(middles))])
    axes.tick_params(length=0, labelsize=SMALL, pad=2)
    return drawn


def show_image(axes: Axes, image: NDArray[np.uint8]) -> AxesImage:
    """Draws an image `[height, width, channels]`: RGB in color, anything else in gray, 0 black to 255 white."""
    bare(axes)
    if image.shape[-1] == 3:
        return axes.imshow(image, interpolation="none")
    return axes.imshow(gray(image), cmap="gray", vmin=0, vmax=255, interpolation="none")


def gray(image: NDArray[Any]) -> NDArray[np.float64]:
    """The mean over channels, `[height, width]`."""
    return np.asarray(image, np.float64).mean(axis=-1)


def write_numbers(axes: Axes, drawn: AxesImage, values: NDArray[np.floating], spec: str = ".2f") -> None:
    """Writes each value onto its pixel of the image `drawn`; NaN leaves a pixel empty."""
    backgrounds = drawn.to_rgba(values)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = text_color(backgrounds[row, column])
            axes.text(column, row, decimals(value, spec), ha="center", va="center", color=color, fontsize=SMALL)


def bare(axes: Axes) -> None:
    """Removes ticks, grid and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def color_bar(figure: Figure, drawn: ScalarMappable, axes: Axes | Sequence[Axes], label: str, **place: Any) -> None:
    """A color bar beside the axes, labeled at its ends, and at zero if that lies between them."""
    # With an anchor the bar would move the drawing within its place.
    usual: dict[str, Any] = {"shrink": 0.8, "pad": 0.01, "fraction": 0.04, "aspect": 30, "panchor": False}
    _finish(figure.colorbar(drawn, ax=axes, **(usual | place)), label)


def scale_bar(figure: Figure, drawn: ScalarMappable, place: Axes, words: Sequence[str] | None = None) -> None:
    """A horizontal color bar that fills the axes `place`; `words` replace the numbers at its ticks."""
    bar = figure.colorbar(drawn, cax=place, orientation="horizontal")
    _finish(bar, "", words)
    if words:
        # Words at the ends stay within the bar: constrained layout would move its neighbors to make room for them.
        first, *_, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def _finish(bar: Colorbar, label: str, words: Sequence[str] | None = None) -> None:
    low, high = bar.ax.get_ylim() if bar.orientation == "vertical" else bar.ax.get_xlim()
    ends = [low, *([0.0] if low < 0 < high else []), high]
    bar.set_ticks(ends, labels=words or [number(end) for end in ends])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    bar.ax.tick_params(length=0, labelsize=SMALL)
    bar.set_label(label, fontsize=SMALL)


def decimals(value: float | np.floating, spec: str = ".2f") -> str:
    """A number with fixed decimals and a true minus sign; never `-0.00`."""
    return f"{value:z{spec}}".replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """A number with two or three digits and a true minus sign."""
    text = f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")
