"""Layer by layer: the same network as the fused one, and each layer as NumPy has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn import models
from convjax.nn.geometry import Layer, plan
from convjax.nn.layerwise import layer_outputs, run_layers


def correlation(image, kernel, strides):
    """Cross-correlation of `[h, w, in]` with `[kh, kw, in, out]`, one position after the other."""
    height, width = kernel.shape[:2]
    rows, columns = range(0, image.shape[0] - height + 1, strides[0]), range(0, image.shape[1] - width + 1, strides[1])
    return np.array(
        [[np.tensordot(image[r : r + height, c : c + width], kernel, 3) for c in columns] for r in rows], np.float64
    )


@pytest.fixture(scope="module")
def network():
    config = RunConfig(
        channels="3-5", kernel_size="3x2-2", stride="1-2", padding="same-valid", activation="relu-tanh-relu",
        pool="max", dense_units="6", dropout="0.5",
    )  # fmt: skip
    layers = plan(config, (11, 10, 3), 4)
    model = models.build(layers)
    rng = np.random.default_rng(0)
    shapes = {"conv2d_1": (3, 2, 3, 3), "conv2d_2": (2, 2, 3, 5), "dense_1": (2 * 2 * 5, 6), "dense_2": (6, 4)}
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32), "bias": jnp.ones(shape[-1]) / 10}
        for name, shape in shapes.items()
    }
    return layers, model, params, jnp.asarray(rng.uniform(size=(2, 11, 10, 3)), jnp.float32)


def test_the_last_output_is_the_models_logits(network):
    layers, model, params, x = network
    outputs = layer_outputs(layers, params, x)
    assert {name: array.shape[1:] for name, array in outputs.items()} == {
        layer.name: layer.output_shape for layer in layers
    }
    np.testing.assert_allclose(outputs["dense_2"], model.apply({"params": params}, x), atol=1e-5)


def test_a_feature_map_is_a_correlation(network):
    layers, _, params, x = network
    outputs = jax.device_get(layer_outputs(layers, params, x))
    first, second = params["conv2d_1"], params["conv2d_2"]
    # `same` for a window of 3x2: a row of zeros above and below, a column after.
    padded = np.pad(np.asarray(x[0]), ((1, 1), (0, 1), (0, 0)))
    expected = np.maximum(correlation(padded, np.asarray(first["kernel"]), (1, 1)) + np.asarray(first["bias"]), 0)
    np.testing.assert_allclose(outputs["conv2d_1"][0], expected, atol=1e-5)
    pooled = expected[:10, :10].reshape(5, 2, 5, 2, 3).max((1, 3))
    np.testing.assert_allclose(outputs["max_pooling2d_1"][0], pooled, atol=1e-5)
    expected = np.tanh(correlation(pooled, np.asarray(second["kernel"]), (2, 2)) + np.asarray(second["bias"]))
    np.testing.assert_allclose(outputs["conv2d_2"][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(model="local", channels="2", kernel_size="3", stride="2", dense_units="0"),
        RunConfig(channels="2", kernel_size="3", pool="avg", head="gap", pixels="permuted"),
    ],
)
def test_every_kind_of_layer_is_known(config):
    layers = plan(config, (9, 9, 1), 3)
    model = models.build(layers)
    x = jax.random.uniform(jax.random.key(1), (2, 9, 9, 1))
    params = model.init(jax.random.key(0), x)["params"]
    outputs = layer_outputs(layers, params, x)
    np.testing.assert_allclose(outputs[layers[-1].name], model.apply({"params": params}, x), atol=1e-5)


def test_a_network_can_be_cut_anywhere(network):
    layers, _, params, x = network
    outputs = layer_outputs(layers, params, x)
    for index, layer in enumerate(layers[:-1]):
        rest = run_layers(layers[index + 1 :], params, outputs[layer.name])
        np.testing.assert_array_equal(rest, outputs[layers[-1].name])


def test_an_unknown_layer_is_named():
    layers = (Layer("mystery_1", "Mystery", (4, 4, 1), (4, 4, 1)),)
    with pytest.raises(UserError, match=r"mystery_1: no module in .* computes a layer of kind Mystery"):
        layer_outputs(layers, {}, jnp.zeros((1, 4, 4, 1)))
