"""Atomic file writing: a reader sees the old file or the new one, never half of either."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, syncs it to disk and renames it over `path`.

    Raises:
      OSError: the disk is full, the folder read-only, ... `path` is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; results are meant to be shared like any file the user makes.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path`; see `write_atomic`."""
    write_atomic(path, lambda file: file.write(content))


def write_text_atomic(path: str | os.PathLike[str], content: str) -> None:
    """Writes `content` to `path` as UTF-8; see `write_atomic`."""
    write_bytes_atomic(path, content.encode())


def write_json_atomic(path: str | os.PathLike[str], content: Any) -> None:
    """Writes `content` to `path` as indented JSON; see `write_atomic`."""
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Makes a rename in `folder` survive a power loss (a no-op where folders cannot be opened, as on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse fsync on folders; the file itself is safe
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
