"""fit: the training loop. Its side effects are its hooks, which the caller fills, and its clock.

`sweeps.run` compiles a `Program`, restores or makes the states, and calls `fit` with hooks that write metrics and
checkpoints. The steps themselves are in `training.steps`.

Several replicas, runs that differ only in seed and learning rate, train together from the same step on. The state of a
replica is taken when it ends. One that stopped early then computes on, ignored; one that diverged is frozen.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from convjax.data import Dataset
from convjax.training.divergence import diagnose
from convjax.training.evaluation import evaluate
from convjax.training.feed import Feed, Resident, Streamed
from convjax.training.hooks import EpochMetrics, Hooks, Interrupted, Progress
from convjax.training.program import Program
from convjax.training.steps import Task, TrainState, make_keys, zero_sums

T = TypeVar("T")

_FIRST_LOOK = 4
"""Steps before the first look at the device, when their speed is unknown: an interrupt waits for them."""

_LOOK_SECONDS = 0.4
"""Time between two looks at the device: each costs a round trip, and an interrupt waits for one."""


@dataclasses.dataclass
class Clock:
    """Wall-clock seconds by what they were spent on."""

    data: float = 0.0
    compile: float = 0.0
    train: float = 0.0
    eval: float = 0.0

    def timed(self, part: str, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """What `function` returns for the arguments, waited for; its time is added to `part`."""
        start = time.perf_counter()
        result: T = jax.block_until_ready(function(*arguments, **keywords))
        setattr(self, part, getattr(self, part) + time.perf_counter() - start)
        return result

    def each(self, part: str, items: Iterator[T]) -> Iterator[T]:
        """The items; the time that each takes to come is added to `part`."""
        end = object()
        while (item := self.timed(part, next, items, end)) is not end:
            yield item


def fit(
    program: Program,
    states: Sequence[TrainState],
    seeds: Sequence[int],
    dataset: Dataset,
    hooks: Hooks | None = None,
    clock: Clock | None = None,
) -> list[TrainState]:
    """Trains one run, or several replicas together.

    Args:
      program: of their task, see `Program.compile`.
      states: where each starts: fresh, or from checkpoints of the same step. They are consumed.
      seeds: of each.
      dataset: its training images, and validation images if there are any.
      hooks: the caller's side effects.
      clock: receives the seconds spent.

    Returns the state in which each ended; its trained parameters are `result_params`. A replica whose loss became NaN
    or infinite ended there, see `diverged`; one that stopped improving on validation images, see `stopped_early`.

    Raises:
      Interrupted: `hooks.should_stop()` was True.
    """
    task, hooks, clock = program.task, hooks or Hooks(), clock or Clock()
    if task.config.early_stopping and dataset.validation is None:
        raise ValueError("early stopping needs validation images")
    group = _Group(program, states, seeds)
    if program.chunk_steps:
        feeds: Streamed | Resident = Streamed(dataset.train, program.chunk_steps, program.put)
    else:
        feeds = clock.timed("data", Resident, dataset.train, program.put)
    for epoch in range(group.step // task.steps_per_epoch, task.config.epochs):
        if not group.active:
            break
        started = time.perf_counter()
        _train_one_epoch(group, feeds, epoch, hooks, clock)
        _finish_epoch(group, dataset, epoch, started, hooks, clock)
        if hooks.should_stop():
            raise Interrupted(group.states())
    return group.states()


class _Group:
    """The replicas of one `fit`: their stacked state, which of them still train, and the states of those that ended."""

    def __init__(self, program: Program, states: Sequence[TrainState], seeds: Sequence[int]):
        self.program, self.task, self.size = program, program.task, len(seeds)
        self.keys = [make_keys(seed) for seed in seeds]
        self.stride = _FIRST_LOOK
        self._ended = {index: state for index, state in enumerate(states) if is_over(state, self.task)}
        steps = {int(states[index].step) for index in self.active}
        if len(steps) > 1:
            raise ValueError(f"replicas must start from the same step, not from {sorted(steps)}")
        self.step = steps.pop() if steps else 0
        if self.active:
            self._stacked_keys, self._state = program.stack(self.keys), program.stack(states)

    @property
    def active(self) -> list[int]:
        """The replicas that have not ended."""
        return [index for index in range(self.size) if index not in self._ended]

    def states(self) -> list[TrainState]:
        """Where each replica is, or ended."""
        if len(self._ended) == self.size:
            return [self._ended[index] for index in range(self.size)]
        current = self.program.unstack(self._state, self.size)
        return [self._ended.get(index, state) for index, state in enumerate(current)]

    def restart(self, states: Sequence[TrainState]) -> None:
        """Goes on from these states, one per replica."""
        self._state = self.program.stack(states)

    def end(self, index: int, state: TrainState) -> None:
        """Takes a replica's last state."""
        self._ended[index] = state

    def advance(self, feed: Feed, start: int, stop: int, hooks: Hooks) -> None:
        """Trains the steps `start` to `stop` of the epoch. Replicas whose loss is no longer finite end."""
        # Training consumes the state; if the loss diverges, the search for the failed step begins from this copy.
        before = jax.tree.map(jnp.copy, self._state)
        self._state = self._train(self._state, feed, start, stop)
        self.step += stop - start
        finite = np.isfinite(np.atleast_1d(jax.device_get(self._state.sums.loss)))
        for index in [index for index in self.active if not finite[index]]:
            state = self.program.unstack(self._state, self.size)[index]
            self.end(index, state)
            failed = int(state.step) - 1 - (self.step - stop)
            at = self._train(jax.tree.map(jnp.copy, before), feed, start, failed)
            at = self.program.unstack(at, self.size)[index]
            images, labels, order = self.program.devices.local(feed.of(index))
            row = order[failed - feed.first]
            hooks.on_divergence(index, diagnose(at, images, labels, row, self.keys[index], task=self.task))

    def _train(self, state: TrainState, feed: Feed, start: int, stop: int) -> TrainState:
        first, last = (self.program.devices.put(np.int32(step - feed.first)) for step in (start, stop))
        trained: TrainState = jax.block_until_ready(
            self.program.train(state, feed.data, first, last, self._stacked_keys)
        )
        return trained

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and accuracy of each replica over the epoch so far, `[replicas]`; NaN before its first step."""
        sums = jax.device_get(self._state.sums)
        loss, correct, examples = (np.atleast_1d(value).astype(np.float64)[: self.size] for value in sums)
        seen = np.where(examples > 0, examples, np.nan)
        return loss / seen, correct / seen


def _train_one_epoch(group: _Group, feeds: Streamed | Resident, epoch: int, hooks: Hooks, clock: Clock) -> None:
    """Trains the rest of an epoch, looking at the device a few times a second."""
    task, steps = group.task, group.task.steps_per_epoch
    step = group.step - epoch * steps
    order = clock.timed("train", group.program.order, group.keys, epoch)
    for feed in clock.each("data", feeds.epoch(order, step)):
        while step < feed.stop and group.active:
            stop = min(step + group.stride, feed.stop)
            started = time.perf_counter()
            clock.timed("train", group.advance, feed, step, stop, hooks)
            rate = (stop - step) / max(time.perf_counter() - started, 1e-6)
            step, group.stride = stop, max(1, int(rate * _LOOK_SECONDS))
            if group.active:
                loss, accuracy = (float(np.mean(values[group.active])) for values in group.means())
                hooks.on_progress(Progress(epoch + 1, task.config.epochs, step, steps, loss, accuracy))
            if step < steps and hooks.should_stop():
                raise Interrupted(group.states())
            if step < steps and hooks.should_pause():
                states = group.states()
                for index in group.active:
                    hooks.on_pause(index, states[index])
        if not group.active:
            return


def _finish_epoch(group: _Group, dataset: Dataset, epoch: int, started: float, hooks: Hooks, clock: Clock) -> None:
    """Validates each replica, reports its metrics, and makes the states that the next epoch starts from."""
    task, states = group.task, group.states()
    if not group.active:
        return
    losses, accuracies = group.means()
    seconds = (time.perf_counter() - started) / group.size
    for index in group.active:
        state, scores = states[index], None
        if dataset.validation is not None:
            devices = group.program.devices
            scores = clock.timed("eval", evaluate, task, state.weights, dataset.validation, devices=devices)
        metrics = EpochMetrics(
            epoch=epoch + 1,
            step=int(state.step),
            train_loss=float(losses[index]),
            train_accuracy=float(accuracies[index]),
            validation_loss=scores.loss if scores else None,
            validation_accuracy=scores.accuracy if scores else None,
            learning_rate=float(task.learning_rate(state.learning_rate, state.step - 1)),
            seconds=seconds,
            validation_auc=scores.auc if scores else None,
        )
        state = state.replace(sums=zero_sums())
        states[index] = state = state if scores is None else state.after_validation(scores.loss)
        hooks.on_epoch(index, metrics, state)
        if stopped_early(state, task):
            group.end(index, state)
    group.restart(states)


def is_over(state: TrainState, task: Task) -> bool:
    """Whether training has ended, for whatever reason."""
    return int(state.step) >= task.config.epochs * task.steps_per_epoch or diverged(state) or stopped_early(state, task)


def stopped_early(state: TrainState, task: Task) -> bool:
    """Whether `early_stopping` epochs have passed since the lowest validation loss."""
    patience = task.config.early_stopping * task.steps_per_epoch
    return state.best is not None and int(state.step) - int(state.best.step) >= patience


def diverged(state: TrainState) -> bool:
    """Whether the loss of the state's last step was NaN or infinite."""
    return not math.isfinite(float(state.sums.loss))
