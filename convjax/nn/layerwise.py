"""A network layer by layer, for pictures, probes and diagnostics that look at what is between two layers.

`nn.models` computes convolutions and poolings together and leaves out what no later layer reads. Here every layer gives
its full output, `[batch, height, width, channels]` or `[batch, units]`, in float32 whatever the run's precision. The
layers are those of `nn.layers`, as in evaluation: dropout does nothing, and the last layer gives logits.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from convjax.nn.geometry import Layer
from convjax.nn.models import layer_module


def apply_layer(
    layer: Layer, params: Mapping[str, Any], x: jax.Array, *, activate: bool = True, method: str = ""
) -> jax.Array:
    """The layer's output for its input `x`; without its activation if not `activate`.

    Args:
      layer: from a plan.
      params: `{layer name: {"kernel", "bias"}}`, of the whole network.
      x: `[batch, ...]`.
      activate: whether to apply the layer's activation. The last layer gives logits in any case.
      method: how a convolution is computed, see `nn.conv`.
    """
    # Winograd would save time only in training, and takes longer to compile.
    method = method or ("patches" if jax.default_backend() == "cpu" else "xla")
    if not activate:
        layer = dataclasses.replace(layer, activation="linear")
    weights = params.get(layer.name, {})
    variables = {"params": weights, "batch_stats": weights}
    return cast("jax.Array", layer_module(layer, method=method).apply(variables, x))


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
