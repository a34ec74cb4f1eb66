"""The IDX reader: right files round trip, wrong ones are refused by name and reason."""

import dataclasses
import gzip
import hashlib
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convjax.data.idx import catalog
from convjax.data.idx import reading as idx
from convjax.data.idx.catalog import RawFile
from convjax.errors import UserError
from tests.helpers.tiny_data import CLASSES, HEIGHT, TEST, TRAIN, WIDTH, idx_bytes, make_tiny

SHAPE = (HEIGHT, WIDTH, 1)
TINY = make_tiny()
IMAGES, LABELS = TINY.raw.train
TEST_IMAGES, TEST_LABELS = TINY.raw.test


def read(path, file, **changes):
    return idx.read(path, dataclasses.replace(file, **changes), SHAPE, CLASSES)


def refusal(tmp_path, content: bytes, file: RawFile, **changes) -> str:
    path = tmp_path / "given.gz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path, file, **changes)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_right_files(tmp_path, pack):
    for file in TINY.raw.files:
        (tmp_path / file.name).write_bytes(pack(TINY.content[file.name]))
        array = read(tmp_path / file.name, file)
        expected = TINY.arrays[file.name]
        assert array.dtype == (np.uint8 if file.kind == "images" else np.int32)
        assert array.shape == expected.shape + (1,) * (file.kind == "images")
        assert (array.reshape(expected.shape) == expected).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 30), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_round_trip(tmp_path, count, height, width, seed, packed):
    array = np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)
    content = idx_bytes(array)
    file = RawFile("x", "images", count, hashlib.sha256(content).hexdigest())
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert (idx.read(path, file, (height, width, 1), 1)[..., 0] == array).all()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_is_said_of_a_wrong_file(tmp_path, pack):
    content = TINY.content
    say = lambda given, file, **changes: refusal(tmp_path, pack(given), file, **changes)  # noqa: E731
    images, labels = content[IMAGES.name], content[LABELS.name]
    assert "holds images where labels were expected" in say(images, LABELS)
    assert "holds labels where images were expected" in say(labels, IMAGES)
    assert f"holds {TEST} images, expected {TRAIN}" in say(content[TEST_IMAGES.name], IMAGES)
    short = idx_bytes(TINY.arrays[LABELS.name][:-1])
    assert f"holds {TRAIN - 1} labels, expected {TRAIN}" in say(short, LABELS)
    assert "holds images of 5x6, expected 6x5" in say(idx_bytes(TINY.arrays[IMAGES.name].transpose(0, 2, 1)), IMAGES)
    assert f"ends early: {len(images) - 3:,} bytes of {len(images):,}" in say(images[:-3], IMAGES)
    assert "goes on after its 40 images" in say(images + b"\0", IMAGES)
    assert "ends within its header" in say(images[:9], IMAGES)
    assert "begins with 3c 68 74 6d" in say(b"<html>Log in to the hotel's network</html>", IMAGES)
    assert "begins with 00 00 0d 03" in say(b"\0\0\x0d\x03" + images[4:], IMAGES)
    wrong = bytearray(images)
    wrong[-1] ^= 1
    expected, found = IMAGES.sha256, hashlib.sha256(wrong).hexdigest()
    assert f"SHA-256 {found}, expected {expected}; delete it" in say(bytes(wrong), IMAGES)


def test_labels_out_of_range(tmp_path):
    labels = TINY.arrays[LABELS.name].copy()
    labels[7] = CLASSES
    content = idx_bytes(labels)
    message = refusal(tmp_path, content, LABELS, sha256=hashlib.sha256(content).hexdigest())
    assert f"label 7 is {CLASSES}, labels must be below {CLASSES}" in message


def test_empty_missing_and_unreadable_files(tmp_path):
    assert "is empty" in refusal(tmp_path, b"", IMAGES)
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        read(tmp_path / "none", IMAGES)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path, IMAGES)


def test_damaged_gzip(tmp_path):
    packed = gzip.compress(TINY.content[IMAGES.name])
    assert "its gzip data ends early" in refusal(tmp_path, packed[:-1], IMAGES)
    assert "its gzip data ends early" in refusal(tmp_path, packed[: len(packed) // 2], IMAGES)
    assert "other bytes after its gzip data" in refusal(tmp_path, packed + b"tail", IMAGES)
    assert "its gzip data is damaged" in refusal(tmp_path, packed[:-8] + bytes(4) + packed[-4:], IMAGES)


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(TINY.content[IMAGES.name])
    for _ in range(64):
        bomb += packer.compress(bytes(1 << 20))
    bomb += packer.flush()
    unpacked = []
    original = zlib.decompressobj

    class Counting:
        def __init__(self, **arguments):
            self._it = original(**arguments)

        def decompress(self, *arguments):
            piece = self._it.decompress(*arguments)
            unpacked.append(len(piece))
            return piece

        def __getattr__(self, name):
            return getattr(self._it, name)

    monkeypatch.setattr(idx.zlib, "decompressobj", Counting)
    assert "goes on after its 40 images" in refusal(tmp_path, bomb, IMAGES)
    assert sum(unpacked) <= 1 << 20


def test_where_only_the_published_gzip_has_a_known_hash(tmp_path):
    packed = gzip.compress(TINY.content[IMAGES.name], mtime=0)
    path = tmp_path / "x.gz"
    path.write_bytes(packed)
    assert (read(path, IMAGES, sha256="")[..., 0] == TINY.arrays[IMAGES.name]).all()
    assert "it has SHA-256" in refusal(tmp_path, gzip.compress(TINY.content[IMAGES.name], mtime=1), IMAGES, sha256="")
    message = refusal(tmp_path, TINY.content[IMAGES.name], IMAGES, sha256="")
    assert f"put {IMAGES.name}.gz there" in message


def test_files_of_another_known_set_are_recognized(tmp_path, monkeypatch):
    other = make_tiny(seed=1).raw
    monkeypatch.setitem(catalog.BUILT_IN, "other", dataclasses.replace(other, name="other"))
    message = refusal(tmp_path, make_tiny(seed=1).content[IMAGES.name], IMAGES)
    assert f"this is other's {IMAGES.name}" in message


def test_every_built_in_set_is_pinned():
    for dataset in catalog.BUILT_IN.values():
        assert len({file.name for file in dataset.files}) == 4
        for file in dataset.files:
            digests = [digest for digest in (file.sha256, file.gzip_sha256) if digest]
            assert digests
            assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
        assert all(address.startswith("https://") for address in dataset.mirrors)
