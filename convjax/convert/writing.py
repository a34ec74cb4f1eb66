"""Saves a network with Keras. The saved network takes images / 255 and ends in softmax or sigmoid, ours in logits."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convjax.convert.keras_layers import KERAS_LAYERS
from convjax.errors import UserError
from convjax.files import write_bytes_atomic
from convjax.nn.geometry import Layer

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it when first imported; its default is TensorFlow

import keras


def save_keras(path: str | os.PathLike[str], params: Mapping[str, Any], layers: Sequence[Layer]) -> None:
    """Writes `params`, `{layer name: {"kernel", "bias"}}`, of the network `layers`; equal parameters make equal files.

    `FILE.keras` is for `keras.saving.load_model`, `FILE.weights.h5` for `model.load_weights` of the same network.

    Raises:
      UserError: the file name has another ending, Keras has no such layer, or `params` are not those of `layers`.
      OSError: the file cannot be written.
    """
    name = os.fspath(path)
    if not name.endswith((".keras", ".weights.h5")):
        raise UserError(f"{name}: unknown kind of file; expected a name that ends in .keras or .weights.h5")
    weights = [_weights(name, layer, params.get(layer.name, {})) for layer in layers]
    with (
        tempfile.TemporaryDirectory() as folder,
        jax.numpy_dtype_promotion("standard"),  # Keras relies on JAX's ordinary promotion
        jax.numpy_rank_promotion("allow"),
    ):
        model = _sequential(layers)
        for layer, arrays in zip(model.layers, weights, strict=True):
            layer.set_weights(arrays)
        if name.endswith(".keras"):
            model.save(Path(folder, "x.keras"))
            content = _undated(Path(folder, "x.keras"))
        else:
            model.save_weights(Path(folder, "x.weights.h5"))
            content = Path(folder, "x.weights.h5").read_bytes()
    write_bytes_atomic(path, content)


def _weights(name: str, layer: Layer, params: Mapping[str, Any]) -> list[np.ndarray]:
    """In Keras's order."""
    if layer.kind not in KERAS_LAYERS:
        raise UserError(f"{name}: cannot hold {layer.name}; Keras 3 has no layer {layer.kind}")
    arrays = []
    for key, shape in KERAS_LAYERS[layer.kind](layer).weights.items():
        arrays.append(np.asarray(params.get(key), np.float32))
        if arrays[-1].shape != shape:
            raise UserError(f"{layer.name} has no {key} of shape {shape} to save; these are not its weights")
    return arrays


def _sequential(layers: Sequence[Layer]) -> keras.Sequential:
    stack = [keras.Input(layers[0].input_shape, name="input", dtype="float32")]
    for layer in layers:
        make = getattr(keras.layers, layer.kind)
        stack.append(make(name=layer.name, dtype="float32", **KERAS_LAYERS[layer.kind](layer).arguments))
    return keras.Sequential(stack, name="convjax")


def _undated(path: Path) -> bytes:
    """A `.keras` archive without the time at which Keras wrote it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as dated, zipfile.ZipFile(buffer, "w") as archive:
        for name in dated.namelist():
            content = dated.read(name)
            if name == "metadata.json":
                content = json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's own date is fixed
    return buffer.getvalue()
