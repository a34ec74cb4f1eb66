"""Lets TFDS's own builders prepare image data without TensorFlow.

Two things stop most of TFDS's image-classification builders without it (tfds issue 11058): they read raw files through
`tf.io.gfile`, and `features.Image` encodes arrays with a TensorFlow graph. Within `stand_in`, Python's file functions
replace the first and Pillow the second. If a builder uses any other part of TensorFlow, `TensorFlowNeeded` names it.
Reading prepared data needs none of this.
"""

import contextlib
import glob
import io
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.core.features import image_feature


class TensorFlowNeeded(Exception):
    """A TFDS builder used a part of TensorFlow that has no stand-in; the message is that part's name."""


class _StandIn:
    """A TensorFlow module with some members; any other member raises `TensorFlowNeeded`."""

    def __init__(self, path: str, **members: Any):
        self._path = path
        vars(self).update(members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise TensorFlowNeeded(f"{self._path}.{name}")


def _glob(pattern: Any) -> list[str]:
    patterns = pattern if isinstance(pattern, list | tuple) else [pattern]
    return sorted(name for one in patterns for name in glob.glob(os.fspath(one)))


def _open(path: Any, mode: str = "r") -> Any:
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


_GFILE = _StandIn(
    "tf.io.gfile",
    GFile=_open,
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=lambda path: sorted(os.listdir(path)),
    glob=_glob,
    walk=os.walk,
    copy=lambda source, target, overwrite=False: shutil.copyfile(source, target),
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    remove=os.remove,
)
_TENSORFLOW = _StandIn(
    "tf",
    io=_StandIn("tf.io", gfile=_GFILE),
    compat=_StandIn("tf.compat", as_text=lambda text: text.decode() if isinstance(text, bytes) else str(text)),
    # The stand-ins raise these where TensorFlow raises its own.
    errors=_StandIn("tf.errors", NotFoundError=FileNotFoundError, ResourceExhaustedError=OSError),
)


def _encode_image(self: Any, image: np.ndarray) -> bytes:
    """Replaces `features.Image`'s encoder: uint8 [height, width, 1, 3 or 4 channels] to PNG or JPEG."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise TensorFlowNeeded(f"an image encoder for {image.dtype} {list(image.shape)}")
    if any(size not in (None, found) for size, found in zip(self.shape, image.shape, strict=True)):
        raise ValueError(f"an image of shape {image.shape} where {self.shape} was declared")
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    picture.save(buffer, format=self.encoding_format.upper())
    return buffer.getvalue()


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def stand_in(builder: Any) -> Iterator[None]:
    """Within it, `builder` and TFDS's preparation code use the stand-ins instead of TensorFlow."""
    own = {cls.__module__ for cls in type(builder).__mro__ if not cls.__module__.startswith("tensorflow_datasets.core")}
    modules = [shuffle, extractor, *(sys.modules[name] for name in own if name in sys.modules)]
    with contextlib.ExitStack() as stack:
        for module in modules:
            if hasattr(module, "tf"):
                stack.enter_context(_replaced(module, "tf", _TENSORFLOW))
        stack.enter_context(_replaced(image_feature._ImageEncoder, "_encode_image", _encode_image))
        yield
