"""The experiment scripts as a user starts them."""

import importlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convjax.config import RunConfig
from convjax.sweeps.grid import make_grid, product

ROOT = Path(__file__).parent.parent

# Smaller than --quick alone, so that each script takes seconds; axes are cut to two values.
TINY = ["--quick", "--train_size=200", "--nodiagnostics"]
NARROW = ["--channels=4-6-6", "--dense_units=8"]
STUDIES = {
    "kernel_size": [*NARROW, "--kernel_size=1,3"],
    "padding": ["--dense_units=8", "--padding=valid,same", "--kernel_size=3", "--channels=4-6"],
    "stride": NARROW,
    "pooling": NARROW,
    "depth": ["--dense_units=8", "--channels=4,4-6"],
    "width": ["--dense_units=8", "--channels=2-3-3,4-6-6"],
    "activation": [*NARROW, "--activation=relu,tanh"],
    "optimizer": NARROW,
    "batch_size": [*NARROW, "--batch_size=32,64"],
    "learning_rate": [*NARROW, "--learning_rate=0.001,0.01"],
    "small_data": [*NARROW, "--epochs=2", "--dropout=0"],
    "grid": [*NARROW, "--kernel_size=2,3", "--padding=valid,same"],
}


def run(name, workdir, *flags, code=0, timeout=400):
    command = [sys.executable, "-m", f"experiments.{name}", f"--workdir={workdir}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, (done.stdout[-2000:], done.stderr[-3000:])
    return done


def visualize(path, out, *flags, code=0):
    command = [sys.executable, "-m", "experiments.visualize", f"--run={path}", f"--out={out}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, (done.stdout[-2000:], done.stderr[-3000:])
    return done


def test_every_study_is_tested_here():
    from tests.studies.test_claim_scripts import CLAIMS

    others = {"__init__", "train", "summary", "convert", "visualize", "geometry", "claims", *CLAIMS}
    assert {path.stem for path in (ROOT / "experiments").glob("*.py")} - others == set(STUDIES)


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "grid"])
def test_every_arm_of_a_study_is_possible(name):
    study = importlib.import_module(f"experiments.{name}").STUDY
    arms = [{**arm, **axes} for arm in study.arms or [{}] for axes in product(study.axes)]
    grid = make_grid(RunConfig(**study.base), arms, lambda *dataset, **settings: ((28, 28, 1), 10), match=study.match)
    assert len(grid.arms) >= 2
    assert not grid.invalid


# Only some run at every test: each compiles as many networks as it has arms.
_ALWAYS = ("grid", "kernel_size")


@pytest.mark.parametrize(
    "name", [name if name in _ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]
)
def test_a_study_ends_with_a_table_and_a_report(name, tmp_path):
    done = run(name, tmp_path, *TINY, *STUDIES[name])
    study = importlib.import_module(f"experiments.{name}").STUDY
    assert study.question in done.stdout
    folder = tmp_path / name
    results = list(folder.glob("*/result.json"))
    planned = int(re.search(r"(\d+) runs", done.stdout)[1])
    assert len(results) == planned >= 4
    table = (folder / "table.md").read_text()
    assert table.count("\n| ") >= planned // 2  # an arm has two seeds
    assert "parameters" in table
    report = (folder / "report.html").read_text()
    assert study.question.split("?")[0] in report.replace("&#x27;", "'")
    # The second time nothing is left to do, and the table is the same.
    again = run(name, tmp_path, *TINY, *STUDIES[name])
    assert f"{planned} done" in again.stdout
    assert (folder / "table.md").read_text() == table


def test_impossible_arms_stop_a_grid_before_anything_runs(tmp_path):
    flags = [*TINY, "--kernel_size=3,5", "--padding=valid"]
    done = run("grid", tmp_path, *flags, code=2)
    assert "impossible: kernel_size=5" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("grid: 1 of 2 arms is impossible")
    assert not list(tmp_path.glob("grid/*/result.json"))
    done = run("grid", tmp_path, *flags, *NARROW, "--skip_invalid")
    assert len(list(tmp_path.glob("grid/*/result.json"))) == 2


def test_a_failed_arm_shows_in_exit_code_and_table(tmp_path):
    flags = ["--quick", *NARROW, "--train_size=100,4500", "--seeds=2"]
    done = run("grid", tmp_path, *flags, code=1)
    assert "2 of 4 runs failed" in done.stderr
    assert "4500" in done.stdout.replace(",", "")
    assert "failed" in (tmp_path / "grid" / "table.md").read_text()


def test_train_prints_the_table_the_epochs_and_the_result(tmp_path):
    flags = ["--quick", *NARROW, "--train_size=200", "--validation_size=100", "--save_plots", "--tensorboard"]
    done = run("train", tmp_path, *flags)
    assert "Layer (type)" in done.stdout
    assert re.search(r"^epoch 1/1  loss \d\.\d{4}  accuracy \d+\.\d\d%  validation loss", done.stdout, re.MULTILINE)
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"test accuracy: \d+\.\d\d%  test loss: \d+\.\d{4}  \(mnist_5k, seed 0, 1 epoch, [\d,]+ parameters, [\d.]+ s\)",
        last,
    )
    [metrics] = tmp_path.glob("train/*/metrics.jsonl")
    assert set(json.loads(metrics.read_text())["dead_channels"]) == {"conv2d_1", "conv2d_2", "conv2d_3", "dense_1"}
    plots = sorted(path.name for path in tmp_path.glob("train/*/plots/*.png"))
    assert plots == ["confidently_wrong.png", "confusion_matrix.png", "learning_curves.png"]
    pictures = visualize(metrics.parent, tmp_path / "pictures", "--what=model,film")
    assert "film is left out: the film needs the checkpoints" in pictures.stdout
    assert {"layers.png", "layers.svg", "architecture.svg", "visualize.html"} <= {
        path.name for path in (tmp_path / "pictures").iterdir()
    }
    again = run("train", tmp_path, *flags)
    assert "done already" in again.stdout
    assert again.stdout.splitlines()[-1] == last


def test_summary_prints_the_chapters_table():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.summary", "--verbose"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert re.search(r"conv2d_1 \(Conv2D\) +\(None, 26, 26, 32\) +320 ", done.stdout)
    assert "Total params: 93,322" in done.stdout
    assert "Receptive field" in done.stdout


def geometry(*flags):
    command = [sys.executable, "-m", "experiments.geometry", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_geometry_prints_sizes_borders_and_drawings(tmp_path):
    done = geometry("--input=28", "--kernel_size=3", "--padding=valid", "--stride=2")
    assert done.returncode == 0
    assert done.stdout.startswith("28x28 -> conv2d_1 13x13\n")
    assert "lost     top 1, bottom 1, left 1, right 1" in done.stdout
    assert "..#o#......" in done.stdout
    path = tmp_path / "windows.svg"
    done = geometry("--input=9x8", "--kernel_size=5-3x2", "--padding=same-valid", "--pool=max", f"--svg={path}")
    assert done.stdout.startswith("9x8 -> conv2d_1 9x8 -> max_pooling2d_1 4x4 -> conv2d_2 2x3\n")
    assert path.read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input=28x"], "geometry: --input=28x: expected a size from 1 to 32768 such as 28, or HxW such as 28x32"),
        (["--input=2"], "geometry: conv2d_1 (Conv2D) cannot take input (2, 2, 1): its 3x3 kernel is larger"),
        (["--kernel_size=5-3", "--stride=1-1-1"], "geometry: --kernel_size has 2 values for 3 convolutions"),
        (["--svg=x.pdf"], "geometry: x.pdf: a figure is written as .png or .svg"),
    ],
)
def test_geometry_refuses_in_one_line(flags, message):
    done = geometry(*flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith(message)


def test_a_terminal_gets_a_progress_bar(tmp_path):
    """Through a pseudo-terminal, as a user sits before one."""
    main, child = pty.openpty()
    command = [sys.executable, "-m", "experiments.train", f"--workdir={tmp_path}", "--quick", *NARROW]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait() == 0
    text = shown.decode()
    assert "epoch 1/1" in text
    assert "ETA" in text
    assert re.search(r"\d+/63", text)
    assert "test accuracy: " in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--what=everything"], "'everything' is not known; expected all, or some of model, convolution"),
        (["--images=first"], "expected indices of test images"),
        ([], "is not a run folder"),
    ],
)
def test_visualize_refuses_in_one_line(flags, message, tmp_path):
    done = visualize(tmp_path, tmp_path / "out", *flags, code=2)
    [line] = done.stderr.splitlines()
    assert line.startswith("visualize: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("network", [NARROW, ["--model=dense", "--dense_units=16"]])
def test_visualize_draws_everything_of_a_run(network, tmp_path):
    run("train", tmp_path, "--quick", *network, "--epochs=2", "--train_size=500", "--keep_checkpoints=0")
    [metrics] = tmp_path.glob("train/*/metrics.jsonl")
    done = visualize(metrics.parent, tmp_path / "pictures", "--images=0,7")
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    expected = {"layers.svg", "film.gif", "why.png", "wrong.png", "inside.png", "filters.png"}
    expected |= {"convolution-same.gif", "convolution-image.gif", "visualize.html"}
    if network is NARROW:
        expected |= {"feature_maps-7.png", "responses-0.svg", "maximized-conv2d_2.png", "maximized-dense_2.svg"}
    else:
        assert "feature_maps is left out: a dense network has no feature maps" in done.stdout
    assert expected <= names
    page = (tmp_path / "pictures" / "visualize.html").read_text()
    assert page.count("<figure>") == page.count("<figcaption>") >= len(expected) - 2
    refused = visualize(metrics.parent, tmp_path / "more", "--what=film", "--images=5000", code=2)
    assert "there is no test image 5000; the last is 999" in refused.stderr
    one = visualize(metrics.parent, tmp_path / "more", "--step=4", "--what=model", code=2)
    assert "has no checkpoint of step 4" in one.stderr
