"""Attempts at runs: whatever goes wrong in one is recorded in its directory, and the sweep goes on."""

import traceback
from collections.abc import Sequence

from convjax.config import RunConfig
from convjax.files import DiskError
from convjax.sweeps.lock import Lock, Locked
from convjax.sweeps.run import Reporter, Silent, execute
from convjax.sweeps.sweep import Sweep


def attempt(sweep: Sweep, configs: Sequence[RunConfig], reporter: Reporter, locks: Sequence[Lock]) -> None:
    """Does runs that the caller has locked, several of them trained together.

    An error of a single run is recorded in its directory. If several fail together, each half is tried again: one of
    them may be at fault, or they may not fit into the device's memory.

    Raises:
      Locked: another process took one of the runs over.
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
    """Does one run if it is still todo; workers call this.

    Raises:
      Locked: another process works on it.
    """
    if sweep.status(config)[0] == "todo":
        with sweep.run(config).lock() as lock:
            # Another process may have finished it before we locked it.
            if sweep.status(config)[0] == "todo":
                attempt(sweep, [config], Silent(), [lock])
