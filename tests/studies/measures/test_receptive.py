"""Effective receptive fields of networks whose gradients are known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve2d

from convjax.config import RunConfig
from convjax.nn.geometry import input_span, plan
from convjax.studies.measures.receptive import effective_width, fields, gradient_map

RNG = np.random.default_rng(0)


def network(image, **values):
    """The features of a linear network, and random kernels."""
    layers = plan(RunConfig(activation="linear", **values), (*image, 1), 10)
    layers = tuple(layer for layer in layers if layer.receptive_field)
    params = {
        layer.name: {
            "kernel": jnp.asarray(
                RNG.normal(size=(*layer.window, layer.input_shape[2], layer.output_shape[2])), jnp.float32
            ),
            "bias": jnp.zeros(layer.output_shape[2]),
        }
        for layer in layers
        if layer.kind == "Conv2D"
    }
    return layers, params


@given(height=st.integers(1, 12), width=st.integers(1, 12), top=st.integers(0, 5), weight=st.floats(0.1, 10))
def test_an_even_box_has_its_own_width(height, width, top, weight):
    box = np.zeros((20, 20))
    box[top : top + height, 3 : 3 + width] = weight
    assert effective_width(box) == pytest.approx(np.sqrt(height * width))


def test_what_matters_less_counts_less():
    assert effective_width(np.outer(np.ones(3), [0.1, 1.0, 0.1])) < 3
    assert np.isnan(effective_width(np.zeros((3, 3))))


def test_two_linear_convolutions_are_the_convolution_of_their_kernels():
    layers, params = network((9, 11), channels="1-1", kernel_size="3x2-2x4", pool="none")
    found = gradient_map(layers, params, jnp.asarray(RNG.normal(size=(2, 9, 11, 1)), jnp.float32))
    kernels = [np.asarray(params[f"conv2d_{number}"]["kernel"])[:, :, 0, 0] for number in (1, 2)]
    expected = np.zeros((9, 11))
    height, width = layers[-1].output_shape[:2]
    expected[input_span(layers, (height // 2, width // 2))] = np.abs(convolve2d(*kernels))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_channels_count_by_their_squares():
    """Where the mean of the gradients would be zero: two opposite kernels."""
    layers, params = network((5, 5), channels="2", pool="none")
    kernel = RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)
    params["conv2d_1"]["kernel"] = jnp.concatenate([kernel, -kernel], axis=-1)
    found = np.asarray(gradient_map(layers, params, jnp.zeros((2000, 5, 5, 1))))
    # The random signs leave an error of one in the square root of the number of images.
    np.testing.assert_allclose(found[1:4, 1:4], np.abs(kernel[:, :, 0, 0]), rtol=0.1)


def test_every_layer_with_positions_is_measured_within_what_it_sees():
    layers, params = network((12, 12), channels="2-3", kernel_size="3", pool="avg+", padding="same")
    images = jnp.asarray(RNG.normal(size=(4, 12, 12, 1)), jnp.float32)
    found = fields(layers, params, images)
    assert list(found) == ["conv2d_1", "average_pooling2d_1", "conv2d_2", "average_pooling2d_2"]
    for index, layer in enumerate(layers):
        gradients = np.array(found[layer.name]["map"])
        seen = np.zeros((12, 12), bool)
        seen[input_span(layers[: index + 1], [side // 2 for side in layer.output_shape[:2]])] = True
        assert gradients.max() == 1
        assert not gradients[~seen].any()
        assert 1 < found[layer.name]["width"] <= layer.receptive_field.size[0] * 1.1
