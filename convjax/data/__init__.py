"""Data sets as arrays: `load` gets any of them, from wherever it can be had, and checks what it got.

The arrays are whole and uint8; what a run does to them (scaling, shuffling, augmentation) is the run's business.
"""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from convjax.data import corners, splits
from convjax.data.cache import Decoded, Pair
from convjax.data.catalog import BUILT_IN
from convjax.data.download import Progress

__all__ = ["Dataset", "Progress", "Split", "image_info", "load", "prepare"]

Log = Callable[[str], None]
_LOG: Log = logging.getLogger(__name__).info


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 [n, height, width, channels], and the label of each, int32 [n]. Not to be written to."""

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
      validation: held out of the training set; None where nothing is.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split

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
    log: Log = _LOG,
    progress: Progress | None = None,
) -> Dataset:
    """Loads a data set, preparing it first where that has not been done.

    Args:
      name: `mnist`, `fashion_mnist`, `kmnist`, `mnist_5k` (ships with convjax), `corners/MARGIN`
        (`convjax.data.corners`), or TFDS's name of any other data set of
        labelled images of one size, such as `cifar10` or `emnist/balanced`.
      data_dir: folder with raw data files, and where prepared data is kept if it may be written to; empty for the
        user's cache (see `convjax.data.cache.user_cache`).
      train_size: train on a stratified subset of so many examples, each inside every larger one; 0 for all.
      validation_size: hold out so many examples of the training set, stratified and always the same; 0 for none.
      log: told what goes on when something does, a line at a time.
      progress: told of bytes as they are downloaded.

    Raises:
      UserError: an unknown name, an impossible size, a wrong file in `data_dir`, or not labelled images of one size.
      UnavailableError: the data could be had from nowhere, or cannot be kept; the message says what was tried.
    """
    decoded = prepare(name, data_dir, log=log, progress=progress)
    train, validation = splits.split_train(decoded.train[1], train_size, validation_size)
    everything = len(train) == len(decoded.train[1]) and not train_size
    return Dataset(
        name=name,
        fingerprint=decoded.fingerprint,
        class_names=decoded.class_names,
        train=Split(*decoded.train) if everything else _take(decoded.train, train),
        validation=_take(decoded.train, validation) if len(validation) else None,
        test=Split(*decoded.test),
    )


def _take(pair: Pair, positions: np.ndarray) -> Split:
    images, labels = pair
    return Split(images[positions], labels[positions])


def prepare(name: str, data_dir: str = "", *, log: Log = _LOG, progress: Progress | None = None) -> Decoded:
    """The whole of a data set and where it came from; see `load`, which this is the first half of."""
    if name in BUILT_IN:
        from convjax.data import pipeline

        return pipeline.prepare(BUILT_IN[name], data_dir, log=log, progress=progress)
    if name.startswith(corners.PREFIX):
        return corners.prepare(name)
    from convjax.data import tfds_names

    return tfds_names.prepare(name, data_dir, log=log)


def image_info(name: str) -> tuple[tuple[int, int, int], int]:
    """Image shape (height, width, channels) and number of classes of a data set, without touching any data.

    Raises:
      UserError: an unknown name, or not labelled images of one size.
    """
    if name in BUILT_IN:
        return BUILT_IN[name].image_shape, len(BUILT_IN[name].class_names)
    if name.startswith(corners.PREFIX):
        corners.margin_of(name)
        return corners.IMAGE_SHAPE, len(corners.CLASS_NAMES)
    from convjax.data import tfds_names

    return tfds_names.image_info(name)
