"""One run on disk: what it writes, running it twice, going on after interruption, divergence."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convjax.config import FIELD_NAMES
from convjax.errors import UserError
from convjax.sweeps.frame import read_correct, read_runs
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.run import Reporter, execute, result_line
from convjax.sweeps.runner import run_sweep
from convjax.sweeps.store import Run
from convjax.sweeps.sweep import Sweep
from convjax.training.checkpoint import kept_steps

ROOT = Path(__file__).parents[2]

# What two runs of one configuration may differ in.
TIMES = ("seconds", "resumed_at_step")


def outcome(run):
    result = {name: value for name, value in run.result().items() if name not in TIMES}
    metrics = [{name: value for name, value in line.items() if name != "seconds"} for line in run.metrics()]
    return result, metrics, np.load(run.path / "predictions.npy").tobytes()


def test_a_run_writes_what_the_design_says(small, options):
    [result] = execute([small], "study", options, Reporter())
    run = Run.of(options.workdir, "study", small)
    assert run.path == Path(options.workdir) / "study" / small.digest
    config = run.config()
    assert {name: config[name] for name in FIELD_NAMES} == small.to_dict()
    assert {"versions", "backend", "git_revision"} <= set(config)
    assert json.loads((run.path / "result.json").read_text()) == result
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    predictions = np.load(run.path / "predictions.npy", allow_pickle=False)
    assert predictions.shape == (1000,)
    assert result["test_accuracy"] == read_correct(run.path).mean()
    labels = np.load(run.path / "labels.npy")
    for name, accuracy in result["per_class_accuracy"].items():
        assert accuracy == pytest.approx((predictions[labels == int(name)] == int(name)).mean())
    seconds = result["seconds"]
    assert set(seconds) == {"data", "compile", "train", "eval", "total"}
    assert sum(seconds[part] for part in ("data", "compile", "train", "eval")) <= seconds["total"] * 1.01
    assert re.fullmatch(
        r"test accuracy: \d+\.\d\d%  test loss: \d+\.\d{4}  "
        r"\(mnist_5k, seed 0, 2 epochs, 6,168 parameters, \d+\.\d s\)",
        result_line(small, result),
    )


def test_a_second_time_does_nothing_and_noresume_sets_aside(small, options):
    execute([small], "study", options, Reporter())
    run = Run.of(options.workdir, "study", small)
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    execute([small], "study", options, Reporter())
    assert before == {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    first = outcome(run)
    anew = type(options)(workdir=options.workdir, resume=False)
    execute([small], "study", anew, Reporter())
    assert outcome(run) == first  # the same bits, from the start
    assert run.path.with_name(f"{run.digest}.old-1").is_dir()


def test_a_divergent_run_is_an_outcome(small, options):
    config = small.replace(learning_rate=1e30, optimizer="sgd")
    [result] = execute([config], "study", options, Reporter())
    assert result["status"] == "diverged"
    assert "learning_rate" in result["reason"]
    assert 0 <= result["test_accuracy"] <= 1
    assert "NaN" not in (Run.of(options.workdir, "study", config).path / "result.json").read_text()


def test_an_impossible_network_or_split_is_the_users_error(small, options):
    with pytest.raises(UserError, match="conv2d_2"):
        execute([small.replace(kernel_size="20")], "study", options, Reporter())
    with pytest.raises(UserError):
        execute([small.replace(train_size=4000, validation_size=10)], "study", options, Reporter())


def test_tensorboard_events_are_the_metrics(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from convjax.sweeps.options import Options

    options = Options(workdir=str(tmp_path), tensorboard=True)
    execute([small], "study", options, Reporter())
    run = Run.of(options.workdir, "study", small)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    written = [(event.step, event.value) for event in events.Scalars("accuracy/train")]
    assert written == [(line["step"], pytest.approx(line["train_accuracy"])) for line in run.metrics()]
    for quantity in ("weight_norm", "gradient_norm", "dead_channels"):
        for layer in run.metrics()[0][quantity]:
            written = [event.value for event in events.Scalars(f"{quantity}/{layer}")]
            assert written == [pytest.approx(line[quantity][layer]) for line in run.metrics()]
    assert "tensorflow" not in sys.modules


def command(workdir, *more):
    flags = ["--dataset=mnist_5k", "--train_size=500", "--channels=4-6", "--dense_units=8", "--epochs=30", *more]
    return [sys.executable, "-m", "experiments.train", f"--workdir={workdir}", *flags]


def start(workdir, *more):
    return subprocess.Popen(
        command(workdir, *more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def wait_for(process, happened):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if happened():
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError(process.communicate())


def has_epochs(workdir, count):
    return lambda: any(path.read_bytes().count(b"\n") >= count for path in Path(workdir).glob("train/*/metrics.jsonl"))


def has_checkpoint(workdir):
    return lambda: any(kept_steps(path) for path in Path(workdir).glob("train/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_costs_nothing_that_the_same_command_does_not_bring_back(number, tmp_path):
    # Epochs this short are not kept each: what is killed goes on from the first that is.
    more = ["--epochs=90"] if number == signal.SIGKILL else []
    undisturbed = start(tmp_path / "a", *more)
    disturbed = start(tmp_path / "b", *more)
    wait_for(disturbed, has_checkpoint(tmp_path / "b") if number == signal.SIGKILL else has_epochs(tmp_path / "b", 3))
    disturbed.send_signal(number)
    _, errors = disturbed.communicate(timeout=120)
    assert disturbed.returncode == (-9 if number == signal.SIGKILL else 130), errors
    if number != signal.SIGKILL:
        assert errors.startswith("train: interrupted")
    assert not list((tmp_path / "b").glob("train/*/result.json"))
    again = start(tmp_path / "b", *more)
    out, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert out.splitlines()[-1].startswith("test accuracy: ")
    out, errors = undisturbed.communicate(timeout=240)
    assert undisturbed.returncode == 0, errors
    [one] = (Run(path.parent) for path in (tmp_path / "a").glob("train/*/result.json"))
    [other] = (Run(path.parent) for path in (tmp_path / "b").glob("train/*/result.json"))
    assert other.result()["resumed_at_step"] > 0
    assert outcome(one) == outcome(other)


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path):
    for flag in ("--kernel_size=30", "--nosuchflag=1", "--padding=full", "--epochs=x", "--dataset=mnist_5k_x"):
        done = subprocess.run(command(tmp_path, flag), cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2, (flag, done.stderr)
        assert done.stderr.startswith("train: "), flag
        assert done.stderr.count("\n") == 1, (flag, done.stderr)
        assert "Traceback" not in done.stderr


def test_two_classes_have_a_sigmoid_unit_and_an_area_under_the_curve(small, options, monkeypatch):
    """0 against 1, with early stopping: its result is that of the best epoch's weights."""
    from convjax import data
    from convjax.sweeps import run as module
    from convjax.training.checkpoint import load_params
    from convjax.training.evaluation import predict, roc_auc

    ten = data.load("mnist_5k", train_size=1000, validation_size=100)

    def two(split):
        chosen = split.labels < 2
        return data.Split(split.images[chosen], split.labels[chosen])

    dataset = dataclasses.replace(
        ten, class_names=("0", "1"), train=two(ten.train), validation=two(ten.validation), test=two(ten.test)
    )
    monkeypatch.setattr(module, "load_dataset", lambda *arguments: dataset)
    config = small.replace(
        model="small_data", channels="3-4", learning_rate=1e-2, epochs=12, early_stopping=1, validation_size=100
    )
    [result] = execute([config], "study", options, Reporter())
    run = Run.of(options.workdir, "study", config)
    assert result["test_accuracy"] > 0.9
    lines = run.metrics()
    best = min(lines, key=lambda line: line["validation_loss"])
    assert result["best_epoch"] == best["epoch"] < result["epochs"] == len(lines)
    assert result["validation_loss"] == best["validation_loss"]
    assert result["validation_auc"] == best["validation_auc"]
    assert f"test AUC: {result['test_auc']:.4f}" in result_line(config, result)
    assert read_runs([options.workdir])["test_auc"].tolist() == [result["test_auc"]]
    # The weights that explain and convert take are those the result is of.
    _, task, params = load_params(run.path)
    logits = np.asarray(predict(params, dataset.test.images, task=task))
    assert result["test_auc"] == roc_auc(logits[:, 1], dataset.test.labels == 1)
    assert result["test_accuracy"] == ((logits[:, 1] > 0) == dataset.test.labels).mean()


def test_early_stopping_without_validation_images_is_refused_before_anything_runs(small, options):
    config = small.replace(early_stopping=2)
    with pytest.raises(UserError, match=r"--early_stopping=2 .* such as --validation_size=1000"):
        execute([config], "study", options, Reporter())
    assert not (Path(options.workdir) / "study" / config.digest / "config.json").exists()
    sweep = Sweep("study", ((config,),), options)
    with pytest.raises(UserError, match="--early_stopping=2"):
        run_sweep(sweep, SweepOptions(), None)
