"""The layers: one small Linen module per kind, with its parameters and what it computes.

`nn.geometry.plan` decides which layers a network has and how large they are. `nn.models` makes these modules of the
planned layers and chains them into a network; `nn.layerwise` runs them one at a time.

Feature maps are `[batch, height, width, channels]`. Parameters are float32 and start as in Keras: Glorot-uniform
kernels, zero biases. Every module takes `(x, training)`; `training` is None in evaluation.
"""

import functools
import math
import zlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import conv2d
from convjax.nn.local import local2d
from convjax.nn.pool import avg_pool, max_pool
from convjax.notation import Window

FeatureMap = Float[Array, "batch height width channels"]
OutputMap = Float[Array, "batch out_height out_width out_channels"]
Units = Float[Array, "batch units"]
OutputUnits = Float[Array, "batch out_units"]

_kernel_initializer = nn.initializers.glorot_uniform()
_bias_initializer = nn.initializers.zeros_init()
# Each position of a locally connected layer starts as a convolution would: Glorot's fans are those of one window.
_local_initializer = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0, 1))

STATISTICS = ("mean", "variance")
"""Batch normalization's running statistics: part of the weights, but not trained by gradients."""

# Changing this changes what every run with permuted pixels has seen.
_PERMUTATION_KEY = 784


class TrainingInputs(NamedTuple):
    """What only training gives to a layer.

    Attributes:
      keys: one random key per image, so that an image's draws do not depend on the rest of its batch.
      weights: 1 for images, 0 for the padding of a short batch.
    """

    keys: Key[Array, " batch"]
    weights: Float[Array, " batch"]


class Conv2D(nn.Module):
    """Convolution, bias, activation. Cross-correlation, as in every deep-learning library: no kernel is flipped."""

    filters: int
    kernel_size: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    activation: str = "linear"
    dtype: Any = jnp.float32
    method: str = "auto"

    @nn.compact
    def weights(self, in_channels: int) -> tuple[jax.Array, jax.Array]:
        """Kernel `[height, width, in_channels, filters]` and bias `[filters]`."""
        kernel = self.param("kernel", _kernel_initializer, (*self.kernel_size, in_channels, self.filters), jnp.float32)
        bias = self.param("bias", _bias_initializer, (self.filters,), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> OutputMap:
        kernel, bias = self.weights(x.shape[-1])
        y = conv2d(x, kernel, self.strides, self.padding, method=self.method)
        return ACTIVATIONS[self.activation](y + bias[None, None, None])


class LocallyConnected2D(nn.Module):
    """As Conv2D, with a kernel and a bias of its own at every position (Keras 2's layer of that name)."""

    filters: int
    kernel_size: Window
    positions: Window
    strides: Window = (1, 1)
    padding: str = "valid"
    activation: str = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> OutputMap:
        shape = (*self.positions, *self.kernel_size, x.shape[-1], self.filters)
        kernel = self.param("kernel", _local_initializer, shape, jnp.float32)
        bias = self.param("bias", _bias_initializer, (*self.positions, self.filters), jnp.float32)
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return ACTIVATIONS[self.activation](local2d(x, kernel, bias, strides=self.strides, padding=self.padding))


class MaxPooling2D(nn.Module):
    """The maximum of each window."""

    window: Window
    strides: Window

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> OutputMap:
        return max_pool(x, self.window, self.strides)


class AveragePooling2D(nn.Module):
    """The mean of each window."""

    window: Window
    strides: Window

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> OutputMap:
        return avg_pool(x, self.window, self.strides)


class BatchNormalization(nn.Module):
    """Each channel minus its mean, over its standard deviation, scaled and shifted (Ioffe & Szegedy, 2015).

    In training, mean and variance are those of the batch's images, and the running statistics move towards them. In
    evaluation the running statistics are used. Momentum and epsilon as in Keras.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> FeatureMap:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
        bias = self.param("bias", _bias_initializer, x.shape[-1:], jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:], jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, x.shape[-1:], jnp.float32)
        mean, variance, wide = running_mean.value, running_variance.value, x.astype(jnp.float32)
        if training is not None:
            weights = training.weights[:, None, None, None] / (jnp.sum(training.weights) * math.prod(x.shape[1:3]))
            mean = jnp.sum(wide * weights, (0, 1, 2))
            variance = jnp.sum(jnp.square(wide - mean[None, None, None]) * weights, (0, 1, 2))
            for running, value in ((running_mean, mean), (running_variance, variance)):
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return ((wide - mean[None, None, None]) * factor[None, None, None] + bias[None, None, None]).astype(x.dtype)


class LayerNormalization(nn.Module):
    """Each position's channels minus their mean, over their standard deviation, scaled and shifted (Ba, 2016)."""

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> FeatureMap:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
        bias = self.param("bias", _bias_initializer, x.shape[-1:], jnp.float32)
        wide = x.astype(jnp.float32)
        centered = wide - wide.mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centered).mean(-1, keepdims=True) + self.epsilon)
        return (centered / deviation * scale[None, None, None] + bias[None, None, None]).astype(x.dtype)


class Activation(nn.Module):
    """An activation function by itself."""

    activation: str

    def __call__(self, x: jax.Array, training: TrainingInputs | None = None) -> jax.Array:
        return ACTIVATIONS[self.activation](x)


class Dense(nn.Module):
    """A densely connected layer."""

    units: int
    activation: str = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Units, training: TrainingInputs | None = None) -> OutputUnits:
        kernel = self.param("kernel", _kernel_initializer, (x.shape[-1], self.units), jnp.float32)
        bias = self.param("bias", _bias_initializer, (self.units,), jnp.float32)
        return ACTIVATIONS[self.activation](x @ kernel.astype(self.dtype) + bias.astype(self.dtype)[None])


class Logits(Dense):
    """The last dense layer: one logit per class. Its softmax or sigmoid is part of the loss, where it is stable.

    A single sigmoid unit z gives the logits (-z/2, z/2). Their softmax is (1 - sigmoid(z), sigmoid(z)) and their
    cross-entropy the binary one, so downstream code sees an ordinary two-class network.
    """

    def __call__(self, x: Units, training: TrainingInputs | None = None) -> Float[Array, "batch classes"]:
        z = super().__call__(x, training)
        return jnp.concatenate([-z, z], axis=-1) / 2 if self.units == 1 else z


class Dropout(nn.Module):
    """In training, sets entries to zero with probability `rate` and scales the others by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, training: TrainingInputs | None = None) -> jax.Array:
        if training is None:
            return x
        # A stream per dropout layer and a key per image: a part of a batch draws what the whole batch would.
        stream = np.uint32(zlib.crc32(str(self.name).encode()))
        keep = np.float32(1 - self.rate)

        def kept_entries(key: PRNGKeyArray) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, stream), keep, x.shape[1:])

        # XLA rewrites a division by a constant this way on some backends only; the bits must agree.
        scale = (np.float32(1) / keep).astype(x.dtype)
        return jnp.where(jax.vmap(kept_entries)(training.keys), x * scale, jnp.zeros((), x.dtype))


class Flatten(nn.Module):
    """All positions and channels of a feature map as one vector."""

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> Units:
        return x.reshape(x.shape[0], -1)


class GlobalAveragePooling2D(nn.Module):
    """The mean of each channel over all positions."""

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> Units:
        return x.mean((1, 2))


class PermutePixels(nn.Module):
    """The pixels of every image in one fixed random order; the channels of a pixel stay together."""

    def __call__(self, x: FeatureMap, training: TrainingInputs | None = None) -> FeatureMap:
        order = _pixel_order(x.shape[1] * x.shape[2])
        return x.reshape(x.shape[0], -1, x.shape[-1])[:, order].reshape(x.shape)


@functools.cache
def _pixel_order(count: int) -> np.ndarray:
    # random_raw, not Generator.permutation: NumPy promises never to change the former's stream (NEP 19).
    return np.argsort(np.random.Philox(key=_PERMUTATION_KEY).random_raw(count), kind="stable")
