"""Convolution, and stacks of blocks convolution -> bias -> activation -> pooling.

"Convolution" means what it means in every deep-learning library: cross-correlation, the kernel is not flipped.

A convolution is computed in one of three ways, which agree up to float32 rounding:

- `xla`: XLA's own convolution. `auto` takes it on GPU and TPU. On CPU it is 5 to 20 times slower inside a loop.
- `patches`: one matrix product with the matrix of all receptive fields, see `convjax.nn.fast.winograd`.
- `winograd`: Winograd's minimal filtering along the width, with about half the multiplications, see there. Layers
  where it saves nothing (kernels one column wide) or rounds too coarsely (bfloat16) take `patches`.
- `auto`, on CPU: the cheaper of the last two for each layer, by the rule in `tiling`.

With `patches` and `winograd` a stack works on `[channels, height, width, batch]` from its first block to its last:
with the batch innermost, slices of rows and columns consist of long contiguous runs. Rows and columns are axes 1 and 2
both there and in `[batch, height, width, channels]`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convjax.nn.activations import ACTIVATIONS, MONOTONE
from convjax.nn.fast import winograd
from convjax.nn.geometry import output_shape, pad_amounts
from convjax.nn.pool import POOLINGS
from convjax.notation import Window

_MOVE = 16
"""What moving one entry of a matrix costs, in multiply-adds (measured; see `tiling`)."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One convolution with what follows it: activation(convolution + bias), pooled.

    Attributes:
      strides, padding: of the convolution.
      activation: a name in `convjax.nn.activations.ACTIVATIONS`.
      pool: `max`, `avg` or `none`, with its `pool_size` and `pool_strides`.
    """

    strides: Window = (1, 1)
    padding: str = "valid"
    activation: str = "linear"
    pool: str = "none"
    pool_size: Window = (1, 1)
    pool_strides: Window = (1, 1)


def conv_stack(
    x: Float[Array, "batch height width in_channels"],
    blocks: Sequence[Block],
    parameters: Sequence[tuple[jax.Array, jax.Array]],
    *,
    method: str = "auto",
) -> Float[Array, "batch out_height out_width out_channels"]:
    """The blocks one after the other.

    Args:
      x: images or a feature map.
      blocks: at least one.
      parameters: `(kernel, bias)` of each block, of shapes `[kernel_height, kernel_width, in_channels, out_channels]`
        and `[out_channels]`.
      method: `auto`, `xla`, `patches` or `winograd`, see the module.
    """
    if method == "auto" and jax.default_backend() != "cpu":
        method = "xla"
    if method == "xla":
        return _in_turn(x, blocks, parameters, method)
    chunk = chunk_size(x.shape[0])
    if chunk < x.shape[0]:
        chunks = x.reshape(-1, chunk, *x.shape[1:])
        y = lax.map(lambda images: conv_stack(images, blocks, parameters, method=method), chunks)
        return y.reshape(-1, *y.shape[2:])
    y = conv_stack_batch_last(jnp.transpose(x, (3, 1, 2, 0)), blocks, parameters, method=method)
    return jnp.transpose(y, (3, 1, 2, 0))


def conv_stack_batch_last(
    x: Float[Array, "in_channels height width batch"],
    blocks: Sequence[Block],
    parameters: Sequence[tuple[jax.Array, jax.Array]],
    *,
    method: str = "auto",
) -> Float[Array, "out_channels out_height out_width batch"]:
    """`conv_stack` in the layout that it works in on a CPU, without its chunks; `method` is not `xla`."""
    return _in_turn(x, blocks, parameters, method)


def _in_turn(
    x: jax.Array, blocks: Sequence[Block], parameters: Sequence[tuple[jax.Array, jax.Array]], method: str
) -> jax.Array:
    """The blocks, on and in the layout of `method`."""
    windows = [(kernel.shape[0], kernel.shape[1]) for kernel, _ in parameters]
    extents = _extents((x.shape[1], x.shape[2]), blocks, windows)
    for block, (kernel, bias), extent in zip(blocks, parameters, extents, strict=True):
        x = _block(x, kernel, bias, block, extent, method)
    return x


def conv2d(
    x: Float[Array, "batch height width in_channels"],
    kernel: Float[Array, "kernel_height kernel_width in_channels out_channels"],
    strides: Window = (1, 1),
    padding: str = "valid",
    *,
    method: str = "auto",
) -> Float[Array, "batch out_height out_width out_channels"]:
    """Convolution of `x` with `kernel`."""
    bias = jnp.zeros(kernel.shape[3], kernel.dtype)
    return conv_stack(x, (Block(strides, padding),), ((kernel, bias),), method=method)


def chunk_size(batch: int) -> int:
    """Images to work on together on a CPU: the intermediate arrays of 64 stay in the caches, those of more do not."""
    fitting = [size for size in range(32, 65) if batch % size == 0]
    return max(fitting) if batch > 128 and fitting else batch


@dataclasses.dataclass(frozen=True)
class _Extent:
    """The rows and columns that one convolution computes.

    Attributes:
      before: zeros above and to the left of its input.
      size: (rows, columns) of its output, counted from the first.
    """

    before: Window
    size: Window


def _extents(image: Window, blocks: Sequence[Block], windows: Sequence[Window]) -> list[_Extent]:
    """The part of its output that each convolution computes: what the pooling after it and the next block read.

    In the chapter's network the second pooling covers 10x10 of 11x11 outputs. So the second convolution reads 12x12 of
    its 13x13 inputs, and the first computes 24x24 of 26x26.
    """
    befores, outputs = [], []
    for block, window in zip(blocks, windows, strict=True):
        (top, _), (left, _) = pad_amounts(image, window, block.strides, block.padding)
        befores.append((top, left))
        image = output_shape(image, window, block.strides, block.padding)
        if block.pool != "none":
            image = output_shape(image, block.pool_size, block.pool_strides, "valid")
        outputs.append(image)

    extents: list[_Extent] = []
    read = outputs[-1]
    for block, window, before, output in reversed(list(zip(blocks, windows, befores, outputs, strict=True))):
        output = min(output[0], read[0]), min(output[1], read[1])
        size = output if block.pool == "none" else _span(output, block.pool_strides, block.pool_size)
        extents.append(_Extent(before, size))
        covered = _span(size, block.strides, window)
        read = covered[0] - before[0], covered[1] - before[1]
    return extents[::-1]


def _span(steps: Window, strides: Window, window: Window) -> Window:
    """Rows and columns that a window covers in `steps` steps."""
    return (steps[0] - 1) * strides[0] + window[0], (steps[1] - 1) * strides[1] + window[1]


def _block(x: jax.Array, kernel: jax.Array, bias: jax.Array, block: Block, extent: _Extent, method: str) -> jax.Array:
    """One block; `x` is `[batch, height, width, channels]` for `xla`, `[channels, height, width, batch]` otherwise.

    Max-pooling commutes with adding a channel's bias and with a monotone activation, so it comes first there:
    relu(maxpool(z) + b) = maxpool(relu(z + b)), for a fraction of the elementwise work.
    """
    z = _convolve(x, kernel, block, extent, method)
    bias = bias[None, None, None] if method == "xla" else bias[:, None, None, None]
    activate = ACTIVATIONS[block.activation]
    if block.pool == "none":
        return activate(z + bias)
    pool = POOLINGS[block.pool]
    if block.pool == "max" and block.activation in MONOTONE:
        return activate(pool(z, block.pool_size, block.pool_strides) + bias)
    return pool(activate(z + bias), block.pool_size, block.pool_strides)


def _convolve(x: jax.Array, kernel: jax.Array, block: Block, extent: _Extent, method: str) -> jax.Array:
    window, image = (kernel.shape[0], kernel.shape[1]), (x.shape[1], x.shape[2])
    if method == "xla":
        covered = _span(extent.size, block.strides, window)
        # Negative where the last rows or columns are not read.
        padding = [(low, c - low - n) for low, c, n in zip(extent.before, covered, image, strict=True)]
        return lax.conv_general_dilated(x, kernel, block.strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    tile, groups = 1, 1
    if method != "patches" and x.dtype != jnp.bfloat16:
        tile, groups = tiling(kernel.shape, block.strides[1], extent.size[1], pinned=method == "winograd")
    plan = winograd.Plan(image, window, block.strides, extent.before, extent.size, tile, groups)
    return winograd.convolve(x, kernel, plan)


def tiling(kernel_shape: Sequence[int], stride: int, columns: int, *, pinned: bool = False) -> tuple[int, int]:
    """The cheapest `(tile, groups)` for `winograd.Plan`; `(1, 1)` means `patches`, which `pinned` leaves out.

    The cost of one output row of one image is counted in multiply-adds: those of the matrix products, and
    `_MOVE` for every entry of the matrices that elementwise passes write and read: receptive fields once for
    `patches`, both sides of the products at about twice the price for Winograd. What it picks for every window,
    padding and stride stands in experiments/results/conv_grid.md, beside the times measured.

    Args:
      kernel_shape: `(kernel_height, kernel_width, in_channels, out_channels)`.
      stride: along the width.
      columns: of the output.
    """
    height, width, channels, filters = kernel_shape

    def taps(groups: int) -> int:
        return -(-width // (groups * stride))

    def cost(tile: int, groups: int) -> float:
        if tile == 1:
            depth = height * width * channels
            return columns * (depth * filters + _MOVE * depth)
        products = -(-columns // tile) * (tile - 1 + taps(groups))
        depth = height * groups * stride * channels
        return products * (depth * filters + 2 * _MOVE * (depth + filters))

    choices = [
        (tile, groups)
        for groups in (1, 2)
        for tile in range(2, winograd.MOST_PRODUCTS + 2 - taps(groups))
        if taps(groups) > 1
    ]
    if not pinned or not choices:
        choices.insert(0, (1, 1))
    return min(choices, key=lambda choice: cost(*choice))
