"""`folder:PATH`: a folder of images, one sub-folder per class, with or without a level of train, validation and test.

    PATH/cat/1.jpg                  or    PATH/train/cat/1.jpg, PATH/test/cat/2.jpg, ...

The folder is not trusted: links that lead out of it are refused, and only regular files of limited size are read.
The SHA-256 of every file identifies its content; a file whose size and times have not changed is not hashed again.
"""

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from convjax.config import FOLDER
from convjax.data import cache
from convjax.data.cache import Decoded
from convjax.data.download import Log
from convjax.data.folders import image_set
from convjax.data.folders.image_set import Item, LeftOut, counted
from convjax.data.folders.images import CHANNELS, LARGEST_FILE, BadImage
from convjax.errors import UserError
from convjax.files import write_json_atomic
from convjax.notation import Window

_FORMAT = 1
_LEVELS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
_LITTER = ("thumbs.db", "desktop.ini")

Classes = dict[str, Path]
"""The folder of each class by its name."""


def prepare(name: str, data_dir: str, *, size: Window | None, color: str, skip_corrupt: bool, log: Log) -> Decoded:
    """The decoded images of the folder in `name`; from the cache if the same content was decoded before.

    Args:
      name: `folder:PATH`.
      data_dir: keeps the decoded copy if it is writable; empty for the user's cache.
      size, color, skip_corrupt: see `convjax.data.load`.

    Raises:
      UserError: no such folder, not a folder of classes, or files that cannot be used.
      UnavailableError: nothing can be written.
    """
    root = _root(name)
    levels = _levels(name, root)
    class_names = tuple(sorted({_shown(class_name) for classes in levels.values() for class_name in classes}))
    roots = cache.roots(data_dir)
    files, left_out = _files(root, levels)
    if not files and not left_out:
        raise UserError(f"{name}: there is no image in it")
    hashes, unreadable = _hashes(root, {relative: state for relative, (_, _, state) in files.items()}, roots)
    left_out += unreadable
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    items = [
        Item(
            _shown(relative),
            labels[_shown(class_name)],
            split,
            hashes[relative],
            functools.partial(_read, root / relative),
        )
        for relative, (split, class_name, _) in sorted(files.items())
        if relative in hashes
    ]
    key = _key(items, class_names, left_out, size, color)
    if decoded := cache.find(roots, f"folder-{key}", key):
        bad = [LeftOut(**each) for each in decoded.details["left_out_files"]]
        image_set.refuse(name, bad, skip_corrupt, decoded.details["left_out"])
        return decoded
    log(f"{name}: decoding {counted(len(items), 'image')} (once)")
    recipe = image_set.Recipe(
        name, class_names, size, color, skip_corrupt, source=str(root), folder=roots.write / f"folder-{key}", key=key
    )
    return image_set.build(recipe, items, left_out)


def image_info(name: str, size: Window, color: str) -> tuple[tuple[int, int, int], int]:
    """Image shape (height, width, channels) and number of classes, without reading any image.

    Raises:
      UserError: no such folder, or not a folder of classes.
    """
    levels = _levels(name, _root(name))
    return (*size, CHANNELS[color]), len({class_name for classes in levels.values() for class_name in classes})


def _root(name: str) -> Path:
    text = name.removeprefix(FOLDER)
    if not text:
        raise UserError(f"--dataset={name}: the path is missing; expected folder:PATH, such as folder:photos")
    path = Path(text).expanduser()
    try:
        root = path.resolve(strict=True)
        if root.is_dir():
            os.listdir(root)
            return root
    except FileNotFoundError:
        raise UserError(f"--dataset={name}: there is no folder {path}") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a cycle of links
        raise UserError(
            f"--dataset={name}: {path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    raise UserError(f"--dataset={name}: {path} is a file; expected a folder with one sub-folder per class")


def _levels(name: str, root: Path) -> dict[str, Classes]:
    """The classes of each split; the only split is named "" if there is no level of splits."""

    def require_two(folder: Path, classes: Classes, more: str = "") -> None:
        if len(classes) < 2:
            found = counted(len(classes), "sub-folder")
            raise UserError(f"{name}: {folder} has {found}; expected one per class (at least two){more}")

    found = _folders(name, root, root)
    levels = {entry: _LEVELS[entry.lower()] for entry in found if entry.lower() in _LEVELS}
    if "train" not in levels.values():
        require_two(root, found, ", or train, validation and test with one per class in each")
        return {"": found}
    if others := sorted(set(found) - set(levels)):
        raise UserError(
            f"{name}: {root} has both a folder train and a folder {others[0]!r}; expected one sub-folder per class, or "
            "only train, validation and test"
        )
    if len(set(levels.values())) < len(levels):
        raise UserError(f"{name}: {root} has more than one validation folder: {', '.join(sorted(levels))}")
    by_split = {split: _folders(name, root, root / entry) for entry, split in levels.items()}
    require_two(root / "train", by_split["train"])
    for split, classes in by_split.items():
        if unknown := sorted(set(classes) - set(by_split["train"])):
            raise UserError(f"{name}: its {split} folder has a class {unknown[0]!r} that its train folder lacks")
    return {"": by_split["train"]} if len(by_split) == 1 else by_split


def _folders(name: str, root: Path, folder: Path) -> Classes:
    """The sub-folders of `folder`, by name."""
    folders = {}
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if not Path(entry.path).resolve().is_relative_to(root):
                raise UserError(
                    f"{name}: {entry.path} is a link that leads out of the folder; replace it by the folder"
                )
            folders[entry.name] = Path(entry.path)
    except OSError as error:
        raise UserError(f"{name}: {folder} cannot be read ({error.strerror or error})") from None
    return folders


def _files(root: Path, levels: dict[str, Classes]) -> tuple[dict[str, tuple[str, str, list[int]]], list[LeftOut]]:
    """(split, class name, state) of every file by its path in `root`; and the entries that must not be read."""
    files: dict[str, tuple[str, str, list[int]]] = {}
    bad: list[LeftOut] = []
    for split, classes in levels.items():
        for class_name, folder in classes.items():
            for path in _walk(root, folder, bad):
                relative = path.relative_to(root).as_posix()
                state = _state(root, path)
                if isinstance(state, str):
                    bad.append(LeftOut(_shown(relative), state))
                else:
                    files[relative] = split, class_name, state
    return files, bad


def _state(root: Path, path: Path) -> list[int] | str:
    """The size and times of a file, or why it must not be read. (These words enter `_key`.)"""
    try:
        status = path.stat()
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if not inside:
        return "is a link that leads out of the folder"
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size > LARGEST_FILE:
        return f"has {status.st_size:,} bytes; the most an image may have are {LARGEST_FILE:,}"
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _shown(name: str) -> str:
    """A file's name as text that is harmless in a terminal or a JSON file."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _walk(root: Path, folder: Path, bad: list[LeftOut]) -> Iterator[Path]:
    """Everything below `folder` that is no folder, except hidden files and what file browsers leave behind."""

    def report(error: OSError) -> None:
        place = Path(error.filename).relative_to(root).as_posix()
        bad.append(LeftOut(_shown(place), f"cannot be read ({error.strerror or error})"))

    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for each in folders:
            if (Path(parent) / each).is_symlink():  # os.walk does not enter it
                bad.append(LeftOut(_shown((Path(parent) / each).relative_to(root).as_posix()), "is a link to a folder"))
        for each in sorted(names):
            if not each.startswith(".") and each.lower() not in _LITTER:
                yield Path(parent) / each


def _read(path: Path) -> bytes:
    """The content of a regular file; BadImage for anything else."""
    # O_NONBLOCK: if it has become a pipe since it was listed, opening it must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadImage("is no file")
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise BadImage(f"has more than {LARGEST_FILE:,} bytes")
    return content


def _hashes(root: Path, states: dict[str, list[int]], roots: cache.Roots) -> tuple[dict[str, str], list[LeftOut]]:
    """SHA-256 of each file, remembered if its state has not changed; and the files that cannot be read."""
    memory = f"folder-hashes/{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known: dict[str, Any] = {}
    for place in roots.read:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads((place / memory).read_text())
            if content["format"] == _FORMAT:
                known |= content["files"]
    hashes: dict[str, str] = {}
    for relative, state in states.items():
        remembered = known.get(relative)
        if isinstance(remembered, list) and remembered[:-1] == state:
            hashes[relative] = remembered[-1]

    def digest(relative: str) -> str | LeftOut:
        try:
            return hashlib.sha256(_read(root / relative)).hexdigest()
        except (BadImage, OSError) as error:
            return LeftOut(_shown(relative), image_set.reason(error))

    new = [relative for relative in states if relative not in hashes]
    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for relative, found in zip(new, threads.map(digest, new), strict=True):
            if isinstance(found, LeftOut):
                bad.append(found)
            else:
                hashes[relative] = found
    if new:
        with contextlib.suppress(OSError):  # a forgotten file is hashed again next time
            entries = {relative: [*states[relative], found] for relative, found in sorted(hashes.items())}
            write_json_atomic(roots.write / memory, {"format": _FORMAT, "root": str(root), "files": entries})
    return hashes, bad


def _key(
    items: Sequence[Item], class_names: Sequence[str], left_out: Sequence[LeftOut], size: Window | None, color: str
) -> str:
    """Identifies the folder's content and the result made of it."""
    content = {
        "format": _FORMAT,
        "classes": list(class_names),
        "files": [[item.name, item.label, item.split, item.sha256] for item in items],
        "left_out": sorted(str(each) for each in left_out),
        "size": size,
        "color": color,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
