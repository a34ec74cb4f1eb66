"""Reads data that TFDS prepared into arrays, without TensorFlow."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.data_sources.base import BaseDataSource

from convjax.data.cache import Pair
from convjax.errors import UserError


@contextlib.contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Keeps TFDS's messages off standard output, which is for results; `bars` allows progress bars on stderr."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(enable=bars)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(enable=True)
        logging.set_verbosity(verbosity)


def open_prepared(folder: Path) -> tfds.core.DatasetBuilder:
    """The builder of the prepared copy in `folder`."""
    return tfds.builder_from_directory(folder)


def read_split(builder: tfds.core.DatasetBuilder, split: str, *, batch: int = 1, folder: Path | None = None) -> Pair:
    """All examples of a prepared split, in its order.

    Args:
      builder: of data in array_record format.
      split: its TFDS name.
      batch: how many to read at once. Batches are twice as fast, but TFDS's mock data supports only 1.
      folder: holds the images in a memory-mapped file; None keeps them in memory.

    Returns:
      Images, uint8 [n, height, width, channels], and labels, int32 [n].

    Raises:
      UserError: the split is empty, or its images are not all of one size.
    """
    with quiet():
        source = builder.as_data_source(split=split)
        count = len(source)
        if count == 0:
            raise UserError(f"{builder.name}: its split {split!r} has no examples")
        first = source[0]["image"].shape
        shape, labels = (count, *first), np.empty(count, np.int32)
        if folder is None:
            images = np.empty(shape, np.uint8)
        else:
            images = np.lib.format.open_memmap(folder / f"{split}_images.npy", "w+", np.uint8, shape)
        for index, example in enumerate(_examples(source, batch)):
            if example["image"].shape != first:
                sizes = " and ".join("x".join(map(str, shape)) for shape in (first, example["image"].shape))
                raise UserError(f"{builder.name}: its images differ in size ({sizes}); convjax needs one size")
            images[index], labels[index] = example["image"], example["label"]
    return images, labels


def _examples(source: BaseDataSource, batch: int) -> Iterator[dict[str, Any]]:
    if batch == 1:
        yield from (source[index] for index in range(len(source)))
        return
    for start in range(0, len(source), batch):
        yield from source.__getitems__(list(range(start, min(start + batch, len(source)))))
