"""What `fit` tells its caller, and asks it. Display and store code can import these types without JAX."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convjax.training.divergence import Divergence
    from convjax.training.steps import TrainState


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl. `train_*` are means over the epoch's images, each batch measured before its update.

    The area under the ROC curve is that of two classes; None where there are more.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    validation_auc: float | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training is: `step` of `steps` of the epoch (from 1), and means over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float


class Hooks:
    """What the caller does while `fit` trains; by default nothing. `index` is a replica's place in its group."""

    def on_progress(self, progress: Progress) -> None:
        """Called a few times a second, with means over the replicas."""

    def on_epoch(self, index: int, metrics: EpochMetrics, state: TrainState) -> None:
        """Called after each epoch of each replica, with the state that starts its next epoch."""

    def on_pause(self, index: int, state: TrainState) -> None:
        """Called within an epoch when `should_pause()`, to save the state before training consumes it."""

    def on_divergence(self, index: int, divergence: Divergence) -> None:
        """Called when a replica's loss became NaN or infinite."""

    def should_pause(self) -> bool:
        """Asked after each look at the device."""
        return False

    def should_stop(self) -> bool:
        """Asked after each look at the device; True interrupts training."""
        return False


class Interrupted(Exception):
    """`Hooks.should_stop` returned True. `states` is where training was, one state per replica."""

    def __init__(self, states: list[TrainState]):
        super().__init__("interrupted")
        self.states = states
