"""The sweep on a Ray cluster: one task a run, results written where the store is, which must be a shared path."""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convjax.config import RunConfig
from convjax.errors import UnavailableError, UserError
from convjax.sweeps.lock import Locked

if TYPE_CHECKING:
    from convjax.sweeps.runner import Sweep, SweepOptions, SweepReporter

_RETRIES = 10
"""How often a run whose worker or machine was lost is started again; it goes on from its checkpoint."""

_POLL_SECONDS = 1.0


def run_on_ray(sweep: "Sweep", open_runs: Sequence[RunConfig], how: "SweepOptions", reporter: "SweepReporter") -> None:
    """Does `open_runs` as tasks of a Ray cluster.

    The driver holds nothing that the store does not: killed, it may be started again at any time, and tasks that the
    old one left behind keep their locks, so that no run is done twice.

    Raises:
      UserError: Ray is not installed.
      UnavailableError: there is no cluster at the address.
    """
    ray = _connect(how.ray_address)
    options = dataclasses.replace(
        sweep.options,
        workdir=str(Path(sweep.options.workdir).absolute()),
        data_dir=sweep.options.data_dir and str(Path(sweep.options.data_dir).absolute()),
    )
    sweep = dataclasses.replace(sweep, options=options)
    request = {"num_cpus": how.ray_cpus, "num_gpus": how.ray_gpus, "max_retries": _RETRIES}
    task = ray.remote(_task).options(**request)
    _require_resources(ray, how)
    futures: dict[Any, RunConfig] = {task.remote(sweep, config): config for config in open_runs}
    waiting: list[tuple[float, RunConfig]] = []
    try:
        while futures or waiting:
            ready, _ = ray.wait(list(futures), timeout=_POLL_SECONDS) if futures else ([], [])
            if not futures:
                time.sleep(_POLL_SECONDS)
            for future in ready:
                config = futures.pop(future)
                try:
                    mine = ray.get(future)
                except ray.exceptions.RayError as error:
                    sweep.run(config).fail(RuntimeError(f"Ray lost the run: {str(error).splitlines()[0]}"), str(error))
                    mine = True
                status, reason = sweep.status(config)
                if status != "todo":
                    reporter.finished(config, status, reason)
                elif mine:
                    reporter.finished(config, "failed", "the task ended without a result")
                else:
                    waiting.append((time.monotonic() + 5 * _POLL_SECONDS, config))
            for due, config in list(waiting):
                if time.monotonic() >= due:
                    waiting.remove((due, config))
                    futures[task.remote(sweep, config)] = config
            reporter.watch([*futures.values(), *(config for _, config in waiting)])
    except KeyboardInterrupt:
        for future in futures:
            ray.cancel(future, force=False)  # a KeyboardInterrupt in the task: it saves a checkpoint
        raise
    finally:
        ray.shutdown()


def _task(sweep: "Sweep", config: RunConfig) -> bool:
    """Does a run on a worker. False where another process has it."""
    from convjax.sweeps.runner import lock_and_attempt

    try:
        lock_and_attempt(sweep, config)
    except Locked:
        return False
    return True


def _connect(address: str) -> Any:
    # Ray would otherwise report usage to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor=ray needs Ray; install it with: pip install 'convjax[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise UnavailableError(
            f"no Ray cluster at --ray_address={address} ({str(error).splitlines()[0]}); "
            "start one with: ray start --head"
        ) from None
    return ray


def _require_resources(ray: Any, how: "SweepOptions") -> None:
    """A task that no machine can take would wait for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= how.ray_cpus and node.get("GPU", 0) >= how.ray_gpus for node in machines):
        raise UserError(
            f"no machine of the cluster has the {how.ray_cpus:g} CPUs and {how.ray_gpus:g} GPUs a run asks for; "
            "see --ray_cpus and --ray_gpus"
        )
