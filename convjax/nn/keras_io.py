"""Weights and whole networks to and from Keras's files, without Keras: `.keras`, `.weights.h5` and the older `.h5`.

A `.keras` file is a ZIP archive of the model's configuration (see `keras_config`), its weights in HDF5 (see
`keras_hdf5`) and a note of the version. Kernels are [height, width, in, out] and [in, out] on both sides, so weights
pass unchanged. Images are for the user to scale to 0..1, as in the chapter; the exported network ends in softmax, ours
in logits.

A file to load may come from anyone: nothing in it is executed, unpickled or followed out of the file, and what is
allocated is bounded by the size of the file.
"""

import contextlib
import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.files import write_bytes_atomic
from convjax.nn.geometry import Layer
from convjax.nn.keras_config import from_keras_config, to_keras_config
from convjax.nn.keras_hdf5 import SIGNATURE, Extract, Refused, allowance, extract_apart

Parameters = dict[str, dict[str, np.ndarray]]

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# A release whose format this is; Keras notes it and does not ask for it.
_FORMAT_VERSION = "3.10.0"
_LARGEST_CONFIG = 16 * 2**20
_LARGEST_FILE = 4 * 2**30
_NOT_KERAS = {
    "PermutePixels": "which is no Keras layer",
    "LocallyConnected2D": "which Keras 3 no longer has",
    "GlobalAveragePooling2D": "which convjax does not write for Keras",
}


@dataclasses.dataclass(frozen=True)
class KerasModel:
    """A network from a file.

    Attributes:
      config: the fields of the network are the file's, all others the defaults.
      layers: the plan of `config` for the file's image shape and number of classes.
      params: `{layer name: {"kernel", "bias"}}`, float32.
    """

    config: RunConfig
    layers: tuple[Layer, ...]
    params: Parameters


def save_keras(path: str | os.PathLike[str], params: Mapping[str, Any], layers: Sequence[Layer]) -> None:
    """Writes `params` of the network `layers` for Keras 3; equal parameters make equal files.

    `FILE.keras` is for `keras.saving.load_model`, `FILE.weights.h5` for `model.load_weights` of the same network.

    Raises:
      UserError: the file name has another ending, the parameters are not those of `layers`, or one of these is none
        that we read back from Keras.
      OSError: the file cannot be written.
    """
    name = os.fspath(path)
    if not name.endswith((".keras", ".weights.h5")):
        raise UserError(f"{name}: unknown kind of file; expected a name that ends in .keras or .weights.h5")
    for layer in layers:
        if layer.kind in _NOT_KERAS:
            raise UserError(f"{name}: cannot hold {layer.name} ({layer.kind}), {_NOT_KERAS[layer.kind]}")
    weights = _weights_bytes(params, layers)
    write_bytes_atomic(path, _archive_bytes(weights, layers) if name.endswith(".keras") else weights)


def load_keras(path: str | os.PathLike[str], layers: Sequence[Layer]) -> Parameters:
    """The parameters of the network `layers` from any of Keras's files: `{layer name: {"kernel", "bias"}}`, float32.

    Layers are matched by class and order, not by name, and every shape must agree. Only the weights are read: what a
    file says of activations or strides is not compared.

    Raises:
      UserError: the file cannot be read, is damaged, or holds another network's weights; the message names the file.
    """
    with _naming(path):
        _, extract = _read(path)
        return _match(extract, layers)


def load_keras_model(path: str | os.PathLike[str]) -> KerasModel:
    """The network and its parameters from a `.keras` file, or from a whole-model `.h5`.

    Raises:
      UserError: as `load_keras`, or the file has no architecture or one that convjax has no plan for.
    """
    with _naming(path):
        text, extract = _read(path)
        if text is None:
            raise Refused("it holds weights without an architecture; expected a .keras file")
        architecture = json.loads(text)
        if not isinstance(architecture, Mapping):
            raise Refused("its architecture is not a JSON object")
        config, layers = from_keras_config(architecture)
        return KerasModel(config, layers, _match(extract, layers))


def _weights_bytes(params: Mapping[str, Any], layers: Sequence[Layer]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars").attrs["name"] = "convjax"
        for key, layer in _keras_keys(layers).items():
            variables = file.create_group(f"layers/{key}/vars")
            variables.attrs["name"] = layer.name
            for index, (name, shape) in enumerate(_shapes(layer).items()):
                value = np.asarray(params.get(layer.name, {}).get(name))
                if value.shape != shape:
                    raise UserError(f"{layer.name} has no {name} of shape {shape} to save; these are not its weights")
                variables.create_dataset(str(index), data=value.astype(np.float32))
    return buffer.getvalue()


def _archive_bytes(weights: bytes, layers: Sequence[Layer]) -> bytes:
    members = {
        _METADATA: json.dumps({"keras_version": _FORMAT_VERSION}).encode(),
        _CONFIG: json.dumps(to_keras_config(layers)).encode(),
        _WEIGHTS: weights,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            # ZipInfo's own date is fixed, so that the archive depends on nothing but its content.
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _keras_keys(layers: Sequence[Layer]) -> dict[str, Layer]:
    """The layers by Keras's keys: `conv2d`, `conv2d_1` for our `conv2d_1`, `conv2d_2`."""
    keys = {}
    for layer in layers:
        stem, _, number = layer.name.rpartition("_")
        keys[stem if number == "1" else f"{stem}_{int(number) - 1}"] = layer
    return keys


def _shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    if not layer.parameters:
        return {}
    window = layer.window if layer.kind == "Conv2D" else ()
    return {
        "kernel": (*window, layer.input_shape[-1], layer.output_shape[-1]),
        "bias": (layer.output_shape[-1],),
    }


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong with the file becomes one UserError that names it."""
    try:
        yield
    except (UserError, Refused) as error:
        raise UserError(f"{os.fspath(path)}: {_one_line(error)}") from None
    # What zipfile and json raise for damaged content.
    except (OSError, RuntimeError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{os.fspath(path)}: cannot be read as a Keras file ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    # Parts of the text may be the file's.
    return " ".join(str(error).split())[:400] or type(error).__name__


def _read(path: str | os.PathLike[str]) -> tuple[bytes | str | None, Extract]:
    """The architecture, as JSON text, and the weights."""
    if not Path(path).is_file():
        raise Refused("it is not a file" if Path(path).exists() else "no such file")
    if Path(path).stat().st_size > _LARGEST_FILE:
        raise Refused(f"it has {Path(path).stat().st_size:,} bytes; expected at most {_LARGEST_FILE:,}")
    content = Path(path).read_bytes()
    if content.startswith(SIGNATURE):
        extract = extract_apart(content)
        return extract.model_config, extract
    if not content.startswith(b"PK"):
        raise Refused("it is neither a .keras archive nor an HDF5 file")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = _read_member(archive, _CONFIG, _LARGEST_CONFIG)
        weights = _read_member(archive, _WEIGHTS, allowance(len(content)))
    return config, extract_apart(weights)


def _read_member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise Refused(f"the archive has {len(found)} members {name!r}; expected one")
    info = found[0]
    if info.flag_bits & 1:
        raise Refused(f"{name} in the archive is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{name} in the archive is compressed by an unexpected method ({info.compress_type})")
    if info.file_size > largest:
        raise Refused(f"{name} in the archive claims {info.file_size:,} bytes, out of proportion to the file")
    with archive.open(info) as member:
        # An unbounded read would unpack what there is, not what was declared.
        return member.read(info.file_size + 1)


def _match(extract: Extract, layers: Sequence[Layer]) -> Parameters:
    """The variables under the names of `layers`, shapes checked."""
    weighted = {key: layer for key, layer in _keras_keys(layers).items() if layer.parameters}
    expected = f"the network has {', '.join(weighted)}"
    if extract.named_by == "order":
        if len(extract.layers) != len(weighted):
            raise Refused(f"it has {len(extract.layers)} layers with weights ({', '.join(extract.layers)}); {expected}")
        found = dict(zip(weighted, extract.layers.values(), strict=True))
    else:
        found = dict(extract.layers)
    for key in weighted:
        if key not in found:
            raise Refused(f"it has no weights of a layer {key!r}; {expected}")
    for key in found:
        if key not in weighted:
            raise Refused(f"it has weights of a further layer {key!r}; {expected}")
    params: Parameters = {}
    for key, layer in weighted.items():
        shapes = _shapes(layer)
        if len(found[key]) != len(shapes):
            raise Refused(f"its layer {key!r} has {len(found[key])} variables; expected a kernel and a bias")
        params[layer.name] = dict(zip(shapes, found[key], strict=True))
        for name, shape in shapes.items():
            actual = params[layer.name][name].shape
            if actual != shape:
                raise Refused(f"the {name} of its layer {key!r} has shape {actual}; {layer.name} has {shape}")
    return params
