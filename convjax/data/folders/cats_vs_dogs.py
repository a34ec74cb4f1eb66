"""`cats_vs_dogs`, TFDS's data set of that name, and `cats_vs_dogs_small`, the subset that the book trains on.

Both come from the archive that TFDS uses (Asirra; Elson, Douceur, Howell & Saul, 2007), which must have the SHA-256
that TFDS lists. Images are read from inside the archive. As in TFDS, files without a JFIF header are left out; TFDS
counts 1,738 of them.

- `cats_vs_dogs` has no splits: a fifth of each class, chosen by content, becomes the test set.
- `cats_vs_dogs_small` (the book, section 5.2.2) has of each class, in the order of the files' numbers, the first 1,000
  for training, the next 500 for validation and the next 500 for testing. (The book's numbers 0 to 1999 refer to
  Kaggle's edition of the same images.) If a file is left out, the next one takes its place.
"""

import dataclasses
import functools
import hashlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from convjax.data import cache
from convjax.data.cache import Decoded
from convjax.data.download import DownloadError, Log, Patience, Progress, download
from convjax.data.folders import image_set
from convjax.data.folders.image_set import Item, LeftOut, reason
from convjax.data.folders.images import LARGEST_FILE, BadImage
from convjax.data.idx.catalog import tfds_downloads
from convjax.data.idx.reading import ADVICE
from convjax.errors import UnavailableError, UserError
from convjax.files import sha256_of
from convjax.notation import Window

CLASS_NAMES = ("cat", "dog")
SMALL = {"train": 1000, "validation": 500, "test": 500}
"""Images of each class in the splits of `cats_vs_dogs_small`."""

_FORMAT = 1
_SPARE = 200
_MEMBER = re.compile(r"PetImages/(?P<folder>Cat|Dog)/(?P<number>\d{1,6})\.jpg")


@dataclasses.dataclass(frozen=True)
class Archive:
    """The zip file with `PetImages/Cat/0.jpg`, ....

    Attributes:
      size, sha256: of the file.
      allow_http: for servers on this machine.
    """

    url: str
    size: int
    sha256: str
    allow_http: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


# Size and hash as in TFDS's url_checksums/cats_vs_dogs.txt.
OFFICIAL = Archive(
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
    824_887_076,
    "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
)


def require_size(name: str, size: Window | None) -> Window:
    """Returns `size`.

    Raises:
      UserError: it is None.
    """
    if size is None:
        raise UserError(f"{name}: its images differ in size; {image_set.GIVE_SIZE}")
    return size


def prepare(
    name: str,
    data_dir: str,
    *,
    size: Window | None,
    color: str,
    log: Log,
    progress: Progress | None = None,
    archive: Archive = OFFICIAL,
) -> Decoded:
    """The data set `name`: a good decoded copy of it if there is one, else from the archive.

    Args:
      data_dir: may hold the archive; keeps the copies if it is writable.
      size, color: see `convjax.data.load`; `auto` is `rgb`.
      progress: receives the bytes of the download.

    Raises:
      UserError: no size is given, or an archive in `data_dir` is wrong.
      UnavailableError: the archive cannot be downloaded, or nothing can be written.
    """
    size = require_size(name, size)
    color = "rgb" if color == "auto" else color
    roots = cache.roots(data_dir)
    label = f"{size[0]}x{size[1]}-{color}"
    key, folder = f"{_FORMAT} {archive.sha256} {name} {label}", roots.write / f"{name}-{label}"
    if decoded := cache.find(roots, folder.name, key):
        return decoded
    path, source = _find(name, data_dir, roots, archive, log, progress)
    log(f"{name}: decoding its images (once)")
    try:
        with zipfile.ZipFile(path) as opened:
            small = name == "cats_vs_dogs_small"
            items, left_out = _items(opened, sum(SMALL.values()) + _SPARE if small else None)
            recipe = image_set.Recipe(
                name, CLASS_NAMES, size, color, skip_corrupt=True, source=source, folder=folder, key=key
            )
            choose = functools.partial(_choose_small, name) if small else list
            return image_set.build(recipe, items, left_out, choose)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is a damaged zip file ({error}); delete it") from error


def _find(
    name: str, data_dir: str, roots: cache.Roots, archive: Archive, log: Log, progress: Progress | None
) -> tuple[Path, str]:
    """The verified archive and where it came from, in words."""
    kept = Path("cats_vs_dogs") / "raw" / archive.name
    if data_dir:
        base = Path(data_dir).expanduser().absolute()
        loose = (folder / archive.name for folder in (base, base / "downloads", base / "cats_vs_dogs"))
        downloads = tfds_downloads((base, base / "downloads"), archive.sha256)
        for path in (*filter(Path.is_file, loose), *downloads):
            if problem := _problem(path, archive):
                raise UserError(f"{path}: {problem}; {ADVICE}")
            return path, f"--data_dir={data_dir}"
    for root in roots.read:
        if (root / kept).is_file() and not _problem(root / kept, archive):
            return root / kept, f"an earlier download in {root / kept.parent}"
    with cache.scratch(roots.write) as scratch:
        log(f"{name}: downloading {archive.size / 1e6:,.0f} MB from {archive.url}")
        path = scratch / archive.name
        try:
            download(
                archive.url,
                path,
                limit=archive.size,
                patience=Patience(),
                progress=progress,
                allow_http=archive.allow_http,
            )
            if problem := _problem(path, archive):
                raise DownloadError(problem)
        except DownloadError as error:
            raise UnavailableError(
                f"{name} could not be downloaded from {archive.url}: {error}\n"
                f"Put {archive.name} into a folder and give it as --data_dir=FOLDER, or use your own images with "
                "--dataset=folder:PATH."
            ) from error
        (roots.write / kept).parent.mkdir(parents=True, exist_ok=True)
        path.replace(roots.write / kept)
    return roots.write / kept, archive.url


def _problem(path: Path, archive: Archive) -> str:
    """Why a file is not the archive; empty if it is."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size:,} bytes, not the {archive.size:,} that {archive.name} has"
    found = sha256_of(path)
    return "" if found == archive.sha256 else f"its SHA-256 is {found}, not {archive.sha256}"


def _items(opened: zipfile.ZipFile, wanted: int | None) -> tuple[list[Item], list[LeftOut]]:
    """Up to `wanted` images of each class in the order of their numbers, and the files that are left out."""
    members: dict[tuple[int, int], zipfile.ZipInfo] = {}
    for info in opened.infolist():
        match = _MEMBER.fullmatch(info.filename.replace("\\", "/"))
        if match:
            members[CLASS_NAMES.index(match["folder"].lower()), int(match["number"])] = info
    items: list[Item] = []
    left_out: list[LeftOut] = []
    good = [0] * len(CLASS_NAMES)
    for label, number in sorted(members):
        if good[label] == wanted:
            continue
        name, read = (
            f"{CLASS_NAMES[label].title()}/{number}.jpg",
            functools.partial(_read, opened, members[label, number]),
        )
        try:
            items.append(Item(name, label, "", hashlib.sha256(read()).hexdigest(), read))
            good[label] += 1
        except BadImage as error:
            left_out.append(LeftOut(name, reason(error)))
    return items, left_out


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a file in the archive; BadImage if TFDS leaves it out, or it cannot be read."""
    try:
        with opened.open(info) as file:
            assert isinstance(file, zipfile.ZipExtFile)
            # TFDS asks for 10 bytes, but gets and searches up to 512.
            if b"JFIF" not in file.peek(10)[:512]:
                raise BadImage("has no JFIF header")
            content = file.read(LARGEST_FILE + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadImage(f"is damaged ({error})") from error
    if len(content) > LARGEST_FILE:
        raise BadImage(f"has more than {LARGEST_FILE:,} bytes")
    return content


def _choose_small(name: str, items: Sequence[Item]) -> list[Item]:
    """As many images per split as in the book, in the given order."""
    splits = [split for split, count in SMALL.items() for _ in range(count)]
    chosen: list[Item] = []
    for label, class_name in enumerate(CLASS_NAMES):
        mine = [item for item in items if item.label == label]
        if len(mine) < len(splits):
            raise UserError(f"{name}: the archive has fewer than {len(splits):,} images of {class_name}")
        chosen += (dataclasses.replace(item, split=split) for item, split in zip(mine, splits, strict=False))
    return chosen
