"""Tables of runs as `convjax.sweeps.frame.read_runs` returns them, without running anything."""

import math

import pandas as pd
import pytest

from convjax.config import RunConfig


def run_row(config, accuracy=math.nan, *, status="done", reason="", experiment="ablation", **more):
    """One row of the store for one run; `more` overrides result columns."""
    row = {
        "experiment": experiment,
        "digest": config.digest,
        "path": f"runs/{experiment}/{config.digest}",
        "status": status,
        "reason": reason,
        **config.to_dict(),
        "test_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "train_accuracy": accuracy,
        "validation_accuracy": math.nan,
        "parameters": 93_322,
        "flops": 5_000_000,
        "seconds": 40.0 + config.seed,
        "seconds_train": 30.0,
        "dataset_fingerprint": f"fingerprint-of-{config.dataset}",
        "backend": "cpu",
        "git_revision": "0123456789abcdef",
        "versions": "jax 0.10.2",
    }
    return {**row, **more}


@pytest.fixture
def runs():
    """A function from `[(fields, [accuracy of seed 0, of seed 1, ...]), ...]` to a table of finished runs.

    None in place of an accuracy leaves that seed out.
    """

    def make(arms, **more):
        rows = [
            run_row(RunConfig(**fields, seed=seed), accuracy, **more)
            for fields, accuracies in arms
            for seed, accuracy in enumerate(accuracies)
            if accuracy is not None
        ]
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def row():
    """`run_row`, for runs that are not simply finished."""
    return run_row
