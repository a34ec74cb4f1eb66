"""Evaluation of trained parameters on every image of a split: logits, loss, accuracy, area under the ROC curve."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from convjax.data import Split
from convjax.training.devices import EVERYWHERE, ONE, SPREAD, Devices
from convjax.training.feed import CHUNK_BYTES, image_bytes, prefetched
from convjax.training.steps import EVAL_CHUNK, Task, predict


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
