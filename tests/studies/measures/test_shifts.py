"""Shifted images and equivariance, against SciPy, XLA's windows and what can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.config import RunConfig
from convjax.data import Dataset, Split
from convjax.nn.geometry import plan
from convjax.studies.measures import shifts
from convjax.sweeps.measurements import Trained
from convjax.training.steps import Task

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("by", [(0, 0), (2, -1), (-3, 4), (7, 0), (0, -9), (6, 6)])
def test_a_shift_is_scipys(by):
    images = GENERATOR.integers(0, 256, (2, 6, 7, 1), np.uint8)
    expected = scipy.ndimage.shift(images, (0, *by, 0), order=0, cval=0)
    np.testing.assert_array_equal(shifts.shift(images, *by), expected)


@settings(max_examples=25)
@given(
    height=st.integers(12, 20),
    kernels=st.lists(st.integers(1, 5), min_size=2, max_size=2),
    strides=st.lists(st.integers(1, 2), min_size=2, max_size=2),
    paddings=st.lists(st.sampled_from(["valid", "same"]), min_size=2, max_size=2),
    pool=st.integers(1, 3),
)
def test_interior_positions_are_those_that_no_padding_reaches(height, kernels, strides, paddings, pool):
    """Sums of ones over XLA's windows: where padding was met, zeros were added and the sum is smaller."""
    config = RunConfig(
        channels="1-1",
        kernel_size="-".join(map(str, kernels)),
        stride="-".join(map(str, strides)),
        padding="-".join(paddings),
        pool_size=str(pool),
    )
    layers = plan(config, (height, 18, 1), 10)[:3]
    sums, full = np.ones((height, 18), np.float32), 1
    for layer in layers:
        sums = lax.reduce_window(sums, np.float32(0), lax.add, layer.window, layer.strides, layer.padding.upper())
        full *= layer.window[0] * layer.window[1]
    inside = np.zeros(sums.shape, bool)
    inside[shifts.interior(layers)] = True
    np.testing.assert_array_equal(inside, np.asarray(sums) == full)


def error(still, down, right, pixels, jump):
    rows, columns = still.shape[:2]
    maps = (array[None, :, :, None] for array in (still, down, right))
    within = (slice(0, rows), slice(0, columns))
    return shifts.equivariance_error(*maps, pixels=pixels, jump=(jump, jump), within=within)


def test_the_error_by_hand():
    still = np.array([[1.0, 2.0], [3.0, 4.0]])
    # Moved down by one position: [1, 2] should stand in the second row, and [5, 2] does. To the right: all is well.
    down, right = np.array([[9.0, 9.0], [5.0, 2.0]]), np.array([[9.0, 1.0], [9.0, 3.0]])
    assert error(still, down, right, 2, 2) == pytest.approx(np.sqrt(16 / (25 + 4 + 1 + 9)))
    assert error(still, still, still, 4, 2) is None  # nothing has a counterpart
    # Half a position: halfway between neighbours, and a ramp moves so exactly.
    ramp = np.arange(5.0)[:, None] + np.arange(5.0)
    assert error(ramp, ramp - 0.5, ramp - 0.5, 1, 2) == pytest.approx(0.0)
    assert error(ramp, ramp, ramp, 1, 2) > 0.05


def trained(config, images):
    labels = np.arange(len(images), dtype=np.int32) % 3
    split = Split(images, labels)
    dataset = Dataset("tiny", "0", ("a", "b", "c"), split, None, split)
    task = Task.of(config, images.shape[1:], 3, len(images))
    params = jax.jit(task.model.init)(jax.random.key(0), jnp.zeros((1, *images.shape[1:])))["params"]
    return Trained(config, task, params, dataset)


def test_convolutions_are_equivariant_and_pooling_is_for_multiples_of_its_stride():
    images = np.zeros((4, 24, 24, 1), np.uint8)
    images[:, 6:16, 6:16] = GENERATOR.integers(0, 256, (4, 10, 10, 1), np.uint8)
    found = shifts.measure_equivariance(trained(RunConfig(channels="2-3", dense_units="0"), images))
    assert found["layers"] == ["conv2d_1", "max_pooling2d_1", "conv2d_2"]
    assert found["shifts"] == [1, 2, 4]
    errors = np.array(found["inside"])
    assert errors[0].max() < 1e-6
    assert errors[1:, 1:].max() < 1e-6
    assert errors[1:, 0].min() > 0.05
    # Valid windows meet no padding anywhere.
    assert found["all"] == found["inside"]
    padded = shifts.measure_equivariance(trained(RunConfig(channels="2-3", dense_units="0", padding="same"), images))
    assert np.max(padded["inside"][0]) < 1e-6


def test_accuracy_of_shifted_images_is_that_of_the_images_shifted_by_hand(monkeypatch):
    monkeypatch.setattr(shifts, "LARGEST_SHIFT", 2)
    images = GENERATOR.integers(0, 256, (30, 8, 8, 1), np.uint8)
    net = trained(RunConfig(model="dense", dense_units="0"), images)
    found = shifts.measure_shifts(net)
    kernel = np.asarray(net.params["dense_1"]["kernel"])
    for row, down in enumerate(found["offsets"]):
        for column, right in enumerate(found["offsets"]):
            moved = scipy.ndimage.shift(images, (0, down, right, 0), order=0, cval=0)
            right_ones = (moved.reshape(30, -1) / 255 @ kernel).argmax(-1) == net.dataset.test.labels
            assert found["accuracy"][row][column] == pytest.approx(right_ones.mean())
            assert found["ink"][row][column] == pytest.approx(moved.sum() / images.sum())
    assert found["images"] == 30
