"""Animated GIFs made of figures."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

_DPI = 96
_COLORS = 256


@dataclass(frozen=True)
class Animation:
    """A moving picture.

    Attributes:
      name: of its file, without the ending.
      description: what it shows, for readers who cannot see it.
      caption: the text below it.
      frames: makes the titled figures: `frames(theme="light")`.
      milliseconds: how long a frame is shown; the last one four times as long.
    """

    name: str
    description: str
    caption: str
    frames: Callable[..., Iterable[Figure]]
    milliseconds: int


def evenly(count: int, most: int) -> list[int]:
    """All indices below `count`, or `most` of them evenly spread from the first to the last."""
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count > most else list(range(count))


def to_gif(animation: Animation, theme: str) -> bytes:
    """The animation as a GIF that repeats forever; all frames share one palette."""
    frames = [_drawn(figure) for figure in animation.frames(theme=theme)]
    # The palette of the first, middle and last frame together keeps colors from flickering.
    chosen = [frames[index] for index in sorted({0, len(frames) // 2, len(frames) - 1})]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in chosen])).quantize(_COLORS, kmeans=1)
    # Averaging similar colors would shift the background slightly away from the page's.
    background = cast(tuple[int, int, int], frames[0].getpixel((0, 0)))
    index = cast(int, frames[0].quantize(palette=palette).getpixel((0, 0)))
    entries = palette.getpalette()
    assert entries is not None
    entries[3 * index : 3 * index + 3] = background
    palette.putpalette(entries)
    shown = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [animation.milliseconds] * (len(shown) - 1) + [4 * animation.milliseconds]
    buffer = io.BytesIO()
    shown[0].save(
        buffer, format="GIF", save_all=True, append_images=shown[1:], duration=times, loop=0, optimize=True, disposal=1
    )
    return buffer.getvalue()


def last_frame(gif: bytes) -> bytes:
    """The last frame of a GIF as a PNG."""
    with Image.open(io.BytesIO(gif)) as image:
        assert isinstance(image, GifImageFile)
        image.seek(image.n_frames - 1)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _drawn(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return Image.open(buffer).convert("RGB")
