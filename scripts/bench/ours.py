"""This library as the benchmark drives it: the only part of the benchmark that knows `convjax.training` and `nn`."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.convolutions import Cell
from bench.task import CLASSES, Data
from convjax.config import RunConfig
from convjax.data import Dataset, Split
from convjax.nn.conv import Block, chunk_size, conv_stack_batch_last, tiling
from convjax.nn.geometry import output_size, plan, total_flops
from convjax.training import backend, devices, feed, loop
from convjax.training.evaluation import evaluate
from convjax.training.hooks import EpochMetrics, Hooks
from convjax.training.program import Program
from convjax.training.steps import EpochData, Task, initial_state, make_keys

environment = backend.environment
profile = jax.profiler.trace


class Convjax:
    """The chapter's run as a contender, see `serve`."""

    def __init__(self, data: Data, precision: str = "float32"):
        backend.enable_compilation_cache()
        self.data = data
        config = RunConfig(batch_size=data.batch_size, precision=precision, seed=data.seed)
        self.task = Task.of(config, data.images.shape[1:], CLASSES, len(data.labels))
        start = time.perf_counter()
        self.program = Program.compile(self.task)
        self.compile_seconds = time.perf_counter() - start
        self.keys = make_keys(data.seed)
        self.state = initial_state(config, self.task)
        self.images, self.labels = jax.device_put((data.images, data.labels))
        self.order = self.program.order([self.keys], 0)
        self.epochs = 0

    def steps(self, count: int) -> None:
        data = EpochData(self.images, self.labels, self.order)
        self.state = self.program.train(self.state, data, np.int32(0), np.int32(count), self.keys)
        jax.block_until_ready(self.state)

    def epoch(self) -> None:
        self.epochs += 1
        self.order = self.program.order([self.keys], self.epochs)
        self.steps(self.task.steps_per_epoch)

    def evaluate(self) -> float:
        split = Split(self.data.test_images, self.data.test_labels)
        return evaluate(self.task, self.state.params, split).accuracy


class Convolution:
    """Our convolution as a contender of `convolutions`: a loop on the device.

    As in the training step, the batch is the last axis of the images, and a large batch is computed in parts.
    """

    compile_seconds = 0.0

    def __init__(self) -> None:
        backend.enable_compilation_cache()

    def prepare(self, cell: Cell) -> None:
        images, kernel = cell.arrays()
        parts = images.reshape(2, -1, chunk_size(cell.batch), *images.shape[2:]).transpose(0, 1, 5, 3, 4, 2)
        block = Block((cell.stride, cell.stride), cell.padding)
        bias = jnp.zeros(cell.filters, jnp.float32)

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
        self.state = jax.block_until_ready(self.program(count, self.state))


def seeds_together(runs: int, dataset: Dataset, batch_size: int, rounds: int) -> tuple[float, list[float]]:
    """Seconds to compile `runs` seeds as one program over all devices, and seconds of an epoch of all, each round."""
    configs = [RunConfig(dataset=dataset.name, batch_size=batch_size, seed=seed) for seed in range(runs)]
    examples = len(dataset.train.labels)
    task = Task.of(configs[0], dataset.image_shape, dataset.num_classes, examples)
    chosen = devices.choose("auto", runs=runs)
    start = time.perf_counter()
    program = Program.compile(task, replicas=runs if runs > 1 else 0, devices=chosen)
    compiled = time.perf_counter() - start
    all_keys = [make_keys(config.seed) for config in configs]
    keys, order = program.stack(all_keys), program.order(all_keys, 0)
    state = program.stack([initial_state(config, task) for config in configs])
    data = EpochData(*program.put((dataset.train.images, dataset.train.labels, order)))

    def train(stop: int, state: Any) -> Any:
        bounds = chosen.put(np.int32(0)), chosen.put(np.int32(stop))
        return jax.block_until_ready(program.train(state, data, *bounds, keys))

    state = train(min(20, task.steps_per_epoch), state)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        state = train(task.steps_per_epoch, state)
        seconds.append(time.perf_counter() - start)
    return compiled, seconds


def epoch_seconds(config: RunConfig, dataset: Dataset, *, streaming: bool) -> float:
    """Seconds of the only epoch of a run."""
    backend.enable_compilation_cache()
    task = Task.of(config, dataset.image_shape, dataset.num_classes, len(dataset.train.labels))
    chunk = feed.chunk_steps(dataset.train, config.batch_size) if streaming else 0
    hooks = _Seconds()
    loop.fit(Program.compile(task, chunk_steps=chunk), [initial_state(config, task)], [config.seed], dataset, hooks)
    return hooks.seconds


class _Seconds(Hooks):
    """Notes how long the last epoch took."""

    seconds = 0.0

    def on_epoch(self, index: int, metrics: EpochMetrics, state: Any) -> None:
        self.seconds = metrics.seconds


def step_flops(batch_size: int) -> int:
    """Floating-point operations of a step of the chapter's network, counted as plain convolution."""
    # Backward takes two products where forward takes one: to the weights and to the input.
    return 3 * total_flops(plan(RunConfig(), (28, 28, 1), CLASSES)) * batch_size


def algorithm(kernel: int, padding: str, stride: int, size: int, channels: tuple[int, int]) -> str:
    """How `--conv=auto` computes a convolution on CPU: `patches`, `F(m, r)`, or that in two groups of columns.

    Args:
      size: of the square image.
      channels: in and out.
    """
    tile, groups = tiling((kernel, kernel, *channels), stride, output_size(size, kernel, stride, padding))
    return "patches" if tile == 1 else f"F({tile}, {-(-kernel // (groups * stride))})" + " x 2" * (groups == 2)
