"""The store: results written and read back, damage, tables of runs."""

import json
import os

import numpy as np
import pytest

from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UserError
from convjax.sweeps.frame import find_runs, read_correct, read_run, read_runs
from convjax.sweeps.lock import Locked
from convjax.sweeps.store import Run

RESULT = {
    "status": "done",
    "reason": "",
    "test_accuracy": 0.9,
    "test_loss": 0.3,
    "train_accuracy": 0.95,
    "train_loss": 0.1,
    "validation_accuracy": None,
    "validation_loss": None,
    "parameters": 10,
    "flops": 20,
    "dataset_fingerprint": "abc",
    "seconds": {"data": 0.1, "compile": 0.2, "train": 1.0, "eval": 0.1, "total": 1.5},
}


def finished(tmp_path, config, **changes):
    run = Run.of(tmp_path, "study", config)
    run.path.mkdir(parents=True, exist_ok=True)
    run.start(config, {"backend": "cpu", "versions": {"jax": "0"}, "git_revision": "g", "host": "h"})
    run.finish({**RESULT, **changes}, np.array([1, 2, 3]), np.array([1, 2, 0]))
    return run


def test_a_finished_run_reads_back(tmp_path):
    config = RunConfig(kernel_size="5-3-3", learning_rate=3e-4, seed=4)
    run = finished(tmp_path, config)
    frame = read_runs([tmp_path])
    assert len(frame) == 1
    row = frame.iloc[0]
    for name in FIELD_NAMES:
        assert row[name] == getattr(config, name)
    assert (row["status"], row["experiment"], row["digest"]) == ("done", "study", config.digest)
    assert (row["test_accuracy"], row["parameters"], row["seconds"], row["seconds_train"]) == (0.9, 10, 1.5, 1.0)
    assert np.isnan(row["validation_accuracy"])
    np.testing.assert_array_equal(read_correct(row["path"]), [True, True, False])
    assert run.result()["test_loss"] == 0.3


def test_each_run_is_found_once_at_any_depth(tmp_path):
    for seed in range(3):
        finished(tmp_path / "a", RunConfig(seed=seed))
    run = finished(tmp_path / "b", RunConfig(seed=0))
    assert len(find_runs([tmp_path])) == 4
    assert len(find_runs([tmp_path / "a", tmp_path / "a" / "study", tmp_path])) == 4
    assert [found.digest for found in find_runs([run.path])] == [run.digest]
    with pytest.raises(UserError, match="not a folder"):
        find_runs([tmp_path / "none"])


def test_an_empty_store_is_an_empty_frame(tmp_path):
    frame = read_runs([tmp_path])
    assert frame.empty
    assert {"status", "test_accuracy", "kernel_size"} <= set(frame.columns)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda run: (run.path / "result.json").write_text("[1]"), "damaged"),
        (lambda run: (run.path / "result.json").write_text("{}"), "damaged"),
        (lambda run: (run.path / "config.json").write_text("\x00\x01"), "damaged"),
        (lambda run: (run.path / "result.json").unlink(), "unfinished"),
    ],
)
def test_damage_is_told_apart_from_unfinished_and_never_counts(tmp_path, spoil, status):
    run = finished(tmp_path, RunConfig())
    spoil(run)
    row = read_run(run)
    assert row["status"] == status
    assert row["reason"]
    assert "test_accuracy" not in row or row["status"] == "damaged"
    assert len(read_runs([tmp_path])) == 1


def test_a_failure_is_recorded_and_forgotten_by_the_next_try(tmp_path):
    config = RunConfig()
    run = Run.of(tmp_path, "study", config)
    run.path.mkdir(parents=True)
    run.start(config, {})
    run.fail(RuntimeError("out of memory"), "trace")
    assert read_run(run)["status"] == "failed"
    assert "out of memory" in read_run(run)["reason"]
    run.start(config, {})
    assert read_run(run)["status"] == "unfinished"


def test_metrics_survive_a_cut_last_line_and_are_taken_back(tmp_path):
    run = Run(tmp_path)
    for epoch in range(1, 4):
        run.add_metrics({"epoch": epoch, "step": 10 * epoch})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "st')
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    run.truncate_metrics(20)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_reset_sets_aside_and_deletes_nothing(tmp_path):
    run = finished(tmp_path, RunConfig())
    for expected in ("old-1", "old-2"):
        run.reset()
        assert run.result() is None
        aside = run.path.with_name(f"{run.digest}.{expected}")
        assert json.loads((aside / "result.json").read_text())["test_accuracy"] == 0.9
        run.finish(RESULT, np.array([1]), np.array([1]))
    assert len(find_runs([tmp_path])) == 1


def test_a_run_names_its_last_owner(tmp_path):
    run = Run(tmp_path / "run")
    assert run.owner_pid() is None
    with run.lock():
        with pytest.raises(Locked, match="is being run by process"):
            run.lock()
        assert run.owner_pid() == os.getpid()
    run.lock().close()
    assert run.owner_pid() == os.getpid()
