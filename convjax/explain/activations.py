"""Feature maps: each layer's output for an image, channel by channel (the chapter's "response maps").

Images are uint8 `[images, height, width, channels]`, as in `convjax.data`; the network gets them scaled to 0..1.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from convjax.errors import UserError
from convjax.nn.geometry import Layer
from convjax.nn.layerwise import apply_layer, layer_outputs, run_layers
from convjax.training.steps import scale_images

Images = UInt8[np.ndarray, "images height width channels"]

_SPATIAL = ("Conv2D", "LocallyConnected2D", "MaxPooling2D", "AveragePooling2D")


def map_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers whose outputs are feature maps; a dense network has none."""
    return tuple(layer for layer in layers if layer.kind in _SPATIAL)


def filter_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with feature maps that have filters: convolutions, but not pooling."""
    return tuple(layer for layer in map_layers(layers) if layer.parameters)


def layer_named(layers: Sequence[Layer], name: str) -> Layer:
    """The layer of this name.

    Raises:
      UserError: no layer has this name.
    """
    for layer in layers:
        if layer.name == name:
            return layer
    known = ", ".join(layer.name for layer in layers) or "no such layer in this network"
    raise UserError(f"no layer {name!r} to look at; expected one of: {known}")


@functools.partial(jax.jit, static_argnames="layers")
def _outputs(layers: tuple[Layer, ...], params: Any, images: jax.Array) -> dict[str, jax.Array]:
    return layer_outputs(layers, params, scale_images(images))


@functools.partial(jax.jit, static_argnames=("before", "layer"))
def _response(before: tuple[Layer, ...], layer: Layer, params: Any, images: jax.Array) -> jax.Array:
    return apply_layer(layer, params, run_layers(before, params, scale_images(images)), activate=False)


def feature_maps(layers: tuple[Layer, ...], params: Any, images: Images) -> dict[str, np.ndarray]:
    """The output of every layer by the layer's name, float32; the last are the logits.

    Shapes are `[images, rows, columns, channels]` for feature maps and `[images, units]` after them.
    """
    return jax.device_get(_outputs(layers, params, images))


def responses(
    layers: tuple[Layer, ...], params: Any, images: Images, name: str
) -> Float[np.ndarray, "images rows columns filters"]:
    """The output of a layer's filters before the activation: correlation with the kernel, plus the bias.

    Raises:
      UserError: no layer with filters has this name.
    """
    layer = layer_named(filter_layers(layers), name)
    before = layers[: layers.index(layer)]
    return jax.device_get(_response(before, layer, params, images))


def strongest_channels(maps: Float[np.ndarray, "rows columns channels"], count: int) -> list[int]:
    """The channels of one image's feature map with the largest mean, largest first."""
    return [int(channel) for channel in np.argsort(-maps.mean((0, 1)), kind="stable")[:count]]


def distinct_channels(maps: Float[np.ndarray, "rows columns channels"], count: int) -> list[int]:
    """Up to `count` channels of one image's feature map that respond to the image and differ from one another.

    The first has the largest mean. Candidates for the others have at least a tenth of that mean; each time the
    candidate is chosen whose largest cosine similarity to the channels chosen so far is smallest.
    """
    means = maps.mean((0, 1))
    flat = (maps - means).reshape(-1, maps.shape[-1])
    flat = flat / np.maximum(np.linalg.norm(flat, axis=0), 1e-12)
    chosen = [int(np.argmax(means))]
    rest = [int(channel) for channel in np.flatnonzero(means >= 0.1 * means.max()) if channel != chosen[0]]
    while rest and len(chosen) < count:
        nearest = (flat[:, rest].T @ flat[:, chosen]).max(axis=1)
        chosen.append(rest.pop(int(np.argmin(nearest))))
    return chosen
