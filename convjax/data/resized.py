"""Resizes the images of a prepared data set, or changes their channels, once; keeps the result in the cache."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from convjax.data import cache, folders
from convjax.data.cache import Decoded, Pair
from convjax.data.download import Log
from convjax.errors import UserError
from convjax.notation import Window

_BATCH = 1024


def new_shape(name: str, shape: tuple[int, int, int], size: Window | None, color: str) -> tuple[int, int, int]:
    """The shape that images of `shape` get; None and `auto` keep what they have.

    Raises:
      UserError: the images of `name` are neither gray nor RGB.
    """
    if shape[-1] not in (1, 3):
        raise UserError(f"{name}: its images have {shape[-1]} channels; --image_size and --color need 1 or 3")
    return (*(size or shape[:2]), shape[-1] if color == "auto" else folders.images.CHANNELS[color])


def prepare(decoded: Decoded, size: Window | None, color: str, data_dir: str, *, log: Log) -> Decoded:
    """`decoded` with its images in another size (None: unchanged) or color (`auto`: unchanged).

    Raises:
      UserError: its images are neither gray nor RGB.
      UnavailableError: nothing can be written.
    """
    shape = decoded.train[0].shape[1:]
    wanted = new_shape(decoded.name, shape, size, color)
    if wanted == shape:
        return decoded
    label = "x".join(map(str, wanted))
    key, roots = f"{decoded.fingerprint} {label}", cache.roots(data_dir)
    name = f"{decoded.folder.name if decoded.folder else decoded.name}-{label}".replace("/", "-")
    if kept := cache.find(roots, name, key):
        return kept
    log(f"{decoded.name}: converting its images to {label} (once)")
    with cache.scratch(roots.write) as scratch:
        train, test = (
            _converted(pair, wanted, color, scratch / f"{split}.npy")
            for split, pair in (("train", decoded.train), ("test", decoded.test))
        )
        fingerprint = cache.fingerprint(train, test)
        made = Decoded(decoded.name, fingerprint, decoded.class_names, decoded.source, train, test, roots.write / name)
        return cache.write(roots.write, key, made)


def _converted(pair: Pair, shape: tuple[int, int, int], color: str, path: Path) -> Pair:
    images, labels = pair
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (len(images), *shape))
    convert = folders.images.convert
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for index, pixels in enumerate(threads.map(lambda image: convert(image, shape[:2], color), batch)):
                made[start + index] = pixels
    return made, labels
