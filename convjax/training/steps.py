"""The pure steps of training and evaluation. State goes in and comes out; nothing here touches the world.

A `Task` is the static half of a run (a hashable value: network, optimizer kind, batch size), the `TrainState` and the
arguments are the dynamic half. Seeds, learning rates and the data order are dynamic, so runs that differ only in them
share one compiled program; so may dropout rates be (`Task.shared`).
"""

import contextlib
import dataclasses
import functools
import math
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from convjax.config import RunConfig
from convjax.data.augment import augment
from convjax.nn import models
from convjax.nn.conv import chunk_size
from convjax.nn.geometry import Layer, plan
from convjax.nn.shard import Shard
from convjax.notation import parse
from convjax.training.backend import jit_unoptimized

EVAL_CHUNK = 125
"""Images that evaluation works on together, at most; where it was fastest on CPU."""

_EVAL_LANES = 2
"""Chunks that do not wait for each other: what leaves a CPU's cores idle in one is filled by the other (measured: 0.8
times the time)."""

_EVAL_ENTRIES = 2**24
"""Entries that a chunk's largest feature map may have: large images are evaluated in smaller chunks."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a compiled program depends on.

    Attributes:
      layers: the network's plan.
      total_steps: optimizer steps of the whole run, which the learning-rate schedules need; 0 where the schedule
        is constant, so that runs of different length share a program.
      keep_best: whether the state holds the best parameters so far, for early stopping.
      dynamic_dropout: dropout rates are an argument of the program, see `Task.shared`.
    """

    layers: tuple[Layer, ...]
    conv: str
    precision: str
    augment: str
    optimizer: str
    momentum: float
    weight_decay: float
    label_smoothing: float
    schedule: str
    warmup_steps: int
    total_steps: int
    batch_size: int
    keep_best: bool
    dynamic_dropout: bool = False

    @classmethod
    def of(cls, config: RunConfig, image_shape: tuple[int, int, int], num_classes: int, examples: int) -> "Task":
        """The task of a run on `examples` training images.

        Raises:
          UserError: the network is impossible for these images.
        """
        scheduled = config.schedule != "constant"
        return cls(
            layers=plan(config, image_shape, num_classes),
            conv=config.conv,
            precision=config.precision,
            augment=config.augment,
            optimizer=config.optimizer,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            label_smoothing=config.label_smoothing,
            schedule=config.schedule,
            warmup_steps=config.warmup_steps,
            total_steps=config.epochs * steps_per_epoch(examples, config.batch_size) if scheduled else 0,
            batch_size=config.batch_size,
            keep_best=config.early_stopping > 0,
        )

    @property
    def shared(self) -> "Task":
        """The task with its dropout rates left open: equal for runs that may be trained at once."""
        layers = tuple(dataclasses.replace(layer, rate=0.0) for layer in self.layers)
        return dataclasses.replace(self, layers=layers, dynamic_dropout=True)

    @property
    def keep_rates(self) -> dict[str, np.ndarray]:
        """1 - rate of each dropout layer, float32, by its name."""
        return {layer.name: np.float32(1 - layer.rate) for layer in self.layers if layer.kind == "Dropout"}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(height, width, channels)` of the input."""
        return self.layers[0].input_shape

    @property
    def model(self) -> models.DenseNet:
        """The Flax module."""
        return models.build(self.layers, precision=self.precision, method=self.conv)


class Keys(NamedTuple):
    """Independent random streams of one seed."""

    init: PRNGKeyArray
    shuffle: PRNGKeyArray
    dropout: PRNGKeyArray
    augment: PRNGKeyArray


class Batch(NamedTuple):
    """`weights` are 1 for examples and 0 for the padding of an epoch's last, short batch."""

    images: UInt8[Array, "batch height width channels"]
    labels: Int[Array, " batch"]
    weights: Float[Array, " batch"]


class Sums(NamedTuple):
    """Sums over examples, from which an epoch's means are made."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    examples: Float[Array, ""]


class Best(NamedTuple):
    """The epoch with the lowest validation loss: that loss, the step the epoch ended at (0: none yet), its weights."""

    loss: Float[Array, ""]
    step: Int[Array, ""]
    params: Any


class TrainState(struct.PyTreeNode):
    """All that training changes.

    Attributes:
      step: optimizer steps done.
      params: `{layer name: {"kernel", "bias"}}`.
      opt_state: optax's.
      learning_rate: the schedule's peak.
      sums: of the epoch in hand.
      best: with early stopping, the best epoch so far; else None.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    learning_rate: Float[Array, ""]
    sums: Sums
    best: Best | None = None

    @property
    def result_params(self) -> Any:
        """The parameters that training gives: the best where they are kept, else the last."""
        return self.params if self.best is None or not int(self.best.step) else self.best.params

    def after_validation(self, loss: float) -> "TrainState":
        """The state with `best` brought up to date by the validation loss of the epoch that just ended."""
        # Compared as float32, as it is kept: a resumed run must decide alike.
        if self.best is None or (int(self.best.step) and not np.float32(loss) < np.float32(self.best.loss)):
            return self
        # Copies: the next step is given `params` to overwrite.
        return self.replace(best=Best(jnp.float32(loss), jnp.copy(self.step), jax.tree.map(jnp.copy, self.params)))


def make_keys(seed: int) -> Keys:
    """The streams of a seed: the name of each is folded into the seed's key."""
    root = jax.random.key(seed)
    return Keys(*(jax.random.fold_in(root, zlib.crc32(name.encode())) for name in Keys._fields))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in an epoch; the last may be short."""
    return -(-examples // batch_size)


def learning_rate_at(task: Task, peak: jax.Array, step: jax.Array) -> jax.Array:
    """The learning rate of a step: a linear warm-up to `peak`, then constant, cosine or linear to 0."""
    decay_steps = max(1, task.total_steps - task.warmup_steps)
    if task.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, decay_steps)
    elif task.schedule == "linear":
        after = optax.linear_schedule(peak, 0.0, decay_steps)
    else:
        after = optax.constant_schedule(peak)
    rate = after(step - task.warmup_steps)
    if task.warmup_steps:
        # (step + 1): a first step at rate 0 would be wasted.
        rate = jnp.where(step < task.warmup_steps, peak * (step + 1).astype(jnp.float32) / task.warmup_steps, rate)
    return jnp.asarray(rate, jnp.float32)


def make_optimizer(task: Task, learning_rate: jax.Array) -> optax.GradientTransformation:
    """The optimizer with Keras 3's defaults: RMSprop is lr * g / sqrt(v + 1e-7), rho 0.9.

    Weight decay is decoupled, as Keras's: it goes past the statistics and the momentum.
    """
    if task.optimizer == "rmsprop":
        optimizer = optax.rmsprop(learning_rate, decay=0.9, eps=1e-7, momentum=task.momentum or None)
    elif task.optimizer == "adam":
        optimizer = optax.chain(_scale_by_adam(), optax.scale_by_learning_rate(learning_rate))
    elif task.optimizer == "adamw":
        decay = optax.add_decayed_weights(task.weight_decay)
        return optax.chain(_scale_by_adam(), decay, optax.scale_by_learning_rate(learning_rate))
    else:
        optimizer = optax.sgd(learning_rate, momentum=task.momentum or None)
    if not task.weight_decay:
        return optimizer
    return optax.chain(optimizer, optax.add_decayed_weights(-learning_rate * task.weight_decay))


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
    """The loss of each example; with smoothing the target is 1 - s of the label and s / classes of every class."""
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _scale_by_adam() -> optax.GradientTransformation:
    """Adam as Keras has it, with epsilon beside the uncorrected sqrt(v) (Kingma & Ba, 2015, end of section 2).

    optax adds it to the corrected one (their algorithm 1). In the first steps, where the correction is large, that is
    an epsilon up to thirty times smaller, which tells on weights with very small gradients.
    """
    beta, epsilon = 0.999, 1e-7

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = (state.count + 1).astype(jnp.float32)
        scaled = optax.scale_by_adam(b2=beta, eps=epsilon / jnp.sqrt(1 - beta**step))
        return scaled.update(updates, state, params)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


@functools.partial(jit_unoptimized, static_argnames="task")
def create_train_state(key: PRNGKeyArray, learning_rate: jax.Array, *, task: Task) -> TrainState:
    """Fresh parameters (Glorot-uniform kernels, zero biases) and optimizer state."""
    params = task.model.init(key, jnp.zeros((1, *task.image_shape)))["params"]
    learning_rate = jnp.asarray(learning_rate, jnp.float32)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(task, learning_rate).init(params),
        learning_rate=learning_rate,
        sums=zero_sums(),
        best=_no_best(params) if task.keep_best else None,
    )


def _no_best(params: Any) -> Best:
    return Best(jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))


def zero_sums() -> Sums:
    """Sums of nothing."""
    return Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))


def scale_images(images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Grey levels 0..255 to 0..1, float32."""
    return images.astype(jnp.float32) / 255


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Within it, products are traced as `RunConfig.precision` has them. A CPU multiplies what it is given."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision({"float32": "highest", "tf32": "tensorfloat32"}.get(precision, "default"))


def loss_and_gradients(
    state: TrainState,
    batch: Batch,
    keys: Keys,
    keep: models.KeepRates | None = None,
    *,
    task: Task,
    shard: Shard | None = None,
) -> tuple[jax.Array, Float[Array, "batch classes"], Any]:
    """Mean cross-entropy of the batch's examples, their logits, and the loss's gradients by parameter.

    Args:
      state: where training is.
      batch: the examples; with `shard` this device's part of them (loss and gradients are the whole batch's).
      keys: the run's random streams.
      keep: `Task.keep_rates`, where `task.dynamic_dropout`.
      task: what is trained.
      shard: set inside `jax.shard_map`, on several devices.
    """
    total = (lambda tree: tree) if shard is None else shard.sum
    images = scale_images(batch.images)
    augmentation = parse(task.augment)
    if augmentation is not None:
        first = 0 if shard is None else shard.first
        images = augment(images, jax.random.fold_in(keys.augment, state.step), augmentation, first)
    rngs = {"dropout": jax.random.fold_in(keys.dropout, state.step)}
    count = total(jnp.sum(batch.weights))

    def loss_of(params: Any, images: jax.Array, labels: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = task.model.apply({"params": params}, images, train=True, keep=keep, shard=shard, rngs=rngs)
        losses = cross_entropy(logits, labels, task.label_smoothing)
        return jnp.sum(losses * weights) / count, logits

    part_of = jax.value_and_grad(loss_of, has_aux=True)
    parts = 1 if shard is not None else _parts(task, len(batch.labels))
    with matmul_precision(task.precision):
        if parts == 1:
            (loss, logits), gradients = part_of(state.params, images, batch.labels, batch.weights)
        else:

            def add(sums: tuple[jax.Array, Any], part: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
                (loss, logits), gradients = part_of(state.params, *part)
                return jax.tree.map(jnp.add, sums, (loss, gradients)), logits

            cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (images, batch.labels, batch.weights))
            zeros = jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params)
            (loss, gradients), logits = lax.scan(add, zeros, cut)
            logits = logits.reshape(-1, logits.shape[-1])
    loss, gradients = total((loss, gradients))
    return loss, logits, gradients


def _parts(task: Task, batch_size: int) -> int:
    """Parts of a batch that gradients are summed over one after the other: on CPU, to stay in its caches.

    Dropout draws for a whole batch, so a network with it has the whole batch at once.
    """
    convolves = any(layer.kind == "Conv2D" for layer in task.layers) and task.conv != "xla"
    drops = any(layer.kind == "Dropout" for layer in task.layers)
    if jax.default_backend() != "cpu" or not convolves or drops:
        return 1
    return batch_size // chunk_size(batch_size)


def train_step(
    state: TrainState,
    batch: Batch,
    keys: Keys,
    keep: models.KeepRates | None = None,
    *,
    task: Task,
    shard: Shard | None = None,
) -> tuple[TrainState, Sums]:
    """One step of the optimizer on the mean cross-entropy of the batch's examples, see `loss_and_gradients`.

    Returns the new state and this batch's sums, measured before the update, as Keras reports them.
    """
    loss, logits, gradients = loss_and_gradients(state, batch, keys, keep, task=task, shard=shard)
    correct = jnp.sum(jnp.where(jnp.argmax(logits, axis=-1) == batch.labels, batch.weights, 0.0))
    count = jnp.sum(batch.weights)
    if shard is not None:
        correct, count = shard.sum((correct, count))
    optimizer = make_optimizer(task, learning_rate_at(task, state.learning_rate, state.step))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
    return new_state, Sums(loss * count, correct, count)


@functools.partial(jit_unoptimized, static_argnames=("examples", "batch_size"))
def epoch_order(key: PRNGKeyArray, epoch: jax.Array, *, examples: int, batch_size: int) -> Int[Array, "steps batch"]:
    """The shuffled example indices of an epoch, a row a step; -1 fills up the last row."""
    order = jax.random.permutation(jax.random.fold_in(key, epoch), examples).astype(jnp.int32)
    steps = steps_per_epoch(examples, batch_size)
    padding = steps * batch_size - examples
    return jnp.pad(order, (0, padding), constant_values=-1).reshape(steps, batch_size)


def take_batch(
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    index: Int[Array, " batch"],
) -> Batch:
    """The examples that a row of an epoch's order names.

    A negative entry -1 - i is the padding of a short batch: example i is computed and counts for nothing.
    """
    rows = jnp.where(index >= 0, index, -1 - index)
    return Batch(images[rows], labels[rows], (index >= 0).astype(jnp.float32))


def train_epoch(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    order: Int[Array, "steps batch"],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    keys: Keys,
    keep: models.KeepRates | None = None,
    *,
    task: Task,
    shard: Shard | None = None,
) -> TrainState:
    """Steps `start` to `stop` of an epoch, all on the device; `state.sums` grows by each step's sums.

    The bounds are dynamic: a whole epoch and any part of one are the same program, and its result does not depend on
    how the epoch was cut. A step whose loss is not finite is the last one: `state.step` tells which it was.
    With `shard` the columns of `order` are this device's. `keep` is `loss_and_gradients`'s.
    """

    def unfinished(carry: tuple[jax.Array, TrainState]) -> jax.Array:
        step, state = carry
        return (step < stop) & jnp.isfinite(state.sums.loss)

    def body(carry: tuple[jax.Array, TrainState]) -> tuple[jax.Array, TrainState]:
        step, state = carry
        batch = take_batch(images, labels, lax.dynamic_index_in_dim(order, step, keepdims=False))
        state, sums = train_step(state, batch, keys, keep, task=task, shard=shard)
        return step + 1, state.replace(sums=jax.tree.map(jnp.add, state.sums, sums))

    return lax.while_loop(unfinished, body, (jnp.asarray(start, jnp.int32), state))[1]


def eval_step(params: Any, images: UInt8[Array, "batch height width channels"], *, task: Task) -> jax.Array:
    """Logits `[batch, classes]` of a batch, without dropout."""
    with matmul_precision(task.precision):
        return task.model.apply({"params": params}, scale_images(images))


@functools.partial(jax.jit, static_argnames="task")
def predict(
    params: Any, images: UInt8[Array, "examples height width channels"], *, task: Task
) -> Float[Array, "examples classes"]:
    """Logits of every image, in chunks of at most `EVAL_CHUNK`; no image is dropped."""
    largest = max(math.prod(shape) for layer in task.layers for shape in (layer.input_shape, layer.output_shape))
    chunk = max(1, min(EVAL_CHUNK, _EVAL_ENTRIES // largest))
    count, lanes = images.shape[0], _EVAL_LANES if images.shape[0] > chunk else 1
    turns = -(-count // (lanes * chunk))
    padded = jnp.pad(images, ((0, turns * lanes * chunk - count), (0, 0), (0, 0), (0, 0)))
    logits = lax.map(
        lambda chunks: jnp.stack([eval_step(params, chunks[lane], task=task) for lane in range(lanes)]),
        padded.reshape(turns, lanes, chunk, *images.shape[1:]),
    )
    return logits.reshape(turns * lanes * chunk, -1)[:count]
