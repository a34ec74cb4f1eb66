"""`python -m experiments.convert` on a run of its own: what goes out comes back with the run's accuracy."""

import subprocess
import sys
from pathlib import Path

import pytest

from convjax.config import RunConfig
from convjax.convert import load_keras_model
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run

ROOT = Path(__file__).parent.parent
NETWORK = {"model": "dense", "dense_units": "4", "dropout": "0.5"}


def convert(*arguments):
    command = [sys.executable, "-m", "experiments.convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = RunConfig(dataset="mnist_5k", train_size=200, epochs=1, **NETWORK)
    options = Options(workdir=str(tmp_path_factory.mktemp("runs")))
    execute([config], "study", options, Reporter())
    return Run.of(options.workdir, "study", config)


def test_a_run_goes_to_keras_and_back(run, tmp_path):
    out = tmp_path / "digits.keras"
    done = convert(f"--run={run.path}", f"--out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    model = load_keras_model(out)
    assert model.config == RunConfig(**NETWORK)
    assert done.stdout == f"wrote {out}: {run.result()['parameters']:,} parameters; it takes images / 255\n"

    done = convert(f"--weights={out}", "--dataset=mnist_5k")
    assert done.stdout.startswith(f"test accuracy: {run.result()['test_accuracy']:.2%}  test loss: ")
    assert f"test loss: {run.result()['test_loss']:.4f}  (mnist_5k, {out}, " in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "convert: give --run=FOLDER and --out=FILE to export, or --weights=FILE to measure"),
        (["--weights=x.keras", "--channels=4"], 2, "convert: --channels has no effect: x.keras brings its own network"),
        (["--weights=none.weights.h5"], 2, "convert: none.weights.h5: no such file"),
        (["--run=none", "--out=x.keras"], 2, "convert: none is not a run folder"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments, code, message):
    done = convert(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_without_keras_one_line_says_how_to_get_it():
    program = (
        "import runpy, sys; sys.modules['keras'] = None; sys.argv = ['convert', '--run=none', '--out=x.keras'];"
        "runpy.run_module('experiments.convert', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "convert: this needs Keras; install it: pip install 'convjax[keras]'\n"
