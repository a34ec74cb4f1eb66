"""Devices and processes: which devices a run uses, and how its arrays lie on them.

One run on several devices is data-parallel: parameters, optimizer state and data set are on every device, each batch
is spread over them, and gradients and sums are added up (`jax.shard_map` over the `data` axis of a mesh). The program
of a device is the single-device one with a sum in it, so the convolution's layouts stay as they are; left to
partition the whole program by itself, XLA would have to see the batch through every reshape of them.

Several runs at once (`--seed_mode=vmap`) need no sum: the runs themselves are spread over the devices.

**Several processes**, one a host, train one run in step: each holds all of the data and of the state, and its devices
take their part of every batch. What only one may decide (where a run stands, when to look up, when to stop) the first
process decides for all. It alone reads and writes the store: the state is the same everywhere, so a checkpoint is the
one that a single process makes, and a run goes on with any number of processes, which need no file system in common.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convjax.errors import UnavailableError, UserError

T = TypeVar("T")

AXIS = "data"
"""The mesh axis that batches, or runs, are spread over."""

_HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is lost (a dead one is noticed at once, by its closed sockets)."""

_JOIN_SECONDS = 300

EVERYWHERE = PartitionSpec()
SPREAD = PartitionSpec(AXIS)


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a program runs on.

    Attributes:
      mesh: of one axis, `data`; None for JAX's default device alone.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """Devices, those of other processes included."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def processes(self) -> int:
        """Processes that these devices belong to."""
        return 1 if self.mesh is None else len({device.process_index for device in self.mesh.devices.flat})

    def describe(self) -> dict[str, int]:
        """For config.json."""
        return {"devices_used": self.count, "processes": self.processes}

    def sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        """How an array that is cut as `spec` says lies on these devices."""
        return None if self.mesh is None else NamedSharding(self.mesh, spec)

    def struct(self, like: Any, spec: PartitionSpec) -> Any:
        """Shapes and types of `like`'s leaves, lying as `put` would lay them."""
        sharding = self.sharding(spec)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)

    def put(self, tree: Any, spec: PartitionSpec) -> Any:
        """`tree` on these devices. Every process has all of it and keeps its part."""
        sharding = self.sharding(spec)
        if self.processes == 1:
            return jax.device_put(tree, sharding)

        def distribute(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
                return leaf
            if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(distribute(jax.random.key_data(leaf)))
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(distribute, tree)

    def local(self, tree: Any) -> Any:
        """`tree` on one device of this process. All processes must call it."""
        if self.mesh is None:
            return tree
        if self.processes == 1:
            return jax.device_put(tree, self.mesh.devices.flat[0])

        def gather(leaf: jax.Array) -> Any:
            if leaf.is_fully_replicated:
                return leaf.addressable_data(0)
            return multihost_utils.process_allgather(leaf, tiled=True)

        return jax.tree.map(gather, tree)


ONE = Devices()


def choose(wanted: str = "auto", *, runs: int = 1) -> Devices:
    """The devices that `--devices` asks for.

    Args:
      wanted: `all`, a number, or `auto`: for one run a single device, because small batches are not faster on
        several and the sums of gradients would be rounded otherwise; for several runs at once, which share nothing,
        every accelerator.
      runs: how many are trained at once.

    Raises:
      UserError: `wanted` is not understood, or there are not so many devices.
    """
    everything = jax.devices()
    processes = jax.process_count()
    if wanted == "auto":
        alone = processes == 1 and (runs == 1 or jax.default_backend() == "cpu")
        count = 1 if alone else len(everything)
    elif wanted == "all":
        count = len(everything)
    elif wanted.isdecimal() and int(wanted) > 0:
        count = int(wanted)
    else:
        raise UserError(f"--devices={wanted!r} is not understood; expected all, auto or a number from 1 on")
    if count > len(everything):
        hint = ""
        if jax.default_backend() == "cpu":
            hint = f"; to simulate them: XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        raise UserError(
            f"--devices={count}: there {'is' if len(everything) == 1 else 'are'} {len(everything)} "
            f"({everything[0].device_kind}){hint}"
        )
    if count % processes:
        raise UserError(f"--devices={count} cannot be shared among {processes} processes; give a multiple")
    count = min(count, runs) if runs > 1 else count
    if count == 1:
        return ONE
    chosen = []
    for process in range(processes):
        chosen += [device for device in everything if device.process_index == process][: count // processes]
    if len(chosen) < count:
        raise UserError(f"--devices={count}: not every process has {count // processes} devices; give a smaller number")
    return Devices(Mesh(np.array(chosen), (AXIS,)))


class LostProcess(UnavailableError):
    """A process of a run of several is gone."""


def join(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> int:
    """Makes this process one of several that train a run together; returns how many they are.

    Call it before JAX's devices are first looked at.

    Args:
      coordinator: `HOST:PORT` of the first process; `auto` where the cluster tells (Slurm, Open MPI, Kubernetes, TPU
        pods), which then also tells the other two.
      num_processes, process_id: how many there are, and which this is, from 0.

    Raises:
      UserError: something is missing or impossible.
      UnavailableError: the others did not come, or the cluster tells nothing.
    """
    if coordinator == "auto":
        if num_processes is not None or process_id is not None:
            raise UserError("--coordinator=auto asks the cluster; leave --num_processes and --process_id out")
        arguments: dict[str, Any] = {}
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator={coordinator!r}: expected HOST:PORT of the first process, or auto")
        if num_processes is None or process_id is None:
            raise UserError("--coordinator=HOST:PORT needs --num_processes and --process_id (from 0)")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id={process_id} is out of range; expected 0 to {num_processes - 1}")
        arguments = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        what = "the cluster's variables were not found" if coordinator == "auto" else f"no start at {coordinator}"
        raise UnavailableError(f"--coordinator={coordinator}: {what} ({_first_line(error)})") from None
    return jax.process_count()


def leads() -> bool:
    """Whether this process is the one that reads and writes the store."""
    return jax.process_index() == 0


def share(make: Callable[[], T]) -> T:
    """The first process's `make()`, a JSON value, in every process; so is a known error of it raised in every process.

    Raises:
      UserError, UnavailableError: `make` did.
      LostProcess: a process is gone.
    """
    if jax.process_count() == 1:
        return make()
    content, failure = {}, None
    if leads():
        try:
            content = {"value": make()}
        except Exception as error:
            failure = error
            content = {"error": str(error), "kind": "user" if isinstance(error, UserError) else "other"}
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    length = int(share_arrays(np.int32(len(text))))
    text = share_arrays(text if leads() else np.zeros(length, np.uint8))
    if failure is not None:
        raise failure
    content = json.loads(text.tobytes())
    if "error" in content:
        raise (UserError if content["kind"] == "user" else UnavailableError)(content["error"])
    return content["value"]


def share_arrays(tree: T) -> T:
    """The first process's arrays in every process; the others give arrays of the same shapes."""
    if jax.process_count() == 1:
        return tree
    return together(lambda: multihost_utils.broadcast_one_to_all(tree))


def require_same_data(fingerprint: str) -> None:
    """Called in every process.

    Raises:
      UserError: this process has other data than the first.
    """
    if (first := share(lambda: fingerprint)) != fingerprint:
        raise UserError(
            f"process {jax.process_index()} has other data ({fingerprint}) than process 0 ({first}); give all "
            "processes the same --data_dir"
        )


def agree(chunk: int, stop: bool) -> tuple[int, bool]:
    """The first process's `chunk`, and whether any process has been asked to stop."""
    if jax.process_count() == 1:
        return chunk, stop
    votes = together(lambda: multihost_utils.process_allgather(np.array([chunk, stop], np.int32)))
    return int(votes[0, 0]), bool(votes[:, 1].any())


def together(work: Callable[[], T]) -> T:
    """`work()`, which needs all processes.

    Raises:
      LostProcess: one of them is gone.
    """
    try:
        return work()
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not _is_lost(error):
            raise
        raise LostProcess(
            f"process {jax.process_index()} of {jax.process_count()} has lost another, which ended or cannot be "
            f"reached ({_first_line(error)}); start all of them again: they go on from the newest checkpoint"
        ) from None


def _is_lost(error: Exception) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("gloo", "connection", "nccl", "unavailable", "heartbeat", "deadline", "peer"))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
