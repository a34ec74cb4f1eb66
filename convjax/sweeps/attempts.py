"""Attempts at runs: what goes wrong in a run is recorded in its directory, and the sweep goes on."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from convjax.config import RunConfig
from convjax.files import DiskError
from convjax.sweeps.lock import Lock, Locked
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.sweep import Sweep


def attempt(
    sweep: Sweep, configs: Sequence[RunConfig], started: Callable[[RunConfig], Reporter] = lambda config: Reporter()
) -> bool:
    """Does those of `configs` that are todo and not locked by another process; several are trained together.

    An error of a single run is recorded in its directory. If several fail together, each half is tried again: one of
    them may be at fault, or they may not fit into the device's memory.

    Args:
      started: called with the first of the runs before they start; returns their reporter.

    Returns:
      False if another process works on one of the runs.

    Raises:
      DiskError: nothing can be recorded, and the next run would fare no better.
    """
    locks: dict[RunConfig, Lock] = {}
    todo = sweep.todo(configs)
    with ExitStack() as stack:
        for config in todo:
            with suppress(Locked):
                locks[config] = stack.enter_context(sweep.run(config).lock())
        # Another process may have finished some before we locked them.
        ours = sweep.todo(list(locks))
        try:
            if ours:
                _train(sweep, ours, started(ours[0]), [locks[config] for config in ours])
        except Locked:  # this process was suspended, and another took a run over
            return False
    return len(locks) == len(todo)


def _train(sweep: Sweep, configs: Sequence[RunConfig], reporter: Reporter, locks: Sequence[Lock]) -> None:
    try:
        execute(configs, sweep.experiment, sweep.options, reporter, locks=locks)
    except (Locked, DiskError, FloatingPointError):  # the last of --debug_nans, which stops everything
        raise
    except Exception as error:
        todo = sweep.todo(configs)
        if len(configs) == 1:
            for config in todo:
                sweep.run(config).fail(error, traceback.format_exc())
            return
        middle = -(-len(todo) // 2)
        for half in filter(None, (todo[:middle], todo[middle:])):
            _train(sweep, half, reporter, locks)
