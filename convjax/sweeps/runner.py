"""The sweep runner: does the runs that have no result yet, here, in worker processes, or on a Ray cluster.

Whoever works on a run holds its lock (see `convjax.sweeps.store`), so any number of runners may share one store: a
run that another has locked is left to it and looked at again later. Nothing is remembered but what the store holds.
"""

import ctypes
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Literal, Protocol

from convjax.config import FOLDER, RunConfig
from convjax.errors import UserError
from convjax.files import DiskError
from convjax.sweeps.grid import program_of
from convjax.sweeps.lock import Lock, Locked
from convjax.sweeps.run import Options, Reporter, Silent, execute, load_dataset, require_same_data, require_validation
from convjax.sweeps.store import Run

SEED_MODES = ("auto", "serial", "vmap", "processes")
EXECUTORS = ("local", "ray")

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """How to do a sweep. None of it changes a run's numbers.

    Attributes:
      executor: `local`, or `ray` for a Ray cluster.
      seed_mode: `serial` does one run after another; `vmap` trains all seeds of all arms that one program fits (see
        `convjax.sweeps.grid.program_of`) at once; `processes` shares the runs among worker processes; `auto` is
        `vmap` on an accelerator and `serial` on CPU, where vectorised runs are slower.
      lanes: how many runs `vmap` trains at once on each device.
      jobs: worker processes; 0 for two on a machine of two or more cores.
      ray_address: of the cluster; `auto` for the one this machine belongs to.
      ray_cpus, ray_gpus: what a run asks of the cluster.
    """

    executor: Literal["local", "ray"] = "local"
    seed_mode: Literal["auto", "serial", "vmap", "processes"] = "auto"
    jobs: int = 0
    lanes: int = 32
    ray_address: str = "auto"
    ray_cpus: float = 1
    ray_gpus: float = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("executor", self.executor, EXECUTORS),
            ("seed_mode", self.seed_mode, SEED_MODES),
        ):
            if value not in allowed:
                raise UserError(f"--{name}={value!r} is not known; expected one of {', '.join(allowed)}")


class SweepReporter(Protocol):
    """What a sweep tells while it goes."""

    def started(self, config: RunConfig) -> Reporter:
        """A run begins in this process; its own news go to the returned reporter."""

    def watch(self, running: Sequence[RunConfig]) -> None:
        """Called now and then while other processes work on `running`."""

    def finished(self, config: RunConfig, status: str, reason: str) -> None:
        """A run is over: `done`, `diverged` or `failed`."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs of one experiment in one store.

    Attributes:
      arms: the configurations of each arm, one a seed.
      started: wall time the sweep started; a failure recorded after it is not tried again.
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
        """`done`, `diverged`, `failed` (in this sweep) or `todo`, and the reason. A damaged run is to do again."""
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


def run_sweep(sweep: Sweep, how: SweepOptions, reporter: SweepReporter) -> None:
    """Does every run of the sweep that is not done, and returns when none is left.

    A run that fails is recorded and the others go on; `Sweep.status` tells of each.

    Raises:
      UserError: early stopping without validation images.
      UnavailableError: no run can work (no data, no cluster).
      KeyboardInterrupt: after the runs in hand saved a checkpoint.
    """
    if not sweep.options.resume:
        for config in sweep.configs:
            run = sweep.run(config)
            if run.path.exists():
                with run.lock():
                    run.reset()
        sweep = dataclasses.replace(sweep, options=dataclasses.replace(sweep.options, resume=True))
    _mend(sweep)
    for config in sweep.configs:
        path = config.dataset.removeprefix(FOLDER)
        if how.executor == "ray" and path != config.dataset and not os.path.isabs(path):
            raise UserError(f"--dataset={config.dataset}: with --executor=ray give the folder's absolute path")
        require_same_data(sweep.run(config), config, sweep.options)
    open_runs = _settle(sweep, sweep.configs, reporter)
    if not open_runs:
        return
    # Once here, and not in every worker at the same time; what fails here would fail in every run.
    for config in {_data_of(config): config for config in open_runs}.values():
        load_dataset(config.dataset, sweep.options.data_dir, 0, 0, **config.data_settings)
    for config in {config.replace(seed=0) for config in open_runs if config.early_stopping}:
        require_validation(config, sweep.options)
    if how.executor == "ray":
        from convjax.sweeps.ray_executor import run_on_ray

        run_on_ray(sweep, open_runs, how, reporter)
        return
    mode = how.seed_mode if how.seed_mode != "auto" else _choose_mode()
    if mode == "processes":
        _run_in_processes(sweep, open_runs, how.jobs or min(2, os.cpu_count() or 1), reporter)
        return
    groups = _programs(sweep, open_runs, how) if mode == "vmap" else [[config] for config in open_runs]
    _run_groups(sweep, groups, reporter)


def _mend(sweep: Sweep) -> None:
    """Sets aside what is damaged of runs that count as done; the others are looked at when they are run."""
    for config in sweep.configs:
        run = sweep.run(config)
        if (run.path / "result.json").exists() and run.damage():
            with suppress(Locked), run.lock():
                run.mend()


def data_notes(sweep: Sweep) -> list[str]:
    """What is to be known of the sweep's data before it runs, a line each."""
    lines = []
    for config in {_data_of(config): config for config in sweep.configs}.values():
        dataset = load_dataset(config.dataset, sweep.options.data_dir, 0, 0, **config.data_settings)
        lines += [f"{config.dataset}: {note}" for note in dataset.details.get("notes", ())]
    return lines


def _data_of(config: RunConfig) -> tuple[object, ...]:
    return config.dataset, *config.data_settings.items()


def _choose_mode() -> Literal["serial", "vmap"]:
    import jax

    return "serial" if jax.default_backend() == "cpu" else "vmap"


def _programs(sweep: Sweep, open_runs: Sequence[RunConfig], how: SweepOptions) -> list[list[RunConfig]]:
    """The runs by the program that trains them, no more at once than the devices have lanes."""
    from convjax.training import devices as parallel

    groups: dict[RunConfig, list[RunConfig]] = {}
    for config in open_runs:
        groups.setdefault(program_of(config), []).append(config)
    most = how.lanes * parallel.choose(sweep.options.devices, runs=len(open_runs)).count
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def _run_groups(sweep: Sweep, groups: Sequence[list[RunConfig]], reporter: SweepReporter) -> None:
    """Does groups of runs in this process, those of one group at once."""
    pending = [group for group in groups if group]
    while pending:
        left = []
        for group in pending:
            group = _run_group(sweep, group, reporter)
            if group:
                left.append(group)
        if len(left) == len(pending):  # all are in other hands
            reporter.watch([config for group in left for config in group])
            time.sleep(_POLL_SECONDS)
            left = [open_runs for group in left if (open_runs := _settle(sweep, group, reporter))]
        pending = left


def _run_group(sweep: Sweep, group: list[RunConfig], reporter: SweepReporter) -> list[RunConfig]:
    """Does those runs of the group that nobody else has locked; returns the others."""
    with ExitStack() as stack:
        locks: dict[RunConfig, Lock] = {}
        for config in group:
            with suppress(Locked):
                locks[config] = stack.enter_context(sweep.run(config).lock())
        # Another process may have finished some between our look and our lock.
        mine = [config for config in locks if sweep.status(config)[0] == "todo"]
        if mine:
            with suppress(Locked):  # we were suspended for so long that another took a run over
                attempt(sweep, mine, reporter.started(mine[0]), [locks[config] for config in mine])
        _settle(sweep, list(locks), reporter)
        return [config for config in group if config not in locks]


def attempt(sweep: Sweep, configs: Sequence[RunConfig], reporter: Reporter, locks: Sequence[Lock]) -> None:
    """Does runs whose locks we hold; an error is recorded in the directory of the run that it comes from.

    Of several runs trained at once any may be the one at fault, or there may be too many for the device's memory:
    they are tried again by halves.

    Raises:
      Locked: one of the locks was lost.
      DiskError: nothing can be recorded, and the next run would fare no better.
    """
    try:
        execute(configs, sweep.experiment, sweep.options, reporter, locks=locks)
    except (Locked, DiskError):
        raise
    except Exception as error:
        todo = [config for config in configs if sweep.status(config)[0] == "todo"]
        if len(configs) == 1:
            for config in todo:
                sweep.run(config).fail(error, traceback.format_exc())
            return
        middle = -(-len(todo) // 2)
        for half in filter(None, (todo[:middle], todo[middle:])):
            attempt(sweep, half, reporter, locks)


def lock_and_attempt(sweep: Sweep, config: RunConfig) -> None:
    """Does a run if it is still to do; workers call this.

    Raises:
      Locked: another process has it.
    """
    if sweep.status(config)[0] == "todo":
        with sweep.run(config).lock() as lock:
            # Another process may have finished it between our look and our lock.
            if sweep.status(config)[0] == "todo":
                attempt(sweep, [config], Silent(), [lock])


def _settle(sweep: Sweep, configs: Sequence[RunConfig], reporter: SweepReporter) -> list[RunConfig]:
    """Reports the runs that are over, by whomever, and returns the others."""
    open_runs = []
    for config in configs:
        status, reason = sweep.status(config)
        if status == "todo":
            open_runs.append(config)
        else:
            reporter.finished(config, status, reason)
    return open_runs


def _run_in_processes(sweep: Sweep, open_runs: list[RunConfig], jobs: int, reporter: SweepReporter) -> None:
    """Shares the runs among worker processes, which find their work as independent runners do: by locks.

    A worker has as many threads as a single process would: with fewer, the sums inside matrix products would be
    split otherwise, and the numbers would not be those of the other modes.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[int, multiprocessing.process.BaseProcess] = {}

    def start(place: int) -> None:
        workers[place] = context.Process(target=_work, args=(sweep, place, jobs, os.getpid()))
        workers[place].start()

    try:
        while open_runs:
            for place in range(min(jobs, len(open_runs))):
                worker = workers.get(place)
                if worker is None:
                    start(place)
                elif not worker.is_alive():
                    # 0: it found all other runs locked. Those may come free again, should their owners die.
                    if worker.exitcode:
                        _record_death(sweep, open_runs, worker)
                    start(place)
            time.sleep(_POLL_SECONDS)
            open_runs = _settle(sweep, open_runs, reporter)
            reporter.watch(open_runs)
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worker.terminate()
        for worker in workers.values():
            worker.join()


def _work(sweep: Sweep, place: int, jobs: int, parent: int) -> None:
    """A worker process: does what nobody else does, beginning at a place of its own in the list."""
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    _die_with_parent(parent)
    configs = sweep.configs
    with suppress(KeyboardInterrupt), _exit_on(DiskError):
        for config in configs[place::jobs] + [c for index, c in enumerate(configs) if index % jobs != place]:
            with suppress(Locked):
                lock_and_attempt(sweep, config)


@contextmanager
def _exit_on(kind: type[Exception]) -> Iterator[None]:
    """Ends the process with the error's one line; the parent finds the same trouble when it records the death."""
    try:
        yield
    except kind as error:
        sys.exit(str(error))


def _die_with_parent(parent: int) -> None:
    """Asks the kernel to end this process, with a checkpoint, when its parent is gone."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


def _record_death(sweep: Sweep, open_runs: Sequence[RunConfig], worker: multiprocessing.process.BaseProcess) -> None:
    """A worker that was killed or crashed had a run in hand: that run failed."""
    code = worker.exitcode or 0
    reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    for config in open_runs:
        if sweep.run(config).owner_pid() == worker.pid and sweep.status(config)[0] == "todo":
            sweep.run(config).fail(RuntimeError(f"its worker process ended with {reason}"), "")
