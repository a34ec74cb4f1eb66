"""Atomic file writing (a reader sees the old file or the new one), and one-line messages for disk errors."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from convjax.errors import UnavailableError

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "make the file system writable or choose another folder",
    errno.EACCES: "make it writable or choose another folder",
    errno.EPERM: "make it writable or choose another folder",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close some programs",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose another folder: a file is in the way",
    errno.EISDIR: "choose another name: a folder is in the way",
}


class DiskError(UnavailableError):
    """A file cannot be written or read: the disk is full, read-only, failing, ..."""


@contextlib.contextmanager
def disk_errors(default: str | os.PathLike[str]) -> Iterator[None]:
    """Turns known OSErrors into a one-line DiskError with advice; `default` is the path if the error names none.

    Raises:
      DiskError: the disk refused to read or write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise disk_error(error, default) from error


def disk_error(error: OSError, default: str | os.PathLike[str]) -> DiskError:
    """The DiskError for an OSError."""
    advice = _ADVICE.get(error.errno or 0, "fix it")
    return DiskError(
        f"{error.filename or os.fspath(default)}: {error.strerror or error}; {advice}. Finished work is kept; "
        "the same command resumes from there"
    )


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, syncs it to disk and renames it to `path`.

    Raises:
      OSError: the disk is full, the folder read-only, ...; `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files, but results should be as readable as any other file of the user.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)  # write(2) and fsync(2) do not report it
        with contextlib.suppress(OSError):
            os.unlink(temporary)
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


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
