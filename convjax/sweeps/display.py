"""What a sweep shows: a live display of all runs on a terminal, elsewhere one line per finished run."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import rich.progress

from convjax.config import RunConfig
from convjax.sweeps.run import Reporter
from convjax.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from convjax.training.hooks import EpochMetrics, Progress

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
        self.labels = labels
        self._costs = costs
        self._over: set[RunConfig] = set()
        self._measured: list[tuple[float, float]] = []
        for config in labels:
            if sweep.status(config)[0] == "done" and (result := sweep.run(config).result()):
                self._measured.append((costs[config].flops, result["seconds"]["total"]))
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("runs  {task.fields[left]}  {task.fields[running]}", markup=False),
            refresh_per_second=4,
            transient=True,
            disable=not (progress and sys.stdout.isatty()),
        )
        self._task = self._bar.add_task("sweep", total=len(labels), running="", left="")

    def plan(self) -> str:
        """`25 runs (5 arms x 5 seeds), 10 done, about 12 min to go`."""
        status = {config: self._sweep.status(config)[0] for config in self.labels}
        done = sum(word in ("done", "diverged") for word in status.values())
        arms, seeds = len(self._sweep.arms), len(self._sweep.arms[0])
        text = f"{len(status)} runs ({_count(arms, 'arm')} x {_count(seeds, 'seed')}), {done} done"
        if done == len(status):
            return text
        left = self._time_left([config for config in status if status[config] == "todo"])
        return f"{text}, about {left} to go{'' if self._measured else ' (a rough guess)'}"

    def started(self, config: RunConfig) -> "RunDisplay":
        """See SweepReporter."""
        return RunDisplay(self, config)

    def watch(self, running: Sequence[RunConfig]) -> None:
        """See SweepReporter. The store tells how far other processes are."""
        if self._bar.disable:
            return
        last = {config: line for config in running if (line := self._sweep.run(config).last_metrics())}
        parts = [
            f"{self.labels[config]}: epoch {line['epoch']}/{config.epochs} {line['train_accuracy']:.2%}"
            for config, line in last.items()
        ]
        more = f"  and {len(parts) - _SHOWN_RUNNING} more" if len(parts) > _SHOWN_RUNNING else ""
        self.show("  ".join(parts[:_SHOWN_RUNNING]) + more)

    def finished(self, config: RunConfig, status: str, reason: str) -> None:
        """See SweepReporter."""
        if config in self._over:
            return
        self._over.add(config)
        result = self._sweep.run(config).result() if status in ("done", "diverged") else None
        if result is None or self._is_new(config):
            text = f"[{len(self._over)}/{len(self.labels)}] {self.labels[config]}: "
            if result is None:
                text += status
            else:
                seconds = result["seconds"]["total"]
                self._measured.append((self._costs[config].flops, seconds))
                text += f"test accuracy {result['test_accuracy']:.2%}  {seconds:.1f} s"
            self._print(text + (f"  ({status}: {reason})" if reason else ""))
        self.show("")

    def show(self, running: str) -> None:
        """Updates the bar and shows what is running."""
        left = [config for config in self.labels if config not in self._over]
        time_left = f"{self._time_left(left)} left" if left else ""
        self._bar.start()
        self._bar.update(self._task, completed=len(self._over), running=running, left=time_left)

    def close(self) -> None:
        """Removes the bar."""
        if not self._bar.disable:
            self._bar.stop()

    def _print(self, text: str) -> None:
        if self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _is_new(self, config: RunConfig) -> bool:
        """Whether a run's result was written after the sweep started."""
        try:
            return (self._sweep.run(config).path / "result.json").stat().st_mtime >= self._sweep.started
        except OSError:
            return False

    def _time_left(self, configs: Sequence[RunConfig]) -> str:
        measured_flops = sum(flops for flops, _ in self._measured) or _NOMINAL_RATE
        measured_seconds = sum(seconds for _, seconds in self._measured) or 1.0
        seconds = sum(self._costs[config].flops for config in configs) * measured_seconds / measured_flops
        if seconds < 90:
            return f"{max(1, round(seconds))} s"
        if seconds < 90 * 60:
            return f"{seconds / 60:.0f} min"
        if seconds < 48 * 3600:
            return f"{seconds / 3600:.1f} h"
        return f"{seconds / 86400:.1f} days"


class RunDisplay(Reporter):
    """The Reporter of a run within a sweep."""

    def __init__(self, sweep: SweepDisplay, config: RunConfig) -> None:
        self._sweep = sweep
        self._label = sweep.labels[config]

    def message(self, text: str) -> None:
        """See Reporter."""
        self._sweep.show(f"{self._label}: {text}")

    def progress(self, progress: "Progress") -> None:
        """See Reporter."""
        self.message(
            f"epoch {progress.epoch}/{progress.epochs} step {progress.step}/{progress.steps} "
            f"accuracy {progress.accuracy:.2%}"
        )

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """See Reporter."""
        self.message(f"epoch {metrics.epoch}/{epochs} accuracy {metrics.train_accuracy:.2%}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
