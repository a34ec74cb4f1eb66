"""The runs of a store as one table: `find_runs` finds them, `read_runs` makes a DataFrame with a row for each."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from convjax.config import FIELD_NAMES
from convjax.errors import UserError
from convjax.sweeps.store import RESULT_COLUMNS, Run, check_config, check_result, read_classes

_COLUMNS = ("experiment", "digest", "path", "status", "reason", *FIELD_NAMES, *RESULT_COLUMNS, "seconds")
_FLOAT_COLUMNS = ("test_accuracy", "test_loss", "train_accuracy", "validation_accuracy", "test_auc", "seconds")
_FROM_CONFIG = {"backend": str, "git_revision": str, "host": str, "versions": dict}


def find_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Every run at or below the folders, once, sorted by path.

    Raises:
      UserError: a folder does not exist.
    """
    found: set[Path] = set()
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"{folder} is not a folder; give one that holds runs, such as runs/kernel_size")
        found.update(path.resolve() for path in _walk(Path(folder)))
    return [Run(path) for path in sorted(found)]


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = {entry.name: entry for entry in entries}
    if names.keys() & {"config.json", "result.json", "metrics.jsonl", "checkpoints"}:
        if "." not in folder.name:  # else `Run.reset` or `Run.mend` set it aside
            yield folder
        return
    for name, entry in sorted(names.items()):
        if entry.is_dir(follow_symlinks=False) and not name.startswith("."):
            yield from _walk(Path(entry.path))


def read_run(run: Run) -> dict[str, Any]:
    """One row of `read_runs`."""
    row: dict[str, Any] = {
        "experiment": run.experiment,
        "digest": run.digest,
        "path": str(run.path),
        "status": "unfinished",
        "reason": "not finished",
    }
    try:
        config = run.config()
        if config is None:
            raise UserError(f"{run.path / 'config.json'} is missing")
        row |= check_config(config, run.digest).to_dict()
        for name, kind in _FROM_CONFIG.items():
            row[name] = config[name] if isinstance(config.get(name), kind) else None
        result = run.result()
        if result is not None:
            check_result(result)
            row |= {name: result.get(name) for name in RESULT_COLUMNS}
            row |= {f"seconds_{part}": value for part, value in result["seconds"].items()}
            row |= {"seconds": result["seconds"]["total"]}
            row |= {"status": result["status"], "reason": str(result.get("reason", ""))}
        elif (failure := run.failure()) is not None:
            row |= {"status": "failed", "reason": str(failure.get("error", "for an unknown reason"))}
    except ValueError as error:
        row |= {"status": "damaged", "reason": str(error)}
    return row


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> pandas.DataFrame:
    """Every run at or below the folders, one row each.

    Columns: `experiment`, `digest`, `path`, `status` (done, diverged, failed, unfinished or damaged), `reason` (why it
    is not done), every field of RunConfig, `test_accuracy` and the other results (NaN if there are none), `seconds`
    (total) and its parts `seconds_train`, ..., `backend`, `git_revision`, `host`, `versions`.

    Raises:
      UserError: a folder does not exist.
    """
    frame = pandas.DataFrame([read_run(run) for run in find_runs(folders)])
    for name in _COLUMNS:
        if name not in frame:
            frame[name] = np.nan
    frame = frame.astype(dict.fromkeys(_FLOAT_COLUMNS, float))
    return frame[[*_COLUMNS, *(name for name in frame if name not in _COLUMNS)]]


def read_correct(path: str | os.PathLike[str]) -> np.ndarray:
    """Whether a finished run classified each test image correctly, bool `[examples]`.

    Raises:
      UserError: the run's predictions are missing or damaged.
    """
    try:
        predictions, labels = (read_classes(Path(path) / name) for name in ("predictions.npy", "labels.npy"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the predictions ({error}); run it again") from None
    if predictions.shape != labels.shape:
        raise UserError(f"{path}: predictions.npy and labels.npy differ in length; run it again")
    return np.asarray(predictions == labels)
