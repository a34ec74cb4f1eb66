"""Max- and average-pooling without padding, as Keras's `valid`, over `[batch, height, width, channels]`.

Rows and columns are axes 1 and 2. Axes 0 and 3 may be anything, so `convjax.nn.conv` also pools
`[channels, height, width, batch]` with these.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from convjax.nn.fast.strided import compiled_apart, overlap_add, strided
from convjax.nn.geometry import output_shape
from convjax.notation import Window

_Static = tuple[Window, Window, Window]
"""(height, width) of the input, window, strides. Arrays are Any where JAX gives a rule constants of its own."""


def max_pool(
    x: Float[Array, "batch height width channels"], window: Window, strides: Window | None = None
) -> Float[Array, "batch out_height out_width channels"]:
    """The maximum of each window.

    Its gradient goes to the first maximum in row order, as in XLA's pooling (so in Keras's). `jnp.maximum` would share
    it among ties, which are the rule over an image's empty background.
    """
    return _max_pool(x, (x.shape[1:3], window, strides or window))


def avg_pool(
    x: Float[Array, "batch height width channels"], window: Window, strides: Window | None = None
) -> Float[Array, "batch out_height out_width channels"]:
    """The mean of each window."""
    return _avg_pool(x, (x.shape[1:3], window, strides or window))


POOLINGS: Final[Mapping[str, Callable[..., jax.Array]]] = {"max": max_pool, "avg": avg_pool}


def _positions(static: _Static, x: Any) -> list[jax.Array]:
    """For each position within a window, in row order, the entries of all windows at that position."""
    image, window, strides = static
    rows, columns = output_shape(image, window, strides, "valid")
    return [
        strided(strided(x, row, rows, strides[0], 1), column, columns, strides[1], 2)
        for row in range(window[0])
        for column in range(window[1])
    ]


def _positions_transposed(static: _Static, positions: list[jax.Array]) -> jax.Array:
    image, window, strides = static
    rows = [
        overlap_add(positions[row * window[1] : (row + 1) * window[1]], range(window[1]), strides[1], image[1], 2)
        for row in range(window[0])
    ]
    return overlap_add(rows, range(window[0]), strides[0], image[0], 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Any, static: _Static) -> jax.Array:
    return _max_pool_forward(x, static)[0]


def _max_pool_forward(x: Any, static: _Static) -> tuple[jax.Array, jax.Array]:
    return _maxima(static, x)


def _max_pool_backward(static: _Static, first: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    return (_maxima_transposed(static, first, cotangent),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@compiled_apart
def _maxima(static: _Static, x: Any) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window and the number of its first position."""
    highest, *others = _positions(static, x)
    first = jnp.zeros(highest.shape, np.int8 if len(others) < 127 else np.int32)
    for index, other in enumerate(others, start=1):
        first = lax.select(other > highest, jnp.full_like(first, index), first)
        highest = lax.max(highest, other)
    return highest, first


@compiled_apart
def _maxima_transposed(static: _Static, first: jax.Array, cotangent: jax.Array) -> jax.Array:
    zeros = jnp.zeros_like(cotangent)
    chosen = [lax.select(first == index, cotangent, zeros) for index in range(static[1][0] * static[1][1])]
    return _positions_transposed(static, chosen)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _avg_pool(x: Any, static: _Static) -> jax.Array:
    return _means(static, x)


def _avg_pool_forward(x: Any, static: _Static) -> tuple[jax.Array, None]:
    return _means(static, x), None


def _avg_pool_backward(static: _Static, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (_means_transposed(static, cotangent),)


_avg_pool.defvjp(_avg_pool_forward, _avg_pool_backward)


@compiled_apart
def _means(static: _Static, x: Any) -> jax.Array:
    positions = _positions(static, x)
    return functools.reduce(jnp.add, positions) / len(positions)


@compiled_apart
def _means_transposed(static: _Static, cotangent: jax.Array) -> jax.Array:
    count = static[1][0] * static[1][1]
    return _positions_transposed(static, [cotangent / count] * count)
