"""What runs in a contender's process.

As a worker (`python -m bench.serve NAME DATA.npz BATCH_SIZE`) it reads a command a line from stdin and answers each
with a line of JSON: `steps N`, `epoch`, `evaluate`, `profile FOLDER N`. As a job (`... EPOCHS TARGET SEED`) it trains,
evaluates and ends. `NAME grid` measures convolutions: `cell BATCH KERNEL_SIZE PADDING STRIDE SIZE CHANNELS FILTERS`,
then `iterate N`.

A contender has `steps(count)`, `epoch()`, `evaluate() -> accuracy` and `compile_seconds`. All train the chapter's
network with RMSprop on the same images in batches of one size. Every epoch is shuffled and ends with its short batch.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import bench
from bench.task import Data

CONTENDERS: dict[str, Callable[[Data], Any]] = {
    "convjax": lambda data: bench.ours.Convjax(data),
    "convjax-tf32": lambda data: bench.ours.Convjax(data, "tf32"),
    "convjax-bfloat16": lambda data: bench.ours.Convjax(data, "bfloat16"),
    "torch": lambda data: bench.peers.Torch(data),
    "torch-channels_last": lambda data: bench.peers.Torch(data, channels_last=True),
    "torch-compile": lambda data: bench.peers.Torch(data, compiled=True),
    "torch-float32": lambda data: bench.peers.Torch(data, exact=True),
    "torch-graphs": lambda data: bench.peers.Torch(data, graphs=True),
    "keras-tensorflow": lambda data: bench.peers.Keras(data, "tensorflow"),
    "keras-jax": lambda data: bench.peers.Keras(data, "jax"),
    "keras-torch": lambda data: bench.peers.Keras(data, "torch"),
    "flax-naive": lambda data: bench.peers.FlaxNaive(data),
}
CONVOLUTIONS: dict[str, Callable[[], Any]] = {
    "convjax": lambda: bench.ours.Convolution(),
    "xla": lambda: bench.convolutions.Xla(),
    "torch": lambda: bench.convolutions.Torch(),
    "torch-channels_last": lambda: bench.convolutions.Torch(channels_last=True),
}


def serve(contender: Any) -> None:
    """Answers commands until stdin ends."""
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
        elif word == "profile":
            with bench.ours.profile(arguments[0]):
                contender.steps(int(arguments[1]))
        elif word == "cell":
            batch, kernel_size, padding, *rest = arguments
            contender.prepare(bench.convolutions.Cell(int(batch), int(kernel_size), padding, *map(int, rest)))
        elif word == "iterate":
            contender.iterate(int(arguments[0]))
        print(json.dumps({**answer, "seconds": time.perf_counter() - start, "peak_memory": _peak_memory()}), flush=True)


def train(contender: Any, epochs: int, target: float) -> None:
    """Trains for `epochs` and evaluates; with a `target`, evaluates each epoch and stops at the one that reaches it."""
    accuracy = 0.0
    epoch = 0
    for epoch in range(1, epochs + 1):
        contender.epoch()
        if target or epoch == epochs:
            accuracy = contender.evaluate()
        if target and accuracy >= target:
            break
    print(json.dumps({"accuracy": accuracy, "epochs": epoch, "peak_memory": _peak_memory()}), flush=True)


def _peak_memory() -> int:
    """Bytes of this process's largest resident set."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Runs the contender that the command line names."""
    name, *rest = sys.argv[1:]
    if rest == ["grid"]:
        serve(CONVOLUTIONS[name]())
        return
    path, batch_size, *job = rest
    if job:
        epochs, target, seed = int(job[0]), float(job[1]), int(job[2])
        train(CONTENDERS[name](Data(path, int(batch_size), seed)), epochs, target)
    else:
        serve(CONTENDERS[name](Data(path, int(batch_size))))


if __name__ == "__main__":
    main()
