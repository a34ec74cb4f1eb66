"""The convolution everything uses, and the stack of blocks convolution -> bias -> activation -> pooling.

"Convolution" is what every deep-learning library calls so: cross-correlation, the kernel is not flipped.

`xla` is XLA's own convolution, `patches` one matrix product per convolution (Chellapilla, Puri & Simard, 2006): the
receptive field of every output position becomes a column of a matrix [kernel_height * kernel_width * in_channels,
out_height * out_width * batch], which the kernel, [kernel_height * kernel_width * in_channels, out_channels],
multiplies. `auto` is `xla` on accelerators; on CPU, where XLA's convolution is five to twenty times slower inside a
loop (`lax.scan`), it is `patches`.

Outside `xla`, a stack works on `[channels, height, width, batch]` from its first block to its last: with the batch
innermost every slice of rows and columns is made of long contiguous runs, whatever the kernel and the strides.
Rows and columns are axes 1 and 2 in this order and in `[batch, height, width, channels]` alike.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convjax.config import Window
from convjax.nn.activations import ACTIVATIONS, MONOTONE
from convjax.nn.geometry import output_shape, pad_amounts
from convjax.nn.pool import POOLINGS, slices


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
    if method == "auto":
        method = "patches" if jax.default_backend() == "cpu" else "xla"
    transposed = method != "xla"
    if transposed:
        x = _batch_last(x)
    for index, (block, (kernel, bias)) in enumerate(zip(blocks, parameters, strict=True)):
        x = _block(x, kernel, bias, block, method)
        if between is not None and index < len(blocks) - 1:
            x = _batch_last(between(index, _batch_first(x))) if transposed else between(index, x)
    return _batch_first(x) if transposed else x


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


def _batch_last(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (3, 1, 2, 0))


_batch_first = _batch_last  # The transposition is its own inverse.


def _block(x: jax.Array, kernel: jax.Array, bias: jax.Array, block: Block, method: str) -> jax.Array:
    """One block; `x` is `[batch, height, width, channels]` for `xla`, `[channels, height, width, batch]` otherwise.

    Max-pooling commutes with adding a channel's bias and with a monotone activation, so it comes first there:
    relu(maxpool(z) + b) = maxpool(relu(z + b)), for a fraction of the elementwise work.
    """
    if method != "xla":
        bias = bias[:, None, None, None]
    activate = ACTIVATIONS[block.activation]
    size = output_shape(x.shape[1:3], kernel.shape[:2], block.strides, block.padding)
    if block.pool == "none":
        return activate(_convolve(x, kernel, block, size, method) + bias)
    pooled = output_shape(size, block.pool_size, block.pool_strides, "valid")
    # What a pooling window covers; rows and columns left over are not computed at all.
    covered = tuple(
        (n - 1) * s + p for n, s, p in zip(pooled, block.pool_strides, block.pool_size, strict=True)
    )
    z = _convolve(x, kernel, block, covered, method)
    pool = POOLINGS[block.pool]
    if block.pool == "max" and block.activation in MONOTONE:
        return activate(pool(z, block.pool_size, block.pool_strides) + bias)
    return pool(activate(z + bias), block.pool_size, block.pool_strides)


def _convolve(x: jax.Array, kernel: jax.Array, block: Block, size: Window, method: str) -> jax.Array:
    """The first `size` rows and columns of the convolution, in the order of `x`."""
    window = kernel.shape[:2]
    before = [low for low, _ in pad_amounts(x.shape[1:3], window, block.strides, block.padding)]
    # What is left over at the far end is cut off (negative padding).
    padding = [
        (low, (steps - 1) * stride + k - n - low)
        for low, steps, stride, k, n in zip(before, size, block.strides, window, x.shape[1:3], strict=True)
    ]
    if method == "xla":
        return lax.conv_general_dilated(
            x, kernel, block.strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*ends, 0) for ends in padding), (0, 0, 0)))
    patches = jnp.concatenate(slices(x, window, block.strides, size), axis=0)
    return lax.dot_general(kernel.reshape(-1, kernel.shape[3]), patches, (((0,), (0,)), ((), ())))
