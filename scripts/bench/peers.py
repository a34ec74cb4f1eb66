"""The peers of scripts/bench.py, each as its users write it; `serve` says what they have in common.

A process runs one of them, and none is required: each class imports its own library.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.task import CHANNELS, CLASSES, UNITS, Data


class Torch:
    """PyTorch: an nn.Sequential, torch.optim.RMSprop, tensors on the device, a loop over batches.

    Attributes:
      graph: a step recorded as a CUDA graph; None where steps run one operation at a time.
    """

    def __init__(
        self, data: Data, channels_last: bool = False, compiled: bool = False, exact: bool = False, graphs: bool = False
    ):
        import torch
        from torch import nn

        torch.manual_seed(data.seed)
        if exact:  # PyTorch's convolutions use TF32 by default
            torch.backends.cudnn.allow_tf32 = False
        self.torch, self.rng, self.batch_size = torch, np.random.default_rng(data.seed), data.batch_size
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
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.model.to(self.device, memory_format=self.format)
        self.run: Callable[[Any], Any] = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.RMSprop(
            self.model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7, **({"capturable": True} if graphs else {})
        )
        self.loss = nn.CrossEntropyLoss()
        self.data = data
        self.images, self.test_images = (
            torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255).to(self.device)
            for images in (data.images, data.test_images)
        )
        self.labels = torch.from_numpy(data.labels.astype(np.int64)).to(self.device)
        start = time.perf_counter()
        self.graph: Any = None
        self._train(self.data.batches(self.rng)[:1])
        if graphs:
            self._capture()
        self.compile_seconds = time.perf_counter() - start

    def _capture(self) -> None:
        """Records a step as a CUDA graph, after the warm-up on a side stream that PyTorch's manual requires."""
        cuda = self.torch.cuda
        self.index = self.torch.arange(self.batch_size, device=self.device)
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(3):
                self._step(self.index)
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with cuda.graph(graph):
            self._step(self.index)
        self.graph = graph

    def steps(self, count: int) -> None:
        self._train(self.data.batches(self.rng)[:count])

    def epoch(self) -> None:
        self._train(self.data.batches(self.rng))

    def _train(self, batches: list[np.ndarray]) -> None:
        for rows in batches:
            index = self.torch.from_numpy(rows).to(self.device)
            if self.graph is not None and len(rows) == self.batch_size:
                self.index.copy_(index)
                self.graph.replay()
            else:
                self._step(index)
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def _step(self, index: Any) -> None:
        images = self.images[index].contiguous(memory_format=self.format)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.run(images), self.labels[index]).backward()
        self.optimizer.step()

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

        keras.utils.set_random_seed(data.seed)
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
        self.jax, self.data, self.rng = jax, data, np.random.default_rng(data.seed)
        self.images, self.test_images = (images.astype(np.float32) / 255 for images in (data.images, data.test_images))
        params = net.init(jax.random.key(data.seed), self.images[:1])
        self.state = params, optimizer.init(params)

        @jax.jit
        def step(state: Any, images: Any, labels: Any) -> Any:
            params, opt_state = state

            def loss(params: Any) -> Any:
                logits: Any = net.apply(params, images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

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
