"""A network's plan as the configuration of a Keras Sequential model, and back. No Keras, no files.

The configuration is what Keras writes as JSON: `config.json` in a `.keras` file, the attribute `model_config` of a
whole-model `.h5`. Nothing in it is looked up or executed: a layer or an activation is one of the names below, or it is
refused.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from convjax.config import ACTIVATIONS, RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import Layer, Shape, plan
from convjax.notation import Window

_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "avg"}
_EXPECTED = (
    "expected blocks of Conv2D, optional MaxPooling2D or AveragePooling2D and optional Dropout, then Flatten, then "
    "Dense layers with optional Dropout between them"
)
_LARGEST = 65_536
_MOST_LAYERS = 1000


def to_keras_config(layers: Sequence[Layer]) -> dict[str, Any]:
    """The Keras 3 configuration of the Sequential model that `layers` describe."""
    shape = [None, *layers[0].input_shape]
    entry = _serialized("keras.layers", "InputLayer", {"name": "input", "batch_shape": shape, "dtype": "float32"})
    model = _serialized(
        "keras",
        "Sequential",
        {
            "name": "convjax",
            "trainable": True,
            "dtype": "float32",
            "layers": [entry, *(_serialized("keras.layers", layer.kind, _layer_config(layer)) for layer in layers)],
            "build_input_shape": shape,
        },
    )
    return model | {"build_config": {"input_shape": shape}, "compile_config": {}}


def from_keras_config(model: Mapping[str, Any]) -> tuple[RunConfig, tuple[Layer, ...]]:
    """The plan of a Sequential model and the RunConfig it is drawn from (training fields are the defaults).

    The last Dense layer may have softmax or linear activation (logits); the plan says softmax for both. Or it is one
    sigmoid unit, as in `small_data`. The configurations of Keras 3 and of Keras 2 are understood.

    Raises:
      UserError: the model is not Sequential, or has a part that no plan describes; the message names the part.
    """
    if model.get("class_name") != "Sequential":
        raise UserError(f"the model is of class {_quote(model.get('class_name'))}; expected 'Sequential'")
    inner = model.get("config")
    # Keras before 2.2.3 wrote the list of layers alone.
    entries = inner.get("layers") if isinstance(inner, Mapping) else inner
    if not isinstance(entries, list) or not all(
        isinstance(entry, Mapping) and isinstance(entry.get("config"), Mapping) for entry in entries
    ):
        raise UserError("the model's configuration has no proper list of layers")
    if len(entries) > _MOST_LAYERS:
        raise UserError(f"the model has {len(entries)} layers; expected at most {_MOST_LAYERS}")
    image_shape = _image_shape(model, entries)
    found = _normalized([_layer(entry) for entry in entries if entry.get("class_name") != "InputLayer"])
    last = found[-1] if found and found[-1].kind == "Dense" else None
    is_binary = last is not None and last.activation == "sigmoid" and last.output_shape == (1,)
    if last is None or not (is_binary or last.activation in ("softmax", "linear")):
        raise UserError(
            "the model does not end in a Dense layer with softmax or linear activation, or one sigmoid unit"
        )
    if not is_binary:
        found[-1] = dataclasses.replace(last, activation="softmax")

    config = _run_config(found[:-1], "small_data" if is_binary else "convnet")
    layers = plan(config, image_shape, 2 if is_binary else last.output_shape[-1])
    for index, layer in enumerate(found):
        if index >= len(layers) or not _same(layer, layers[index]):
            raise UserError(f"layer {_quote(layer.name)} ({layer.kind}) cannot come where it does; {_EXPECTED}")
    if len(layers) != len(found):
        raise UserError(f"a {layers[len(found)].kind} layer is missing; {_EXPECTED}")
    return config, layers


def _serialized(module: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def _layer_config(layer: Layer) -> dict[str, Any]:
    # Whatever a user's own Keras settings could change (data format, precision) is spelled out.
    config: dict[str, Any] = {"name": layer.name, "trainable": True, "dtype": "float32"}
    if layer.kind == "Dropout":
        return config | {"rate": layer.rate, "seed": None, "noise_shape": None}
    if layer.kind == "Dense":
        return config | {"units": layer.output_shape[0]} | _weights_config(layer)
    config["data_format"] = "channels_last"
    if layer.kind == "Flatten":
        return config
    config |= {"strides": list(layer.strides), "padding": layer.padding}
    if layer.kind in _POOLS:
        return config | {"pool_size": list(layer.window)}
    config |= {
        "filters": layer.output_shape[-1],
        "kernel_size": list(layer.window),
        "dilation_rate": [1, 1],
        "groups": 1,
    }
    return config | _weights_config(layer)


def _weights_config(layer: Layer) -> dict[str, Any]:
    return {
        "activation": layer.activation,
        "use_bias": True,
        "kernel_initializer": _serialized("keras.initializers", "GlorotUniform", {"seed": None}),
        "bias_initializer": _serialized("keras.initializers", "Zeros", {}),
    }


def _image_shape(model: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Shape:
    """From the first layer if that has an input shape, else from what Keras noted when the model was built."""
    places: list[Any] = []
    for config in [entries[0]["config"] if entries else {}, model.get("config")]:
        if isinstance(config, Mapping):
            places += [config.get(key) for key in ("batch_shape", "batch_input_shape", "build_input_shape")]
    if isinstance(model.get("build_config"), Mapping):
        places.append(model["build_config"].get("input_shape"))
    shape = next((place for place in places if place is not None), None)
    if not isinstance(shape, list) or len(shape) != 4:
        raise UserError(f"the model's input shape is {_quote(shape)}; expected [null, height, width, channels]")
    return tuple(_integer(size, "input shape") for size in shape[1:])


def _layer(entry: Mapping[str, Any]) -> Layer:
    """One layer without its place in the network: `output_shape` is the channels or units alone."""
    kind, config = entry.get("class_name"), entry["config"]
    name = str(config.get("name"))
    parse = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parse is None or entry.get("registered_name") not in (None, kind):
        raise UserError(f"layer {_quote(name)} is of class {_quote(kind)}, which convjax does not know; {_EXPECTED}")
    try:
        return dataclasses.replace(parse(config), name=name)
    except UserError as error:
        raise UserError(f"layer {_quote(name)} ({kind}): {error}") from None


def _conv(config: Mapping[str, Any]) -> Layer:
    _require(config, data_format="channels_last", groups=1, use_bias=True)
    if _window(config.get("dilation_rate", 1), "dilation_rate") != (1, 1):
        raise UserError("it is dilated; expected dilation_rate 1")
    return Layer(
        "",
        "Conv2D",
        (),
        (_integer(config.get("filters"), "filters"),),
        window=_window(config.get("kernel_size"), "kernel_size"),
        strides=_window(config.get("strides", 1), "strides"),
        padding=_padding(config),
        activation=_activation(config.get("activation")),
    )


def _dense(config: Mapping[str, Any]) -> Layer:
    _require(config, use_bias=True)
    units = _integer(config.get("units"), "units")
    return Layer("", "Dense", (), (units,), activation=_activation(config.get("activation")))


def _pool(kind: str, config: Mapping[str, Any]) -> Layer:
    _require(config, data_format="channels_last", padding="valid")
    window = _window(config.get("pool_size"), "pool_size")
    strides = config.get("strides")
    return Layer("", kind, (), (), window=window, strides=window if strides is None else _window(strides, "strides"))


def _dropout(config: Mapping[str, Any]) -> Layer:
    _require(config, noise_shape=None)
    rate = config.get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise UserError(f"rate is {_quote(rate)}; expected 0 <= rate < 1")
    return Layer("", "Dropout", (), (), rate=round(float(rate), 10))


def _flatten(config: Mapping[str, Any]) -> Layer:
    _require(config, data_format="channels_last")
    return Layer("", "Flatten", (), ())


_PARSERS = {
    "Conv2D": _conv,
    "Dense": _dense,
    "MaxPooling2D": lambda config: _pool("MaxPooling2D", config),
    "AveragePooling2D": lambda config: _pool("AveragePooling2D", config),
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Activation": lambda config: Layer("", "Activation", (), (), activation=_activation(config.get("activation"))),
}


def _normalized(layers: Sequence[Layer]) -> list[Layer]:
    """The same network as a plan writes it.

    An Activation layer goes into the linear layer before it, a Dropout that drops nothing goes, and one before
    Flatten goes after it (it is elementwise, so that is the same).
    """
    result: list[Layer] = []
    for layer in layers:
        before = result[-1] if result else None
        if (
            layer.kind == "Activation"
            and before
            and before.kind in ("Conv2D", "Dense")
            and before.activation == "linear"
        ):
            result[-1] = dataclasses.replace(before, activation=layer.activation)
        elif layer.kind == "Flatten" and before and before.kind == "Dropout":
            result[-1:] = [layer, before]
        elif layer.kind != "Dropout" or layer.rate:
            result.append(layer)
    return result


def _run_config(layers: Sequence[Layer], model: str) -> RunConfig:
    """The RunConfig of all layers but the last; it is right only where the layers are in a plan's order.

    `model` is for a network with convolutions.
    """
    weighted = [layer for layer in layers if layer.kind in ("Conv2D", "Dense")]
    pools: dict[int, Layer] = {}
    rates = ["0"] * len(weighted)
    count = 0
    for layer in layers:
        if layer.kind in ("Conv2D", "Dense"):
            count += 1
        elif layer.kind in _POOLS and count:
            pools[count - 1] = layer
        elif layer.kind == "Dropout" and count:
            rates[count - 1] = f"{layer.rate:.10f}"
    convolutions = [layer for layer in weighted if layer.kind == "Conv2D"]
    common = {
        "dense_units": _join(layer.output_shape[0] for layer in weighted if layer.kind == "Dense") or "0",
        "activation": _join(layer.activation for layer in weighted) or "linear",
        "dropout": _join(rates) or "0",
    }
    if not convolutions:
        return RunConfig(model="dense", **common)
    pooled = [pools.get(index) for index in range(len(convolutions))]
    return RunConfig(
        model=model,
        channels=_join(layer.output_shape[0] for layer in convolutions),
        kernel_size=_join(_notation(layer.window) for layer in convolutions),
        stride=_join(_notation(layer.strides) for layer in convolutions),
        padding=_join(layer.padding for layer in convolutions),
        pool=_join(_POOLS[layer.kind] if layer else "none" for layer in pooled) + "+" * (len(pooled) == 1),
        pool_size=_join(_notation(layer.window) if layer else "1" for layer in pooled),
        pool_stride=_join(_notation(layer.strides) if layer else "1" for layer in pooled),
        **common,
    )


def _same(found: Layer, planned: Layer) -> bool:
    names = ("kind", "window", "strides", "padding", "activation", "rate")
    return all(getattr(found, name) == getattr(planned, name) for name in names) and (
        found.output_shape == planned.output_shape[-1:] or not found.output_shape
    )


def _require(config: Mapping[str, Any], **expected: Any) -> None:
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise UserError(f"{key} is {_quote(config[key])}; expected {_quote(value)}")


def _integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise UserError(f"{what} is {_quote(value)}; expected a whole number from 1 to {_LARGEST}")
    return value


def _window(value: Any, what: str) -> Window:
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2:
        raise UserError(f"{what} is {_quote(value)}; expected two numbers")
    return _integer(pair[0], what), _integer(pair[1], what)


def _padding(config: Mapping[str, Any]) -> str:
    padding = config.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise UserError(f"padding is {_quote(padding)}; expected 'valid' or 'same'")
    return padding


def _activation(value: Any) -> str:
    name = {"swish": "silu", None: "linear"}.get(value, value) if isinstance(value, str | None) else value
    if name not in (*ACTIVATIONS, "softmax"):
        raise UserError(f"activation is {_quote(value)}; expected one of {', '.join(ACTIVATIONS)}, softmax")
    return name


def _notation(window: Window) -> str:
    return f"{window[0]}x{window[1]}"


def _join(values: Any) -> str:
    return "-".join(str(value) for value in values)


def _quote(value: Any) -> str:
    """For a message: on one line and not long, whatever the file says."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
