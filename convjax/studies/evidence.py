"""What the runs of a claim's studies measured, as a value to judge from. Pure: reads nothing, writes nothing."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convjax.analysis.arms import DIVERGED, DONE, counted, field_text, some
from convjax.analysis.statistics import Summary, summarise
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.grid import Arm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyRuns:
    """One study: its arms, its runs and what was measured on them.

    Attributes:
      arms: the arms.
      frame: one row a run, see `convjax.sweeps.frame.read_runs`.
      measured: of each run, by its digest, what each `convjax.sweeps.measurements.Measurement` found, by its name.
      planned: how many runs it has when all are done; 0 for those that the frame has.
    """

    arms: tuple[Arm, ...]
    frame: "pd.DataFrame"
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    planned: int = 0


@dataclass(frozen=True)
class Evidence:
    """All studies of a claim, by the names that the claim gives them; the first is meant where none is named.

    `fields` in the methods below name one arm: `model="dense", pixels="grid"` is the arm that was given these values
    or, where the arms were not given such a field, has them.
    """

    studies: Mapping[str, StudyRuns]

    def study(self, study: str = "") -> StudyRuns:
        """A study."""
        return self.studies[study] if study else next(iter(self.studies.values()))

    def frame(self, study: str = "") -> "pd.DataFrame":
        """Its runs, a row each."""
        return self.study(study).frame

    def arms(self, study: str = "") -> tuple[Arm, ...]:
        """Its arms."""
        return self.study(study).arms

    def arm(self, *, study: str = "", **fields: str | int | float) -> Arm:
        """The one arm with these fields.

        Raises:
          UserError: none has them, or more than one.
        """
        arms = self.arms(study)
        found = [arm for arm in arms if all(_has(arm, name, value) for name, value in fields.items())]
        if len(found) != 1:
            wanted = ", ".join(f"{name}={value}" for name, value in fields.items()) or "no field"
            raise UserError(
                f"{counted(len(found), 'arm')} of this study match {wanted}, and one is needed; "
                f"its arms are {some([arm.label for arm in arms], '; ')}"
            )
        return found[0]

    def values(
        self, metric: str = "test_accuracy", *, study: str = "", **fields: str | int | float
    ) -> dict[int, float]:
        """The metric of an arm's finished runs, by seed; runs that diverged count where they have a value."""
        rows = self._rows(study, fields)
        return {int(row["seed"]): float(row[metric]) for row in rows if math.isfinite(float(row[metric]))}

    def summary(self, metric: str = "test_accuracy", *, study: str = "", **fields: str | int | float) -> Summary:
        """`convjax.analysis.statistics.summarise` of the values."""
        return summarise(self.values(metric, study=study, **fields))

    def measured(self, name: str, *, study: str = "", **fields: str | int | float) -> dict[int, Any]:
        """What a measurement found on an arm's runs, by seed."""
        found = self.study(study).measured
        rows = self._rows(study, fields)
        return {int(row["seed"]): found[row["digest"]][name] for row in rows if name in found.get(row["digest"], {})}

    def _rows(self, study: str, fields: Mapping[str, str | int | float]) -> list[dict[str, Any]]:
        config, frame = self.arm(study=study, **fields).config, self.frame(study)
        digests = {config.replace(seed=int(seed)).digest for seed in frame["seed"].dropna().unique()}
        return _finished(frame, digests)

    def unfinished(self) -> bool:
        """Whether an arm has no finished run."""
        for runs in self.studies.values():
            for arm in runs.arms:
                digests = {arm.config.replace(seed=int(seed)).digest for seed in runs.frame["seed"].dropna().unique()}
                if not _finished(runs.frame, digests):
                    return True
        return False

    def facts(self) -> list[str]:
        """What was run, a line a study: data, settings that are not the chapter's, arms, seeds."""
        return [_facts(name if len(self.studies) > 1 else "", runs) for name, runs in self.studies.items()]


def _finished(frame: "pd.DataFrame", digests: Collection[str]) -> list[dict[str, Any]]:
    """The finished runs of these digests, by seed."""
    rows = frame[frame["digest"].isin(digests) & frame["status"].isin((DONE, DIVERGED))]
    return sorted(rows.to_dict("records"), key=lambda row: row["seed"])


def _has(arm: Arm, name: str, value: str | int | float) -> bool:
    own = getattr(arm.config, name)
    given = dict(arm.overrides).get(name, own)
    return str(value) in (str(given), field_text(given), str(own))


def _facts(name: str, runs: StudyRuns) -> str:
    configs = [arm.config for arm in runs.arms]
    default = RunConfig()
    common = []
    for key in ("dataset", *(key for key in default.to_dict() if key not in ("dataset", "seed"))):
        values = dict.fromkeys(field_text(getattr(config, key)) for config in configs)
        if len(values) == 1 and (key == "dataset" or list(values) != [field_text(getattr(default, key))]):
            common.append(next(iter(values)) if key == "dataset" else f"{key}={next(iter(values))}")
    epochs = {config.epochs for config in configs}
    if epochs == {default.epochs}:
        common.append(f"epochs={default.epochs}")
    seeds: Sequence[int] = sorted({int(seed) for seed in runs.frame["seed"].dropna()})
    done = int(runs.frame["status"].isin((DONE, DIVERGED)).sum())
    total = runs.planned or len(configs) * max(1, len(seeds))
    parts = [
        *common,
        counted(len(configs), "arm"),
        f"{counted(len(seeds), 'seed')} each",
        f"{done:,} of {total:,} runs",
    ]
    return f"{name}: {', '.join(parts)}" if name else ", ".join(parts)
