"""The convolution everything uses, and the stack of blocks convolution -> bias -> activation -> pooling.

"Convolution" is what every deep-learning library calls so: cross-correlation, the kernel is not flipped.

A convolution is computed in one of three ways, which agree to float32's rounding:

- `xla`: XLA's own. The choice of `auto` on GPU and TPU. On CPU it is five to twenty times slower inside a loop.
- `patches`: one matrix product with the matrix of all receptive fields, see `convjax.nn.winograd`.
- `winograd`: Winograd's minimal filtering along the width, around half as many multiplications, see there. Layers
  where it saves nothing (kernels one column wide) or is too coarse (bfloat16) take `patches`.
- `auto`, on CPU: for each layer the cheaper of the last two by the rule in `_tile_width`.

Outside `xla`, a stack works on `[channels, height, width, batch]` from its first block to its last: with the batch
innermost all slices of rows and columns are made of long contiguous runs. Rows and columns are axes 1 and 2 in this
order and in `[batch, height, width, channels]` alike.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convjax.config import Window
from convjax.nn import winograd
from convjax.nn.activations import ACTIVATIONS, MONOTONE
from convjax.nn.geometry import output_shape, pad_amounts
from convjax.nn.pool import POOLINGS


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
    between: Callable[[int, jax.Array], jax.Array] | None = None,
) -> Float[Array, "batch out_height out_width out_channels"]:
    """The blocks one after the other.

    Args:
      x: images.
      blocks: at least one.
      parameters: of each block `(kernel, bias)`, of shapes `[kernel_height, kernel_width, in_channels,
        out_channels]` and `[out_channels]`.
      method: `auto`, `xla`, `patches` or `winograd`, see the module.
      between: called as `between(index, y)` with the output `y`, `[batch, height, width, channels]`, of every block
        but the last; what it returns goes into the next block. Dropout goes here.
    """
    if method == "auto" and jax.default_backend() != "cpu":
        method = "xla"
    windows = [kernel.shape[:2] for kernel, _ in parameters]
    extents = _extents(x.shape[1:3], blocks, windows, crop=between is None)
    if method != "xla":
        x = _swap_batch_and_channels(x)
    for index, (block, (kernel, bias), extent) in enumerate(zip(blocks, parameters, extents, strict=True)):
        x = _block(x, kernel, bias, block, extent, method)
        if between is not None and index < len(blocks) - 1:
            if method == "xla":
                x = between(index, x)
            else:
                x = _swap_batch_and_channels(between(index, _swap_batch_and_channels(x)))
    return x if method == "xla" else _swap_batch_and_channels(x)


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


def conv_block(
    x: Float[Array, "batch height width in_channels"],
    kernel: Float[Array, "kernel_height kernel_width in_channels out_channels"],
    bias: Float[Array, " out_channels"],
    *,
    strides: Window,
    padding: str,
    activation: str,
    pool: str,
    pool_size: Window,
    pool_strides: Window,
    method: str = "auto",
) -> Float[Array, "batch out_height out_width out_channels"]:
    """activation(conv2d(x) + bias), pooled: a stack of one block."""
    block = Block(strides, padding, activation, pool, pool_size, pool_strides)
    return conv_stack(x, (block,), ((kernel, bias),), method=method)


def _swap_batch_and_channels(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (3, 1, 2, 0))


@dataclasses.dataclass(frozen=True)
class _Extent:
    """The rows and columns that one convolution computes.

    Attributes:
      before: zeros above and to the left of its input.
      size: (rows, columns) of its output, counted from the first.
    """

    before: Window
    size: Window


def _extents(image: Window, blocks: Sequence[Block], windows: Sequence[Window], *, crop: bool) -> list[_Extent]:
    """What each convolution computes of its output: what the pooling after it covers.

    With `crop` also rows and columns that the next block leaves unread are left out: in the chapter's network the
    second pooling covers 10x10 of 11x11 outputs, so the second convolution reads 12x12 of its 13x13 inputs, and the
    first computes 24x24 of 26x26.
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
        if crop:
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
    bias = bias if method == "xla" else bias[:, None, None, None]
    activate = ACTIVATIONS[block.activation]
    if block.pool == "none":
        return activate(z + bias)
    pool = POOLINGS[block.pool]
    if block.pool == "max" and block.activation in MONOTONE:
        return activate(pool(z, block.pool_size, block.pool_strides) + bias)
    return pool(activate(z + bias), block.pool_size, block.pool_strides)


def _convolve(x: jax.Array, kernel: jax.Array, block: Block, extent: _Extent, method: str) -> jax.Array:
    window, image = kernel.shape[:2], x.shape[1:3]
    if method == "xla":
        covered = _span(extent.size, block.strides, window)
        # Negative where the last rows or columns are not read.
        padding = [(low, c - low - n) for low, c, n in zip(extent.before, covered, image, strict=True)]
        return lax.conv_general_dilated(x, kernel, block.strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    tile = 1
    if method != "patches" and x.dtype != jnp.bfloat16:
        tile = _tile_width(kernel.shape, block.strides, extent.size[1], pinned=method == "winograd")
    plan = winograd.Plan(image, window, block.strides, extent.before, extent.size, tile)
    return winograd.convolve(x, kernel, plan)


def _tile_width(kernel_shape: Sequence[int], strides: Window, columns: int, *, pinned: bool) -> int:
    """The cheapest number of output columns to compute together; 1 means `patches`.

    The cost of one output row of one image is counted in multiply-adds: those of the matrix products, and
    `_MOVE` for every entry of the matrices that an elementwise pass writes: receptive fields for `patches`, both
    sides of the products for Winograd.
    """
    height, width, channels, filters = kernel_shape

    def cost(tile: int) -> float:
        if tile == 1:
            depth = height * width * channels
            return columns * (depth * filters + _MOVE * depth)
        depth = height * strides[1] * channels
        products = -(-columns // tile) * (tile - 1 - (-width // strides[1]))
        return products * (depth * filters + _MOVE * (depth + filters))

    widest = winograd.MOST_PRODUCTS + 1 - -(-width // strides[1])
    tiles = range(2 if pinned else 1, min(widest, max(columns, 2)) + 1)
    return min(tiles, key=cost) if width > strides[1] else 1


_MOVE = 16
