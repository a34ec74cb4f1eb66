"""Cats and dogs, from a small archive with the layout of the official one and a server on this machine."""

import hashlib
import io
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from convjax import data
from convjax.data.folders import cats_vs_dogs
from convjax.data.folders.cats_vs_dogs import Archive
from convjax.errors import UnavailableError, UserError
from tests.helpers.tiny_data import Server

PATH = "/download/petimages.zip"


def jpeg(seed: int, **options) -> bytes:
    """A JPEG whose mean gray is its seed."""
    buffer = io.BytesIO()
    Image.new("RGB", (9 + seed % 5, 12), (seed, seed, seed)).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def without_jfif(content: bytes) -> bytes:
    return content.replace(b"JFIF", b"XXXX", 1)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Numbers 0 to 11 of each class; cat 2 has no JFIF header, dog 1 is cut short, dog 3 is empty."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme[1].txt", "as in the original")
        archive.writestr("PetImages/Cat/Thumbs.db", b"litter")
        archive.writestr("PetImages/Cat/../../escape.jpg", jpeg(1))
        archive.writestr("/PetImages/Cat/99.jpg", jpeg(1))
        for number in (11, 10, *range(10)):  # the order of names and of numbers differ
            cat, dog = jpeg(20 + number), jpeg(120 + number)
            archive.writestr(f"PetImages/Cat/{number}.jpg", without_jfif(cat) if number == 2 else cat)
            archive.writestr(f"PetImages/Dog/{number}.jpg", {1: dog[:-20], 3: b""}.get(number, dog))
    return buffer.getvalue()


@pytest.fixture
def archive(server: Server, content: bytes, monkeypatch) -> Archive:
    server.give(PATH, content)
    monkeypatch.setattr(cats_vs_dogs, "SMALL", {"train": 4, "validation": 2, "test": 2})
    return Archive(server.address + PATH, len(content), hashlib.sha256(content).hexdigest(), allow_http=True)


def prepare(name: str, archive: Archive, data_dir="", lines=None):
    log = (lines if lines is not None else []).append
    return cats_vs_dogs.prepare(name, str(data_dir), size=(8, 8), color="auto", log=log, archive=archive)


def seeds(pair) -> list[int]:
    return [round(float(np.mean(image))) for image in pair[0]]


def test_the_books_subset_is_taken_in_the_order_of_the_numbers(archive, server, lines):
    decoded = prepare("cats_vs_dogs_small", archive, lines=lines)
    assert decoded.class_names == ("cat", "dog")
    assert decoded.train[0].shape == (8, 8, 8, 3)
    assert seeds(decoded.train) == [20, 21, 23, 24, 120, 122, 124, 125]
    assert seeds(decoded.validation) == [25, 26, 126, 127]
    assert seeds(decoded.test) == [27, 28, 128, 129]
    assert decoded.train[1].tolist() == [0] * 4 + [1] * 4
    assert decoded.details["left_out"] == 3
    reasons = {each["name"]: each["reason"] for each in decoded.details["left_out_files"]}
    assert reasons["Cat/2.jpg"] == reasons["Dog/3.jpg"] == "has no JFIF header"
    assert reasons["Dog/1.jpg"].startswith(("is damaged", "is no JPEG"))  # what Pillow 12 finds, and Pillow 10
    assert decoded.source == archive.url
    # The second time comes from the decoded copy, the other size from the kept archive.
    assert prepare("cats_vs_dogs_small", archive, lines=lines).fingerprint == decoded.fingerprint
    cats_vs_dogs.prepare("cats_vs_dogs_small", "", size=(9, 8), color="grey", log=lines.append, archive=archive)
    assert server.requests == [PATH]
    assert [line.partition(": ")[2].split()[0] for line in lines] == ["downloading", "decoding", "decoding"]


def test_all_of_it_is_split_by_content(archive, user_cache):
    decoded = prepare("cats_vs_dogs", archive)
    assert len(decoded.train[1]) == 9 + 8
    assert len(decoded.test[1]) == 2 + 2
    assert sorted(seeds(decoded.train) + seeds(decoded.test)) == [
        *(20 + number for number in range(12) if number != 2),
        *(120 + number for number in range(12) if number not in (1, 3)),
    ]
    # The archive was not unpacked.
    assert not list(user_cache.rglob("*.jpg"))


def test_an_archive_of_the_users_own_is_used_and_verified(archive, server, content, tmp_path):
    (tmp_path / "petimages.zip").write_bytes(content)
    decoded = prepare("cats_vs_dogs_small", archive, tmp_path)
    assert decoded.source == f"--data_dir={tmp_path}"
    assert not server.requests
    other = tmp_path / "other"
    other.mkdir()
    (other / "petimages.zip").write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"has {len(content) - 1:,} bytes, not the {len(content):,}"):
        prepare("cats_vs_dogs_small", archive, other)
    (other / "petimages.zip").write_bytes(content[:-1] + b"!")
    with pytest.raises(UserError, match="its SHA-256 is"):
        prepare("cats_vs_dogs_small", archive, other)


def test_a_wrong_download_is_refused_and_not_kept(archive, server, content, user_cache):
    server.give(PATH, content[:-1] + b"!")
    with pytest.raises(UnavailableError, match=r"its SHA-256 is .*\n.*--data_dir=FOLDER"):
        prepare("cats_vs_dogs_small", archive)
    server.give(PATH, content + b"more")
    with pytest.raises(UnavailableError, match="more than"):
        prepare("cats_vs_dogs_small", archive)
    assert not [path for path in user_cache.rglob("*") if path.is_file()]


def test_a_server_that_does_not_answer_is_reported_in_seconds(archive, server):
    server.hang(PATH)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="did not answer"):
        prepare("cats_vs_dogs", archive)
    assert time.monotonic() - started < 30, "this is no measurement: it is to end at all"


def test_too_few_images_for_the_subset(archive, monkeypatch):
    monkeypatch.setattr(cats_vs_dogs, "SMALL", {"train": 10, "validation": 1, "test": 1})
    with pytest.raises(UserError, match="fewer than 12 images of cat"):
        prepare("cats_vs_dogs_small", archive)


@pytest.mark.parametrize("name", ["cats_vs_dogs", "cats_vs_dogs_small"])
def test_without_a_size_nothing_is_downloaded(name, server):
    for ask in (data.load, data.image_info):
        with pytest.raises(UserError, match=r"differ in size; give the size .*--image_size=150"):
            ask(name)
    assert data.image_info(name, image_size="150") == ((150, 150, 3), 2)
    assert data.image_info(name, image_size="150", color="grey") == ((150, 150, 1), 2)


def test_the_official_archive_is_the_one_tfds_takes():
    from pathlib import Path

    import tensorflow_datasets as tfds

    listed = Path(tfds.__file__).parent / "url_checksums" / "cats_vs_dogs.txt"
    url, size, sha256, _ = listed.read_text().split("\t")
    official = cats_vs_dogs.OFFICIAL
    assert (official.url, official.size, official.sha256) == (url, int(size), sha256)
