"""Decodes one untrusted JPEG, PNG or WebP file to pixels; resizes images and converts between gray and RGB."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from convjax.notation import Window

FORMATS = ("JPEG", "PNG", "WEBP")
FORMAT_NAMES = "JPEG, PNG or WebP"
LARGEST_FILE = 1 << 28
"""Bytes; a larger image file is not read."""
LARGEST_IMAGE = 100_000_000
"""Pixels; a larger image is not decoded, because a few kilobytes can claim to be gigabytes."""

CHANNELS = {"grey": 1, "rgb": 3}
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


class BadImage(Exception):
    """The bytes are no usable image; the message says why."""


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Opens an image of limited size; any failure, also in the body of the `with`, becomes BadImage."""
    if not content:
        raise BadImage("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large or odd files
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
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise BadImage(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def inspect(content: bytes) -> tuple[Window, bool]:
    """(height, width) as displayed, and whether the image is gray, from its header.

    Raises:
      BadImage: it is no image header.
    """
    with _opened(content) as image:
        turned = _orientation(image) >= 5
        size = (image.width, image.height) if turned else (image.height, image.width)
        return size, _is_gray(image)


def decode(content: bytes, size: Window | None, color: str) -> np.ndarray:
    """Pixels, uint8 [height, width, 1 or 3].

    Takes the first frame, rotates it as its EXIF data says, drops alpha, and stretches it to `size` (bilinear with
    anti-aliasing) as Keras's `image_dataset_from_directory` does.

    Args:
      content: of the file.
      size: (height, width) to resize to; None keeps the image's own.
      color: `grey` (ITU-R 601 luma) or `rgb`.

    Raises:
      BadImage: it cannot be decoded completely.
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
    """Converts uint8 [height, width, 1 or 3] to another size or number of channels; see `decode`."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if color != "auto":
        image = image.convert("L" if color == "grey" else "RGB")
    return resize(image, size)


def _is_gray(image: Image.Image) -> bool:
    return image.mode in _GRAY_MODES or image.mode.startswith("I;16")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit gray PNGs (0 to 65535), which Pillow's conversion would clip at 255."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data counts as none
        return 1
