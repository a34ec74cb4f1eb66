"""What a Keras file holds: its architecture as JSON text, its weights as arrays. As a program, reads one file.

A file may come from anyone. Nothing in it is executed, no link is followed, no other file and no plug-in is opened,
and sizes are bounded by the file's. That is not enough: libhdf5 (2.0) itself crashes or hangs on some damaged files.
So `read_apart` has a process with limits read it. This module imports nothing else of convjax: the process starts
quickly.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

_REFUSED = 3
_LARGEST_FILE = 4 * 2**30
_LARGEST_CONFIG = 16 * 2**20
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


class Refused(ValueError):
    """The file is not what it should be. The message is one line about "it"."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
      config: JSON of the architecture; None where the file has none.
      keyed_by_class: whether the keys of `layers` are classes, numbered (`conv2d`, `conv2d_1`: Keras 3), or the names
        that the user gave the layers (Keras 2).
      layers: the variables of every layer that has some, float32, in Keras's order.
    """

    config: str | None
    keyed_by_class: bool
    layers: Mapping[str, Sequence[np.ndarray]]


def read_apart(path: str | os.PathLike[str]) -> Contents:
    """`read` in a process of its own, so that no file can crash this one, fill its memory or hang it.

    Raises:
      Refused: as `read`, or the process did not survive the file.
    """
    if not os.path.isfile(path):
        raise Refused("it is not a file" if os.path.exists(path) else "no such file")
    command = [sys.executable, "-P", __file__, os.path.abspath(path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_seconds(path), check=False)
    except subprocess.TimeoutExpired:
        raise Refused("it is damaged (reading it takes too long)") from None
    message = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        with np.load(io.BytesIO(done.stdout)) as archive:
            head, *arrays = archive.values()
        config, keyed_by_class, counts = json.loads(head.tobytes())
        left = iter(arrays)
        return Contents(config, keyed_by_class, {key: list(itertools.islice(left, count)) for key, count in counts})
    if done.returncode == _REFUSED:
        raise Refused(message)
    last = message.rpartition("\n")[2]
    raise _unreadable(last if done.returncode == 1 else f"the HDF5 library crashed on it, code {done.returncode}")


def read(path: str | os.PathLike[str]) -> Contents:
    """What `path` holds.

    Raises:
      Refused: it is no Keras file, is damaged, or has a link, an external or virtual dataset, an unknown filter, or a
        size out of proportion.
    """
    try:
        if os.path.getsize(path) > _LARGEST_FILE:
            raise Refused(f"it has {os.path.getsize(path):,} bytes; expected at most {_LARGEST_FILE:,}")
        with open(path, "rb") as file:
            data, config = file.read(), None
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                config = _member(archive, "config.json", _LARGEST_CONFIG).decode()
                data = _member(archive, "model.weights.h5", _allowance(len(data)))
        if not data.startswith(b"\x89HDF\r\n\x1a\n"):
            kind = "neither a .keras archive nor" if config is None else "a .keras archive whose weights are not"
            raise Refused(f"it is {kind} an HDF5 file")
        with h5py.File(io.BytesIO(data)) as file:
            return _Reader(_allowance(len(data))).contents(file, config)
    except Refused:
        raise
    except Exception as error:  # h5py and zipfile raise many kinds for damaged content
        raise _unreadable(str(error) or type(error).__name__) from error


def _allowance(size: int) -> int:
    """Bytes that the content of a file of `size` bytes may claim to unpack to. Weights hardly compress."""
    return max(64 * 2**20, 20 * size)


def _seconds(path: str | os.PathLike[str]) -> int:
    return 30 + os.path.getsize(path) // 2**22


def _unreadable(why: str) -> Refused:
    return Refused(f"cannot be read as a Keras file ({why})")


def _member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise Refused(f"the archive has {len(found)} members {name!r}; expected one")
    [info] = found
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{name} in the archive is compressed by an unexpected method ({info.compress_type})")
    if info.file_size > largest:
        raise Refused(f"{name} in the archive claims {info.file_size:,} bytes, out of proportion to the file")
    with archive.open(info) as member:
        return member.read(info.file_size + 1)  # an unbounded read would unpack what there is, not what was declared


class _Reader:
    """Reads an HDF5 file within an allowance of bytes for all it reads together."""

    def __init__(self, allowed: int):
        self.left = allowed

    def contents(self, file: h5py.File, config: str | None) -> Contents:
        link = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
        if link is not None:
            raise Refused(f"its {link!r} is a soft or external link; links are not followed")
        for name in ("layers", "_layer_checkpoint_dependencies"):  # the second is of some early versions of Keras 3
            if name in file:
                return Contents(config, True, self.keras3(file[name]))
        layers = self.keras2(file.get("model_weights", file))
        return Contents(config or "".join(_texts(file, "model_config")) or None, False, layers)

    def keras3(self, group: h5py.Group) -> dict[str, list[np.ndarray]]:
        """The variables are `conv2d_1/vars/0`, `1`, ..."""
        variables = {key: layer.get("vars", ()) for key, layer in group.items()}
        return {
            key: [self.array(found[str(index)]) for index in range(len(found))]
            for key, found in variables.items()
            if len(found)
        }

    def keras2(self, group: h5py.Group) -> dict[str, list[np.ndarray]]:
        """Attributes list the layers, and the path of each variable below its layer."""
        names = _texts(group, "layer_names")
        if not names:
            raise Refused("it is an HDF5 file, but not one with a Keras model's weights")
        paths = {name: _texts(group[name], "weight_names") for name in names}
        return {name: [self.array(group[name][path]) for path in paths[name]] for name in names if paths[name]}

    def array(self, dataset: h5py.Dataset) -> np.ndarray:
        name = dataset.name
        if not isinstance(dataset, h5py.Dataset):
            raise Refused(f"its {name} is not a dataset")
        if dataset.dtype.kind != "f":
            raise Refused(f"its {name} is of type {dataset.dtype}; expected floating point numbers")
        if dataset.is_virtual or dataset.external:
            raise Refused(f"its {name} is a virtual dataset or is kept in another file")
        creation = dataset.id.get_create_plist()
        # HDF5 would load a plug-in for a filter that it does not know.
        if any(creation.get_filter(index)[0] not in _FILTERS for index in range(creation.get_nfilters())):
            raise Refused(f"its {name} is stored through an unknown filter")
        size = max(4, dataset.dtype.itemsize) * ((dataset.size or 0) + math.prod(dataset.chunks or (0,)))
        self.left -= size
        if self.left < 0:
            raise Refused(f"its {name} claims {size:,} bytes, out of proportion to the file")
        return np.asarray(dataset[()], np.float32)


def _texts(group: h5py.Group, name: str) -> list[str]:
    """An attribute of one or more texts; Keras 2 cuts long lists into `name0`, `name1`, ..."""
    parts = itertools.takewhile(group.attrs.__contains__, (f"{name}{index}" for index in itertools.count()))
    found = [name] if name in group.attrs else parts
    texts = [text for part in found for text in np.ravel(group.attrs[part]).tolist()]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _main(path: str) -> int:
    memory = 4 * 2**30 + 4 * _allowance(os.path.getsize(path))
    for name, limit in {"AS": memory, "CPU": _seconds(path), "CORE": 0, "FSIZE": 0}.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # this system has no such limit
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    try:
        found = read(path)
    except Refused as error:
        print(error, end="", file=sys.stderr)
        return _REFUSED
    head = [found.config, found.keyed_by_class, [(key, len(arrays)) for key, arrays in found.layers.items()]]
    arrays = itertools.chain.from_iterable(found.layers.values())
    np.savez(sys.stdout.buffer, np.frombuffer(json.dumps(head).encode(), np.uint8), *arrays)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
