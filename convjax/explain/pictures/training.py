"""Training: norms and dead channels by epoch, and a film of the network from checkpoint to checkpoint."""

import functools
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
from convjax.errors import UserError
from convjax.explain import activations, filters
from convjax.explain.pictures.animation import Animation, evenly
from convjax.explain.pictures.colors import scale_of
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import SMALL, WIDTH, number, put_title, scale_bar, show_sheet
from convjax.explain.pictures.subject import Subject
from convjax.training.checkpoint import kept_steps, load_params
from convjax.training.evaluation import predict

_QUANTITIES = {
    "weight_norm": "L2 norm of the weights",
    "gradient_norm": "L2 norm of the gradient",
    "dead_channels": "dead channels (%)",
}
_LOGARITHMIC = 10.0
"""Ratio of the largest to the smallest norm above which the axis is logarithmic."""

_MOST_FRAMES = 40
_COLUMNS = 8
_MOST_TILES = 64


@styled
def inside_plot(lines: Sequence[Mapping[str, Any]], title: str, *, theme: Theme) -> Figure:
    """Weight norm, gradient norm and share of dead channels of every layer by epoch.

    Args:
      lines: from metrics.jsonl, each with the quantities of `convjax.training.diagnostics`.
      title: of the figure.
      theme: see `convjax.analysis.plots.theme`.
    """
    shown = [name for name in _QUANTITIES if any(line.get(name) for line in lines)]
    figure = ThemedFigure(WIDTH, 3.6, theme)
    layers = list(dict.fromkeys(layer for line in lines for layer in line["weight_norm"]))
    handles = {}
    for name, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
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
            low, high = axes.get_ylim()
            set_log_ticks(axes.yaxis, low, high, number)
        elif name == "dead_channels":
            axes.set_ylim(-2, max(20.0, min(102.0, axes.get_ylim()[1])))
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(_QUANTITIES[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    # Columns are as wide as the longest name: six of `conv2d_1` fit, four of `batch_normalization_1`.
    columns = 6 if max(map(len, handles), default=0) <= 12 else 4
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(len(handles), columns))
    put_title(figure, title)
    return figure


@dataclass(frozen=True)
class Moment:
    """A network at a checkpoint.

    Attributes:
      epoch: passes over the training images, possibly a fraction.
      accuracy: on the test images, 0..1.
      sheets: what to draw beside the accuracy, by title: `[tiles, height, width]`.
    """

    epoch: float
    accuracy: float
    sheets: Mapping[str, NDArray[np.floating]]


def film_frames(moments: Sequence[Moment], title: str, *, theme: str) -> Iterator[Figure]:
    """A figure for each moment; color scales are the same in all of them."""
    scales = {name: scale_of(np.stack([moment.sheets[name] for moment in moments])) for name in moments[0].sheets}
    for index in range(len(moments)):
        yield _film_frame(moments, index, scales, title, theme=theme)


@styled
def _film_frame(
    moments: Sequence[Moment], index: int, scales: Mapping[str, Any], title: str, *, theme: Theme
) -> Figure:
    figure = ThemedFigure(WIDTH, 3.0, theme)
    # Fixed places: constrained layout would make the film tremble.
    figure.set_layout_engine("none")
    width = 0.96 / (1 + len(scales))
    _draw_accuracy(figure.add_axes((0.05, 0.17, 0.88 * width - 0.03, 0.55)), moments, index, theme)
    for place, (name, tiles) in enumerate(moments[index].sheets.items(), start=1):
        left, wide = 0.02 + place * width, 0.88 * width
        axes = figure.add_axes((left, 0.17, wide, 0.55))
        drawn = show_sheet(axes, tiles[:_MOST_TILES], min(_COLUMNS, len(tiles)), scales[name])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(name)
        scale_bar(figure, drawn, figure.add_axes((left + 0.2 * wide, 0.11, 0.6 * wide, 0.025)))
    put_title(figure, f"{title}: epoch {moments[index].epoch:g} of {moments[-1].epoch:g}")
    return figure


def _draw_accuracy(axes: Axes, moments: Sequence[Moment], index: int, theme: Theme) -> None:
    epochs = [moment.epoch for moment in moments]
    accuracy = [100 * moment.accuracy for moment in moments]
    for count, color in ((len(moments), theme.grid), (index + 1, theme.series[0])):
        axes.plot(epochs[:count], accuracy[:count], color=color, marker="o", markeredgecolor="none")
    margin = max(0.3, 0.15 * (max(accuracy) - min(accuracy)))
    axes.set_xlim(min(epochs) - 0.3, max(epochs) + 0.3)
    axes.set_ylim(min(accuracy) - margin, min(max(accuracy) + margin, 100.05))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.set_title(f"test accuracy: {accuracy[index]:.2f} %")


def inside(subject: Subject) -> Chapter:
    """Norms and dead channels by epoch."""
    lines = [line for line in subject.lines if "weight_norm" in line]
    if not lines:
        raise UserError("metrics.jsonl has no norms: the run used --nodiagnostics, or a version without them")
    last = lines[-1]
    dead = "; ".join(f"{layer} {100 * share:.0f} %" for layer, share in last.get("dead_channels", {}).items())
    picture = Picture(
        "inside",
        f"Dead channels after epoch {last['epoch']}: {dead or 'not measured'}.",
        "One line per layer, one point per epoch. The numbers are in metrics.jsonl, and in TensorBoard if the run used "
        "it.",
        functools.partial(inside_plot, lines, "Inside the layers, after each epoch"),
    )
    text = (
        "The norm of each layer's weights and biases, and the norm of its gradient of the loss on the first training "
        "images. A dead channel has the same output at every position of all these images: with relu it never fires."
    )
    return Chapter("Inside while it trained", text, [picture])


def film(subject: Subject) -> Chapter:
    """Accuracy, first-layer weights and feature maps at the checkpoints of all epochs."""
    steps = subject.task.steps_per_epoch
    ends = [step for step in kept_steps(subject.path) if step % steps == 0]
    if len(ends) < max(2, len(subject.lines)):
        raise UserError(
            f"the film needs the checkpoints of all epochs, and at least two; {len(ends)} of {len(subject.lines)} are "
            "kept: train again with --noresume --keep_checkpoints=0 and --epochs=2 or more"
        )
    index = subject.chosen[0]
    moments = [_moment(subject, ends[place], ends[place] / steps) for place in evenly(len(ends), _MOST_FRAMES)]
    picture = Animation(
        "film",
        "; ".join(f"epoch {moment.epoch:g}: {100 * moment.accuracy:.2f} %" for moment in moments),
        f"One frame per epoch, at most {_MOST_FRAMES}; color scales are the same in all frames.",
        functools.partial(film_frames, moments, f"Training, with test image {index}"),
        900,
    )
    text = f"Test accuracy, the first layer's weights and the outputs for test image {index}, at every epoch's end."
    return Chapter("Training as a film", text, [picture])


def _moment(subject: Subject, step: int, epoch: float) -> Moment:
    _, task, params = load_params(subject.path, step)
    logits = np.asarray(predict(params, subject.images, task=task))
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == subject.labels))
    sheets = {"first layer's weights": filters.kernel_images(task.layers, params)[1].mean(-1)}
    maps = activations.feature_maps(task.layers, params, subject.images[subject.chosen[0]][None])
    convolutions = activations.filter_layers(task.layers)
    for layer in dict.fromkeys([*convolutions[:1], *convolutions[-1:]]):
        sheets[f"{layer.name}'s output"] = np.moveaxis(maps[layer.name][0], -1, 0)
    return Moment(epoch, accuracy, sheets)
