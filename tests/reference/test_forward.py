"""The same network in Keras and here, with the same weights: shapes, parameter counts and logits."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from convjax.config import ACTIVATIONS
from convjax.nn import models
from convjax.nn.geometry import total_parameters
from convjax.nn.layers import Conv2D, Dense
from tests.helpers.keras_twins import flat, keras_logits, keras_twin, quick_jit, random_networks, random_params

NETWORKS = random_networks(40, seed=0)
BATCH = 32


def test_the_networks_cover_what_they_should():
    configs = [config for config, _, _ in NETWORKS]
    layers = [layer for _, _, plan in NETWORKS for layer in plan]
    assert len(set(configs)) >= 40
    assert {size for config in configs for window in config.layer_kernel_sizes for size in window} == set(range(1, 8))
    assert any(layer.window[0] != layer.window[1] for layer in layers if layer.kind == "Conv2D")
    assert {(layer.padding, min(layer.strides)) for layer in layers if layer.kind == "Conv2D"} >= {
        ("valid", 1), ("valid", 2), ("same", 1), ("same", 2), ("same", 3),
    }  # fmt: skip
    assert {pool for config in configs for pool in config.layer_pools} == {"max", "avg", "none"}
    pools = [layer for layer in layers if layer.kind in ("MaxPooling2D", "AveragePooling2D")]
    assert {size for pool in pools for size in pool.window} == {2, 3}
    assert any(pool.strides < pool.window for pool in pools)
    assert {shape[2] for _, shape, _ in NETWORKS} == {1, 2, 3}
    assert {shape[0] % 2 for _, shape, _ in NETWORKS} == {0, 1}
    assert {activation for config in configs for activation in config.layer_activations} == set(ACTIVATIONS)
    assert any(layer.kind == "Dropout" for layer in layers)


@pytest.mark.parametrize("index", range(len(NETWORKS)))
def test_logits_and_layers_agree(index):
    config, image_shape, layers = NETWORKS[index]
    model = keras_twin(config, image_shape)

    table = [(type(layer).__name__, layer.output.shape[1:], layer.count_params()) for layer in model.layers]
    assert table == [(layer.kind, layer.output_shape, layer.parameters) for layer in layers]
    assert model.count_params() == total_parameters(layers)

    params = random_params(layers, index)
    model.set_weights(flat(params, layers))
    images = np.random.default_rng(index).random((BATCH, *image_shape), np.float32)
    expected = np.asarray(keras_logits(model)(images))

    @quick_jit
    def logits(params, images):
        return {
            method: models.build(layers, method=method).apply({"params": params}, images)
            for method in ("auto", "xla", ("patches", "winograd")[index % 2])
        }

    for method, actual in logits(params, images).items():
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=method)
    # Logits of order one, that depend on the image: else agreement would mean little.
    assert 0.1 < np.abs(expected).max() < 20
    assert expected.std(axis=0).max() > 1e-3


@pytest.mark.parametrize("shape", [(3, 5, 16, 24), (784, 64)])
def test_kernels_start_as_kerass(shape):
    """Glorot & Bengio (2010), uniform: the limit is sqrt(6 / (fan_in + fan_out)), a fan counting the window."""
    window = np.prod(shape[:-2], dtype=int)
    limit = np.sqrt(6 / (window * shape[-2] + window * shape[-1]))
    parameters = {"kernel": shape, "bias": shape[-1:]}
    layer = Conv2D(shape[-1], shape[:2]) if len(shape) == 4 else Dense(shape[-1])
    x = jnp.zeros((1, 9, 9, shape[-2]) if len(shape) == 4 else (1, shape[0]))
    ours = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    assert {name: value.shape for name, value in ours.items()} == parameters
    np.testing.assert_array_equal(ours["bias"], 0)
    for values in (ours["kernel"], keras.initializers.GlorotUniform(seed=0)(shape)):
        values = np.ravel(values)
        assert limit * 0.999 < np.abs(values).max() <= limit * 1.000001
        # Mean and standard deviation of a uniform distribution, within four standard errors.
        assert abs(values.mean()) < 4 * limit / np.sqrt(3 * values.size)
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=4 * np.sqrt(0.2 / values.size))
