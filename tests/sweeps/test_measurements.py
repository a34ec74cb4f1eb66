"""Measurements on trained networks are done once, kept beside the run, and done again when they must be."""

import numpy as np
import pytest

from convjax.errors import UserError
from convjax.sweeps.frame import read_run
from convjax.sweeps.measurements import Measurement, measure
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run
from convjax.training.evaluation import evaluate


def test_a_measurement_sees_the_trained_network_and_is_kept(small, options):
    config = small.replace(epochs=1)
    [result] = execute([config], "study", options, Reporter())
    run = Run.of(options.workdir, "study", config)
    seen = []

    def accuracy(trained):
        seen.append(trained.config)
        return {"accuracy": evaluate(trained.task, trained.params, trained.dataset.test).accuracy}

    first = measure(run, [Measurement("accuracy", accuracy)], options)
    assert first == {"accuracy": {"accuracy": result["test_accuracy"]}}
    assert seen == [config]
    assert measure(run, [Measurement("accuracy", accuracy)], options) == first
    assert len(seen) == 1
    # Another version, and a damaged file, are measured again.
    measure(run, [Measurement("accuracy", accuracy, version=2)], options)
    assert len(seen) == 2
    (run.path / "measured" / "accuracy.json").write_text('{"version": 2, "va')
    assert measure(run, [Measurement("accuracy", accuracy, version=2)], options) == first
    assert len(seen) == 3
    # What comes back the first time is what is read the second: JSON.
    tuples = measure(run, [Measurement("pair", lambda trained: (1, 2))], options)
    assert tuples == measure(run, [Measurement("pair", lambda trained: (1, 2))], options) == {"pair": [1, 2]}
    with pytest.raises(TypeError):
        measure(run, [Measurement("array", lambda trained: np.zeros(2))], options)
    assert not (run.path / "measured" / "array.json").exists()
    # The run itself is as it was.
    assert read_run(run)["status"] == "done"


def test_a_run_without_a_checkpoint_cannot_be_measured(small, options):
    run = Run.of(options.workdir, "study", small)
    with pytest.raises(UserError, match="is not a run folder"):
        measure(run, [Measurement("x", lambda trained: 0)], options)
