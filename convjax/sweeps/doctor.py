"""The doctor examines a store: what is sound, running, unfinished or damaged, and what to do about it.

`execute` copes by itself with everything that a killed process or a failing disk leaves. The doctor is for those who
want to know before they start a sweep of a week or believe a table.
"""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from convjax import training
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.frame import find_runs, read_run
from convjax.sweeps.lock import Locked, describe, last_owner, living_owner
from convjax.sweeps.store import Run

Health = Literal["sound", "running", "unfinished", "failed", "leftover", "set aside", "damaged"]

SERIOUS: tuple[Health, ...] = ("damaged",)
"""What makes a store unsound."""

_STALE_SECONDS = 3600.0


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of one path.

    Attributes:
      health: `sound` (done, and every file is as written), `running` (a living process has locked it), `unfinished`
        (no process works on it; it can go on), `failed`, `leftover` (a harmless file of a killed process),
        `set aside`, or `damaged`.
      what: the details.
      mend: what to do; empty if there is nothing to do.
    """

    path: str
    health: Health
    what: str
    mend: str = ""


def examine(folders: Sequence[str | os.PathLike[str]], *, checkpoints: bool = True) -> list[Diagnosis]:
    """Everything at or below the folders, sorted by path.

    Args:
      checkpoints: also read the checkpoints of unfinished runs, a fraction of a second each.

    Raises:
      UserError: a folder does not exist.
    """
    found = [examine_run(run, checkpoints=checkpoints) for run in find_runs(folders)]
    for folder in folders:
        found += _remains(Path(folder).resolve())
    return sorted({diagnosis.path: diagnosis for diagnosis in found}.values(), key=lambda diagnosis: diagnosis.path)


def examine_run(run: Run, *, checkpoints: bool = True) -> Diagnosis:
    """The state of one run."""
    path, again = str(run.path), f"run experiments.{run.experiment} again, and it goes on"
    epoch = (run.last_metrics() or {}).get("epoch", 0)
    if (owner := living_owner(run.path)) is not None:
        return Diagnosis(path, "running", f"by {describe(owner)}, {epoch} epochs done")
    if damage := run.damage():
        mend = f"--mend sets this aside; so does the command that made it: {again}"
        return Diagnosis(path, "damaged", _listed(damage), mend)
    row = read_run(run)
    if row["status"] in ("done", "diverged"):
        return Diagnosis(path, "sound", ": ".join(filter(None, (row["status"], row["reason"]))))
    if checkpoints and (bad := _damaged_checkpoints(run)):
        return Diagnosis(path, "damaged", _listed(bad), f"{again} from an older checkpoint or the start")
    if row["status"] == "failed":
        return Diagnosis(path, "failed", row["reason"], again)
    last = last_owner(run.path)
    died = f"; {describe(last)} died while it worked on it" if last and not last.get("released") else ""
    return Diagnosis(path, "unfinished", f"{epoch} of {row['epochs']} epochs done, no process works on it{died}", again)


def mend(folders: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Sets damaged files aside, except in runs that a process works on; returns where they went. It deletes nothing.

    Raises:
      DiskError: the store cannot be written to.
    """
    moved = []
    for run in find_runs(folders):
        if run.damage():
            try:
                with run.lock():
                    aside = run.mend()
            except Locked:
                continue
            if aside is not None:
                moved.append(aside)
    return moved


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _damaged_checkpoints(run: Run) -> dict[str, str]:
    if not (run.path / "checkpoints").is_dir():
        return {}
    try:
        written = run.config() or {}
        config, data = RunConfig.from_record(written), written["data"]
        task = training.steps.Task.of(config, tuple(data["image_shape"]), data["num_classes"], data["train_examples"])
    except (UserError, KeyError, TypeError):
        return {}  # config.json does not describe the data; the run will tell when it goes on
    like = training.steps.state_shape(task)
    kept = training.checkpoint.Checkpoints(run.path, read_only=True)
    try:
        return {f"checkpoint {step}": reason for step, reason in kept.damage(like).items()}
    finally:
        kept.close()


def _remains(folder: Path) -> list[Diagnosis]:
    """What killed processes left behind, and what was set aside."""
    found: list[Diagnosis] = []
    for parent, folders, names in os.walk(folder):
        for name in list(folders):
            path = Path(parent) / name
            if ".damaged-" in name or name.startswith("damaged-checkpoint-"):
                found.append(Diagnosis(str(path), "set aside", _why(path), "look at it, then delete it"))
            elif ".old-" in name:
                found.append(Diagnosis(str(path), "set aside", "by --noresume", "delete it when you no longer need it"))
            elif ".orbax-checkpoint-tmp" in name and _is_old(path):
                found.append(Diagnosis(str(path), "leftover", "an incomplete checkpoint", "its run deletes it"))
            else:
                continue
            folders.remove(name)
        for path in (Path(parent) / name for name in names if name.startswith(".") and name.endswith(".tmp")):
            if _is_old(path):
                found.append(Diagnosis(str(path), "leftover", "an incomplete file", "delete it"))
    return found


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except OSError:
        return False


def _why(folder: Path) -> str:
    try:
        return _listed(json.loads((folder / "why.json").read_text())["damage"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "a damaged checkpoint" if folder.name.startswith("damaged-checkpoint-") else "damaged"
