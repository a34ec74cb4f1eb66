"""What tests of runs and sweeps share: a small run, sweeps of it, their reporters, and what a store then holds."""

from pathlib import Path

from convjax.config import RunConfig
from convjax.sweeps.frame import find_runs
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter
from convjax.sweeps.sweep import Sweep
from convjax.training.checkpoint import load_params, state_digest

ROOT = Path(__file__).parents[2]
SMALL = RunConfig(dataset="mnist_5k", train_size=200, channels="4-6", dense_units="8", epochs=2)
TIMES = ("seconds", "resumed_at_step")
"""What two runs of one configuration may differ in."""


class Recorder:
    """A SweepReporter that remembers the runs that began, and the status of those that are over, in order."""

    def __init__(self):
        self.over = {}
        self.begun = []

    def started(self, config):
        self.begun.append(config)
        return Reporter()

    def watch(self, running):
        pass

    def finished(self, config, status, reason):
        self.over[config] = status


class Printer(Recorder):
    """A SweepReporter that prints the runs that begin, for another process to read with `begun`."""

    def started(self, config):
        print("RUN", config.digest, flush=True)
        return Reporter()


def begun(text):
    """The digests that a `Printer` printed."""
    return [line.split()[1] for line in text.splitlines() if line.startswith("RUN")]


def make_sweep(small, workdir, kernels=("3", "2"), seeds=2, **options):
    """A sweep of `small` with each of `kernels`."""
    arms = tuple(tuple(small.replace(kernel_size=k, seed=seed) for seed in range(seeds)) for k in kernels)
    return Sweep("study", arms, Options(workdir=str(workdir), **options))


def outcome(run):
    """Everything but times that a finished run holds, without its checkpoints."""
    result = {name: value for name, value in run.result().items() if name not in TIMES}
    metrics = [{name: value for name, value in line.items() if name != "seconds"} for line in run.metrics()]
    return result, metrics, (run.path / "predictions.npy").read_bytes()


def outcome_and_weights(run):
    """The outcome, and the digest of the weights in the newest checkpoint."""
    return *outcome(run), state_digest(load_params(run.path)[2])


def outcomes(workdir):
    """The outcome of every run of a store."""
    return {(run.experiment, run.digest): outcome(run) for run in find_runs([workdir])}
