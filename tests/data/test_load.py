"""The public functions: `load` with its sizes, and `image_info`."""

import dataclasses

import numpy as np
import pytest

from convjax import data
from convjax.data.idx import catalog
from convjax.errors import UserError
from tests.helpers.tiny_data import make_tiny


@pytest.fixture(autouse=True)
def known(monkeypatch, tmp_path):
    """Makes the tiny set a built-in one whose files are in tmp_path."""
    tiny = make_tiny()
    tiny.put(tmp_path)
    monkeypatch.setitem(catalog.BUILT_IN, "tiny", tiny.raw)
    return tiny


def load(tmp_path, **sizes):
    return data.load("tiny", str(tmp_path), **sizes)


def test_the_whole_of_it(known, tmp_path):
    dataset = load(tmp_path)
    assert dataset.name == "tiny"
    assert dataset.class_names == tuple("abcd")
    assert dataset.num_classes == 4
    assert dataset.image_shape == (6, 5, 1)
    assert dataset.validation is None
    assert np.array_equal(dataset.train.images[..., 0], known.arrays["train-images-idx3-ubyte"])
    assert np.array_equal(dataset.test.labels, known.arrays["t10k-labels-idx1-ubyte"])
    assert isinstance(dataset.train.images, np.memmap)


def rows(split):
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


def test_sizes(tmp_path):
    whole = load(tmp_path)
    small, large = load(tmp_path, train_size=8, validation_size=12), load(tmp_path, train_size=28, validation_size=12)
    rest = load(tmp_path, validation_size=12)
    assert [len(one.train.labels) for one in (small, large, rest)] == [8, 28, 28]
    assert rows(small.train) < rows(large.train) == rows(rest.train)
    assert rows(small.validation) == rows(large.validation) == rows(rest.validation)
    assert rows(rest.train) | rows(rest.validation) == rows(whole.train)
    assert not rows(rest.train) & rows(rest.validation)
    assert rows(small.test) == rows(whole.test)
    assert {one.fingerprint for one in (whole, small, large, rest)} == {whole.fingerprint}
    assert np.bincount(small.train.labels).tolist() == [2] * 4
    assert np.bincount(small.validation.labels).tolist() == [3] * 4


def test_types(tmp_path):
    dataset = load(tmp_path, train_size=8, validation_size=12)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.dtype == np.uint8
        assert split.images.ndim == 4
        assert split.labels.dtype == np.int32
        assert split.labels.shape == split.images.shape[:1]


def test_impossible_sizes(tmp_path):
    with pytest.raises(UserError, match="--train_size=41 "):
        load(tmp_path, train_size=41)
    with pytest.raises(UserError, match="need 41 examples"):
        load(tmp_path, train_size=21, validation_size=20)


def test_image_info_of_built_in_sets_touches_nothing(user_cache):
    for name in ("mnist", "fashion_mnist", "kmnist", "mnist_5k"):
        assert data.image_info(name) == ((28, 28, 1), 10)
    assert not list(user_cache.iterdir())


def test_data_dir_must_not_be_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UserError, match="is a file"):
        load(path)


def test_what_is_logged_goes_to_the_caller(tmp_path, lines):
    data.load("tiny", str(tmp_path), log=lines.append)
    data.load("tiny", str(tmp_path), log=lines.append)
    assert len(lines) == 1
    assert "preparing 60 images" in lines[0]


@pytest.mark.parametrize("package", [data, data.folders, data.idx, data.tfds], ids=lambda package: package.__name__)
def test_every_name_that_a_package_lists_is_there(package):
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_a_dataset_is_a_value(tmp_path):
    dataset = load(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.images[0] = 0
