"""Any other TFDS name: with TFDS's mock data, and with its real builders on small archives of the right format."""

import builtins
import dataclasses
import hashlib
import io
import json
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image

from convjax import data
from convjax.data.tfds import names as tfds_names
from convjax.data.tfds import network as tfds_network
from convjax.data.tfds.without_tensorflow import TensorFlowNeeded, stand_in
from convjax.errors import UnavailableError, UserError


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch):
    """Hides TensorFlow, even if the test environment has it."""
    original = builtins.__import__

    def guarded(name, *arguments, **keywords):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", guarded)
    yield
    assert "tensorflow" not in sys.modules


# TFDS's mock data: https://www.tensorflow.org/datasets/api_docs/python/tfds/testing/mock_data


@pytest.fixture
def mocked(tmp_path):
    """Returns a function that makes TFDS pretend that a data set has been prepared, with certain splits."""

    def prepared(name: str, splits: list[str], examples: int = 7):
        builder = tfds.builder(name, data_dir=tmp_path)
        folder = Path(builder.data_dir)
        folder.mkdir(parents=True)
        described = {
            "name": builder.name,
            "version": str(builder.version),
            "fileFormat": "array_record",
            "splits": [{"name": split, "shardLengths": [str(examples)], "numBytes": "1"} for split in splits],
        }
        if builder.builder_config:
            described["configName"] = builder.builder_config.name
        (folder / "dataset_info.json").write_text(json.dumps(described))
        return tfds.testing.mock_data(
            num_examples=examples, policy=tfds.testing.MockPolicy.USE_FILES, data_dir=str(tmp_path)
        )

    return prepared


def test_mock_data(mocked, user_cache):
    with mocked("cifar10", ["train", "test"]):
        dataset = data.load("cifar10")
        assert dataset.image_shape == (32, 32, 3)
        assert dataset.num_classes == 10
        expected = list(tfds.data_source("cifar10", split="train"))
        assert np.array_equal(dataset.train.images, [example["image"] for example in expected])
        assert dataset.train.labels.tolist() == [example["label"] for example in expected]
        assert dataset.train.labels.dtype == np.int32
        assert len(dataset.test.labels) == 7
    assert (user_cache / "cifar10" / "decoded" / "meta.json").exists()
    assert data.load("cifar10").fingerprint == dataset.fingerprint


def test_mock_data_of_which_no_splits_are_known():
    with tfds.testing.mock_data(num_examples=5):
        dataset = data.load("cifar100", train_size=3)
    assert dataset.num_classes == 100
    assert len(dataset.train.labels) == 3
    assert len(dataset.test.labels) == 5


def test_mock_data_with_a_configuration_and_validation_for_test(mocked):
    with mocked("emnist/balanced", ["train", "validation"]):
        dataset = data.load("emnist/balanced", validation_size=2)
    assert dataset.num_classes == 47
    assert dataset.image_shape == (28, 28, 1)
    assert len(dataset.train.labels) == 5
    assert len(dataset.validation.labels) == 2
    assert len(dataset.test.labels) == 7


@pytest.mark.parametrize("splits", [["train"], ["test"], ["train", "extra"]])
def test_without_train_and_test_it_is_refused(mocked, splits):
    message = f"cifar10 has the splits {', '.join(splits)}; convjax needs train"
    with mocked("cifar10", splits), pytest.raises(UserError, match=message):
        data.load("cifar10")


def test_images_of_differing_size_are_refused(mocked):
    with mocked("cats_vs_dogs", ["train", "test"]), pytest.raises(UserError, match="its images differ in size"):
        data.load("cats_vs_dogs")


# TFDS's real builders, which need TensorFlow, on local archives of the right format.


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder with a CIFAR-10 archive of six images per file that TFDS accepts as the real one; and its arrays."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 6, 3, 32, 32), np.uint8), rng.integers(0, 10, (6, 6), np.uint8)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    members = {"cifar-10-batches-bin/batches.meta.txt": b"\n".join(f"class{i}".encode() for i in range(10))}
    for name, pixels, classes in zip(names, images, labels, strict=True):
        rows = (bytes([label]) + image.tobytes() for image, label in zip(pixels, classes, strict=True))
        members[f"cifar-10-batches-bin/{name}.bin"] = b"".join(rows)
    content = archive(members)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "cifar-10-binary.tar.gz").write_bytes(content)

    builder = tfds.builder_cls("cifar10")
    (url,) = builder.url_infos
    info = dataclasses.replace(
        builder.url_infos[url], checksum=hashlib.sha256(content).hexdigest(), size=tfds.core.utils.Size(len(content))
    )
    monkeypatch.setitem(builder.url_infos, url, info)
    return folder, images.transpose(0, 1, 3, 4, 2), labels


def contents(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def test_tfds_prepares_cifar10_from_the_users_file_without_tensorflow(cifar10, lines, user_cache, capsys):
    folder, images, labels = cifar10
    dataset = data.load("cifar10", str(folder), log=lines.append)
    assert contents(dataset.train.images, dataset.train.labels) == contents(
        images[:5].reshape(-1, 32, 32, 3), labels[:5].ravel()
    )
    assert contents(dataset.test.images, dataset.test.labels) == contents(images[5], labels[5])
    assert lines == ["cifar10: TFDS downloads and prepares it (once)"]
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in (folder / "cifar10").iterdir()) == ["3.0.2", "decoded"]
    assert not list(folder.glob(".incomplete-*"))
    assert not list(user_cache.iterdir())

    (folder / "cifar-10-binary.tar.gz").unlink()
    again = data.load("cifar10", str(folder), log=lines.append)
    assert again.fingerprint == dataset.fingerprint
    (folder / "cifar10" / "decoded" / "test_images.npy").unlink()
    assert data.load("cifar10", str(folder), log=lines.append).fingerprint == dataset.fingerprint
    assert len(lines) == 1
    assert tfds.builder("cifar10", data_dir=folder).info.splits["train"].num_examples == 30


def test_a_damaged_prepared_copy_is_made_again(cifar10, lines):
    folder, _, _ = cifar10
    first = data.load("cifar10", str(folder))
    (folder / "cifar10" / "decoded" / "meta.json").unlink()
    for path in (folder / "cifar10" / "3.0.2").glob("*train*array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    assert data.load("cifar10", str(folder), log=lines.append).fingerprint == first.fingerprint
    assert "cannot be read" in lines[0]
    assert "prepares it (once)" in lines[1]
    (folder / "cifar-10-binary.tar.gz").unlink()
    (folder / "cifar10" / "decoded" / "meta.json").unlink()
    assert data.load("cifar10", str(folder), log=lines.append).fingerprint == first.fingerprint


def test_a_wrong_file_of_the_users_is_refused(cifar10):
    folder, _, _ = cifar10
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=rf"{path}: its SHA-256 is not the one TFDS lists"):
        data.load("cifar10", str(folder))


def test_a_decoded_copy_from_a_folder_only_for_reading(cifar10, user_cache):
    folder, _, _ = cifar10
    first = data.load("cifar10", str(folder))
    (folder / "cifar10" / "decoded" / "meta.json").unlink()
    folder.chmod(0o555)
    assert data.load("cifar10", str(folder)).fingerprint == first.fingerprint
    assert (user_cache / "cifar10" / "decoded" / "meta.json").exists()
    folder.chmod(0o755)


# When no download succeeds


CIFAR10 = r"https://www\.cs\.toronto\.edu/~kriz/cifar-10-binary\.tar\.gz"


def test_a_closed_network_is_reported_in_time(monkeypatch, server):
    assert tfds_network._ANSWER_SECONDS <= 10
    monkeypatch.setattr(tfds_network, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: server.closing.wait(60))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=f"{CIFAR10}: did not answer") as caught:
        data.load("cifar10")
    assert time.monotonic() - started < 10
    advice = str(caught.value).splitlines()[-1]
    assert "cifar-10-binary.tar.gz" in advice
    assert "--data_dir" in advice
    assert "mnist_5k" in advice


def test_a_network_that_refuses_is_reported_at_once(monkeypatch, user_cache):
    def refuse(*_, **__):
        raise OSError(111, "Connection refused")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(UnavailableError, match=f"{CIFAR10}: Connection refused"):
        data.load("cifar10")
    assert not list(user_cache.glob("cifar10*"))


@pytest.fixture
def playing_toronto(server, monkeypatch):
    """Sends every request to the loopback server instead."""
    original = requests.get
    monkeypatch.setattr(requests, "get", lambda url, **kw: original(server.address + "/cifar-10-binary.tar.gz", **kw))
    return server


def test_tfds_downloads_by_itself(cifar10, playing_toronto, tmp_path):
    folder, images, labels = cifar10
    playing_toronto.give("/cifar-10-binary.tar.gz", (folder / "cifar-10-binary.tar.gz").read_bytes())
    dataset = data.load("cifar10", str(tmp_path / "elsewhere"))
    assert contents(dataset.test.images, dataset.test.labels) == contents(images[5], labels[5])
    assert playing_toronto.requests == ["/cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("how", ["missing", "cut", "another file"])
def test_a_bad_download_is_refused(cifar10, playing_toronto, tmp_path, how):
    folder, _, _ = cifar10
    content = (folder / "cifar-10-binary.tar.gz").read_bytes()
    if how == "cut":
        playing_toronto.give("/cifar-10-binary.tar.gz", content[:500], length=len(content))
    elif how == "another file":
        playing_toronto.give("/cifar-10-binary.tar.gz", b"other")
    message = {"missing": "HTTP 404", "cut": "IncompleteRead", "another file": "wrong checksum"}[how]
    with pytest.raises(UnavailableError, match=message):
        data.load("cifar10", str(tmp_path / "elsewhere"))
    assert not list((tmp_path / "elsewhere").glob("cifar10*"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "--dataset=cifar11 is unknown: did you mean .*cifar10"),
        ("fashionmnist", "did you mean fashion_mnist"),
        ("zzzzzz", "there are mnist, fashion_mnist, kmnist, mnist_5k and TFDS's names"),
        ("", "--dataset= is unknown"),
        ("../../etc/passwd", "is unknown"),
        ("/cifar10", "is unknown"),
        ("cifar10/..", "is unknown"),
        ("huggingface:mnist", "is unknown"),
        ("cifar10/nothing", "cifar10 has version 3.0.2 and no configurations"),
        ("emnist/nothing", "emnist has the configurations emnist/byclass"),
        ("cifar10:9.9.9", "is unknown: cifar10 has version 3.0.2"),
        ("imdb_reviews", "not an image-classification data set: it has .*text"),
        ("coco", "TFDS cannot open it without the package tensorflow"),
    ],
)
@pytest.mark.parametrize("ask", [data.load, data.image_info])
def test_names_that_are_no_use_are_refused(ask, name, message):
    with pytest.raises(UserError, match=message):
        ask(name)


def test_image_info():
    assert data.image_info("cifar10") == ((32, 32, 3), 10)
    assert data.image_info("emnist/balanced") == ((28, 28, 1), 47)
    with pytest.raises(UserError, match="does not say how large"):
        data.image_info("imagenet2012")


def test_data_that_only_a_person_can_download():
    with pytest.raises(
        UserError, match=r"imagenet2012 must be downloaded by hand.*--data_dir.*ILSVRC2012_img_train\.tar"
    ):
        data.load("imagenet2012")


# The stand-ins for TensorFlow


class Local(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that reads files as TFDS's do; `ask` is its use of TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    ask = staticmethod(list)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 3, None)),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index, image in enumerate(self.ask()):
            yield index, {"image": image, "label": 0}


tf = None  # where TFDS's builders have TensorFlow, or a promise of it


def prepared(tmp_path, ask):
    builder = Local(data_dir=tmp_path, file_format="array_record")
    builder.ask = ask
    with stand_in(builder):
        builder.download_and_prepare()
    return [example["image"] for example in builder.as_data_source(split="train")]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_survive_being_encoded(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 3, channels), np.uint8)
    original = tfds.features.Image(shape=(4, 3, channels))._image_encoder._encode_image
    assert tf is None
    assert original.__module__.startswith("tensorflow_datasets")
    monkey = tfds.features.Image(shape=(4, 3, channels))
    with stand_in(Local(data_dir=tmp_path)):
        encoded = monkey.encode_example(image)
        with pytest.raises(ValueError, match="was declared"):
            monkey.encode_example(image[:2])
        with pytest.raises(TensorFlowNeeded, match="uint16"):
            monkey.encode_example(image.astype(np.uint16))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))).reshape(image.shape), image)


def test_gfile(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_text("zwölf", encoding="utf-8")
    (tmp_path / "in" / "a.bin").write_bytes(b"\xff\x00")

    def ask():
        gfile = tf.io.gfile
        folder = str(tmp_path / "in")
        assert gfile.listdir(folder) == ["a.bin", "b.txt"]
        assert gfile.glob(folder + "/*.txt") == [folder + "/b.txt"]
        assert gfile.glob([folder + "/*.txt", folder + "/*.bin"]) == [folder + "/a.bin", folder + "/b.txt"]
        assert gfile.exists(folder)
        assert gfile.isdir(folder)
        assert not gfile.exists(folder + "/c")
        with gfile.GFile(folder + "/b.txt") as file:
            assert file.read() == "zwölf"
        with gfile.GFile(folder + "/a.bin", "rb") as file:
            assert file.read() == b"\xff\x00"
        gfile.makedirs(folder + "/new")
        gfile.copy(folder + "/a.bin", folder + "/new/c", overwrite=True)
        assert [names for _, _, names in gfile.walk(folder + "/new")] == [["c"]]
        return [np.zeros((4, 3, 3), np.uint8)]

    assert len(prepared(tmp_path, ask)) == 1
    assert tf is None


def test_what_has_no_stand_in_is_named(tmp_path):
    with pytest.raises(TensorFlowNeeded, match=r"^tf\.image\.decode_png$|^tf\.image$"):
        prepared(tmp_path, lambda: [tf.image.decode_png(b"")])
    error = TensorFlowNeeded("tf.image")
    builder = tfds.builder("cifar10", data_dir=tmp_path)
    unknown = RuntimeError("x")
    assert tfds_names._translated("some_set", builder, None, unknown) is unknown
    wrapped = RuntimeError("while preparing")
    wrapped.__cause__ = error
    translated = tfds_names._translated("some_set", builder, None, wrapped)
    assert isinstance(translated, UserError)
    assert "prepares it with tf.image, which convjax does not use" in str(translated)
    assert "file_format='array_record'" in str(translated)
