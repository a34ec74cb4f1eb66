"""A batch spread over devices, as the program of one of them sees it. Used inside `jax.shard_map`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Shard:
    """This device's share of every batch: `size` neighbouring rows.

    What is random is drawn for the whole batch and cut, so that an image meets the same numbers on any number of
    devices.

    Attributes:
      axis: the mesh axis that batches are spread over.
      devices: its length.
      batch: rows of a whole batch. Where it does not divide, the last devices get padding.
    """

    axis: str
    devices: int
    batch: int

    @property
    def size(self) -> int:
        """Rows on each device."""
        return -(-self.batch // self.devices)

    @property
    def first(self) -> jax.Array:
        """The batch's row that this device's first is."""
        return lax.axis_index(self.axis).astype(jnp.int32) * self.size

    def rows(self, whole: jax.Array) -> jax.Array:
        """This device's rows of `whole`, `[batch, ...]`; zeros where there is only padding."""
        padding = [(0, self.devices * self.size - self.batch), *((0, 0) for _ in whole.shape[1:])]
        return lax.dynamic_slice_in_dim(jnp.pad(whole, padding), self.first, self.size)

    def sum(self, tree: Any) -> Any:
        """The sum of every leaf over the devices."""
        return lax.psum(tree, self.axis)
