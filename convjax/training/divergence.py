"""What happened at a step whose loss was NaN or infinite, and which operation gave the first such value."""

import dataclasses
import math
import traceback
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Int, UInt8

from convjax.training.diagnostics import layer_norms
from convjax.training.steps import Batch, Keys, Task, TrainState, loss_and_gradients, take_batch

_PACKAGE = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Divergence:
    """A step whose loss was not finite.

    Attributes:
      step: which one, from 1.
      loss: NaN or infinite.
      learning_rate: at this step.
      gradient_norms: L2 norm of the loss's gradient by layer, at this step.
      weight_norms: L2 norm of the parameters by layer, before this step's update.
      state, batch, keys: the step's inputs.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norms: dict[str, float]
    weight_norms: dict[str, float]
    state: TrainState = dataclasses.field(repr=False)
    batch: Batch = dataclasses.field(repr=False)
    keys: Keys = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; None stands for a norm that is not finite."""
        norms = {
            name: {layer: norm if math.isfinite(norm) else None for layer, norm in getattr(self, name).items()}
            for name in ("gradient_norms", "weight_norms")
        }
        return {"step": self.step, "loss": str(self.loss), "learning_rate": self.learning_rate, **norms}

    def __str__(self) -> str:
        norms = ", ".join(f"{layer} {norm:.3g}" for layer, norm in self.gradient_norms.items())
        return (
            f"the loss was {self.loss} at step {self.step:,} (learning rate {self.learning_rate:g}, gradient norms "
            f"{norms})"
        )


def diagnose(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    row: Int[Array, " batch"],
    keys: Keys,
    *,
    task: Task,
) -> Divergence:
    """Computes the failed step again.

    Args:
      state: before the step.
      row: the step's row of `epoch_order`.
    """
    batch = take_batch(images, labels, row)
    loss, _, gradients = jax.jit(loss_and_gradients, static_argnames="task")(state, batch, keys, task=task)
    return Divergence(
        step=int(state.step) + 1,
        loss=float(loss),
        learning_rate=float(task.learning_rate(state.learning_rate, state.step)),
        gradient_norms=layer_norms(gradients),
        weight_norms=layer_norms(state.params),
        state=state,
        batch=batch,
        keys=keys,
    )


def first_nonfinite(divergence: Divergence, *, task: Task) -> str:
    """Repeats the step one operation at a time; says which first gave NaN or, if none did, infinity."""
    for check in (jax.debug_nans, jax.debug_infs):
        try:
            with jax.disable_jit(), check(True):
                loss_and_gradients(divergence.state, divergence.batch, divergence.keys, task=task)
        except FloatingPointError as error:
            own = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename).is_relative_to(_PACKAGE)
            ]
            place = Path(own[-1].filename).relative_to(_PACKAGE.parent)
            return f"{str(error).splitlines()[0].rstrip('.')}, at {place}:{own[-1].lineno} ({own[-1].line})"
    return "no single operation gave NaN or infinity when repeated alone"
