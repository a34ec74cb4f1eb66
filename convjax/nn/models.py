"""ConvNet: a planned network as one Flax module.

The plan comes from `nn.geometry`, the layers from `nn.layers`; `training.steps` initializes and applies the module.
The chapter's network is planned as

    Conv2D(32, 3x3, relu)  MaxPooling2D(2x2)
    Conv2D(64, 3x3, relu)  MaxPooling2D(2x2)
    Conv2D(64, 3x3, relu)
    Flatten  Dense(64, relu)  Dense(10)

and the module gives what these layers give one after the other: `layer_module` below makes the module of each. Runs of
convolutions with their poolings go through `nn.conv.conv_stack`, which computes them together, several times faster on
a CPU; tests hold the two equal.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convjax.errors import UserError
from convjax.nn.conv import Block, conv_stack
from convjax.nn.geometry import Layer
from convjax.nn.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    LayerNormalization,
    LocallyConnected2D,
    Logits,
    MaxPooling2D,
    PermutePixels,
    TrainingInputs,
)

_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}


class ConvNet(nn.Module):
    """Images `[batch, height, width, channels]`, scaled to 0..1, to logits `[batch, classes]`.

    Attributes:
      layers: the plan.
      dtype: of the computation; parameters and logits are float32.
      method: how convolutions are computed, see `nn.conv`.
    """

    layers: tuple[Layer, ...]
    dtype: Any = jnp.float32
    method: str = "auto"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], training: TrainingInputs | None = None
    ) -> Float[Array, "batch classes"]:
        """The logits; `training` is None in evaluation."""
        x = images.astype(self.dtype)
        # Dropout does nothing in evaluation, and would separate convolutions that can be computed together.
        layers = [layer for layer in self.layers if training is not None or layer.kind != "Dropout"]
        for stage in stages(layers):
            if stage[0].kind == "Conv2D":
                x = self.conv_blocks(stage, x)
            else:
                [layer] = stage
                x = layer_module(layer, dtype=self.dtype)(x, training)
        return x.astype(jnp.float32)

    @nn.nowrap
    def conv_blocks(self, layers: Sequence[Layer], x: jax.Array) -> jax.Array:
        """Convolutions and the poolings that follow some of them, computed together."""
        blocks: list[Block] = []
        weights: list[tuple[jax.Array, jax.Array]] = []
        for layer, following in itertools.zip_longest(layers, layers[1:]):
            if layer.kind != "Conv2D":
                continue
            block = Block(layer.strides, layer.padding, layer.activation)
            if following is not None and following.kind in _POOLS:
                pool = _POOLS[following.kind]
                block = dataclasses.replace(
                    block, pool=pool, pool_size=following.window, pool_strides=following.strides
                )
            blocks.append(block)
            weights.append(layer_module(layer, dtype=self.dtype).weights(layer.input_shape[-1]))
        return conv_stack(x, blocks, weights, method=self.method)


def layer_module(layer: Layer, *, dtype: Any = jnp.float32, method: str = "auto") -> nn.Module:
    """The module of a planned layer; its parameters are kept under the layer's name.

    Args:
      layer: from `nn.geometry.plan`.
      dtype: of the computation.
      method: how convolutions are computed, see `nn.conv`.

    Raises:
      UserError: no module computes this kind of layer.
    """
    name, sliding = layer.name, {"strides": layer.strides, "padding": layer.padding}
    match layer.kind:
        case "Conv2D":
            return Conv2D(layer.channels, kernel_size=layer.window, **sliding, activation=layer.activation,
                          dtype=dtype, method=method, name=name)  # fmt: skip
        case "LocallyConnected2D":
            rows, columns, channels = layer.output_shape
            return LocallyConnected2D(channels, kernel_size=layer.window, positions=(rows, columns), **sliding,
                                      activation=layer.activation, dtype=dtype, name=name)  # fmt: skip
        case "BatchNormalization":
            return BatchNormalization(name=name)
        case "LayerNormalization":
            return LayerNormalization(name=name)
        case "Activation":
            return Activation(layer.activation, name=name)
        case "MaxPooling2D":
            return MaxPooling2D(layer.window, strides=layer.strides, name=name)
        case "AveragePooling2D":
            return AveragePooling2D(layer.window, strides=layer.strides, name=name)
        case "GlobalAveragePooling2D":
            return GlobalAveragePooling2D(name=name)
        case "Flatten":
            return Flatten(name=name)
        case "Dropout":
            return Dropout(layer.rate, name=name)
        case "Dense" if layer.is_output:
            return Logits(layer.channels, dtype=dtype, name=name)
        case "Dense":
            return Dense(layer.channels, activation=layer.activation, dtype=dtype, name=name)
        case "PermutePixels":
            return PermutePixels(name=name)
    raise UserError(f"{name}: no module in convjax/nn/models.py computes a layer of kind {layer.kind}")


def stages(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Runs of neighboring convolutions, each with its pooling if it has one; every other layer by itself."""
    run: list[Layer] = []
    for layer in layers:
        if layer.kind == "Conv2D" or (layer.kind in _POOLS and run and run[-1].kind == "Conv2D"):
            run.append(layer)
            continue
        if run:
            yield run
        run = []
        yield [layer]
    if run:
        yield run


def build(layers: tuple[Layer, ...], *, precision: str = "float32", method: str = "auto") -> ConvNet:
    """The module of a plan."""
    return ConvNet(layers, jnp.dtype("float32" if precision == "tf32" else precision), method)


def require_plan(layers: Sequence[Layer], params: Mapping[str, Any]) -> None:
    """Compares the module's parameters with the plan's, so that no planned layer is silently left out.

    Args:
      layers: the plan.
      params: the module's parameters, or their shapes.

    Raises:
      UserError: a layer has other parameters than planned.
    """
    found = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
    for layer in layers:
        if (count := found.pop(layer.name, 0)) != layer.parameters:
            raise UserError(
                f"{layer.name} ({layer.kind}): the plan has {layer.parameters:,} parameters, the module {count:,}; "
                "convjax/nn/geometry.py and convjax/nn/layers.py disagree"
            )
    if found:
        raise UserError(f"the module has parameters that no planned layer has: {', '.join(found)}")
