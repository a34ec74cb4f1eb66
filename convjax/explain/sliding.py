"""How a convolution works: the sliding window, step by step (figures 5.4 to 5.7 of the chapter). NumPy alone."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from convjax.nn.geometry import output_shape, pad_amounts
from convjax.notation import Window


@dataclasses.dataclass(frozen=True)
class Sliding:
    """A window over one channel of an image.

    Attributes:
      operation: `dot`, the products of patch and kernel summed, or `max`.
      padded: the image with its zeros around, `[height, width]`.
      before: rows of zeros above it and columns to its left.
      size: of the image without them.
      window, strides: (vertical, horizontal).
      kernel: `[height, width]`, None for `max`.
      output: what the steps give, `[rows, columns]`.
    """

    operation: Literal["dot", "max"]
    padded: Float[np.ndarray, "height width"]
    before: Window
    size: Window
    window: Window
    strides: Window
    kernel: Float[np.ndarray, "height width"] | None
    output: Float[np.ndarray, "rows columns"]

    @property
    def steps(self) -> list[Window]:
        """Every (row, column) of the output, in the order of reading."""
        return [(row, column) for row, column in np.ndindex(*self.output.shape)]

    def corner(self, step: Window) -> Window:
        """Row and column, in `padded`, of the window's upper left corner at a step."""
        return step[0] * self.strides[0], step[1] * self.strides[1]

    def patch(self, step: Window) -> Float[np.ndarray, "height width"]:
        """What the window sees at a step."""
        row, column = self.corner(step)
        return self.padded[row : row + self.window[0], column : column + self.window[1]]


def slide_kernel(
    image: Float[np.ndarray, "height width"],
    kernel: Float[np.ndarray, "kernel_height kernel_width"],
    strides: Window = (1, 1),
    padding: str = "valid",
) -> Sliding:
    """A convolution of one channel with one filter, without bias and activation."""
    window = (kernel.shape[0], kernel.shape[1])
    return _slide(image, window, strides, padding, kernel)


def slide_maximum(
    image: Float[np.ndarray, "height width"], window: Window = (2, 2), strides: Window | None = None
) -> Sliding:
    """Max-pooling of one channel, without padding."""
    return _slide(image, window, strides or window, "valid", None)


def _slide(image: np.ndarray, window: Window, strides: Window, padding: str, kernel: np.ndarray | None) -> Sliding:
    size = (image.shape[0], image.shape[1])
    pads = pad_amounts(size, window, strides, padding)
    sliding = Sliding(
        operation="max" if kernel is None else "dot",
        padded=np.pad(np.asarray(image, np.float64), pads),
        before=(pads[0][0], pads[1][0]),
        size=size,
        window=window,
        strides=strides,
        kernel=None if kernel is None else np.asarray(kernel, np.float64),
        output=np.zeros(output_shape(size, window, strides, padding)),
    )
    for step in sliding.steps:
        patch = sliding.patch(step)
        sliding.output[step] = patch.max() if kernel is None else float(np.sum(patch * sliding.kernel))
    return sliding
