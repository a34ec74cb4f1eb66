"""Reads IDX files (http://yann.lecun.com/exdb/mnist) that may be wrong, cut, swapped or hostile.

The size in a file's header is never trusted: no more is read than the file's catalog entry allows.
"""

import hashlib
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convjax.data.idx.catalog import RawFile, owner
from convjax.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
# An IDX file begins with two zeros, the element type (8: unsigned byte) and the number of dimensions. The
# dimensions follow as 4 bytes each, big-endian.
_MAGIC = {"labels": b"\0\0\x08\x01", "images": b"\0\0\x08\x03"}
_CHUNK = 1 << 20
ADVICE = "delete it or put the right file there"


def array_shape(file: RawFile, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of the array in `file`: [count] or [count, height, width]."""
    return (file.count,) if file.kind == "labels" else (file.count, *image_shape[:2])


def file_size(file: RawFile, image_shape: tuple[int, int, int]) -> int:
    """Bytes of `file` before compression."""
    shape = array_shape(file, image_shape)
    return _header_size(shape) + math.prod(shape)


def read(path: Path, file: RawFile, image_shape: tuple[int, int, int], num_classes: int) -> np.ndarray:
    """Reads and verifies one IDX file, gzip-compressed or not (its content decides, not its name).

    Args:
      path: of the file.
      file: the kind, count and hash that it must have.
      image_shape: (height, width, 1) of each image.
      num_classes: labels must be below this.

    Returns:
      uint8 [count, height, width, 1] for images, int32 [count] for labels.

    Raises:
      UserError: it is not that file; the message begins with the path and says what is wrong.
    """
    shape = array_shape(file, image_shape)
    content, gzip_sha256 = _content(path, file, shape)
    if file.sha256:
        _check_hash(path, "its content", hashlib.sha256(content).hexdigest(), file.sha256)
    elif gzip_sha256:
        _check_hash(path, "it", gzip_sha256, file.gzip_sha256)
    else:
        raise UserError(f"{path}: only the compressed file can be verified; put {file.name}.gz there, as published")

    array = np.frombuffer(content, np.uint8, offset=_header_size(shape)).reshape(shape)
    if file.kind == "images":
        return array[..., None]
    if array.size and int(array.max()) >= num_classes:
        place = int(np.argmax(array >= num_classes))
        raise UserError(f"{path}: label {place:,} is {array[place]}, labels must be below {num_classes}; {ADVICE}")
    return array.astype(np.int32)


def _header_size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape)


def _content(path: Path, file: RawFile, shape: tuple[int, ...]) -> tuple[bytearray, str]:
    """The decompressed content, whose header and length are right, and the SHA-256 of the gzip data (empty: none)."""
    header_size = _header_size(shape)
    whole = header_size + math.prod(shape)
    content, compressed = bytearray(), hashlib.sha256()
    try:
        with path.open("rb") as stream:
            is_gzip = stream.read(2) == GZIP_MAGIC
            stream.seek(0)
            for piece in _gunzip(path, stream, compressed) if is_gzip else _pieces(stream):
                started = len(content) >= header_size
                content += piece
                if not started and len(content) >= header_size:
                    _check_header(path, bytes(content[:header_size]), file, shape)
                if len(content) > whole:
                    raise UserError(f"{path}: goes on after its {file.count:,} {file.kind}; {ADVICE}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) < header_size:
        _check_header(path, bytes(content), file, shape)
    if len(content) < whole:
        raise UserError(f"{path}: ends early: {len(content):,} bytes of {whole:,} are there; {ADVICE}")
    return content, compressed.hexdigest() if is_gzip else ""


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(_CHUNK), b"")


def _gunzip(path: Path, stream: BinaryIO, digest: Any) -> Iterator[bytes]:
    """Yields the decompressed content in pieces of at most 1 MiB; feeds the compressed bytes to `digest`."""
    decompressor = zlib.decompressobj(wbits=31)
    for piece in _pieces(stream):
        digest.update(piece)
        while piece:
            if decompressor.eof:
                raise UserError(f"{path}: has other bytes after its gzip data; {ADVICE}")
            try:
                yield decompressor.decompress(piece, _CHUNK)
            except zlib.error as error:
                raise UserError(f"{path}: its gzip data is damaged ({error}); {ADVICE}") from error
            piece = decompressor.unconsumed_tail or decompressor.unused_data
    if not decompressor.eof:
        raise UserError(f"{path}: its gzip data ends early; {ADVICE}")


def _check_header(path: Path, header: bytes, file: RawFile, shape: tuple[int, ...]) -> None:
    """Refuses an IDX header that is not the one `file` must have."""
    expected = _MAGIC[file.kind] + b"".join(size.to_bytes(4, "big") for size in shape)
    if header == expected:
        return
    if not header:
        raise UserError(f"{path}: is empty; {ADVICE}")
    for kind, magic in _MAGIC.items():
        if header.startswith(magic) and kind != file.kind:
            raise UserError(f"{path}: holds {kind} where {file.kind} were expected (swapped files?); {ADVICE}")
    if not header.startswith(_MAGIC[file.kind]):
        raise UserError(f"{path}: is not an IDX file of {file.kind}: it begins with {header[:4].hex(' ')}; {ADVICE}")
    if len(header) < len(expected):
        raise UserError(f"{path}: ends within its header; {ADVICE}")
    sizes = [int.from_bytes(header[start : start + 4], "big") for start in range(4, len(header), 4)]
    if sizes[0] != file.count:
        raise UserError(f"{path}: holds {sizes[0]:,} {file.kind}, expected {file.count:,}; {ADVICE}")
    found, wanted = ("x".join(map(str, dims)) for dims in (sizes[1:], shape[1:]))
    raise UserError(f"{path}: holds images of {found}, expected {wanted}; {ADVICE}")


def _check_hash(path: Path, what: str, found: str, expected: str) -> None:
    if found == expected:
        return
    if other := owner(found):
        raise UserError(f"{path}: this is {other} (SHA-256 {found}, expected {expected}); give each set its own folder")
    raise UserError(f"{path}: {what} has SHA-256 {found}, expected {expected}; {ADVICE}")
