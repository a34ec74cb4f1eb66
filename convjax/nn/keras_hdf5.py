"""The arrays in one of Keras's HDF5 files. Run as a program it reads the file from standard input, on its own.

Keras 3 keeps the variables of a Sequential model's layers under `layers/conv2d/vars/0`: the class in snake case,
numbered from the second of its class on whatever the layers' own names, then 0 for the kernel and 1 for the bias
(`keras/src/saving/saving_lib.py`; some early versions call the first group `_layer_checkpoint_dependencies`). Keras 2
keeps them under the layers' own names, and their order in attributes (`keras/src/legacy/saving/legacy_h5_format.py`).

A file may come from anyone. No link is followed, nothing is read from another file, no plug-in is loaded, and sizes are
bounded by the file's. That is not enough: libhdf5 (2.0) itself crashes or hangs on some damaged files, above all on
attributes. So `extract_apart` lets a process of its own do it; this module imports nothing of convjax so that the
process starts quickly.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import h5py
import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_REFUSED = 3
_LAYER_GROUPS = ("layers", "_layer_checkpoint_dependencies")
# Keras does not compress; whoever did cannot have won more than this on weights.
_LARGEST_EXPANSION = 20
_ALWAYS_ALLOWED = 64 * 2**20
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)

_Object = TypeVar("_Object", h5py.Group, h5py.Dataset)


class Refused(ValueError):
    """The content is not what it should be. The message is one line about "it"."""


@dataclasses.dataclass(frozen=True)
class Extract:
    """What a file holds.

    Attributes:
      named_by: `class` (Keras 3: keys are classes, numbered) or `order` (Keras 2: keys are the layers' names).
      layers: the variables of every layer that has some, float32.
      model_config: JSON of the architecture; None where the file has none.
    """

    named_by: Literal["class", "order"]
    layers: Mapping[str, Sequence[np.ndarray]]
    model_config: str | None = None


def allowance(size: int) -> int:
    """Bytes that the content of a file of `size` bytes may claim to unpack to."""
    return max(_ALWAYS_ALLOWED, _LARGEST_EXPANSION * size)


def extract_apart(content: bytes) -> Extract:
    """`extract` in a process of its own, so that no file can crash this one or keep it for ever.

    Raises:
      Refused: as `extract`, or libhdf5 did not survive the file.
    """
    command = [sys.executable, "-P", __file__]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, env=environment, timeout=30 + len(content) / 2**22, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused("it is damaged (reading it takes for ever)") from None
    if done.returncode == _REFUSED:
        raise Refused(done.stderr.decode(errors="replace"))
    if done.returncode == 1:
        raise RuntimeError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    if done.returncode:
        raise Refused(f"it is damaged (the HDF5 library crashed on it, code {done.returncode})")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        head = json.loads(arrays["head"].tobytes())
        layers = {name: [arrays[key] for key in keys] for name, keys in head["layers"].items()}
    return Extract(head["named_by"], layers, head["model_config"])


def extract(content: bytes) -> Extract:
    """The layers' variables, and the architecture where there is one.

    Raises:
      Refused: it is no HDF5 file, no Keras file, is damaged, or has a link, an external or virtual dataset, an unknown
        filter, or a size out of proportion.
    """
    if not content.startswith(SIGNATURE):
        raise Refused("it is not an HDF5 file")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return _extract(file, _Reader(allowance(len(content))))
    except Refused:
        raise
    except Exception as error:  # h5py raises many kinds for damaged content
        raise Refused(f"it is damaged ({error or type(error).__name__})") from error


def _extract(file: h5py.File, reader: "_Reader") -> Extract:
    for name in _LAYER_GROUPS:
        if _has(file, name):
            return Extract("class", reader.keras3(_child(file, name, h5py.Group)))
    config = reader.texts(file, "model_config")[0] if "model_config" in file.attrs else None
    if _has(file, "model_weights"):
        return Extract("order", reader.keras2(_child(file, "model_weights", h5py.Group)), config)
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return Extract("order", reader.keras2(file), config)
    raise Refused("it is an HDF5 file, but not one with a Keras model's weights")


class _Reader:
    """Reads within an allowance of bytes for all it reads together."""

    def __init__(self, allowed: int):
        self.left = allowed

    def keras3(self, group: h5py.Group) -> dict[str, list[np.ndarray]]:
        layers = {}
        for key in group:
            layer = _child(group, key, h5py.Group)
            variables = _child(layer, "vars", h5py.Group) if _has(layer, "vars") else ()
            if len(variables):
                datasets = [_child(variables, str(index), h5py.Dataset) for index in range(len(variables))]
                layers[key] = [self.array(dataset) for dataset in datasets]
        return layers

    def keras2(self, group: h5py.Group) -> dict[str, list[np.ndarray]]:
        layers = {}
        for name in self.names(group, "layer_names"):
            layer = _descend(group, name, h5py.Group)
            datasets = [_descend(layer, path, h5py.Dataset) for path in self.names(layer, "weight_names")]
            if datasets:
                layers[name] = [self.array(dataset) for dataset in datasets]
        return layers

    def array(self, dataset: h5py.Dataset) -> np.ndarray:
        name = dataset.name
        if dataset.dtype.kind != "f":
            raise Refused(f"its {name} is of type {dataset.dtype}; expected floating point numbers")
        creation = dataset.id.get_create_plist()
        if creation.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
            raise Refused(f"its {name} is a virtual dataset, kept elsewhere")
        if creation.get_external_count():
            raise Refused(f"its {name} is kept in another file")
        # HDF5 would load a plug-in for a filter that it does not know.
        if any(creation.get_filter(index)[0] not in _FILTERS for index in range(creation.get_nfilters())):
            raise Refused(f"its {name} is stored through an unknown filter")
        self.spend(name, dataset.size * max(4, dataset.dtype.itemsize))
        self.spend(name, math.prod(dataset.chunks or ()) * dataset.dtype.itemsize)
        return np.asarray(dataset[()], np.float32)

    def names(self, group: h5py.Group, name: str) -> list[str]:
        """An attribute that lists names; Keras cuts long lists into `name0`, `name1`, ..."""
        if name in group.attrs:
            return self.texts(group, name)
        parts = itertools.takewhile(group.attrs.__contains__, (f"{name}{index}" for index in itertools.count()))
        names = [text for part in parts for text in self.texts(group, part)]
        if not names:
            raise Refused(f"its group {group.name} has no attribute {name!r}")
        return names

    def texts(self, group: h5py.Group, name: str) -> list[str]:
        attribute = group.attrs.get_id(name)
        self.spend(f"attribute {name}", math.prod(attribute.shape) * attribute.dtype.itemsize)
        values = np.ravel(group.attrs[name]).tolist()
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]

    def spend(self, what: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Refused(f"its {what} claims {size:,} bytes, out of proportion to the file")


def _has(group: h5py.Group, name: str) -> bool:
    # `name in group` would follow links.
    return group.id.links.exists(name.encode())


def _child(group: h5py.Group, name: str, kind: type[_Object]) -> _Object:
    """The object of that name within `group`; a link that leaves the group is refused before it is followed."""
    if name in ("", ".", "..") or "/" in name or not _has(group, name):
        raise Refused(f"its group {group.name} has no {name!r}")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise Refused(f"{name!r} in its group {group.name} is a soft or external link; links are not followed")
    child = group[name]
    if not isinstance(child, kind):
        raise Refused(f"{name!r} in its group {group.name} is not a {kind.__name__.lower()}")
    return child


def _descend(group: h5py.Group, path: str, kind: type[_Object]) -> _Object:
    *folders, name = path.split("/")
    for folder in folders:
        group = _child(group, folder, h5py.Group)
    return _child(group, name, kind)


def _main() -> int:
    content = sys.stdin.buffer.read()
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        limit = 4 * 2**30 + 4 * allowance(len(content))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = extract(content)
    except Refused as error:
        print(error, end="", file=sys.stderr)
        return _REFUSED
    arrays, keys = {}, {}
    for name, variables in found.layers.items():
        keys[name] = [f"array{len(arrays) + index}" for index in range(len(variables))]
        arrays |= dict(zip(keys[name], variables, strict=True))
    head = {"named_by": found.named_by, "layers": keys, "model_config": found.model_config}
    np.savez(sys.stdout.buffer, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
