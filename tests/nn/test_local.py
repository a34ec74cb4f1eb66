"""Locally connected layers, the averaging head and permuted pixels, against Flax, NumPy and convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.convert import save_keras
from convjax.errors import UserError
from convjax.nn.conv import conv2d
from convjax.nn.geometry import plan, total_parameters
from convjax.nn.layers import PermutePixels
from convjax.nn.local import local2d
from convjax.nn.models import build

IMAGE = (9, 8, 2)


def arrays(*shapes):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


CASES = [((3, 2), (1, 1), "valid"), ((3, 3), (2, 1), "same"), ((1, 4), (3, 2), "valid")]


@pytest.mark.parametrize(("window", "strides", "padding"), CASES)
def test_values_and_gradients_are_those_of_flax_conv_local(window, strides, padding):
    reference = nn.ConvLocal(3, window, strides=strides, padding=padding.upper())
    [x] = arrays((2, *IMAGE))
    shapes = jax.eval_shape(lambda: reference.init(jax.random.key(0), x))["params"]
    rows, columns = shapes["kernel"].shape[:2]
    kernel, bias = arrays((rows, columns, *window, IMAGE[2], 3), (rows, columns, 3))

    def theirs(x, kernel, bias):
        # Flax's windows are channel by channel.
        flat = jnp.moveaxis(kernel, 4, 2).reshape(rows, columns, -1, 3)
        return reference.apply({"params": {"kernel": flat, "bias": bias}}, x)

    def ours(x, kernel, bias):
        return local2d(x, kernel, bias, strides=strides, padding=padding)

    expected, found = theirs(x, kernel, bias), ours(x, kernel, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    [cotangent] = arrays(expected.shape)
    for one, other in zip(
        jax.vjp(theirs, x, kernel, bias)[1](cotangent), jax.vjp(ours, x, kernel, bias)[1](cotangent), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_one_kernel_everywhere_is_a_convolution():
    x, kernel = arrays((2, *IMAGE), (3, 3, 2, 4))
    everywhere = jnp.broadcast_to(kernel, (5, 8, *kernel.shape))
    found = local2d(x, everywhere, jnp.zeros((5, 8, 4)), strides=(2, 1), padding="same")
    np.testing.assert_allclose(found, conv2d(x, kernel, (2, 1), "same", method="xla"), rtol=1e-5, atol=1e-5)


def test_the_chapters_net_with_unshared_weights_by_hand():
    layers = plan(RunConfig(model="local"), (28, 28, 1), 10)
    # Positions x (weights of a window + a bias) x channels: 26x26, 11x11 and 3x3 positions.
    by_hand = [676 * (9 + 1) * 32, 0, 121 * (9 * 32 + 1) * 64, 0, 9 * (9 * 64 + 1) * 64, 0, 577 * 64, 650]
    assert [layer.parameters for layer in layers] == by_hand
    shared = plan(RunConfig(), (28, 28, 1), 10)
    assert [layer.flops for layer in layers] == [layer.flops for layer in shared]
    assert [layer.output_shape for layer in layers] == [layer.output_shape for layer in shared]
    assert layers[0].name == "locally_connected2d_1"


CONFIG = RunConfig(model="local", channels="3-4", dense_units="5", padding="same", stride="2x1-1")


@pytest.mark.parametrize("changes", [{}, {"head": "gap", "pixels": "permuted"}, {"model": "convnet", "head": "gap"}])
def test_a_module_has_the_planned_parameters_and_shapes(changes):
    layers = plan(CONFIG.replace(**changes), (12, 8, 1), 10)
    model = build(layers)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 12, 8, 1))))["params"]
    sizes = {layer.name: sum(leaf.size for leaf in jax.tree.leaves(params.get(layer.name, ()))) for layer in layers}
    assert sizes == {layer.name: layer.parameters for layer in layers}
    assert total_parameters(layers) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_every_position_starts_as_a_convolution_does():
    """Glorot's limit is that of one window, sqrt(6 / (fan_in + fan_out)), not of all positions together."""
    layers = plan(CONFIG, (12, 8, 1), 10)
    kernel = build(layers).init(jax.random.key(0), jnp.zeros((1, 12, 8, 1)))["params"]["locally_connected2d_2"][
        "kernel"
    ]
    limit = np.sqrt(6 / (9 * 3 + 9 * 4))
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    assert not np.array_equal(kernel[0, 0], kernel[0, 1])


def test_the_averaging_head_is_the_mean_of_each_channel():
    config = RunConfig(channels="4", dense_units="0", head="gap", activation="tanh", conv="xla")
    model = build(plan(config, IMAGE, 3), method="xla")
    [x] = arrays((2, *IMAGE))
    params = model.init(jax.random.key(1), x)["params"]
    features = np.tanh(conv2d(x, params["conv2d_1"]["kernel"], method="xla"))
    expected = features.mean((1, 2)) @ np.asarray(params["dense_1"]["kernel"])
    np.testing.assert_allclose(model.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


def test_permuted_pixels_are_one_fixed_permutation_before_the_first_layer():
    x = jnp.arange(28 * 28 * 2, dtype=jnp.float32).reshape(1, 28, 28, 2)
    permuted = PermutePixels()(x)
    order = np.asarray(permuted[0, :, :, 0]).ravel().astype(int) // 2
    assert sorted(order) == list(range(784))
    # Kept for good: every published run with permuted pixels has this order.
    assert order[:5].tolist() == [585, 491, 516, 429, 453]
    np.testing.assert_array_equal(permuted[..., 1], permuted[..., 0] + 1)
    # Hardly a neighbour is left.
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.01


@pytest.mark.parametrize("model", ["convnet", "local", "dense"])
def test_a_net_of_permuted_pixels_is_the_net_of_the_permuted_image(model):
    config = RunConfig(model="dense", dense_units="3") if model == "dense" else CONFIG.replace(model=model, conv="auto")
    [image] = arrays((1, 6, 4, 1))
    plain, mixed = (build(plan(config.replace(pixels=pixels), (6, 4, 1), 3)) for pixels in ("grid", "permuted"))
    params = jax.jit(plain.init)(jax.random.key(0), image)["params"]
    found = jax.jit(mixed.apply)({"params": params}, image)
    np.testing.assert_allclose(found, jax.jit(plain.apply)({"params": params}, PermutePixels()(image)), rtol=1e-5)


def test_what_keras_does_not_have_is_not_exported(tmp_path):
    for changes, name in [({"model": "local"}, "LocallyConnected2D"), ({"pixels": "permuted"}, "PermutePixels")]:
        with pytest.raises(UserError, match=name):
            save_keras(tmp_path / "net.keras", {}, plan(RunConfig(**changes), (28, 28, 1), 10))
    assert not list(tmp_path.iterdir())
