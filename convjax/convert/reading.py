"""Reads a network or its weights from any of Keras's files, which may come from anyone (see `contents`)."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convjax.config import RunConfig
from convjax.convert.architecture import from_keras_config
from convjax.convert.contents import Contents, Refused, read_apart
from convjax.convert.keras_layers import KERAS_LAYERS
from convjax.errors import UserError
from convjax.nn.geometry import Layer

Parameters = dict[str, dict[str, np.ndarray]]


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


def load_keras(path: str | os.PathLike[str], layers: Sequence[Layer]) -> Parameters:
    """The parameters of the network `layers` from any of Keras's files: `{layer name: {"kernel", "bias"}}`, float32.

    Layers are matched by class and order, not by name, and every shape must agree. Only the weights are read: what a
    file says of activations or strides is not compared.

    Raises:
      UserError: the file cannot be read, is damaged, or holds another network's weights; the message names the file.
    """
    with _naming(path):
        return _match(read_apart(path), layers)


def load_keras_model(path: str | os.PathLike[str]) -> KerasModel:
    """The network and its parameters from a `.keras` file, or from a whole-model `.h5`.

    Raises:
      UserError: as `load_keras`, or the file has no architecture or one that convjax has no plan for.
    """
    with _naming(path):
        found = read_apart(path)
        if found.config is None:
            raise Refused("it holds weights without an architecture; expected a .keras file")
        architecture = json.loads(found.config)
        if not isinstance(architecture, Mapping):
            raise Refused("its architecture is not a JSON object")
        config, layers = from_keras_config(architecture)
        return KerasModel(config, layers, _match(found, layers))


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong with the file becomes one line that names it."""
    try:
        yield
    except (UserError, Refused) as error:
        line = str(error)
    except (OSError, ValueError, LookupError, RecursionError, MemoryError) as error:
        line = f"cannot be read as a Keras file ({type(error).__name__}: {error})"
    else:
        return
    raise UserError(f"{os.fspath(path)}: {' '.join(line.split())[:400]}")  # parts of it may be the file's


def _match(found: Contents, layers: Sequence[Layer]) -> Parameters:
    """The variables under the names of `layers`, shapes checked."""
    weighted = {_key(layer): layer for layer in layers if layer.parameters}
    variables = found.layers
    if not found.keyed_by_class and len(variables) == len(weighted):
        variables = dict(zip(weighted, variables.values(), strict=True))
    if variables.keys() != weighted.keys():
        raise Refused(f"it has weights of {', '.join(variables)}; the network has {', '.join(weighted)}")
    params: Parameters = {}
    for key, layer in weighted.items():
        expected = KERAS_LAYERS[layer.kind](layer).weights
        shapes = [array.shape for array in variables[key]]
        if shapes != list(expected.values()):
            raise Refused(f"its layer {key!r} has shapes {shapes}; {layer.name} has {dict(expected)}")
        params[layer.name] = dict(zip(expected, variables[key], strict=True))
    return params


def _key(layer: Layer) -> str:
    """Keras's key of a layer: `conv2d`, `conv2d_1` for our `conv2d_1`, `conv2d_2`."""
    stem, _, number = layer.name.rpartition("_")
    return stem if number == "1" else f"{stem}_{int(number) - 1}"
