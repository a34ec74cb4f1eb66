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
from jax.sharding import PartitionSpec
from jaxtyping import Float

from convjax.config import RunConfig
from convjax.data import Dataset, Split
from convjax.nn.shard import Shard
from convjax.training.devices import AXIS, EVERYWHERE, ONE, SPREAD, Devices, agree
from convjax.training.divergence import Divergence, diagnose
from convjax.training.feed import CHUNK_BYTES, Feed, Resident, Streamed, chunk_steps, image_bytes, prefetched
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
      train: `train_epoch` without its `task`; its state is donated. With `replicas`, states, orders, bounds, keys and
        keep rates have a leading axis: that many runs are trained at once.
      examples: images of the data set, or of those that several runs use together.
      steps: in an epoch; the longest where the runs' are of different length.
      replicas: 0 for a single run without that axis; else a multiple of the devices.
      chunk_steps: steps in one call's data where it is streamed; 0 where it is all there.
      devices: that a batch, or the replicas, are spread over.
    """

    train: Callable[..., TrainState]
    task: Task
    examples: int
    steps: int
    replicas: int
    chunk_steps: int = 0
    devices: Devices = ONE

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def compile(
        task: Task,
        examples: int,
        replicas: int = 0,
        chunk_steps: int = 0,
        *,
        longest: int = 0,
        devices: Devices = ONE,
    ) -> "Programs":
        """Compiles, or takes what was compiled before. `longest` is `steps` where an epoch is not all of `examples`."""
        steps = longest or steps_per_epoch(examples, task.batch_size)
        replicas = -(-replicas // devices.count) * devices.count
        shard = None if replicas or devices.mesh is None else Shard(AXIS, devices.count, task.batch_size)
        width = task.batch_size if shard is None else shard.size * shard.devices
        rows = chunk_steps * width or examples
        arguments: list[Any] = [
            jax.eval_shape(lambda: create_train_state(make_keys(0).init, 0.0, task=task)),
            jax.ShapeDtypeStruct((rows, *task.image_shape), jnp.uint8),
            _integers(rows),
            _integers(chunk_steps or steps, width),
            _integers(),
            _integers(),
            jax.eval_shape(lambda: make_keys(0)),
        ]
        if task.dynamic_dropout:
            arguments.append({name: jax.ShapeDtypeStruct((), jnp.float32) for name in task.keep_rates})

        function: Callable[..., Any] = functools.partial(train_epoch, task=task, shard=shard)
        specs = [EVERYWHERE] * len(arguments)
        if replicas:
            axes = [None if index in (1, 2) and not chunk_steps else 0 for index in range(len(arguments))]
            function = jax.vmap(function, in_axes=axes)
            replicate = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct((replicas, *x.shape), x.dtype))
            pairs = zip(arguments, axes, strict=True)
            arguments = [argument if axis is None else replicate(argument) for argument, axis in pairs]
            specs = [EVERYWHERE if axis is None else SPREAD for axis in axes]
        if devices.mesh is not None:
            if shard is not None:
                specs[3] = _COLUMNS
            function = jax.shard_map(
                function, mesh=devices.mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False
            )
            arguments = [devices.struct(argument, spec) for argument, spec in zip(arguments, specs, strict=True)]
        lowered = jax.jit(function, donate_argnums=0).lower(*arguments)
        return Programs(lowered.compile(), task, examples, steps, replicas, chunk_steps, devices)

    def order(self, keys: Sequence[Keys], epoch: int, parts: Sequence[tuple[int, int]] = ()) -> jax.Array:
        """The shuffled order of an epoch, `[steps, batch]`, for each of the keys.

        `parts` gives (first, count) of each run's examples among the program's, where it does not use all of them.
        """
        extra = 0 if self.replicas else -self.task.batch_size % self.devices.count
        orders = []
        for key, (first, count) in zip(keys, parts or [(0, self.examples)] * len(keys), strict=True):
            order = epoch_order(key.shuffle, epoch, examples=count, batch_size=self.task.batch_size)
            if first:
                order = jnp.where(order < 0, order, order + first)
            if extra or len(order) < self.steps:
                order = jnp.pad(order, ((0, self.steps - len(order)), (0, extra)), constant_values=-1)
            orders.append(order)
        return self._stack(orders)

    def put(self, feed: Any) -> Any:
        """Images and labels, or these and an order, where the program wants them."""
        if self.devices.mesh is None:
            return jax.device_put(feed)
        data = SPREAD if self.replicas and self.chunk_steps else EVERYWHERE
        specs = (data, data, SPREAD if self.replicas else _COLUMNS)
        return tuple(self.devices.put(array, spec) for array, spec in zip(feed, specs, strict=False))

    def bounds(self, values: Sequence[int]) -> Any:
        """Each run's `start` or `stop`."""
        if not self.replicas:
            return self.devices.put(np.int32(values[0]), EVERYWHERE)
        padded = np.zeros(self.replicas, np.int32)  # the runs that only fill up the last device do nothing
        padded[: len(values)] = values
        return self.devices.put(padded, SPREAD)

    def stack(self, trees: Sequence[Any]) -> Any:
        """The trees of several runs as one, with a leading axis if this program has one, on its devices."""
        return self.devices.put(self._stack(trees), SPREAD if self.replicas else EVERYWHERE)

    def _stack(self, trees: Sequence[Any]) -> Any:
        if not self.replicas:
            return trees[0]
        trees = [*trees, *[trees[-1]] * (self.replicas - len(trees))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def unstack(self, tree: Any, runs: int) -> list[Any]:
        """The inverse of `stack`: the trees of the first `runs`, on one device."""
        tree = self.devices.local(tree)
        if not self.replicas:
            return [tree]
        return [jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(runs)]


_COLUMNS = PartitionSpec(None, AXIS)


def _integers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def initial_state(config: RunConfig, task: Task) -> TrainState:
    """The state a run starts from."""
    return create_train_state(make_keys(config.seed).init, config.learning_rate, task=task)


def fit(
    configs: Sequence[RunConfig],
    dataset: Dataset | Sequence[Dataset],
    states: Sequence[TrainState] | None = None,
    *,
    devices: Devices = ONE,
    streaming: bool = False,
    clock: Clock | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[int, EpochMetrics, TrainState], None] = lambda index, metrics, state: None,
    on_pause: Callable[[int, TrainState], None] = lambda index, state: None,
    on_divergence: Callable[[int, Divergence], None] = lambda index, divergence: None,
    should_pause: Callable[[], bool] = lambda: False,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TrainState]:
    """Trains one run, or several as one vectorised program.

    Args:
      configs: the runs. Several may differ in what `Task.shared` leaves open (seed, learning rate, dropout rates) and
        in their training subset.
      dataset: their data, already cut to `train_size` and `validation_size`; one for all, or one a run.
      states: where checkpoints left the runs; by default they start. They are consumed.
      devices: a single run's batches, or several runs, are spread over them.
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
    datasets = [dataset] * len(configs) if isinstance(dataset, Dataset) else list(dataset)
    data, parts = _gather(datasets)
    assert not configs[0].early_stopping or all(own.validation is not None for own in datasets)
    tasks = [
        Task.of(config, own.image_shape, own.num_classes, len(own.train.labels))
        for config, own in zip(configs, datasets, strict=True)
    ]
    if any(each.shared != tasks[0].shared for each in tasks):
        raise ValueError("these runs have programs of different shape and cannot be trained at once")
    # Where all dropout rates are equal they stay constants of the program.
    task = tasks[0] if len(set(tasks)) == 1 else tasks[0].shared
    if states is None:
        states = clock.timed("compile", lambda: [initial_state(config, task) for config in configs])
    steps = [steps_per_epoch(count, task.batch_size) for _, count in parts]
    over = [is_over(*each) for each in zip(states, configs, steps, strict=True)]
    if all(over):
        return list(states)
    replicas = len(configs) if len(configs) > 1 else 0
    chunk = chunk_steps(data, task.batch_size, replicas) if streaming else 0
    compile = functools.partial(Programs.compile, longest=max(steps), devices=devices)
    programs = clock.timed("compile", compile, task, len(data.labels), replicas, chunk)
    all_keys = [make_keys(config.seed) for config in configs]
    extra = [programs.stack([each.keep_rates for each in tasks])] if task.dynamic_dropout else []
    # Each run goes on from where it is: epoch, and step within.
    places = [divmod(int(state.step), count) for state, count in zip(states, steps, strict=True)]
    alive = [index for index, done in enumerate(over) if not done]
    stride = _FIRST_CHUNK
    keys, state = programs.stack(all_keys), programs.stack(states)
    feeds = Streamed(data, chunk, programs.put) if streaming else clock.timed("data", Resident, data, programs.put)

    for epoch in range(min(at for at, _ in places), configs[0].epochs):
        if not alive:
            break
        started = time.perf_counter()
        first = [step if at == epoch else 0 for at, step in places]
        # A run that is over, or ahead of the others, has no steps in this epoch.
        last = [
            count if at <= epoch and index in alive else 0
            for index, ((at, _), count) in enumerate(zip(places, steps, strict=True))
        ]
        order = clock.timed("train", programs.order, all_keys, epoch, parts)
        step = min((start for start, stop in zip(first, last, strict=True) if stop), default=0)
        coming, feed = feeds.epoch(order, step), None
        while step < max(last) and alive:
            if feed is None or step == feed.stop:
                feed = clock.timed("data", next, coming)
            stop = min(step + stride, max(last), feed.stop)
            # Of the feed's steps, those of each run.
            begin, end = (
                [min(max(at, low), high) - feed.first for low, high in zip(first, last, strict=True)]
                for at in (step, stop)
            )
            # The state is consumed; should the loss diverge, this is where the search for the step begins.
            before, living = jax.tree.map(jnp.copy, state), alive
            bounds = [programs.bounds(values) for values in (begin, end)]
            chunk_started = time.perf_counter()
            state = clock.timed("train", programs.train, state, *feed.data, *bounds, keys, *extra)
            rate = (stop - step) / max(time.perf_counter() - chunk_started, 1e-6)
            sums = jax.device_get(state.sums)
            losses, accuracies = _means(sums)
            alive = [index for index in alive if np.isfinite(np.atleast_1d(sums.loss)[index])]
            for index in sorted(set(living) - set(alive)):
                states = programs.unstack(state, len(configs))
                failed = int(states[index].step) - 1 - epoch * steps[index] - feed.first
                # The same program again, up to the step that failed.
                upto = [failed if each == index else start for each, start in enumerate(begin)]
                bounds = [programs.bounds(values) for values in (begin, upto)]
                at = programs.train(jax.tree.map(jnp.copy, before), *feed.data, *bounds, keys, *extra)
                images, labels, rows = Feed(*devices.local(feed.data), feed.first, feed.stop).of(index)
                at = programs.unstack(at, len(configs))[index]
                on_divergence(index, diagnose(at, images, labels, rows[failed], all_keys[index], task=tasks[index]))
            training = [index for index in alive if np.isfinite(losses[index])]
            if training:
                means = float(np.mean(losses[training])), float(np.mean(accuracies[training]))
                on_progress(Progress(epoch + 1, configs[0].epochs, stop, max(last), *means))
            ended = [index for index in alive if step < last[index] <= stop]
            if ended:
                states = programs.unstack(state, len(configs))
                for index in ended:
                    done = int(states[index].step)
                    rate_now = learning_rate_at(tasks[index], states[index].learning_rate, jnp.asarray(done - 1))
                    held_out, scores = datasets[index].validation, None
                    if held_out is not None:
                        scores = evaluate(task, states[index].params, held_out, devices=devices, clock=clock)
                    metrics = EpochMetrics(
                        epoch=epoch + 1,
                        step=done,
                        train_loss=float(losses[index]),
                        train_accuracy=float(accuracies[index]),
                        validation_loss=scores.loss if scores else None,
                        validation_accuracy=scores.accuracy if scores else None,
                        learning_rate=float(rate_now),
                        seconds=(time.perf_counter() - started) / len(configs),
                        validation_auc=scores.auc if scores else None,
                    )
                    states[index] = states[index].replace(sums=zero_sums())
                    if scores is not None:
                        states[index] = states[index].after_validation(scores.loss)
                    on_epoch(index, metrics, states[index])
                state = programs.stack(states)
                alive = [index for index in alive if not stopped_early(states[index], configs[index], steps[index])]
            step = stop
            stride, stopping = agree(max(1, int(rate * _PROGRESS_SECONDS)), should_stop())
            # After an epoch's last step its metrics came first: they must not be lost.
            if stopping:
                raise Interrupted(programs.unstack(state, len(configs)))
            if step < max(last) and should_pause():
                states = programs.unstack(state, len(configs))
                for index in alive:
                    on_pause(index, states[index])
    return programs.unstack(state, len(configs))


def is_over(state: TrainState, config: RunConfig, steps: int) -> bool:
    """Whether training has ended, for whatever reason; an epoch is `steps` steps."""
    return int(state.step) >= config.epochs * steps or diverged(state) or stopped_early(state, config, steps)


def stopped_early(state: TrainState, config: RunConfig, steps: int) -> bool:
    """Whether `early_stopping` epochs, of `steps` steps each, have passed since the lowest validation loss."""
    return state.best is not None and int(state.step) - int(state.best.step) >= config.early_stopping * steps


def _gather(datasets: Sequence[Dataset]) -> tuple[Split, list[tuple[int, int]]]:
    """The training examples of all data sets, and (first, count) of each one's among them."""
    distinct = list({id(dataset): dataset for dataset in datasets}.values())
    if len(distinct) == 1:
        train = distinct[0].train
    else:
        splits = [dataset.train for dataset in distinct]
        train = Split(*(np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels")))
    counts = [len(dataset.train.labels) for dataset in distinct]
    firsts = {id(each): first for each, first in zip(distinct, np.cumsum([0, *counts[:-1]]).tolist(), strict=True)}
    return train, [(firsts[id(dataset)], len(dataset.train.labels)) for dataset in datasets]


def diverged(state: TrainState) -> bool:
    """Whether the loss of the state's last step was NaN or infinite."""
    return not math.isfinite(float(state.sums.loss))


def _means(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy of each run, `[runs]`; NaN before its first step."""
    loss, correct, examples = (np.atleast_1d(value).astype(np.float64) for value in sums)
    seen = np.where(examples > 0, examples, np.nan)
    return loss / seen, correct / seen


def evaluate(
    task: Task, params: Any, split: Split, *, devices: Devices = ONE, clock: Clock | None = None
) -> Evaluation:
    """Evaluates `params` on every example of `split`, on one device or spread over several."""
    logits = (clock or Clock()).timed("eval", predict_all, task, params, split, devices)
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits of a network that diverged: its loss is NaN
        shifted = wide - wide.max(axis=-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, split.labels[:, None].astype(np.int64), axis=-1)
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == split.labels))
    auc = roc_auc(wide[:, 1] - wide[:, 0], split.labels == 1) if logits.shape[-1] == 2 else None
    return Evaluation(float(losses.mean()), accuracy, auc, logits)


def predict_all(task: Task, params: Any, split: Split, devices: Devices = ONE) -> Float[np.ndarray, "examples classes"]:
    """Logits of every image of a split of any size: the devices get a block of images at a time."""
    count = len(split.labels)
    block = min(count, max(1, CHUNK_BYTES // (image_bytes(split) * EVAL_CHUNK)) * EVAL_CHUNK)
    block = -(-block // devices.count) * devices.count
    params, compute = devices.put(params, EVERYWHERE), _predict(task, devices)

    def make(index: int) -> jax.Array:
        part = np.asarray(split.images[index * block : (index + 1) * block])
        # The last block is filled up: one size, one program.
        return devices.put(np.pad(part, ((0, block - len(part)), (0, 0), (0, 0), (0, 0))), SPREAD)

    parts = [np.asarray(compute(params, images)) for images in prefetched(make, -(-count // block))]
    return np.concatenate(parts)[:count]


@functools.lru_cache(maxsize=8)
def _predict(task: Task, devices: Devices) -> Callable[..., jax.Array]:
    """`predict`, each device on its part of the images, all logits everywhere."""
    function = functools.partial(predict, task=task)
    if devices.mesh is None:
        return function
    specs = {"in_specs": (EVERYWHERE, SPREAD), "out_specs": SPREAD}
    spread = jax.shard_map(function, mesh=devices.mesh, check_vma=False, **specs)
    return jax.jit(spread, out_shardings=devices.sharding(EVERYWHERE))
