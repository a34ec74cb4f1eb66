"""Recorder: what one run writes into its folder while it trains. `sweeps.run` drives it, `sweeps.store` writes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax import training
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import total_flops, total_parameters
from convjax.sweeps.store import Run
from convjax.training.hooks import EpochMetrics

if TYPE_CHECKING:
    from convjax.data import Dataset
    from convjax.training import Evaluation, Task, TrainState
    from convjax.training.diagnostics import LayerNumbers
    from convjax.training.divergence import Divergence

_SAVE_SECONDS = 2.0
"""Least time between two checkpoints at ends of epochs: with a few dozen images a checkpoint takes longer."""


class Interval:
    """Says when so many seconds have passed; 0 for never."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Starts to count again."""
        self._since = time.monotonic()

    def is_over(self) -> bool:
        """Whether the seconds have passed."""
        return 0 < self._seconds <= time.monotonic() - self._since


class Recorder:
    """Writes the folder of one run: its metrics, checkpoints, TensorBoard events and result.

    Attributes:
      resumed_at: the step that training resumed from; 0 for a fresh start.
      earlier_seconds: of the epochs before it.
      divergence: what `fit` reported, if the loss became NaN or infinite.
    """

    def __init__(self, run: Run, config: RunConfig, task: Task, *, keep: int | None, tensorboard: bool):
        """`keep` is how many of the newest checkpoints to keep; None for all."""
        self.run, self.config, self._task, self._keep_all = run, config, task, keep is None
        self.resumed_at = 0
        self.earlier_seconds = 0.0
        self.divergence: Divergence | None = None
        self._saved = Interval(_SAVE_SECONDS)
        self._checkpoints = training.Checkpoints(run.path, keep=keep)
        self._tensorboard = tensorboard
        self._events: Any = None

    def restore(self, like: TrainState) -> TrainState | None:
        """The state of the newest sound checkpoint, shaped as `like`; the run goes on from it.

        Metrics of later epochs are dropped: these epochs run again.
        """
        state = self._checkpoints.restore(like, refuse=self._without_metrics())
        self.resumed_at = 0 if state is None else int(state.step)
        self.run.truncate_metrics(self.resumed_at)
        self.earlier_seconds = sum(line["seconds"] for line in self.run.metrics())
        if self._tensorboard:
            self._events = _event_writer(self.run.path / "tensorboard", self.resumed_at)
        return state

    def _without_metrics(self) -> Callable[[int], str]:
        """Says why a checkpoint is unusable: metrics.jsonl, which was damaged, lacks epochs before it."""
        ends, steps = {line["step"] for line in self.run.metrics()}, self._task.steps_per_epoch

        def refuse(step: int) -> str:
            lost = sum(end not in ends for end in range(steps, step + 1, steps))
            return f"metrics.jsonl lacks {lost} of its epochs" if lost else ""

        return refuse

    def epoch(self, metrics: EpochMetrics, diagnostics: dict[str, LayerNumbers]) -> None:
        """Appends an epoch's line of metrics."""
        known = {name: value for name, value in dataclasses.asdict(metrics).items() if _is_known(value)}
        self.run.add_metrics(known | diagnostics)
        if self._events is not None:
            _write_events(self._events, known | diagnostics)

    def checkpoint_is_due(self) -> bool:
        """Whether the epoch that just ended deserves a checkpoint."""
        return self._keep_all or self._saved.is_over()

    def save(self, state: TrainState) -> None:
        """Keeps a checkpoint, unless the run diverged: there is nothing to resume."""
        if self.divergence is None:
            self._checkpoints.save(state)
            self._saved.restart()

    def finish(self, state: TrainState, evaluation: Evaluation, dataset: Dataset, seconds: dict[str, float]) -> None:
        """Writes the predictions and the result, which makes the run done."""
        # Whole epochs before a resumption count; the interrupted part of an epoch does not.
        seconds = {**seconds, **{part: seconds[part] + self.earlier_seconds for part in ("train", "total")}}
        result = {
            **self._outcome(state, evaluation, dataset),
            "parameters": total_parameters(self._task.layers),
            "flops": total_flops(self._task.layers),
            "resumed_at_step": self.resumed_at,
            "seconds": {part: round(value, 3) for part, value in seconds.items()},
        }
        self.run.finish(result, evaluation.predictions, dataset.test.labels)

    def _outcome(self, state: TrainState, evaluation: Evaluation, dataset: Dataset) -> dict[str, Any]:
        """The numbers of result.json that depend on the configuration alone."""
        last = self.run.last_metrics() or {}
        # With early stopping the numbers are those of the epoch whose weights were taken.
        best = None if state.best is None else int(state.best.step)
        taken = next((line for line in self.run.metrics() if line["step"] == best), {}) if best else last
        auc = {}
        if evaluation.auc is not None:
            auc = {"test_auc": evaluation.auc, "validation_auc": taken.get("validation_auc")}
        measured = ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss")
        return {
            **self._status(state, evaluation),
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss if math.isfinite(evaluation.loss) else None,
            **auc,
            **{name: taken.get(name) for name in measured},
            "per_class_accuracy": _per_class(evaluation.predictions, dataset.test.labels, dataset.class_names),
            "epochs": last.get("epoch", 0),
            **({} if best is None else {"best_epoch": taken.get("epoch")}),
            "steps": int(state.step),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "test_examples": len(dataset.test.labels),
        }

    def _status(self, state: TrainState, evaluation: Evaluation) -> dict[str, Any]:
        if self.divergence is not None:
            reason = f"{self.divergence}; try a smaller --learning_rate"
            return {"status": "diverged", "reason": reason, "divergence": self.divergence.to_dict()}
        if not math.isfinite(evaluation.loss):
            reason = (
                f"the test loss was {evaluation.loss} after step {int(state.step):,}; try a smaller --learning_rate"
            )
            return {"status": "diverged", "reason": reason}
        return {"status": "done", "reason": ""}

    def best_line(self, state: TrainState) -> str:
        """What early stopping did: `seed 0 stopped after epoch 7; weights of epoch 4 (validation loss 0.1234)`."""
        assert state.best is not None
        steps = self._task.steps_per_epoch
        return (
            f"seed {self.config.seed} stopped after epoch {int(state.step) // steps}; weights of epoch "
            f"{int(state.best.step) // steps} (validation loss {float(state.best.loss):.4f})"
        )

    def close(self) -> None:
        """Frees threads and files."""
        self._checkpoints.close()
        if self._events is not None:
            self._events.close()


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _per_class(predictions: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float | None]:
    """Accuracy on the images of each class; None for a class without any."""
    return {
        name: float((predictions[labels == index] == index).mean()) if (labels == index).any() else None
        for index, name in enumerate(names)
    }


def _event_writer(folder: Path, resumed_at: int) -> Any:
    """A TensorBoard writer; events after the step that a resumed run starts from are purged, as in metrics.jsonl.

    Raises:
      UserError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX; install it with: pip install 'convjax[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=resumed_at + 1 if resumed_at else None)


def _write_events(events: Any, line: dict[str, Any]) -> None:
    """A line of metrics as TensorBoard scalars: `loss/train`, `gradient_norm/conv2d_1`, ..."""
    for name, value in line.items():
        if isinstance(value, dict):
            for layer, number in value.items():
                if number is not None:
                    events.add_scalar(f"{name}/{layer}", number, line["step"])
        elif name not in ("epoch", "step"):
            part, _, quantity = name.partition("_")
            tag = f"{quantity}/{part}" if part in ("train", "validation") else name
            events.add_scalar(tag, value, line["step"])
    events.flush()
