"""Training images for the compiled epoch: all of them on the device, or a stream of chunks in the order of the epoch.

Both give the same steps the same bits: a chunk is a small data set of its own, whose rows stand in the order in which
the epoch wants them, for the same program.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Int

from convjax.data import Split
from convjax.training.steps import steps_per_epoch

T = TypeVar("T")
Put = Callable[[Any], Any]

CHUNK_BYTES = 1 << 24
"""Images of a chunk: so many that starting a program does not tell, so few that two chunks find room anywhere."""


class Feed(NamedTuple):
    """Data for the steps `first` to `stop` of an epoch.

    Attributes:
      images: uint8 `[rows, height, width, channels]`.
      labels: int32 `[rows]`.
      order: rows of each step from `first` on, as `train_epoch` takes it.

    For several seeds, which shuffle differently, `order` has a leading axis, and in a stream so have the others.
    """

    images: jax.Array
    labels: jax.Array
    order: jax.Array
    first: int
    stop: int

    @property
    def data(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The arrays."""
        return self.images, self.labels, self.order

    def of(self, seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The arrays of one of several seeds."""
        return tuple(
            array[seed] if array.ndim > single else array for array, single in zip(self.data, (4, 1, 2), strict=True)
        )


class Resident:
    """All images on the device; an epoch is one Feed."""

    def __init__(self, split: Split, put: Put = jax.device_put):
        """`put` moves arrays to the device."""
        self._put = put
        self._data = put((np.asarray(split.images), split.labels))

    def epoch(self, order: Int[Array, "... steps batch"], step: int) -> Iterator[Feed]:
        """What an epoch with this order needs from `step` on."""
        del step
        yield Feed(*self._put((*self._data, order)), 0, order.shape[-2])


class Streamed:
    """Images from wherever they are, mostly a memory-mapped file, in chunks of `chunk_steps` steps."""

    def __init__(self, split: Split, chunk_steps: int, put: Put = jax.device_put):
        """`put` moves arrays to the device."""
        self._split, self._chunk_steps, self._put = split, chunk_steps, put

    def epoch(self, order: Int[Array, "... steps batch"], step: int) -> Iterator[Feed]:
        """What an epoch with this order needs from `step` on; a thread gathers a chunk while the last one is used."""
        host = np.asarray(order)
        steps = host.shape[-2]
        starts = range(step, steps, self._chunk_steps)

        def make(index: int) -> Feed:
            first = starts[index]
            stop = min(first + self._chunk_steps, steps)
            return Feed(*self._put(self._gather(host[..., first:stop, :])), first, stop)

        return prefetched(make, len(starts))

    def _gather(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, labels and order of a chunk. What its arrays hold beyond the rows of `order` is never looked at."""
        *seeds, steps, batch = order.shape
        count, rows = steps * batch, self._chunk_steps * batch
        indices = order.reshape(*seeds, count)
        taken = np.maximum(indices, 0)
        # New arrays for every chunk: on CPU the device uses the very memory it is given.
        images = np.empty((*seeds, rows, *self._split.images.shape[1:]), np.uint8)
        labels = np.zeros((*seeds, rows), np.int32)
        images[..., :count, :, :, :] = self._split.images[taken]
        labels[..., :count] = self._split.labels[taken]
        local = np.broadcast_to(np.arange(rows, dtype=np.int32), labels.shape).copy()
        local[..., :count][indices < 0] = -1 - local[..., :count][indices < 0]
        return images, labels, local.reshape(*seeds, self._chunk_steps, batch)


def chunk_steps(split: Split, batch_size: int, replicas: int = 0) -> int:
    """Steps of a chunk of a stream, when so many seeds share its memory.

    At least two, if the epoch has so many: of a single step XLA would move work out of the loop over steps, and round
    it otherwise.
    """
    step_bytes = batch_size * image_bytes(split) * max(1, replicas)
    return min(steps_per_epoch(len(split.labels), batch_size), max(2, CHUNK_BYTES // step_bytes))


def image_bytes(split: Split) -> int:
    """Bytes of one image."""
    return int(np.prod(split.images.shape[1:]))


def must_stream(mode: str, split: Split, memory_limit: int = 0) -> bool:
    """Whether a split is streamed.

    Args:
      mode: `yes`, `no`, or `auto`: where the images take more than `memory_limit`.
      memory_limit: in MiB; 0 for half of the memory of the device (on CPU: of the machine, or of what this process may
        use of it), which leaves the other half to the network.
    """
    if mode != "auto":
        return mode == "yes"
    limit = memory_limit << 20 if memory_limit else device_memory() // 2
    return len(split.labels) * image_bytes(split) > limit


def device_memory() -> int:
    """Bytes that the first device may use."""
    device = jax.local_devices()[0]
    known = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if known:
        return int(known)
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return min(limits)


def prefetched(make: Callable[[int], T], count: int) -> Iterator[T]:
    """`make(0)` to `make(count - 1)`, each made by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        coming = thread.submit(make, 0) if count else None
        for index in range(count):
            assert coming is not None
            made = coming.result()
            coming = thread.submit(make, index + 1) if index + 1 < count else None
            yield made
