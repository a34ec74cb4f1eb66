"""Evaluation of trained parameters on every image of a split: logits, loss, accuracy, area under the ROC curve."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from convjax.data import Split
from convjax.training.devices import EVERYWHERE, ONE, SPREAD, Devices
from convjax.training.feed import CHUNK_BYTES, image_bytes, prefetched
from convjax.training.steps import Task, eval_step

EVAL_CHUNK = 125
"""Images that evaluation computes together, at most: the fastest on CPU."""

_CHUNKS_ABREAST = 2
"""Chunks per turn, independent of each other: one uses cores that the other leaves idle (measured: 0.8 of the time)."""

_EVAL_ENTRIES = 2**24
"""Largest feature map of a chunk, in entries: large images are evaluated in smaller chunks."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split, and the logits `[examples, classes]` behind them.

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


def evaluate(task: Task, params: Any, split: Split, *, devices: Devices = ONE) -> Evaluation:
    """Evaluates `params` on every example of `split`, on one device or spread over several."""
    logits = predict_all(task, params, split, devices)
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a diverged network has infinite logits: its loss is NaN
        shifted = wide - wide.max(axis=-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, split.labels[:, None].astype(np.int64), axis=-1)
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == split.labels))
    auc = roc_auc(wide[:, 1] - wide[:, 0], split.labels == 1) if logits.shape[-1] == 2 else None
    return Evaluation(float(losses.mean()), accuracy, auc, logits)


def predict_all(task: Task, params: Any, split: Split, devices: Devices = ONE) -> Float[np.ndarray, "examples classes"]:
    """Logits of every image of a split of any size; the devices get one block of images after the other."""
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


@functools.partial(jax.jit, static_argnames="task")
def predict(
    params: Any, images: UInt8[Array, "examples height width channels"], *, task: Task
) -> Float[Array, "examples classes"]:
    """Logits of every image, in chunks of at most `EVAL_CHUNK`; no image is dropped."""
    largest = max(math.prod(shape) for layer in task.layers for shape in (layer.input_shape, layer.output_shape))
    chunk = max(1, min(EVAL_CHUNK, _EVAL_ENTRIES // largest))
    count, abreast = images.shape[0], _CHUNKS_ABREAST if images.shape[0] > chunk else 1
    turns = -(-count // (abreast * chunk))
    padded = jnp.pad(images, ((0, turns * abreast * chunk - count), (0, 0), (0, 0), (0, 0)))
    logits = lax.map(
        lambda chunks: jnp.stack([eval_step(params, chunks[place], task=task) for place in range(abreast)]),
        padded.reshape(turns, abreast, chunk, *images.shape[1:]),
    )
    flat: jax.Array = logits.reshape(turns * abreast * chunk, -1)[:count]
    return flat


@functools.lru_cache(maxsize=8)
def _predict(task: Task, devices: Devices) -> Callable[..., jax.Array]:
    """`predict`, each device on its part of the images, all logits everywhere."""
    function = functools.partial(predict, task=task)
    if devices.mesh is None:
        return function
    specs = {"in_specs": (EVERYWHERE, SPREAD), "out_specs": SPREAD}
    spread = jax.shard_map(function, mesh=devices.mesh, check_vma=False, **specs)
    return jax.jit(spread, out_shardings=devices.sharding(EVERYWHERE))


def roc_auc(scores: Float[np.ndarray, " examples"], positive: Bool[np.ndarray, " examples"]) -> float | None:
    """Area under the ROC curve: the chance that a positive example scores higher than a negative one.

    It is Mann and Whitney's U over the number of pairs (Hanley & McNeil, 1982); a tie counts half. None where a score
    is NaN or one of the two classes is missing.
    """
    import scipy.stats  # takes as long to import as JAX, and only two-class problems need it

    scores = scores.astype(np.float64)  # SciPy computes in the precision of the scores
    groups = scores[positive], scores[~positive]
    if not all(map(len, groups)) or np.isnan(scores).any():
        return None
    wins = scipy.stats.mannwhitneyu(*groups, method="asymptotic").statistic
    return float(wins / (len(groups[0]) * len(groups[1])))
