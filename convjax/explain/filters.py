"""Filters: the kernels of the first layer as images, and for any unit the image that excites it most.

Activation maximization is gradient ascent on the pixels (Erhan et al., 2009) with the regularizers of Olah, Mordvintsev
& Schubert (2017), "Feature Visualization", Distill: random shifts before each step, a penalty on total variation, and
decay to gray, which leaves pixels without influence gray.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from convjax.errors import UserError
from convjax.nn.geometry import Layer
from convjax.nn.layerwise import apply_layer, run_layers

STEPS = 192
_RATE = 0.06
_SMOOTHNESS, _DECAY = 0.8, 0.4
_GRAY = 0.5
_START_NOISE = 0.05
_TRANSLATED = ("Conv2D", "MaxPooling2D", "AveragePooling2D", "Dropout")


@dataclasses.dataclass(frozen=True)
class Maximized:
    """The images that excite units most, and how much they do.

    Attributes:
      layer: the layer of the units.
      units: their indices, `[units]`.
      images: `[units, height, width, channels]`, 0..1: whole images, or only the receptive field of one position
        where that is smaller.
      start, end: each unit's output before its activation, for the gray noise at the start of the ascent and for the
        image at its end, `[units]`. The unit of a feature map is its middle position.
    """

    layer: Layer
    units: np.ndarray
    images: np.ndarray
    start: np.ndarray
    end: np.ndarray


def kernel_images(
    layers: Sequence[Layer], params: Any
) -> tuple[Layer, Float[np.ndarray, "filters height width channels"]]:
    """The first layer with weights, and its weights as images.

    For a convolution these are its kernels, for a dense layer each unit's weights for all pixels, for a locally
    connected layer the kernels at the middle of the image.

    Raises:
      UserError: the first weights do not apply to pixels (global pooling comes before them).
    """
    first = next(layer for layer in layers if layer.parameters)
    kernel = np.asarray(params[first.name]["kernel"])
    if first.kind == "LocallyConnected2D":
        kernel = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
    if first.kind == "Dense":
        shape = layers[0].input_shape
        if kernel.shape[0] != np.prod(shape):
            raise UserError(f"{first.name} has no weight for each pixel: nothing to draw as an image")
        kernel = kernel.reshape(*shape, -1)
    return first, np.moveaxis(kernel, -1, 0)


def maximize(
    layers: tuple[Layer, ...], params: Any, layer: Layer, units: Sequence[int], key: PRNGKeyArray, *, steps: int = STEPS
) -> Maximized:
    """The image that excites each of a layer's units most, all units in one vectorized program.

    Args:
      layers: the whole network; the units of its last layer are the logits.
      params: `{layer name: {"kernel", "bias"}}`.
      layer: one of the layers, with weights.
      units: channels or units of the layer.
      key: draws the starting noise and the shifts.
      steps: length of the ascent.
    """
    stack = layers[: layers.index(layer) + 1]
    field, image = layer.receptive_field, layers[0].input_shape
    if (
        field is not None
        and all(each.kind in _TRANSLATED for each in stack)
        and all(size <= whole for size, whole in zip(field.size, image, strict=False))
    ):
        # One position and exactly its receptive field; without padding, because borders are out of sight.
        image = (*field.size, image[-1])
        stack = tuple(dataclasses.replace(each, padding="valid") for each in stack)
    images, start, end = jax.device_get(
        _ascend(stack, image, params, jnp.asarray(units, jnp.int32), key, jnp.asarray(steps, jnp.int32))
    )
    return Maximized(layer, np.asarray(units), images, start, end)


def _excitation(stack: tuple[Layer, ...], params: Any, image: jax.Array, unit: jax.Array) -> jax.Array:
    *before, layer = stack
    output = apply_layer(layer, params, run_layers(before, params, image[None]), activate=False)[0]
    if output.ndim == 3:
        output = output[output.shape[0] // 2, output.shape[1] // 2]
    return output[unit]


@functools.partial(jax.jit, static_argnames=("stack", "shape"))
def _ascend(
    stack: tuple[Layer, ...],
    shape: tuple[int, int, int],
    params: Any,
    units: Int[Array, " units"],
    key: PRNGKeyArray,
    steps: Int[Array, ""],
) -> tuple[Float[Array, "units height width channels"], Float[Array, " units"], Float[Array, " units"]]:
    # Shifts reach a sixteenth of the image, so a 3x3 window is not shifted: that would change its pattern.
    reach = tuple(size // 16 for size in shape[:2])
    excite = functools.partial(_excitation, stack, params)

    def ascend(unit: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(index: jax.Array, image: jax.Array) -> jax.Array:
            draws = jax.random.split(jax.random.fold_in(key, index), 2)
            shift = [jax.random.randint(draw, (), -r, r + 1) for draw, r in zip(draws, reach, strict=True)]
            gradient = jax.grad(lambda image: excite(jnp.roll(image, jnp.stack(shift), (0, 1)), unit))(image)
            # Unit length, so that one rate and one set of regularizers suit every layer.
            gradient /= jnp.sqrt(jnp.mean(jnp.square(gradient))) + 1e-8
            rate = _RATE * (1 - index / (steps + 1))
            image += rate * (gradient - _SMOOTHNESS * jax.grad(_variation)(image) - _DECAY * (image - _GRAY))
            return jnp.clip(image, 0.0, 1.0)

        start = _GRAY + _START_NOISE * jax.random.normal(key, shape)
        image = lax.fori_loop(0, steps, step, start)
        return image, excite(start, unit), excite(image, unit)

    return jax.vmap(ascend)(units)


def _variation(image: jax.Array) -> jax.Array:
    """Half the sum of squared differences between neighboring pixels."""
    return 0.5 * (jnp.sum(jnp.square(jnp.diff(image, axis=0))) + jnp.sum(jnp.square(jnp.diff(image, axis=1))))
