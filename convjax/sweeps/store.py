"""The store: one directory per run, `WORKDIR/EXPERIMENT/DIGEST`. Its files are the only state there is.

`config.json` is written first, `metrics.jsonl` grows by a line an epoch, `predictions.npy` and `labels.npy` come at
the end and `result.json` last of all: its presence means done. `failure.json` tells of an error; the next try
removes it. `.claim` is locked by the process that works on the run.
"""

import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from convjax.config import FIELD_NAMES, RunConfig, UserError
from convjax.files import sync_folder, write_atomic, write_json_atomic

if TYPE_CHECKING:
    import pandas

STATUSES = ("done", "diverged", "failed", "unfinished", "damaged")


class Claimed(Exception):
    """Another process works on the run. The message says which."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's directory.

    Attributes:
      path: `WORKDIR/EXPERIMENT/DIGEST`.
    """

    path: Path

    @classmethod
    def of(cls, workdir: str | os.PathLike[str], experiment: str, config: RunConfig) -> Self:
        """The directory of `config` in an experiment, whether it exists or not."""
        return cls(Path(workdir) / experiment / config.digest)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.path.parent.name

    @property
    def digest(self) -> str:
        """Digest of the configuration."""
        return self.path.name

    def claim(self) -> "Claim":
        """Takes the run for this process: no other gets it until the claim is closed or this process is gone.

        Raises:
          Claimed: another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return Claim(self.path / ".claim")

    def claimant(self) -> int | None:
        """Process id of the last claim, whether it still holds or not."""
        return _read_claim(self.path / ".claim").get("pid")

    def result(self) -> dict[str, Any] | None:
        """result.json, or None where the run is not done.

        Raises:
          UserError: the file is there but damaged.
        """
        return self._read("result.json")

    def config(self) -> dict[str, Any] | None:
        """config.json, or None."""
        return self._read("config.json")

    def failure(self) -> dict[str, Any] | None:
        """failure.json, or None."""
        return self._read("failure.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise UserError(
                f"{path} is damaged ({error}); move the folder away, and the same command runs it again"
            ) from None
        if not isinstance(content, dict):
            raise UserError(f"{path} is damaged (not a JSON object); move the folder away to run it again")
        return content

    def start(self, config: RunConfig, details: dict[str, Any]) -> None:
        """Writes config.json, and forgets an earlier failure."""
        write_json_atomic(
            self.path / "config.json",
            {**config.to_dict(), "digest": config.digest, "experiment": self.experiment, **details},
        )
        (self.path / "failure.json").unlink(missing_ok=True)

    def metrics(self, *, until_step: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without those after `until_step` and without a last line cut short."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        metrics = []
        for number, line in enumerate(lines, start=1):
            try:
                metrics.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise UserError(f"{self.path / 'metrics.jsonl'} is damaged at line {number}") from None
        return [line for line in metrics if until_step is None or line["step"] <= until_step]

    def keep_metrics(self, until_step: int) -> None:
        """Drops the lines after `until_step`: the epochs that are about to be run again."""
        kept = "".join(json.dumps(line) + "\n" for line in self.metrics(until_step=until_step))
        write_atomic(self.path / "metrics.jsonl", lambda file: file.write(kept.encode()))

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl, on disk when this returns."""
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, result: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
        """Writes the predictions and then the result, which makes the run done."""
        for name, classes in (("predictions", predictions), ("labels", labels)):
            small = classes.astype(np.uint8 if classes.max(initial=0) < 256 else np.int32)
            write_atomic(self.path / f"{name}.npy", lambda file, small=small: np.save(file, small, allow_pickle=False))
        write_json_atomic(self.path / "result.json", result)

    def fail(self, error: BaseException, text: str) -> None:
        """Records why the run could not be done."""
        write_json_atomic(
            self.path / "failure.json",
            {"error": f"{type(error).__name__}: {error}", "traceback": text, "time": _now()},
        )

    def reset(self) -> None:
        """Forgets all results: the run starts anew. What was there is set aside under `DIGEST.old-N`, not deleted."""
        names = [
            name
            for name in ("result.json", "metrics.jsonl", "failure.json", "checkpoints")
            if (self.path / name).exists()
        ]
        if not names:
            return
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        aside.mkdir()
        for name in ("config.json", "predictions.npy", "labels.npy", "tensorboard", *names):
            if (self.path / name).exists():
                os.rename(self.path / name, aside / name)
        sync_folder(self.path)


class Claim:
    """A locked file. The kernel frees the lock when its process ends, however it ends."""

    def __init__(self, path: Path):
        self._file: IO[str] = open(path, "a+")  # noqa: SIM115 - lives as long as the claim
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            owner = _read_claim(path)
            who = f"process {owner['pid']} on {owner['host']} since {owner['since']}" if owner else "another process"
            raise Claimed(f"{path.parent} is being run by {who}") from None
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        self._file.flush()

    def close(self) -> None:
        """Gives the run back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text())
        return owner if {"pid", "host", "since"} <= set(owner) else {}
    except (OSError, ValueError, TypeError):
        return {}


def find_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Every run at or below the folders, sorted by path, each once.

    Raises:
      UserError: a folder does not exist.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"{folder} is not a folder; give one that holds runs, such as runs/kernel_size")
        for path in _walk(Path(folder)):
            found[path.resolve()] = None
    return [Run(path) for path in sorted(found)]


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = {entry.name: entry for entry in entries}
    if "config.json" in names or "result.json" in names:
        # A folder set aside by `reset` or for damage has a suffix and is no run.
        if "." not in folder.name:
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
        read = RunConfig.from_record(config)
        row |= read.to_dict()
        row |= {name: config.get(name) for name in ("backend", "git_revision", "host", "versions")}
        if read.digest != run.digest:
            raise UserError(f"{run.path / 'config.json'} is of another run than its folder's name says")
        result = run.result()
        if result is not None:
            seconds = result["seconds"]
            row |= {name: result.get(name) for name in _RESULT_COLUMNS}
            row |= {"seconds": seconds["total"], **{f"seconds_{part}": value for part, value in seconds.items()}}
            row |= {"status": result["status"], "reason": result.get("reason", "")}
        elif (failure := run.failure()) is not None:
            row |= {"status": "failed", "reason": failure["error"]}
    except (UserError, KeyError, TypeError) as error:
        missing = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        row |= {"status": "damaged", "reason": missing}
    return row


_RESULT_COLUMNS = (
    "test_accuracy",
    "test_loss",
    "train_accuracy",
    "train_loss",
    "validation_accuracy",
    "validation_loss",
    "parameters",
    "flops",
    "dataset_fingerprint",
)


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> "pandas.DataFrame":
    """Every run at or below the folders, a row each.

    Columns: `experiment`, `digest`, `path`, `status` (one of `STATUSES`), `reason` (why it is not done), every field
    of RunConfig, `test_accuracy` and the other results (NaN where there are none), `seconds` (total) and its parts
    `seconds_train`, ..., `backend`, `git_revision`, `host`, `versions`.

    Raises:
      UserError: a folder does not exist.
    """
    import pandas

    rows = [read_run(run) for run in find_runs(folders)]
    columns = ["experiment", "digest", "path", "status", "reason", *FIELD_NAMES, *_RESULT_COLUMNS, "seconds"]
    frame = pandas.DataFrame(rows)
    for name in columns:
        if name not in frame:
            frame[name] = np.nan
    for name in ("test_accuracy", "test_loss", "train_accuracy", "validation_accuracy", "seconds"):
        frame[name] = frame[name].astype(float)
    return frame[[*columns, *(name for name in frame if name not in columns)]]


def read_correct(path: str | os.PathLike[str]) -> np.ndarray:
    """Whether each test image of a finished run was classified correctly, bool `[examples]`.

    Raises:
      UserError: the run's predictions are missing or damaged.
    """
    try:
        predictions, labels = (
            np.load(Path(path) / name, allow_pickle=False) for name in ("predictions.npy", "labels.npy")
        )
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot read the predictions ({error}); run it again") from None
    if predictions.shape != labels.shape:
        raise UserError(f"{path}: predictions.npy and labels.npy differ in length; run it again")
    return predictions == labels


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
