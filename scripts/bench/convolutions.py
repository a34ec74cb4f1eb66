"""The contenders of `scripts/bench.py --conv_grid`: a convolution and its gradients to image and kernel.

Each has `prepare(cell)` and `iterate(count)`. PyTorch is optional, so it is imported where it is used.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax


class Cell(NamedTuple):
    """A convolution: from `channels` of a square image of `size` to `filters`."""

    batch: int
    kernel_size: int
    padding: str
    stride: int
    size: int
    channels: int
    filters: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Images `[2, batch, size, size, channels]` to alternate, and a kernel with weights as large as a network's."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((2, self.batch, self.size, self.size, self.channels), np.float32)
        window = (self.kernel_size, self.kernel_size, self.channels, self.filters)
        return images, rng.standard_normal(window, np.float32) / np.float32(np.sqrt(np.prod(window[:3])))


class Xla:
    """XLA's convolution as users call it: one jitted step at a time (in a loop on a CPU it is five times slower)."""

    compile_seconds = 0.0

    def prepare(self, cell: Cell) -> None:
        images, kernel = cell.arrays()
        strides, numbers = (cell.stride, cell.stride), ("NHWC", "HWIO", "NHWC")
        convolve = functools.partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding=cell.padding.upper(),
            dimension_numbers=numbers,
        )

        @functools.partial(jax.jit, donate_argnums=1)
        def step(x: Any, kernel: Any) -> Any:
            y, pull_back = jax.vjp(convolve, x, kernel)
            image_gradient, kernel_gradient = pull_back(y)
            return kernel - 1e-9 * kernel_gradient, image_gradient

        self.images, self.kernel, self.step = jax.device_put(list(images)), jax.device_put(kernel), step

    def iterate(self, count: int) -> None:
        for number in range(count):
            self.kernel, self.image_gradient = self.step(self.images[number % 2], self.kernel)
        jax.block_until_ready((self.kernel, self.image_gradient))


class Torch:
    """PyTorch's convolution and its gradients to image and kernel."""

    compile_seconds = 0.0

    def __init__(self, channels_last: bool = False):
        import torch

        self.torch = torch
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(self, cell: Cell) -> None:
        torch = self.torch
        images, kernel = cell.arrays()
        self.images = [
            torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
            .contiguous(memory_format=self.format)
            .requires_grad_()
            for image in images
        ]
        # PyTorch refuses padding="same" with a stride and pads both sides alike; Keras and XLA pad first.
        total = max(0, (-(-cell.size // cell.stride) - 1) * cell.stride + cell.kernel_size - cell.size)
        self.pad = (total // 2, total - total // 2) * 2 if cell.padding == "same" else (0, 0, 0, 0)
        self.kernel = (
            torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            .contiguous(memory_format=self.format)
            .requires_grad_()
        )
        self.stride = cell.stride

    def iterate(self, count: int) -> None:
        functional = self.torch.nn.functional
        even = self.pad[0] == self.pad[1]
        for number in range(count):
            x = self.images[number % 2]
            x.grad = self.kernel.grad = None
            image = x if even else functional.pad(x, self.pad)
            y = functional.conv2d(image, self.kernel, stride=self.stride, padding=self.pad[0] if even else 0)
            y.backward(y.detach())
