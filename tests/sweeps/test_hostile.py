"""The files of a run, damaged one at a time: everything that reads a run reads it, or refuses it in one clear error."""

import contextlib
import json

import numpy as np
import pytest

from convjax.analysis.tables import accuracy_table
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps import doctor
from convjax.sweeps.frame import read_correct, read_runs
from convjax.sweeps.store import Run
from tests.helpers.hostile import amounts, feed, json_bytes, mutated, nested
from tests.helpers.limits import read_or_refused

CONFIG = RunConfig()
# The damaged file, and the sound ones left out: without SHA256SUMS or a result, other readers are reached.
DAMAGED = {
    "config.json": ["SHA256SUMS"],
    "result.json": ["SHA256SUMS"],
    "failure.json": ["result.json"],
    "metrics.jsonl": ["result.json"],
    "predictions.npy": ["SHA256SUMS"],
    "SHA256SUMS": [],
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The content of each file of a run that has finished, and failed before."""
    run = Run.of(tmp_path_factory.mktemp("sound"), "study", CONFIG)
    run.path.mkdir(parents=True)
    run.start(CONFIG, {"backend": "cpu", "versions": {"jax": "0"}, "git_revision": None, "host": "h"})
    for epoch in (1, 2):
        run.add_metrics({"epoch": epoch, "step": 10 * epoch, "train_loss": 0.5, "train_accuracy": 0.9, "seconds": 1.0})
    numbers = dict.fromkeys(("test_accuracy", "test_loss", "train_accuracy", "train_loss"), 0.5)
    result = {"status": "done", "reason": "", **numbers, "parameters": 10, "flops": 20, "dataset_fingerprint": "abc"}
    run.finish({**result, "seconds": {"train": 1.0, "total": 1.5}}, np.array([1, 2, 3]), np.array([1, 2, 0]))
    run.fail(RuntimeError("out of memory"), "trace")
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}


def read_all(run):
    """Reads a run in every way there is, and makes a table of it."""
    frame = read_runs([run.path.parent])
    doctor.examine([run.path.parent], checkpoints=False)
    run.last_metrics()
    for read in (run.metrics, lambda: read_correct(run.path)):
        with contextlib.suppress(UserError):
            read()
    if frame["status"][0] != "damaged":  # tables take most of the time, and leave out damaged runs
        with contextlib.suppress(UserError):
            accuracy_table(frame)


@amounts(25, 1_000)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_run_with_a_damaged_file_is_read_or_refused(sound, tmp_path, name, examples):
    assert name in sound
    run = Run(tmp_path / "arena" / "study" / CONFIG.digest)
    run.path.mkdir(parents=True)

    def check(content):
        for other, sound_content in sound.items():
            (run.path / other).unlink(missing_ok=True)
            if other not in DAMAGED[name]:
                (run.path / other).write_bytes(sound_content)
        (run.path / name).write_bytes(content)
        read_or_refused(lambda: read_all(run), run.path.parent)

    if not name.endswith(".json"):
        feed(mutated(sound[name]), check, examples)
        return
    value = json.loads(sound[name])
    lists = [json.dumps({**value, key: []}).encode() for key in value]
    feed(json_bytes(value), check, examples, always=[nested(sound[name]), *lists])
