"""Measurements on trained networks: made once for a finished run, from its checkpoint, and kept in its folder.

Experiments import `Measurement` at start, so this module loads nothing heavy.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convjax import sweeps, training
from convjax.config import RunConfig
from convjax.files import write_json_atomic

if TYPE_CHECKING:
    from convjax.data import Dataset
    from convjax.sweeps.options import Options
    from convjax.sweeps.store import Run
    from convjax.training.steps import Task


@dataclass(frozen=True)
class Trained:
    """The input of a measurement: a run's network as training left it, and its data."""

    config: RunConfig
    task: "Task"
    params: dict[str, Any]
    dataset: "Dataset"


@dataclass(frozen=True)
class Measurement:
    """A quantity to measure on every finished run.

    Attributes:
      name: of the file that keeps the values, `RUN/measured/NAME.json`.
      function: returns what it measures as JSON values (lists for arrays); it depends on its argument alone.
      version: raise it when the function changes; values of an older version are measured again.
    """

    name: str
    function: Callable[[Trained], Any]
    version: int = 1


def kept(run: "Run", measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What was measured on a run before, by name. A damaged file is ignored, since measuring again costs only time."""
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
    """What each measurement finds on a finished run, by name. It measures only what is not kept yet.

    Raises:
      UserError: the run has no sound checkpoint to measure.
    """
    found = kept(run, measurements)
    missing = [measurement for measurement in measurements if measurement.name not in found]
    if missing:
        training.backend.enable_compilation_cache()
        config, task, params = training.checkpoint.load_params(run.path)
        trained = Trained(config, task, params, sweeps.dataset_of(config, options.data_dir))
        for measurement in missing:
            values = measurement.function(trained)
            write_json_atomic(_path(run, measurement), {"version": measurement.version, "values": values})
            found[measurement.name] = json.loads(json.dumps(values))
    return found


def _path(run: "Run", measurement: Measurement) -> Path:
    return run.path / "measured" / f"{measurement.name}.json"
