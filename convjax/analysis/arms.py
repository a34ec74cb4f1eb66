"""From a table of runs to arms: runs that differ in nothing but their seed.

Nothing is dropped silently. Runs that do not count (failed, unfinished and damaged runs, copies of a run) appear in
the notes, with the reason. What would make an average meaningless (fields that vary inside an arm, different data)
splits the arms or is refused.

A diverged run (its loss became NaN) is an outcome of its arm. Where its metric was measured the value counts like any
other, because leaving it out would flatter an arm that trains unreliably. Where the metric itself is not finite, the
run is counted and its arm is compared with no other.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from convjax.analysis.metrics import Metric, metric_named
from convjax.analysis.statistics import Summary, summarize_all
from convjax.analysis.wording import counted, field_text, key_text, listed, natural_key, some, unknown_name
from convjax.config import FIELD_NAMES, RunConfig, field_type
from convjax.errors import UserError

# Columns that say where a run comes from. Runs are grouped by them only on request.
ORIGIN_FIELDS = ("experiment", "backend", "git_revision", "dataset_fingerprint")
_CONFIG_FIELDS = tuple(name for name in FIELD_NAMES if name != "seed")
GROUP_FIELDS = _CONFIG_FIELDS + ORIGIN_FIELDS

DONE = "done"
DIVERGED = "diverged"
FINISHED = (DONE, DIVERGED)
STATUSES = (*FINISHED, "failed", "unfinished", "damaged")
_COSTS = ("parameters", "flops", "seconds")
_LONGEST_REASON = 100


@dataclass(frozen=True)
class ArmRuns:
    """The runs of one arm, one per seed.

    Attributes:
      key: values of the fields grouped by, in their order.
      fields: every field that is the same in all runs of the arm, those of the key included.
      statuses: seed to status, one of `STATUSES`.
      values: seed to metric, of finished runs; NaN where such a run has none.
      paths: seed to folder, of finished runs.
      parameters, flops: of the model; NaN where unknown or not the same in all runs.
      seconds: mean wall time of the finished runs.
      incomparable: diverged runs without a finite value of the metric.
    """

    key: tuple[Any, ...]
    fields: Mapping[str, Any]
    statuses: Mapping[int, str]
    values: Mapping[int, float]
    paths: Mapping[int, str]
    parameters: float
    flops: float
    seconds: float
    incomparable: int

    @property
    def counts(self) -> dict[str, int]:
        """Runs of each status in `STATUSES`."""
        found = Counter(self.statuses.values())
        return {status: found[status] for status in STATUSES}

    @property
    def mean(self) -> float:
        """Of the finite values; NaN where there is none."""
        return _mean(self.values.values())


@dataclass(frozen=True)
class Arms:
    """All arms of one table, in natural order of their keys.

    Attributes:
      by: the fields grouped by, those added because they vary included.
      arms: at least one.
      metric: what `ArmRuns.values` holds.
      common: configuration fields that all arms share.
      mixed_data: whether the arms use different data, which makes them incomparable.
      notes: sentences for the reader: what was left out, added, mixed.
      unfinished: the runs that are not done, unreadable ones at the end: the fields `by`, seed, status, digest, reason.
    """

    by: tuple[str, ...]
    arms: tuple[ArmRuns, ...]
    metric: Metric
    common: Mapping[str, Any]
    mixed_data: bool
    notes: tuple[str, ...]
    unfinished: pd.DataFrame = field(compare=False)

    @cached_property
    def summaries(self) -> list[Summary]:
        """The statistics of each arm."""
        return summarize_all([arm.values for arm in self.arms], lower_is_better=bool(self.metric.lower_is_better))

    @property
    def usual_seeds(self) -> int:
        """How many seeds most arms with results have; 0 where none has results."""
        counts = Counter(summary.n for summary in self.summaries if summary.n)
        return max(counts, key=lambda n: (counts[n], n), default=0)

    @property
    def levels(self) -> dict[str, list[Any]]:
        """The distinct values of each field grouped by, in natural order."""
        columns = zip(*(arm.key for arm in self.arms), strict=True)
        return {name: sorted(set(values), key=natural_key) for name, values in zip(self.by, columns, strict=True)}

    @property
    def varying(self) -> list[str]:
        """The fields grouped by that differ between arms; all of them where none does."""
        return [name for name, values in self.levels.items() if len(values) > 1] or list(self.by)

    def label(self, arm: ArmRuns) -> str:
        """`kernel_size=3, padding=valid`."""
        return key_text(self.by, arm.key)

    def labels(self, arms: Iterable[ArmRuns]) -> str:
        """Labels of several arms, the first few by name."""
        return some([self.label(arm) for arm in arms], separator="; ")


def group_runs(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: str = "test_accuracy",
    *,
    allow_mixed_data: bool = False,
) -> Arms:
    """Groups the runs of `convjax.sweeps.read_runs` into arms.

    Args:
      frame: one row per run.
      by: fields to group by; None for all configuration fields that vary. Fields that vary inside the arms so made
        are added, with a note.
      metric: a numeric column.
      allow_mixed_data: keep runs on different data, as arms of their own.

    Raises:
      UserError: no run, an unknown field or metric, no finished run has the metric, or different data.
    """
    if frame.empty:
        raise UserError("there are no runs to compare")
    _check_fields(by or ())
    _check_metric(frame, metric)
    runs, unreadable = _typed(frame, metric)
    if runs.empty:
        why = some(sorted({_reason(reason) or "no readable configuration" for reason in unreadable["reason"]}), "; ")
        raise UserError(f"none of the {counted(len(unreadable), 'run')} can be read: {why}")
    mixed = _data_fields(runs)
    if mixed and not allow_mixed_data:
        raise UserError(_mixed_data_message(runs))
    grouped = list(dict.fromkeys([*(by or _varying(runs, _CONFIG_FIELDS)), *mixed])) or ["model"]

    runs, copies = _without_copies(runs, [name for name in grouped if name in ORIGIN_FIELDS])
    others = [name for name in _CONFIG_FIELDS if name not in grouped]
    inside = runs.groupby(grouped, sort=False)[others].nunique().gt(1).any() if others else pd.Series(dtype=bool)
    added = [name for name in others if inside[name]]
    grouped += added
    members = sorted(runs.groupby(grouped, sort=False), key=lambda item: tuple(map(natural_key, item[0])))
    others = [name for name in others if name not in added]
    confounded = _varying(runs, others)
    columns = [*grouped, "seed", "status", "digest", "reason"]
    ordered = [*(rows.sort_values("seed") for _, rows in members), unreadable]
    listing = pd.concat([rows[columns].astype(object) for rows in ordered])
    notes = []
    if added:
        notes.append(f"also grouped by {listed(added)}: runs that differ there are not averaged")
    if confounded:
        notes.append(f"the arms also differ in {listed(confounded)}, not only in {listed(grouped)}")
    return Arms(
        by=tuple(grouped),
        arms=tuple(_arm(key, rows, metric) for key, rows in members),
        metric=metric_named(metric),
        common={name: runs[name].iloc[0] for name in others if name not in confounded},
        mixed_data=bool(mixed),
        notes=(*notes, *_count_notes(runs, unreadable, copies, metric), *_origin_notes(runs, grouped)),
        unfinished=listing[listing["status"] != DONE],
    )


def _check_fields(by: Sequence[str]) -> None:
    for name in by:
        if name == "seed":
            raise UserError("--by=seed: seeds are what an arm is averaged over; group by another field")
        if name not in GROUP_FIELDS:
            raise unknown_name("--by field", name, GROUP_FIELDS)


def _check_metric(frame: pd.DataFrame, metric: str) -> None:
    # A result that no run has (validation without a validation set) has no numeric type.
    words = (*FIELD_NAMES, *ORIGIN_FIELDS, "host", "digest", "path", "status", "reason", "versions")
    known = [
        name
        for name in frame.columns
        if name not in words and (is_numeric_dtype(frame[name]) or frame[name].isna().all())
    ]
    if metric not in known:
        raise unknown_name("--metric", metric, known)
    finished = frame["status"].isin(FINISHED)
    if finished.any() and not frame.loc[finished, metric].notna().any():
        raise UserError(
            f"--metric={metric}: none of the {counted(int(finished.sum()), 'finished run')} has a value of it"
        )


def _typed(frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs with a readable configuration, each value in its field's type, and the other runs."""
    texts, numbers = [*ORIGIN_FIELDS, "host", "digest", "path", "reason"], list(dict.fromkeys([*_COSTS, metric]))
    frame = frame.reindex(columns=[*FIELD_NAMES, *texts, *numbers, "status"]).astype(object)
    damaged = frame[list(FIELD_NAMES)].isna().any(axis=1)
    runs = frame[~damaged].copy()
    for name in FIELD_NAMES:
        # A column with gaps holds its integers as floats.
        runs[name] = pd.Series([field_type(name)(value) for value in runs[name]], runs.index, dtype=object)
    runs[texts] = runs[texts].where(runs[texts].notna(), "").astype(str)
    runs[numbers] = runs[numbers].astype(float)
    runs["status"] = pd.Categorical(runs["status"], STATUSES, ordered=True)
    # A run that failed early does not know its data's fingerprint; it belongs with its data set's other runs.
    for dataset, fingerprints in _fingerprints(runs).items():
        if len(fingerprints) == 1:
            runs.loc[runs["dataset"] == dataset, "dataset_fingerprint"] = fingerprints[0]
    return runs, frame[damaged]


def _fingerprints(runs: pd.DataFrame) -> dict[str, list[str]]:
    """The known data fingerprints of each data set."""
    known = runs[runs["dataset_fingerprint"] != ""].groupby("dataset")["dataset_fingerprint"].unique()
    return {dataset: list(known.get(dataset, ())) for dataset in runs["dataset"].unique()}


def _data_fields(runs: pd.DataFrame) -> list[str]:
    """The fields that tell different data apart; empty where all runs use the same."""
    fingerprints = _fingerprints(runs)
    fields = ["dataset"] if len(fingerprints) > 1 else []
    return fields + ["dataset_fingerprint"] * any(len(seen) > 1 for seen in fingerprints.values())


def _mixed_data_message(runs: pd.DataFrame) -> str:
    several = any(len(seen) > 1 for seen in _fingerprints(runs).values())
    parts = [
        f"{dataset}{f' (fingerprint {print_[:12]})' if several and print_ else ''}: {counted(len(rows), 'run')}"
        for (dataset, print_), rows in runs.groupby(["dataset", "dataset_fingerprint"])
    ]
    return (
        f"the runs use different data ({some(parts, '; ')}), and accuracies on different data do not compare; "
        "give folders of one data set only, or --allow_mixed_data to list them side by side"
    )


def _varying(runs: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if runs[name].nunique() > 1]


def _without_copies(runs: pd.DataFrame, origins: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One run of every configuration (and origin, where grouped by it): a finished one, the first by path.

    Also the copies left out, with the columns of the run kept in their place as `..._kept`.
    """
    identity = ["digest", *origins]
    runs = runs.sort_values(["status", "path"], kind="stable")
    again = runs.duplicated(identity)
    return runs[~again], runs[again].merge(runs[~again], on=identity, suffixes=("", "_kept"))


def _arm(key: tuple[Any, ...], runs: pd.DataFrame, metric: str) -> ArmRuns:
    runs = runs.sort_values("seed")
    finished = runs[runs["status"].isin(FINISHED)]
    lost = (finished["status"] == DIVERGED) & ~np.isfinite(finished[metric])
    return ArmRuns(
        key=key,
        fields={name: runs[name].iloc[0] for name in GROUP_FIELDS if runs[name].nunique() == 1},
        statuses=dict(zip(runs["seed"], runs["status"], strict=True)),
        values=dict(zip(finished["seed"], finished[metric].tolist(), strict=True)),
        paths=dict(zip(finished["seed"], finished["path"], strict=True)),
        parameters=_shared(runs["parameters"]),
        flops=_shared(runs["flops"]),
        seconds=_mean(finished["seconds"].tolist()),
        incomparable=int(lost.sum()),
    )


def _shared(numbers: pd.Series) -> float:
    distinct = numbers[np.isfinite(numbers)].unique()
    return float(distinct[0]) if len(distinct) == 1 else math.nan


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def _count_notes(runs: pd.DataFrame, unreadable: pd.DataFrame, copies: pd.DataFrame, metric: str) -> list[str]:
    title, measured = metric_named(metric).title, np.isfinite(runs[metric])
    done, diverged = runs["status"] == DONE, runs["status"] == DIVERGED
    text = f"{counted(len(runs) + len(unreadable), 'run')}: {done.sum():,} done"
    if diverged.any():
        lost = int((diverged & ~measured).sum())
        fate = f"{lost:,} without a finite {title}: their arms are not compared"
        text += f", {diverged.sum():,} diverged ({fate if lost else f'the measured {title} counts'})"
    left_out = runs[~(done | diverged)]
    reasons = Counter(zip(left_out["status"], map(_reason, left_out["reason"]), strict=True))
    reasons.update(("damaged", _reason(reason)) for reason in unreadable["reason"])
    if reasons:
        parts = [f"{count:,} {status}{f' ({why})' if why else ''}" for (status, why), count in reasons.most_common()]
        text += f"; left out: {some(parts)}"
    notes = [text]
    if without := int((done & ~measured).sum()):
        notes.append(f"{counted(without, 'finished run')} without a value of {metric} left out")
    if len(copies):
        values, kept = copies[metric], copies[f"{metric}_kept"]
        differing = int((copies["status"].isin(FINISHED) & np.isfinite(values) & (values != kept)).sum())
        more = f"; {differing:,} with another {title}: the first by path counts" if differing else ""
        noun = "copy" if len(copies) == 1 else "copies"
        notes.append(f"{len(copies):,} further {noun} of these runs left out{more}")
    return notes


def _reason(reason: Any) -> str:
    words = "" if pd.isna(reason) else " ".join(str(reason).split())
    # Errors may contain color codes, which a terminal would obey.
    text = "".join(character for character in words if character.isprintable())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}\N{HORIZONTAL ELLIPSIS}"


def _origin_notes(runs: pd.DataFrame, grouped: Sequence[str]) -> list[str]:
    finished = runs[runs["status"].isin(FINISHED)]
    notes = []
    for name, words in (("backend", "back ends"), ("git_revision", "code revisions"), ("host", "machines")):
        seen = sorted({value[:12] or "unknown" for value in finished[name]})
        if len(seen) > 1 and name not in grouped:
            notes.append(f"the runs come from different {words}: {some(seen)}")
    return notes


def non_default(fields: Mapping[str, Any]) -> list[str]:
    """`name=value` of the configuration fields that differ from the chapter's run; the data set by its name alone."""
    default = RunConfig()
    return [
        f"{name}={field_text(value)}"
        for name, value in fields.items()
        if name in FIELD_NAMES and name != "dataset" and value != getattr(default, name)
    ]
