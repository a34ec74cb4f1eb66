"""Program: the compiled epoch of a task, for one run or for several replicas, on one device or several.

`steps.train_epoch` is one run's epoch. Here it is compiled ahead of time. Replicas, runs that differ only in seed and
learning rate, are a leading axis of states, orders and keys (`jax.vmap`). `loop.fit` drives the result.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from convjax.nn.models import require_plan
from convjax.training.devices import COLUMNS, EVERYWHERE, ONE, SPREAD, Devices
from convjax.training.steps import (
    EpochData,
    Keys,
    Task,
    TrainState,
    epoch_order,
    make_keys,
    state_shape,
    train_epoch,
)


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled `train_epoch` of a task.

    Attributes:
      train: `train_epoch` without its `task`; it consumes its state.
      task: what it trains.
      replicas: 0 for a single run. Else states, orders and keys have a leading axis of this length, a multiple of the
        number of devices.
      chunk_steps: steps in one call's data where it is streamed; 0 where all of it is on the device.
      devices: that a batch, or the replicas, are split among.
    """

    train: Callable[[TrainState, EpochData, Any, Any, Keys], TrainState]
    task: Task
    replicas: int
    chunk_steps: int
    devices: Devices

    @staticmethod
    def compile(task: Task, *, replicas: int = 0, chunk_steps: int = 0, devices: Devices = ONE) -> "Program":
        """Compiles the epoch, or reuses what this process compiled.

        Raises:
          UserError: the module does not compute what the task's plan says.
        """
        replicas = -(-replicas // devices.count) * devices.count
        config = task.config
        if config.schedule == "constant":  # then runs of any length are the same program
            config = config.replace(epochs=1, early_stopping=min(1, config.early_stopping))
        train = _compiled(dataclasses.replace(task, config=config), replicas, chunk_steps, devices)
        return Program(train, task, replicas, chunk_steps, devices)

    def order(self, keys: Sequence[Keys], epoch: int) -> jax.Array:
        """The shuffled order of an epoch, `[steps, batch]`, for each of the keys."""
        task, extra = self.task, 0 if self.replicas else -self.task.config.batch_size % self.devices.count
        orders = []
        for key in keys:
            order = epoch_order(key.shuffle, epoch, examples=task.examples, batch_size=task.config.batch_size)
            orders.append(jnp.pad(order, ((0, 0), (0, extra)), constant_values=-1) if extra else order)
        return self._stacked(orders)

    def put(self, data: Sequence[Any]) -> tuple[jax.Array, ...]:
        """Images and labels, or these and an order, where the program wants them."""
        specs = _specs(self.replicas, self.chunk_steps)[1]
        return tuple(self.devices.put(array, spec) for array, spec in zip(data, specs, strict=False))

    def stack(self, trees: Sequence[Any]) -> Any:
        """The replicas' trees as one, with a leading axis if the program has one, on its devices."""
        return self.devices.put(self._stacked(trees), SPREAD if self.replicas else EVERYWHERE)

    def _stacked(self, trees: Sequence[Any]) -> Any:
        if not self.replicas:
            return trees[0]
        trees = [*trees, *[trees[-1]] * (self.replicas - len(trees))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def unstack(self, tree: Any, runs: int) -> list[Any]:
        """The inverse of `stack`: the trees of the first `runs` replicas, on one device."""
        tree = self.devices.local(tree)
        if not self.replicas:
            return [tree]
        return [jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(runs)]


@functools.lru_cache(maxsize=8)
def _compiled(task: Task, replicas: int, chunk_steps: int, devices: Devices) -> Callable[..., TrainState]:
    """`train_epoch` of a task, compiled for the shapes and places of its arguments."""
    batch = task.config.batch_size
    width = batch if replicas else batch + -batch % devices.count
    rows = chunk_steps * width or task.examples
    state = state_shape(task)
    require_plan(task.layers, state.weights)
    images = jax.ShapeDtypeStruct((rows, *task.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
    order = jax.ShapeDtypeStruct((chunk_steps or task.steps_per_epoch, width), jnp.int32)
    data = EpochData._make((images, labels, order))
    bound = jax.ShapeDtypeStruct((), jnp.int32)
    arguments: tuple[Any, ...] = (state, data, bound, bound, jax.eval_shape(lambda: make_keys(0)))
    train: Callable[..., Any] = functools.partial(train_epoch, task=task)
    specs = _specs(replicas, chunk_steps)
    if replicas:
        axes = jax.tree.map(lambda spec: 0 if spec == SPREAD else None, specs)
        train = jax.vmap(train, in_axes=axes)
        arguments = tuple(
            _replicated(argument, spec, replicas) for argument, spec in zip(arguments, specs, strict=True)
        )
        if devices.mesh is not None:
            train = jax.shard_map(train, mesh=devices.mesh, in_specs=specs, out_specs=specs[0], check_vma=False)
    arguments = tuple(_placed(*pair, devices) for pair in zip(arguments, specs, strict=True))
    jitted = jax.jit(train, donate_argnums=0, out_shardings=devices.sharding(specs[0]))
    return jitted.lower(*arguments).compile()


def _specs(replicas: int, chunk_steps: int) -> tuple[Any, ...]:
    """How `train_epoch`'s arguments are split: by replica, or the order by its columns, the images of a batch."""
    if not replicas:
        return EVERYWHERE, EpochData._make((EVERYWHERE, EVERYWHERE, COLUMNS)), EVERYWHERE, EVERYWHERE, EVERYWHERE
    # Resident examples are shared; a chunk of a stream is gathered for each replica.
    examples = SPREAD if chunk_steps else EVERYWHERE
    return SPREAD, EpochData._make((examples, examples, SPREAD)), EVERYWHERE, EVERYWHERE, SPREAD


def _replicated(argument: Any, spec: Any, replicas: int) -> Any:
    """Shapes with the leading axis of the replicas where `spec` splits along it."""
    if isinstance(argument, EpochData):
        return EpochData._make(_replicated(*pair, replicas) for pair in zip(argument, spec, strict=True))
    if spec != SPREAD:
        return argument
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), argument)


def _placed(argument: Any, spec: Any, devices: Devices) -> Any:
    """Shapes with their places on the devices."""
    if isinstance(argument, EpochData):
        return EpochData._make(devices.struct(*pair) for pair in zip(argument, spec, strict=True))
    return devices.struct(argument, spec)
