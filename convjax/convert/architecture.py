"""The plan of layers that a Keras model's JSON describes. Nothing in it is looked up by name or executed.

The JSON is `config.json` in a `.keras` file, the attribute `model_config` of a whole-model `.h5`. A RunConfig is read
off the layers, and every layer in the file must have the arguments that `keras_layers` gives the layer of its plan.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convjax.config import ACTIVATIONS, RunConfig
from convjax.convert.keras_layers import KERAS_LAYERS
from convjax.errors import UserError
from convjax.nn.geometry import Layer, plan

_NORMS = {"BatchNormalization": "batch", "LayerNormalization": "layer"}
_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}
_WINDOWS = ("kernel_size", "pool_size", "strides", "dilation_rate")
_EXPECTED = (
    "expected blocks of Conv2D, optional MaxPooling2D or AveragePooling2D and optional Dropout, then Flatten or "
    "GlobalAveragePooling2D, then Dense layers with optional Dropout between them"
)
_LARGEST = 65_536
_MOST_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class _Found:
    """A layer in the file; `arguments` are written as `keras_layers` writes them."""

    name: str
    kind: str
    arguments: dict[str, Any]

    @property
    def activation(self) -> str:
        return self.arguments.get("activation", "linear")

    def with_activation(self, activation: str) -> "_Found":
        return dataclasses.replace(self, arguments={**self.arguments, "activation": activation})


def from_keras_config(model: Mapping[str, Any]) -> tuple[RunConfig, tuple[Layer, ...]]:
    """The plan of a Sequential model and the RunConfig it is drawn from (training fields are the defaults).

    The last Dense layer may have softmax or linear activation (logits); the plan says softmax for both. Or it is one
    sigmoid unit, as in `small_data`. The JSON of Keras 3 and of Keras 2 is understood.

    Raises:
      UserError: the model is not Sequential, or has a part that no plan describes; the message names the part.
      KeyError: a layer lacks an argument.
    """
    if model.get("class_name") != "Sequential":
        raise UserError(f"the model is of class {_quote(model.get('class_name'))}; expected 'Sequential'")
    inner = model.get("config")
    inner = inner if isinstance(inner, dict) else {}
    entries = inner.get("layers")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_LAYERS:
        raise UserError(f"the model has no proper list of layers; expected at most {_MOST_LAYERS}")
    if not all(isinstance(entry, dict) and isinstance(entry.get("config"), dict) for entry in entries):
        raise UserError("the model has no proper list of layers; expected a class and a configuration of each")
    first = {**inner, **entries[0]["config"]}  # some models of Keras 2 have the shape beside the layers
    shape = first.get("batch_shape", first.get("batch_input_shape", first.get("build_input_shape")))
    if not isinstance(shape, list) or len(shape) != 4:
        raise UserError(f"the model's input shape is {_quote(shape)}; expected [null, height, width, channels]")
    layers = _normalized([_found(entry) for entry in entries if entry.get("class_name") != "InputLayer"])
    last = layers.pop() if layers else _Found("", "", {})
    is_binary = (last.arguments.get("units"), last.activation) == (1, "sigmoid")
    if last.kind != "Dense" or not (is_binary or last.activation in ("softmax", "linear")):
        raise UserError(
            "the model does not end in a Dense layer with softmax or linear activation, or one sigmoid unit"
        )
    config = _run_config(layers, "small_data" if is_binary else "convnet")
    image_shape = [_whole("input shape", size) for size in shape[1:]]
    planned = plan(config, image_shape, 2 if is_binary else last.arguments["units"])
    _require_equal([*layers, last.with_activation("sigmoid" if is_binary else "softmax")], planned)
    return config, planned


def _found(entry: Mapping[str, Any]) -> _Found:
    kind, config = entry.get("class_name"), entry["config"]
    name = str(config.get("name"))
    if not isinstance(kind, str) or kind not in KERAS_LAYERS or entry.get("registered_name") not in (None, kind):
        raise UserError(f"layer {_quote(name)} is of class {_quote(kind)}, which convjax does not know; {_EXPECTED}")
    try:
        return _Found(name, kind, {key: _argument(key, value) for key, value in config.items() if value is not None})
    except UserError as error:
        raise UserError(f"layer {_quote(name)} ({kind}): {error}") from None


def _argument(key: str, value: Any) -> Any:
    if key in ("filters", "units"):
        return _whole(key, value)
    if key in _WINDOWS:
        return tuple(_whole(key, size) for size in (value if isinstance(value, list) else [value, value]))
    if key == "axis":
        return value[0] if isinstance(value, list) and len(value) == 1 else value
    if key == "activation":
        value = "silu" if value == "swish" else value
        if value not in [*ACTIVATIONS, "softmax"]:
            raise UserError(f"{key} is {_quote(value)}; expected one of {', '.join(ACTIVATIONS)}, softmax")
    if key == "rate":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise UserError(f"{key} is {_quote(value)}; expected 0 <= {key} < 1")
        return round(float(value), 10)
    return value


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise UserError(f"{key} is {_quote(value)}; expected a whole number from 1 to {_LARGEST}")
    return value


def _normalized(layers: Iterable[_Found]) -> list[_Found]:
    """The same network as a plan writes it.

    An Activation goes into the linear layer before it. A Dropout that drops nothing goes away, and one before Flatten
    goes after it: it is elementwise, so that is the same.
    """
    result: list[_Found] = []
    for layer in layers:
        before = result[-1] if result else _Found("", "", {})
        is_linear = before.kind in ("Conv2D", "Dense") and before.activation == "linear"
        if layer.kind == "Activation" and is_linear:
            result[-1] = before.with_activation(layer.activation)
        elif layer.kind == "Flatten" and before.kind == "Dropout":
            result[-1:] = [layer, before]
        elif layer.kind != "Dropout" or layer.arguments["rate"]:
            result.append(layer)
    return result


def _run_config(layers: Sequence[_Found], model: str) -> RunConfig:
    """The RunConfig of all layers but the last; it is right only where the layers are in a plan's order.

    `model` is for a network with convolutions.
    """
    weighted: list[dict[str, Any]] = []
    follows: list[dict[str, Any]] = []  # the pooling and the rate of dropout after each of `weighted`
    for layer in layers:
        if layer.kind in ("Conv2D", "Dense"):
            weighted.append({**layer.arguments, "activation": layer.activation})
            follows.append({"pool": "none", "pool_size": (1, 1), "rate": 0})
        elif layer.kind == "Activation" and weighted:
            weighted[-1]["activation"] = layer.activation
        elif layer.kind in _POOLS and follows and follows[-1]["pool"] == "none":
            follows[-1] |= {"strides": layer.arguments["pool_size"], **layer.arguments, "pool": _POOLS[layer.kind]}
        elif layer.kind == "Dropout" and follows and not follows[-1]["rate"]:
            follows[-1]["rate"] = layer.arguments["rate"]

    def join(values: Iterable[Any]) -> str:
        return "-".join("x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)

    convs = [layer for layer in weighted if "filters" in layer]
    pools = follows[: len(convs)]
    common = {
        "dense_units": join(layer["units"] for layer in weighted if "units" in layer) or "0",
        "activation": join(layer["activation"] for layer in weighted) or "linear",
        "dropout": join(f"{after['rate']:.10f}" for after in follows) or "0",
        "norm": next((_NORMS[layer.kind] for layer in layers if layer.kind in _NORMS), "none"),
        "head": "gap" if any(layer.kind == "GlobalAveragePooling2D" for layer in layers) else "flatten",
    }
    if not convs:
        return RunConfig(model="dense", **common)
    return RunConfig(
        model=model,
        channels=join(conv["filters"] for conv in convs),
        kernel_size=join(conv["kernel_size"] for conv in convs),
        stride=join(conv.get("strides", 1) for conv in convs),
        padding=join(conv.get("padding", "valid") for conv in convs),
        pool=join(pool["pool"] for pool in pools) + "+" * (len(pools) == 1),
        pool_size=join(pool["pool_size"] for pool in pools),
        pool_stride=join(pool.get("strides", 1) for pool in pools),
        **common,
    )


def _require_equal(layers: Sequence[_Found], planned: Sequence[Layer]) -> None:
    for found, layer in itertools.zip_longest(layers, planned):
        if found is None:
            raise UserError(f"a {layer.kind} layer is missing; {_EXPECTED}")
        if layer is None or found.kind != layer.kind:
            raise UserError(f"layer {_quote(found.name)} ({found.kind}) cannot come where it does; {_EXPECTED}")
        for key, expected in KERAS_LAYERS[layer.kind](layer).arguments.items():
            if found.arguments.get(key, expected) != expected:
                value = _quote(found.arguments[key])
                raise UserError(f"layer {_quote(found.name)} ({found.kind}): {key} is {value}; expected {expected!r}")


def _quote(value: Any) -> str:
    """For a message: on one line and not long, whatever the file says."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
