"""What a run shows: a progress bar per epoch on a terminal, elsewhere a line per epoch."""

import sys
from typing import TYPE_CHECKING

import rich.progress

if TYPE_CHECKING:
    from convjax.sweeps.run import Reporter
    from convjax.training.loop import EpochMetrics, Progress


def make_reporter(progress: bool) -> "Reporter":
    """Bars if `progress` is wanted and stdout is a terminal, otherwise lines."""
    return Bars() if progress and sys.stdout.isatty() else Lines()


class Lines:
    """One line per epoch, for logs."""

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def progress(self, progress: "Progress") -> None:
        """Prints nothing between epochs."""

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Prints the epoch's metrics."""
        print(epoch_line(metrics, epochs), flush=True)


class Bars:
    """A progress bar per epoch with steps, means so far and the time left; a line replaces it at the end."""

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def progress(self, progress: "Progress") -> None:
        """Starts or moves the bar."""
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
        """Replaces the bar with the epoch's line."""
        self.close()
        print(epoch_line(metrics, epochs), flush=True)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _make_bar() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=30),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("steps  {task.fields[means]}  ETA"),
        rich.progress.TimeRemainingColumn(),
        refresh_per_second=5,
        transient=True,
    )


def epoch_line(metrics: "EpochMetrics", epochs: int) -> str:
    """`epoch 1/5  loss 0.1712  accuracy 94.70%  8.1 s`, and the validation metrics if there are any."""
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
