"""Checkpoints of a TrainState, by Orbax. The only place that knows Orbax.

A checkpoint is the whole `TrainState`. The order of the images is a function of seed and epoch, so nothing else is
needed to resume a run exactly where it stopped.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.training.steps import Task, TrainState, state_shape

FOLDER = "checkpoints"
KEPT = 2
"""Checkpoints kept: the newest, and the one before in case the newest is damaged."""

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in `RUN/checkpoints`, one folder per step. Orbax writes each under a temporary name first."""

    def __init__(self, run_dir: Path, *, keep: int | None = KEPT, read_only: bool = False):
        """`keep` is how many of the newest to keep, None for all.

        `read_only` is for looking at a run that another process may be working on: nothing is tidied up.
        """
        _ignore_late_callbacks()
        # Orbax reports each save at INFO and harmless choices at WARNING.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._folder = (run_dir / FOLDER).absolute()
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            create=False,
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState) -> None:
        """Keeps `state` under its step; does nothing if that step is kept already.

        Raises:
          OSError: for example, the disk is full. Earlier checkpoints are unchanged.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        number = 0
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_fields(state)),
                    digest=ocp.args.JsonSave({"sha256": state_digest(state)}),
                ),
            )
        except Exception as error:
            number = _system_error(error)
            if not number:
                raise
        if number:
            # Raised outside the handler: Orbax's error would keep alive its half-done writes, which complain at exit.
            raise OSError(number, os.strerror(number), os.fspath(self._folder))

    def restore(
        self,
        like: TrainState,
        *,
        set_aside: bool = True,
        only: int | None = None,
        refuse: Callable[[int], str] = lambda step: "",
    ) -> TrainState | None:
        """The newest sound state, or with `only` that of this step, shaped as `like`; None where there is none.

        A damaged checkpoint (unreadable, or with other content than was saved) is skipped with a warning, and with
        `set_aside` moved to `RUN/damaged-checkpoint-STEP`: otherwise the resumed run could not save a sound one of the
        same step. A step that `refuse` gives a reason against is treated the same way.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            if only is not None and step != only:
                continue
            state, reason = None, refuse(step)
            if not reason:
                state, reason = self._read(step, abstract)
            if not reason:
                return state
            if set_aside:
                self._set_aside(step)
            _log.warning("checkpoint %s in %s is damaged (%s)", step, self._folder, reason)
        return None

    def damage(self, like: TrainState) -> dict[int, str]:
        """What is wrong with which checkpoint; nothing is moved."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        reasons = {step: self._read(step, abstract)[1] for step in self.steps()}
        return {step: reason for step, reason in reasons.items() if reason}

    def _read(self, step: int, abstract: Any) -> tuple[TrainState | None, str]:
        """A checkpoint's state, or None and what is wrong with it."""
        try:
            wanted = ocp.args.StandardRestore(_fields(abstract))
            restored = self._manager.restore(step, args=ocp.args.Composite(state=wanted, digest=ocp.args.JsonRestore()))
            state = TrainState(**restored["state"])
            if restored["digest"]["sha256"] == state_digest(state):
                return jax.tree.map(jnp.asarray, state), ""
            return None, "its content is not what was saved"
        except Exception as error:  # Orbax and TensorStore raise many kinds for one damaged file
            return None, f"{type(error).__name__}: {error}".split("\n")[0][:200]

    def _set_aside(self, step: int) -> None:
        folder = self._folder
        number, target = 0, folder.parent / f"damaged-checkpoint-{step}"
        while target.exists():
            number += 1
            target = folder.parent / f"damaged-checkpoint-{step}-{number}"
        (folder / str(step)).rename(target)
        self._manager.reload()

    def steps(self) -> list[int]:
        """The steps kept, oldest first."""
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Frees Orbax's threads."""
        self._manager.close()


@functools.cache
def _ignore_late_callbacks() -> None:
    """Silences the reads that complain when Orbax closes its event loop at the first damaged array."""
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook


def _system_error(error: BaseException | None) -> int:
    """The `errno` behind an error of Orbax's, or 0; TensorStore, which writes arrays, has it in its message only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return 0


def _fields(state: TrainState) -> dict[str, Any]:
    """A state as a checkpoint has it: without statistics where there are none, as before there were any."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if name != "statistics" or value is not None}


def state_digest(state: Any) -> str:
    """SHA-256 over the bytes of every leaf, in order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def kept_steps(run_dir: Path) -> list[int]:
    """The steps of a run folder's checkpoints, oldest first."""
    folder = Path(run_dir) / FOLDER
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def load_params(run_dir: Path, step: int | None = None) -> tuple[RunConfig, Task, dict[str, Any]]:
    """Configuration, task and trained parameters of a run folder; with `step`, the parameters of that checkpoint.

    Raises:
      UserError: the folder is no run, or has no sound checkpoint (of this step).
    """
    run_dir = Path(run_dir)
    try:
        written = json.loads((run_dir / "config.json").read_text())
        config = RunConfig.from_record(written)
        data = written["data"]
        task = Task.of(config, tuple(data["image_shape"]), data["num_classes"], data["train_examples"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{run_dir} is not a run folder (config.json: {error}); give one WORKDIR/EXPERIMENT/DIGEST"
        ) from None
    if not (run_dir / FOLDER).is_dir():
        raise UserError(f"{run_dir} has no checkpoint; run its experiment again")
    if step is not None and step not in kept_steps(run_dir):
        kept = ", ".join(map(str, kept_steps(run_dir)))
        raise UserError(f"{run_dir} has no checkpoint of step {step}; kept are: {kept}")
    checkpoints = Checkpoints(run_dir, read_only=True)
    state = checkpoints.restore(state_shape(task), set_aside=False, only=step)
    checkpoints.close()
    if state is None:
        which = "" if step is None else f" of step {step}"
        raise UserError(f"{run_dir} has no sound checkpoint{which}; run its experiment again")
    return config, task, state.weights if step is not None else state.result_params
