"""Locks: one process at a time works on a run, on this machine or another, and a dead owner is soon replaced.

A lock is a file `.lock-N` in the run's folder; the highest N counts. Its owner holds a `flock` on it and touches it
every few seconds. To replace a dead owner, a process creates `.lock-(N+1)`: every file system, even one without
`flock`, lets exactly one process create a name.

Is the owner dead? On this machine `flock` tells at once, because the kernel releases it however a process ends. On
another machine it may not reach (NFS with `local_lock`, Lustre with `localflock`) or not exist. There an owner counts
as dead when its heartbeat has stopped for `STALE_SECONDS`. If it was only suspended, it finds a higher N before its
next write and stops (`Lock.require`).

filelock's `SoftFileLease` is no substitute. It takes the lock of a suspended owner on this machine, which learns of
the loss only at its next heartbeat, when it may have written already.
"""

import errno
import fcntl
import json
import os
import re
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0

_NAME = re.compile(r"\.lock-(\d+)")
_SCRATCH = ".lock."
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class Locked(Exception):
    """Another process works on the run. The message says which."""


class Lock:
    """This process's lock on a run; a context manager that releases it."""

    def __init__(self, folder: Path):
        """Locks the run in `folder`.

        Raises:
          Locked: another process holds the lock.
          OSError: the folder cannot be written to.
        """
        self._folder = folder
        self._owner = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "since": now()}
        while True:
            number = _newest(folder)
            if (owner := _living(folder, number)) is not None:
                raise Locked(f"{folder} is being run by {describe(owner)}")
            self._number = number + 1
            with suppress(FileExistsError):  # another process was quicker: see which one
                self._descriptor = self._make()
                break
        self._tidy()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="convjax-heartbeat", daemon=True)
        self._heart.start()

    @property
    def _path(self) -> Path:
        return _path(self._folder, self._number)

    def _make(self) -> int:
        """Creates our file, written and locked before it gets its name, and returns its descriptor.

        Raises:
          FileExistsError: another process has created it.
        """
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=_SCRATCH)
        try:
            _lock(descriptor)
            self._write(descriptor)
            os.link(temporary, self._path)
            return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LINKS:
                raise
        finally:
            Path(temporary).unlink(missing_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(descriptor)
        self._write(descriptor)
        return descriptor

    def _write(self, descriptor: int) -> None:
        content = json.dumps(self._owner).encode()
        while content:  # an almost full disk takes a part, and gives the reason when asked for the rest
            content = content[os.write(descriptor, content) :]

    def _tidy(self) -> None:
        """Removes older locks, and files of processes killed while they created theirs.

        Raises:
          Locked: ours is not the newest. A process that slept through two locks of others can create a name that
            existed before.
        """
        for other in sorted(_numbers(self._folder), reverse=True):
            if other > self._number:
                os.close(self._descriptor)
                self._path.unlink(missing_ok=True)
                raise Locked(f"{self._folder} is being run by another process")
            if other < self._number:
                _path(self._folder, other).unlink(missing_ok=True)
        for left in self._folder.glob(f"{_SCRATCH}*"):
            with suppress(FileNotFoundError):
                if os.fstat(self._descriptor).st_mtime - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._descriptor)
            except OSError:
                return

    def require(self) -> None:
        """Checks that the run is still ours; to be called before a write.

        Raises:
          Locked: another process took over while this one was suspended.
        """
        if _newest(self._folder) != self._number:
            raise Locked(f"{self._folder} was taken over while this process was suspended")

    def close(self) -> None:
        """Releases the lock."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._heart.join()
        with suppress(OSError):  # on a full disk; closing the file releases the lock all the same
            os.pwrite(self._descriptor, json.dumps({**self._owner, "released": now()}).encode(), 0)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def last_owner(folder: Path) -> dict[str, Any]:
    """The owner of the newest lock, held or not; empty if there is none."""
    number = _newest(folder)
    return _read(_path(folder, number)) if number else {}


def living_owner(folder: Path) -> dict[str, Any] | None:
    """The process that works on the run now, or None."""
    return _living(folder, _newest(folder))


def _living(folder: Path, number: int) -> dict[str, Any] | None:
    """The owner of lock `number` if it exists and its owner lives."""
    path = _path(folder, number)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        owner = _read(path)
        if owner.get("released"):
            return None
        state = _lock(descriptor, shared=True)
        if state == "held":
            return owner
        if state == "free" and owner.get("machine") == _machine():
            return None
        return owner if _age(descriptor, folder) < STALE_SECONDS else None
    finally:
        os.close(descriptor)


def describe(owner: dict[str, Any]) -> str:
    """`process 4711 on crunch since 2026-01-02T03:04:05+0000`."""
    if not {"pid", "host", "since"} <= set(owner):
        return "another process"
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}"


def _lock(descriptor: int, *, shared: bool = False) -> str:
    """Takes the `flock` if it is `free`; else it is `held` by another process, or the file system has `none`."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return "free"
    except BlockingIOError:
        return "held"
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return "none"
        raise


def _age(descriptor: int, folder: Path) -> float:
    """Seconds since the file was touched, by its file system's clock, because machines' clocks differ."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_SCRATCH) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:
        now = time.time()
    return now - os.fstat(descriptor).st_mtime


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def _newest(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _path(folder: Path, number: int) -> Path:
    return folder / f".lock-{number}"


def _read(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_bytes())
        return owner if isinstance(owner, dict) else {}
    except (OSError, ValueError):
        return {}


def _machine() -> str:
    """Identifies this boot of this machine: no `flock` reaches or outlives it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def now() -> str:
    """The time, for records."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
