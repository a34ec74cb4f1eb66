"""Grad-CAM, gradients and occlusion against their formulas and against brute force."""

import jax
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.explain import saliency
from convjax.nn.geometry import input_span, plan
from tests.explain.networks import network

SHAPE, CLASSES = (9, 8, 1), 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, *SHAPE), dtype=np.uint8)
WANTED = np.array([2, 0])


@pytest.fixture(scope="module")
def convnet():
    """One convolution without a hidden dense layer: its gradients can be written down."""
    return network(RunConfig(channels="4", kernel_size="3x2", dense_units="0"), SHAPE, CLASSES, unit=True)


def correlation(image, kernel):
    """relu-less output of a valid convolution, `[rows, columns, channels]`."""
    height, width = kernel.shape[:2]
    return np.array(
        [
            [
                np.tensordot(image[row : row + height, column : column + width], kernel, 3)
                for column in range(image.shape[1] - width + 1)
            ]
            for row in range(image.shape[0] - height + 1)
        ]
    )


def logits_of(params, image):
    """The network of `convnet`, in NumPy: `image` is 0..1."""
    first, last = (jax.tree.map(lambda x: np.asarray(x, np.float64), params[name]) for name in ("conv2d_1", "dense_1"))
    maps = np.maximum(correlation(image, first["kernel"]) + first["bias"], 0)
    return maps, maps.reshape(-1) @ last["kernel"] + last["bias"]


def test_grad_cam_is_its_formula(convnet):
    layers, params = convnet
    found = saliency.grad_cam(layers, params, IMAGES, WANTED, "conv2d_1")
    for image, wanted, cam in zip(IMAGES, WANTED, found, strict=True):
        maps, _ = logits_of(params, image / 255)
        # The classifier is linear in the maps: the logit's slope is its kernel.
        slopes = np.asarray(params["dense_1"]["kernel"])[:, wanted].reshape(maps.shape)
        alpha = slopes.mean((0, 1))
        np.testing.assert_allclose(cam, np.maximum((alpha * maps).sum(-1), 0), atol=1e-4)
    assert found.shape == (2, 7, 7)


def test_a_gradient_is_the_logits_slope(convnet):
    layers, params = convnet
    found = saliency.gradients(layers, params, IMAGES, WANTED)
    step = 1e-5
    for image, wanted, gradient in zip(IMAGES, WANTED, found, strict=True):
        for row, column in ((0, 0), (4, 3), (8, 7)):
            ends = []
            for sign in (1, -1):
                moved = image / 255
                moved[row, column, 0] += sign * step
                ends.append(logits_of(params, moved)[1][wanted])
            assert gradient[row, column, 0] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-3)


def test_a_smoothed_gradient_is_the_mean_of_gradients(convnet):
    layers, params = convnet
    key, noise, samples = jax.random.key(3), 0.2, 4
    found = saliency.smooth_gradients(layers, params, IMAGES, WANTED, key, samples=samples, noise=noise)

    def logit(scaled, wanted):
        x = jax.lax.conv_general_dilated(
            scaled[None], params["conv2d_1"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        maps = jax.nn.relu(x + params["conv2d_1"]["bias"][None, None, None])
        return (maps.reshape(-1) @ params["dense_1"]["kernel"])[wanted]

    slope = jax.jit(jax.grad(logit))
    noises = [noise * jax.random.normal(each, IMAGES.shape) for each in jax.random.split(key, samples)]
    for place in range(2):
        scaled = IMAGES[place].astype(np.float32) / 255
        mean = np.mean([slope(scaled + each[place], WANTED[place]) for each in noises], axis=0)
        np.testing.assert_allclose(found[place], mean, atol=1e-4)
    without = saliency.smooth_gradients(layers, params, IMAGES, WANTED, key, samples=samples, noise=0.0)
    np.testing.assert_allclose(without, saliency.gradients(layers, params, IMAGES, WANTED), atol=1e-5)


@pytest.mark.parametrize(("window", "stride", "fill"), [(3, 1, 0.0), (4, 2, 0.5)])
def test_occlusion_is_brute_force(window, stride, fill, convnet):
    layers, params = convnet
    found = saliency.occlusion(layers, params, IMAGES[0], window=window, stride=stride, fill=fill)
    scaled = IMAGES[0] / 255
    base = logits_of(params, scaled)[1]
    assert found.shape == ((9 - window) // stride + 1, (8 - window) // stride + 1, CLASSES)
    for row, column in np.ndindex(*found.shape[:2]):
        covered = scaled.copy()
        covered[row * stride : row * stride + window, column * stride : column * stride + window] = fill
        np.testing.assert_allclose(found[row, column], base - logits_of(params, covered)[1], atol=1e-3)


def test_what_cannot_be_explained_is_refused(convnet):
    layers, params = convnet
    with pytest.raises(UserError, match="does not fit an image of 9x8"):
        saliency.occlusion(layers, params, IMAGES[0], window=9)
    with pytest.raises(UserError, match="no layer 'dense_1' to look at; expected one of: conv2d_1"):
        saliency.grad_cam(layers, params, IMAGES, WANTED, "dense_1")


def test_a_position_is_in_the_middle_of_what_it_sees():
    layers = plan(RunConfig(), (28, 28, 1), 10)
    rows, columns = saliency.centers(layers, "conv2d_3")
    assert rows.tolist() == columns.tolist() == [8.5, 12.5, 16.5]
    config = RunConfig(channels="2-3", kernel_size="5x3-2", stride="2x1-1", pool_size="3x2")
    layers = plan(config, (40, 20, 1), 10)
    for name in ("conv2d_1", "max_pooling2d_1", "conv2d_2"):
        index = next(index for index, layer in enumerate(layers) if layer.name == name)
        found = saliency.centers(layers, name)
        for axis in range(2):
            for place, center in enumerate(found[axis]):
                seen = input_span(layers[: index + 1], [place if each == axis else 0 for each in range(2)])[axis]
                assert center == (seen.start + seen.stop - 1) / 2
    same = plan(RunConfig(channels="2", padding="same", kernel_size="3"), (6, 6, 1), 2)
    assert saliency.centers(same, "conv2d_1")[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_coarse_map_is_placed_at_its_centers():
    values = np.array([[0.0, 2.0], [4.0, 8.0]])
    placed = saliency.place(values, (np.array([1.0, 3.0]), np.array([0.0, 4.0])), (5, 5))
    assert placed[1, 0] == 0
    assert placed[3, 4] == 8
    assert placed[2, 2] == pytest.approx(3.5)
    assert placed[0, 0] == placed[1, 0]  # constant beyond the last center
    assert placed[4, 4] == 8
