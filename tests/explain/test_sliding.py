"""A sliding window, against SciPy and against the arithmetic of figures 5.5 to 5.7."""

import numpy as np
import pytest
from scipy.signal import correlate2d

from convjax.explain.sliding import slide_kernel, slide_maximum

RNG = np.random.default_rng(2)
IMAGE, KERNEL = RNG.normal(size=(5, 5)), RNG.normal(size=(3, 3))


@pytest.mark.parametrize(("padding", "steps"), [("valid", 9), ("same", 25)])
def test_steps_make_up_a_correlation(padding, steps):
    sliding = slide_kernel(IMAGE, KERNEL, padding=padding)
    assert len(sliding.steps) == steps
    np.testing.assert_allclose(sliding.output, correlate2d(IMAGE, KERNEL, padding), atol=1e-12)
    for step in sliding.steps:
        assert sliding.output[step] == pytest.approx((sliding.patch(step) * KERNEL).sum())


def test_a_stride_of_two_leaves_windows_out():
    sliding = slide_kernel(IMAGE, KERNEL, (2, 2))
    assert [sliding.corner(step) for step in sliding.steps] == [(0, 0), (0, 2), (2, 0), (2, 2)]
    np.testing.assert_allclose(sliding.output, correlate2d(IMAGE, KERNEL, "valid")[::2, ::2])


def test_same_puts_the_odd_row_of_zeros_after():
    sliding = slide_kernel(IMAGE, KERNEL[:2], padding="same")
    assert sliding.before == (0, 1)
    assert sliding.padded.shape == (6, 7)
    assert sliding.output.shape == (5, 5)
    assert (sliding.padded[5] == 0).all()


def test_max_pooling_takes_each_windows_largest():
    sliding = slide_maximum(IMAGE)
    assert sliding.kernel is None
    np.testing.assert_array_equal(sliding.output, IMAGE[:4, :4].reshape(2, 2, 2, 2).max((1, 3)))
