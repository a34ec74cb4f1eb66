"""What shifting the input does to a trained network: its accuracy, and the equivariance of its feature maps.

A map F of images is equivariant to shifts where F(shifted x) is F(x), shifted (by as many positions as the shift has
pixels, divided by the distance of neighbouring positions). Convolutions with stride 1 are, by construction, away from
the borders; strides and pooling keep it for shifts by multiples of their stride only (Zhang 2019, Making
convolutional networks shift-invariant again).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from convjax.nn.geometry import Layer, pad_amounts
from convjax.nn.layerwise import layer_outputs
from convjax.sweeps.measurements import Trained
from convjax.training.steps import predict, scale_images

LARGEST_SHIFT = 8
SHIFTED_IMAGES = 200
EQUIVARIANCE_SHIFTS = (1, 2, 4)
EQUIVARIANCE_IMAGES = 200


def shift(images: UInt8[np.ndarray, "n height width channels"], down: int, right: int) -> np.ndarray:
    """The images moved by whole pixels; black comes in, and what leaves is lost."""
    height, width = images.shape[1:3]
    moved = np.zeros_like(images)
    to_rows, from_rows = _moved(height, down)
    to_columns, from_columns = _moved(width, right)
    moved[:, to_rows, to_columns] = images[:, from_rows, from_columns]
    return moved


def _moved(size: int, by: int) -> tuple[slice, slice]:
    """Where an axis's entries go, and where they come from."""
    kept = max(0, size - abs(by))
    return (slice(by, by + kept), slice(0, kept)) if by >= 0 else (slice(0, kept), slice(-by, -by + kept))


def spread(count: int, wanted: int) -> np.ndarray:
    """Positions of `wanted` of `count` examples (all, if there are fewer) at equal distances."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(int)


def shifted_accuracy(trained: Trained) -> dict[str, Any]:
    """Accuracy on test images shifted by -8 to +8 pixels along both axes, and how much of them is still in the image.

    Returns `{"offsets": [...], "images": n, "accuracy": [down][right], "ink": [down][right]}`; `ink` is the share of
    all grey levels that a shift leaves inside.
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


def equivariance(trained: Trained) -> dict[str, Any]:
    """Equivariance error of every feature map, for shifts down and to the right by 1, 2 and 4 pixels.

    The error is |F(shifted x) - shifted F(x)| / |F(shifted x)|, root sums of squares over test images, positions and
    channels. Where a shift is no whole number of positions, F(x) is shifted by linear interpolation. `inside` counts
    only positions whose receptive fields before and after the shift touch no padding; `all` counts all that have a
    counterpart. A map without any such position has no number (None).

    Returns `{"layers": [name, ...], "jumps": [pixels between positions, ...], "shifts": [...], "inside":
    [layer][shift], "all": [layer][shift], "changed": [share of predictions that change, by shift]}`.
    """
    test = trained.dataset.test
    images = test.images[spread(len(test.labels), EQUIVARIANCE_IMAGES)]
    network = trained.task.layers
    maps = [index for index, layer in enumerate(network) if layer.receptive_field is not None]
    run = jax.jit(lambda images: layer_outputs(network, trained.params, scale_images(images)))
    still, logits = run(images), network[-1].name
    inside: list[list[float | None]] = [[] for _ in maps]
    everywhere: list[list[float | None]] = [[] for _ in maps]
    changed = []
    for pixels in EQUIVARIANCE_SHIFTS:
        moved = [run(shift(images, *by)) for by in ((pixels, 0), (0, pixels))]
        changed.append(float(np.mean([one[logits].argmax(-1) != still[logits].argmax(-1) for one in moved])))
        for place, index in enumerate(maps):
            layer = network[index]
            outputs = [np.asarray(still[layer.name]), *(np.asarray(one[layer.name]) for one in moved)]
            full = tuple(slice(0, size) for size in layer.output_shape[:2])
            jump = layer.receptive_field.jump
            everywhere[place].append(equivariance_error(*outputs, pixels=pixels, jump=jump, within=full))
            clean = interior(network[: index + 1])
            inside[place].append(equivariance_error(*outputs, pixels=pixels, jump=jump, within=clean))
    return {
        "layers": [network[index].name for index in maps],
        "jumps": [network[index].receptive_field.jump[0] for index in maps],
        "shifts": list(EQUIVARIANCE_SHIFTS),
        "inside": inside,
        "all": everywhere,
        "changed": changed,
    }


def interior(layers: Sequence[Layer]) -> tuple[slice, slice]:
    """Rows and columns of the last layer's feature map whose receptive field lies wholly in the image.

    No window on the way from there to the image touches padding, or it would reach out of the image.
    """
    spans = []
    for axis in range(2):
        start, jump = 0, 1  # of the receptive field of position 0, and from one position to the next
        for layer in layers:
            pads = pad_amounts(layer.input_shape[:2], layer.window, layer.strides, layer.padding)
            start -= pads[axis][0] * jump
            jump *= layer.strides[axis]
        last = layers[-1]
        size = last.receptive_field.size[axis]  # type: ignore[union-attr]
        first = max(0, -(start // jump))
        stop = min(last.output_shape[axis], (layers[0].input_shape[axis] - size - start) // jump + 1)
        spans.append(slice(first, max(first, stop)))
    return spans[0], spans[1]


def equivariance_error(
    still: np.ndarray,
    moved_down: np.ndarray,
    moved_right: np.ndarray,
    *,
    pixels: int,
    jump: tuple[int, int],
    within: tuple[slice, slice],
) -> float | None:
    """The error of a feature map, see `equivariance`, over both directions; None where no position is left.

    Args:
      still, moved_down, moved_right: its values `[n, height, width, channels]` for images and for the same moved.
      pixels: how far they were moved.
      jump: pixels between neighbouring rows and columns of the map.
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

        def taken(back: int, axis: int = axis, first: int = first, count: int = count) -> np.ndarray:
            return inner.take(range(first - back, first - back + count), axis)

        expected = (1 - fraction) * taken(whole)
        if part:
            expected += fraction * taken(whole + 1)
        found = moved[:, within[0], within[1]].astype(np.float64).take(range(first, first + count), axis)
        differences += float(np.sum((found - expected) ** 2))
        squares += float(np.sum(found**2))
    return float(np.sqrt(differences / squares)) if squares else None
