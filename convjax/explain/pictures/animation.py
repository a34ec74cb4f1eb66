"""Figures one after the other as an animated GIF."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

_DPI = 96
_COLOURS = 256


@dataclass(frozen=True)
class Animation:
    """A picture that moves.

    Attributes:
      name: of its file, without an ending.
      title: what it is, a few words.
      description: what one sees, for those who do not.
      caption: below it.
      frames: the figures of a theme; one figure may be changed and given again.
      milliseconds: of a frame; the last one stays four times as long.
    """

    name: str
    title: str
    description: str
    caption: str
    frames: Callable[[str], Iterable[Figure]]
    milliseconds: int


def to_gif(animation: Animation, theme: str) -> bytes:
    """The animation as a GIF that runs for ever, all frames with one palette."""
    frames = [_drawn(figure) for figure in animation.frames(theme)]
    # The palette of first, middle and last frame together: colours do not flicker from frame to frame.
    chosen = [frames[index] for index in sorted({0, len(frames) // 2, len(frames) - 1})]
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in chosen])).quantize(_COLOURS, kmeans=1)
    # The mean of near colours would leave the background a little off the page's.
    background, index = frames[0].getpixel((0, 0)), frames[0].quantize(palette=palette).getpixel((0, 0))
    entries = palette.getpalette()
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
        image.seek(image.n_frames - 1)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _drawn(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return Image.open(buffer).convert("RGB")
