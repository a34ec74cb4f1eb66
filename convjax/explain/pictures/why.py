"""Pictures of why: gradients, occlusion and Grad-CAM over images, for the class predicted and another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, drawable, styled
from convjax.explain.pictures.colors import around_zero, diverging, from_zero, sequential
from convjax.explain.pictures.parts import SMALL, WIDTH, bare, grey, number, put_title, scale_bar, show_image


@dataclass(frozen=True)
class Explained:
    """One image and one class, with maps as large as the image, `[height, width]`.

    Attributes:
      image: `[height, width, channels]`, uint8.
      label: of the row: what the class is here, and its probability.
      gradient, smooth: of the class's logit, signed, summed over channels.
      occlusion: fall of the logit when the pixel's surroundings are covered.
      grad_cams: by layer; none in a network without feature maps.
    """

    image: NDArray[np.uint8]
    label: str
    gradient: NDArray[np.float64]
    smooth: NDArray[np.float64]
    occlusion: NDArray[np.float64]
    grad_cams: Mapping[str, NDArray[np.float64]]

    def map_named(self, name: str) -> NDArray[np.float64]:
        """A map by its attribute, or a Grad-CAM by its layer."""
        return self.grad_cams[name] if name in self.grad_cams else getattr(self, name)


_SIGNED = {"gradient": "gradient", "smooth": "smoothed gradient", "occlusion": "occlusion"}


@styled
def why_sheet(rows: Sequence[Explained], title: str, detail: str, *, theme: Theme) -> Figure:
    """A row for each image and class; every map has its own scale, whose largest value stands below it."""
    maps = [*_SIGNED, *(name for name in rows[0].grad_cams)]
    figure, grid = _sheet(rows[0].image, len(rows), [name in _SIGNED for name in maps], theme)
    for row, axes in zip(rows, grid, strict=True):
        _show_labelled(axes[0], row)
        for place, name in zip(axes[1:], maps, strict=True):
            _show_map(place, row.map_named(name), row.image, signed=name in _SIGNED)
    heads = ["image", *(_SIGNED.get(name, f"Grad-CAM\n{name}") for name in maps)]
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, loc="center")
    put_title(figure, title, detail)
    return figure


@styled
def wrong_sheet(rows: Sequence[tuple[Explained, Explained]], title: str, detail: str, *, theme: Theme) -> Figure:
    """Misclassified images, a row each: maps for the class predicted, then for the true one."""
    # Of several layers the one with the most positions: errors are in the details.
    maps = ["occlusion", next(iter(rows[0][0].grad_cams), "smooth")]
    signed = [name in _SIGNED for name in maps]
    figure, grid = _sheet(rows[0][0].image, len(rows), [*signed, *signed], theme)
    for pair, axes in zip(rows, grid, strict=True):
        _show_labelled(axes[0], pair[0])
        for place, (which, name) in zip(axes[1:], [(which, name) for which in pair for name in maps], strict=True):
            _show_map(place, which.map_named(name), which.image, signed=name in _SIGNED)
    words = [_SIGNED.get(name, f"Grad-CAM {name}") for name in maps]
    heads = ["image", *(f"{word}\nfor the {which} class" for which in ("predicted", "true") for word in words)]
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, loc="center", fontsize=FONT_SIZE - 0.5)
    put_title(figure, title, detail)
    return figure


def _sheet(image: NDArray[np.uint8], rows: int, signed: Sequence[bool], theme: Theme) -> tuple[Figure, NDArray[Any]]:
    """A figure of image and maps, `[rows, 1 + maps]`, above the two colour scales."""
    columns = 1 + len(signed)
    side = (WIDTH - 0.8) / columns - 0.1
    tall = image.shape[0] / image.shape[1]
    figure = ThemedFigure(WIDTH, rows * (side * tall + 0.3) + 1.4, theme)
    grid = figure.add_gridspec(rows + 1, 2 * columns, height_ratios=[1.0] * rows + [0.07 / tall])
    axes = [
        [figure.add_subplot(grid[row, 2 * column : 2 * column + 2]) for column in range(columns)] for row in range(rows)
    ]
    middle = columns + 1
    for place, colours, norm, words in (
        (grid[rows, 2:middle], diverging(), Normalize(-1, 1), ("against the class", "0", "for the class")),
        (grid[rows, middle + 1 :], sequential(), Normalize(0, 1), ("0", "for the class")),
    ):
        if all(signed) and colours is not diverging():
            continue
        scale_bar(figure, ScalarMappable(norm, colours), figure.add_subplot(place), words=words)
    return figure, np.array(axes)


def _show_labelled(axes: Axes, row: Explained) -> None:
    show_image(axes, row.image)
    axes.set_ylabel("\n".join(drawable(line) for line in row.label.split("\n")), fontsize=SMALL)
    axes.set_xlabel("0 black to 255" if row.image.shape[-1] != 3 else "RGB", fontsize=SMALL, labelpad=2)


def _show_map(axes: Axes, values: NDArray[np.float64], image: NDArray[np.uint8], *, signed: bool) -> None:
    bare(axes)
    norm = around_zero(values) if signed else from_zero(values)
    axes.imshow(values, cmap=diverging() if signed else sequential(), norm=norm, interpolation="none")
    outline = grey(image)
    if image.shape[-1] != 3 and outline.min() < 128 < outline.max():
        axes.contour(outline, [127.5], colors=["#000000" if signed else "#ffffff"], linewidths=0.8, alpha=0.75)
    sign = "\N{PLUS-MINUS SIGN}" if signed else "0 to "
    axes.set_xlabel(f"{sign}{number(float(np.abs(values).max()))}", fontsize=SMALL, labelpad=2)
