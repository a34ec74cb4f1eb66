"""The run directory, `WORKDIR/EXPERIMENT/DIGEST`: its files are the only state there is.

`config.json` is written first, and `metrics.jsonl` grows by one line per epoch. At the end come `predictions.npy`,
`labels.npy` and `SHA256SUMS` (of all files; for `sha256sum -c`), and last `result.json`: its presence means done.
`failure.json` records an error until the next attempt. A process that works on a run holds its lock (see `lock`).
Files set aside go to `DIGEST.old-N` or `DIGEST.damaged-N`. Those are not runs: a digest has no dot.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.files import (
    disk_errors,
    sha256_of,
    sync_folder,
    write_atomic,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from convjax.sweeps.lock import Lock, last_owner, now
from convjax.sweeps.metrics_file import append_line, last_line, read_lines, truncate

CHECKSUMS = "SHA256SUMS"
RESULT_COLUMNS = (
    "test_accuracy", "test_loss", "train_accuracy", "train_loss", "validation_accuracy", "validation_loss", "test_auc",
    "validation_auc", "parameters", "flops", "dataset_fingerprint",
)  # fmt: skip
"""What tables take from a result.json, besides its status and seconds."""

_REQUIRED_NUMBERS = ("test_accuracy", "parameters", "flops")
_CHECKED = ("config.json", "metrics.jsonl", "predictions.npy", "labels.npy", "result.json")
_OUTCOME = ("result.json", CHECKSUMS, "predictions.npy", "labels.npy")
# In the order in which they are moved: without its result, a run never counts as finished.
_ALL = (*_OUTCOME, "checkpoints", "metrics.jsonl", "failure.json", "tensorboard", "config.json")
_LARGEST_JSON = 1 << 26
_LARGEST_LINE = 1 << 20
_OTHER_RUN = "it is of another run than its folder's name says"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's directory.

    Attributes:
      path: `WORKDIR/EXPERIMENT/DIGEST`.
    """

    path: Path

    @classmethod
    def of(cls, workdir: str | os.PathLike[str], experiment: str, config: RunConfig) -> Self:
        """The directory of `config` in an experiment; it need not exist."""
        return cls(Path(workdir) / experiment / config.digest)

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self.path.parent.name

    @property
    def digest(self) -> str:
        """The configuration's digest."""
        return self.path.name

    def lock(self) -> Lock:
        """Locks the run for this process, until the lock is closed or the process ends.

        Raises:
          Locked: another process holds the lock.
          DiskError: the folder cannot be written to.
        """
        with disk_errors(self.path):  # a read-only store, for instance
            self.path.mkdir(parents=True, exist_ok=True)
            return Lock(self.path)

    def owner_pid(self) -> int | None:
        """The process that last locked the run; it may have ended."""
        return last_owner(self.path).get("pid")

    def result(self) -> dict[str, Any] | None:
        """result.json, or None if the run is not done; raises UserError if it is damaged."""
        return self._read("result.json")

    def config(self) -> dict[str, Any] | None:
        """config.json, or None if there is none; raises UserError if it is damaged."""
        return self._read("config.json")

    def failure(self) -> dict[str, Any] | None:
        """failure.json, or None if there is none; raises UserError if it is damaged."""
        return self._read("failure.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return self._load(name)
        except ValueError as error:
            raise UserError(
                f"{self.path / name} is damaged ({error}); the same command sets it aside and runs it again"
            ) from None

    def _load(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file, or None if there is none.

        Raises:
          ValueError: it is damaged.
        """
        path = self.path / name
        try:
            if path.stat().st_size > _LARGEST_JSON:
                raise ValueError("it is far too large")
            content = path.read_bytes()
            values = json.loads(content)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(_one_line(error)) from None
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        expected = self._checksums().get(name)
        if expected and expected != hashlib.sha256(content).hexdigest():
            raise ValueError(f"its content is not what was written: {CHECKSUMS} has another hash")
        return values

    def _checksums(self) -> dict[str, str]:
        """SHA-256 of each file of a finished run; empty if it is not finished, or if an earlier version wrote it.

        Raises:
          ValueError: the file cannot be read.
        """
        if not (self.path / "result.json").exists():
            return {}
        try:
            with open(self.path / CHECKSUMS, "rb") as file:
                lines = file.read(_LARGEST_LINE).decode().splitlines()
        except FileNotFoundError:
            return {}
        found = dict(line.split("  ", 1)[::-1] for line in lines if re.fullmatch(r"[0-9a-f]{64}  [\w.]+", line))
        required = set(_CHECKED) - {"metrics.jsonl"}  # a run that diverged in its first epoch has none
        if len(found) != len(lines) or not required <= set(found) <= set(_CHECKED):
            raise ValueError(f"{CHECKSUMS} beside it cannot be read")
        return found

    def is_done(self) -> bool:
        """Whether the run has a result and nothing of it is damaged."""
        return (self.path / "result.json").exists() and not self.damage()

    def damage(self) -> dict[str, str]:
        """What is wrong, by file name; empty for a sound run. Checkpoints are checked where they are read.

        An incomplete last line of metrics is what a crash leaves, not damage.
        """
        found: dict[str, str] = {}
        for name in ("config.json", "result.json"):
            try:
                values = self._load(name)
                if values is None:
                    if name == "config.json" and any((self.path / other).exists() for other in _ALL):
                        raise ValueError("it is missing")
                elif name == "config.json":
                    check_config(values, self.digest)
                else:
                    check_result(values)
            except ValueError as error:
                found[name] = str(error)
        reason = read_lines(self._metrics_path)[1]
        if reason:
            found["metrics.jsonl"] = reason
        if (self.path / "result.json").exists() and "result.json" not in found:
            for name in ("metrics.jsonl", "predictions.npy", "labels.npy"):
                reason = self._content_damage(name, self._checksums().get(name))
                if reason:
                    found.setdefault(name, reason)
        return found

    def _content_damage(self, name: str, expected: str | None) -> str:
        """What is wrong with a file of a finished run whose SHA-256 should be `expected`; empty if it is sound."""
        try:
            if expected and sha256_of(self.path / name) != expected:
                return "its content is not what was written"
            if name.endswith(".npy"):
                read_classes(self.path / name)
        except FileNotFoundError:
            return "it is missing"
        except (OSError, ValueError) as error:
            return _one_line(error)
        return ""

    def mend(self) -> Path | None:
        """Sets damaged files aside, so that the run can go on from the sound ones. The caller holds the lock.

        Nothing is deleted: the files go to `DIGEST.damaged-N`, which is returned, with the reasons in `why.json`.
        Returns None if nothing is damaged.
        """
        found = self.damage()
        if not found:
            return None
        names = [*_OUTCOME, *(name for name in found if name == "config.json")]
        if _OTHER_RUN in found.get("config.json", ""):
            names = list(_ALL)
        aside = self._aside("damaged", found)
        path = self._metrics_path
        if path.name in found and path.name not in names and path.exists():
            write_bytes_atomic(aside / path.name, path.read_bytes())
            lines, reason = read_lines(path)
            if reason:
                truncate(path, lines[-1][1] if lines else 0)
        self._move(names, aside)
        return aside

    def reset(self) -> None:
        """Sets everything aside as `DIGEST.old-N`, so that the run starts anew. Nothing is deleted."""
        if any((self.path / name).exists() for name in _ALL):
            self._move(_ALL, self._aside("old", {}))

    def _aside(self, kind: str, reasons: Mapping[str, str]) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{kind}-{number}")).exists():
            number += 1
        aside.mkdir()
        if reasons:
            write_json_atomic(aside / "why.json", {"damage": reasons, "time": now()})
        return aside

    def _move(self, names: Sequence[str], aside: Path) -> None:
        for name in _ALL:
            if name in names and (self.path / name).exists():
                os.rename(self.path / name, aside / name)
        sync_folder(aside)
        sync_folder(self.path)

    def start(self, config: RunConfig, details: dict[str, Any]) -> None:
        """Writes config.json and removes an earlier failure."""
        # Left by a crash just before result.json was written, it would not match the new config.json.
        (self.path / CHECKSUMS).unlink(missing_ok=True)
        write_json_atomic(
            self.path / "config.json",
            {**config.to_dict(), "digest": config.digest, "experiment": self.experiment, **details},
        )
        (self.path / "failure.json").unlink(missing_ok=True)

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without an incomplete last line; raises UserError if one is damaged."""
        return [line for line, _ in self._metrics()]

    def last_metrics(self) -> dict[str, Any] | None:
        """The last complete line of metrics.jsonl."""
        return last_line(self._metrics_path)

    def truncate_metrics(self, until_step: int) -> int:
        """Drops the lines after `until_step`, whose epochs will run again, and returns how many are left.

        Raises:
          UserError: a line is damaged.
        """
        ends = [end for line, end in self._metrics() if line["step"] <= until_step]
        truncate(self._metrics_path, ends[-1] if ends else 0)
        return len(ends)

    def _metrics(self) -> list[tuple[dict[str, Any], int]]:
        lines, reason = read_lines(self._metrics_path)
        if reason:
            raise UserError(f"{self._metrics_path} is damaged ({reason})")
        return lines

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Appends a line with a checksum to metrics.jsonl and syncs it to disk."""
        append_line(self._metrics_path, line)

    def finish(self, result: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
        """Writes predictions, labels, checksums and, last, the result, which makes the run done."""
        for name, classes in (("predictions", predictions), ("labels", labels)):
            small = classes.astype(np.uint8 if classes.max(initial=0) < 256 else np.int32)
            write_atomic(self.path / f"{name}.npy", lambda file, small=small: np.save(file, small, allow_pickle=False))
        content = json.dumps(result, indent=2) + "\n"
        hashes = {name: sha256_of(self.path / name) for name in _CHECKED if (self.path / name).exists()}
        hashes["result.json"] = hashlib.sha256(content.encode()).hexdigest()
        write_text_atomic(self.path / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
        write_text_atomic(self.path / "result.json", content)

    def fail(self, error: BaseException, text: str) -> None:
        """Records why the run failed.

        Raises:
          DiskError: the record cannot be written.
        """
        with disk_errors(self.path):
            write_json_atomic(
                self.path / "failure.json",
                {"error": f"{type(error).__name__}: {error}", "traceback": text, "time": now()},
            )


def check_config(values: Mapping[str, Any], digest: str) -> RunConfig:
    """The configuration in a config.json.

    Raises:
      ValueError: it is not one, or its digest differs.
    """
    try:
        config = RunConfig.from_record(values)
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from None
    if config.digest != digest:
        raise ValueError(_OTHER_RUN)
    return config


def check_result(values: Mapping[str, Any]) -> None:
    """Raises ValueError if a result.json lacks something that tables need."""
    if values.get("status") not in ("done", "diverged"):
        raise ValueError(f"its status is {values.get('status')!r:.40}")
    seconds = values.get("seconds")
    if not isinstance(seconds, dict) or not all(map(_is_number, seconds.values())) or "total" not in seconds:
        raise ValueError("it lacks 'seconds'")
    for name in _REQUIRED_NUMBERS:
        if not _is_number(values.get(name)):
            raise ValueError(f"it lacks {name!r}")
    for name in RESULT_COLUMNS:
        if name != "dataset_fingerprint" and not (values.get(name) is None or _is_number(values[name])):
            raise ValueError(f"its {name!r} is not a number")
    if not isinstance(values.get("dataset_fingerprint"), str | None):
        raise ValueError("its 'dataset_fingerprint' is not text")


def read_classes(path: str | os.PathLike[str]) -> np.ndarray:
    """Predictions or labels from a .npy file, memory-mapped: a damaged header cannot make it allocate.

    Raises:
      OSError: the file cannot be opened.
      ValueError: it is damaged.
    """
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python, and raises whatever Python's tokenizer does
        raise ValueError(f"no NumPy file: {_one_line(error)}") from None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 or value != value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
