"""Effective receptive fields: how much every input pixel moves the center of a feature map.

In theory a position depends on all pixels of its window, which grows with depth (`convjax.nn.geometry`). In practice it
depends most on the middle of the window, which more paths reach (Luo, Li, Urtasun & Zemel 2016, "Understanding the
effective receptive field in deep convolutional neural networks").
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from convjax.nn.geometry import Layer
from convjax.nn.layerwise import run_layers
from convjax.sweeps.measurements import Trained
from convjax.training.steps import initial_state, scale_images

IMAGES = 500
"""Test images per measurement."""


@functools.partial(jax.jit, static_argnames="layers")
def gradient_map(
    layers: tuple[Layer, ...], params: Mapping[str, Any], images: Float[Array, "batch height width channels"]
) -> Float[Array, "height width"]:
    """Root mean square, for each pixel, of the gradients of the last layer's central position.

    The mean is over images and over the channels of that position; in a plain mean, gradients of different channels
    would cancel. Random signs of the channels give the sum of their squares in one backward pass, because the products
    of different channels have mean 0.

    Args:
      layers: a network's first layers, up to one with positions.
      params: the network's.
      images: scaled to 0..1.
    """
    height, width, channels = layers[-1].output_shape
    signs = jax.random.rademacher(jax.random.key(0), (images.shape[0], channels), jnp.float32)

    def center(x: jax.Array) -> jax.Array:
        return jnp.sum(run_layers(layers, params, x)[:, height // 2, width // 2] * signs) / jnp.sqrt(channels)

    return jnp.sqrt(jnp.mean(jnp.square(jax.grad(center)(images)), axis=(0, 3)))


def effective_width(gradients: NDArray[Any]) -> float:
    """The side, in pixels, of an evenly weighted square whose variance is that of the gradients.

    Along an axis, n equal weights have variance (n^2 - 1) / 12; the width is the n whose variance is the gradients', as
    the geometric mean of both axes. NaN if all gradients are 0.
    """
    weights = np.asarray(gradients, np.float64)
    widths = []
    for axis in (0, 1):
        marginal = weights.sum(axis=1 - axis)
        places = np.arange(len(marginal))
        total = marginal.sum()
        if total == 0:
            return float("nan")
        mean = (marginal * places).sum() / total
        widths.append(np.sqrt(12 * (marginal * (places - mean) ** 2).sum() / total + 1))
    return float(np.sqrt(widths[0] * widths[1]))


def measure_fields(trained: Trained) -> dict[str, dict[str, dict[str, Any]]]:
    """Effective receptive fields of all layers with positions, in the trained and in the untrained network.

    Returns `{"trained": {layer: {"width", "map"}}, "untrained": ...}`; maps are relative to their maximum.
    """
    images = scale_images(jnp.asarray(trained.dataset.test.images[:IMAGES]))
    networks = {"trained": trained.params, "untrained": initial_state(trained.config, trained.task).params}
    return {name: fields(trained.task.layers, params, images) for name, params in networks.items()}


def fields(layers: Sequence[Layer], params: Mapping[str, Any], images: jax.Array) -> dict[str, dict[str, Any]]:
    """`measure_fields` of one network: `{layer: {"width", "map"}}`."""
    found = {}
    for index, layer in enumerate(layers):
        if layer.kind in ("Conv2D", "MaxPooling2D", "AveragePooling2D"):
            gradients = np.asarray(gradient_map(tuple(layers[: index + 1]), params, images))
            largest = float(gradients.max()) or 1.0
            found[layer.name] = {
                "width": effective_width(gradients),
                "map": np.round(gradients / largest, 4).tolist(),
            }
    return found
