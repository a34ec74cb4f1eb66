"""Does the runs of a sweep that have no result yet: here, in worker processes, or on a Ray cluster.

Whoever works on a run holds its lock (see `lock`), so any number of runners may share a store: each leaves runs that
another has locked, and looks at them again later. A runner keeps no state of its own; everything is in the store.
"""

import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess

from absl import logging

from convjax import training
from convjax.config import FOLDER, RunConfig
from convjax.errors import UserError
from convjax.files import DiskError
from convjax.sweeps import ray_executor
from convjax.sweeps.attempts import attempt
from convjax.sweeps.grid import program_of
from convjax.sweeps.lock import Locked
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.run import require_same_data, require_validation, whole_dataset_of
from convjax.sweeps.sweep import Sweep, SweepReporter

_POLL_SECONDS = 0.5


def run_sweep(sweep: Sweep, how: SweepOptions, reporter: SweepReporter) -> None:
    """Does every run of the sweep that is not done, and returns when all are.

    A run that fails is recorded and the others go on; `Sweep.status` tells of each.

    Raises:
      UserError: early stopping without validation images.
      UnavailableError: no run can work (no data, no cluster).
      KeyboardInterrupt: after the current runs saved a checkpoint.
    """
    sweep = _prepare(sweep, how)
    todo = sweep.report_finished(sweep.configs, reporter)
    if not todo:
        return
    _require_data(sweep, todo)
    if how.executor == "ray":
        ray_executor.run_on_ray(sweep, todo, how, reporter)
        return
    mode = how.seed_mode
    if mode == "auto":
        mode = "serial" if training.backend.on_cpu() else "vmap"
    if mode == "processes":
        _run_in_processes(sweep, todo, how.jobs or min(2, os.cpu_count() or 1), reporter)
    else:
        groups = _replicas(sweep, todo, how) if mode == "vmap" else [[config] for config in todo]
        _run_here(sweep, groups, reporter)


def data_notes(sweep: Sweep) -> list[str]:
    """What the user should know of the sweep's data before it runs, one line each."""
    return [
        f"{config.dataset}: {note}"
        for config in _one_per_dataset(sweep.configs)
        for note in whole_dataset_of(config, sweep.options.data_dir).details.get("notes", ())
    ]


def _prepare(sweep: Sweep, how: SweepOptions) -> Sweep:
    """Resets or mends what is in the store; the sweep to run then resumes what is sound."""
    for config in sweep.configs:
        run = sweep.run(config)
        if not sweep.options.resume:
            if run.path.exists():
                with run.lock():
                    run.reset()
        elif (run.path / "result.json").exists() and run.damage():  # unfinished runs are mended when they run
            with suppress(Locked), run.lock():
                run.mend()
    sweep = dataclasses.replace(sweep, options=dataclasses.replace(sweep.options, resume=True))
    for config in sweep.configs:
        path = config.dataset.removeprefix(FOLDER)
        if how.executor == "ray" and path != config.dataset and not os.path.isabs(path):
            raise UserError(f"--dataset={config.dataset}: with --executor=ray give the folder's absolute path")
        require_same_data(sweep.run(config), config, sweep.options)
    return sweep


def _require_data(sweep: Sweep, todo: Sequence[RunConfig]) -> None:
    """Loads the data once, so that workers need not all download it; an error here would stop every run."""
    for config in _one_per_dataset(todo):
        whole_dataset_of(config, sweep.options.data_dir)
    for config in {config.replace(seed=0) for config in todo if config.early_stopping}:
        require_validation(config, sweep.options)


def _one_per_dataset(configs: Sequence[RunConfig]) -> list[RunConfig]:
    return list({(config.dataset, *config.data_settings.items()): config for config in configs}.values())


def _replicas(sweep: Sweep, todo: Sequence[RunConfig], how: SweepOptions) -> list[list[RunConfig]]:
    """Groups of runs to train together, each no larger than the devices take."""
    groups: dict[RunConfig, list[RunConfig]] = {}
    for config in todo:
        groups.setdefault(program_of(config), []).append(config)
    most = how.replicas * training.devices.choose(sweep.options.devices, runs=len(todo)).count
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def _run_here(sweep: Sweep, groups: Sequence[list[RunConfig]], reporter: SweepReporter) -> None:
    """Does groups of runs in this process, those of one group together."""
    while groups:
        left = []
        for group in groups:
            attempt(sweep, group, reporter.started)
            left.append(sweep.report_finished(group, reporter))
        groups = [group for group in left if group]
        if groups:  # other processes hold every remaining run
            reporter.watch([config for group in groups for config in group])
            time.sleep(_POLL_SECONDS)


def _run_in_processes(sweep: Sweep, todo: list[RunConfig], jobs: int, reporter: SweepReporter) -> None:
    """Shares the runs among worker processes, which find their work by locks, as independent runners do.

    A worker has as many threads as a single process would: fewer would split the sums inside matrix products
    differently, and the numbers would not be those of the other modes.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[int, BaseProcess] = {}
    try:
        while todo:
            for place in range(min(jobs, len(todo))):
                worker = workers.get(place)
                if worker is not None and worker.is_alive():
                    continue
                if worker is not None and worker.exitcode:  # 0: every other run was locked; start another to look again
                    _record_death(sweep, todo, worker)
                workers[place] = context.Process(target=_work, args=(sweep, place, jobs, os.getpid()))
                workers[place].start()
            time.sleep(_POLL_SECONDS)
            todo = sweep.report_finished(todo, reporter)
            reporter.watch(todo)
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worker.terminate()
        for worker in workers.values():
            worker.join()


def _work(sweep: Sweep, place: int, jobs: int, parent: int) -> None:
    """A worker process: does every run that no other process has, in an order of its own."""
    logging.set_verbosity(logging.WARNING)
    _die_with_parent(parent)
    configs = sweep.configs
    try:
        for config in configs[place::jobs] + [c for index, c in enumerate(configs) if index % jobs != place]:
            attempt(sweep, [config])
    except KeyboardInterrupt:
        pass
    except DiskError as error:
        sys.exit(str(error))  # the parent meets the same error when it records the death


def _die_with_parent(parent: int) -> None:
    """Asks the kernel to end this process, which saves a checkpoint, when its parent ends."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


def _record_death(sweep: Sweep, todo: Sequence[RunConfig], worker: BaseProcess) -> None:
    """Records the failure of the run that a killed or crashed worker was working on."""
    code = worker.exitcode or 0
    reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    for config in todo:
        if sweep.run(config).owner_pid() == worker.pid and sweep.status(config)[0] == "todo":
            sweep.run(config).fail(RuntimeError(f"its worker process ended with {reason}"), "")
