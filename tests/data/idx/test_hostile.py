"""The IDX reader on hostile files, plain and gzip-compressed: it reads exactly what a file holds, or refuses it."""

import contextlib
import hashlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import strategies as st

from convjax.data.idx import reading
from convjax.data.idx.catalog import RawFile
from convjax.errors import UserError
from tests.helpers.hostile import amounts, feed, mutated
from tests.helpers.limits import peak, read_or_refused
from tests.helpers.tiny_data import CLASSES, HEIGHT, WIDTH, make_tiny

TINY = make_tiny()
FILES = {file.name: file for file in TINY.raw.files}
SMALL = {
    "images": b"\0\0\x08\x03" + struct.pack(">III", 4, HEIGHT, WIDTH) + bytes(range(4 * HEIGHT * WIDTH)),
    "labels": b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([0, 1, 2, 3]),
}
PACKED = {kind: zlib.compress(content, wbits=31) for kind, content in SMALL.items()}
BOMB = zlib.compress(bytes(1 << 26), 9, 31)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "arena" / "inside"
    folder.mkdir(parents=True)
    return folder / "data-idx-ubyte"


def read(path, file):
    return read_or_refused(lambda: reading.read(path, file, (HEIGHT, WIDTH, 1), CLASSES), path.parent)


@amounts(300, 5_000)
@pytest.mark.parametrize("pack", [bytes, lambda content: zlib.compress(content, wbits=31)], ids=["plain", "gzip"])
def test_what_is_read_of_a_damaged_file_is_what_it_should_hold(path, pack, examples):
    def check(damaged):
        name, content = damaged
        path.write_bytes(content)
        array = read(path, FILES[name])
        # Some bits of a gzip header mean nothing.
        assert array is None or (array.ravel() == TINY.arrays[name].ravel()).all()

    feed(
        st.sampled_from(sorted(FILES)).flatmap(
            lambda name: st.tuples(st.just(name), mutated(pack(TINY.content[name])))
        ),
        check,
        examples,
    )


def matching(content: bytes) -> RawFile:
    """A catalog entry with the hash of this content: a reader that trusts the hash must still check the content."""
    kind = "labels" if b"\x08\x01" in content[:4] else "images"
    with contextlib.suppress(zlib.error):
        content = zlib.decompress(content, wbits=31)
    return RawFile("data-idx-ubyte", kind, 4, hashlib.sha256(content).hexdigest())


@amounts(400, 20_000)
def test_a_damaged_file_whose_hash_is_right_is_read_or_refused(path, examples):
    def check(content):
        path.write_bytes(content)
        array = read(path, matching(content))
        if array is not None and not content.startswith(reading.GZIP_MAGIC):
            assert array.astype(np.uint8).tobytes() == content[-array.size :]

    feed(st.sampled_from(sorted(SMALL.values()) + sorted(PACKED.values())).flatmap(mutated), check, examples)


@amounts(50, 2_000)
def test_a_gzip_bomb_is_refused(path, examples):
    def check(content):
        path.write_bytes(content)
        assert read(path, RawFile("data-idx-ubyte", "images", 4, "0" * 64)) is None

    feed(mutated(BOMB), check, examples, always=[BOMB])


@amounts(100, 5_000)
def test_random_bytes_are_refused(path, examples):
    def check(content):
        path.write_bytes(content)
        assert read(path, FILES["train-images-idx3-ubyte"]) is None

    feed(st.binary(max_size=200), check, examples)


@pytest.mark.parametrize("shape", [(2**31, 28, 28), (2**31, 2**31, 2**31)], ids=["2^31 images", "2^93 bytes"])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(path, shape):
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", *shape) + bytes(100))
    before = peak()
    with pytest.raises(UserError, match=r"holds 2,147,483,648 images, expected 10"):
        reading.read(path, RawFile("images", "images", 10, "0" * 64), (28, 28, 1), 10)
    assert peak() - before < 32 << 20
