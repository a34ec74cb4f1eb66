"""The store: one directory per run, `WORKDIR/EXPERIMENT/DIGEST`. Its files are the only state there is.

`config.json` is written first, `metrics.jsonl` grows by a line an epoch, `predictions.npy`, `labels.npy` and
`SHA256SUMS` (of all of these; for `sha256sum -c`) come at the end and `result.json` last of all: its presence means
done. `failure.json` tells of an error; the next try removes it. Who works on a run holds its lock (see `locks`).
What is set aside goes into a folder `DIGEST.old-N` or `DIGEST.damaged-N`, which is no run: a digest has no dot.
"""

import dataclasses
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from convjax.config import FIELD_NAMES, RunConfig
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
from convjax.sweeps.lock import Lock, last_owner

if TYPE_CHECKING:
    import pandas

STATUSES = ("done", "diverged", "failed", "unfinished", "damaged")

CHECKSUMS = "SHA256SUMS"
_CHECKED = ("config.json", "metrics.jsonl", "predictions.npy", "labels.npy", "result.json")
_OUTCOME = ("result.json", CHECKSUMS, "predictions.npy", "labels.npy")
# In the order in which they are moved: a run that lost its result first is never taken for a finished one.
_ALL = (*_OUTCOME, "checkpoints", "metrics.jsonl", "failure.json", "tensorboard", "config.json")
_LARGEST_JSON = 1 << 26
_LARGEST_LINE = 1 << 20


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

    def lock(self) -> Lock:
        """Takes the run for this process: no other gets it until the lock is closed or this process is gone.

        Raises:
          Locked: another process has it.
          DiskError: the folder cannot be written to.
        """
        with disk_errors(self.path):  # such as a read-only store
            self.path.mkdir(parents=True, exist_ok=True)
            return Lock(self.path)

    def owner_pid(self) -> int | None:
        """Process id of the last lock, whether it still holds or not."""
        return last_owner(self.path).get("pid")

    def result(self) -> dict[str, Any] | None:
        """result.json, or None where the run is not done.

        Raises:
          UserError: the file is there but damaged.
        """
        return self._read("result.json")

    def config(self) -> dict[str, Any] | None:
        """config.json, or None.

        Raises:
          UserError: the file is there but damaged.
        """
        return self._read("config.json")

    def failure(self) -> dict[str, Any] | None:
        """failure.json, or None.

        Raises:
          UserError: the file is there but damaged.
        """
        return self._read("failure.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return self._load(name)
        except ValueError as error:
            raise UserError(
                f"{self.path / name} is damaged ({error}); the same command sets it aside and runs it again"
            ) from None

    def _load(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file; None where there is none.

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
        """The hashes of a finished run's files; empty for an unfinished one and for those of earlier versions.

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
        required = set(_CHECKED) - {"metrics.jsonl"}  # which a run that diverged in its first epoch has not
        if len(found) != len(lines) or not required <= set(found) <= set(_CHECKED):
            raise ValueError(f"{CHECKSUMS} beside it cannot be read")
        return found

    def is_done(self) -> bool:
        """Whether the run has a result and nothing of it is damaged."""
        return (self.path / "result.json").exists() and not self.damage()

    def damage(self) -> dict[str, str]:
        """What is wrong with which file; empty for a sound run. Checkpoints are looked at where they are read.

        A line of metrics cut short at the end of the file is the trace of a crash and no damage.
        """
        found: dict[str, str] = {}
        for name in ("config.json", "result.json"):
            try:
                values = self._load(name)
                if values is not None:
                    (_check_config if name == "config.json" else _check_result)(values, self.digest)
                elif name == "config.json" and any((self.path / other).exists() for other in _ALL):
                    raise ValueError("it is missing")
            except ValueError as error:
                found[name] = str(error)
        reason = self._read_metrics()[1]
        if reason:
            found["metrics.jsonl"] = reason
        if (self.path / "result.json").exists() and "result.json" not in found:
            expected = self._checksums()
            for name in ("metrics.jsonl", "predictions.npy", "labels.npy"):
                try:
                    if name in expected and sha256_of(self.path / name) != expected[name]:
                        found.setdefault(name, "its content is not what was written")
                    elif name != "metrics.jsonl":
                        read_classes(self.path / name)
                except FileNotFoundError:
                    found.setdefault(name, "it is missing")
                except (OSError, ValueError) as error:
                    found.setdefault(name, _one_line(error))
        return found

    def mend(self) -> Path | None:
        """Sets aside what is damaged, so that the run can go on from what is sound; the folder it went to, or None.

        Needs the run's lock. Nothing is deleted: the folder is `DIGEST.damaged-N`, with the reasons in `why.json`.
        """
        found = self.damage()
        if not found:
            return None
        names = [*_OUTCOME, *(name for name in found if name == "config.json")]
        if _OTHER_RUN in found.get("config.json", ""):
            names = list(_ALL)
        aside = self._aside("damaged", found)
        path = self.path / "metrics.jsonl"
        if "metrics.jsonl" in found and "metrics.jsonl" not in names and path.exists():
            write_bytes_atomic(aside / path.name, path.read_bytes())
            lines, reason = self._read_metrics()
            if reason:
                self._cut_metrics(lines[-1][1] if lines else 0)
        self._move(names, aside)
        return aside

    def reset(self) -> None:
        """Forgets all results: the run starts anew. What was there is set aside under `DIGEST.old-N`, not deleted."""
        if any((self.path / name).exists() for name in _ALL):
            self._move(_ALL, self._aside("old", {}))

    def _aside(self, kind: str, reasons: Mapping[str, str]) -> Path:
        """Makes a folder for what is set aside."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{kind}-{number}")).exists():
            number += 1
        aside.mkdir()
        if reasons:
            write_json_atomic(aside / "why.json", {"damage": reasons, "time": _now()})
        return aside

    def _move(self, names: Sequence[str], aside: Path) -> None:
        for name in _ALL:
            if name in names and (self.path / name).exists():
                os.rename(self.path / name, aside / name)
        sync_folder(aside)
        sync_folder(self.path)

    def start(self, config: RunConfig, details: dict[str, Any]) -> None:
        """Writes config.json, and forgets an earlier failure."""
        # Written just before a result that did not come any more, it would condemn the new config.json.
        (self.path / CHECKSUMS).unlink(missing_ok=True)
        write_json_atomic(
            self.path / "config.json",
            {**config.to_dict(), "digest": config.digest, "experiment": self.experiment, **details},
        )
        (self.path / "failure.json").unlink(missing_ok=True)

    def metrics(self, *, until_step: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without those after `until_step` and without a last line cut short.

        Raises:
          UserError: a line before the last is damaged.
        """
        lines, reason = self._read_metrics()
        if reason:
            raise UserError(f"{self.path / 'metrics.jsonl'} is damaged ({reason})")
        return [line for line, _ in lines if until_step is None or line["step"] <= until_step]

    def last_metrics(self) -> dict[str, Any] | None:
        """The last line of metrics.jsonl that is whole, found from the end: the file may be large."""
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                end = file.seek(0, os.SEEK_END)
                for size in (1 << 13, 2 * _LARGEST_LINE):
                    file.seek(max(0, end - size))
                    # The first piece may begin within a line, the last is a line cut short or nothing.
                    for text in reversed(file.read().split(b"\n")[:-1]):
                        line = _parse_line(text)
                        if line is not None:
                            return line
        except FileNotFoundError:
            pass
        return None

    def _read_metrics(self) -> tuple[list[tuple[dict[str, Any], int]], str]:
        """The lines up to the first that is damaged, each with where it ends in the file, and what is wrong with that.

        What is wrong is empty where nothing is.
        """
        lines: list[tuple[dict[str, Any], int]] = []
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                while text := file.readline(_LARGEST_LINE):
                    line = _parse_line(text)
                    if not text.endswith(b"\n") and len(text) < _LARGEST_LINE:
                        break  # cut short by a crash
                    if line is None:
                        return lines, f"line {len(lines) + 1} is not what was written"
                    lines.append((line, file.tell()))
        except FileNotFoundError:
            pass
        except OSError as error:
            return lines, _one_line(error)
        return lines, ""

    def keep_metrics(self, until_step: int) -> int:
        """Drops the lines after `until_step`, the epochs that are about to be run again; how many lines are left.

        Raises:
          UserError: a line is damaged.
        """
        lines, reason = self._read_metrics()
        if reason:
            raise UserError(f"{self.path / 'metrics.jsonl'} is damaged ({reason})")
        ends = [end for line, end in lines if line["step"] <= until_step]
        self._cut_metrics(ends[-1] if ends else 0)
        return len(ends)

    def _cut_metrics(self, size: int) -> None:
        path = self.path / "metrics.jsonl"
        if path.exists() and path.stat().st_size != size:
            with open(path, "r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl, with its checksum, on disk when this returns."""
        checked = {**line, "crc32": _crc32(line)}
        path = self.path / "metrics.jsonl"
        new = not path.exists()
        with open(path, "ab") as file:
            file.write((json.dumps(checked) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path)

    def finish(self, result: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
        """Writes the predictions, the checksums and then the result, which makes the run done."""
        for name, classes in (("predictions", predictions), ("labels", labels)):
            small = classes.astype(np.uint8 if classes.max(initial=0) < 256 else np.int32)
            write_atomic(self.path / f"{name}.npy", lambda file, small=small: np.save(file, small, allow_pickle=False))
        content = json.dumps(result, indent=2) + "\n"
        hashes = {name: sha256_of(self.path / name) for name in _CHECKED if (self.path / name).exists()}
        hashes["result.json"] = hashlib.sha256(content.encode()).hexdigest()
        write_text_atomic(self.path / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
        write_text_atomic(self.path / "result.json", content)

    def fail(self, error: BaseException, text: str) -> None:
        """Records why the run could not be done.

        Raises:
          DiskError: it cannot be recorded.
        """
        with disk_errors(self.path):
            write_json_atomic(
                self.path / "failure.json",
                {"error": f"{type(error).__name__}: {error}", "traceback": text, "time": _now()},
            )


_OTHER_RUN = "it is of another run than its folder's name says"


def _check_config(values: Mapping[str, Any], digest: str) -> RunConfig:
    """The configuration in a config.json.

    Raises:
      ValueError: it is not one, or of another run.
    """
    try:
        config = RunConfig.from_record(values)
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from None
    if config.digest != digest:
        raise ValueError(_OTHER_RUN)
    return config


_NUMBERS = ("test_accuracy", "parameters", "flops")


def _check_result(values: Mapping[str, Any], digest: str) -> None:
    """Raises ValueError where a result.json lacks what tables need."""
    if values.get("status") not in ("done", "diverged"):
        raise ValueError(f"its status is {values.get('status')!r:.40}")
    seconds = values.get("seconds")
    if not isinstance(seconds, dict) or not all(map(_is_number, seconds.values())) or "total" not in seconds:
        raise ValueError("it lacks 'seconds'")
    for name in _NUMBERS:
        if not _is_number(values.get(name)):
            raise ValueError(f"it lacks {name!r}")
    for name in _RESULT_COLUMNS:
        if name != "dataset_fingerprint" and not (values.get(name) is None or _is_number(values[name])):
            raise ValueError(f"its {name!r} is not a number")
    if not isinstance(values.get("dataset_fingerprint"), str | None):
        raise ValueError("its 'dataset_fingerprint' is not text")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 or value != value


def _parse_line(text: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl without its checksum; None where it is damaged. Earlier versions wrote no checksum."""
    try:
        line = json.loads(text)
        crc32 = line.pop("crc32", None)
        sound = isinstance(line["step"], int) and (crc32 is None or crc32 == _crc32(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return line if sound else None


def _crc32(line: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(line).encode()):08x}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
    if names.keys() & {"config.json", "result.json", "metrics.jsonl", "checkpoints"}:
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
        row |= _check_config(config, run.digest).to_dict()
        row |= {
            name: config[name] if isinstance(config.get(name), kind) else None
            for name, kind in (("backend", str), ("git_revision", str), ("host", str), ("versions", dict))
        }
        result = run.result()
        if result is not None:
            _check_result(result, run.digest)
            row |= {name: result.get(name) for name in _RESULT_COLUMNS}
            row |= {"seconds": result["seconds"]["total"]}
            row |= {f"seconds_{part}": value for part, value in result["seconds"].items()}
            row |= {"status": result["status"], "reason": str(result.get("reason", ""))}
        elif (failure := run.failure()) is not None:
            row |= {"status": "failed", "reason": str(failure.get("error", "for an unknown reason"))}
    except ValueError as error:
        row |= {"status": "damaged", "reason": str(error)}
    return row


_RESULT_COLUMNS = (
    "test_accuracy",
    "test_loss",
    "train_accuracy",
    "train_loss",
    "validation_accuracy",
    "validation_loss",
    "test_auc",
    "validation_auc",
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
    for name in ("test_accuracy", "test_loss", "train_accuracy", "validation_accuracy", "test_auc", "seconds"):
        frame[name] = frame[name].astype(float)
    return frame[[*columns, *(name for name in frame if name not in columns)]]


def read_classes(path: str | os.PathLike[str]) -> np.ndarray:
    """Predictions or labels from a .npy file, mapped: it is not allocated on its header's word.

    Raises:
      OSError: it is not there.
      ValueError: it is damaged.
    """
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python, and raises what Python's tokenizer does
        raise ValueError(f"no NumPy file: {_one_line(error)}") from None


def read_correct(path: str | os.PathLike[str]) -> np.ndarray:
    """Whether each test image of a finished run was classified correctly, bool `[examples]`.

    Raises:
      UserError: the run's predictions are missing or damaged.
    """
    try:
        predictions, labels = (read_classes(Path(path) / name) for name in ("predictions.npy", "labels.npy"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the predictions ({_one_line(error)}); run it again") from None
    if predictions.shape != labels.shape:
        raise UserError(f"{path}: predictions.npy and labels.npy differ in length; run it again")
    return np.asarray(predictions == labels)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
