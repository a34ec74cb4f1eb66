"""Kernels as images, activation maximization, feature maps and responses."""

import jax
import numpy as np
import pytest
from scipy.signal import correlate2d

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.explain import activations, filters
from convjax.nn.geometry import plan
from tests.explain.networks import network

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def convnet():
    return network(RunConfig(channels="3-5", kernel_size="3", dense_units="0"), (12, 12, 1))


@pytest.fixture(scope="module")
def image():
    return RNG.integers(0, 256, (12, 12, 1), dtype=np.uint8)


def test_a_response_map_is_a_correlation(convnet, image):
    layers, params = convnet
    found = activations.responses(layers, params, image[None], "conv2d_1")[0]
    maps = activations.feature_maps(layers, params, image[None])
    for channel in range(3):
        kernel = np.asarray(params["conv2d_1"]["kernel"])[:, :, 0, channel]
        expected = correlate2d(image[..., 0] / 255, kernel, "valid") + float(params["conv2d_1"]["bias"][channel])
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)
        np.testing.assert_allclose(maps["conv2d_1"][0, ..., channel], np.maximum(expected, 0), atol=1e-5)
    # The second layer's responses are sums over the channels below.
    below = maps["max_pooling2d_1"][0]
    kernel = np.asarray(params["conv2d_2"]["kernel"])
    expected = sum(correlate2d(below[..., each], kernel[:, :, each, 4], "valid") for each in range(3))
    second = activations.responses(layers, params, image[None], "conv2d_2")[0, ..., 4]
    np.testing.assert_allclose(second, expected + float(params["conv2d_2"]["bias"][4]), atol=1e-5)


def test_layers_with_maps_are_found(convnet):
    layers, params = convnet
    assert [layer.name for layer in activations.map_layers(layers)] == ["conv2d_1", "max_pooling2d_1", "conv2d_2"]
    assert [layer.name for layer in activations.filter_layers(layers)] == ["conv2d_1", "conv2d_2"]
    dense = plan(RunConfig(model="dense"), (12, 12, 1), 3)
    assert activations.map_layers(dense) == ()
    with pytest.raises(UserError, match="no such layer in this network"):
        activations.responses(dense, params, np.zeros((1, 12, 12, 1), np.uint8), "conv2d_1")


def test_distinct_channels_respond_and_differ():
    maps = np.zeros((4, 4, 5))
    maps[..., 0] = np.eye(4) * 3
    maps[..., 1] = np.eye(4) * 2.9  # the same again
    maps[..., 2] = np.eye(4)[::-1]  # another pattern
    maps[0, 0, 3] = 1e-3  # hardly responds
    assert activations.strongest_channels(maps, 2) == [0, 1]
    assert activations.distinct_channels(maps, 2) == [0, 2]
    assert activations.distinct_channels(maps, 5) == [0, 2, 1]


@pytest.mark.parametrize(
    ("name", "shape"), [("conv2d_1", (3, 3, 1)), ("conv2d_2", (8, 8, 1)), ("dense_1", (12, 12, 1))]
)
def test_maximization_raises_every_unit(name, shape, convnet):
    layers, params = convnet
    layer = activations.layer_named(layers, name)
    units = range(layer.output_shape[-1])
    found = filters.maximize(layers, params, layer, units, jax.random.key(0), steps=40)
    assert found.images.shape == (len(units), *shape)
    assert (found.end > found.start).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    again = filters.maximize(layers, params, layer, units, jax.random.key(0), steps=40)
    np.testing.assert_array_equal(found.images, again.images)


def test_what_is_maximized_is_the_unit(convnet):
    """The image of a first-layer filter has the filter's signs; its output is their product."""
    layers, params = convnet
    found = filters.maximize(layers, params, layers[0], [0, 2], jax.random.key(0), steps=80)
    for place, channel in enumerate((0, 2)):
        kernel = np.asarray(params["conv2d_1"]["kernel"])[..., channel]
        output = float((kernel * found.images[place]).sum() + params["conv2d_1"]["bias"][channel])
        assert found.end[place] == pytest.approx(output, abs=1e-4)
        strong = np.abs(kernel) > 0.5 * np.abs(kernel).max()
        assert ((found.images[place] > 0.5) == (kernel > 0))[strong].all()


def test_a_network_that_sees_borders_is_maximized_as_a_whole():
    config = RunConfig(channels="2-2", kernel_size="3", padding="same", pool="none", dense_units="0")
    layers, params = network(config, (4, 4, 3))
    found = filters.maximize(layers, params, layers[1], [1], jax.random.key(0), steps=20)
    assert found.images.shape == (1, 4, 4, 3)
    assert found.end[0] > found.start[0]


def test_first_weights_are_images():
    layers, params = network(RunConfig(channels="3-5", kernel_size="3x2", dense_units="0"), (12, 12, 3))
    first, kernels = filters.kernel_images(layers, params)
    assert first.name == "conv2d_1"
    assert kernels.shape == (3, 3, 2, 3)
    np.testing.assert_array_equal(kernels[1], np.asarray(params["conv2d_1"]["kernel"])[..., 1])
    layers, params = network(RunConfig(model="dense", dense_units="4"), (5, 6, 1))
    first, kernels = filters.kernel_images(layers, params)
    assert first.name == "dense_1"
    assert kernels.shape == (4, 5, 6, 1)
    np.testing.assert_array_equal(kernels[2].reshape(-1), np.asarray(params["dense_1"]["kernel"])[:, 2])
