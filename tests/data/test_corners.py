"""The position task: one patch at one of two places, and nothing else."""

import numpy as np
import pytest

from convjax import data
from convjax.errors import UserError


@pytest.mark.parametrize("margin", [0, 7, 10])
def test_every_patch_is_shown_once_at_each_place(margin):
    dataset = data.load(f"corners/{margin}")
    assert (dataset.image_shape, dataset.num_classes) == data.image_info(f"corners/{margin}") == ((28, 28, 1), 2)
    for split, count in ((dataset.train, 4000), (dataset.test, 1000)):
        assert split.images.shape == (count, 28, 28, 1)
        assert split.labels.tolist() == [0, 1] * (count // 2)
        upper_left, lower_right = split.images[::2], split.images[1::2]
        moved = 28 - 4 - 2 * margin
        np.testing.assert_array_equal(np.roll(upper_left, (moved, moved), (1, 2)), lower_right)
        rows, columns = np.nonzero(upper_left.any((0, 3)))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (margin, margin + 3, margin, margin + 3)
    seen = {image.tobytes() for image in dataset.train.images}
    assert not seen & {image.tobytes() for image in dataset.test.images}


def test_it_is_always_the_same_data():
    assert data.load("corners/0").fingerprint == "eb3c9fef212a0193"


def test_a_validation_slice_has_both_places():
    assert np.bincount(data.load("corners/3", validation_size=100).validation.labels).tolist() == [50, 50]


@pytest.mark.parametrize("name", ["corners/", "corners/x", "corners/11", "corners/-1"])
def test_other_margins_are_refused(name):
    for ask in (data.load, data.image_info):
        with pytest.raises(UserError, match="expected corners/MARGIN, such as corners/0, from 0 to 10"):
            ask(name)
