"""From encoded images to a data set: decoded and resized once, split, prepared by our TFDS builder, kept decoded.

What the images are read from (a folder, an archive) is the caller's business, who lists them as `Item`s.
"""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from convjax.data import cache
from convjax.data.cache import Decoded, Pair
from convjax.data.folders.images import BadImage, channels, decode, inspect
from convjax.data.rows import Rows
from convjax.errors import UnavailableError, UserError
from convjax.notation import Window

SPLITS = ("train", "validation", "test")
_BATCH = 256
_TEST_SHARE = 5
_VERSION = "1.0.0"
_NAMED = 5
_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
      name: within the data set, for messages.
      label: index of its class.
      split: one of `SPLITS`; empty where the data set has none.
      sha256: of its bytes.
      read: gives its bytes; raises BadImage or OSError where there is something wrong.
    """

    name: str
    label: int
    split: str
    sha256: str
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """An image that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def build(
    name: str,
    items: Sequence[Item],
    class_names: tuple[str, ...],
    *,
    size: Window | None,
    color: str,
    skip_corrupt: bool,
    left_out: Sequence[LeftOut] = (),
    source: str,
    folder: Path,
    key: str,
    choose: Callable[[Sequence[Item]], Sequence[Item]] = lambda items: items,
) -> Decoded:
    """Decodes the items, prepares them with TFDS, and keeps them in `folder`.

    Args:
      name: of the data set, for messages.
      items: in the order that the examples of a split shall have.
      size: (height, width) of all images; None where they have one size already.
      color: `grey`, `rgb`, or `auto`: grey where all of them are.
      skip_corrupt: leave out what cannot be decoded; else it is an error.
      left_out: what the caller could not even list; an error too unless `skip_corrupt`.
      choose: picks, and gives splits to, those of the items that can be decoded.
      key: of what the data set is made from, see `cache.read`.

    Raises:
      UserError: images that cannot be used, that differ in size, or too few of them.
      UnavailableError: the disk is too small, or nothing can be written.
    """
    bad = list(left_out)
    items, size, color = _agree(name, items, size, color, bad, skip_corrupt)
    root = folder.parent
    with cache.scratch(root) as scratch:
        shape = (*size, channels(color))
        _require_space(name, root, len(items) * int(np.prod(shape)))
        pixels = np.lib.format.open_memmap(scratch / "pixels.npy", "w+", np.uint8, (len(items), *shape))
        places = {}
        for place, (item, decoded) in enumerate(_decoded(items, size, color)):
            if isinstance(decoded, LeftOut):
                bad.append(decoded)
            else:
                pixels[place] = decoded
                places[item] = place
        refuse(name, bad, skip_corrupt)
        chosen = choose([item for item in items if item in places])
        if not any(item.split for item in chosen):
            chosen = split_by_content(chosen)
        pairs = {}
        for split in SPLITS:
            mine = [item for item in chosen if item.split == split]
            if mine or split == "train":
                positions = np.array([places[_unsplit(item, places)] for item in mine], np.int64)
                pairs[split] = (Rows(pixels, positions), np.array([item.label for item in mine], np.int32))
        pairs = _settle_test(name, pairs)
        details = {
            "left_out": len(bad),
            "left_out_files": [dataclasses.asdict(each) for each in sorted(bad, key=lambda e: e.name)[:_LISTED]],
            "notes": notes(chosen, class_names, bad),
        }
        return _keep(name, pairs, class_names, details, source=source, folder=folder, key=key, scratch=scratch)


def _unsplit(item: Item, places: dict[Item, int]) -> Item:
    """The item as it was listed, before `choose` gave it a split."""
    return item if item in places else dataclasses.replace(item, split="")


def _agree(
    name: str, items: Sequence[Item], size: Window | None, color: str, bad: list[LeftOut], skip_corrupt: bool
) -> tuple[list[Item], Window, str]:
    """The size and colour of all images, from their headers where not given; items with a bad header go to `bad`."""
    if size is not None and color != "auto":
        return list(items), size, color
    good, sizes, all_grey = [], {}, True
    for item in items:
        try:
            found, grey = inspect(item.read())
        except (BadImage, OSError) as error:
            bad.append(LeftOut(item.name, reason(error)))
            continue
        good.append(item)
        sizes.setdefault(found, item.name)
        all_grey &= grey
    if not good:
        refuse(name, bad, skip_corrupt)
        raise UserError(f"{name}: there is no image in it")
    if size is None and len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise UserError(
            f"{name}: its images differ in size ({first} is {one[0]}x{one[1]}, {second} {other[0]}x{other[1]}); "
            "give the size to bring them to, such as --image_size=150"
        )
    return good, size or next(iter(sizes)), ("grey" if all_grey else "rgb") if color == "auto" else color


def _decoded(items: Sequence[Item], size: Window, color: str) -> Iterator[tuple[Item, np.ndarray | LeftOut]]:
    def one(item: Item) -> np.ndarray | LeftOut:
        try:
            return decode(item.read(), size, color)
        except (BadImage, OSError) as error:
            return LeftOut(item.name, reason(error))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(items), _BATCH):  # in batches, so that what is decoded does not pile up
            batch = items[start : start + _BATCH]
            yield from zip(batch, threads.map(one, batch), strict=True)


def reason(error: Exception) -> str:
    """Why a file cannot be used, as the end of a sentence that begins with its name."""
    return str(error) if isinstance(error, BadImage) else f"cannot be read ({error.strerror or error})"  # type: ignore[attr-defined]


def refuse(name: str, bad: Sequence[LeftOut], skip_corrupt: bool, count: int | None = None) -> None:
    """Raises UserError where there is something bad that may not be left out; `count` of it, the message names some."""
    if bad and not skip_corrupt:
        count = len(bad) if count is None else count
        raise UserError(
            f"{name}: {counted(count, 'file')} cannot be used: {_listed(sorted(bad, key=lambda e: e.name), count)}; "
            "repair or remove what is named, or give --skip_corrupt to leave it out"
        )


def _listed(things: Sequence[object], count: int | None = None) -> str:
    count = len(things) if count is None else count
    more = f"; and {count - _NAMED:,} more" if count > _NAMED else ""
    return "; ".join(map(str, things[:_NAMED])) + more


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def split_by_content(items: Sequence[Item]) -> list[Item]:
    """Gives a fifth of each class to `test`, the rest to `train`.

    Which ones is decided by their content alone (those whose SHA-256 are largest): neither names, nor other images,
    nor the run's seed matter, and copies of one file stay together.
    """
    test: set[Item] = set()
    for label in sorted({item.label for item in items}):
        mine = sorted((item for item in items if item.label == label), key=lambda item: (item.sha256, item.name))
        boundary = len(mine) - round(len(mine) / _TEST_SHARE)
        while 0 < boundary < len(mine) and mine[boundary - 1].sha256 == mine[boundary].sha256:
            boundary += 1
        test.update(mine[boundary:])
    return [dataclasses.replace(item, split="test" if item in test else "train") for item in items]


def _settle_test(name: str, pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Where there is no test split, the validation images are what is tested on, as for TFDS's data sets."""
    if "test" not in pairs and "validation" in pairs:
        pairs = {"train": pairs["train"], "test": pairs["validation"]}
    for split in ("train", "test"):
        if split not in pairs or not len(pairs[split][1]):
            raise UserError(
                f"{name}: no image is left to {'train' if split == 'train' else 'test'} on; "
                "give every class a few images, or folders train and test"
            )
    return pairs


def _require_space(name: str, root: Path, decoded_bytes: int) -> None:
    """The decoded images are on disk up to four times while they are prepared."""
    free = shutil.disk_usage(root).free
    if 4 * decoded_bytes > free:
        raise UnavailableError(
            f"{name}: its decoded images take {decoded_bytes / 2**30:,.1f} GiB, four times that while they are "
            f"prepared, and {root} has {free / 2**30:,.1f} GiB free; make --image_size smaller, or give a --data_dir "
            "or CONVJAX_DATA_DIR on a larger disk"
        )


def _keep(
    name: str,
    pairs: dict[str, Pair],
    class_names: tuple[str, ...],
    details: dict[str, Any],
    *,
    source: str,
    folder: Path,
    key: str,
    scratch: Path,
) -> Decoded:
    """Prepares with TFDS, reads that back, and keeps the arrays."""
    from convjax.data.tfds.array_images import ArrayImages
    from convjax.data.tfds.reading import read_split

    def fingerprint(pairs: dict[str, Pair]) -> str:
        return cache.fingerprint(pairs["train"], pairs["test"], pairs.get("validation"))

    wanted = fingerprint(pairs)
    builder = ArrayImages(
        "image_set",
        pairs,
        class_names,
        data_dir=scratch,
        description=name,
        homepage="",
        version=_VERSION,
        metadata={"key": key, "fingerprint": wanted, "source": source},
    )
    made = builder.prepare()
    read = {split: read_split(builder, split, batch=_BATCH, folder=scratch) for split in pairs}
    if fingerprint(read) != wanted:
        raise UnavailableError(f"{scratch}: what was just written there reads back differently; is the disk failing?")
    decoded = Decoded(
        name, wanted, class_names, source, read["train"], read["test"], folder, read.get("validation"), details
    )
    cache.install(made, folder / _VERSION, good=lambda: False)
    cache.write(folder.parent, key, decoded)
    kept = cache.read(folder, key)
    if kept is None:
        raise UnavailableError(f"{folder}: what was just written there reads back differently; is the disk failing?")
    return kept


def notes(items: Sequence[Item], class_names: Sequence[str], left_out: Sequence[LeftOut]) -> list[str]:
    """What a user should know of the images before training on them, a line each."""
    lines = []
    counts = {split: Counter(item.label for item in items if item.split == split) for split in SPLITS}
    sizes = [f"{counts[split].total():,} {split}" for split in SPLITS if counts[split]]
    per_class = ", ".join(
        f"{class_name} {counts['train'][label]:,}" for label, class_name in list(enumerate(class_names))[:20]
    )
    lines.append(f"{', '.join(sizes)} images; in training {per_class}{', ...' if len(class_names) > 20 else ''}")
    if not counts["test"]:
        lines.append("there is no test folder: the validation images are what is tested on")
    if left_out:
        lines.append(f"left out {counted(len(left_out), 'file')}: {_listed(sorted(left_out, key=lambda e: e.name))}")
    for split in SPLITS:
        empty = [class_names[label] for label in range(len(class_names)) if not counts[split][label]]
        if counts[split] and empty:
            lines.append(f"without {split} images: {_listed(empty)}")
    ordered = counts["train"].most_common()
    if ordered and ordered[0][1] >= 1.5 * ordered[-1][1]:
        tested = counts["test"] or counts["validation"]
        always = tested[ordered[0][0]] / max(1, tested.total())
        lines.append(
            f"the classes are not balanced: {ordered[0][1]:,} training images of {class_names[ordered[0][0]]}, "
            f"{ordered[-1][1]:,} of {class_names[ordered[-1][0]]}; answering always {class_names[ordered[0][0]]} "
            f"would be right for {always:.1%} of the test images"
        )
    lines += _duplicates(items)
    return lines


def _duplicates(items: Sequence[Item]) -> list[str]:
    by_content: dict[str, list[Item]] = {}
    for item in items:
        by_content.setdefault(item.sha256, []).append(item)
    copies = [same for same in by_content.values() if len(same) > 1]
    lines = []
    for what, consequence, differ in (
        ("in more than one split", "the test does not measure what it should", lambda item: item.split),
        ("under more than one class", "one of the labels is wrong", lambda item: item.label),
    ):
        found = [same for same in copies if len({differ(item) for item in same}) > 1]
        if found:
            pairs = [" = ".join(item.name for item in same[:3]) for same in found]
            files = counted(len(found), "image")
            lines.append(f"{files} {'is' if len(found) == 1 else 'are'} {what} ({consequence}): {_listed(pairs)}")
    return lines
