"""The contenders of scripts/bench.py, each written as its users write it. One process runs one of them.

A contender has `steps(count)`, `epoch()`, `evaluate() -> accuracy` and `compile_seconds`. All train the chapter's
network with RMSprop on the same images in batches of one size; every epoch is shuffled and ends with its short batch.

As a worker (`python scripts/bench_peers.py NAME DATA.npz BATCH_SIZE`) the process reads a word of work a line from
stdin and answers with a line of JSON; as a job (`... EPOCHS TARGET SEED`) it trains, evaluates and ends. With `grid`
in place of the data it measures single convolutions.
"""

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CHANNELS, UNITS, CLASSES = (32, 64, 64), 64, 10


class Data:
    """Training and test images `[n, 28, 28, 1]` uint8, labels int32, the batch size and the seed."""

    def __init__(self, path: str, batch_size: int, seed: int = 0):
        with np.load(path, allow_pickle=False) as file:
            self.images, self.labels = file["train_images"], file["train_labels"]
            self.test_images, self.test_labels = file["test_images"], file["test_labels"]
        self.batch_size, self.seed = batch_size, seed

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
        config = RunConfig(batch_size=data.batch_size, precision=precision, conv=conv, seed=data.seed)
        self.task = Task.of(config, data.images.shape[1:], CLASSES, len(data.labels))
        start = time.perf_counter()
        self.programs = loop.Programs.compile(self.task, len(data.labels))
        self.compile_seconds = time.perf_counter() - start
        self.keys = make_keys(data.seed)
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

    def __init__(
        self, data: Data, channels_last: bool = False, compiled: bool = False, exact: bool = False, graphs: bool = False
    ):
        import torch
        from torch import nn

        torch.manual_seed(data.seed)
        if exact:  # PyTorch's convolutions are in TF32 unless told otherwise
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
        self.model = self.model.to(memory_format=self.format)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.model.to(self.device)
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
        """Records a step as a CUDA graph, after the warm-up on a side stream that its manual asks for."""
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
    "convjax-tf32": lambda data: Convjax(data, precision="tf32"),
    "convjax-bfloat16": lambda data: Convjax(data, precision="bfloat16"),
    "torch": Torch,
    "torch-channels_last": lambda data: Torch(data, channels_last=True),
    "torch-compile": lambda data: Torch(data, compiled=True),
    "torch-float32": lambda data: Torch(data, exact=True),
    "torch-graphs": lambda data: Torch(data, graphs=True),
    "keras-tensorflow": lambda data: Keras(data, "tensorflow"),
    "keras-jax": lambda data: Keras(data, "jax"),
    "keras-torch": lambda data: Keras(data, "torch"),
    "flax-naive": FlaxNaive,
}


class Cell(NamedTuple):
    """A convolution of the grid: `channels` of a square image of `size` to `filters` others."""

    batch: int
    kernel_size: int
    padding: str
    stride: int
    size: int
    channels: int
    filters: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Images `[2, batch, size, size, channels]`, to take in turn, and a kernel, as large as those of a network."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((2, self.batch, self.size, self.size, self.channels), np.float32)
        window = (self.kernel_size, self.kernel_size, self.channels, self.filters)
        return images, rng.standard_normal(window, np.float32) / np.float32(np.sqrt(np.prod(window[:3])))


class GridConvjax:
    """Our convolution and its gradients to image and kernel, in a loop on the device.

    As in the training step: images lie with the batch last, as the block before leaves them, and a large batch goes
    through in parts.
    """

    compile_seconds = 0.0

    def __init__(self) -> None:
        from convjax.training import backend

        backend.enable_compilation_cache()

    def prepare(self, cell: Cell) -> None:
        import jax
        import jax.numpy as jnp
        from jax import lax

        from convjax.nn.conv import Block, chunk_size, conv_stack_batch_last

        images, kernel = cell.arrays()
        parts = images.reshape(2, -1, chunk_size(cell.batch), *images.shape[2:]).transpose(0, 1, 5, 3, 4, 2)
        block = Block((cell.stride, cell.stride), cell.padding)
        bias = np.zeros(cell.filters, np.float32)

        def step(number: Any, carry: Any) -> Any:
            images, kernel, _ = carry

            def part(total: Any, index: Any) -> Any:
                x = images[number % 2, index]
                y, pull_back = jax.vjp(lambda x, k: conv_stack_batch_last(x, (block,), ((k, bias),)), x, kernel)
                image_gradient, kernel_gradient = pull_back(y)
                return total + kernel_gradient, image_gradient

            kernel_gradient, image_gradient = lax.scan(part, jnp.zeros_like(kernel), np.arange(parts.shape[1]))
            return images, kernel - 1e-9 * kernel_gradient, image_gradient

        self.state = jax.device_put((np.ascontiguousarray(parts), kernel, np.zeros(parts.shape[1:], np.float32)))
        self.program = jax.jit(lambda count, state: lax.fori_loop(0, count, step, state), donate_argnums=1)

    def iterate(self, count: int) -> None:
        import jax

        self.state = jax.block_until_ready(self.program(count, self.state))


class GridXla:
    """XLA's own convolution as users call it, a jitted step at a time: inside loops it is five times as slow."""

    compile_seconds = 0.0

    def prepare(self, cell: Cell) -> None:
        import jax
        from jax import lax

        images, kernel = cell.arrays()
        strides, numbers = (cell.stride, cell.stride), ("NHWC", "HWIO", "NHWC")
        convolve = functools.partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding=cell.padding.upper(),
            dimension_numbers=numbers,
        )

        @functools.partial(jax.jit, donate_argnums=1)
        def step(x: Any, kernel: Any) -> Any:
            y, pull_back = jax.vjp(convolve, x, kernel)
            image_gradient, kernel_gradient = pull_back(y)
            return kernel - 1e-9 * kernel_gradient, image_gradient

        self.images, self.kernel, self.step = jax.device_put(list(images)), jax.device_put(kernel), step

    def iterate(self, count: int) -> None:
        import jax

        for number in range(count):
            self.kernel, image_gradient = self.step(self.images[number % 2], self.kernel)
        jax.block_until_ready((self.kernel, image_gradient))


class GridTorch:
    """PyTorch's convolution and its gradients to image and kernel."""

    compile_seconds = 0.0

    def __init__(self, channels_last: bool = False):
        import torch

        self.torch = torch
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(self, cell: Cell) -> None:
        torch = self.torch
        images, kernel = cell.arrays()
        self.images = [
            torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
            .contiguous(memory_format=self.format)
            .requires_grad_()
            for image in images
        ]
        # PyTorch refuses padding="same" with a stride, and pads both sides alike: what Keras and XLA do is a pad first.
        total = max(0, (-(-cell.size // cell.stride) - 1) * cell.stride + cell.kernel_size - cell.size)
        self.pad = (total // 2, total - total // 2) * 2 if cell.padding == "same" else (0, 0, 0, 0)
        self.kernel = (
            torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            .contiguous(memory_format=self.format)
            .requires_grad_()
        )
        self.stride = cell.stride

    def iterate(self, count: int) -> None:
        functional = self.torch.nn.functional
        even = self.pad[0] == self.pad[1]
        for number in range(count):
            x = self.images[number % 2]
            x.grad = self.kernel.grad = None
            image = x if even else functional.pad(x, self.pad)
            y = functional.conv2d(image, self.kernel, stride=self.stride, padding=self.pad[0] if even else 0)
            y.backward(y.detach())


GRID_CONTENDERS: dict[str, Callable[[], Any]] = {
    "convjax": GridConvjax,
    "xla": GridXla,
    "torch": GridTorch,
    "torch-channels_last": lambda: GridTorch(channels_last=True),
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
        elif word == "cell":
            batch, kernel_size, padding, *rest = arguments
            contender.prepare(Cell(int(batch), int(kernel_size), padding, *map(int, rest)))
        elif word == "iterate":
            contender.iterate(int(arguments[0]))
        elif word == "profile":
            contender.jax.profiler.start_trace(arguments[0])
            contender.steps(int(arguments[1]))
            contender.jax.profiler.stop_trace()
        seconds = time.perf_counter() - start
        print(json.dumps({**answer, "seconds": seconds, "peak_memory": _peak_memory()}), flush=True)


def _peak_memory() -> int:
    """Bytes of the process's largest resident set."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _job(contender: Any, epochs: int, target: float) -> None:
    """Trains for `epochs` and evaluates; with a `target` evaluates each epoch and stops where it is reached."""
    accuracy = 0.0
    for epoch in range(epochs):
        contender.epoch()
        if target or epoch == epochs - 1:
            accuracy = contender.evaluate()
        if target and accuracy >= target:
            break
    answer = {"accuracy": accuracy, "epochs": epoch + 1, "peak_memory": _peak_memory()}
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Runs the contender that the command line names."""
    name, *rest = sys.argv[1:]
    if rest == ["grid"]:
        _serve(GRID_CONTENDERS[name]())
        return
    path, batch_size, *job = rest
    if job:
        epochs, target, seed = int(job[0]), float(job[1]), int(job[2])
        _job(CONTENDERS[name](Data(path, int(batch_size), seed)), epochs, target)
    else:
        _serve(CONTENDERS[name](Data(path, int(batch_size))))


if __name__ == "__main__":
    main()
