"""Random affine augmentation of training images on the device: a text, a value, two pure functions.

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

The transforms are those of Keras's legacy `ImageDataGenerator`, in its order, with one resampling: every output pixel
is looked up at `rotate(shift(shear(zoom(flip(pixel)))))` about the image's centre, by bilinear interpolation as in
`scipy.ndimage.affine_transform(order=1)`. Three things to know:

- Shear is in degrees, as in Keras since 2018, which makes the book's 0.2 next to nothing. The Keras of the book's
  time took radians; `chollet+shear=11.46` is that.
- Keras 3 exchanges the two shifts and, where the image is not square, the coordinates of its centre. Here the height
  shifts rows, and the centre is the centre.
- `constant` is 0 as soon as a pixel falls outside, without a blend at the border, and `wrap` repeats with a period of
  one less than the size, first and last pixel being one. Both are SciPy's modes of that name.
"""

import dataclasses
import re
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from convjax.config import UserError

Fill = Literal["nearest", "constant", "reflect", "wrap"]
Images = Float[Array, "batch height width channels"]
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


class Draws(NamedTuple):
    """The random parameters of a batch: angles in radians, shifts in pixels, both `(rows, columns)` where two."""

    angle: Float[Array, " batch"]
    shift: Float[Array, "batch 2"]
    shear: Float[Array, " batch"]
    zoom: Float[Array, "batch 2"]
    flip: Bool[Array, " batch"]


def sample(key: PRNGKeyArray, batch: int, size: tuple[int, int], augmentation: Augmentation) -> Draws:
    """The parameters of `batch` images of `size` (height, width), all independent and uniform.

    Image i's depend on the key and on i alone, and each on its own range: neither a larger batch nor another part in
    the augmentation changes them.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    unit = jax.vmap(lambda key: jax.random.uniform(key, (7,), jnp.float32, -1.0, 1.0))(keys)
    pixels = [value if value >= 1 else value * length for value, length in zip(augmentation.shift, size, strict=True)]
    return Draws(
        angle=unit[:, 0] * jnp.radians(augmentation.rotate),
        shift=unit[:, 1:3] * jnp.asarray(pixels, jnp.float32)[None],
        shear=unit[:, 3] * jnp.radians(augmentation.shear),
        zoom=1 + unit[:, 4:6] * augmentation.zoom,
        flip=(unit[:, 6] < 0) & augmentation.flip,
    )


def matrices(draws: Draws, size: tuple[int, int]) -> Float[Array, "batch 2 3"]:
    """The maps from output to input pixels `(row, column)` of images of `size`: SciPy's `matrix`, then its `offset`.

    With x the column and y the row from the centre, this is Keras's product of rotation, shift, shear and zoom,
    written out (a matrix product would be rounded to fewer bits on accelerators), then the flip of x.
    """
    sine, cosine = jnp.sin(draws.angle), jnp.cos(draws.angle)
    sheared = draws.angle + draws.shear
    by_row = draws.zoom[:, 0]
    by_column = jnp.where(draws.flip, -1.0, 1.0) * draws.zoom[:, 1]
    linear = jnp.stack([jnp.cos(sheared) * by_row, sine * by_column, -jnp.sin(sheared) * by_row, cosine * by_column])
    (a, b, c, d), (rows, columns) = linear, draws.shift.T
    middle_row, middle_column = ((length - 1) / 2 for length in size)
    row = sine * columns + cosine * rows + middle_row - a * middle_row - b * middle_column
    column = cosine * columns - sine * rows + middle_column - c * middle_row - d * middle_column
    return jnp.stack([a, b, row, c, d, column], axis=-1).reshape(-1, 2, 3)


def apply(images: Images, matrices: Float[Array, "batch 2 3"], fill: Fill) -> Images:
    """Each image resampled through its own matrix, bilinearly: `scipy.ndimage.affine_transform(order=1, mode=fill)`."""
    batch, height, width, channels = images.shape
    rows = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    columns = jnp.arange(width, dtype=jnp.float32)[None, None, :]
    weights = matrices[:, :, :, None, None]
    row, column = (weights[:, i, 0] * rows + weights[:, i, 1] * columns + weights[:, i, 2] for i in (0, 1))
    top, bottom, down = _neighbours(row, height, fill)
    left, right, across = _neighbours(column, width, fill)
    # One gather a corner within each image: the batch stays an axis, so that it can be spread over devices.
    flat = images.reshape(batch, height * width, channels)

    def between_columns(row: jax.Array) -> jax.Array:
        indices = ((row * width + column).reshape(batch, height * width, 1) for column in (left, right))
        pixels = (jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds") for index in indices)
        start, end = (pixel.reshape(images.shape) for pixel in pixels)
        return start + (end - start) * across

    above = between_columns(top)
    result = above + (between_columns(bottom) - above) * down
    if fill == "constant":
        inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
        result = jnp.where(inside[..., None], result, 0.0)
    return result


def augment(images: Images, key: PRNGKeyArray, augmentation: Augmentation) -> Images:
    """Each image (float32) under a random transform of its own. `augmentation` is static under `jit`."""
    size = images.shape[1:3]
    return apply(images, matrices(sample(key, len(images), size, augmentation), size), augmentation.fill)


def _neighbours(position: jax.Array, size: int, fill: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pixels on both sides of a position along one axis, and the second's weight `[batch, height, width, 1]`."""
    last = size - 1
    if fill == "reflect":
        turn = jnp.mod(position + 0.5, 2.0 * size)
        position = jnp.minimum(turn, 2.0 * size - turn) - 0.5
    elif fill == "wrap":
        period = float(max(last, 1))
        outside = jnp.where(position < 0, last - jnp.mod(-position, period), jnp.mod(position, period))
        position = jnp.where((position < 0) | (position > last), outside, position)
    position = jnp.clip(position, 0.0, last)
    first = jnp.floor(position)
    index = first.astype(jnp.int32)
    return index, jnp.minimum(index + 1, last), (position - first)[..., None]


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
