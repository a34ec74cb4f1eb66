"""A crash at any file operation, without a process to kill.

`Faults` raises at the k-th file operation and at every one after it: what ran before is on disk; what comes after
(`except`, `finally`, `__exit__`) runs but can change nothing, as if the process were gone. A crash at `fsync` can also
leave the file that was being written torn, as a power loss may. `Snapshots` copies what is on disk before each
operation instead, which is what a crash there would leave: for code whose threads an exception would leave hanging.
"""

import builtins
import contextlib
import os
import shutil
import stat
import threading

OPERATIONS = (
    "open", "write", "pwrite", "fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "truncate",
    "ftruncate", "chmod",
)  # fmt: skip

_REAL_OPEN = builtins.open


class Crash(BaseException):
    """The process is gone."""


class Operations:
    """Calls `before(name, *arguments)` before each file operation of the process."""

    def before(self, name, *arguments):
        raise NotImplementedError

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        for name in OPERATIONS:
            self._replace(os, name, getattr(os, name))

        def opened(file, mode="r", *more, **named):
            if set(mode) & set("wax+"):
                self.before("open")
            return _REAL_OPEN(file, mode, *more, **named)

        builtins.open = opened
        self._stack.callback(setattr, builtins, "open", _REAL_OPEN)
        return self

    def _replace(self, module, name, real):
        def operation(*arguments, **named):
            self.before(name, *arguments)
            # Nobody pulls the plug here: no need to wait for the disk.
            return None if name == "fsync" else real(*arguments, **named)

        setattr(module, name, operation)
        self._stack.callback(setattr, module, name, real)

    def __exit__(self, kind, error, trace):
        self._stack.close()
        return kind is Crash


class Faults(Operations):
    """Crashes at one operation.

    Attributes:
      done: names of the operations that came, in order.
      crashed: whether the crash came.
    """

    def __init__(self, at, *, torn=None):
        """`at` counts from 1; `torn` is the share of what was not yet synced that a crash at its fsync leaves."""
        self._at = at
        self._torn = torn
        self._synced = {}
        self.done = []
        self.crashed = False

    def before(self, name, *arguments):
        if self.crashed:
            raise Crash
        self.done.append(name)
        if len(self.done) == self._at:
            self.crashed = True
            if name == "fsync" and self._torn is not None:
                self._tear(arguments[0])
            raise Crash
        if name == "fsync":
            status = os.fstat(arguments[0])
            self._synced[status.st_ino] = status.st_size

    def _tear(self, descriptor):
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            synced = min(self._synced.get(status.st_ino, 0), status.st_size)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            with _REAL_OPEN(path, "r+b") as file:
                file.truncate(synced + int((status.st_size - synced) * self._torn))


class Snapshots(Operations):
    """Copies `source` to `target/N` before the N-th operation, for every `every`-th."""

    def __init__(self, source, target, *, every=1):
        self._source, self._target, self._every = source, target, every
        self._lock, self._copying = threading.Lock(), threading.local()
        self.count = 0

    def before(self, name, *arguments):
        if getattr(self._copying, "now", False):
            return
        with self._lock:
            self.count += 1
            if self.count % self._every or not self._source.exists():
                return
            self._copying.now = True
            try:
                # What another thread is moving just then is there or not, as in a crash.
                with contextlib.suppress(shutil.Error):
                    shutil.copytree(self._source, self._target / str(self.count), copy_function=shutil.copyfile)
            finally:
                self._copying.now = False


def bury(folder):
    """Closes what a crashed "process" still has open in `folder`, as the kernel would; its locks go too."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(f"{folder}{os.sep}"):
                os.close(int(name))


def crash_everywhere(folder, action, check, *, prepare=lambda place: None, torn=(None,)):
    """Runs `action(place)` in a fresh, prepared place, crashed at each operation in turn, and `check(place)`.

    Returns how many crashes there were.
    """
    crashes = 0
    for share in torn:
        at = 1
        while True:
            place = folder / f"{share}-{at}"
            place.mkdir()
            prepare(place)
            with Faults(at, torn=share) as faults:
                action(place)
            bury(place)
            if not faults.crashed:
                break
            crashes += 1
            at += 1
            try:
                check(place)
            except BaseException as error:
                error.add_note(f"after a crash at operation {at - 1}, torn {share}: {faults.done}")
                raise
    return crashes
