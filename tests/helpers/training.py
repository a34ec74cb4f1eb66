"""`fit` for tests: compiles the program of some configurations and trains them together."""

from collections.abc import Callable, Sequence
from typing import Any

from convjax.config import RunConfig
from convjax.data import Dataset
from convjax.training import feed, loop
from convjax.training.devices import ONE, Devices
from convjax.training.hooks import Hooks
from convjax.training.program import Program
from convjax.training.steps import Task, TrainState, initial_state


def hooks_of(**functions: Callable[..., Any]) -> Hooks:
    """Hooks with some methods replaced."""
    hooks = Hooks()
    for name, function in functions.items():
        assert hasattr(hooks, name)
        setattr(hooks, name, function)
    return hooks


def task_of(config: RunConfig, dataset: Dataset) -> Task:
    """The task of a configuration on a data set."""
    return Task.of(config, dataset.image_shape, dataset.num_classes, len(dataset.train.labels))


def fit(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    states: Sequence[TrainState] | None = None,
    *,
    devices: Devices = ONE,
    streaming: bool = False,
    **hooks: Callable[..., Any],
) -> list[TrainState]:
    """`loop.fit` of configurations that differ in seed and learning rate only."""
    task = task_of(configs[0], dataset)
    replicas = len(configs) if len(configs) > 1 else 0
    chunk = feed.chunk_steps(dataset.train, task.config.batch_size, replicas) if streaming else 0
    program = Program.compile(task, replicas=replicas, chunk_steps=chunk, devices=devices)
    states = states or [initial_state(config, task) for config in configs]
    return loop.fit(program, states, [config.seed for config in configs], dataset, hooks_of(**hooks))
