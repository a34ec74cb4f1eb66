"""What a run shows while it goes: a bar per epoch on a terminal, a line per epoch elsewhere."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from convjax.sweeps.run import Reporter
    from convjax.training.loop import EpochMetrics, Progress


def make_reporter(progress: bool) -> "Reporter":
    """Bars where `progress` is wanted and stdout is a terminal, else lines."""
    return Bars() if progress and sys.stdout.isatty() else Lines()


class Lines:
    """A line an epoch, for logs."""

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def progress(self, progress: "Progress") -> None:
        """Says nothing between epochs."""

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Prints the epoch's metrics."""
        print(epoch_line(metrics, epochs), flush=True)


class Bars:
    """A progress bar an epoch, with steps, means so far and the time left; finished bars stay as lines."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def progress(self, progress: "Progress") -> None:
        """Moves the bar, or starts one."""
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.steps, means="")
        assert self._task is not None
        self._bar.update(
            self._task,
            completed=progress.step,
            description=f"epoch {progress.epoch}/{progress.epochs}",
            means=f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.2%}",
        )

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Replaces the bar by the epoch's line."""
        self.close()
        print(epoch_line(metrics, epochs), flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _make_bar() -> "RichProgress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[means]}  ETA"),
        TimeRemainingColumn(),
        refresh_per_second=5,
        transient=True,
    )


def epoch_line(metrics: "EpochMetrics", epochs: int) -> str:
    """`epoch 1/5  loss 0.1712  accuracy 94.70%  8.1 s`, with the validation's where there is one."""
    parts = [
        f"epoch {metrics.epoch}/{epochs}",
        f"loss {metrics.train_loss:.4f}",
        f"accuracy {metrics.train_accuracy:.2%}",
    ]
    if metrics.validation_accuracy is not None:
        parts += [f"validation loss {metrics.validation_loss:.4f}", f"accuracy {metrics.validation_accuracy:.2%}"]
    if metrics.validation_auc is not None:
        parts.append(f"AUC {metrics.validation_auc:.4f}")
    return "  ".join([*parts, f"{metrics.seconds:.1f} s"])
