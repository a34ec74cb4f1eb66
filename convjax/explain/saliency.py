"""Why this class: gradients, smoothed gradients, Grad-CAM and occlusion.

All of them explain the logit of a class, not its probability: near 1 a softmax has almost no slope. Images are uint8
`[images, height, width, channels]`; the network gets them scaled to 0..1.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from convjax.errors import UserError
from convjax.explain.activations import Images, layer_named, map_layers
from convjax.nn.geometry import Layer, pad_amounts
from convjax.nn.layerwise import run_layers
from convjax.training.steps import scale_images

Classes = Int[np.ndarray, " images"]

SAMPLES, NOISE = 50, 0.15
"""Defaults of smoothed gradients: number of noisy copies, and standard deviation of the noise (white is 1)."""

_CHUNK = 64


def gradients(
    layers: tuple[Layer, ...], params: Any, images: Images, classes: Classes
) -> Float[np.ndarray, "images height width channels"]:
    """The signed gradient of each image's class logit with respect to its pixels (Simonyan et al., 2014)."""
    return jax.device_get(_gradients(layers, params, scale_images(jnp.asarray(images)), jnp.asarray(classes)))


def smooth_gradients(
    layers: tuple[Layer, ...],
    params: Any,
    images: Images,
    classes: Classes,
    key: PRNGKeyArray,
    *,
    samples: int = SAMPLES,
    noise: float = NOISE,
) -> Float[np.ndarray, "images height width channels"]:
    """SmoothGrad (Smilkov et al., 2017): the mean gradient over copies of the images with Gaussian noise.

    Each copy draws its noise with its own key, `jax.random.split(key, samples)`.
    """
    scaled, chosen = scale_images(jnp.asarray(images)), jnp.asarray(classes)
    return jax.device_get(_smooth(layers, params, scaled, chosen, jax.random.split(key, samples), jnp.float32(noise)))


@functools.partial(jax.jit, static_argnames="layers")
def _gradients(layers: tuple[Layer, ...], params: Any, scaled: jax.Array, classes: jax.Array) -> jax.Array:
    # An image's logit depends on no other image, so the gradient of the sum holds each image's own.
    return jax.grad(lambda scaled: _scores(run_layers(layers, params, scaled), classes).sum())(scaled)


@functools.partial(jax.jit, static_argnames="layers")
def _smooth(
    layers: tuple[Layer, ...],
    params: Any,
    scaled: jax.Array,
    classes: jax.Array,
    keys: Key[Array, " samples"],
    noise: jax.Array,
) -> jax.Array:
    def add(total: jax.Array, key: PRNGKeyArray) -> tuple[jax.Array, None]:
        noisy = scaled + noise * jax.random.normal(key, scaled.shape)
        return total + _gradients(layers, params, noisy, classes), None

    return lax.scan(add, jnp.zeros_like(scaled), keys)[0] / keys.shape[0]


def grad_cam(
    layers: tuple[Layer, ...], params: Any, images: Images, classes: Classes, name: str
) -> Float[np.ndarray, "images rows columns"]:
    """Grad-CAM (Selvaraju et al., 2017): relu of the weighted sum of a layer's feature maps.

    A channel's weight is the gradient of the class logit with respect to that channel, averaged over positions. The
    result has the positions of the layer called `name`.

    Raises:
      UserError: no layer with feature maps has this name.
    """
    cut = layers.index(layer_named(map_layers(layers), name)) + 1
    return jax.device_get(_grad_cam(layers[:cut], layers[cut:], params, jnp.asarray(images), jnp.asarray(classes)))


@functools.partial(jax.jit, static_argnames=("before", "after"))
def _grad_cam(
    before: tuple[Layer, ...], after: tuple[Layer, ...], params: Any, images: jax.Array, classes: jax.Array
) -> jax.Array:
    maps = run_layers(before, params, scale_images(images))
    slopes = jax.grad(lambda maps: _scores(run_layers(after, params, maps), classes).sum())(maps)
    weights = slopes.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * maps).sum(-1))


def occlusion(
    layers: tuple[Layer, ...],
    params: Any,
    image: UInt8[np.ndarray, "height width channels"],
    *,
    window: int,
    stride: int = 1,
    fill: float = 0.0,
) -> Float[np.ndarray, "rows columns classes"]:
    """How much each class logit falls when a square of the image is covered (Zeiler & Fergus, 2014).

    Args:
      layers: the whole network.
      params: `{layer name: {"kernel", "bias"}}`.
      image: one image.
      window: side of the square, in pixels.
      stride: pixels between squares.
      fill: the square's value, 0 black to 1 white.

    Returns:
      The fall for the square whose upper left corner is at `(row * stride, column * stride)`; negative where covering
      raises the logit.

    Raises:
      UserError: the square is larger than the image.
    """
    height, width = image.shape[:2]
    if not 1 <= window <= min(height, width):
        raise UserError(f"a square of {window} pixels does not fit an image of {height}x{width}")
    rows, columns = (height - window) // stride + 1, (width - window) // stride + 1
    corners = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2) * stride
    falls = _occlude(layers, params, jnp.asarray(image), jnp.asarray(corners), jnp.int32(window), jnp.float32(fill))
    return jax.device_get(falls).reshape(rows, columns, -1)


@functools.partial(jax.jit, static_argnames="layers")
def _occlude(
    layers: tuple[Layer, ...],
    params: Any,
    image: UInt8[Array, "height width channels"],
    corners: Int[Array, "squares 2"],
    window: Int[Array, ""],
    fill: Float[Array, ""],
) -> Float[Array, "squares classes"]:
    scaled = scale_images(image)
    rows, columns = jnp.arange(image.shape[0])[:, None, None], jnp.arange(image.shape[1])[None, :, None]

    def logits(corner: jax.Array) -> jax.Array:
        top, left = corner
        covered = (rows >= top) & (rows < top + window) & (columns >= left) & (columns < left + window)
        return run_layers(layers, params, jnp.where(covered, fill, scaled)[None])[0]

    return run_layers(layers, params, scaled[None]) - lax.map(logits, corners, batch_size=_CHUNK)


def _scores(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None].astype(jnp.int32), axis=1)[:, 0]


def centers(layers: Sequence[Layer], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The centers, in pixels, of the receptive fields of a feature map's rows and of its columns.

    The 3x3 map of the chapter's last convolution has its centers at 8.5, 12.5 and 16.5 of 0 to 27. Stretching it over
    the whole image would misplace it.
    """
    axes = []
    stack = layers[: layers.index(layer_named(map_layers(layers), name)) + 1]
    for axis in range(2):
        places = np.arange(stack[-1].output_shape[axis], dtype=np.float64)
        for layer in reversed(stack):
            before = pad_amounts(layer.input_shape, layer.window, layer.strides, layer.padding)[axis][0]
            places = places * layer.strides[axis] - before + (layer.window[axis] - 1) / 2
        axes.append(places)
    return axes[0], axes[1]


def place(
    values: Float[np.ndarray, "rows columns"], centers: tuple[np.ndarray, np.ndarray], shape: Sequence[int]
) -> Float[np.ndarray, "height width"]:
    """A coarse map over the pixels of an image: linear between the map's centers, constant beyond the outermost."""
    rows, columns = (np.arange(size, dtype=np.float64) for size in shape[:2])
    across = np.stack([np.interp(columns, centers[1], row) for row in values])
    return np.stack([np.interp(rows, centers[0], column) for column in across.T], axis=1)
