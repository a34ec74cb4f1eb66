"""What a run shows: a progress bar per epoch on a terminal, elsewhere a line per epoch."""

import sys

import rich.progress

from convjax.sweeps.run import Reporter
from convjax.training.hooks import EpochMetrics, Progress


def make_reporter(progress: bool) -> Reporter:
    """A Reporter with bars if `progress` is wanted and stdout is a terminal, otherwise one with lines."""
    return Bars() if progress and sys.stdout.isatty() else Lines()


class Lines(Reporter):
    """One line per epoch, for logs."""

    def message(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Prints the epoch's metrics."""
        self.message(epoch_line(metrics, epochs))


class Bars(Lines):
    """A progress bar per epoch with steps, means so far and the time left; the epoch's line replaces it."""

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None

    def progress(self, progress: Progress) -> None:
        """Starts or moves the bar."""
        if self._bar is None:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=30),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("steps  {task.fields[means]}  ETA"),
                rich.progress.TimeRemainingColumn(),
                refresh_per_second=5,
                transient=True,
            )
            self._bar.add_task("", total=progress.steps, means="")
            self._bar.start()
        self._bar.update(
            self._bar.task_ids[0],
            completed=progress.step,
            description=f"epoch {progress.epoch}/{progress.epochs}",
            means=f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.2%}",
        )

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Replaces the bar with the epoch's line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        super().epoch(metrics, epochs)


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
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
