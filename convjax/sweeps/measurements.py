"""Measurements on trained networks: done once for a finished run, from its checkpoint, and kept in its folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convjax.config import RunConfig
from convjax.files import write_json_atomic

if TYPE_CHECKING:
    from convjax.data import Dataset
    from convjax.sweeps.run import Options
    from convjax.sweeps.store import Run
    from convjax.training.steps import Task


@dataclass(frozen=True)
class Trained:
    """What a measurement looks at: a run's network as training left it, and its data."""

    config: RunConfig
    task: "Task"
    params: dict[str, Any]
    dataset: "Dataset"


@dataclass(frozen=True)
class Measurement:
    """Something to measure on every finished run.

    Attributes:
      name: of the file it is kept in, `RUN/measured/NAME.json`.
      function: what it measures, as JSON values (lists for arrays); a function of its argument alone.
      version: to be raised when the function changes; what an older one measured is measured again.
    """

    name: str
    function: Callable[[Trained], Any]
    version: int = 1


def kept(run: "Run", measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What was measured on a run before, by name. A damaged file is as none: what is measured again costs time only."""
    found = {}
    for measurement in measurements:
        try:
            written = json.loads(_path(run, measurement).read_bytes())
            if written["version"] == measurement.version:
                found[measurement.name] = written["values"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def measure(run: "Run", measurements: Sequence[Measurement], options: "Options") -> dict[str, Any]:
    """What each measurement finds on a finished run, by name; only what is not kept yet is measured.

    Raises:
      UserError: the run has no sound checkpoint to measure.
    """
    found = kept(run, measurements)
    missing = [measurement for measurement in measurements if measurement.name not in found]
    if missing:
        from convjax.sweeps.run import dataset_of
        from convjax.training import backend
        from convjax.training.checkpoint import load_params

        backend.enable_compilation_cache()
        config, task, params = load_params(run.path)
        dataset = dataset_of(config, options.data_dir)
        trained = Trained(config, task, params, dataset)
        for measurement in missing:
            values = measurement.function(trained)
            write_json_atomic(_path(run, measurement), {"version": measurement.version, "values": values})
            found[measurement.name] = json.loads(json.dumps(values))
    return found


def _path(run: "Run", measurement: Measurement) -> Any:
    return run.path / "measured" / f"{measurement.name}.json"
