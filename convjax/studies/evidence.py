"""The runs of a claim's studies and what was measured on them, as a value to judge. Pure: reads and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from convjax import data
from convjax.analysis.arms import DIVERGED, DONE, counted, field_text, some
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import Layer, plan
from convjax.sweeps.grid import Arm

Field = str | int | float


@dataclass(frozen=True)
class StudyRuns:
    """One study of a claim: its arms, its runs and what was measured on them.

    `fields` in the methods below select one arm: `model="dense", pixels="grid"` is the arm to which the study gave
    these values or whose configuration has them.

    Attributes:
      arms: the arms.
      frame: one row per run, see `convjax.sweeps.frame.read_runs`.
      measurements: results by run digest, then by measurement name.
      planned: how many runs the study has in all; 0 for as many as the arms and the seeds in the frame make.
    """

    arms: tuple[Arm, ...]
    frame: pd.DataFrame
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    planned: int = 0

    def arm(self, **fields: Field) -> Arm:
        """The one arm with these fields.

        Raises:
          UserError: no arm has them, or more than one does.
        """
        found = [arm for arm in self.arms if all(_has(arm, name, value) for name, value in fields.items())]
        if len(found) != 1:
            wanted = ", ".join(f"{name}={value}" for name, value in fields.items()) or "no field"
            raise UserError(
                f"{counted(len(found), 'arm')} of this study match {wanted}, expected one; "
                f"its arms are {some([arm.label for arm in self.arms], '; ')}"
            )
        return found[0]

    def plan(self, **fields: Field) -> tuple[Layer, ...]:
        """The plan of an arm's network."""
        config = self.arm(**fields).config
        return plan(config, *data.image_info(config.dataset, **config.data_settings))

    def values(self, metric: str = "test_accuracy", **fields: Field) -> dict[int, float]:
        """The metric of an arm's finished runs by seed; diverged runs count if they have a value."""
        rows = self._finished(self.arm(**fields))
        return {int(row["seed"]): float(row[metric]) for row in rows if math.isfinite(float(row[metric]))}

    def measured(self, name: str, **fields: Field) -> dict[int, Any]:
        """What a measurement found on an arm's runs, by seed.

        Raises:
          UserError: it was made on none of them.
        """
        arm = self.arm(**fields)
        found = {int(row["seed"]): self.measurements.get(row["digest"], {}) for row in self._finished(arm)}
        values = {seed: one[name] for seed, one in found.items() if name in one}
        if not values:
            raise UserError(f"{name} has been measured on no run of {arm.label}")
        return values

    def unfinished(self) -> bool:
        """Whether some arm has no finished run."""
        return any(not self._finished(arm) for arm in self.arms)

    def facts(self) -> str:
        """What was run: data, settings that differ from the chapter's, arms, seeds."""
        default = RunConfig().to_dict()
        facts = []
        for name in ("dataset", *(name for name in default if name not in ("dataset", "seed"))):
            texts = {field_text(getattr(arm.config, name)) for arm in self.arms}
            if len(texts) == 1 and (name in ("dataset", "epochs") or texts != {field_text(default[name])}):
                facts.append(texts.pop() if name == "dataset" else f"{name}={texts.pop()}")
        seeds = self.frame["seed"].dropna().nunique()
        done = int(self.frame["status"].isin((DONE, DIVERGED)).sum())
        total = self.planned or len(self.arms) * max(1, seeds)
        runs = f"{counted(seeds, 'seed')} each, {done:,} of {total:,} runs"
        return ", ".join([*facts, counted(len(self.arms), "arm"), runs])

    def _finished(self, arm: Arm) -> list[dict[Hashable, Any]]:
        """The arm's finished runs as rows, in the order of their seeds."""
        digests = {run.digest for run in arm.runs(int(seed) for seed in self.frame["seed"].dropna().unique())}
        rows = self.frame[self.frame["digest"].isin(digests) & self.frame["status"].isin((DONE, DIVERGED))]
        return sorted(rows.to_dict("records"), key=lambda row: row["seed"])


def facts(studies: Mapping[str, StudyRuns]) -> list[str]:
    """What was run, one line per study."""
    return [f"{name}: " * (len(studies) > 1) + runs.facts() for name, runs in studies.items()]


def together(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All runs of these tables."""
    return pd.concat(frames, ignore_index=True)


def _has(arm: Arm, name: str, value: Field) -> bool:
    own = getattr(arm.config, name)
    given = dict(arm.overrides).get(name, own)
    return str(value) in (str(given), field_text(given), str(own))
