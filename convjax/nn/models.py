"""ConvNet, LocalNet and DenseNet as Flax Linen modules drawn from a plan of layers. The only place that knows Linen."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import Block, conv_stack
from convjax.nn.geometry import Layer
from convjax.nn.local import local2d
from convjax.nn.pool import POOLINGS
from convjax.nn.shard import Shard

Parameters = dict[str, Any]
KeepRates = Mapping[str, jax.Array]

# Keras's defaults; Linen's own (lecun_normal) start a network elsewhere.
_kernel_initializer = nn.initializers.glorot_uniform()
_bias_initializer = nn.initializers.zeros_init()
# Each position of a locally connected layer starts as a convolution would: Glorot's fans are of one window.
_local_initializer = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0, 1))

# Changing this changes what every run with permuted pixels has seen.
_PERMUTATION_KEY = 784


class Weights(nn.Module):
    """The kernel and bias of one layer, float32, under the layer's name."""

    kernel_shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", _kernel_initializer, self.kernel_shape, jnp.float32)
        bias = self.param("bias", _bias_initializer, self.kernel_shape[-1:], jnp.float32)
        return kernel, bias


class LocalWeights(nn.Module):
    """The kernels and biases of one locally connected layer, see `convjax.nn.local`."""

    kernel_shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", _local_initializer, self.kernel_shape, jnp.float32)
        bias = self.param("bias", _bias_initializer, (*self.kernel_shape[:2], self.kernel_shape[-1]), jnp.float32)
        return kernel, bias


class Dropout(nn.Module):
    """Zeroes entries of `[batch, ...]` at random and scales the others up, as Linen's does from the same key.

    Attributes:
      rate: the share that is zeroed.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keep: KeepRates | None = None, shard: Shard | None = None) -> jax.Array:
        """`keep` has 1 - rate where that is no constant; `shard` is set where `x` is only a part of a batch."""
        kept_share = np.float32(1 - self.rate) if keep is None else keep[self.name]
        batch = x.shape[0] if shard is None else shard.batch
        kept = jax.random.bernoulli(self.make_rng("dropout"), kept_share, (batch, *x.shape[1:]))
        if shard is not None:
            kept = shard.rows(kept)
        # Not x / share: XLA makes that this product where the share is constant; the bits must be equal elsewhere.
        scale = (np.float32(1) / kept_share).astype(x.dtype)
        return jnp.where(kept, x * scale, jnp.zeros((), x.dtype))


class DenseNet(nn.Module):
    """Flatten and dense layers: images `[batch, height, width, channels]` to logits `[batch, classes]`.

    Attributes:
      layers: the plan, see `convjax.nn.geometry.plan`. The last dense layer gives logits: its softmax or sigmoid is
        in the loss, where it is numerically safe.
      dtype: of the computation; parameters are float32, and so are the logits.
    """

    layers: tuple[Layer, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        *,
        train: bool = False,
        keep: KeepRates | None = None,
        shard: Shard | None = None,
    ) -> Float[Array, "batch classes"]:
        """The logits.

        Args:
          images: grey levels 0 to 1.
          train: with dropout.
          keep: 1 - rate of each dropout layer, by its name; None for the rates of `layers`.
          shard: set where `images` are only this device's part of a batch.
        """
        features, classifier = _split(self.layers)
        x = self.extract(images.astype(self.dtype), features, train, keep, shard)
        for layer in classifier:
            if layer.kind == "Flatten":
                x = x.reshape(x.shape[0], -1)
            elif layer.kind == "GlobalAveragePooling2D":
                x = x.mean((1, 2))
            elif layer.kind == "Dropout":
                if train:
                    x = Dropout(layer.rate, name=layer.name)(x, keep, shard)
            else:
                kernel, bias = Weights((*layer.input_shape, *layer.output_shape), name=layer.name)()
                x = x @ kernel.astype(self.dtype) + bias.astype(self.dtype)
                x = class_logits(layer, x) if layer.is_output else ACTIVATIONS[layer.activation](x)
        return x.astype(jnp.float32)

    @nn.nowrap
    def extract(
        self, x: jax.Array, layers: tuple[Layer, ...], train: bool, keep: KeepRates | None, shard: Shard | None
    ) -> Float[Array, "batch height width channels"]:
        """The feature maps of the layers with positions: of a dense net a permutation of the pixels at most."""
        return permute_pixels(x) if layers else x


class ConvNet(DenseNet):
    """Convolution and pooling blocks, then a dense classifier, as in the chapter.

    Attributes:
      method: how convolutions are computed, see `convjax.nn.conv`.
    """

    method: str = "auto"

    @nn.nowrap
    def extract(
        self, x: jax.Array, layers: tuple[Layer, ...], train: bool, keep: KeepRates | None, shard: Shard | None
    ) -> Float[Array, "batch height width channels"]:
        """All blocks at once."""
        blocks, parameters, dropouts = [], [], {}
        for index, layer in enumerate(layers):
            if layer.kind == "Conv2D":
                following = layers[index + 1] if index + 1 < len(layers) else layer
                pool = _POOLS.get(following.kind, "none")
                pooling = {"pool": pool, "pool_size": following.window, "pool_strides": following.strides}
                blocks.append(
                    Block(layer.strides, layer.padding, layer.activation, **(pooling if pool != "none" else {}))
                )
                shape = (*layer.window, layer.input_shape[-1], layer.output_shape[-1])
                weights = Weights(shape, name=layer.name)()
                parameters.append(tuple(array.astype(self.dtype) for array in weights))
            elif layer.kind == "Dropout":
                dropouts[len(blocks) - 1] = Dropout(layer.rate, name=layer.name)

        def between(index: int, x: jax.Array) -> jax.Array:
            return dropouts[index](x, keep, shard) if index in dropouts else x

        if layers[0].kind == "PermutePixels":
            x = permute_pixels(x)
        return conv_stack(x, blocks, parameters, method=self.method, between=between if dropouts and train else None)


class LocalNet(DenseNet):
    """As ConvNet, with locally connected layers in place of convolutions."""

    @nn.nowrap
    def extract(
        self, x: jax.Array, layers: tuple[Layer, ...], train: bool, keep: KeepRates | None, shard: Shard | None
    ) -> Float[Array, "batch height width channels"]:
        """One layer after the other."""
        for layer in layers:
            if layer.kind == "LocallyConnected2D":
                shape = (*layer.output_shape[:2], *layer.window, layer.input_shape[-1], layer.output_shape[-1])
                kernel, bias = (array.astype(self.dtype) for array in LocalWeights(shape, name=layer.name)())
                x = local2d(x, kernel, bias, strides=layer.strides, padding=layer.padding)
                x = ACTIVATIONS[layer.activation](x)
            elif layer.kind in _POOLS:
                x = POOLINGS[_POOLS[layer.kind]](x, layer.window, layer.strides)
            elif layer.kind == "PermutePixels":
                x = permute_pixels(x)
            elif train:
                x = Dropout(layer.rate, name=layer.name)(x, keep, shard)
        return x


def class_logits(layer: Layer, x: Float[Array, "batch units"]) -> Float[Array, "batch classes"]:
    """The last layer's outputs as one logit a class: that of a sigmoid unit, z, becomes (-z/2, z/2).

    Their softmax is (1 - sigmoid(z), sigmoid(z)) and its cross-entropy the binary one, so one sigmoid unit is to
    everything that follows a network of two classes.
    """
    return jnp.concatenate([-x, x], axis=-1) / 2 if layer.activation == "sigmoid" else x


def permute_pixels(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """The pixels of every image in one fixed random order; the channels of a pixel stay together."""
    order = _pixel_order(x.shape[1] * x.shape[2])
    return x.reshape(x.shape[0], -1, x.shape[-1])[:, order].reshape(x.shape)


@functools.cache
def _pixel_order(count: int) -> np.ndarray:
    # random_raw and not Generator.permutation: NumPy promises never to change the former's stream (NEP 19).
    return np.argsort(np.random.Philox(key=_PERMUTATION_KEY).random_raw(count), kind="stable")


def _split(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers with positions, and the classifier."""
    end = next(index for index, layer in enumerate(layers) if layer.kind in ("Flatten", "GlobalAveragePooling2D"))
    return layers[:end], layers[end:]


_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}


def build(layers: tuple[Layer, ...], *, precision: str = "float32", method: str = "auto") -> DenseNet:
    """The module for a plan: ConvNet or LocalNet where it has such layers, else DenseNet."""
    dtype = jnp.dtype("float32" if precision == "tf32" else precision)
    if any(layer.kind == "LocallyConnected2D" for layer in layers):
        return LocalNet(layers, dtype)
    if any(layer.kind == "Conv2D" for layer in layers):
        return ConvNet(layers, dtype, method)
    return DenseNet(layers, dtype)
