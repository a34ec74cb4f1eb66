"""From raw files to arrays: fetch, verify, prepare with TFDS and decode once; later starts read the decoded copy."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convjax.data import cache, tfds
from convjax.data.cache import Decoded, Roots
from convjax.data.download import Log, Progress
from convjax.data.idx.catalog import FILES_FOLDER, RawDataset, RawFile
from convjax.data.idx.sources import Folders, Source, default_sources, gather, read_file, user_files
from convjax.errors import UnavailableError
from convjax.files import write_json_atomic

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


def prepare(
    raw: RawDataset,
    data_dir: str,
    *,
    log: Log,
    progress: Progress | None = None,
    sources: Sequence[Source] | None = None,
) -> Decoded:
    """A built-in data set: a good prepared copy of it if there is one, else made from its raw files.

    Args:
      raw: the data set.
      data_dir: the user's folder. Its raw files are used (and must be right); prepared data is kept in it if it is
        writable. Empty: the user's cache.
      log: receives news, one line at a time.
      progress: receives the bytes of each download.
      sources: of the raw files; `default_sources` by default.

    Raises:
      UserError: `data_dir` is not a folder, or a raw file in it is wrong.
      UnavailableError: no source could provide the raw files, or nothing can be written.
    """
    if raw.embedded:
        return _embedded(raw)
    roots = cache.roots(data_dir)
    if data_dir:
        _refuse_wrong_files(raw, user_files(raw, data_dir), roots)
    if kept := cache.find(roots, raw.name, raw.key):
        return kept
    for root in roots.read:
        decoded = _from_tfds_copy(raw, root, roots.write)
        if decoded is not None:
            log(f"{raw.name}: decoded again from the prepared copy in {root / raw.name}")
            break
    else:
        if sources is None:
            sources = default_sources(raw, data_dir, roots.write)
        decoded = _from_raw_files(raw, sources, roots.write, log, progress)
    return cache.write(roots.write, raw.key, decoded)


def prepare_embedded_copy(raw: RawDataset, data_dir: str) -> Path:
    """Prepares a TFDS copy of data that ships with convjax, for other programs to open; returns its folder.

    Raises:
      UserError: `data_dir` is not a folder.
      UnavailableError: nothing can be written.
    """
    root = cache.roots(data_dir).write
    decoded = _embedded(raw)
    if _open_tfds_copy(raw, root) is None:
        _make_tfds_copy(raw, decoded, root)
    return root / raw.name


def _embedded(raw: RawDataset) -> Decoded:
    paths = {file: FILES_FOLDER / f"{file.name}.gz" for file in raw.files}
    return _decode(raw, paths, "convjax itself", None)


def _decode(raw: RawDataset, paths: dict[RawFile, Path], source: str, folder: Path | None) -> Decoded:
    """Reads the raw files. Reading verifies them, so that exactly the verified content is used."""
    images, labels, test_images, test_labels = (read_file(raw, file, paths[file]) for file in raw.files)
    train, test = (images, labels), (test_images, test_labels)
    return Decoded(raw.name, cache.fingerprint(train, test), raw.class_names, source, train, test, folder)


def _from_raw_files(
    raw: RawDataset, sources: Sequence[Source], root: Path, log: Log, progress: Progress | None
) -> Decoded:
    with cache.scratch(root) as scratch:
        paths, source = gather(raw, sources, scratch, log=log, progress=progress)
        decoded = _decode(raw, paths, source, root / raw.name)
        _keep(raw, [path for path in paths.values() if path.parent == scratch], root)
    log(f"{raw.name}: preparing {len(decoded.train[0]) + len(decoded.test[0]):,} images from {source} (once)")
    _make_tfds_copy(raw, decoded, root)
    reread = _from_tfds_copy(raw, root, root)
    if reread is None:
        raise UnavailableError(f"{root / raw.name}: the prepared copy cannot be read back; {cache.CHECK_DISK}")
    return reread


def _keep(raw: RawDataset, downloaded: Sequence[Path], root: Path) -> None:
    """Moves verified downloads to the folder where the next preparation finds them."""
    folder = root / raw.name / "raw"
    for path in downloaded:
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / path.name)
    _remember(raw, root, [folder / path.name for path in downloaded])


def _make_tfds_copy(raw: RawDataset, decoded: Decoded, root: Path) -> None:
    with cache.scratch(root) as scratch:
        builder = tfds.ArrayImages(
            raw.name,
            {"train": decoded.train, "test": decoded.test},
            raw.class_names,
            data_dir=scratch,
            description=raw.description,
            homepage=raw.homepage,
            version=raw.version,
            metadata={"key": raw.key, "fingerprint": decoded.fingerprint, "source": decoded.source},
        )
        made = builder.prepare()
        cache.install(made, root / raw.name / raw.version, good=lambda: _from_tfds_copy(raw, root, root) is not None)


def _open_tfds_copy(raw: RawDataset, root: Path) -> DatasetBuilder | None:
    """The builder of the prepared copy in `root`; None if there is none with this content."""
    folder = root / raw.name / raw.version
    try:
        found = json.loads((folder / "metadata.json").read_text())["key"] == raw.key
    except (OSError, ValueError, KeyError, TypeError):
        found = False
    return tfds.open_prepared(folder) if found else None


def _from_tfds_copy(raw: RawDataset, root: Path, write_root: Path) -> Decoded | None:
    """The arrays in the prepared copy in `root`; None if it is missing or damaged."""
    try:
        builder = _open_tfds_copy(raw, root)
        if builder is None:
            return None
        train, test = (tfds.read_split(builder, split, batch=1024) for split in ("train", "test"))
        metadata = dict(builder.info.metadata)
    except Exception:  # TFDS, protobuf and array_record raise many types for a damaged copy
        return None
    found = cache.fingerprint(train, test)
    if found != metadata.get("fingerprint"):
        return None
    return Decoded(raw.name, found, raw.class_names, metadata["source"], train, test, write_root / raw.name)


def _refuse_wrong_files(raw: RawDataset, folders: Folders, roots: Roots) -> None:
    """Verifies the user's raw files, except those unchanged since they were last verified."""
    verified = {path: state for root in roots.read for path, state in _verified(raw, root).items()}
    new = []
    for file in raw.files:
        path = folders.locate(file)
        if path is not None and verified.get(str(path)) != _state(path):
            read_file(raw, file, path)
            new.append(path)
    _remember(raw, roots.write, new)


def _verified(raw: RawDataset, root: Path) -> dict[str, list[int]]:
    """The state of each raw file when it was verified, by its path."""
    try:
        known = json.loads((root / raw.name / "verified.json").read_text())
        return dict(known["files"]) if known["key"] == raw.key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(raw: RawDataset, root: Path, paths: Iterable[Path]) -> None:
    states = {str(path): _state(path) for path in paths}
    if not states:
        return
    with contextlib.suppress(OSError):  # an unrecorded file is verified again next time
        files = _verified(raw, root) | states
        write_json_atomic(root / raw.name / "verified.json", {"key": raw.key, "files": files})


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
