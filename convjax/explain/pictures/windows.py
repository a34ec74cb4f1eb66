"""How a convolution works: a window slides over an input, and each step gives one value (figures 5.4 to 5.7)."""

import functools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convjax.analysis.plots.theme import Theme, ThemedFigure, styled
from convjax.config import Window
from convjax.explain import activations
from convjax.explain.pictures.animation import Animation, evenly
from convjax.explain.pictures.colors import around_zero, diverging
from convjax.explain.pictures.gallery import Chapter
from convjax.explain.pictures.parts import (
    SMALL,
    TIMES,
    WIDTH,
    bare,
    decimals,
    gray,
    put_title,
    scale_bar,
    shape_text,
    write_numbers,
)
from convjax.explain.pictures.subject import Subject
from convjax.explain.sliding import Sliding, slide_kernel, slide_maximum

_HEIGHT = 3.25
_MOST_FRAMES = 36
_MOST_NUMBERED = 9
"""Largest side of a grid whose cells show their numbers."""

_LARGEST_WINDOW = 7
_EDGE = np.array([[-1.0, 0.0, 1.0]] * 3)
"""A vertical edge (Prewitt), for networks whose first layer is not a convolution."""


def window_frames(sliding: Sliding, title: str, most: int = _MOST_FRAMES, *, theme: str) -> Iterator[Figure]:
    """The window at every step, or at `most` of them, evenly spread."""
    for index in evenly(len(sliding.steps), most):
        yield window_frame(sliding, index, title, theme=theme)


@styled
def window_frame(sliding: Sliding, index: int, title: str, *, theme: Theme) -> Figure:
    """The window at one step, with the output up to that step."""
    figure = ThemedFigure(WIDTH, _HEIGHT, theme)
    # Fixed places: constrained layout would make the film tremble.
    figure.set_layout_engine("none")
    step = sliding.steps[index]
    _draw_input(figure.add_axes((0.03, 0.05, 0.33, 0.72)), sliding, step, theme)
    _draw_kernel(figure.add_axes((0.40, 0.05, 0.24, 0.72)), sliding, step, theme)
    output = _draw_output(figure.add_axes((0.68, 0.17, 0.30, 0.60)), sliding, index, theme)
    scale_bar(figure, output, figure.add_axes((0.73, 0.09, 0.20, 0.025)))
    put_title(figure, f"{title}: step {index + 1} of {len(sliding.steps)}")
    return figure


def _draw_input(axes: Axes, sliding: Sliding, step: Window, theme: Theme) -> None:
    (top, left), (height, width) = sliding.before, sliding.size
    rows, columns = sliding.padded.shape
    pixels = np.full((rows, columns), np.nan)
    pixels[top : top + height, left : left + width] = sliding.padded[top : top + height, left : left + width]
    drawn = _draw_grid(axes, pixels, Normalize(0.0, 1.0), "gray", theme)
    numbered = max(rows, columns) <= _MOST_NUMBERED
    if numbered:
        write_numbers(axes, drawn, pixels, ".1f")
    for row, column in np.argwhere(np.isnan(pixels)):
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=theme.grid, hatch="///", linewidth=0)
        axes.add_patch(cell)
        if numbered:
            axes.text(column, row, "0", ha="center", va="center", fontsize=SMALL, color=theme.muted)
    row, column = sliding.corner(step)
    _frame(axes, (row, column), sliding.window, theme)
    added = (rows - height, columns - width)
    around = "a ring" if added == (2, 2) else f"{added[0]} rows and {added[1]} columns"
    axes.set_title(f"input {shape_text(sliding.size)}" + f", {around} of zeros around it" * any(added), loc="center")


def _draw_kernel(axes: Axes, sliding: Sliding, step: Window, theme: Theme) -> None:
    rows, columns = sliding.window
    patch, value = sliding.patch(step), float(sliding.output[step])
    if sliding.kernel is None:
        drawn = _draw_grid(axes, patch, Normalize(0.0, 1.0), "gray", theme)
        write_numbers(axes, drawn, patch, ".1f")
        axes.set_title(f"maximum of {shape_text(sliding.window)}", loc="center")
        sum_text = f"max = {value:.1f}"
    else:
        drawn = _draw_grid(axes, sliding.kernel, around_zero(sliding.kernel), diverging(), theme)
        write_numbers(axes, drawn, sliding.kernel)
        axes.set_title(f"{TIMES} kernel {shape_text(sliding.window)}, summed", loc="center")
        sum_text = _sum_text(patch, sliding.kernel, value)
    # Room for the sum below.
    axes.set_xlim(-1.0, columns)
    axes.set_ylim(rows + 0.35 * rows + 0.6, -0.6)
    axes.text(
        (columns - 1) / 2, rows - 0.15, sum_text, ha="center", va="top", fontsize=SMALL - 1, family="DejaVu Sans Mono",
        linespacing=1.35,
    )  # fmt: skip


def _draw_output(axes: Axes, sliding: Sliding, index: int, theme: Theme) -> AxesImage:
    done = np.full(sliding.output.shape, np.nan)
    done.flat[: index + 1] = sliding.output.flat[: index + 1]
    signed = sliding.kernel is not None
    norm = around_zero(sliding.output) if signed else Normalize(0.0, 1.0)
    drawn = _draw_grid(axes, done, norm, diverging() if signed else "gray", theme)
    if max(done.shape) <= _MOST_NUMBERED:
        write_numbers(axes, drawn, done)
    _frame(axes, sliding.steps[index], (1, 1), theme)
    axes.set_title(f"{'response map' if signed else 'output'} {shape_text(done.shape)}", loc="center")
    return drawn


def _draw_grid(
    axes: Axes, values: NDArray[np.floating], norm: Normalize, colors: Colormap | str, theme: Theme
) -> AxesImage:
    """An image with lines around its cells; around the whole if there are many."""
    bare(axes)
    drawn = axes.imshow(values, cmap=colors, norm=norm, interpolation="none")
    rows, columns = values.shape
    down, across = (1, 1) if max(rows, columns) <= _MOST_NUMBERED else (rows, columns)
    axes.hlines(np.arange(0, rows + 1, down) - 0.5, -0.5, columns - 0.5, color=theme.muted, linewidth=0.6)
    axes.vlines(np.arange(0, columns + 1, across) - 0.5, -0.5, rows - 0.5, color=theme.muted, linewidth=0.6)
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    return drawn


def _frame(axes: Axes, corner: Window, window: Window, theme: Theme) -> None:
    place = (corner[1] - 0.5, corner[0] - 0.5)
    axes.add_patch(
        Rectangle(place, window[1], window[0], fill=False, edgecolor=theme.series[1], linewidth=2.6, zorder=3)
    )


def _sum_text(patch: NDArray[np.floating], kernel: NDArray[np.floating], value: float) -> str:
    if kernel.size > 9:
        return f"sum of {kernel.size} products\n= {decimals(value)}"
    lines = [
        " + ".join(f"{p:.1f}{TIMES}{decimals(k)}" for p, k in zip(*pair, strict=True))
        for pair in zip(patch, kernel, strict=True)
    ]
    return "\n+ ".join(lines) + f"\n= {decimals(value)}"


def crop(image: NDArray[np.floating], side: int, kernel: NDArray[np.floating] | None = None) -> NDArray[np.floating]:
    """The most varied square of an image `[height, width]`, 0..1, rounded to tenths.

    Most varied means: the kernel's responses to the square have the largest standard deviation, or without a kernel
    its pixels.
    """
    values = np.asarray(image, np.float64) if kernel is None else slide_kernel(image, kernel).output
    inner = [side - image.shape[axis] + values.shape[axis] for axis in range(2)]
    spread = {
        (row, column): float(values[row : row + inner[0], column : column + inner[1]].std())
        for row in range(image.shape[0] - side + 1)
        for column in range(image.shape[1] - side + 1)
    }
    row, column = max(spread, key=lambda at: spread[at])
    return np.round(image[row : row + side, column : column + side], 1)


def convolution(subject: Subject) -> Chapter:
    """A window that slides over a piece of an image, with all its numbers, and over the whole image."""
    index = subject.chosen[0]
    image, kernel, source = _channel_and_kernel(subject, index)
    side = max(5, max(kernel.shape) + 2)
    piece = crop(image, side, kernel)
    size = shape_text((side, side))
    whole = slide_kernel(image, kernel)
    pictures = [
        _film("valid", f"Convolution of a {size} input, padding valid",
              "The window stays inside the input, so the map is smaller.", slide_kernel(piece, kernel)),
        _film("same", f"Convolution of a {size} input, padding same",
              "Zeros around the input let the map keep its size.", slide_kernel(piece, kernel, padding="same")),
        _film("stride_2", f"Convolution of a {size} input, stride 2",
              "The window skips every other position.", slide_kernel(piece, kernel, (2, 2))),
        _film("max_pooling", f"Max pooling of a 4{TIMES}4 input",
              "Windows do not overlap; each gives its largest value.", slide_maximum(crop(image, 4))),
        _film("image", f"Convolution of the whole image, {shape_text(whole.size)}",
              "The response map of this filter over the whole image.", whole),
    ]  # fmt: skip
    text = (
        f"The input is a piece of test image {index} (0 black, 1 white, rounded); the kernel is {source}. Each step "
        "multiplies the pixels under the window by the kernel and sums the products: one value of the map. Bias and "
        "activation are left out."
    )
    return Chapter("How a convolution works", text, pictures)


def _film(name: str, title: str, caption: str, sliding: Sliding) -> Animation:
    count = len(sliding.steps)
    return Animation(
        f"convolution-{name}",
        f"A window moves over the input in {count} steps; each gives one value of the output.",
        caption,
        functools.partial(window_frames, sliding, title),
        1400 if count <= 9 else 900 if max(sliding.output.shape) <= _MOST_NUMBERED else 250,
    )


def _channel_and_kernel(subject: Subject, index: int) -> tuple[NDArray[np.floating], NDArray[np.floating], str]:
    """One channel of a test image, a filter over it, and where the filter comes from."""
    image, first = subject.images[index] / 255.0, subject.layers[0]
    if first.kind != "Conv2D" or max(first.window) > _LARGEST_WINDOW or min(first.window) < 2:
        return gray(image), _EDGE, "a vertical edge (the network's first layer has no small window)"
    kernels = np.asarray(subject.params[first.name]["kernel"], np.float64)
    outputs = activations.feature_maps(subject.layers, subject.params, subject.images[index][None])[first.name][0]
    # Of the filters that respond, the one most like an edge: with large weights both above and below zero.
    responding = activations.strongest_channels(outputs, max(1, kernels.shape[-1] // 2))
    contrast = np.minimum(kernels[:, :, 0].max((0, 1)), -kernels[:, :, 0].min((0, 1)))
    channel = max(responding, key=lambda each: contrast[each])
    source = f"channel {channel} of {first.name}"
    if image.shape[-1] > 1:
        source += f" (only its weights for the first of {image.shape[-1]} input channels)"
    return image[..., 0], np.round(kernels[:, :, 0, channel], 2), source
