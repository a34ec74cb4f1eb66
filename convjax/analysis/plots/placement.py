"""Where labels go on a chart so that they cover neither each other nor the data. Plain geometry in pixels."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""

_DISTANCES = (7.0, 14.0, 24.0, 36.0, 50.0, 66.0)
_DIRECTIONS = tuple((math.cos(angle), math.sin(angle)) for angle in np.arange(16) * math.pi / 8)
_PASSES = 4
_OUTSIDE = 1e9


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    obstacles: Sequence[Box] = (),
) -> list[tuple[float, float]]:
    """Centres of the labels' boxes.

    Every label takes the best of the places around its anchor, given the others', a few times over. It is a local
    search: in a crowd overlaps may remain, but no label leaves the bounds while it fits into them.

    Args:
      anchors: the points that the labels belong to; they are obstacles themselves.
      sizes: width and height of each label.
      bounds: where labels may be.
      obstacles: boxes to keep clear where possible.
    """
    if not anchors:
        return []
    fixed = np.array([*obstacles, *((x - 4, y - 4, x + 4, y + 4) for x, y in anchors)], dtype=float)
    candidates = [_candidates(anchor, size) for anchor, size in zip(anchors, sizes, strict=True)]
    costs = []
    for boxes in candidates:
        outside = _area(boxes) - _overlap(boxes, np.array([bounds], dtype=float)).sum(axis=1)
        covered = _overlap(boxes, fixed).sum(axis=1)
        # Nearer is better, and straight right or left reads best; but only among places that cover as little.
        preference = np.arange(len(boxes)) * 0.02
        # However little of a label is outside, no gain elsewhere makes up for it.
        costs.append(np.where(outside > 1e-6, _OUTSIDE, 0.0) + 100 * outside + 4 * covered + preference)
    chosen: list[int | None] = [None] * len(anchors)
    for _ in range(_PASSES):
        for index, boxes in enumerate(candidates):
            others = [candidates[k][at] for k, at in enumerate(chosen) if at is not None and k != index]
            crowding = 10 * _overlap(boxes, np.array(others)).sum(axis=1) if others else 0.0
            chosen[index] = int(np.argmin(costs[index] + crowding))
    placed = [boxes[at] for boxes, at in zip(candidates, chosen, strict=True)]
    return [(float(left + right) / 2, float(bottom + top) / 2) for left, bottom, right, top in placed]


def _candidates(anchor: tuple[float, float], size: tuple[float, float]) -> NDArray[np.float64]:
    """Boxes of the label around its anchor, nearest first, `[places, 4]`."""
    (x, y), (width, height) = anchor, size
    boxes = []
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            # The box touches the circle from outside, so a wide label stands clear above as well as beside.
            centre_x = x + right * distance + width / 2 * _side(right)
            centre_y = y + up * distance + height / 2 * _side(up)
            boxes.append((centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2))
    return np.array(boxes)


def _side(direction: float) -> float:
    return 0.0 if abs(direction) < 0.2 else math.copysign(1.0, direction) if abs(direction) > 0.5 else direction * 2


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlap(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Common area of every pair, `[boxes, others]`."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0.0, None).prod(axis=2)
