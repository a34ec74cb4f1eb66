"""Activations by name, with Keras 3's definitions (exact gelu, leaky_relu's slope 0.2)."""

from collections.abc import Callable, Mapping
from typing import Final

import jax

ACTIVATIONS: Final[Mapping[str, Callable[[jax.Array], jax.Array]]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.numpy.tanh,
    "linear": lambda x: x,
}

MONOTONE: Final = frozenset(ACTIVATIONS) - {"gelu", "silu"}
"""Activations that never fall as their input grows, so that they commute with max-pooling."""
