"""scripts/compare.py as its users run it, on run folders written by the store."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.sweeps.store import Run

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare.py"
LABELS = np.arange(1000) % 10

# Wrong test images of every run, of 1,000.
WRONG = {
    ("3", "same"): [18, 17, 21, 19],
    ("3", "valid"): [20, 19, 21, 20],
    ("5", "same"): [9, 8, 11, 10],
    ("5", "valid"): [21, 18, 22, 19],
}


def write_run(workdir, config, wrong):
    run = Run.of(workdir, "kernel_size", config)
    run.path.mkdir(parents=True)
    run.start(config, {"backend": "cpu", "git_revision": "0" * 40, "host": "machine", "versions": {"jax": "0.10.2"}})
    result = {
        "status": "done",
        "test_accuracy": 1 - wrong / 1000,
        "test_loss": wrong / 500,
        "train_accuracy": 1.0,
        "parameters": 93_322,
        "flops": 5_000_000,
        "dataset_fingerprint": f"of {config.dataset}",
        "seconds": {"total": 40.0, "train": 30.0},
    }
    # The first images are the hard ones: of two runs one is right wherever the other is, and on some more.
    run.finish(result, np.where(np.arange(1000) < wrong, (LABELS + 1) % 10, LABELS), LABELS)
    return run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """16 finished runs of 4 arms, one failed and one damaged."""
    workdir = tmp_path_factory.mktemp("runs")
    for (kernel, padding), wrongs in WRONG.items():
        for seed, wrong in enumerate(wrongs):
            write_run(workdir, RunConfig(kernel_size=kernel, padding=padding, seed=seed), wrong)
    failed = Run.of(workdir, "kernel_size", config := RunConfig(kernel_size="5", seed=4))
    failed.path.mkdir()
    failed.start(config, {})
    failed.fail(MemoryError("out of memory"), "Traceback ...")
    damaged = write_run(workdir, RunConfig(kernel_size="5", seed=5), 20)
    (damaged.path / "config.json").write_text("{")
    return workdir


def compare(*arguments, **more):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", **more
    )


def test_markdown_with_a_baseline(workdir):
    done = compare(workdir, "--by=kernel_size,padding", "--baseline=kernel_size=3,padding=valid", "--format=markdown")
    assert (done.returncode, done.stderr) == (0, "")
    header, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert header.startswith("| kernel_size | padding | seeds | test accuracy (%) | 95 % interval |")
    # Wrong of kernel_size=5, padding=same: 38 of 4,000, right 99.05 %; baseline 80 of 4,000. Differences in points
    # 1.1, 1.1, 1.0, 1.0: mean 1.05, sd 0.0577, t(0.975, 3) 3.182446: half-width 0.092. Best by far in every seed.
    assert rows[2] == (
        "| 5 | same | 4 | **99.05 ± 0.13** | [98.84, 99.26] | 99.20 (1) | 98.90 (2) | 93,322 | 5.00 M | 40.0 | 0 "
        "| +1.05 [+0.96, +1.14] | +18.19 | <0.001 | better | — |"
    )
    assert [row.split(" | ")[-2] for row in rows] == [
        "no difference shown",
        "baseline",
        "better",
        "no difference shown",
    ]
    assert "- 18 runs: 16 done; left out: " in done.stdout
    assert "1 failed (MemoryError: out of memory)" in done.stdout
    assert "1 damaged (" in done.stdout


def test_text_fits_the_terminal_and_its_characters(workdir):
    done = compare(workdir, env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith("Test accuracy (%) by kernel_size and padding (mnist)\n")
    assert "99.05 ? 0.13 *" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_csv_is_one_table_and_its_notes_are_not_lost(workdir, tmp_path):
    output = tmp_path / "table.csv"
    done = compare(workdir, "--metric=test_loss", "--format=csv", f"--output={output}")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "# 18 runs: 16 done; left out" in done.stderr
    assert f"wrote {output}" in done.stderr
    rows = list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8"))))
    assert [float(row["mean"]) for row in rows] == pytest.approx([sum(wrong) / 2000 for wrong in WRONG.values()])
    assert [row["best_seed"] for row in rows] == ["1", "1", "1", "1"]


def test_cross_and_marginal_tables(workdir):
    cross = json.loads(compare(workdir, "--cross=kernel_size,padding", "--format=json").stdout)
    assert [row["padding=same mean"] for row in cross["rows"]] == pytest.approx([1 - 75 / 4000, 1 - 38 / 4000])
    marginal = json.loads(compare(workdir, "--marginal", "--format=json").stdout)
    # kernel_size=3 over both paddings: 75 + 80 wrong of 8,000.
    assert marginal["rows"][0]["mean"] == pytest.approx(1 - 155 / 8000)
    assert [row["verdict"] for row in marginal["rows"]] == ["baseline", "better", "better", "baseline"]


def test_mcnemar_reads_the_stored_predictions(workdir):
    first, second = (RunConfig(kernel_size="5", padding=padding).digest for padding in ("valid", "same"))
    done = compare(workdir, f"--mcnemar={first[:10]},{second}", "--format=json")
    first_row, second_row = json.loads(done.stdout)["rows"]
    # 21 wrong against 9 of the same images: 12 discordant, all one way, p = 2 / 2^12.
    assert (first_row["right"], first_row["alone_right"]) == (979, 0)
    assert (second_row["right"], second_row["alone_right"]) == (991, 12)
    assert second_row["p"] == pytest.approx(2 / 2**12)
    assert (second_row["run"], second_row["padding"], second_row["verdict"]) == (second, "same", "better")


def test_data_sets_are_not_mixed(workdir, tmp_path):
    write_run(tmp_path, RunConfig(dataset="mnist_5k"), 30)
    done = compare(workdir, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("compare: the runs use different data (mnist: ")
    allowed = compare(workdir, tmp_path, "--allow_mixed_data", "--format=csv")
    assert allowed.returncode == 0
    assert {row["dataset"] for row in csv.DictReader(io.StringIO(allowed.stdout))} == {"mnist", "mnist_5k"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one or more folders that hold runs"),
        (["{tmp}"], "no runs in {tmp} or below"),
        (["{tmp}/missing"], "{tmp}/missing is not a folder"),
        (["{runs}", "--baseline=kernel_size=4"], "matches no arm; the arms are: kernel_size=3, padding=same; "),
        (["{runs}", "--format=excel"], "value should be one of"),
        (["{runs}", "--cross=kernel_size"], "expected two names"),
        (["{runs}", "--cross=kernel_size,padding", "--marginal"], "ask for one at a time"),
        (["{runs}", "--cross=kernel_size,padding", "--baseline=padding=same"], "--baseline has no place"),
        (["{runs}", "--marginal", "--allow_mixed_data"], "--allow_mixed_data has no place"),
        (["{runs}", "--output={tmp}"], "cannot be written"),
        (["{runs}", "--bye=padding"], "Unknown command line flag 'bye'"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(workdir, tmp_path, arguments, message):
    done = compare(*(argument.format(runs=workdir, tmp=tmp_path) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("compare: ")
    assert done.stderr.count("\n") == 1
    assert message.format(tmp=tmp_path) in done.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(SCRIPT)!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    print(sorted({'numpy', 'pandas', 'scipy', 'jax', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--baseline: compare every arm with this one" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
