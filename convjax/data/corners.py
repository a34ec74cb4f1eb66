"""`corners/MARGIN`: a patch of noise on black, near the upper left or the lower right corner; the label says which.

Every patch appears at both places, so only its position tells the classes apart. A network that learns this reads
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
"""Height and width of the patch."""

_LARGEST_MARGIN = IMAGE_SHAPE[0] // 2 - PATCH
_TRAIN, _TEST = 2000, 500
_KEY = 28


def margin_of(name: str) -> int:
    """Pixels between the patch and the two nearest sides of the image.

    Raises:
      UserError: the name has no margin in the allowed range.
    """
    text = name.removeprefix(PREFIX)
    if not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_MARGIN):
        raise UserError(f"--dataset={name}: expected {PREFIX}MARGIN, such as {PREFIX}0, from 0 to {_LARGEST_MARGIN}")
    return int(text)


@functools.lru_cache(maxsize=4)
def prepare(name: str) -> Decoded:
    """4,000 training and 1,000 test images, always the same; each patch appears once at each place.

    Raises:
      UserError: the name has no margin in the allowed range.
    """
    margin = margin_of(name)
    # random_raw rather than Generator: NumPy promises never to change its stream (NEP 19).
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
