"""Data sets as arrays: `load` gets any of them, from wherever it can be had, and checks what it got.

The arrays are whole and uint8; what a run does to them (scaling, shuffling, augmentation) is the run's business.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convjax.config import FOLDER
from convjax.data import corners, splits
from convjax.data.cache import Decoded, Pair
from convjax.data.download import Progress
from convjax.data.idx.catalog import BUILT_IN
from convjax.errors import UserError

__all__ = ["Dataset", "Progress", "Split", "image_info", "load", "prepare"]

Log = Callable[[str], None]
_LOG: Log = logging.getLogger(__name__).info

_CATS_VS_DOGS = ("cats_vs_dogs", "cats_vs_dogs_small")
_COPIED_BYTES = 1 << 28
"""A selection of images is copied into memory up to this size; a larger one stays in the memory-mapped file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 [n, height, width, channels], and the label of each, int32 [n]. Not to be written to.

    `images` may be a view of a file, `convjax.data.rows.Rows`: index it with rows, or make an array of it.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set to run on.

    Attributes:
      name: as given to `load`.
      fingerprint: 16 hex digits that identify the content of all of train and test, before any of it is left out;
        the same for the same data from whatever source.
      class_names: one per label.
      validation: held out of the training set, or the data set's own; None where there is nothing.
      details: what else is to be known, as JSON values: `notes` for the user, `left_out` files.
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
        """How many labels there are; labels are 0 up to this, not including it."""
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
    """Loads a data set, preparing it first where that has not been done.

    Args:
      name: `mnist`, `fashion_mnist`, `kmnist`, `mnist_5k` (ships with convjax), `corners/MARGIN`
        (`convjax.data.corners`), `cats_vs_dogs`, `cats_vs_dogs_small` (`convjax.data.folders.cats_vs_dogs`),
        `folder:PATH` for a folder of images (`convjax.data.folders.folder`), or TFDS's name of any other data set of
        labelled images of one size, such as `cifar10` or `emnist/balanced`.
      data_dir: folder with raw data files, and where prepared data is kept if it may be written to; empty for the
        user's cache (see `convjax.data.cache.user_cache`).
      train_size: train on a stratified subset of so many examples, each inside every larger one; 0 for all.
      validation_size: hold out so many examples of the training set, stratified and always the same; 0 for none.
      image_size: `N` or `HxW` to resize every image to; `0` for the size that the data set has.
      color: `grey` or `rgb`; `auto` for what the data set is.
      skip_corrupt: leave out files of a folder that cannot be used; else they are an error.
      log: told what goes on when something does, a line at a time.
      progress: told of bytes as they are downloaded.

    Raises:
      UserError: an unknown name, an impossible size, a wrong file in `data_dir`, or not labelled images of one size.
      UnavailableError: the data could be had from nowhere, or cannot be kept; the message says what was tried.
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
    return Dataset(
        name=name,
        fingerprint=decoded.fingerprint,
        class_names=decoded.class_names,
        train=Split(*decoded.train) if everything else _take(decoded.train, train),
        validation=_take(decoded.train, validation) if len(validation) else _optional(decoded.validation),
        test=Split(*decoded.test),
        details=decoded.details,
    )


def _optional(pair: Pair | None) -> Split | None:
    return None if pair is None else Split(*pair)


def _take(pair: Pair, positions: np.ndarray) -> Split:
    images, labels = pair
    if len(positions) * images[0].nbytes > _COPIED_BYTES:
        from convjax.data.rows import Rows

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
    """The whole of a data set and where it came from; see `load`, which this is the first half of."""
    if name.startswith(FOLDER):
        from convjax.data.folders import folder as folders
        from convjax.data.folders import images

        size = images.parse_size(image_size)
        return folders.prepare(name, data_dir, size=size, color=color, skip_corrupt=skip_corrupt, log=log)
    if name in _CATS_VS_DOGS:
        from convjax.data.folders import cats_vs_dogs, images

        size = images.parse_size(image_size)
        return cats_vs_dogs.prepare(name, data_dir, size=size, color=color, log=log, progress=progress)
    if name in BUILT_IN:
        from convjax.data.idx import pipeline

        decoded = pipeline.prepare(BUILT_IN[name], data_dir, log=log, progress=progress)
    elif name.startswith(corners.PREFIX):
        decoded = corners.prepare(name)
    else:
        from convjax.data.tfds import names as tfds_names

        decoded = tfds_names.prepare(name, data_dir, log=log)
    if (image_size, color) == ("0", "auto"):
        return decoded
    from convjax.data import resized
    from convjax.data.folders import images

    return resized.prepare(decoded, images.parse_size(image_size), color, data_dir, log=log)


def image_info(
    name: str, *, image_size: str = "0", color: str = "auto", skip_corrupt: bool = False, data_dir: str = ""
) -> tuple[tuple[int, int, int], int]:
    """Image shape (height, width, channels) and number of classes of a data set, without touching any data if it can.

    A folder's images are looked at where `image_size` or `color` does not say what they come to.

    Raises:
      UserError: an unknown name, or not labelled images of one size.
    """
    if name.startswith(FOLDER):
        return _folder_info(name, image_size, color, skip_corrupt, data_dir)
    if name in _CATS_VS_DOGS:
        from convjax.data.folders import cats_vs_dogs, images

        size = cats_vs_dogs.require_size(name, images.parse_size(image_size))
        return (*size, 1 if color == "grey" else 3), len(cats_vs_dogs.CLASS_NAMES)
    if name in BUILT_IN:
        shape, classes = BUILT_IN[name].image_shape, len(BUILT_IN[name].class_names)
    elif name.startswith(corners.PREFIX):
        corners.margin_of(name)
        shape, classes = corners.IMAGE_SHAPE, len(corners.CLASS_NAMES)
    else:
        from convjax.data.tfds import names as tfds_names

        shape, classes = tfds_names.image_info(name)
    if (image_size, color) == ("0", "auto"):
        return shape, classes
    from convjax.data.folders import images

    images.require_supported_shape(name, shape)
    size = images.parse_size(image_size) or shape[:2]
    return (*size, shape[-1] if color == "auto" else images.channels(color)), classes


@functools.lru_cache(maxsize=8)
def _folder_info(
    name: str, image_size: str, color: str, skip_corrupt: bool, data_dir: str
) -> tuple[tuple[int, int, int], int]:
    from convjax.data.folders import folder as folders
    from convjax.data.folders import images

    size = images.parse_size(image_size)
    if size is not None and color != "auto":
        return folders.image_info(name, size, color)
    decoded = folders.prepare(name, data_dir, size=size, color=color, skip_corrupt=skip_corrupt, log=_LOG)
    return decoded.train[0].shape[1:], len(decoded.class_names)
