"""Max- and average-pooling without padding, as Keras's `valid`, over `[batch, height, width, channels]`.

Rows and columns are axes 1 and 2; what axes 0 and 3 are makes no difference, so `convjax.nn.conv` also pools
`[channels, height, width, batch]` with these.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convjax.config import Window
from convjax.nn.geometry import output_shape


def max_pool(
    x: Float[Array, "batch height width channels"], window: Window, strides: Window | None = None
) -> Float[Array, "batch out_height out_width channels"]:
    """The maximum of each window. Where several positions tie the gradient goes to the first, row by row."""
    return maximum_of(_phases(x, window, strides or window))


def avg_pool(
    x: Float[Array, "batch height width channels"], window: Window, strides: Window | None = None
) -> Float[Array, "batch out_height out_width channels"]:
    """The mean of each window."""
    phases = _phases(x, window, strides or window)
    return functools.reduce(jnp.add, phases) / len(phases)


POOLINGS: Final[Mapping[str, Callable[..., jax.Array]]] = {"max": max_pool, "avg": avg_pool}


def _phases(x: jax.Array, window: Window, strides: Window) -> list[jax.Array]:
    return slices(x, window, strides, output_shape(x.shape[1:3], window, strides, "valid"))


def slices(x: jax.Array, window: Window, strides: Window, size: Window) -> list[jax.Array]:
    """For each position within a window, row by row, the slice of `x` that it meets as the window takes `size` steps."""
    return [
        lax.slice(
            x,
            (0, row, column, 0),
            (
                x.shape[0],
                row + (size[0] - 1) * strides[0] + 1,
                column + (size[1] - 1) * strides[1] + 1,
                x.shape[3],
            ),
            (1, *strides, 1),
        )
        for row in range(window[0])
        for column in range(window[1])
    ]


@jax.custom_vjp
def maximum_of(phases: Sequence[jax.Array]) -> jax.Array:
    """Elementwise maximum of arrays of one shape.

    Its gradient goes to the first maximum, where `jnp.maximum` would share it among ties: ties are the rule over
    an image's empty background, and XLA's (so Keras's) pooling picks the first.
    """
    return functools.reduce(jnp.maximum, phases)


def _maximum_of_forward(phases: Sequence[jax.Array]) -> tuple[jax.Array, tuple[jax.Array, list[None]]]:
    highest, winner = phases[0], jnp.zeros(phases[0].shape, jnp.int8 if len(phases) < 128 else jnp.int32)
    for index, phase in enumerate(phases[1:], start=1):
        winner = jnp.where(phase > highest, jnp.asarray(index, winner.dtype), winner)
        highest = jnp.maximum(highest, phase)
    return highest, (winner, [None] * len(phases))


def _maximum_of_backward(
    residuals: tuple[jax.Array, list[None]], cotangent: jax.Array
) -> tuple[list[jax.Array]]:
    winner, phases = residuals
    zero = jnp.zeros((), cotangent.dtype)
    return ([jnp.where(winner == index, cotangent, zero) for index in range(len(phases))],)


maximum_of.defvjp(_maximum_of_forward, _maximum_of_backward)
