"""Our layers as Keras's: the arguments of each and the order of its weights. Imports no Keras.

A new kind of layer is one entry of `KERAS_LAYERS`, and for reading its field in `architecture._run_config`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from convjax.nn.geometry import Layer, Shape


@dataclasses.dataclass(frozen=True)
class KerasLayer:
    """A layer as the class of `keras.layers` with the same name has it.

    Attributes:
      arguments: of the class. What a user's own Keras settings could change, such as the data format, is spelled out.
      weights: the shape of each of our parameters, in the order of Keras's.
    """

    arguments: Mapping[str, Any]
    weights: Mapping[str, Shape] = dataclasses.field(default_factory=dict)


def _conv(layer: Layer) -> KerasLayer:
    depth, channels = layer.input_shape[-1], layer.output_shape[-1]
    return KerasLayer(
        {"filters": channels, "kernel_size": layer.window, **_windows(layer), "dilation_rate": (1, 1), "groups": 1}
        | {"activation": layer.activation, "use_bias": True},
        {"kernel": (*layer.window, depth, channels), "bias": (channels,)},
    )


def _dense(layer: Layer) -> KerasLayer:
    return KerasLayer(
        {"units": layer.output_shape[0], "activation": layer.activation, "use_bias": True},
        {"kernel": layer.input_shape + layer.output_shape, "bias": layer.output_shape},
    )


def _pooling(layer: Layer) -> KerasLayer:
    return KerasLayer({"pool_size": layer.window, **_windows(layer)})


def _batch_normalization(layer: Layer) -> KerasLayer:
    arrays = dict.fromkeys(("scale", "bias", "mean", "variance"), layer.output_shape[-1:])
    return KerasLayer({"axis": -1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}, arrays)


def _layer_normalization(layer: Layer) -> KerasLayer:
    arrays = dict.fromkeys(("scale", "bias"), layer.output_shape[-1:])
    return KerasLayer({"axis": -1, "epsilon": 1e-3, "center": True, "scale": True}, arrays)


def _windows(layer: Layer) -> dict[str, Any]:
    return {"strides": layer.strides, "padding": layer.padding, "data_format": "channels_last"}


KERAS_LAYERS: dict[str, Callable[[Layer], KerasLayer]] = {
    "Conv2D": _conv,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Activation": lambda layer: KerasLayer({"activation": layer.activation}),
    "MaxPooling2D": _pooling,
    "AveragePooling2D": _pooling,
    "GlobalAveragePooling2D": lambda layer: KerasLayer({"data_format": "channels_last", "keepdims": False}),
    "Flatten": lambda layer: KerasLayer({"data_format": "channels_last"}),
    "Dropout": lambda layer: KerasLayer({"rate": layer.rate, "noise_shape": None}),
    "Dense": _dense,
}
