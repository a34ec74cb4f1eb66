"""What a sweep shows: a live display of all runs on a terminal, elsewhere one line per finished run."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import rich.console
import rich.progress

from convjax.config import RunConfig
from convjax.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from convjax.training.loop import EpochMetrics, Progress

_NOMINAL_RATE = 1e11
"""FLOPs per second, assumed until a run has been measured."""

_SHOWN_RUNNING = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run costs, to estimate times: FLOPs of its training."""

    flops: float

    @classmethod
    def of(cls, config: RunConfig, flops_per_image: int, train_examples: int) -> "Cost":
        """One forward and two gradient passes over every image of every epoch."""
        return cls(3.0 * flops_per_image * (config.train_size or train_examples) * config.epochs)


class SweepDisplay:
    """A SweepReporter: shows runs done, what is running with epoch and accuracy, and the time left."""

    def __init__(
        self, sweep: Sweep, labels: Mapping[RunConfig, str], costs: Mapping[RunConfig, Cost], *, progress: bool
    ) -> None:
        """`labels` names each run; `costs` tells how long runs take relative to one another."""
        self._sweep = sweep
        self._labels = labels
        self._costs = costs
        self._status: dict[RunConfig, str] = {}
        self._reported: set[RunConfig] = set()
        self._started = time.monotonic()
        self._measured: list[tuple[float, float]] = []
        self._live = _LiveBar(len(labels)) if progress and sys.stdout.isatty() else None
        self._measure_finished()

    def plan(self) -> str:
        """`25 runs (5 arms x 5 seeds), 10 done, about 12 min to go`."""
        done = sum(self._sweep.status(config)[0] in ("done", "diverged") for config in self._labels)
        arms, seeds = len(self._sweep.arms), len(self._sweep.arms[0])
        text = f"{len(self._labels)} runs ({_count(arms, 'arm')} x {_count(seeds, 'seed')}), {done} done"
        if done == len(self._labels):
            return text
        seconds = self._seconds_left([c for c in self._labels if self._sweep.status(c)[0] == "todo"])
        return f"{text}, about {_duration(seconds)} to go{'' if self._measured else ' (a rough guess)'}"

    def started(self, config: RunConfig) -> "RunDisplay":
        """See SweepReporter."""
        return RunDisplay(self, config)

    def watch(self, running: Sequence[RunConfig]) -> None:
        """See SweepReporter. The store tells how far other processes are."""
        if self._live is None:
            return
        parts = []
        for config in running:
            last = self._sweep.run(config).last_metrics()
            if last:
                parts.append(
                    f"{self._labels[config]}: epoch {last['epoch']}/{config.epochs} {last['train_accuracy']:.2%}"
                )
        more = f"  and {len(parts) - _SHOWN_RUNNING} more" if len(parts) > _SHOWN_RUNNING else ""
        self.show("  ".join(parts[:_SHOWN_RUNNING]) + more)

    def finished(self, config: RunConfig, status: str, reason: str) -> None:
        """See SweepReporter."""
        if config in self._reported:
            return
        self._reported.add(config)
        self._status[config] = status
        result = self._sweep.run(config).result() if status in ("done", "diverged") else None
        if result is None or result_is_new(self._sweep, config):
            text = f"[{len(self._status)}/{len(self._labels)}] {self._labels[config]}: "
            text += f"test accuracy {result['test_accuracy']:.2%}" if result else status
            if result:
                self._measured.append((self._costs[config].flops, result["seconds"]["total"]))
                text += f"  {result['seconds']['total']:.1f} s"
            if reason:
                text += f"  ({status}: {reason})"
            self._print(text)
        self.show("")

    def show(self, running: str) -> None:
        """Updates the bar and shows what is running."""
        if self._live is not None:
            left = [config for config in self._labels if config not in self._status]
            self._live.update(len(self._status), running, _duration(self._seconds_left(left)) if left else "")

    def close(self) -> None:
        """Removes the display."""
        if self._live is not None:
            self._live.close()

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.print(text)
        else:
            print(text, flush=True)

    def _measure_finished(self) -> None:
        for config in self._labels:
            if self._sweep.status(config)[0] == "done":
                result = self._sweep.run(config).result()
                if result:
                    self._measured.append((self._costs[config].flops, result["seconds"]["total"]))

    def _seconds_left(self, configs: Sequence[RunConfig]) -> float:
        flops = sum(self._costs[config].flops for config in configs)
        if not self._measured:
            return flops / _NOMINAL_RATE
        return flops * sum(seconds for _, seconds in self._measured) / max(sum(done for done, _ in self._measured), 1.0)


def result_is_new(sweep: Sweep, config: RunConfig) -> bool:
    """Whether a run's result was written after the sweep started."""
    try:
        return (sweep.run(config).path / "result.json").stat().st_mtime >= sweep.started
    except OSError:
        return False


class RunDisplay:
    """The Reporter of a run within a sweep."""

    def __init__(self, sweep: SweepDisplay, config: RunConfig) -> None:
        self._sweep = sweep
        self._config = config

    def message(self, text: str) -> None:
        """See Reporter."""
        self._sweep.show(f"{self._label}: {text}")

    def progress(self, progress: "Progress") -> None:
        """See Reporter."""
        self._sweep.show(
            f"{self._label}: epoch {progress.epoch}/{progress.epochs} step {progress.step}/{progress.steps} "
            f"accuracy {progress.accuracy:.2%}"
        )

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """See Reporter."""
        self._sweep.show(f"{self._label}: epoch {metrics.epoch}/{epochs} accuracy {metrics.train_accuracy:.2%}")

    @property
    def _label(self) -> str:
        return self._sweep._labels[self._config]


class _LiveBar:
    """A progress bar for the sweep, followed by what is running."""

    def __init__(self, total: int) -> None:
        self._console = rich.console.Console()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("runs  {task.fields[left]}  {task.fields[running]}", markup=False),
            console=self._console,
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("sweep", total=total, running="", left="")
        self._bar.start()

    def update(self, done: int, running: str, left: str) -> None:
        self._bar.update(self._task, completed=done, running=running, left=f"{left} left" if left else "")

    def print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
