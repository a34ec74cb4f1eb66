"""Networks with random weights."""

import jax.numpy as jnp
import numpy as np

from convjax.nn.geometry import plan


def network(config, shape, classes=3, *, unit=False):
    """A plan's layers, and normal weights: scaled to keep outputs near 1, or of unit variance."""
    rng = np.random.default_rng(1)
    layers = plan(config, shape, classes)
    params = {}
    for layer in layers:
        if layer.parameters:
            inputs = (*layer.window, layer.input_shape[-1]) if layer.kind == "Conv2D" else layer.input_shape
            units = layer.output_shape[-1]
            kernel, bias = rng.normal(size=(*inputs, units)), rng.normal(size=units)
            if not unit:
                kernel, bias = kernel / np.sqrt(np.prod(inputs)), bias / 10
            params[layer.name] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    return layers, params
