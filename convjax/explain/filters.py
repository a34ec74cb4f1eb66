"""Filters: the kernels of the first layer as images, and for any unit the image that excites it most.

Activation maximisation is gradient ascent in image space (Erhan et al., 2009) with the regularisers of Olah,
Mordvintsev & Schubert (2017), "Feature Visualization", Distill: the image is shifted at random before each step, total
variation is penalised, and pixels decay towards grey, so that those without influence stay grey.
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
_GREY = 0.5
_START_NOISE = 0.05
_TRANSLATED = ("Conv2D", "MaxPooling2D", "AveragePooling2D", "Dropout")


@dataclasses.dataclass(frozen=True)
class Maximised:
    """The images that excite units most, and how much.

    Attributes:
      layer: the units' layer.
      units: which, `[units]`.
      images: `[units, height, width, channels]`, 0..1. Where a position of the layer sees less than the whole image,
        its receptive field.
      start, end: of the unit before its activation function (of a map the position in its middle), for the grey noise
        that the ascent started from and for the image, `[units]`.
    """

    layer: Layer
    units: np.ndarray
    images: np.ndarray
    start: np.ndarray
    end: np.ndarray


def kernel_images(
    layers: Sequence[Layer], params: Any
) -> tuple[Layer, Float[np.ndarray, "filters height width channels"]]:
    """The weights of the first layer that has any, as images: a convolution's kernels, a dense layer's weights for
    every pixel; of a locally connected layer the kernels in the middle of the image.

    Raises:
      UserError: the first weights do not look at an image (a global pooling comes before).
    """
    first = next(layer for layer in layers if layer.parameters)
    kernel = np.asarray(params[first.name]["kernel"])
    if first.kind == "LocallyConnected2D":
        kernel = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
    if first.kind == "Dense":
        shape = layers[0].input_shape
        if kernel.shape[0] != np.prod(shape):
            raise UserError(f"the weights of {first.name} are not one for every pixel: nothing to draw as an image")
        kernel = kernel.reshape(*shape, -1)
    return first, np.moveaxis(kernel, -1, 0)


def maximise(
    layers: tuple[Layer, ...], params: Any, layer: Layer, units: Sequence[int], key: PRNGKeyArray, *, steps: int = STEPS
) -> Maximised:
    """The image that excites each of a layer's units most: all of them in one vectorised program.

    Args:
      layers: of the whole network, without a softmax at its end (the last layer's units are the logits).
      params: `{layer name: {"kernel", "bias"}}`.
      layer: one of the layers, with weights.
      units: channels or units of the layer.
      key: of the start and the shifts.
      steps: of the ascent.
    """
    stack = layers[: layers.index(layer) + 1]
    field, image = layer.receptive_field, layers[0].input_shape
    if (
        field is not None
        and all(each.kind in _TRANSLATED for each in stack)
        and all(size <= whole for size, whole in zip(field.size, image, strict=False))
    ):
        # One position, and exactly what it sees: borders are out of sight.
        image = (*field.size, image[-1])
        stack = tuple(dataclasses.replace(each, padding="valid") for each in stack)
    images, start, end = jax.device_get(
        _ascend(stack, image, params, jnp.asarray(units, jnp.int32), key, jnp.asarray(steps, jnp.int32))
    )
    return Maximised(layer, np.asarray(units), images, start, end)


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
    # Shifts of a sixteenth of the image either way; those of a window of 3x3 would be another pattern.
    reach = tuple(size // 16 for size in shape[:2])
    excite = functools.partial(_excitation, stack, params)

    def ascend(unit: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(index: jax.Array, image: jax.Array) -> jax.Array:
            draws = jax.random.split(jax.random.fold_in(key, index), 2)
            shift = [jax.random.randint(draw, (), -r, r + 1) for draw, r in zip(draws, reach, strict=True)]

            def shifted(image: jax.Array) -> jax.Array:
                return excite(jnp.roll(image, shift, (0, 1)), unit)

            # Of unit length, so that rate and regularisers suit every layer.
            gradient = jax.grad(shifted)(image)
            gradient /= jnp.sqrt(jnp.mean(jnp.square(gradient))) + 1e-8
            rate = _RATE * (1 - index / (steps + 1))
            image += rate * (gradient - _SMOOTHNESS * jax.grad(_variation)(image) - _DECAY * (image - _GREY))
            return jnp.clip(image, 0.0, 1.0)

        start = _GREY + _START_NOISE * jax.random.normal(key, shape)
        image = lax.fori_loop(0, steps, step, start)
        return image, excite(start, unit), excite(image, unit)

    return jax.vmap(ascend)(units)


def _variation(image: jax.Array) -> jax.Array:
    """Half the squared differences between neighbours, summed."""
    return 0.5 * (jnp.sum(jnp.square(jnp.diff(image, axis=0))) + jnp.sum(jnp.square(jnp.diff(image, axis=1))))
