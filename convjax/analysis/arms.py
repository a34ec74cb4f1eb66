"""From a table of runs to arms: runs that differ in nothing but their seed.

Nothing is dropped in silence. What takes no part (failed, unfinished and damaged runs, copies of a run) is counted
in the notes with the reason; what would make an average meaningless (fields that vary inside an arm, different data)
splits the arms or is refused.

A diverged run (its loss became NaN) is an outcome of its arm, not an accident: where its metric was measured the
value counts like any other, because leaving it out would flatter an arm that trains unreliably. Where the metric is
itself not finite, the run is counted and its arm is compared with no other.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from convjax.analysis.metrics import Metric, metric_named
from convjax.config import FIELD_NAMES, RunConfig, field_type
from convjax.errors import UserError

# Columns that say where a run comes from: they may be grouped by, but runs are not split by them unasked.
ORIGIN_FIELDS = ("experiment", "backend", "git_revision", "dataset_fingerprint")
GROUP_FIELDS = tuple(name for name in FIELD_NAMES if name != "seed") + ORIGIN_FIELDS

DONE = "done"
DIVERGED = "diverged"
STATUSES = (DONE, DIVERGED, "failed", "unfinished", "damaged")
_MOST_NAMED = 3
_LONGEST_REASON = 100

Record = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Runs of one configuration with different seeds.

    Attributes:
      key: values of the fields grouped by, in their order.
      fields: every other field that is the same in all runs of the arm, and those of the key.
      values: seed to metric, of done and diverged runs; NaN where such a run has none.
      counts: runs of each status in `STATUSES`.
      parameters, flops: of the model; NaN where unknown or not the same in all runs.
      seconds: mean wall time of the done and diverged runs.
      incomparable: diverged runs without a finite value of the metric.
    """

    key: tuple[Any, ...]
    fields: Mapping[str, Any]
    values: Mapping[int, float]
    counts: Mapping[str, int]
    parameters: float
    flops: float
    seconds: float
    incomparable: int


@dataclass(frozen=True)
class Arms:
    """All arms of one table, in natural order of their keys.

    Attributes:
      by: the fields grouped by, those added because they vary included.
      arms: at least one.
      metric: what `Arm.values` holds.
      common: configuration fields that all arms share.
      mixed_data: whether the arms use different data, which makes them incomparable.
      notes: sentences for the reader: what was left out, added, mixed.
    """

    by: tuple[str, ...]
    arms: tuple[Arm, ...]
    metric: Metric
    common: Mapping[str, Any]
    mixed_data: bool
    notes: tuple[str, ...]

    def label(self, arm: Arm) -> str:
        """`kernel_size=3, padding=valid`."""
        return ", ".join(f"{name}={field_text(value)}" for name, value in zip(self.by, arm.key, strict=True))

    def labels(self, arms: Iterable[Arm]) -> str:
        """Labels of several arms, the first few by name."""
        return some([self.label(arm) for arm in arms], separator="; ")


def group_runs(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: str = "test_accuracy",
    *,
    allow_mixed_data: bool = False,
) -> Arms:
    """Groups the runs of `convjax.sweeps.frame.read_runs` into arms.

    Args:
      frame: one row a run.
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
    records, unreadable = _records(frame, metric)
    if not records:
        why = some(sorted({_reason(record) or "no readable configuration" for record in unreadable}), "; ")
        raise UserError(f"none of the {counted(len(unreadable), 'run')} can be read: {why}")
    notes: list[str] = []
    grouped = list(dict.fromkeys(by)) if by else [name for name in GROUP_FIELDS if _varies(records, name)]
    if not by:
        grouped = [name for name in grouped if name not in ORIGIN_FIELDS]
    mixed = _data_fields(records)
    if mixed and not allow_mixed_data:
        raise UserError(_mixed_data_message(records))
    grouped += [name for name in mixed if name not in grouped]

    records, copies = _without_copies(records, [name for name in grouped if name in ORIGIN_FIELDS])
    added = [name for name in _varying_inside(records, grouped) if name in FIELD_NAMES]
    if added:
        notes.append(f"also grouped by {listed(added)}: runs that differ there are not averaged")
        grouped += added
    # A single arm needs a name too.
    grouped = grouped or ["model"]

    members: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        members.setdefault(tuple(record[name] for name in grouped), []).append(record)
    keys = sorted(members, key=lambda key: tuple(natural_key(value) for value in key))
    arms = tuple(_make_arm(key, members[key], metric) for key in keys)
    others = [name for name in FIELD_NAMES if name not in grouped and name != "seed"]
    confounded = [name for name in others if _varies(records, name)]
    if confounded:
        notes.append(f"the arms differ in {listed(confounded)} too, not only in {listed(grouped)}")
    notes += _count_notes(records, unreadable, copies, metric)
    notes += _origin_notes(records, grouped)
    return Arms(
        by=tuple(grouped),
        arms=arms,
        metric=metric_named(metric),
        common={name: records[0][name] for name in others if name not in confounded},
        mixed_data=bool(mixed),
        notes=tuple(notes),
    )


def field_text(value: Any) -> str:
    """A field's value as the user writes it on the command line; `(none)` for the empty one."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "(none)"


def natural_key(value: Any) -> tuple[Any, ...]:
    """Sorting key: 1, 2, 3, 3x5, 5, 7, 10, 5-3-3, then words; numbers by size, not by their digits."""
    if isinstance(value, int | float):
        return (0, (float(value),), "")
    text = str(value)
    if re.fullmatch(r"[0-9.]+([-x][0-9.]+)*", text):
        numbers = tuple(float(part) for part in re.findall(r"[0-9]+(?:\.[0-9]+)?", text))
        return (1 if "-" in text else 0, numbers, text)
    return (2, (), tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"([0-9]+)", text) if p))


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names and how many more there are."""
    text = separator.join(names[:_MOST_NAMED])
    rest = len(names) - _MOST_NAMED
    return f"{text}{separator}and {rest:,} more" if rest > 0 else text


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def counted(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unknown_name(what: str, name: str, known: Sequence[str]) -> UserError:
    """An error that names what the user probably meant."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return UserError(f"{what} {name!r} is not known; {hint}")


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
    finished = frame["status"].isin((DONE, DIVERGED))
    if finished.any() and not frame.loc[finished, metric].notna().any():
        raise UserError(
            f"--metric={metric}: none of the {counted(int(finished.sum()), 'finished run')} has a value of it"
        )


def _records(frame: pd.DataFrame, metric: str) -> tuple[list[Record], list[Record]]:
    """Runs with a readable configuration, and the others."""
    names = [name for name in FIELD_NAMES if name in frame.columns]
    missing = frame[names].isna().any(axis=1) | frame["seed"].isna()
    wanted = [*names, *ORIGIN_FIELDS, "host", "digest", "path", "status", "reason"]
    numbers = list(dict.fromkeys(["parameters", "flops", "seconds", metric]))
    table = frame[[name for name in (*wanted, *numbers) if name in frame.columns]]
    readable: list[Record] = table[~missing].to_dict("records")  # type: ignore[assignment]
    for record in readable:
        for name in names:
            # A column with gaps holds its integers as floats.
            record[name] = field_type(name)(record[name])
        for name in (*ORIGIN_FIELDS, "host", "reason"):
            value = record.get(name)
            record[name] = "" if pd.isna(value) else str(value)
        for name in numbers:
            value = record.get(name)
            record[name] = math.nan if pd.isna(value) else float(value)
    unreadable: list[Record] = table[missing].to_dict("records")  # type: ignore[assignment]
    known = _fingerprints(readable)
    for record in readable:
        # A run that failed early does not know its data's fingerprint; it belongs with its data set's other runs.
        if not record["dataset_fingerprint"] and len(known.get(record["dataset"], ())) == 1:
            record["dataset_fingerprint"] = known[record["dataset"]][0]
    return readable, unreadable


def _fingerprints(records: Sequence[Record]) -> dict[str, list[str]]:
    """The data fingerprints seen for every data set."""
    seen: dict[str, list[str]] = {}
    for record in records:
        fingerprints = seen.setdefault(record["dataset"], [])
        if record["dataset_fingerprint"] and record["dataset_fingerprint"] not in fingerprints:
            fingerprints.append(record["dataset_fingerprint"])
    return seen


def _data_fields(records: Sequence[Record]) -> list[str]:
    """The fields that tell different data apart; empty where all runs use the same."""
    fingerprints = _fingerprints(records)
    fields = ["dataset"] if len(fingerprints) > 1 else []
    return fields + ["dataset_fingerprint"] * any(len(seen) > 1 for seen in fingerprints.values())


def _mixed_data_message(records: Sequence[Record]) -> str:
    counts = Counter((record["dataset"], record["dataset_fingerprint"]) for record in records)
    several = any(len(seen) > 1 for seen in _fingerprints(records).values())
    parts = [
        f"{dataset}{f' (fingerprint {print_[:12]})' if several and print_ else ''}: {counted(count, 'run')}"
        for (dataset, print_), count in sorted(counts.items())
    ]
    return (
        f"the runs use different data ({some(parts, '; ')}), and accuracies on different data do not compare; "
        "give folders of one data set only, or --allow_mixed_data to list them side by side"
    )


def _varies(records: Sequence[Record], name: str) -> bool:
    return len({record[name] for record in records}) > 1


def _varying_inside(records: Sequence[Record], grouped: Sequence[str]) -> list[str]:
    """Fields with more than one value among runs that are alike in the fields grouped by."""
    groups: dict[tuple[Any, ...], Record] = {}
    varying: set[str] = set()
    names = [name for name in GROUP_FIELDS if name not in grouped]
    for record in records:
        first = groups.setdefault(tuple(record[name] for name in grouped), record)
        varying.update(name for name in names if record[name] != first[name])
    return [name for name in names if name in varying]


def _without_copies(
    records: Sequence[Record], origins: Sequence[str]
) -> tuple[list[Record], list[tuple[Record, Record]]]:
    """One record for every configuration (and origin, where grouped by it): a finished one, the first by path.

    Also the copies left out, each with the record kept in its place.
    """
    rank = {status: index for index, status in enumerate(STATUSES)}
    kept: dict[tuple[Any, ...], Record] = {}
    copies = []
    for record in sorted(records, key=lambda record: (rank[record["status"]], str(record["path"]))):
        identity = (record["digest"], *(record[name] for name in origins))
        if identity in kept:
            copies.append((record, kept[identity]))
        kept.setdefault(identity, record)
    return list(kept.values()), copies


def _make_arm(key: tuple[Any, ...], members: Sequence[Record], metric: str) -> Arm:
    finished = [record for record in members if record["status"] in (DONE, DIVERGED)]
    values = {record["seed"]: record[metric] for record in finished}
    seconds = [record["seconds"] for record in finished if math.isfinite(record["seconds"])]
    counts = Counter(record["status"] for record in members)
    return Arm(
        key=key,
        fields={name: members[0][name] for name in GROUP_FIELDS if not _varies(members, name)},
        values=dict(sorted(values.items())),
        counts={status: counts[status] for status in STATUSES},
        parameters=_shared(record["parameters"] for record in members),
        flops=_shared(record["flops"] for record in members),
        seconds=math.fsum(seconds) / len(seconds) if seconds else math.nan,
        incomparable=sum(record["status"] == DIVERGED and not math.isfinite(record[metric]) for record in members),
    )


def _shared(numbers: Iterable[float]) -> float:
    distinct = {number for number in numbers if math.isfinite(number)}
    return distinct.pop() if len(distinct) == 1 else math.nan


def _count_notes(
    records: Sequence[Record],
    unreadable: Sequence[Record],
    copies: Sequence[tuple[Record, Record]],
    metric: str,
) -> list[str]:
    counts = Counter(record["status"] for record in records)
    title = metric_named(metric).title
    text = f"{counted(len(records) + len(unreadable), 'run')}: {counts[DONE]:,} done"
    if counts[DIVERGED]:
        lost = sum(r["status"] == DIVERGED and not math.isfinite(r[metric]) for r in records)
        fate = f"{lost:,} without a finite {title}: their arms are not compared"
        text += f", {counts[DIVERGED]:,} diverged ({fate if lost else f'the measured {title} counts'})"
    left_out = [record for record in records if record["status"] not in (DONE, DIVERGED)]
    reasons = Counter((record["status"], _reason(record)) for record in left_out)
    reasons.update(("damaged", _reason(record)) for record in unreadable)
    if reasons:
        parts = [f"{count:,} {status}{f' ({why})' if why else ''}" for (status, why), count in reasons.most_common()]
        text += f"; left out: {some(parts)}"
    notes = [text]
    without = sum(r["status"] == DONE and not math.isfinite(r[metric]) for r in records)
    if without:
        notes.append(f"{counted(without, 'finished run')} without a value of {metric} left out")
    if copies:
        differing = sum(
            copy["status"] in (DONE, DIVERGED) and copy[metric] != kept[metric] and math.isfinite(copy[metric])
            for copy, kept in copies
        )
        more = f"; {differing:,} with another {title}: the first by path counts" if differing else ""
        noun = "copy" if len(copies) == 1 else "copies"
        notes.append(f"{len(copies):,} further {noun} of these runs left out{more}")
    return notes


def _reason(record: Record) -> str:
    reason = record.get("reason")
    words = "" if pd.isna(reason) else " ".join(str(reason).split())
    # Errors may carry colour codes, which a terminal would obey.
    text = "".join(character for character in words if character.isprintable())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}\N{HORIZONTAL ELLIPSIS}"


def _origin_notes(records: Sequence[Record], grouped: Sequence[str]) -> list[str]:
    notes = []
    finished = [record for record in records if record["status"] in (DONE, DIVERGED)]
    for name, words in (("backend", "back ends"), ("git_revision", "code revisions"), ("host", "machines")):
        seen = sorted({record[name][:12] or "unknown" for record in finished})
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
