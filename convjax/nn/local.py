"""Locally connected layers: the windows of a convolution, with a kernel and a bias of its own at every position.

Keras 2's `LocallyConnected2D`, Flax's `ConvLocal`: local patterns without shared weights (LeCun, 1989).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convjax.nn.fast.strided import strided
from convjax.nn.geometry import output_shape, pad_amounts
from convjax.notation import Window


def local2d(
    x: Float[Array, "batch height width in_channels"],
    kernel: Float[Array, "out_height out_width kernel_height kernel_width in_channels out_channels"],
    bias: Float[Array, "out_height out_width out_channels"],
    *,
    strides: Window = (1, 1),
    padding: str = "valid",
) -> Float[Array, "batch out_height out_width out_channels"]:
    """Each window of `x` times the kernel of its position, plus that position's bias.

    With the same kernel and bias at every position this is a convolution.
    """
    rows, columns, height, width, depth, channels = kernel.shape
    assert (rows, columns) == output_shape(x.shape[1:3], (height, width), strides, padding)
    vertical, horizontal = pad_amounts(x.shape[1:3], (height, width), strides, padding)
    # Positions first, then the batch: one matrix product for each position, and no transposition inside a step.
    x = jnp.pad(jnp.transpose(x, (1, 2, 0, 3)), (vertical, horizontal, (0, 0), (0, 0)))
    patches = jnp.concatenate(
        [
            strided(strided(x, row, rows, strides[0], 0), column, columns, strides[1], 1)
            for row in range(height)
            for column in range(width)
        ],
        axis=-1,
    )
    flat = kernel.reshape(rows, columns, height * width * depth, channels)
    y = jax.lax.dot_general(patches, flat, (((3,), (2,)), ((0, 1), (0, 1)))) + bias[:, :, None]
    return jnp.transpose(y, (2, 0, 1, 3))
