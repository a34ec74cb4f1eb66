"""A sweep on a Ray cluster: one task per run; every machine sees the store under the same path."""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convjax.config import RunConfig
from convjax.errors import UnavailableError, UserError
from convjax.sweeps.attempts import attempt
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.sweep import Sweep, SweepReporter

_RETRIES = 10
"""How often Ray restarts a run whose worker or machine was lost; the run goes on from its checkpoint."""

_POLL_SECONDS = 1.0


def run_on_ray(sweep: Sweep, todo: Sequence[RunConfig], how: SweepOptions, reporter: SweepReporter) -> None:
    """Does the runs in `todo` as tasks of a Ray cluster.

    The driver keeps no state outside the store, so it may be killed and started again at any time. Tasks of a killed
    driver keep their locks, so no run is done twice.

    Raises:
      UserError: Ray is not installed, or no machine has what a run asks for.
      UnavailableError: there is no cluster at the address.
    """
    ray = _connect(how.ray_address)
    _require_resources(ray, how)
    options = sweep.options
    absolute = {"workdir": _absolute(options.workdir), "data_dir": options.data_dir and _absolute(options.data_dir)}
    sweep = dataclasses.replace(sweep, options=dataclasses.replace(options, **absolute))
    task = ray.remote(_task).options(num_cpus=how.ray_cpus, num_gpus=how.ray_gpus, max_retries=_RETRIES)
    futures: dict[Any, RunConfig] = {task.remote(sweep, config): config for config in todo}
    waiting: list[tuple[float, RunConfig]] = []
    try:
        while futures or waiting:
            ready, _ = ray.wait(list(futures), timeout=_POLL_SECONDS) if futures else ([], [])
            if not futures:
                time.sleep(_POLL_SECONDS)
            for future in ready:
                config = futures.pop(future)
                if not _settle(ray, future, sweep, config, reporter):
                    waiting.append((time.monotonic() + 5 * _POLL_SECONDS, config))
            for due, config in list(waiting):
                if time.monotonic() >= due:
                    waiting.remove((due, config))
                    futures[task.remote(sweep, config)] = config
            reporter.watch([*futures.values(), *(config for _, config in waiting)])
    except KeyboardInterrupt:
        for future in futures:
            ray.cancel(future, force=False)  # raises KeyboardInterrupt in the task, which saves a checkpoint
        raise
    finally:
        ray.shutdown()


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _task(sweep: Sweep, config: RunConfig) -> bool:
    """Does a run on a worker; False if another process works on it."""
    return attempt(sweep, [config])


def _settle(ray: Any, future: Any, sweep: Sweep, config: RunConfig, reporter: SweepReporter) -> bool:
    """Reports the run of an ended task; False if another process works on it."""
    try:
        ours = ray.get(future)
    except ray.exceptions.RayError as error:
        sweep.run(config).fail(RuntimeError(f"Ray lost the run: {str(error).splitlines()[0]}"), str(error))
        ours = True
    if not sweep.report_finished([config], reporter):
        return True
    if ours:
        reporter.finished(config, "failed", "the task ended without a result")
    return ours


def _connect(address: str) -> Any:
    # By default Ray reports usage to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor=ray needs Ray; install it with: pip install 'convjax[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise UnavailableError(
            f"no Ray cluster at --ray_address={address} ({str(error).splitlines()[0]}); "
            "start one with: ray start --head"
        ) from None
    return ray


def _require_resources(ray: Any, how: SweepOptions) -> None:
    """Refuses a request that no machine can meet, because its tasks would wait forever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= how.ray_cpus and node.get("GPU", 0) >= how.ray_gpus for node in machines):
        raise UserError(
            f"no machine of the cluster has the {how.ray_cpus:g} CPUs and {how.ray_gpus:g} GPUs a run asks for; "
            "see --ray_cpus and --ray_gpus"
        )
