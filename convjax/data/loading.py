"""From a data set's name to a `Dataset`: asks the reader of that kind of name, then selects the training examples."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from convjax.config import FOLDER
from convjax.data import corners, folders, idx, resized, splits, tfds
from convjax.data.cache import Decoded, Pair
from convjax.data.download import Log, Progress
from convjax.data.rows import Rows
from convjax.errors import UserError
from convjax.notation import Window

_LOG: Log = logging.getLogger(__name__).info

_CATS_VS_DOGS = ("cats_vs_dogs", "cats_vs_dogs_small")
_COPIED_BYTES = 1 << 28
"""Up to this size a selection of images is copied into memory; a larger one stays in the memory-mapped file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 [n, height, width, channels], and the label of each, int32 [n]. Both are read-only.

    `images` may be a view of a file, `convjax.data.rows.Rows`: index it with rows, or make an array of it.
    """

    images: np.ndarray | Rows
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set to run on.

    Attributes:
      name: as given to `load`.
      fingerprint: 16 hex digits that identify the whole training and test data, before any subset is taken; the same
        data has the same fingerprint whatever its source.
      class_names: one per label.
      validation: held out of the training set, or the data set's own; None if there is neither.
      details: JSON values: `notes` for the user, and the files `left_out`.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels run from 0 to one less."""
        return len(self.class_names)


def load(
    name: str,
    data_dir: str = "",
    *,
    train_size: int = 0,
    validation_size: int = 0,
    image_size: str = "0",
    color: str = "auto",
    skip_corrupt: bool = False,
    log: Log = _LOG,
    progress: Progress | None = None,
) -> Dataset:
    """Loads a data set, preparing it first if that has not been done.

    Args:
      name: `mnist`, `fashion_mnist`, `kmnist`, `mnist_5k` (ships with convjax), `corners/MARGIN`
        (`convjax.data.corners`), `cats_vs_dogs`, `cats_vs_dogs_small` (`convjax.data.folders.cats_vs_dogs`),
        `folder:PATH` for a folder of images (`convjax.data.folders.folder`), or the TFDS name of any other data set
        of labeled images of one size, such as `cifar10` or `emnist/balanced`.
      data_dir: folder with raw data files; prepared data is kept there too if it is writable. Empty for the user's
        cache (see `convjax.data.cache.user_cache`).
      train_size: train on a stratified subset of this many examples; larger subsets contain smaller ones. 0 for all.
      validation_size: hold out this many training examples, stratified and always the same; 0 for none.
      image_size: `N` or `HxW` to resize every image to; `0` to keep the data set's size.
      color: `grey` or `rgb`; `auto` to keep the data set's channels.
      skip_corrupt: leave out unusable files of a folder instead of refusing the folder.
      log: receives news, one line at a time.
      progress: receives the bytes of each download.

    Raises:
      UserError: an unknown name, an impossible size, a wrong file in `data_dir`, or not labeled images of one size.
      UnavailableError: no source could provide the data (the message lists what was tried), or it cannot be kept.
    """
    decoded = prepare(
        name, data_dir, image_size=image_size, color=color, skip_corrupt=skip_corrupt, log=log, progress=progress
    )
    if validation_size and decoded.validation is not None:
        raise UserError(
            f"--validation_size={validation_size:,}: {name} has {len(decoded.validation[1]):,} validation images of "
            "its own; leave the flag out"
        )
    train, validation = splits.split_train(decoded.train[1], train_size, validation_size)
    everything = len(train) == len(decoded.train[1]) and not train_size
    own = None if decoded.validation is None else Split(*decoded.validation)
    return Dataset(
        name=name,
        fingerprint=decoded.fingerprint,
        class_names=decoded.class_names,
        train=Split(*decoded.train) if everything else _take(decoded.train, train),
        validation=_take(decoded.train, validation) if len(validation) else own,
        test=Split(*decoded.test),
        details=decoded.details,
    )


def _take(pair: Pair, positions: np.ndarray) -> Split:
    images, labels = pair
    if len(positions) * images[0].nbytes > _COPIED_BYTES:
        return Split(Rows(images, positions), labels[positions])
    return Split(images[positions], labels[positions])


def prepare(
    name: str,
    data_dir: str = "",
    *,
    image_size: str = "0",
    color: str = "auto",
    skip_corrupt: bool = False,
    log: Log = _LOG,
    progress: Progress | None = None,
) -> Decoded:
    """The whole data set and where it came from: the first half of `load`."""
    size = parse_size(image_size)
    if name.startswith(FOLDER):
        return folders.folder.prepare(name, data_dir, size=size, color=color, skip_corrupt=skip_corrupt, log=log)
    if name in _CATS_VS_DOGS:
        return folders.cats_vs_dogs.prepare(name, data_dir, size=size, color=color, log=log, progress=progress)
    if name in idx.BUILT_IN:
        decoded = idx.pipeline.prepare(idx.BUILT_IN[name], data_dir, log=log, progress=progress)
    elif name.startswith(corners.PREFIX):
        decoded = corners.prepare(name)
    else:
        decoded = tfds.names.prepare(name, data_dir, log=log)
    if size is None and color == "auto":
        return decoded
    return resized.prepare(decoded, size, color, data_dir, log=log)


def image_info(
    name: str, *, image_size: str = "0", color: str = "auto", skip_corrupt: bool = False, data_dir: str = ""
) -> tuple[tuple[int, int, int], int]:
    """Image shape (height, width, channels) and number of classes of a data set, without touching data if possible.

    A folder's images are read only if `image_size` or `color` leaves their shape open.

    Raises:
      UserError: an unknown name, or not labeled images of one size.
    """
    size = parse_size(image_size)
    if name.startswith(FOLDER):
        return _folder_info(name, size, color, skip_corrupt, data_dir)
    if name in _CATS_VS_DOGS:
        size = folders.cats_vs_dogs.require_size(name, size)
        return (*size, 1 if color == "grey" else 3), len(folders.cats_vs_dogs.CLASS_NAMES)
    if name in idx.BUILT_IN:
        shape, classes = idx.BUILT_IN[name].image_shape, len(idx.BUILT_IN[name].class_names)
    elif name.startswith(corners.PREFIX):
        corners.margin_of(name)
        shape, classes = corners.IMAGE_SHAPE, len(corners.CLASS_NAMES)
    else:
        shape, classes = tfds.names.image_info(name)
    if size is None and color == "auto":
        return shape, classes
    return resized.new_shape(name, shape, size, color), classes


@functools.lru_cache(maxsize=8)
def _folder_info(
    name: str, size: Window | None, color: str, skip_corrupt: bool, data_dir: str
) -> tuple[tuple[int, int, int], int]:
    if size is not None and color != "auto":
        return folders.folder.image_info(name, size, color)
    decoded = folders.folder.prepare(name, data_dir, size=size, color=color, skip_corrupt=skip_corrupt, log=_LOG)
    return decoded.train[0].shape[1:], len(decoded.class_names)


def parse_size(text: str) -> Window | None:
    """`--image_size` as (height, width); None for `0`, the data set's own size. `RunConfig` has checked the text."""
    height, _, width = text.partition("x")
    return None if text == "0" else (int(height), int(width or height))
