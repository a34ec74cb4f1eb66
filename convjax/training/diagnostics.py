"""Diagnostics of a network while it trains: dead channels, norms of weights and gradients, layer by layer.

They are computed once an epoch, on the first training images, so they do not slow the steps. They depend on parameters
and data alone: a resumed run finds the same numbers.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from convjax.nn.geometry import Layer
from convjax.nn.layers import STATISTICS
from convjax.nn.layerwise import apply_layer
from convjax.training.steps import Task, scale_images

SAMPLE = 128
"""Images that gradients and dead channels are measured on."""

LayerNumbers = dict[str, float | None]
"""A number for each layer by its name; None where it is not finite."""


def layer_diagnostics(
    params: Any,
    images: UInt8[np.ndarray, "examples height width channels"],
    labels: Int[np.ndarray, " examples"],
    *,
    task: Task,
) -> dict[str, LayerNumbers]:
    """What metrics.jsonl says of the layers after an epoch, by quantity and layer.

    - `weight_norm`: L2 norm of the layer's kernel and bias together.
    - `gradient_norm`: L2 norm of the layer's part of the gradient of the mean loss over the first `SAMPLE` images,
      without dropout, augmentation and label smoothing.
    - `dead_channels`: share of the layer's channels (units of a dense layer) whose output is the same for all of these
      images at all positions. With relu that is a filter that never fires. The classifier is left out.
    """
    gradients, dead = jax.device_get(_inspect(params, images[:SAMPLE], labels[:SAMPLE], layers=task.layers))
    found = {
        "weight_norm": layer_norms(params),
        "gradient_norm": {name: float(norm) for name, norm in gradients.items()},
        "dead_channels": {name: float(share) for name, share in dead.items()},
    }
    order = [layer.name for layer in task.layers if layer.name in params]
    return {
        quantity: {name: values[name] if math.isfinite(values[name]) else None for name in order if name in values}
        for quantity, values in found.items()
    }


def layer_norms(tree: Mapping[str, Any]) -> dict[str, float]:
    """L2 norm, in float64, of the trained arrays of each layer, in weights or gradients."""
    norms = {}
    for name, arrays in jax.device_get(tree).items():
        trained = [array for key, array in arrays.items() if key not in STATISTICS]
        squares = [np.sum(np.square(np.asarray(array, np.float64))) for array in trained]
        norms[name] = float(np.sqrt(np.sum(squares)))
    return norms


@functools.partial(jax.jit, static_argnames="layers")
def _inspect(
    params: Any,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    *,
    layers: Sequence[Layer],
) -> tuple[dict[str, Float[Array, ""]], dict[str, Float[Array, ""]]]:
    """Gradient norms and shares of dead channels of the layers."""

    def loss_of(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        x, dead = scale_images(images), {}
        for layer in layers:
            # XLA's convolution compiles in a third of the time, and outside of loops it is not slow.
            x = apply_layer(layer, params, x, method="xla")
            if layer.parameters and layer is not layers[-1]:
                channels = x.reshape(-1, x.shape[-1])
                dead[layer.name] = jnp.mean((channels.max(axis=0) == channels.min(axis=0)).astype(jnp.float32))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, labels)), dead

    gradients, dead = jax.grad(loss_of, has_aux=True)(params)
    norms = {
        name: jnp.sqrt(sum(jnp.sum(jnp.square(array)) for key, array in arrays.items() if key not in STATISTICS))
        for name, arrays in gradients.items()
    }
    return norms, dead
