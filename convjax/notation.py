"""The flag `--augment=`: random affine transforms of training images, as a text and as a value. No JAX.

`parse` reads the flag `--augment=`: parts joined by `+`, each a name or `name=value`.

    rotate=40       degrees; the angle is uniform in +-40
    shift=0.2       uniform in +-0.2 of the height and of the width; `shift=0.2x0.1` is height x width. A value of 1
                    or more is in pixels
    shear=0.2       degrees; the angle is uniform in +-0.2
    zoom=0.2        height and width apart; each uniform in [0.8, 1.2], above 1 being smaller, as in Keras
    flip            left and right swapped, with probability 1/2
    fill=nearest    what lies outside the image: `nearest` (its edge), `constant` (0), `reflect` or `wrap`
    chollet         Chollet, Deep Learning with Python (2017), section 5.2.5:
                    rotate=40+shift=0.2+shear=0.2+zoom=0.2+flip; other parts replace its own

What the transforms compute is in `convjax.data.augment`.
"""

import dataclasses
import re
from typing import Literal, get_args

from convjax.errors import UserError

Fill = Literal["nearest", "constant", "reflect", "wrap"]
FILLS: tuple[str, ...] = get_args(Fill)

# Half a turn is every angle; at a shear of 90 degrees or a scale of 0 an image is a line.
_LARGEST = {"rotate": 180.0, "shift": 65536.0, "shear": 89.0, "zoom": 0.99}
_EXPECTED = "rotate=40, shift=0.2, shear=0.2, zoom=0.2, flip, fill=nearest or chollet, joined by '+'"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transforms; 0 for none. Made by `parse`.

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
        """The canonical text: `parse` gives this value back, and equal values have equal texts."""
        fill = f"+fill={self.fill}" * (self.fill != "nearest")
        if dataclasses.replace(self, fill=CHOLLET.fill) == CHOLLET:
            return f"chollet{fill}"
        ranges = {"rotate": [self.rotate], "shift": self.shift, "shear": [self.shear], "zoom": [self.zoom]}
        texts = {
            name: "x".join(dict.fromkeys(f"{value:.10f}".rstrip("0").rstrip(".") for value in values))
            for name, values in ranges.items()
        }
        parts = [f"{name}={text}" for name, text in texts.items() if text != "0"]
        return "+".join(parts + ["flip"] * self.flip) + fill

    def __str__(self) -> str:
        return self.spec


CHOLLET = Augmentation(rotate=40.0, shift=(0.2, 0.2), shear=0.2, zoom=0.2, flip=True)


def parse(spec: str) -> Augmentation | None:
    """The augmentation that a text asks for; None where it asks for none (empty, or every range 0).

    Raises:
      UserError: the text has an unknown, repeated or impossible part.
    """
    if not spec:
        return None
    changes: dict[str, object] = {}
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
