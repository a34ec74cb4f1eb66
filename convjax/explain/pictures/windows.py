"""Pictures of a sliding window: patch, kernel, one value of the map; step by step, with numbers.

After figures 5.4 to 5.7 of the chapter: what a convolution computes, where windows fit without and with padding, a
stride of 2, max-pooling.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.explain.pictures.colors import around_zero, diverging
from convjax.explain.pictures.parts import SMALL, WIDTH, bare, decimals, put_title, scale_bar, shape_text
from convjax.explain.sliding import Sliding, slide_kernel

_ROW = 2.75
_MOST_NUMBERED = 9
"""Side up to which cells hold their numbers."""

_MONO = "DejaVu Sans Mono"


class _Scene:
    """Input, kernel and output of a sliding window as drawings whose window can be moved."""

    def __init__(self, figure: Figure, box: tuple[float, float], sliding: Sliding, theme: Theme):
        """`box` is (bottom, height) of the scene as shares of the figure."""
        self.figure, self.sliding, self.theme = figure, sliding, theme
        bottom, height = box
        self.input = figure.add_axes((0.03, bottom, 0.33, height))
        self.kernel = figure.add_axes((0.40, bottom, 0.24, height))
        self.output = figure.add_axes((0.68, bottom + 0.17 * height, 0.30, 0.83 * height))
        self.scale = figure.add_axes((0.73, bottom + 0.06 * height, 0.20, 0.035 * height))
        self._draw_input()
        self._draw_kernel()
        self._draw_output()

    def _draw_input(self) -> None:
        axes, sliding = self.input, self.sliding
        bare(axes)
        top, left = sliding.before
        height, width = sliding.size
        shown = np.full(sliding.padded.shape, np.nan)
        shown[top : top + height, left : left + width] = sliding.padded[top : top + height, left : left + width]
        axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="none")
        numbered = max(sliding.padded.shape) <= _MOST_NUMBERED
        for (row, column), value in np.ndenumerate(sliding.padded):
            padding = np.isnan(shown[row, column])
            if padding:
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=self.theme.grid, hatch="///", lw=0)
                )
            if numbered:
                colour = self.theme.muted if padding else "#000000" if value > 0.5 else "#ffffff"
                text = "0" if padding else f"{value:.1f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=colour)
        if numbered:
            _lines(axes, sliding.padded.shape, self.theme)
        else:
            axes.set_title("", pad=2)
        around = "" if sliding.padded.shape == sliding.size else f", {_ring(sliding)} of zeros around"
        axes.set_title(f"input {shape_text(sliding.size)}{around}", loc="center")
        self.window = Rectangle(
            (0, 0), sliding.window[1], sliding.window[0], fill=False, edgecolor=self.theme.series[1], linewidth=2.6
        )
        axes.add_patch(self.window)
        axes.set_xlim(-0.6, sliding.padded.shape[1] - 0.4)
        axes.set_ylim(sliding.padded.shape[0] - 0.4, -0.6)

    def _draw_kernel(self) -> None:
        axes, sliding = self.kernel, self.sliding
        bare(axes)
        rows, columns = sliding.window
        if sliding.kernel is None:
            self.patch = axes.imshow(np.zeros((rows, columns)), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.set_title(f"maximum of {shape_text(sliding.window)}", loc="center")
        else:
            norm = around_zero(sliding.kernel)
            axes.imshow(sliding.kernel, cmap=diverging(), norm=norm, interpolation="none")
            axes.set_title(f"\N{MULTIPLICATION SIGN} kernel {shape_text(sliding.window)}, summed", loc="center")
        self.numbers = {}
        for row, column in np.ndindex(rows, columns):
            text, colour = "", "#000000"
            if sliding.kernel is not None:
                value = sliding.kernel[row, column]
                text = decimals(float(value))
                colour = "#ffffff" if abs(value) > 0.55 * float(np.abs(sliding.kernel).max()) else "#000000"
            self.numbers[row, column] = axes.text(
                column, row, text, ha="center", va="center", color=colour, fontsize=SMALL
            )
        _lines(axes, sliding.window, self.theme)
        # Room below for the sum.
        axes.set_xlim(-1.0, columns)
        axes.set_ylim(rows + 0.35 * rows + 0.6, -0.6)
        self.sum = axes.text(
            (columns - 1) / 2,
            rows - 0.15,
            "",
            ha="center",
            va="top",
            fontsize=SMALL - 1,
            family=_MONO,
            linespacing=1.35,
        )

    def _draw_output(self) -> None:
        axes, sliding = self.output, self.sliding
        bare(axes)
        signed = sliding.kernel is not None
        self.norm = around_zero(sliding.output) if signed else Normalize(0.0, 1.0)
        self.colours = diverging() if signed else "gray"
        self.map = axes.imshow(
            np.full(sliding.output.shape, np.nan), cmap=self.colours, norm=self.norm, interpolation="none"
        )
        rows, columns = sliding.output.shape
        self.values = {}
        if max(rows, columns) <= _MOST_NUMBERED:
            _lines(axes, sliding.output.shape, self.theme)
            for step in sliding.steps:
                self.values[step] = axes.text(step[1], step[0], "", ha="center", va="center", fontsize=SMALL)
        else:
            axes.add_patch(
                Rectangle((-0.5, -0.5), columns, rows, fill=False, edgecolor=self.theme.muted, linewidth=0.8)
            )
        scale_bar(self.figure, self.map, self.scale)
        self.here = Rectangle((0, 0), 1, 1, fill=False, edgecolor=self.theme.series[1], linewidth=2.6)
        axes.add_patch(self.here)
        name = "response map" if signed else "output"
        axes.set_title(f"{name} {shape_text(sliding.output.shape)}", loc="center")
        axes.set_xlim(-0.6, columns - 0.4)
        axes.set_ylim(rows - 0.4, -0.6)

    def move(self, index: int) -> None:
        """The window at a step, with the output up to it."""
        sliding = self.sliding
        step = sliding.steps[index]
        row, column = sliding.corner(step)
        self.window.set_xy((column - 0.5, row - 0.5))
        self.here.set_xy((step[1] - 0.5, step[0] - 0.5))
        done = np.full(sliding.output.shape, np.nan)
        for earlier in sliding.steps[: index + 1]:
            done[earlier] = sliding.output[earlier]
        self.map.set_data(done)
        for place, text in self.values.items():
            value = done[place]
            text.set_text("" if np.isnan(value) else decimals(float(value)))
            if not np.isnan(value):
                red, green, blue, _ = self.map.cmap(self.norm(value))
                text.set_color("#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#000000")
        patch = sliding.patch(step)
        if sliding.kernel is None:
            self.patch.set_data(patch)
            for place, text in self.numbers.items():
                text.set_text(f"{patch[place]:.1f}")
                text.set_color("#000000" if patch[place] > 0.5 else "#ffffff")
            self.sum.set_text(f"max = {sliding.output[step]:.1f}")
        else:
            self.sum.set_text(_sum_text(patch, sliding.kernel, float(sliding.output[step])))


def _sum_text(patch: NDArray[np.float64], kernel: NDArray[np.float64], value: float) -> str:
    result = f"= {decimals(value)}"
    if kernel.size > 9:
        return f"sum of {kernel.size} products\n{result}"
    lines = [
        " + ".join(f"{p:.1f}\N{MULTIPLICATION SIGN}{decimals(k)}" for p, k in zip(*pair, strict=True))
        for pair in zip(patch, kernel, strict=True)
    ]
    return "\n+ ".join(lines) + f"\n{result}"


def _ring(sliding: Sliding) -> str:
    extra = [whole - size for whole, size in zip(sliding.padded.shape, sliding.size, strict=True)]
    return "a ring" if extra == [2, 2] else f"{extra[0]} rows and {extra[1]} columns"


def _lines(axes: Axes, shape: Sequence[int], theme: Theme) -> None:
    rows, columns = shape
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color=theme.muted, linewidth=0.6)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, color=theme.muted, linewidth=0.6)


def strip_steps(sliding: Sliding, count: int = 4) -> list[int]:
    """Steps that tell the story: the first, the second, the first of the second row, the last."""
    columns, last = sliding.output.shape[1], len(sliding.steps) - 1
    return sorted({0, min(1, last), min(columns, last), last})[:count]


@styled
def window_strip(sliding: Sliding, title: str, *, theme: Theme) -> Figure:
    """Some steps one below the other."""
    steps = strip_steps(sliding)
    figure = _figure(len(steps) * _ROW + 0.55, theme)
    total = figure.get_figheight()
    for place, index in enumerate(steps):
        bottom = (total - 0.55 - (place + 1) * _ROW + 0.12) / total
        scene = _Scene(figure, (bottom, (_ROW - 0.45) / total), sliding, theme)
        scene.move(index)
        scene.input.set_ylabel(f"step {index + 1} of {len(sliding.steps)}", fontsize=FONT_SIZE)
    put_title(figure, title)
    return figure


def window_frames(sliding: Sliding, title: str, most: int = 36, *, theme: str) -> Iterator[Figure]:
    """The window at every step, or at `most` of them evenly; the figure is one and the same, changed."""
    figure, scene = _scene(sliding, theme=theme)
    last = len(sliding.steps) - 1
    indices = range(last + 1) if last < most else sorted({round(i * last / (most - 1)) for i in range(most)})
    for index in indices:
        scene.move(index)
        put_title(figure, f"{title}: step {index + 1} of {last + 1}")
        yield figure


def _scene(sliding: Sliding, *, theme: str) -> tuple[Figure, _Scene]:
    made: list[_Scene] = []

    @styled
    def draw(*, theme: Theme) -> Figure:
        figure = _figure(_ROW + 0.5, theme)
        made.append(_Scene(figure, (0.05, 0.72), sliding, theme))
        return figure

    return draw(theme=theme), made[0]


def _figure(height: float, theme: Theme) -> Figure:
    figure = ThemedFigure(WIDTH, height, theme)
    # Places are given: a layout that is found anew would let the frames tremble.
    figure.set_layout_engine("none")
    return figure


def crop(image: NDArray[np.float64], side: int, kernel: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The square of an image `[height, width]`, 0..1, rounded to tenths, over which a kernel's responses differ most;
    without a kernel, whose grey levels vary most."""
    values = np.asarray(image, np.float64) if kernel is None else slide_kernel(image, kernel).output
    inner = [side - image.shape[axis] + values.shape[axis] for axis in range(2)]
    spread = {
        (row, column): float(values[row : row + inner[0], column : column + inner[1]].std())
        for row in range(image.shape[0] - side + 1)
        for column in range(image.shape[1] - side + 1)
    }
    row, column = max(spread, key=lambda at: spread[at])
    return np.round(image[row : row + side, column : column + side], 1)
