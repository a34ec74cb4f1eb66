"""Pictures of training: norms and dead channels by epoch, and the network growing from checkpoint to checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convjax.analysis.plots.parts import set_log_ticks
from convjax.analysis.plots.theme import MARKERS, Theme, ThemedFigure, styled
from convjax.explain.pictures.colors import around_zero, diverging, from_zero, sequential
from convjax.explain.pictures.parts import SMALL, WIDTH, colour_bar, number, put_title, scale_bar, show_sheet

QUANTITIES = {
    "weight_norm": "L2 norm of the weights",
    "gradient_norm": "L2 norm of the gradient",
    "dead_channels": "dead channels (%)",
}
_FILM_COLUMNS = 8
_LOGARITHMIC = 10.0
"""Ratio of the largest to the smallest norm from which their scale is logarithmic."""


@styled
def inside_plot(lines: Sequence[Mapping[str, Any]], title: str, *, theme: Theme) -> Figure:
    """Weight norm, gradient norm and share of dead channels of every layer by epoch.

    Args:
      lines: of metrics.jsonl, each with the quantities of `convjax.training.diagnostics`.
    """
    shown = {name: text for name, text in QUANTITIES.items() if any(line.get(name) for line in lines)}
    figure = ThemedFigure(WIDTH, 3.6, theme)
    layers = list(dict.fromkeys(layer for line in lines for layer in line["weight_norm"]))
    handles = {}
    for place, (name, text) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(1, len(shown), place)
        scale = 100.0 if name == "dead_channels" else 1.0
        for index, layer in enumerate(layers):
            points = [(line["epoch"], line.get(name, {}).get(layer)) for line in lines]
            points = [(epoch, scale * value) for epoch, value in points if value is not None]
            if points:
                [handles[layer]] = axes.plot(
                    *zip(*points, strict=True),
                    color=theme.series[index % len(theme.series)],
                    marker=MARKERS[index % len(MARKERS)] if len(points) <= 20 else "",
                    markeredgecolor="none",
                    label=layer,
                )
        values = [value for line in axes.lines for value in line.get_ydata() if value > 0]
        if name == "gradient_norm" and values and max(values) > _LOGARITHMIC * min(values):
            axes.set_yscale("log")
            set_log_ticks(axes.yaxis, *axes.get_ylim(), number)
        elif name == "dead_channels":
            axes.set_ylim(-2, max(20.0, min(102.0, axes.get_ylim()[1])))
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(text)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(len(handles), 6))
    put_title(figure, title)
    return figure


@dataclass(frozen=True)
class Moment:
    """A network at a checkpoint.

    Attributes:
      epoch: passes over the training images, which may be a fraction.
      accuracy: on the test images, a share.
      kernels: of the first layer, `[filters, height, width]`.
      maps: of the fixed image, by layer, `[rows, columns, channels]`.
    """

    epoch: float
    accuracy: float
    kernels: NDArray[np.float64]
    maps: Mapping[str, NDArray[np.float32]]


class _Stage:
    """The axes of one moment: accuracy, filters, maps of one or two layers."""

    def __init__(self, moments: Sequence[Moment], image: NDArray[np.uint8], theme: Theme):
        self.moments, self.image, self.theme = moments, image, theme
        self.kernels = around_zero(np.stack([moment.kernels for moment in moments]))
        names = list(moments[0].maps)
        self.names = names if len(names) < 2 else [names[0], names[-1]]
        self.norms = {
            name: (around_zero if values.min() < 0 else from_zero)(values)
            for name in self.names
            for values in [np.stack([moment.maps[name] for moment in moments])]
        }

    def draw_accuracy(self, axes: Axes, index: int) -> None:
        epochs = [moment.epoch for moment in self.moments]
        accuracy = [100 * moment.accuracy for moment in self.moments]
        axes.plot(epochs, accuracy, color=self.theme.grid, marker="o", markeredgecolor="none")
        axes.plot(
            epochs[: index + 1], accuracy[: index + 1], color=self.theme.series[0], marker="o", markeredgecolor="none"
        )
        margin = max(0.3, 0.15 * (max(accuracy) - min(accuracy)))
        axes.set_xlim(min(epochs) - 0.3, max(epochs) + 0.3)
        axes.set_ylim(min(accuracy) - margin, min(max(accuracy) + margin, 100.05))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)

    def draw_kernels(self, axes: Axes, index: int) -> Any:
        tiles = self.moments[index].kernels[:64]
        return _tiles(axes, tiles, self.kernels, diverging())

    def draw_maps(self, axes: Axes, index: int, name: str) -> Any:
        tiles = np.moveaxis(self.moments[index].maps[name], -1, 0)[:64]
        norm = self.norms[name]
        return _tiles(axes, tiles, norm, diverging() if (norm.vmin or 0.0) < 0 else sequential())


def _tiles(axes: Axes, tiles: NDArray[Any], norm: Any, colours: Any) -> Any:
    drawn = show_sheet(axes, tiles, min(_FILM_COLUMNS, len(tiles)), norm=norm, colours=colours)
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def _heads(stage: _Stage) -> list[str]:
    return ["test accuracy (%)", "first layer's weights", *(f"{name}'s output" for name in stage.names)]


def film_frames(moments: Sequence[Moment], image: NDArray[np.uint8], title: str, *, theme: str) -> Iterator[Figure]:
    """A figure for each moment."""
    for index in range(len(moments)):
        yield _film_frame(moments, image, title, index, theme=theme)


@styled
def _film_frame(moments: Sequence[Moment], image: NDArray[np.uint8], title: str, index: int, *, theme: Theme) -> Figure:
    stage = _Stage(moments, image, theme)
    columns = 2 + len(stage.names)
    figure = ThemedFigure(WIDTH, 3.0, theme)
    figure.set_layout_engine("none")
    width = 0.96 / columns
    boxes = [(0.02 + place * width, 0.17, width * 0.88, 0.55) for place in range(columns)]
    left, bottom, wide, high = boxes[0]
    axes = figure.add_axes((left + 0.03, bottom, wide - 0.03, high))
    stage.draw_accuracy(axes, index)
    axes.set_title(f"test accuracy: {100 * moments[index].accuracy:.2f} %")
    axes = figure.add_axes(boxes[1])
    drawn = stage.draw_kernels(axes, index)
    axes.set_title("first layer's weights")
    scale_bar(figure, drawn, figure.add_axes(_below(boxes[1])))
    for box, name in zip(boxes[2:], stage.names, strict=True):
        axes = figure.add_axes(box)
        drawn = stage.draw_maps(axes, index, name)
        axes.set_title(f"{name}'s output")
        scale_bar(figure, drawn, figure.add_axes(_below(box)))
    put_title(figure, f"{title}: epoch {moments[index].epoch:g} of {moments[-1].epoch:g}")
    return figure


def _below(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, bottom, width, _ = box
    return left + 0.2 * width, bottom - 0.06, 0.6 * width, 0.025


@styled
def film_strip(
    moments: Sequence[Moment], image: NDArray[np.uint8], title: str, most: int = 6, *, theme: Theme
) -> Figure:
    """The moments one below the other, at most so many, first and last among them."""
    stage = _Stage(moments, image, theme)
    last = len(moments) - 1
    chosen = sorted({round(i * last / (most - 1)) for i in range(most)}) if last >= most else list(range(last + 1))
    columns = 2 + len(stage.names)
    rows = len(chosen)
    figure = ThemedFigure(WIDTH, rows * 1.75 + 1.3, theme)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, index in zip(grid, chosen, strict=True):
        stage.draw_accuracy(row[0], index)
        row[0].set_ylabel(f"epoch {moments[index].epoch:g}:\n{100 * moments[index].accuracy:.2f} %", fontsize=SMALL)
        if index != chosen[-1]:
            row[0].set_xlabel("")
        kernels = stage.draw_kernels(row[1], index)
        drawn = [stage.draw_maps(axes, index, name) for axes, name in zip(row[2:], stage.names, strict=True)]
    for axes, head in zip(grid[0], _heads(stage), strict=True):
        axes.set_title(head)
    for column, (each, label) in enumerate(
        zip([kernels, *drawn], ["weight", *["output"] * len(drawn)], strict=True), 1
    ):
        colour_bar(figure, each, list(grid[:, column]), label, horizontal=True, pad=0.02, fraction=0.04)
    put_title(figure, title)
    return figure
