"""Which devices a run uses, and how its arrays lie on them.

One run on several devices is data-parallel: parameters, optimizer state and data are on every device, each batch is
split among them (`jax.jit` with a `NamedSharding`), and XLA partitions the program. Replicas, runs that are trained
together, are split among the devices themselves and never communicate (`jax.shard_map`).
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convjax.errors import UserError
from convjax.training.backend import on_cpu

AXIS = "data"
"""The mesh axis that batches, or replicas, are split along."""

EVERYWHERE = PartitionSpec()
SPREAD = PartitionSpec(AXIS)
COLUMNS = PartitionSpec(None, AXIS)


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a program runs on.

    Attributes:
      mesh: of one axis, `data`; None for JAX's default device alone.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """How many devices there are."""
        return 1 if self.mesh is None else self.mesh.size

    def sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        """How an array that is split as `spec` says lies on these devices; None on a single one."""
        return None if self.mesh is None else NamedSharding(self.mesh, spec)

    def struct(self, like: Any, spec: PartitionSpec) -> Any:
        """Shapes and types of `like`'s leaves, placed as `put` would place them."""
        sharding = self.sharding(spec)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)

    def put(self, tree: Any, spec: PartitionSpec = EVERYWHERE) -> Any:
        """`tree` on these devices."""
        return jax.device_put(tree, self.sharding(spec))

    def local(self, tree: Any) -> Any:
        """`tree` on the first of these devices."""
        return tree if self.mesh is None else jax.device_put(tree, self.mesh.devices.flat[0])


ONE = Devices()


def choose(wanted: str = "auto", *, runs: int = 1) -> Devices:
    """The devices that `--devices` asks for.

    Args:
      wanted: `all`, a number, or `auto`. `auto` is a single device for one run, because small batches are not faster
        on several and rounding would depend on their number; for several runs it is every accelerator.
      runs: how many are trained together.

    Raises:
      UserError: `wanted` is not understood, or there are not so many devices.
    """
    everything = jax.devices()
    if wanted == "auto":
        count = 1 if runs == 1 or on_cpu() else len(everything)
    elif wanted == "all":
        count = len(everything)
    elif wanted.isdecimal() and int(wanted) > 0:
        count = int(wanted)
    else:
        raise UserError(f"--devices={wanted!r} is not understood; expected all, auto or a number from 1 on")
    if count > len(everything):
        hint = ""
        if on_cpu():
            hint = f"; to simulate them: XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        raise UserError(
            f"--devices={count}: there {'is' if len(everything) == 1 else 'are'} {len(everything)} "
            f"({everything[0].device_kind}){hint}"
        )
    count = min(count, runs) if runs > 1 else count
    return ONE if count == 1 else Devices(Mesh(np.array(everything[:count]), (AXIS,)))
