"""Color scales for pictures of numbers: perceptually uniform, and readable for color-blind people.

Values from 0 up use viridis. Signed values use a scale of our own, blue below zero and orange above. It is made in
CIELAB: lightness falls in equal steps on both sides of zero, so equal differences look equal, and protanopes and
deuteranopes can tell the two hues apart. Matplotlib's own diverging scales are not uniform.
"""

import functools
from typing import Final

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize
from numpy.typing import NDArray

_LOW, _MIDDLE, _HIGH = (32.0, 12.0, -46.0), (96.0, 0.0, 0.0), (32.0, 42.0, 41.0)
"""CIELAB of the ends and the middle. Both ends have the same lightness, and all colors between are within sRGB."""

_LEVELS: Final = 257
_WHITE = np.array([0.95047, 1.0, 1.08883])
_XYZ_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


def sequential() -> Colormap:
    """From zero (dark) up (bright)."""
    return matplotlib.colormaps["viridis"]


@functools.cache
def diverging() -> Colormap:
    """From negative (blue) through zero (almost white) to positive (orange)."""
    share = np.linspace(0, 1, _LEVELS // 2 + 1)[:, None]
    low, middle, high = (np.array(color) for color in (_LOW, _MIDDLE, _HIGH))
    lab = np.concatenate([low + (middle - low) * share, (middle + (high - middle) * share)[1:]])
    return ListedColormap(_to_rgb(lab), name="blue_orange")


def around_zero(values: NDArray[np.floating]) -> Normalize:
    """A scale for signed values: as far below zero as above."""
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return Normalize(-largest, largest)


def from_zero(values: NDArray[np.floating]) -> Normalize:
    """A scale for values that are not negative."""
    return Normalize(0.0, float(np.nanmax(values, initial=0.0)) or 1.0)


def scale_of(values: NDArray[np.floating]) -> tuple[Normalize, Colormap]:
    """Scale and colors for an array, diverging if it holds negative values."""
    return (around_zero(values), diverging()) if values.min() < 0 else (from_zero(values), sequential())


def _to_rgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) to sRGB, `[colors, 3]`."""
    y = (lab[:, 0] + 16) / 116
    parts = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(parts > 6 / 29, parts**3, 3 * (6 / 29) ** 2 * (parts - 4 / 29)) * _WHITE
    linear = np.clip(xyz @ _XYZ_TO_RGB.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
