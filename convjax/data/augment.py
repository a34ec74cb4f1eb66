"""Random affine augmentation of training images on the device, as `convjax.notation` describes it.

The transforms are those of Keras's legacy `ImageDataGenerator`, in its order, with one resampling: every output pixel
is looked up at `rotate(shift(shear(zoom(flip(pixel)))))` about the image's center, by bilinear interpolation as in
`scipy.ndimage.affine_transform(order=1)`. Three things to know:

- Shear is in degrees, as in Keras since 2018, which makes the book's 0.2 next to nothing. The Keras of the book's
  time took radians; `chollet+shear=11.46` is that.
- Keras 3 exchanges the two shifts and, where the image is not square, the coordinates of its center. Here the height
  shifts rows, and the center is the center.
- `constant` is 0 as soon as a pixel falls outside, without a blend at the border, and `wrap` repeats with a period of
  one less than the size, first and last pixel being one. Both are SciPy's modes of that name.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from convjax.notation import Augmentation, Fill

Images = Float[Array, "batch height width channels"]


class Draws(NamedTuple):
    """The random parameters of a batch: angles in radians, shifts in pixels, both `(rows, columns)` where two."""

    angle: Float[Array, " batch"]
    shift: Float[Array, "batch 2"]
    shear: Float[Array, " batch"]
    zoom: Float[Array, "batch 2"]
    flip: Bool[Array, " batch"]


def sample(
    key: PRNGKeyArray, batch: int, size: tuple[int, int], augmentation: Augmentation, first: int | jax.Array = 0
) -> Draws:
    """The parameters of `batch` images of `size` (height, width), all independent and uniform.

    Image i's depend on the key and on i alone, and each on its own range: neither a larger batch nor another part in
    the augmentation changes them. Images are counted from `first`.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch) + first)
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

    With x the column and y the row from the center, this is Keras's product of rotation, shift, shear and zoom,
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
    top, bottom, down = _neighbors(row, height, fill)
    left, right, across = _neighbors(column, width, fill)
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


def augment(images: Images, key: PRNGKeyArray, augmentation: Augmentation, first: int | jax.Array = 0) -> Images:
    """Each image (float32) under a random transform of its own. `augmentation` is static under `jit`.

    `first` is the place in its batch of the first of `images`, where they are only a part of one.
    """
    size = (images.shape[1], images.shape[2])
    draws = sample(key, len(images), size, augmentation, first)
    return apply(images, matrices(draws, size), augmentation.fill)


def _neighbors(position: jax.Array, size: int, fill: str) -> tuple[jax.Array, jax.Array, jax.Array]:
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
