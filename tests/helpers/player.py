"""A run without training: all that a real one does to its folder, in a fraction of a second, and light to import."""

import numpy as np

from convjax.config import RunConfig
from convjax.sweeps.store import Run

CONFIG = RunConfig(seed=7)
EPOCHS = 3
LINES = [{"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch} for epoch in range(1, EPOCHS + 1)]
RESULT = {
    "status": "done",
    "reason": "",
    "test_accuracy": 0.9,
    "parameters": 10,
    "flops": 20,
    "seconds": {"total": 1.0},
}


def play(workdir, result=RESULT):
    """All that a run does to its folder, with a file for a checkpoint."""
    run = Run.of(workdir, "study", CONFIG)
    with run.lock() as lock:
        run.mend()
        if run.result() is not None:
            return
        run.start(CONFIG, {"versions": {}})
        checkpoint = run.path / "checkpoints"
        done = len(checkpoint.read_text()) if checkpoint.exists() else 0
        run.truncate_metrics(10 * done)
        for line in LINES[done:]:
            lock.require()
            run.add_metrics(line)
            temporary = run.path / "checkpoint.tmp"
            temporary.write_text("x" * line["epoch"])
            temporary.replace(checkpoint)
        run.finish(result, np.array([1, 2, 3]), np.array([1, 2, 0]))
