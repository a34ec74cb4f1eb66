"""The pure steps of training and evaluation: state in, state out. No function here has side effects.

`nn.models` gives the network; `training.program` compiles `train_epoch`; `training.loop` calls it epoch after epoch.

A `Task` is the static half of a run, a hashable value that a compiled program depends on. A `TrainState` and the
arguments are the dynamic half. Seed, learning rate and the order of the images are dynamic, so runs that differ only in
these share one program.
"""

import contextlib
import dataclasses
import functools
import zlib
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from convjax.config import RunConfig
from convjax.data.augment import augment
from convjax.nn import models
from convjax.nn.conv import chunk_size
from convjax.nn.geometry import Layer, plan
from convjax.nn.layers import TrainingInputs
from convjax.notation import parse_augmentation
from convjax.training.backend import jit_unoptimized, on_cpu
from convjax.training.optimizers import learning_rate_at, make_optimizer


@dataclasses.dataclass(frozen=True)
class Task:
    """What a compiled program depends on; made by `Task.of`.

    Attributes:
      config: the run's configuration, with seed 0 and learning rate 1: a program takes these as arguments.
      layers: the network's plan.
      examples: training images.
    """

    config: RunConfig
    layers: tuple[Layer, ...]
    examples: int

    @classmethod
    def of(cls, config: RunConfig, image_shape: tuple[int, int, int], num_classes: int, examples: int) -> "Task":
        """The task of a run on `examples` training images.

        Raises:
          UserError: the network is impossible for these images.
        """
        return cls(config.replace(seed=0, learning_rate=1.0), plan(config, image_shape, num_classes), examples)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last may be short."""
        return -(-self.examples // self.config.batch_size)

    def learning_rate(self, peak: jax.Array, step: jax.Array) -> jax.Array:
        """The learning rate of step number `step`, counted from 0."""
        return learning_rate_at(self.config, self.config.epochs * self.steps_per_epoch, peak, step)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(height, width, channels)` of the input."""
        return self.layers[0].input_shape

    @property
    def model(self) -> models.ConvNet:
        """The Flax module."""
        return models.build(self.layers, precision=self.config.precision, method=self.config.conv)


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
      sums: of the current epoch.
      statistics: `{layer name: {"mean", "variance"}}` of batch normalization; None in networks without it.
      best: with early stopping, the best epoch so far; else None.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    learning_rate: Float[Array, ""]
    sums: Sums
    best: Best | None = None
    statistics: Any = None

    @property
    def weights(self) -> Any:
        """Parameters and running statistics by layer: all that evaluation needs."""
        return _merged(self.params, self.statistics)

    @property
    def result_params(self) -> Any:
        """The trained weights: with early stopping those of the best epoch, else the last."""
        return self.weights if self.best is None or not int(self.best.step) else self.best.params

    def after_validation(self, loss: float) -> "TrainState":
        """The state after an epoch with this validation loss: its weights are the best ones if the loss is lower."""
        # Compared in float32, as it is kept: a resumed run must decide the same.
        if self.best is None or (int(self.best.step) and not np.float32(loss) < np.float32(self.best.loss)):
            return self
        # Copies: the next step may overwrite `params`.
        return self.replace(best=Best(jnp.float32(loss), jnp.copy(self.step), jax.tree.map(jnp.copy, self.weights)))


def make_keys(seed: int) -> Keys:
    """The independent streams of a seed."""
    root = jax.random.key(seed)

    def stream(name: str) -> PRNGKeyArray:
        return jax.random.fold_in(root, zlib.crc32(name.encode()))

    # The names are hashed into the keys: changing one changes every run.
    return Keys(init=stream("init"), shuffle=stream("shuffle"), dropout=stream("dropout"), augment=stream("augment"))


def image_keys(stream: PRNGKeyArray, step: jax.Array, batch_size: int) -> Key[Array, " batch"]:
    """A key for each image of a step's batch: it depends on the step and on the image's place in the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(stream, step), jnp.arange(batch_size))


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
    """The loss of each example; with smoothing the target is 1 - s of the label and s / classes of every class."""
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


@functools.partial(jit_unoptimized, static_argnames="task")
def create_train_state(key: PRNGKeyArray, learning_rate: jax.Array, *, task: Task) -> TrainState:
    """Fresh parameters (Glorot-uniform kernels, zero biases) and optimizer state."""
    variables = task.model.init(key, jnp.zeros((1, *task.image_shape)))
    params, statistics = variables["params"], variables.get("batch_stats")
    learning_rate = jnp.asarray(learning_rate, jnp.float32)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(task.config, learning_rate).init(params),
        learning_rate=learning_rate,
        sums=zero_sums(),
        best=_no_best(_merged(params, statistics)) if task.config.early_stopping else None,
        statistics=statistics,
    )


def _merged(params: Any, statistics: Any) -> Any:
    """Parameters by layer, each with its layer's running statistics."""
    return {name: {**arrays, **(statistics or {}).get(name, {})} for name, arrays in params.items()}


def initial_state(config: RunConfig, task: Task) -> TrainState:
    """The state that a run starts from."""
    return create_train_state(make_keys(config.seed).init, config.learning_rate, task=task)


def state_shape(task: Task) -> TrainState:
    """Shapes and types of a task's state, without computing one."""
    return jax.eval_shape(lambda: initial_state(task.config, task))


def _no_best(params: Any) -> Best:
    return Best(jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))


def zero_sums() -> Sums:
    """Sums of nothing."""
    return Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))


def scale_images(images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gray levels 0..255 to 0..1, float32."""
    return images.astype(jnp.float32) / 255


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which matrix products are traced with `RunConfig.precision`. On a CPU it has no effect."""
    if on_cpu():
        return contextlib.nullcontext()
    return jax.default_matmul_precision({"float32": "highest", "tf32": "tensorfloat32"}.get(precision, "default"))


def loss_and_gradients(
    state: TrainState, batch: Batch, keys: Keys, *, task: Task
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch classes"], Any], Any]:
    """Mean cross-entropy of the batch's images; their logits and the new statistics; the gradients by parameter."""
    config, count = task.config, jnp.sum(batch.weights)
    images = scale_images(batch.images)
    if (augmentation := parse_augmentation(config.augment)) is not None:
        images = augment(images, jax.random.fold_in(keys.augment, state.step), augmentation)
    training = TrainingInputs(image_keys(keys.dropout, state.step, len(batch.labels)), batch.weights)

    def loss_of(params: Any, images: jax.Array, labels: jax.Array, training: TrainingInputs) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.statistics or {}}
        applied = task.model.apply(variables, images, training, mutable=["batch_stats"])
        logits, updated = cast("tuple[jax.Array, Any]", applied)
        losses = cross_entropy(logits, labels, config.label_smoothing)
        return jnp.sum(losses * training.weights) / count, (logits, updated.get("batch_stats") or None)

    part_of = jax.value_and_grad(loss_of, has_aux=True)
    examples, parts = (images, batch.labels, training), _parts(task, len(batch.labels))
    with matmul_precision(config.precision):
        if parts == 1:
            (loss, outputs), gradients = part_of(state.params, *examples)
            return loss, outputs, gradients

        def add(sums: tuple[jax.Array, Any], part: tuple[Any, ...]) -> tuple[Any, jax.Array]:
            (loss, (logits, _)), gradients = part_of(state.params, *part)
            return jax.tree.map(jnp.add, sums, (loss, gradients)), logits

        cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), examples)
        zeros = jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params)
        (loss, gradients), logits = lax.scan(add, zeros, cut)
    return loss, (logits.reshape(-1, logits.shape[-1]), state.statistics), gradients


def _parts(task: Task, batch_size: int) -> int:
    """Parts of a batch whose gradients are computed one after the other: on a CPU, to stay in its caches."""
    kinds = {layer.kind for layer in task.layers}
    convolves = "Conv2D" in kinds and "BatchNormalization" not in kinds and task.config.conv != "xla"
    return batch_size // chunk_size(batch_size) if convolves and on_cpu() else 1


def train_step(state: TrainState, batch: Batch, keys: Keys, *, task: Task) -> tuple[TrainState, Sums]:
    """One step of the optimizer on the mean cross-entropy of the batch's images, see `loss_and_gradients`.

    Returns the new state and this batch's sums, measured before the update, as Keras reports them.
    """
    loss, (logits, statistics), gradients = loss_and_gradients(state, batch, keys, task=task)
    correct = jnp.sum(jnp.where(jnp.argmax(logits, axis=-1) == batch.labels, batch.weights, 0.0))
    count = jnp.sum(batch.weights)
    optimizer = make_optimizer(task.config, task.learning_rate(state.learning_rate, state.step))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        statistics=statistics,
    )
    return new_state, Sums(loss * count, correct, count)


@functools.partial(jit_unoptimized, static_argnames=("examples", "batch_size"))
def epoch_order(key: PRNGKeyArray, epoch: jax.Array, *, examples: int, batch_size: int) -> Int[Array, "steps batch"]:
    """The shuffled indices of an epoch's images, a row per step; the last row is padded with -1."""
    order = jax.random.permutation(jax.random.fold_in(key, epoch), examples).astype(jnp.int32)
    steps = -(-examples // batch_size)
    padding = steps * batch_size - examples
    return jnp.pad(order, (0, padding), constant_values=-1).reshape(steps, batch_size)


def take_batch(
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    index: Int[Array, " batch"],
) -> Batch:
    """The examples of one row of an epoch's order.

    A negative entry -1 - i pads a short batch: example i is computed with weight 0.
    """
    rows = jnp.where(index >= 0, index, -1 - index)
    return Batch(images[rows], labels[rows], (index >= 0).astype(jnp.float32))


class EpochData(NamedTuple):
    """What an epoch, or a part of one, trains on: examples, and the rows of each step among them."""

    images: UInt8[Array, "examples height width channels"]
    labels: Int[Array, " examples"]
    order: Int[Array, "steps batch"]


def train_epoch(
    state: TrainState,
    data: EpochData,
    start: Int[Array, ""] | int,
    stop: Int[Array, ""] | int,
    keys: Keys,
    *,
    task: Task,
) -> TrainState:
    """Steps `start` to `stop` of an epoch, all on the device; `state.sums` grows by each step's sums.

    The bounds are dynamic: a whole epoch and any part of it are the same program, and the result does not depend on how
    the epoch was cut. Training ends at a step whose loss is not finite; `state.step` tells which one that was.
    """

    def unfinished(carry: tuple[jax.Array, TrainState]) -> jax.Array:
        step, state = carry
        return (step < stop) & jnp.isfinite(state.sums.loss)

    def body(carry: tuple[jax.Array, TrainState]) -> tuple[jax.Array, TrainState]:
        step, state = carry
        index = lax.dynamic_index_in_dim(data.order, step, keepdims=False)
        state, sums = train_step(state, take_batch(data.images, data.labels, index), keys, task=task)
        return step + 1, state.replace(sums=jax.tree.map(jnp.add, state.sums, sums))

    return lax.while_loop(unfinished, body, (jnp.asarray(start, jnp.int32), state))[1]


def eval_step(params: Any, images: UInt8[Array, "batch height width channels"], *, task: Task) -> jax.Array:
    """Logits `[batch, classes]` of a batch, without dropout."""
    with matmul_precision(task.config.precision):
        return cast("jax.Array", task.model.apply({"params": params, "batch_stats": params}, scale_images(images)))
