"""Data sets of images of one size, brought to another size or number of channels, once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from convjax.data import cache
from convjax.data.cache import Decoded, Pair
from convjax.data.folders.images import channels, convert, require_supported_shape
from convjax.data.idx.sources import Log
from convjax.notation import Window

_BATCH = 1024


def prepare(decoded: Decoded, size: Window | None, color: str, data_dir: str, *, log: Log) -> Decoded:
    """`decoded` with its images in another size (None: their own) or color (`auto`: their own).

    Raises:
      UserError: its images are neither grey nor RGB.
      UnavailableError: nothing can be written.
    """
    shape = decoded.train[0].shape[1:]
    require_supported_shape(decoded.name, shape)
    wanted = (*(size or shape[:2]), shape[-1] if color == "auto" else channels(color))
    if wanted == shape:
        return decoded
    label = "x".join(map(str, wanted))
    key, roots = f"{decoded.fingerprint} {label}", cache.roots(data_dir)
    name = f"{decoded.folder.name if decoded.folder else decoded.name}-{label}".replace("/", "-")
    for root in roots.read:
        kept = cache.read(root / name, key)
        if kept is not None:
            return kept
    log(f"{decoded.name}: bringing its images to {label} (once)")
    with cache.scratch(roots.write) as scratch:
        train, test = (
            _converted(pair, wanted, color, scratch / f"{split}.npy")
            for split, pair in (("train", decoded.train), ("test", decoded.test))
        )
        fingerprint = cache.fingerprint(train, test)
        made = Decoded(decoded.name, fingerprint, decoded.class_names, decoded.source, train, test, roots.write / name)
        cache.write(roots.write, key, made)
    return cache.read(roots.write / name, key) or made


def _converted(pair: Pair, shape: tuple[int, int, int], color: str, path: Path) -> Pair:
    images, labels = pair
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (len(images), *shape))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for index, pixels in enumerate(threads.map(lambda image: convert(image, shape[:2], color), batch)):
                made[start + index] = pixels
    return made, labels
