"""Parity with Keras at the optimization level of users: the chapter's network, forward, gradients and 20 steps."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = (
    "test_forward.py::test_logits_and_layers_agree[0]",
    "test_training.py::test_the_loss_and_every_gradient_agree[0]",
    "test_training.py::test_an_epoch_of_the_chapters_run_agrees_to_its_short_last_batch[patches]",
    "test_training.py::test_an_epoch_of_the_chapters_run_agrees_to_its_short_last_batch[winograd]",
)


def test_the_chapters_network_agrees_with_keras_in_optimized_programs():
    environment = {**os.environ, "CONVJAX_TESTS_OPTIMIZED": "1", "XLA_FLAGS": ""}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST")}
    tests = [f"tests/reference/{test}" for test in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(TESTS)} passed" in done.stdout
