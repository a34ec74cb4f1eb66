"""A sweep as a value: its runs, what the store says of each, and whom to tell."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from typing import Protocol

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter
from convjax.sweeps.store import Run


class SweepReporter(Protocol):
    """Receives the news of a sweep."""

    def started(self, config: RunConfig) -> Reporter:
        """A run, or the first of several trained together, starts in this process; the returned reporter follows it."""

    def watch(self, running: Sequence[RunConfig]) -> None:
        """Called now and then while other processes work on `running`."""

    def finished(self, config: RunConfig, status: str, reason: str) -> None:
        """A run is `done`, `diverged` or `failed`."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs of one experiment in one store.

    Attributes:
      arms: the configurations of each arm, one per seed.
      started: wall time at which the sweep started; runs that failed later are not tried again.
    """

    experiment: str
    arms: tuple[tuple[RunConfig, ...], ...]
    options: Options
    started: float = dataclasses.field(default_factory=time.time)

    @functools.cached_property
    def configs(self) -> list[RunConfig]:
        """Every run, arm by arm."""
        return list(itertools.chain.from_iterable(self.arms))

    def run(self, config: RunConfig) -> Run:
        """The directory of a run."""
        return Run.of(self.options.workdir, self.experiment, config)

    def status(self, config: RunConfig) -> tuple[str, str]:
        """`done`, `diverged`, `failed` (in this sweep) or `todo`, and the reason. Damaged runs count as `todo`."""
        run = self.run(config)
        try:
            result = run.result()
        except UserError as error:
            return "todo", str(error)
        if result is not None:
            return result["status"], result.get("reason", "")
        path = run.path / "failure.json"
        try:
            if path.stat().st_mtime >= self.started:
                return "failed", (run.failure() or {}).get("error", "")
        except (OSError, UserError):
            pass
        return "todo", ""

    def todo(self, configs: Sequence[RunConfig]) -> list[RunConfig]:
        """Those of `configs` that are todo."""
        return [config for config in configs if self.status(config)[0] == "todo"]

    def report_finished(self, configs: Sequence[RunConfig], reporter: SweepReporter) -> list[RunConfig]:
        """Reports those of `configs` that are finished, whichever process did them, and returns the others."""
        status = {config: self.status(config) for config in configs}
        for config, (word, reason) in status.items():
            if word != "todo":
                reporter.finished(config, word, reason)
        return [config for config, (word, _) in status.items() if word == "todo"]
