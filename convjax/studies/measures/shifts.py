"""What shifted images do to a trained network: its accuracy, and the equivariance of its feature maps.

A feature map F is equivariant to shifts if F(shifted x) equals shifted F(x). A shift by p pixels moves the map by
p / jump positions, where jump is the number of pixels between neighboring positions. Away from the borders,
convolutions with stride 1 are equivariant by construction; strides and pooling are only for shifts by multiples of
their stride (Zhang 2019, Making convolutional networks shift-invariant again).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from convjax.nn.geometry import Layer, input_span
from convjax.nn.layerwise import layer_outputs
from convjax.sweeps.measurements import Trained
from convjax.training.evaluation import predict
from convjax.training.steps import scale_images

LARGEST_SHIFT = 8
SHIFTED_IMAGES = 200
EQUIVARIANCE_SHIFTS = (1, 2, 4)
EQUIVARIANCE_IMAGES = 200


def shift(images: UInt8[np.ndarray, "n height width channels"], down: int, right: int) -> np.ndarray:
    """The images moved by whole pixels. Black moves in; what moves out is lost."""
    height, width = images.shape[1:3]
    moved = np.zeros_like(images)
    to_rows, from_rows = _moved(height, down)
    to_columns, from_columns = _moved(width, right)
    moved[:, to_rows, to_columns] = images[:, from_rows, from_columns]
    return moved


def _moved(size: int, by: int) -> tuple[slice, slice]:
    """Slices of an axis: where its entries go, and where they come from."""
    kept = max(0, size - abs(by))
    return (slice(by, by + kept), slice(0, kept)) if by >= 0 else (slice(0, kept), slice(-by, -by + kept))


def spread(count: int, wanted: int) -> np.ndarray:
    """Indices of `wanted` of `count` examples (all, if there are fewer), evenly spaced."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(int)


def measure_shifts(trained: Trained) -> dict[str, Any]:
    """Accuracy on test images shifted by -8 to +8 pixels along both axes.

    Returns `{"offsets": [...], "images": n, "accuracy": [down][right], "ink": [down][right]}`; `ink` is the share of
    the summed gray levels that a shift leaves in the image.
    """
    test = trained.dataset.test
    chosen = spread(len(test.labels), SHIFTED_IMAGES)
    images, labels = test.images[chosen], test.labels[chosen]
    offsets = list(range(-LARGEST_SHIFT, LARGEST_SHIFT + 1))
    total = float(images.sum(dtype=np.int64))
    accuracy, ink = [], []
    for down in offsets:
        row = [shift(images, down, right) for right in offsets]
        logits = [np.asarray(predict(trained.params, moved, task=trained.task)) for moved in row]
        accuracy.append([float(np.mean(one.argmax(-1) == labels)) for one in logits])
        ink.append([float(moved.sum(dtype=np.int64)) / total for moved in row])
    return {"offsets": offsets, "images": len(labels), "accuracy": accuracy, "ink": ink}


def measure_equivariance(trained: Trained) -> dict[str, Any]:
    """Equivariance error of every feature map, for shifts down and to the right by 1, 2 and 4 pixels.

    The error is |F(shifted x) - shifted F(x)| / |F(shifted x)|, norms over test images, positions and channels. F(x) is
    shifted by linear interpolation if the shift is not a whole number of positions. `inside` counts only positions
    whose receptive fields touch no padding before and after the shift; `all` counts every position that has a
    counterpart. A map without such a position has None.

    Returns `{"layers": [name, ...], "shifts": [...], "inside": [layer][shift], "all": [layer][shift]}`.
    """
    test, network = trained.dataset.test, trained.task.layers
    images = test.images[spread(len(test.labels), EQUIVARIANCE_IMAGES)]
    run = jax.jit(lambda images: layer_outputs(network, trained.params, scale_images(images)))
    runs = {
        pixels: [run(shift(images, *by)) for by in ((0, 0), (pixels, 0), (0, pixels))] for pixels in EQUIVARIANCE_SHIFTS
    }
    found: dict[str, list[Any]] = {"layers": [], "inside": [], "all": []}
    for depth, layer in enumerate(network, start=1):
        if layer.receptive_field is not None:
            found["layers"].append(layer.name)
            everywhere = (slice(0, layer.output_shape[0]), slice(0, layer.output_shape[1]))
            for name, within in (("inside", interior(network[:depth])), ("all", everywhere)):
                errors = []
                for pixels, outputs in runs.items():
                    still, down, right = (np.asarray(output[layer.name]) for output in outputs)
                    errors.append(equivariance_error(still, down, right, pixels, layer.receptive_field.jump, within))
                found[name].append(errors)
    return {**found, "shifts": list(EQUIVARIANCE_SHIFTS)}


def interior(layers: Sequence[Layer]) -> tuple[slice, slice]:
    """Rows and columns of the last layer's feature map whose receptive field touches no padding on any layer.

    Padding on the way would cut the receptive field off.
    """
    shape, field = layers[-1].output_shape, layers[-1].receptive_field
    assert field is not None
    spans = []
    for axis in range(2):
        seen = [input_span(layers, (place, place))[axis] for place in range(shape[axis])]
        inside = [place for place, span in enumerate(seen) if span.stop - span.start == field.size[axis]]
        spans.append(slice(inside[0], inside[-1] + 1) if inside else slice(0, 0))
    return spans[0], spans[1]


def equivariance_error(
    still: np.ndarray,
    moved_down: np.ndarray,
    moved_right: np.ndarray,
    pixels: int,
    jump: tuple[int, int],
    within: tuple[slice, slice],
) -> float | None:
    """The error of a feature map over both directions, see `measure_equivariance`; None if no position is left.

    Args:
      still, moved_down, moved_right: its values `[n, height, width, channels]` for the images and the moved images.
      pixels: how far the images were moved.
      jump: pixels between neighboring rows and columns of the map.
      within: rows and columns that count, before and after the shift.
    """
    differences, squares = 0.0, 0.0
    inner = still[:, within[0], within[1]].astype(np.float64)
    for axis, moved in enumerate((moved_down, moved_right), start=1):
        whole, part = divmod(pixels, jump[axis - 1])
        fraction = part / jump[axis - 1]
        first = whole + (part > 0)
        count = inner.shape[axis] - first
        if count <= 0:
            continue
        places = np.arange(first, first + count)
        expected = (1 - fraction) * inner.take(places - whole, axis)
        if part:
            expected += fraction * inner.take(places - whole - 1, axis)
        found = moved[:, within[0], within[1]].astype(np.float64).take(places, axis)
        differences += float(np.sum((found - expected) ** 2))
        squares += float(np.sum(found**2))
    return float(np.sqrt(differences / squares)) if squares else None
