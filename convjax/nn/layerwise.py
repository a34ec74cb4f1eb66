"""A network's layers one at a time, for those who want to see what is between them.

`convjax.nn.models` computes whole blocks at once and leaves out what no later layer reads; here every layer gives its
full output, `[batch, height, width, channels]` or `[batch, units]`, in float32 whatever the run's precision. Dropout
does nothing, and the last layer gives logits, as there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp

from convjax.errors import UserError
from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import conv2d
from convjax.nn.geometry import Layer
from convjax.nn.local import local2d
from convjax.nn.models import class_logits, permute_pixels
from convjax.nn.pool import avg_pool, max_pool


def _convolution(layer: Layer, weights: Mapping[str, jax.Array], x: jax.Array, method: str = "") -> jax.Array:
    # Winograd would only save time, and takes longer to compile.
    method = method or ("patches" if jax.default_backend() == "cpu" else "xla")
    return conv2d(x, weights["kernel"], layer.strides, layer.padding, method=method) + weights["bias"]


def _locally_connected(layer: Layer, weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return local2d(x, weights["kernel"], weights["bias"], strides=layer.strides, padding=layer.padding)


def _dense(layer: Layer, weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ weights["kernel"] + weights["bias"]


_KINDS: Final[Mapping[str, Callable[..., jax.Array]]] = {
    "Conv2D": _convolution,
    "LocallyConnected2D": _locally_connected,
    "MaxPooling2D": lambda layer, weights, x: max_pool(x, layer.window, layer.strides),
    "AveragePooling2D": lambda layer, weights, x: avg_pool(x, layer.window, layer.strides),
    "PermutePixels": lambda layer, weights, x: permute_pixels(x),
    "GlobalAveragePooling2D": lambda layer, weights, x: x.mean((1, 2)),
    "Flatten": lambda layer, weights, x: x.reshape(x.shape[0], -1),
    "Dropout": lambda layer, weights, x: x,
    "Dense": _dense,
}


def traceable(layers: Sequence[Layer]) -> bool:
    """Whether all the layers are of kinds that this module knows."""
    return all(layer.kind in _KINDS for layer in layers)


def apply_layer(
    layer: Layer, params: Mapping[str, Any], x: jax.Array, *, activate: bool = True, conv: str = ""
) -> jax.Array:
    """The layer's output for its input `x`; without its activation if not `activate`.

    `conv` is `convjax.nn.conv`'s method, by default one that is quick inside loops too.

    Raises:
      UserError: a layer of an unknown kind.
    """
    if layer.kind not in _KINDS:
        raise UserError(f"{layer.name} ({layer.kind}) cannot be looked into; known kinds: {', '.join(_KINDS)}")
    options = {"method": conv} if layer.kind == "Conv2D" else {}
    y = _KINDS[layer.kind](layer, params.get(layer.name, {}), x, **options)
    if layer.is_output:
        return class_logits(layer, y)
    if not activate:
        return y
    return ACTIVATIONS[layer.activation](y)


def run_layers(layers: Sequence[Layer], params: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """The output of the last of consecutive layers for the input `x` of the first."""
    for layer in layers:
        x = apply_layer(layer, params, x)
    return x


def layer_outputs(layers: Sequence[Layer], params: Mapping[str, Any], x: jax.Array) -> dict[str, jax.Array]:
    """Every layer's output by its name, in order; the last are the logits.

    Args:
      layers: of the whole network.
      params: `{layer name: {"kernel", "bias"}}`.
      x: images `[batch, height, width, channels]`, scaled to 0..1.
    """
    x = x.astype(jnp.float32)
    outputs = {}
    for layer in layers:
        x = outputs[layer.name] = apply_layer(layer, params, x)
    return outputs
