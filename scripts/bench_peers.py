"""The contenders of scripts/bench.py, each written as its users write it. One process runs one of them.

A contender has `steps(count)`, `epoch()`, `evaluate() -> accuracy` and `compile_seconds`. All train the chapter's
network with RMSprop on the same images in batches of one size; every epoch is shuffled and ends with its short batch.

As a worker (`python scripts/bench_peers.py NAME DATA.npz BATCH_SIZE`) the process reads a word of work a line from
stdin and answers with a line of JSON; as a job (`... job EPOCHS`) it trains, evaluates and ends.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CHANNELS, UNITS, CLASSES = (32, 64, 64), 64, 10


class Data:
    """Training and test images `[n, 28, 28, 1]` uint8, labels int32, and the batch size."""

    def __init__(self, path: str, batch_size: int):
        with np.load(path, allow_pickle=False) as file:
            self.images, self.labels = file["train_images"], file["train_labels"]
            self.test_images, self.test_labels = file["test_images"], file["test_labels"]
        self.batch_size = batch_size

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Indices of an epoch's batches, the last one short."""
        order = rng.permutation(len(self.labels))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


class Convjax:
    """This library."""

    def __init__(self, data: Data, precision: str = "float32", conv: str = "auto"):
        import jax

        from convjax.config import RunConfig
        from convjax.training import backend, loop
        from convjax.training.steps import Task, make_keys

        backend.enable_compilation_cache()
        self.jax, self.loop, self.data = jax, loop, data
        config = RunConfig(batch_size=data.batch_size, precision=precision, conv=conv)
        self.task = Task.of(config, data.images.shape[1:], CLASSES, len(data.labels))
        start = time.perf_counter()
        self.programs = loop.Programs.compile(self.task, len(data.labels))
        self.compile_seconds = time.perf_counter() - start
        self.keys = make_keys(0)
        self.state = loop.initial_state(config, self.task)
        self.arrays = jax.device_put((data.images, data.labels))
        self.order = self.programs.order([self.keys], 0)
        self.epochs = 0

    def steps(self, count: int) -> None:
        self._train(0, count)

    def epoch(self) -> None:
        self.epochs += 1
        self.order = self.programs.order([self.keys], self.epochs)
        self._train(0, self.programs.steps)

    def _train(self, start: int, stop: int) -> None:
        self.state = self.programs.train(self.state, *self.arrays, self.order, start, stop, self.keys)
        self.jax.block_until_ready(self.state)

    def evaluate(self) -> float:
        from convjax.data import Split

        split = Split(self.data.test_images, self.data.test_labels)
        return self.loop.evaluate(self.task, self.state.params, split).accuracy


class Torch:
    """PyTorch: an nn.Sequential, torch.optim.RMSprop, tensors in memory, a loop over batches."""

    def __init__(self, data: Data, channels_last: bool = False, compiled: bool = False):
        import torch
        from torch import nn

        torch.manual_seed(0)
        self.torch, self.rng, self.batch_size = torch, np.random.default_rng(0), data.batch_size
        first, second, third = CHANNELS
        self.model = nn.Sequential(
            nn.Conv2d(1, first, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(576, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, CLASSES),
        )
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = self.model.to(memory_format=self.format)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.model.to(self.device)
        self.run: Callable[[Any], Any] = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.RMSprop(self.model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
        self.loss = nn.CrossEntropyLoss()
        self.data = data
        self.images, self.test_images = (
            torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255).to(self.device)
            for images in (data.images, data.test_images)
        )
        self.labels = torch.from_numpy(data.labels.astype(np.int64)).to(self.device)
        start = time.perf_counter()
        self._train(self.data.batches(self.rng)[:1])
        self.compile_seconds = time.perf_counter() - start

    def steps(self, count: int) -> None:
        self._train(self.data.batches(self.rng)[:count])

    def epoch(self) -> None:
        self._train(self.data.batches(self.rng))

    def _train(self, batches: list[np.ndarray]) -> None:
        for rows in batches:
            index = self.torch.from_numpy(rows).to(self.device)
            images = self.images[index].contiguous(memory_format=self.format)
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.run(images), self.labels[index]).backward()
            self.optimizer.step()
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def evaluate(self) -> float:
        right = 0
        labels = self.torch.from_numpy(self.data.test_labels.astype(np.int64)).to(self.device)
        with self.torch.inference_mode():
            for start in range(0, len(labels), 1000):
                images = self.test_images[start : start + 1000].contiguous(memory_format=self.format)
                right += int((self.model(images).argmax(1) == labels[start : start + 1000]).sum())
        return right / len(labels)


class Keras:
    """Keras 3 as the chapter writes it: a Sequential model, compile, fit."""

    def __init__(self, data: Data, backend: str):
        os.environ["KERAS_BACKEND"] = backend
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import keras
        from keras import layers

        keras.utils.set_random_seed(0)
        first, second, third = CHANNELS
        self.model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(first, (3, 3), activation="relu"),
                layers.MaxPooling2D((2, 2)),
                layers.Conv2D(second, (3, 3), activation="relu"),
                layers.MaxPooling2D((2, 2)),
                layers.Conv2D(third, (3, 3), activation="relu"),
                layers.Flatten(),
                layers.Dense(UNITS, activation="relu"),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        self.model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        self.data = data
        self.images, self.test_images = (images.astype("float32") / 255 for images in (data.images, data.test_images))
        start = time.perf_counter()
        self.steps(1)
        self.compile_seconds = time.perf_counter() - start

    def steps(self, count: int) -> None:
        size = count * self.data.batch_size
        self.model.fit(
            self.images[:size], self.data.labels[:size], batch_size=self.data.batch_size, epochs=1, verbose=0
        )

    def epoch(self) -> None:
        self.steps(len(self.data.labels))

    def evaluate(self) -> float:
        return float(self.model.evaluate(self.test_images, self.data.test_labels, batch_size=1000, verbose=0)[1])


class FlaxNaive:
    """Flax as its MNIST example has it: nn.Conv and nn.max_pool, one jitted step a batch."""

    def __init__(self, data: Data):
        import flax.linen as nn
        import jax
        import optax

        first, second, third = CHANNELS

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: Any) -> Any:
                x = nn.max_pool(nn.relu(nn.Conv(first, (3, 3), padding="VALID")(x)), (2, 2), (2, 2))
                x = nn.max_pool(nn.relu(nn.Conv(second, (3, 3), padding="VALID")(x)), (2, 2), (2, 2))
                x = nn.relu(nn.Conv(third, (3, 3), padding="VALID")(x)).reshape(x.shape[0], -1)
                return nn.Dense(CLASSES)(nn.relu(nn.Dense(UNITS)(x)))

        net, optimizer = Net(), optax.rmsprop(1e-3, decay=0.9, eps=1e-7)
        self.jax, self.data, self.rng = jax, data, np.random.default_rng(0)
        self.images, self.test_images = (images.astype(np.float32) / 255 for images in (data.images, data.test_images))
        params = net.init(jax.random.key(0), self.images[:1])
        self.state = params, optimizer.init(params)

        @jax.jit
        def step(state: Any, images: Any, labels: Any) -> Any:
            params, opt_state = state

            def loss(params: Any) -> Any:
                return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, images), labels).mean()

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return optax.apply_updates(params, updates), opt_state

        self.step, self.apply = step, jax.jit(net.apply)
        start = time.perf_counter()
        self.steps(1)
        self.compile_seconds = time.perf_counter() - start

    def steps(self, count: int) -> None:
        for rows in self.data.batches(self.rng)[:count]:
            self.state = self.step(self.state, self.images[rows], self.data.labels[rows])
        self.jax.block_until_ready(self.state)

    def epoch(self) -> None:
        self.steps(len(self.data.labels))

    def evaluate(self) -> float:
        size = 1000
        right = [
            np.argmax(self.apply(self.state[0], self.test_images[start : start + size]), -1)
            == self.data.test_labels[start : start + size]
            for start in range(0, len(self.data.test_labels), size)
        ]
        return float(np.mean(np.concatenate(right)))


CONTENDERS: dict[str, Callable[[Data], Any]] = {
    "convjax": Convjax,
    "torch": Torch,
    "torch-channels_last": lambda data: Torch(data, channels_last=True),
    "torch-compile": lambda data: Torch(data, compiled=True),
    "keras-tensorflow": lambda data: Keras(data, "tensorflow"),
    "keras-jax": lambda data: Keras(data, "jax"),
    "keras-torch": lambda data: Keras(data, "torch"),
    "flax-naive": FlaxNaive,
}


def _serve(contender: Any) -> None:
    print(json.dumps({"compile_seconds": contender.compile_seconds}), flush=True)
    for line in sys.stdin:
        word, *arguments = line.split()
        start = time.perf_counter()
        answer: dict[str, float] = {}
        if word == "steps":
            contender.steps(int(arguments[0]))
        elif word == "epoch":
            contender.epoch()
        elif word == "evaluate":
            answer["accuracy"] = contender.evaluate()
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({**answer, "seconds": seconds, "peak_memory": memory}), flush=True)


def _job(contender: Any, epochs: int) -> None:
    for _ in range(epochs):
        contender.epoch()
    accuracy = contender.evaluate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"accuracy": accuracy, "peak_memory": memory}), flush=True)


def main() -> None:
    """Runs the contender that the command line names."""
    name, path, batch_size, *job = sys.argv[1:]
    contender = CONTENDERS[name](Data(path, int(batch_size)))
    if job:
        _job(contender, int(job[1]))
    else:
        _serve(contender)


if __name__ == "__main__":
    main()
