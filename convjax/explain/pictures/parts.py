"""What pictures have in common: sheets of tiles, images, colour bars, titles."""

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

from convjax.analysis.plots.theme import FONT_SIZE, ThemedFigure, drawable
from convjax.nn.geometry import Shape

WIDTH = 9.0
"""Of a picture, in inches."""

SMALL = FONT_SIZE - 1.5
_TIMES = "\N{MULTIPLICATION SIGN}"
_LETTERS_AN_INCH = 11


def shape_text(shape: Shape) -> str:
    """`26x26x32` with signs of multiplication."""
    return _TIMES.join(f"{size:,}" for size in shape)


def put_title(figure: Figure, title: str, detail: str = "") -> None:
    """A bold title at the top left, wrapped to the figure, and below it a line of detail in its last lines."""
    letters = int(_LETTERS_AN_INCH * figure.get_figwidth())
    lines = textwrap.wrap(drawable(title), letters)
    lines += textwrap.wrap(drawable(detail), int(letters * 1.02)) if detail else []
    # Also outside of a theme's settings: a film changes its title from frame to frame.
    ink = figure.theme.ink if isinstance(figure, ThemedFigure) else None
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=FONT_SIZE + 1.5, fontweight="bold", color=ink)


def mosaic(tiles: NDArray[Any], columns: int, gap: int = 1) -> NDArray[np.float64]:
    """Tiles `[tiles, height, width]` or `[tiles, height, width, 3]` side by side in rows of `columns`; NaN between."""
    count, height, width, *colours = tiles.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *colours), np.nan)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def show_sheet(
    axes: Axes,
    tiles: NDArray[Any],
    columns: int,
    *,
    norm: Normalize,
    colours: Colormap,
    names: Sequence[str] | None = None,
) -> AxesImage:
    """A mosaic with the number of each row's first tile at its left, and of each column's at its top.

    `names` stand over each tile of a single row, or are None. Tiles of three channels are drawn as the colours they
    are, 0..1.
    """
    height, width = tiles.shape[1:3]
    gap = max(1, round(max(height, width) / 9))
    sheet = mosaic(tiles, columns, gap)
    if sheet.ndim == 3:
        empty = np.isnan(sheet[..., :1])
        sheet = np.concatenate([np.nan_to_num(sheet), 1.0 - empty], axis=-1)
    drawn = axes.imshow(sheet, cmap=colours, norm=norm, interpolation="none")
    axes.set_anchor("N")
    bare(axes)
    rows = math.ceil(len(tiles) / columns)
    if rows > 1:
        axes.set_yticks(
            [row * (height + gap) + (height - 1) / 2 for row in range(rows)],
            [str(row * columns) for row in range(rows)],
        )
    places = [column * (width + gap) + (width - 1) / 2 for column in range(min(columns, len(tiles)))]
    axes.set_xticks(places, names or [str(column) for column in range(len(places))])
    axes.tick_params(length=0, labelsize=SMALL, pad=2)
    return drawn


def show_image(axes: Axes, image: NDArray[np.uint8], **more: Any) -> AxesImage:
    """An image `[height, width, channels]`: RGB as it is, anything else grey, 0 black to 255 white."""
    bare(axes)
    if image.shape[-1] == 3:
        return axes.imshow(image, interpolation="none", **more)
    return axes.imshow(grey(image), cmap="gray", vmin=0, vmax=255, interpolation="none", **more)


def grey(image: NDArray[Any]) -> NDArray[np.float64]:
    """The mean over channels, `[height, width]`."""
    return np.asarray(image, np.float64).mean(axis=-1)


def bare(axes: Axes) -> None:
    """No ticks, grid or frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def colour_bar(
    figure: Figure,
    drawn: ScalarMappable,
    axes: Axes | Sequence[Axes],
    label: str,
    *,
    horizontal: bool = False,
    **more: Any,
) -> None:
    """The scale of a picture's colours beside it, with its ends, and zero where it lies between them."""
    place = {
        "location": "bottom" if horizontal else "right",
        "shrink": 0.8,
        "pad": 0.01,
        "fraction": 0.04,
        "aspect": 30,
        # A colour bar would else move the drawings beside it within their places.
        "panchor": False,
    }
    _finish(figure.colorbar(drawn, ax=axes, **(place | more)), label)


def scale_bar(
    figure: Figure, drawn: ScalarMappable, place: Axes, label: str = "", words: Sequence[str] | None = None
) -> None:
    """The same, lying in a place of its own; `words` may stand for the numbers of its ends, or of ends and middle."""
    _finish(figure.colorbar(drawn, cax=place, orientation="horizontal"), label, words)


def _finish(bar: Colorbar, label: str, words: Sequence[str] | None = None) -> None:
    low, high = bar.vmin, bar.vmax
    ends = [low, *([0.0] if low < 0 < high else []), high]
    bar.set_ticks(ends, labels=words or [number(end) for end in ends])
    bar.minorticks_off()
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.grid(visible=False)
    bar.ax.tick_params(length=0, labelsize=SMALL)
    bar.set_label(label, fontsize=SMALL)
    if words:
        # Words at the ends stay within the bar: what stands out would push its neighbours away.
        first, *_, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def decimals(value: float) -> str:
    """Two decimals, with a true minus sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """Two or three digits, with a true minus sign."""
    text = f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")
