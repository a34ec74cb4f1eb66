"""Training images for the compiled epoch: all of them on the device, or a stream of chunks in the order of the epoch.

Both give the same steps the same bits: a chunk is a small data set of its own, for the same program, whose rows are in
the order of the epoch.
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
from convjax.training.steps import EpochData

T = TypeVar("T")
Put = Callable[[Any], Any]

CHUNK_BYTES = 1 << 24
"""Images of a chunk: enough that the cost of a call does not matter, few enough that two chunks fit anywhere."""


class Feed(NamedTuple):
    """Data for the steps `first` to `stop` of an epoch.

    With replicas, which shuffle differently, `data.order` has a leading axis, and in a stream all of `data` has.
    """

    data: EpochData
    first: int
    stop: int

    def of(self, replica: int) -> EpochData:
        """The data of one of several replicas."""
        pairs = zip(self.data, (4, 1, 2), strict=True)  # axes of a single run's images, labels and order
        return EpochData._make(array[replica] if array.ndim > axes else array for array, axes in pairs)


class Resident:
    """All images on the device; an epoch is one Feed."""

    def __init__(self, split: Split, put: Put = jax.device_put):
        """`put` moves arrays to the device."""
        self._put = put
        self._data = put((np.asarray(split.images), split.labels))

    def epoch(self, order: Int[Array | np.ndarray, "... steps batch"], step: int) -> Iterator[Feed]:
        """What an epoch with this order needs from `step` on."""
        del step
        yield Feed(EpochData(*self._put((*self._data, order))), 0, order.shape[-2])


class Streamed:
    """Images from wherever they are, usually a memory-mapped file, in chunks of `chunk_steps` steps."""

    def __init__(self, split: Split, chunk_steps: int, put: Put = jax.device_put):
        """`put` moves arrays to the device."""
        self._split, self._chunk_steps, self._put = split, chunk_steps, put

    def epoch(self, order: Int[Array | np.ndarray, "... steps batch"], step: int) -> Iterator[Feed]:
        """What an epoch with this order needs from `step` on; a thread gathers the next chunk while one is in use."""
        host = np.asarray(order)
        steps = host.shape[-2]
        starts = range(step, steps, self._chunk_steps)

        def make(index: int) -> Feed:
            first = starts[index]
            stop = min(first + self._chunk_steps, steps)
            return Feed(EpochData(*self._put(self._gather(host[..., first:stop, :]))), first, stop)

        return prefetched(make, len(starts))

    def _gather(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, labels and order of a chunk. Entries beyond the rows of `order` are never read."""
        *replicas, steps, batch = order.shape
        count, rows = steps * batch, self._chunk_steps * batch
        indices = order.reshape(*replicas, count)
        taken = np.maximum(indices, 0)
        # New arrays for every chunk: on CPU the device uses the memory it is given.
        images = np.empty((*replicas, rows, *self._split.images.shape[1:]), np.uint8)
        labels = np.zeros((*replicas, rows), np.int32)
        images[..., :count, :, :, :] = self._split.images[taken]
        labels[..., :count] = self._split.labels[taken]
        local = np.broadcast_to(np.arange(rows, dtype=np.int32), labels.shape).copy()
        local[..., :count][indices < 0] = -1 - local[..., :count][indices < 0]
        return images, labels, local.reshape(*replicas, self._chunk_steps, batch)


def chunk_steps(split: Split, batch_size: int, replicas: int = 0) -> int:
    """Steps of a chunk of a stream, when so many replicas share its memory.

    At least two, if the epoch has two: of a single step XLA would move work out of the loop over steps, and round it
    differently.
    """
    step_bytes = batch_size * image_bytes(split) * max(1, replicas)
    return min(-(-len(split.labels) // batch_size), max(2, CHUNK_BYTES // step_bytes))


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
    """`make(0)` to `make(count - 1)`; a thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        coming = thread.submit(make, 0) if count else None
        for index in range(count):
            assert coming is not None
            made = coming.result()
            coming = thread.submit(make, index + 1) if index + 1 < count else None
            yield made
