"""fit: the training loop, and evaluate. Pure but for the callbacks, which the caller fills with its side effects."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from convjax.config import RunConfig
from convjax.data import Dataset, Split
from convjax.training.divergence import Divergence, diagnose
from convjax.training.feed import CHUNK_BYTES, Resident, Streamed, chunk_steps, image_bytes, prefetched
from convjax.training.metrics import roc_auc
from convjax.training.steps import (
    EVAL_CHUNK,
    Keys,
    Sums,
    Task,
    TrainState,
    create_train_state,
    epoch_order,
    learning_rate_at,
    make_keys,
    predict,
    steps_per_epoch,
    train_epoch,
    zero_sums,
)

_FIRST_CHUNK = 4
"""Steps before the first look at the device, when their speed is not known: an interrupt waits for them."""

_PROGRESS_SECONDS = 0.4
"""Time between two looks at the device: each costs a round trip, and an interrupt waits for one."""


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl. `train_*` are the means over the epoch's batches, each before its update.

    The area under the ROC curve is that of two classes, None where there are more.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    validation_auc: float | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training is: `step` of `steps` of the epoch (from 1), and the epoch's means so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split, and the logits `[examples, classes]` they come from.

    `auc` is the area under the ROC curve for the second of two classes; None where there are more.
    """

    loss: float
    accuracy: float
    auc: float | None
    logits: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """The most likely class of each example."""
        return np.argmax(self.logits, axis=-1)


class Interrupted(Exception):
    """`should_stop` said so. `states` is where training stood, one a run."""

    def __init__(self, states: list[TrainState]):
        super().__init__("interrupted")
        self.states = states


@dataclasses.dataclass
class Clock:
    """Wall seconds by what they were spent on."""

    data: float = 0.0
    compile: float = 0.0
    train: float = 0.0
    eval: float = 0.0

    def timed(self, part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`, waited for, its time added to `part`."""
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        setattr(self, part, getattr(self, part) + time.perf_counter() - start)
        return result


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled `train_epoch` of a task on data of one size.

    Attributes:
      train: `train_epoch` without its `task`; its state is donated. With `replicas`, states, orders and keys have a
        leading axis: that many seeds are trained at once.
      replicas: 0 for a single run without that axis.
      chunk_steps: steps in one call's data where it is streamed; 0 where it is all there.
    """

    train: Callable[..., TrainState]
    task: Task
    examples: int
    replicas: int
    chunk_steps: int = 0

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def compile(task: Task, examples: int, replicas: int = 0, chunk_steps: int = 0) -> "Programs":
        """Compiles, or takes what was compiled before."""
        steps = chunk_steps or steps_per_epoch(examples, task.batch_size)
        rows = chunk_steps * task.batch_size or examples
        data = (
            jax.ShapeDtypeStruct((rows, *task.image_shape), jnp.uint8),
            jax.ShapeDtypeStruct((rows,), jnp.int32),
        )
        single = (
            jax.eval_shape(lambda: create_train_state(make_keys(0).init, 0.0, task=task)),
            jax.ShapeDtypeStruct((steps, task.batch_size), jnp.int32),
            jax.eval_shape(lambda: make_keys(0)),
        )
        function = functools.partial(train_epoch, task=task)
        if replicas:
            own = 0 if chunk_steps else None
            function = jax.vmap(function, in_axes=(0, own, own, 0, None, None, 0))
            replicate = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct((replicas, *x.shape), x.dtype))
            single, data = replicate(single), replicate(data) if chunk_steps else data
        state, order, keys = single
        bound = jax.ShapeDtypeStruct((), jnp.int32)
        lowered = jax.jit(function, donate_argnums=0).lower(state, *data, order, bound, bound, keys)
        return Programs(lowered.compile(), task, examples, replicas, chunk_steps)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(self.examples, self.task.batch_size)

    def order(self, keys: Sequence[Keys], epoch: int) -> jax.Array:
        """The shuffled order of an epoch, `[steps, batch]`, for each of the keys."""
        return self.stack(
            [epoch_order(key.shuffle, epoch, examples=self.examples, batch_size=self.task.batch_size) for key in keys]
        )

    def stack(self, trees: Sequence[Any]) -> Any:
        """The trees of several runs as one, with a leading axis if this program has one."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if self.replicas else trees[0]

    def unstack(self, tree: Any) -> list[Any]:
        """The inverse of `stack`."""
        if not self.replicas:
            return [tree]
        return [jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(self.replicas)]


def initial_state(config: RunConfig, task: Task) -> TrainState:
    """The state a run starts from."""
    return create_train_state(make_keys(config.seed).init, config.learning_rate, task=task)


def fit(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    states: Sequence[TrainState] | None = None,
    *,
    streaming: bool = False,
    clock: Clock | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[int, EpochMetrics, TrainState], None] = lambda index, metrics, state: None,
    on_pause: Callable[[int, TrainState], None] = lambda index, state: None,
    on_divergence: Callable[[int, Divergence], None] = lambda index, divergence: None,
    should_pause: Callable[[], bool] = lambda: False,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TrainState]:
    """Trains one run, or several that differ only in seed and learning rate as one vectorised program.

    Args:
      configs: the runs.
      dataset: their data, already cut to `train_size` and `validation_size`.
      states: where checkpoints left the runs, all at one step; by default the runs start. They are consumed.
      streaming: bring the training images to the device in chunks, not all at once; the numbers are the same.
      clock: gets the seconds spent.
      on_progress: called a few times a second, with the means over the runs.
      on_epoch: called after each epoch for each run, with its index and the state that starts its next epoch.
      on_pause: called within an epoch, when `should_pause()`, for each run with its index and its state, to
        save before it returns.
      on_divergence: called for a run whose loss became NaN or infinite, with its index and what can be said of it.
      should_pause: asked after each progress.
      should_stop: asked after each progress.

    Returns the state of each run when it stopped; what it learned is `result_params`. A run whose loss became NaN or
    infinite stopped there, see `diverged`; one that no longer improved on validation images, see `stopped_early`.

    Raises:
      Interrupted: `should_stop()` was true.
    """
    clock = clock or Clock()
    config = configs[0]
    assert dataset.validation is not None or not config.early_stopping
    task = Task.of(config, dataset.image_shape, dataset.num_classes, len(dataset.train.labels))
    if states is None:
        states = clock.timed("compile", lambda: [initial_state(config, task) for config in configs])
    steps = steps_per_epoch(len(dataset.train.labels), config.batch_size)
    if all(is_over(state, config, steps) for state in states):
        return list(states)
    replicas = len(configs) if len(configs) > 1 else 0
    chunk = chunk_steps(dataset.train, config.batch_size, replicas) if streaming else 0
    programs = clock.timed("compile", Programs.compile, task, len(dataset.train.labels), replicas, chunk)
    all_keys = [make_keys(config.seed) for config in configs]
    keys, state = programs.stack(all_keys), programs.stack(states)
    feeds = Streamed(dataset.train, chunk) if streaming else clock.timed("data", Resident, dataset.train)
    done = max(int(state.step) for state in states)
    # The states of runs that stopped early; as long as others go on, their copies are trained with them for nothing.
    stopped = {index: state for index, state in enumerate(states) if stopped_early(state, config, steps)}
    alive = [index for index, state in enumerate(states) if not diverged(state) and index not in stopped]
    stride = _FIRST_CHUNK

    def unstacked(state: Any) -> list[TrainState]:
        return [stopped.get(index, member) for index, member in enumerate(programs.unstack(state))]

    for epoch in range(done // programs.steps, config.epochs):
        if not alive:
            break
        step = done % programs.steps if epoch == done // programs.steps else 0
        started = time.perf_counter()
        order = clock.timed("train", programs.order, all_keys, epoch)
        coming, feed = feeds.epoch(order, step), None
        while step < programs.steps and alive:
            if feed is None or step == feed.stop:
                feed = clock.timed("data", next, coming)
            stop = min(step + stride, feed.stop)
            bounds = step - feed.first, stop - feed.first
            # The state is consumed; should the loss diverge, this is where the search for the step begins.
            before, living = jax.tree.map(jnp.copy, state), alive
            chunk_started = time.perf_counter()
            state = clock.timed("train", programs.train, state, *feed.data, *bounds, keys)
            rate = (stop - step) / max(time.perf_counter() - chunk_started, 1e-6)
            step, stride = stop, max(1, int(rate * _PROGRESS_SECONDS))
            losses, accuracies = _means(jax.device_get(state.sums))
            alive = [index for index in alive if math.isfinite(losses[index])]
            for index in living:
                if index not in alive:
                    failed = int(programs.unstack(state.step)[index]) - 1 - epoch * programs.steps - feed.first
                    # The same program again, up to the step that failed.
                    at = programs.train(jax.tree.map(jnp.copy, before), *feed.data, bounds[0], failed, keys)
                    images, labels, rows = feed.of(index)
                    at = programs.unstack(at)[index]
                    on_divergence(index, diagnose(at, images, labels, rows[failed], all_keys[index], task=task))
            if alive:
                means = float(np.mean(losses[alive])), float(np.mean(accuracies[alive]))
                on_progress(Progress(epoch + 1, config.epochs, step, programs.steps, *means))
            # After an epoch's last step its metrics come first: they must not be lost.
            if step < programs.steps and should_stop():
                raise Interrupted(unstacked(state))
            if step < programs.steps and should_pause():
                paused = programs.unstack(state)
                for index in alive:
                    on_pause(index, paused[index])
        ended = programs.unstack(state)
        for index in alive:
            validation = None
            if dataset.validation is not None:
                validation = evaluate(task, ended[index].params, dataset.validation, clock=clock)
            last_step = int(ended[index].step)
            metrics = EpochMetrics(
                epoch=epoch + 1,
                step=last_step,
                train_loss=float(losses[index]),
                train_accuracy=float(accuracies[index]),
                validation_loss=validation.loss if validation else None,
                validation_accuracy=validation.accuracy if validation else None,
                learning_rate=float(learning_rate_at(task, ended[index].learning_rate, jnp.asarray(last_step - 1))),
                seconds=(time.perf_counter() - started) / len(configs),
                validation_auc=validation.auc if validation else None,
            )
            ended[index] = ended[index].replace(sums=zero_sums())
            if validation is not None:
                ended[index] = ended[index].after_validation(validation.loss)
            on_epoch(index, metrics, ended[index])
            if stopped_early(ended[index], config, steps):
                stopped[index] = ended[index]
        state = programs.stack(ended)
        alive = [index for index in alive if index not in stopped]
        if should_stop():
            raise Interrupted(unstacked(state))
    return unstacked(state)


def is_over(state: TrainState, config: RunConfig, steps: int) -> bool:
    """Whether training has ended, for whatever reason; an epoch is `steps` steps."""
    return int(state.step) >= config.epochs * steps or diverged(state) or stopped_early(state, config, steps)


def stopped_early(state: TrainState, config: RunConfig, steps: int) -> bool:
    """Whether `early_stopping` epochs, of `steps` steps each, have passed since the lowest validation loss."""
    return state.best is not None and int(state.step) - int(state.best.step) >= config.early_stopping * steps


def diverged(state: TrainState) -> bool:
    """Whether the loss of the state's last step was NaN or infinite."""
    return not math.isfinite(float(state.sums.loss))


def _means(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy of each run, `[runs]`."""
    loss, correct, examples = (np.atleast_1d(value).astype(np.float64) for value in sums)
    return loss / examples, correct / examples


def evaluate(task: Task, params: Any, split: Split, *, clock: Clock | None = None) -> Evaluation:
    """Evaluates `params` on every example of `split`."""
    logits = (clock or Clock()).timed("eval", predict_all, task, params, split)
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits of a network that diverged: its loss is NaN
        shifted = wide - wide.max(axis=-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, split.labels[:, None].astype(np.int64), axis=-1)
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == split.labels))
    auc = roc_auc(wide[:, 1] - wide[:, 0], split.labels == 1) if logits.shape[-1] == 2 else None
    return Evaluation(float(losses.mean()), accuracy, auc, logits)


def predict_all(task: Task, params: Any, split: Split) -> Float[np.ndarray, "examples classes"]:
    """Logits of every image of a split of any size: the device gets a block of images at a time."""
    count = len(split.labels)
    block = min(count, max(1, CHUNK_BYTES // (image_bytes(split) * EVAL_CHUNK)) * EVAL_CHUNK)

    def make(index: int) -> jax.Array:
        part = np.asarray(split.images[index * block : (index + 1) * block])
        # The last block is filled up: one size, one program.
        return jax.device_put(np.pad(part, ((0, block - len(part)), (0, 0), (0, 0), (0, 0))))

    parts = [np.asarray(predict(params, images, task=task)) for images in prefetched(make, -(-count // block))]
    return np.concatenate(parts)[:count]
