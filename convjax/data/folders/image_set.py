"""From encoded images to a data set: decode and resize, split, prepare with our TFDS builder, keep the arrays.

The caller lists the images as `Item`s, whatever they are read from (a folder, an archive).
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

from convjax.data import cache, tfds
from convjax.data.cache import Decoded, Pair
from convjax.data.folders.images import CHANNELS, BadImage, decode, inspect
from convjax.data.rows import Rows
from convjax.errors import UnavailableError, UserError
from convjax.notation import Window

SPLITS = ("train", "validation", "test")
_BATCH = 256
_TEST_SHARE = 5
_NAMED = 5
_LISTED = 20
GIVE_SIZE = "give the size to resize them to, such as --image_size=150"


@dataclasses.dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
      name: within the data set, for messages.
      label: index of its class.
      split: one of `SPLITS`; empty if the data set has none.
      sha256: of its bytes.
      read: returns its bytes, or raises BadImage or OSError.
    """

    name: str
    label: int
    split: str
    sha256: str
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to make of a list of images, and where to keep it.

    Attributes:
      name: of the data set, for messages.
      size: (height, width) of all images; None if they have one size already.
      color: `grey`, `rgb`, or `auto`: grey if all of them are.
      skip_corrupt: leave out unusable files instead of refusing the data set.
      source: where the images come from, in words.
      folder: to keep the result in.
      key: identifies what the data set is made from, see `cache.read`.
    """

    name: str
    class_names: tuple[str, ...]
    size: Window | None
    color: str
    skip_corrupt: bool
    source: str
    folder: Path
    key: str


def build(
    recipe: Recipe,
    items: Sequence[Item],
    left_out: Sequence[LeftOut] = (),
    choose: Callable[[Sequence[Item]], Sequence[Item]] = lambda items: items,
) -> Decoded:
    """Decodes the items, prepares them with TFDS, and keeps them in `recipe.folder`.

    Args:
      recipe: see `Recipe`.
      items: in the order that the examples of a split shall have.
      left_out: files that the caller could not list; an error unless `skip_corrupt`.
      choose: selects from the decodable items, and may give them splits.

    Raises:
      UserError: images that cannot be used or differ in size, or too few of them.
      UnavailableError: the disk is too small, or nothing can be written.
    """
    name, root, bad = recipe.name, recipe.folder.parent, list(left_out)
    items, size, color = _agree(recipe, items, bad)
    with cache.scratch(root) as scratch:
        shape = (*size, CHANNELS[color])
        _require_space(name, root, len(items) * int(np.prod(shape)))
        pixels = np.lib.format.open_memmap(scratch / "pixels.npy", "w+", np.uint8, (len(items), *shape))
        good, places = [], {}
        for place, (item, decoded) in enumerate(_decoded(items, size, color)):
            if isinstance(decoded, LeftOut):
                bad.append(decoded)
            else:
                pixels[place] = decoded
                places[item.sha256] = place
                good.append(item)
        refuse(name, bad, recipe.skip_corrupt)
        chosen = choose(good)
        if not any(item.split for item in chosen):
            chosen = split_by_content(chosen)
        pairs: dict[str, Pair] = {}
        for split in SPLITS:
            mine = [item for item in chosen if item.split == split]
            if mine or split == "train":
                positions = np.array([places[item.sha256] for item in mine], np.int64)
                pairs[split] = (Rows(pixels, positions), np.array([item.label for item in mine], np.int32))
        details = {
            "left_out": len(bad),
            "left_out_files": [dataclasses.asdict(each) for each in _by_name(bad)[:_LISTED]],
            "notes": notes(chosen, recipe.class_names, bad),
        }
        return _keep(recipe, _settle_test(name, pairs), details, scratch)


def _agree(recipe: Recipe, items: Sequence[Item], bad: list[LeftOut]) -> tuple[Sequence[Item], Window, str]:
    """The items with their common size and color, read from the headers if not given; bad headers go to `bad`."""
    name, size, color = recipe.name, recipe.size, recipe.color
    if size is not None and color != "auto":
        return items, size, color
    good, sizes, all_gray = [], {}, True
    for item in items:
        try:
            found, gray = inspect(item.read())
        except (BadImage, OSError) as error:
            bad.append(LeftOut(item.name, reason(error)))
            continue
        good.append(item)
        sizes.setdefault(found, item.name)
        all_gray &= gray
    if not good:
        refuse(name, bad, recipe.skip_corrupt)
        raise UserError(f"{name}: there is no image in it")
    if size is None and len(sizes) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise UserError(
            f"{name}: its images differ in size ({first} is {one[0]}x{one[1]}, {second} {other[0]}x{other[1]}); "
            f"{GIVE_SIZE}"
        )
    return good, size or next(iter(sizes)), ("grey" if all_gray else "rgb") if color == "auto" else color


def _decoded(items: Sequence[Item], size: Window, color: str) -> Iterator[tuple[Item, np.ndarray | LeftOut]]:
    def one(item: Item) -> np.ndarray | LeftOut:
        try:
            return decode(item.read(), size, color)
        except (BadImage, OSError) as error:
            return LeftOut(item.name, reason(error))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(items), _BATCH):  # in batches, to bound the number of decoded images in memory
            batch = items[start : start + _BATCH]
            yield from zip(batch, threads.map(one, batch), strict=True)


def reason(error: Exception) -> str:
    """Why a file cannot be used, to complete a sentence that begins with its name."""
    return str(error) if isinstance(error, BadImage) else f"cannot be read ({error.strerror or error})"  # type: ignore[attr-defined]


def refuse(name: str, bad: Sequence[LeftOut], skip_corrupt: bool, count: int | None = None) -> None:
    """Refuses unusable files unless they may be left out. `count` is their number if `bad` has only some of them.

    Raises:
      UserError: naming some of the files.
    """
    if bad and not skip_corrupt:
        count = len(bad) if count is None else count
        raise UserError(
            f"{name}: {counted(count, 'file')} cannot be used: {_listed(_by_name(bad), count)}; "
            "repair or remove them, or give --skip_corrupt to leave them out"
        )


def _by_name(files: Sequence[LeftOut]) -> list[LeftOut]:
    return sorted(files, key=lambda file: file.name)


def _listed(things: Sequence[object], count: int | None = None) -> str:
    count = len(things) if count is None else count
    more = f"; and {count - _NAMED:,} more" if count > _NAMED else ""
    return "; ".join(map(str, things[:_NAMED])) + more


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def split_by_content(items: Sequence[Item]) -> list[Item]:
    """Gives a fifth of each class to `test`, the rest to `train`.

    Only content decides (the largest SHA-256s go to `test`): names, other images and the run's seed do not matter, and
    copies of a file stay together.
    """
    by_label: dict[int, list[Item]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    test: set[Item] = set()
    for mine in by_label.values():
        mine.sort(key=lambda item: (item.sha256, item.name))
        boundary = len(mine) - round(len(mine) / _TEST_SHARE)
        while 0 < boundary < len(mine) and mine[boundary - 1].sha256 == mine[boundary].sha256:
            boundary += 1
        test.update(mine[boundary:])
    return [dataclasses.replace(item, split="test" if item in test else "train") for item in items]


def _settle_test(name: str, pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Without a test split, the validation images become the test images, as for TFDS's data sets."""
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
    """Refuses to prepare images that do not fit on the disk: up to four copies exist while they are prepared."""
    free = shutil.disk_usage(root).free
    if 4 * decoded_bytes > free:
        raise UnavailableError(
            f"{name}: its decoded images take {decoded_bytes / 2**30:,.1f} GiB, four times that while they are "
            f"prepared, and {root} has {free / 2**30:,.1f} GiB free; make --image_size smaller, or set --data_dir "
            "or CONVJAX_DATA_DIR to a folder on a larger disk"
        )


def _keep(recipe: Recipe, pairs: dict[str, Pair], details: dict[str, Any], scratch: Path) -> Decoded:
    """Prepares the data with TFDS, reads it back, and keeps the arrays."""

    def fingerprint(pairs: dict[str, Pair]) -> str:
        return cache.fingerprint(pairs["train"], pairs["test"], pairs.get("validation"))

    wanted, folder = fingerprint(pairs), recipe.folder
    builder = tfds.ArrayImages(
        "image_set",
        pairs,
        recipe.class_names,
        data_dir=scratch,
        description=recipe.name,
        metadata={"key": recipe.key, "fingerprint": wanted, "source": recipe.source},
    )
    made = builder.prepare()
    read = {split: tfds.read_split(builder, split, batch=_BATCH, folder=scratch) for split in pairs}
    if fingerprint(read) != wanted:
        raise UnavailableError(f"{scratch}: it reads back differently from what was written; {cache.CHECK_DISK}")
    cache.install(made, folder / made.name, good=lambda: False)
    train, test, validation = read["train"], read["test"], read.get("validation")
    decoded = Decoded(recipe.name, wanted, recipe.class_names, recipe.source, train, test, folder, validation, details)
    return cache.write(folder.parent, recipe.key, decoded)


def notes(items: Sequence[Item], class_names: Sequence[str], left_out: Sequence[LeftOut]) -> list[str]:
    """What a user should know about the images before training on them, one line each."""
    lines = []
    counts = {split: Counter(item.label for item in items if item.split == split) for split in SPLITS}
    sizes = [f"{counts[split].total():,} {split}" for split in SPLITS if counts[split]]
    per_class = ", ".join(
        f"{class_name} {counts['train'][label]:,}" for label, class_name in list(enumerate(class_names))[:20]
    )
    lines.append(f"{', '.join(sizes)} images; in training {per_class}{', ...' if len(class_names) > 20 else ''}")
    if not counts["test"]:
        lines.append("there is no test folder: the validation images serve as test images")
    if left_out:
        lines.append(f"left out {counted(len(left_out), 'file')}: {_listed(_by_name(left_out))}")
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
            f"{ordered[-1][1]:,} of {class_names[ordered[-1][0]]}; always answering {class_names[ordered[0][0]]} "
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
        ("in more than one split", "test images must not be trained on", lambda item: item.split),
        ("under more than one class", "one of the labels is wrong", lambda item: item.label),
    ):
        found = [same for same in copies if len({differ(item) for item in same}) > 1]
        if found:
            pairs = [" = ".join(item.name for item in same[:3]) for same in found]
            files = counted(len(found), "image")
            lines.append(f"{files} {'is' if len(found) == 1 else 'are'} {what} ({consequence}): {_listed(pairs)}")
    return lines
