"""The cache of prepared data on disk.

`ROOT/NAME/` holds, for each data set, `raw/` (downloaded files), `VERSION/` (TFDS's copy, array_record) and `decoded/`
(one .npy per array and `meta.json`, memory-mapped at start). Everything is made in a temporary folder under ROOT and
renamed into place, so a reader, or a process that does the same at the same time, never sees an unfinished folder.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convjax.data.rows import Rows
from convjax.errors import UnavailableError, UserError
from convjax.files import sync_folder, write_atomic, write_json_atomic

Pair = tuple[np.ndarray | Rows, np.ndarray]
"""Images, uint8 [n, height, width, channels] (an array or a selection of its rows), and their labels, int32 [n]."""

_FORMAT = 1
_SPLITS, _ARRAYS = ("train", "test", "validation"), ("images", "labels")
_HASHED_AT_ONCE = 1024
_SCRATCH = ".incomplete-"
_STALE_SECONDS = 24 * 3600
_CHUNK = 1 << 22
CHECK_DISK = "check whether the disk is failing"


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """A data set as arrays.

    Attributes:
      name: as requested.
      fingerprint: see `fingerprint`.
      source: where the raw data came from, in words.
      folder: where it is kept; None for data that ships with convjax.
      validation: the data set's own validation split, if it has one.
      details: JSON values: `notes` for the user, and the files `left_out`.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    source: str
    train: Pair
    test: Pair
    folder: Path | None = None
    validation: Pair | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Roots:
    """Folders of prepared data: those to search, in order, and the one to write to."""

    read: tuple[Path, ...]
    write: Path


def user_cache() -> Path:
    """`$CONVJAX_DATA_DIR`, or `$XDG_CACHE_HOME/convjax/data`, or `~/.cache/convjax/data`."""
    if folder := os.environ.get("CONVJAX_DATA_DIR"):
        return Path(folder).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and os.path.isabs(base) else Path("~/.cache").expanduser()) / "convjax" / "data"


def roots(data_dir: str) -> Roots:
    """Where to search for prepared data and where to write it, given `--data_dir`.

    Raises:
      UserError: `data_dir` is not a folder.
    """
    if not data_dir:
        return Roots((user_cache(),), user_cache())
    folder = Path(data_dir).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--data_dir={data_dir} is a file; give the folder that holds the data files, or an empty one")
    if _writable(folder):
        return Roots((folder,), folder)
    return Roots((folder, user_cache()), user_cache())


def _writable(folder: Path) -> bool:
    """Whether `folder` is meant to be written to: a superuser can write to a read-only folder, but should not."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


@contextlib.contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A temporary folder under `root`, on the same file system, removed at the end.

    Raises:
      UnavailableError: nothing can be written there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=_SCRATCH))
    except OSError as error:
        raise UnavailableError(
            f"cannot write to {root} ({error.strerror or error}); prepared data needs a folder: "
            "set --data_dir or the environment variable CONVJAX_DATA_DIR to one you may write to"
        ) from error
    try:
        yield folder
    except OSError as error:
        raise UnavailableError(f"cannot prepare data in {root}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Removes old temporary folders that killed processes left behind."""
    for folder in root.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def install(made: Path, destination: Path, good: Callable[[], bool]) -> None:
    """Renames the folder `made` to `destination`.

    If `destination` exists (another process was faster), it stays if `good()` says that it is usable; else it is
    replaced.

    Raises:
      OSError: the folder cannot be renamed.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(10):
        try:
            os.rename(made, destination)
            sync_folder(destination.parent)
            return
        except OSError as error:
            problem = error
        if good():
            return
        aside = Path(tempfile.mkdtemp(dir=made.parent, prefix="replaced-"))
        with contextlib.suppress(FileNotFoundError):
            os.rename(destination, aside / "old")
    raise problem


def fingerprint(train: Pair, test: Pair, validation: Pair | None = None) -> str:
    """The first 16 hex digits of the SHA-256 of the images and labels of all splits."""
    digest = hashlib.sha256()
    for images, labels in (train, test, *([validation] if validation else [])):
        digest.update(f"{images.shape} {labels.shape}".encode())
        for start in range(0, len(images), _HASHED_AT_ONCE):
            digest.update(np.ascontiguousarray(images[start : start + _HASHED_AT_ONCE], np.uint8).data)
        digest.update(np.ascontiguousarray(labels, "<i4").data)
    return digest.hexdigest()[:16]


def write(root: Path, key: str, decoded: Decoded) -> Decoded:
    """Writes the arrays to `decoded.folder`, which is in `root`; returns them as `read` gets them from there.

    Raises:
      UnavailableError: they cannot be written, or cannot be read back.
    """
    place = decoded.folder
    assert place is not None
    with scratch(root) as temporary:
        folder = temporary / "decoded"
        folder.mkdir()
        arrays = {}
        for split in _SPLITS:
            for what, array in zip(_ARRAYS, getattr(decoded, split) or (), strict=False):
                path = folder / f"{split}_{what}.npy"
                write_atomic(path, lambda file, array=array: np.save(file, array, allow_pickle=False))
                arrays[path.stem] = {"bytes": path.stat().st_size, "crc32": _crc32(path)}
        meta = {
            "format": _FORMAT,
            "key": key,
            "name": decoded.name,
            "fingerprint": decoded.fingerprint,
            "source": decoded.source,
            "class_names": list(decoded.class_names),
            "arrays": arrays,
            "details": dict(decoded.details),
        }
        write_json_atomic(folder / "meta.json", meta)
        install(folder, place / "decoded", good=lambda: read(place, key) is not None)
    kept = read(place, key)
    if kept is None:
        raise UnavailableError(f"{place}: it reads back differently from what was written; {CHECK_DISK}")
    return kept


def find(roots: Roots, name: str, key: str) -> Decoded | None:
    """The arrays kept in the folder `name` of the first root that has good ones; see `read`."""
    return next((kept for root in roots.read if (kept := read(root / name, key)) is not None), None)


def read(folder: Path, key: str) -> Decoded | None:
    """The memory-mapped arrays in `folder/decoded`; None if there are none, or they are damaged or of other data.

    Args:
      folder: the data set's.
      key: says what the arrays must have been made from.
    """
    try:
        meta = json.loads((folder / "decoded" / "meta.json").read_text())
        if meta["format"] != _FORMAT or meta["key"] != key:
            return None
        entries, decoded = meta["arrays"], folder / "decoded"

        def pair(split: str) -> Pair:
            names = (f"{split}_{what}" for what in _ARRAYS)
            images, labels = (_map(decoded / f"{name}.npy", entries[name]) for name in names)
            return images, labels

        return Decoded(
            name=meta["name"],
            fingerprint=meta["fingerprint"],
            class_names=tuple(map(str, meta["class_names"])),
            source=meta["source"],
            train=pair("train"),
            test=pair("test"),
            folder=folder,
            validation=pair("validation") if "validation_images" in entries else None,
            details=meta.get("details", {}),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _map(path: Path, entry: Mapping[str, Any]) -> np.ndarray:
    if path.stat().st_size != entry["bytes"]:
        raise ValueError(f"{path} has changed size")
    if _crc32(path) != entry["crc32"]:
        raise ValueError(f"{path} has changed content")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            value = zlib.crc32(piece, value)
    return value
