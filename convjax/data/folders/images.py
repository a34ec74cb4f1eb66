"""Single images: from the bytes of a JPEG, PNG or WebP file to pixels, with distrust; resizing; grey and colour."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from convjax.errors import UserError
from convjax.notation import Window

Color = Literal["auto", "grey", "rgb"]

FORMATS = ("JPEG", "PNG", "WEBP")
FORMAT_NAMES = "JPEG, PNG or WebP"
LARGEST_FILE = 1 << 28
"""Bytes of an image file; what is larger is not read."""
LARGEST_IMAGE = 100_000_000
"""Pixels of an image; what has more is not decoded: a few kilobytes can claim to be gigabytes."""

_CHANNELS = {"grey": 1, "rgb": 3}
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


class BadImage(Exception):
    """The bytes are no image that can be used; the message says why."""


def parse_size(text: str) -> Window | None:
    """`--image_size`: (height, width), or None for `0`, the data set's own. `RunConfig` checks it."""
    height, _, width = text.partition("x")
    return None if text == "0" else (int(height), int(width or height))


def channels(color: str) -> int:
    """1 or 3, of `grey` or `rgb`."""
    return _CHANNELS[color]


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, its header read and its size found sane.

    Raises:
      BadImage: it cannot be; whatever goes wrong inside means that too.
    """
    if not content:
        raise BadImage("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own remarks on large or odd files
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > LARGEST_IMAGE:
                    raise BadImage(
                        f"claims to be {image.width}x{image.height} pixels; the most allowed are {LARGEST_IMAGE:,}"
                    )
                yield image
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage(f"is no {FORMAT_NAMES} image") from None
    except Image.DecompressionBombError:
        raise BadImage(f"claims to have more than {LARGEST_IMAGE:,} pixels") from None
    except Exception as error:  # Pillow's decoders raise all sorts of things on damaged files
        raise BadImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def inspect(content: bytes) -> tuple[Window, bool]:
    """(height, width) as shown, and whether it is grey, from the header alone.

    Raises:
      BadImage: the header is no image's.
    """
    with _opened(content) as image:
        turned = _orientation(image) >= 5
        size = (image.width, image.height) if turned else (image.height, image.width)
        return size, _is_grey(image)


def decode(content: bytes, size: Window | None, color: str) -> np.ndarray:
    """Pixels, uint8 [height, width, 1 or 3].

    The first frame, turned as its EXIF says, without alpha, resized without regard to its proportions (bilinear with
    anti-aliasing), as `image_dataset_from_directory` of Keras stretches images.

    Args:
      content: of the file.
      size: (height, width) to resize to; None to leave it.
      color: `grey` (ITU-R 601 luma) or `rgb`.

    Raises:
      BadImage: it cannot be decoded to its end.
    """
    with _opened(content) as image:
        image.load()
        image = _to_8_bits(image)
        if _orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        return resize(image.convert("L" if color == "grey" else "RGB"), size)


def resize(image: Image.Image, size: Window | None) -> np.ndarray:
    """An `L` or `RGB` image as uint8 [height, width, channels]."""
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def convert(pixels: np.ndarray, size: Window | None, color: str) -> np.ndarray:
    """uint8 [height, width, 1 or 3] in another size or number of channels; see `decode`."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if color != "auto":
        image = image.convert("L" if color == "grey" else "RGB")
    return resize(image, size)


def require_supported_shape(name: str, shape: tuple[int, ...]) -> None:
    """Refuses to convert images that are neither grey nor RGB.

    Raises:
      UserError: naming the data set.
    """
    if shape[-1] not in (1, 3):
        raise UserError(f"{name}: its images have {shape[-1]} channels; --image_size and --color need 1 or 3")


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY_MODES or image.mode.startswith("I;16")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey PNGs hold 0 to 65535, which Pillow's own conversion would cut off at 255."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data says nothing about how to turn the image
        return 1
