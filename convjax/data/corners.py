"""`corners/MARGIN`: one patch of noise on black, near the upper left or the lower right corner. The label is which.

Nothing but the place tells the classes apart: every patch is shown at both. A network that can learn this reads
absolute position (Kayhan and van Gemert 2020, On Translation Invariance in CNNs, section 3).
"""

import functools

import numpy as np

from convjax.data.cache import Decoded, fingerprint
from convjax.errors import UserError

PREFIX = "corners/"
IMAGE_SHAPE = (28, 28, 1)
CLASS_NAMES = ("upper left", "lower right")
PATCH = 4
"""Rows and columns of the patch."""

_LARGEST_MARGIN = IMAGE_SHAPE[0] // 2 - PATCH
_TRAIN, _TEST = 2000, 500
_KEY = 28


def margin_of(name: str) -> int:
    """Pixels between the patch and the two sides of its corner.

    Raises:
      UserError: no such margin.
    """
    text = name.removeprefix(PREFIX)
    if not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_MARGIN):
        raise UserError(f"--dataset={name}: expected {PREFIX}MARGIN, such as {PREFIX}0, from 0 to {_LARGEST_MARGIN}")
    return int(text)


@functools.lru_cache(maxsize=4)
def prepare(name: str) -> Decoded:
    """The data: 4,000 training and 1,000 test images, each patch once at both places; always the same.

    Raises:
      UserError: no such margin.
    """
    margin = margin_of(name)
    # random_raw and not Generator: NumPy promises never to change the former's stream (NEP 19).
    noise = np.random.Philox(key=_KEY).random_raw((_TRAIN + _TEST) * PATCH * PATCH)
    patches = (noise % 256).astype(np.uint8).reshape(-1, PATCH, PATCH)
    images = np.zeros((len(patches), 2, *IMAGE_SHAPE), np.uint8)
    near, far = margin, IMAGE_SHAPE[0] - margin - PATCH
    for place, start in enumerate((near, far)):
        images[:, place, start : start + PATCH, start : start + PATCH, 0] = patches
    labels = np.tile(np.arange(2, dtype=np.int32), len(patches))
    images = images.reshape(-1, *IMAGE_SHAPE)
    for array in (images, labels):
        array.flags.writeable = False
    end = 2 * _TRAIN
    train, test = (images[:end], labels[:end]), (images[end:], labels[end:])
    return Decoded(name, fingerprint(train, test), CLASS_NAMES, "made by a formula", train, test)
