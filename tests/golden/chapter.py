"""Computes the chapter run's golden values. `python -m tests.golden.chapter` writes them to chapter.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax import data
from convjax.config import RunConfig
from convjax.data.augment import augment
from convjax.nn.layers import Dropout, TrainingInputs
from convjax.notation import parse_augmentation
from convjax.training.evaluation import evaluate
from convjax.training.steps import (
    Batch,
    Task,
    epoch_order,
    image_keys,
    initial_state,
    loss_and_gradients,
    make_keys,
    scale_images,
)
from tests.helpers.training import fit, task_of

FILE = Path(__file__).with_suffix(".json")


def checksum(array: Any) -> str:
    """SHA-256 of an array's bytes: equal for equal bits."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def exact() -> dict[str, Any]:
    """What must never change by a bit: random streams and everything drawn from them."""
    config = RunConfig()
    state = initial_state(config, Task.of(config, (28, 28, 1), 10, 60_000))
    keys = make_keys(0)
    order = epoch_order(keys.shuffle, 1, examples=60_000, batch_size=64)
    return {
        "initial weights": {
            f"{layer}/{name}": checksum(array)
            for layer, arrays in sorted(state.params.items())
            for name, array in sorted(arrays.items())
        },
        "first kernel": np.asarray(state.params["conv2d_1"]["kernel"])[:, :, 0, 0].round(6).tolist(),
        "order of epoch 2": checksum(order),
        "first rows of epoch 2": np.asarray(order)[0, :8].tolist(),
        "keys": {name: np.asarray(jax.random.key_data(key)).tolist() for name, key in keys._asdict().items()},
        **draws(),
    }


def draws() -> dict[str, Any]:
    """The draws of dropout and augmentation for a batch of 8."""

    keys = make_keys(0)
    x = jnp.ones((8, 5, 5, 3))
    training = TrainingInputs(image_keys(keys.dropout, jnp.int32(7), 8), jnp.ones(8))
    kept = Dropout(0.5, name="dropout_1").apply({}, x, training) != 0
    images = scale_images(jnp.asarray(data.load("mnist_5k").train.images[:8]))
    moved = augment(images, jax.random.fold_in(keys.augment, 7), parse_augmentation("rotate=10+shift=0.1+flip"))
    return {"dropout": checksum(kept), "augmentation": np.asarray(moved).mean((1, 2, 3)).round(5).tolist()}


def step() -> dict[str, Any]:
    """The loss and the gradient norms of the first step on mnist_5k."""
    dataset = data.load("mnist_5k")
    config, digits = RunConfig(dataset="mnist_5k"), dataset.train
    task = task_of(config, dataset)
    state = initial_state(config, task)
    batch = Batch(jnp.asarray(digits.images[:64]), jnp.asarray(digits.labels[:64]), jnp.ones(64))
    loss, _, gradients = jax.jit(loss_and_gradients, static_argnames="task")(state, batch, make_keys(0), task=task)
    norms = {name: float(np.linalg.norm(np.asarray(arrays["kernel"]))) for name, arrays in sorted(gradients.items())}
    return {"loss": float(loss), "gradient norms": norms}


def run() -> dict[str, float]:
    """Test accuracy and loss after about 200 steps (three epochs of mnist_5k)."""
    dataset = data.load("mnist_5k")
    config = RunConfig(dataset="mnist_5k", epochs=3)
    [state] = fit([config], dataset)
    found = evaluate(task_of(config, dataset), state.params, dataset.test)
    return {"accuracy": found.accuracy, "loss": found.loss}


if __name__ == "__main__":
    FILE.write_text(json.dumps({"exact": exact(), "step": step(), "run": run()}, indent=1) + "\n")
