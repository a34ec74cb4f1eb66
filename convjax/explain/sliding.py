"""A window that slides over an image, step by step (figures 5.4 to 5.7 of the chapter), in NumPy alone."""

import dataclasses

import numpy as np
from jaxtyping import Float

from convjax.nn.geometry import output_shape, pad_amounts
from convjax.notation import Window


@dataclasses.dataclass(frozen=True)
class Sliding:
    """A window that slides over one channel of an image.

    Attributes:
      padded: the image with its zero padding, `[height, width]`.
      before: rows of padding above the image and columns of padding to its left.
      size: height and width of the image without padding.
      window, strides: (vertical, horizontal).
      kernel: as large as the window: a step sums the products of patch and kernel. None: a step takes the maximum.
      output: the value of every step, `[rows, columns]`.
    """

    padded: Float[np.ndarray, "height width"]
    before: Window
    size: Window
    window: Window
    strides: Window
    kernel: Float[np.ndarray, "kernel_height kernel_width"] | None
    output: Float[np.ndarray, "rows columns"]

    @property
    def steps(self) -> list[Window]:
        """Every (row, column) of the output, row by row."""
        return [(row, column) for row, column in np.ndindex(*self.output.shape)]

    def corner(self, step: Window) -> Window:
        """Row and column, in `padded`, of the window's upper left corner at a step."""
        return step[0] * self.strides[0], step[1] * self.strides[1]

    def patch(self, step: Window) -> Float[np.ndarray, "window_height window_width"]:
        """The pixels under the window at a step."""
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
    return _slide(image, window, strides, padding, np.asarray(kernel, np.float64))


def slide_maximum(image: Float[np.ndarray, "height width"], window: Window = (2, 2)) -> Sliding:
    """Max pooling of one channel, without padding or overlap."""
    return _slide(image, window, window, "valid", None)


def _slide(image: np.ndarray, window: Window, strides: Window, padding: str, kernel: np.ndarray | None) -> Sliding:
    size = (image.shape[0], image.shape[1])
    pads = pad_amounts(size, window, strides, padding)
    padded = np.pad(np.asarray(image, np.float64), pads)
    output = np.zeros(output_shape(size, window, strides, padding))
    sliding = Sliding(padded, (pads[0][0], pads[1][0]), size, window, strides, kernel, output)
    for step in sliding.steps:
        patch = sliding.patch(step)
        output[step] = patch.max() if kernel is None else np.sum(patch * kernel)
    return sliding
