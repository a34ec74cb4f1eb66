"""The notation of flags: text to values and back. No JAX.

A value for each layer is joined by `-` (`5-3-3`), a window is `N` or `HxW`. `--augment=` has a notation of its own,
random affine transforms joined by `+`:

    rotate=40       degrees; the angle is uniform in +-40
    shift=0.2       uniform in +-0.2 of the height and of the width; `shift=0.2x0.1` is height x width. Values of 1 or
                    more are pixels
    shear=0.2       degrees; the angle is uniform in +-0.2
    zoom=0.2        of height and width separately; uniform in [0.8, 1.2], above 1 is smaller, as in Keras
    flip            left and right swapped, with probability 1/2
    fill=nearest    what lies outside the image: `nearest` (its edge), `constant` (0), `reflect` or `wrap`
    chollet         Chollet, Deep Learning with Python (2017), section 5.2.5:
                    rotate=40+shift=0.2+shear=0.2+zoom=0.2+flip; further parts replace its own

`convjax.data.augment` computes these transforms; `convjax.config` canonicalizes the settings of a run with this module.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args

from convjax.errors import UserError

T = TypeVar("T")
Window = tuple[int, int]
"""Height and width."""


def parse_integer(name: str, text: str, minimum: int) -> int:
    """A whole number from `minimum` to 65,536.

    Raises:
      UserError: `text` is no such number; the message names the flag `name`.
    """
    # int() alone would also take "1_0", "+3" and non-ASCII digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 12) or not minimum <= int(text) <= 65_536:
        raise UserError(
            f"--{name}: {text!r} is not a whole number from {minimum} to 65536; expected a value such as 3, or one "
            "per layer joined by '-'"
        )
    return int(text)


def parse_integers(name: str, text: str, minimum: int) -> list[int]:
    """Whole numbers joined by `-`."""
    return [parse_integer(name, part, minimum) for part in text.split("-")]


def parse_window(name: str, text: str, minimum: int) -> Window:
    """`3` or `3x5`."""
    height, separator, width = text.partition("x")
    return parse_integer(name, height, minimum), parse_integer(name, width if separator else height, minimum)


def format_window(window: Window) -> str:
    """`3` where height and width are equal, else `3x5`."""
    return str(window[0]) if window[0] == window[1] else f"{window[0]}x{window[1]}"


def parse_rate(name: str, text: str) -> float:
    """A rate from 0 to below 1, to ten places."""
    try:
        rate = round(float(text), 10)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise UserError(f"--{name}: {text!r} is not a rate; expected 0 <= rate < 1, such as 0.5")
    return rate


def format_number(value: float) -> str:
    """A number without an exponent, which would bring in the separator `-`."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def join(values: Sequence[object]) -> str:
    """Values joined by `-`."""
    return "-".join(str(value) for value in values)


def spread(name: str, values: list[T], count: int, unit: str) -> list[T]:
    """One value repeated `count` times, or exactly `count` values.

    Raises:
      UserError: another number of values; the message says how many of which `unit` there are.
    """
    if len(values) == 1:
        return values * count if count else values
    if len(values) != count:
        raise UserError(
            f"--{name} has {len(values)} values for {count} {unit}{'' if count == 1 else 's'}; "
            f"give one value for all, or {count} joined by '-'"
        )
    return values


def repeat(values: Sequence[T], count: int) -> tuple[T, ...]:
    """One value repeated `count` times, or the values as they are."""
    return tuple(values) * count if len(values) == 1 else tuple(values)


def collapse(values: Sequence[str]) -> str:
    """Values joined by `-`; a single one where all are equal."""
    return values[0] if len(set(values)) == 1 else join(values)


Fill = Literal["nearest", "constant", "reflect", "wrap"]
FILLS: tuple[str, ...] = get_args(Fill)

# Half a turn is every angle; at a shear of 90 degrees or a scale of 0 an image is a line.
_LARGEST = {"rotate": 180.0, "shift": 65536.0, "shear": 89.0, "zoom": 0.99}
_EXPECTED = "rotate=40, shift=0.2, shear=0.2, zoom=0.2, flip, fill=nearest or chollet, joined by '+'"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transforms; 0 for none. Made by `parse_augmentation`.

    Attributes:
      rotate, shear: the largest angle, in degrees.
      shift: the largest shift of rows and of columns; below 1 a fraction of the size, else pixels.
      zoom: the largest departure from scale 1.
      flip: whether half of the images are mirrored.
      fill: what lies outside the image.
    """

    rotate: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    shear: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    fill: Fill = "nearest"

    @property
    def spec(self) -> str:
        """The canonical text: `parse_augmentation` gives this value back, and equal values have equal texts."""
        fill = f"+fill={self.fill}" * (self.fill != "nearest")
        if dataclasses.replace(self, fill=CHOLLET.fill) == CHOLLET:
            return f"chollet{fill}"
        ranges = {"rotate": [self.rotate], "shift": self.shift, "shear": [self.shear], "zoom": [self.zoom]}
        texts = {
            name: "x".join(dict.fromkeys(format_number(value) for value in values)) for name, values in ranges.items()
        }
        parts = [f"{name}={text}" for name, text in texts.items() if text != "0"]
        return "+".join(parts + ["flip"] * self.flip) + fill

    def __str__(self) -> str:
        return self.spec


CHOLLET = Augmentation(rotate=40.0, shift=(0.2, 0.2), shear=0.2, zoom=0.2, flip=True)


def parse_augmentation(spec: str) -> Augmentation | None:
    """The augmentation that `--augment=` describes; None where it is empty or every range is 0.

    Raises:
      UserError: the text has an unknown, repeated or impossible part.
    """
    if not spec:
        return None
    changes: dict[str, Any] = {}
    for part in spec.split("+"):
        name, _, text = part.partition("=")
        if name in changes:
            raise UserError(f"--augment={spec}: {name!r} is given twice; leave one out")
        if part in ("chollet", "flip"):
            changes[name] = True
        elif name == "fill" and text in FILLS:
            changes[name] = text
        elif name == "fill":
            raise UserError(f"--augment={spec}: fill {text!r} is not known; expected one of {', '.join(FILLS)}")
        elif name in _LARGEST:
            changes[name] = _range(spec, name, text)
        else:
            raise UserError(f"--augment={spec}: {part!r} is not understood; expected {_EXPECTED}")
    if changes.keys() == {"fill"}:
        raise UserError(f"--augment={spec} transforms nothing; expected also one of {_EXPECTED}")
    start = CHOLLET if changes.pop("chollet", False) else Augmentation()
    augmentation = dataclasses.replace(start, **changes)
    return None if augmentation == Augmentation(fill=augmentation.fill) else augmentation


def _range(spec: str, name: str, text: str) -> float | tuple[float, float]:
    """The value of a part that has one."""
    texts = text.split("x", 1) if name == "shift" else [text]
    # Digits alone: a sign or an exponent would bring in the separators of parts and of layers.
    numbers = all(re.fullmatch(r"[0-9]{1,6}(\.[0-9]{0,10})?|\.[0-9]{1,10}", part) for part in texts)
    values = [float(part) for part in texts] if numbers else [-1.0]
    if not 0 <= max(values) <= _LARGEST[name]:
        wanted = "number, or two as 0.2x0.1 (height x width)," if name == "shift" else "number"
        raise UserError(f"--augment={spec}: {name}={text}; expected a {wanted} from 0 to {_LARGEST[name]:g}")
    return (values[0], values[-1]) if name == "shift" else values[0]
