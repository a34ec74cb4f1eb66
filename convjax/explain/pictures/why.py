"""Why this class: gradients, occlusion and Grad-CAM over images, for the predicted class and for another."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convjax.analysis.plots.run import most_confidently_wrong
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, drawable, styled
from convjax.errors import UserError
from convjax.explain import activations, saliency
from convjax.explain.pictures.colors import around_zero, diverging, from_zero, sequential
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import (
    SMALL,
    TIMES,
    WIDTH,
    bare,
    gray,
    number,
    put_title,
    scale_bar,
    shape_text,
    show_image,
)
from convjax.explain.pictures.subject import Subject
from convjax.nn.geometry import Layer

_MOST_WRONG = 6
_FEW_POSITIONS = 6
_OCCLUSIONS = 24
"""Approximate number of squares along a side of an occlusion map."""

_SIGNED = {"gradient": "gradient", "smooth": "smoothed gradient", "occlusion": "occlusion"}


@dataclass(frozen=True)
class Explained:
    """One image, one class, and maps as large as the image, `[height, width]`.

    Attributes:
      image: `[height, width, channels]`, uint8.
      label: text beside the image: the class and its probability.
      maps: `gradient` and `smooth` (of the logit, signed, summed over channels), `occlusion` (fall of the logit when
        the pixel's surroundings are covered), then Grad-CAMs by layer.
    """

    image: NDArray[np.uint8]
    label: str
    maps: Mapping[str, NDArray[np.floating]]


@styled
def why_sheet(rows: Sequence[Explained], title: str, detail: str, *, theme: Theme) -> Figure:
    """A row for each pair of image and class; every map has its own scale, with its range below it."""
    maps = list(rows[0].maps)
    heads = [_SIGNED.get(name, f"Grad-CAM\n{name}") for name in maps]
    figure = _sheet([[(row, name) for name in maps] for row in rows], ["image", *heads], theme)
    put_title(figure, title, detail)
    return figure


@styled
def wrong_sheet(rows: Sequence[tuple[Explained, Explained]], title: str, detail: str, *, theme: Theme) -> Figure:
    """A row for each misclassified image: maps for the predicted class, then for the true class."""
    # Of several Grad-CAMs the one with the most positions: errors are in the details.
    maps = ["occlusion", next((name for name in rows[0][0].maps if name not in _SIGNED), "smooth")]
    words = [_SIGNED.get(name, f"Grad-CAM {name}") for name in maps]
    heads = [f"{word}\nfor the {which} class" for which in ("predicted", "true") for word in words]
    figure = _sheet([[(each, name) for each in pair for name in maps] for pair in rows], ["image", *heads], theme)
    put_title(figure, title, detail)
    return figure


def _sheet(rows: Sequence[Sequence[tuple[Explained, str]]], heads: Sequence[str], theme: Theme) -> Figure:
    """A row of maps beside the image of each row's first entry; below all of them the two color scales."""
    columns, tall = len(heads), rows[0][0][0].image.shape[0] / rows[0][0][0].image.shape[1]
    side = (WIDTH - 0.8) / columns - 0.1
    figure = ThemedFigure(WIDTH, len(rows) * (side * tall + 0.3) + 1.4, theme)
    # Two grid columns for each map, so that the scales can be centered.
    grid = figure.add_gridspec(len(rows) + 1, 2 * columns, height_ratios=[1.0] * len(rows) + [0.07 / tall])
    for place, row in enumerate(rows):
        axes = [figure.add_subplot(grid[place, 2 * column : 2 * column + 2]) for column in range(columns)]
        _show_labeled(axes[0], row[0][0])
        for each, (explained, name) in zip(axes[1:], row, strict=True):
            _show_map(each, explained.maps[name], explained.image, signed=name in _SIGNED)
        if place == 0:
            for each, head in zip(axes, heads, strict=True):
                each.set_title(head, loc="center", fontsize=FONT_SIZE - 0.5)
    signed = ScalarMappable(Normalize(-1, 1), diverging())
    place = figure.add_subplot(grid[-1, 2 : columns + 1])
    scale_bar(figure, signed, place, ("against the class", "0", "for the class"))
    if any(name not in _SIGNED for _, name in rows[0]):
        positive = ScalarMappable(Normalize(0, 1), sequential())
        scale_bar(figure, positive, figure.add_subplot(grid[-1, columns + 2 :]), ("0", "for the class"))
    return figure


def _show_labeled(axes: Axes, row: Explained) -> None:
    show_image(axes, row.image)
    axes.set_ylabel("\n".join(drawable(line) for line in row.label.split("\n")), fontsize=SMALL)
    axes.set_xlabel("0 black to 255" if row.image.shape[-1] != 3 else "RGB", fontsize=SMALL, labelpad=2)


def _show_map(axes: Axes, values: NDArray[np.floating], image: NDArray[np.uint8], *, signed: bool) -> None:
    bare(axes)
    norm, colors = (around_zero(values), diverging()) if signed else (from_zero(values), sequential())
    axes.imshow(values, cmap=colors, norm=norm, interpolation="none")
    outline = gray(image)
    if image.shape[-1] != 3 and outline.min() < 128 < outline.max():
        axes.contour(outline, [127.5], colors=["#000000" if signed else "#ffffff"], linewidths=0.8, alpha=0.75)
    sign = "\N{PLUS-MINUS SIGN}" if signed else "0 to "
    axes.set_xlabel(f"{sign}{number(float(np.abs(values).max()))}", fontsize=SMALL, labelpad=2)


def why(subject: Subject) -> Chapter:
    """Maps of the chosen images for the predicted class, and for the true class or, if they agree, the second."""
    indices, classes, labels = [], [], []
    for index in subject.chosen:
        true = int(subject.labels[index])
        predicted, second, *_ = np.argsort(-subject.logits[index], kind="stable").tolist()
        if predicted == true:
            pair = (predicted, "predicted, true"), (second, "second")
        else:
            pair = (predicted, "predicted"), (true, "true")
        for each, word in pair:
            indices.append(index)
            classes.append(each)
            labels.append(f"{subject.name(each)}: {_percent(subject.logits[index], each)}\n{word}\n(image {index})")
    rows = _explain(subject, indices, classes, labels)
    title = "Why this class: maps for the predicted class and for the true or second one"
    picture = Picture(
        "why",
        f"Maps for {len(rows)} pairs of image and class.",
        f"Gradient and smoothed gradient of the logit (mean over {saliency.SAMPLES} noisy copies); {_method(subject)} "
        "Thin lines: outline of the image. Below each map: its range.",
        functools.partial(why_sheet, rows, title, _detail(subject)),
    )
    text = (
        "Which pixels speak for a class and which against it. In signed maps orange raises the class's logit and blue "
        "lowers it. Gradients show the effect of a small change to a pixel, occlusion the effect of covering it, and "
        "Grad-CAM the places whose features count."
    )
    return Chapter("Why this class", text, [picture])


def wrong(subject: Subject) -> Chapter:
    """The most confidently wrong test images with their maps."""
    found = most_confidently_wrong(subject.logits, subject.labels)
    total = len(found.indices)
    if not total:
        raise UserError(f"no test image is misclassified ({len(subject.labels):,} images)")
    indices, classes, labels = [], [], []
    columns = (column[:_MOST_WRONG].tolist() for column in (found.indices, found.predicted, found.true))
    for index, taken, true in zip(*columns, strict=True):
        percent = functools.partial(_percent, subject.logits[index])
        label = f"predicted {subject.name(taken)}\n({percent(taken)})\ntrue {subject.name(true)}\n({percent(true)})"
        indices += [index, index]
        classes += [taken, true]
        labels += [label, label]
    rows = _explain(subject, indices, classes, labels)
    count = len(rows) // 2
    title = f"The {count} most confidently wrong of {total:,} misclassified test images"
    if count == 1:
        title = "The most confidently wrong test image"
    picture = Picture(
        "wrong",
        "; ".join(label.replace("\n", " ") for label in labels[::2]),
        f"For the predicted class (left) and the true class (right): {_method(subject, 1)} Below each map: its range.",
        functools.partial(wrong_sheet, list(zip(rows[::2], rows[1::2], strict=True)), title, _detail(subject)),
    )
    return Chapter("Confidently wrong", "What the network saw in the images it was surest and wrong about.", [picture])


def _explain(
    subject: Subject, indices: Sequence[int], classes: Sequence[int], labels: Sequence[str]
) -> list[Explained]:
    """All maps for pairs of image and class."""
    layers, params = subject.layers, subject.params
    images, wanted = subject.images[list(indices)], np.asarray(classes)
    falls = {index: _occlusion(subject, index) for index in dict.fromkeys(indices)}
    maps: dict[str, Any] = {
        "gradient": saliency.gradients(layers, params, images, wanted).sum(-1),
        "smooth": saliency.smooth_gradients(layers, params, images, wanted, jax.random.key(0)).sum(-1),
        "occlusion": [falls[index][..., each] for index, each in zip(indices, classes, strict=True)],
    }
    for layer in _cam_layers(subject):
        centers = saliency.centers(layers, layer.name)
        coarse = saliency.grad_cam(layers, params, images, wanted, layer.name)
        maps[layer.name] = [saliency.place(each, centers, images.shape[1:3]) for each in coarse]
    return [
        Explained(image, label, {name: values[place] for name, values in maps.items()})
        for place, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _cam_layers(subject: Subject) -> list[Layer]:
    """The layer asked for, or the last convolution, and the one before it too if the last has few positions."""
    if subject.layer:
        return [activations.layer_named(subject.layers, subject.layer)]
    weighted = list(activations.filter_layers(subject.layers))
    few = bool(weighted) and min(weighted[-1].output_shape[:2]) < _FEW_POSITIONS
    return weighted[-2:] if few else weighted[-1:]


def _square(shape: Sequence[int]) -> tuple[int, int]:
    """Side and stride, in pixels, of the square that covers an image."""
    least = min(shape[:2])
    return max(1, round(least / 5.6)), max(1, round(least / _OCCLUSIONS))


def _occlusion(subject: Subject, index: int) -> NDArray[np.floating]:
    """The fall of each logit at every pixel, `[height, width, classes]`: linear between the squares' centers."""
    image = subject.images[index]
    window, stride = _square(image.shape)
    falls = saliency.occlusion(subject.layers, subject.params, image, window=window, stride=stride)
    rows, columns = (np.arange(size) * stride + (window - 1) / 2 for size in falls.shape[:2])
    return np.stack([saliency.place(each, (rows, columns), image.shape) for each in np.moveaxis(falls, -1, 0)], -1)


def _method(subject: Subject, most: int = 2) -> str:
    window, _ = _square(subject.images.shape[1:])
    layers = [f"{layer.name} ({shape_text(layer.output_shape[:2])} positions)" for layer in _cam_layers(subject)[:most]]
    cam = f" Grad-CAM at {' and '.join(layers)}, each position at the center of its receptive field." * bool(layers)
    return f"occlusion by black squares of {window}{TIMES}{window} pixels.{cam}"


def _detail(subject: Subject) -> str:
    return f"{subject.config.dataset}, seed {subject.config.seed}, after epoch {subject.epoch:g}"


def _percent(scores: NDArray[np.floating], index: int) -> str:
    wide = scores.astype(np.float64)
    share = 100 * np.exp(wide[index] - wide.max()) / np.exp(wide - wide.max()).sum()
    return ">99.99 %" if share > 99.99 else "<0.01 %" if share < 0.01 else f"{share:.2f} %"
