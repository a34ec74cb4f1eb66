"""ConvNet and DenseNet as Flax Linen modules drawn from a plan of layers. The only place that knows Linen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import conv_block
from convjax.nn.geometry import Layer

Parameters = dict[str, Any]

# Keras's defaults; Linen's own (lecun_normal) start a network elsewhere.
_kernel_initializer = nn.initializers.glorot_uniform()
_bias_initializer = nn.initializers.zeros_init()


class Weights(nn.Module):
    """The kernel and bias of one layer, float32, under the layer's name."""

    kernel_shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", _kernel_initializer, self.kernel_shape, jnp.float32)
        bias = self.param("bias", _bias_initializer, self.kernel_shape[-1:], jnp.float32)
        return kernel, bias


class DenseNet(nn.Module):
    """Flatten and dense layers: images `[batch, height, width, channels]` to logits `[batch, classes]`.

    Attributes:
      layers: the plan, see `convjax.nn.geometry.plan`. The last dense layer gives logits: its softmax is in the
        loss, where it is numerically safe.
      dtype: of the computation; parameters are float32, and so are the logits.
    """

    layers: tuple[Layer, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        return self.classify(images.astype(self.dtype), self.layers, train)

    @nn.nowrap
    def classify(self, x: jax.Array, layers: tuple[Layer, ...], train: bool) -> jax.Array:
        """The layers from Flatten on."""
        for layer in layers:
            if layer.kind == "Flatten":
                x = x.reshape(x.shape[0], -1)
            elif layer.kind == "Dropout":
                x = nn.Dropout(layer.rate, name=layer.name)(x, deterministic=not train)
            else:
                kernel, bias = Weights((*layer.input_shape, *layer.output_shape), name=layer.name)()
                x = x @ kernel.astype(self.dtype) + bias.astype(self.dtype)
                if layer.activation != "softmax":
                    x = ACTIVATIONS[layer.activation](x)
        return x.astype(jnp.float32)


class ConvNet(DenseNet):
    """Convolution and pooling blocks, then a dense classifier, as in the chapter.

    Attributes:
      method: how convolutions are computed, see `convjax.nn.conv`.
    """

    method: str = "auto"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        x = images.astype(self.dtype)
        flatten = next(index for index, layer in enumerate(self.layers) if layer.kind == "Flatten")
        features, classifier = self.layers[:flatten], self.layers[flatten:]
        for index, layer in enumerate(features):
            if layer.kind == "Dropout":
                x = nn.Dropout(layer.rate, name=layer.name)(x, deterministic=not train)
            elif layer.kind == "Conv2D":
                following = features[index + 1] if index + 1 < len(features) else None
                pool = _POOLS.get(following.kind, "none") if following else "none"
                shape = (*layer.window, layer.input_shape[-1], layer.output_shape[-1])
                kernel, bias = Weights(shape, name=layer.name)()
                x = conv_block(
                    x,
                    kernel.astype(self.dtype),
                    bias.astype(self.dtype),
                    strides=layer.strides,
                    padding=layer.padding,
                    activation=layer.activation,
                    pool=pool,
                    pool_size=following.window if following else (1, 1),
                    pool_strides=following.strides if following else (1, 1),
                    method=self.method,
                )
        return self.classify(x, classifier, train)


_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}


def build(layers: tuple[Layer, ...], *, precision: str = "float32", method: str = "auto") -> DenseNet:
    """The module for a plan: a ConvNet where it has convolutions, else a DenseNet."""
    dtype = jnp.dtype(precision)
    if any(layer.kind == "Conv2D" for layer in layers):
        return ConvNet(layers, dtype, method)
    return DenseNet(layers, dtype)
