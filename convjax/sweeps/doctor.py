"""Looks at a store: what is sound, stale or damaged, and what to do about it.

Everything a killed process or a failing disk can leave behind is something `execute` copes with by itself; a doctor is
for those who want to know before a sweep of a week, or before they believe a table.
"""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.frame import find_runs, read_run
from convjax.sweeps.lock import Locked, describe, last_owner, living_owner
from convjax.sweeps.store import Run

Health = Literal["sound", "running", "unfinished", "failed", "leftover", "set aside", "damaged"]

SERIOUS: tuple[Health, ...] = ("damaged",)
"""What keeps a store from being sound."""

_STALE_SECONDS = 3600.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found at a path.

    Attributes:
      health: `sound` (done, every file as it was written), `running` (a living process has it), `unfinished` (nobody
        has it; it can go on), `failed`, `leftover` (of a killed process; in nobody's way), `set aside`, or `damaged`.
      what: what there is to say.
      mend: what to do; empty where nothing is.
    """

    path: str
    health: Health
    what: str
    mend: str = ""


def examine(folders: Sequence[str | os.PathLike[str]], *, checkpoints: bool = True) -> list[Finding]:
    """Everything at or below the folders, in the order of their paths.

    Args:
      checkpoints: also read the checkpoints of unfinished runs, which takes a fraction of a second each.

    Raises:
      UserError: a folder does not exist.
    """
    runs = find_runs(folders)
    findings = [examine_run(run, checkpoints=checkpoints) for run in runs]
    for folder in folders:
        findings += _remains(Path(folder).resolve())
    return sorted({finding.path: finding for finding in findings}.values(), key=lambda finding: finding.path)


def examine_run(run: Run, *, checkpoints: bool = True) -> Finding:
    """What there is to say of one run."""
    path = str(run.path)
    if (owner := living_owner(run.path)) is not None:
        epoch = (run.last_metrics() or {}).get("epoch", 0)
        return Finding(path, "running", f"by {describe(owner)}, {epoch} epochs done")
    damage = run.damage()
    if damage:
        what = "; ".join(f"{name}: {reason}" for name, reason in damage.items())
        return Finding(
            path, "damaged", what, f"--mend sets this aside; so does the command that made it: {_again(run)}"
        )
    row = read_run(run)
    if row["status"] in ("done", "diverged"):
        return Finding(path, "sound", row["status"] if not row["reason"] else f"{row['status']}: {row['reason']}")
    bad = _damaged_checkpoints(run) if checkpoints else {}
    if bad:
        what = "; ".join(f"checkpoint {step}: {reason}" for step, reason in bad.items())
        return Finding(path, "damaged", what, f"{_again(run)} from an older checkpoint or the start")
    if row["status"] == "failed":
        return Finding(path, "failed", row["reason"], _again(run))
    epoch, last = (run.last_metrics() or {}).get("epoch", 0), last_owner(run.path)
    gone = "" if not last or last.get("released") else f"; {describe(last)} had it and died"
    return Finding(path, "unfinished", f"{epoch} of {row['epochs']} epochs done, nobody works on it{gone}", _again(run))


def mend(folders: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Sets aside what is damaged of the runs that nobody works on, and returns where it went. Nothing is deleted.

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


def _again(run: Run) -> str:
    return f"start experiments.{run.experiment} again, and it goes on"


def _damaged_checkpoints(run: Run) -> dict[int, str]:
    if not (run.path / "checkpoints").is_dir():
        return {}
    import jax

    from convjax.training.checkpoint import Checkpoints
    from convjax.training.loop import initial_state
    from convjax.training.steps import Task

    try:
        written = run.config() or {}
        config, data = RunConfig.from_record(written), written["data"]
        task = Task.of(config, tuple(data["image_shape"]), data["num_classes"], data["train_examples"])
    except (UserError, KeyError, TypeError):
        return {}  # config.json does not say what data it was: the run tells when it goes on
    like = jax.eval_shape(lambda: initial_state(config, task))
    kept = Checkpoints(run.path, read_only=True)
    try:
        return kept.damage(like)
    finally:
        kept.close()


def _remains(folder: Path) -> list[Finding]:
    """What processes that were killed left behind, and what was set aside."""
    found: list[Finding] = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        for name in list(folders):
            path = here / name
            finding = None
            if ".damaged-" in name or name.startswith("damaged-checkpoint-"):
                finding = Finding(str(path), "set aside", _why(path), "look at it, then delete it")
            elif ".old-" in name:
                finding = Finding(str(path), "set aside", "by --noresume", "delete it when it is of no use")
            elif ".orbax-checkpoint-tmp" in name and _is_old(path):
                finding = Finding(str(path), "leftover", "a checkpoint that was being written", "its run deletes it")
            if finding is not None:
                found.append(finding)
                folders.remove(name)
        found += [
            Finding(str(here / name), "leftover", "a file that was being written", "delete it")
            for name in names
            if name.startswith(".") and name.endswith(".tmp") and _is_old(here / name)
        ]
    return found


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except OSError:
        return False


def _why(folder: Path) -> str:
    try:
        damage: dict[str, Any] = json.loads((folder / "why.json").read_text())["damage"]
        return "; ".join(f"{name}: {reason}" for name, reason in damage.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "a damaged checkpoint" if folder.name.startswith("damaged-checkpoint-") else "damaged"
