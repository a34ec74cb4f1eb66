"""Pictures of filters: kernels, and the images that excite units most."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convjax.analysis.plots.theme import Theme, ThemedFigure, drawable, styled
from convjax.explain.filters import Maximised
from convjax.explain.pictures.colors import around_zero, diverging
from convjax.explain.pictures.parts import SMALL, WIDTH, colour_bar, decimals, put_title, shape_text, show_sheet
from convjax.nn.geometry import Layer

_COLUMNS = 16
_FEWER = 8
MOST = 128


@styled
def kernel_sheet(kernels: NDArray[np.float32], layer: Layer, title: str, *, theme: Theme) -> Figure:
    """Kernels `[filters, height, width, channels]` as images on one scale; those over RGB as colours they prefer."""
    shown = kernels[:MOST]
    columns = min(_COLUMNS if len(shown) > 2 * _FEWER else _FEWER, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = ThemedFigure(WIDTH, min(0.88 * WIDTH * rows / columns, 14.0) + 1.0, theme)
    axes = figure.add_subplot()
    norm = around_zero(shown)
    largest = norm.vmax or 1.0
    colour = shown.shape[-1] == 3
    tiles = 0.5 + shown / (2 * largest) if colour else shown.mean(-1)
    drawn = show_sheet(
        axes, tiles, columns, norm=norm if not colour else Normalize(-largest, largest), colours=diverging()
    )
    if colour:
        axes.set_xlabel(f"grey is 0; a channel's weights from {-largest:.2g} (none of it) to {largest:.2g} (all of it)")
    else:
        mean = "" if shown.shape[-1] == 1 else f", mean over {shown.shape[-1]} input channels"
        colour_bar(figure, drawn, axes, f"weight{mean}")
    axes.set_ylabel("channel" if layer.kind != "Dense" else "unit", fontsize=SMALL)
    more = f"; the first {MOST} of {len(kernels):,}" if len(kernels) > MOST else ""
    put_title(figure, title, f"{layer.name}, {len(kernels):,} of {shape_text(kernels.shape[1:])}{more}")
    return figure


@styled
def maximised_sheet(found: Maximised, names: Sequence[str] | None, title: str, *, theme: Theme) -> Figure:
    """The image that excites each unit most; `names` of the units where they have any."""
    count = len(found.units)
    columns = 5 if names and count <= 10 else min(_FEWER if found.images.shape[1] > 8 else _COLUMNS, count)
    rows = math.ceil(count / columns)
    height, width = found.images.shape[1:3]
    side = 0.86 * WIDTH / columns
    figure = ThemedFigure(WIDTH, side * rows * height / width + 1.1, theme)
    axes = figure.add_subplot()
    # White pixels end where their image does, on a white page too.
    axes.set_facecolor(theme.grid)
    tiles = found.images if found.images.shape[-1] == 3 else found.images.mean(-1)
    drawn = show_sheet(axes, tiles, columns, norm=Normalize(0.0, 1.0), colours=matplotlib.colormaps["gray"])
    gap = max(1, round(max(height, width) / 9))
    if names:
        axes.set_xticks([])
        axes.set_yticks([])
        for index in range(count):
            row, column = divmod(index, columns)
            axes.text(
                column * (width + gap) + (width - 1) / 2, row * (height + gap) + height + gap * 0.1,
                drawable(names[index])[:18], ha="center", va="top", fontsize=SMALL,
            )  # fmt: skip
        axes.set_ylim(rows * (height + gap), -0.5)
    else:
        axes.set_ylabel("channel" if len(found.layer.output_shape) == 3 else "unit", fontsize=SMALL)
    if found.images.shape[-1] != 3:
        colour_bar(figure, drawn, axes, "pixel: 0 black, 1 white")
    raised = int((found.end > found.start).sum())
    put_title(
        figure,
        title,
        f"{found.layer.name}, {shape_text(found.images.shape[1:3])} pixels each; "
        f"mean answer {decimals(found.start.mean())} for grey noise, {decimals(found.end.mean())} for these "
        f"({raised} of {count} raised)",
    )
    return figure
