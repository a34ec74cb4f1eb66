"""report.html: one ablation on one self-contained page. Same runs, same bytes."""

import datetime
import math
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from convjax.analysis.arms import DIVERGED, DONE, STATUSES, Arms, counted, field_text, group_runs, non_default
from convjax.analysis.comparisons import ArmComparison, compare_arms, find_baselines
from convjax.analysis.curves import field_value, read_lines, run_paths
from convjax.analysis.metrics import ABSENT, short_number
from convjax.analysis.plots.cost import varying_costs
from convjax.analysis.render import Cell, Column, Table
from convjax.analysis.report import answer as words
from convjax.analysis.report.figures import COST_NAMES, figures
from convjax.analysis.report.html import (
    bullets,
    capital,
    code_box,
    command_box,
    folded,
    header,
    page,
    paragraphs,
    section,
    table_box,
)
from convjax.analysis.statistics import ALPHA, NOT_SHOWN
from convjax.analysis.tables import accuracy_table
from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UserError
from convjax.files import write_text_atomic
from convjax.sweeps.store import Run

_MOST_UNFOLDED = 8
_LONGEST_REASON = 300
_DAGGER = "\N{DAGGER}"


def write_report(
    path: str | os.PathLike[str],
    frame: pd.DataFrame,
    *,
    question: str,
    reading: str,
    commands: Sequence[str],
    by: Sequence[str] | None = None,
    baseline: Mapping[str, str] | None = None,
    title: str = "Ablation",
    details: str = "",
    metric: str = "test_accuracy",
    allow_mixed_data: bool = False,
) -> Path:
    """Writes `report`'s page to `path`, whole or not at all, and returns the path."""
    text = report(
        frame,
        question=question,
        reading=reading,
        commands=commands,
        by=by,
        baseline=baseline,
        title=title,
        details=details,
        metric=metric,
        allow_mixed_data=allow_mixed_data,
    )
    write_text_atomic(path, text)
    return Path(path)


def report(
    frame: pd.DataFrame,
    *,
    question: str,
    reading: str,
    commands: Sequence[str],
    by: Sequence[str] | None = None,
    baseline: Mapping[str, str] | None = None,
    title: str = "Ablation",
    details: str = "",
    metric: str = "test_accuracy",
    allow_mixed_data: bool = False,
) -> str:
    """The page: question, answer, table, plots, values of every seed, and what it takes to do it again.

    Learning curves, machines and dates are read from the runs' folders; where these are gone the page does without.

    Args:
      frame: one row a run (`convjax.sweeps.frame.read_runs`).
      question: what the ablation asks.
      reading: how to read its answer; empty lines separate paragraphs.
      commands: what was typed to make the runs, and what else it takes.
      by: fields that make the arms; None for all that vary.
      baseline: fields and values of the arm that the others are compared with, or None.
      title: of the page.
      details: preformatted text about the arms.
      metric: a numeric column of the frame.
      allow_mixed_data: list different data side by side.

    Raises:
      UserError: what `convjax.analysis.tables.accuracy_table` refuses.
    """
    table = accuracy_table(frame, by, baseline=baseline, metric=metric, allow_mixed_data=allow_mixed_data)
    arms = group_runs(frame, by, metric, allow_mixed_data=allow_mixed_data)
    comparisons = compare_arms(arms, find_baselines(arms, baseline)) if baseline else []
    paths = run_paths(frame, arms)
    configs = [_config(path) for by_seed in paths for path in by_seed.values()]
    origins = _origin_table(arms, paths, configs)
    charts = figures(arms, comparisons, read_lines(paths))
    first, *others = words.answer(arms, comparisons, baseline)
    heading = capital(title)
    seeds = len({seed for arm in arms.arms for seed in arm.values})
    sections = [
        header(heading, paragraphs(question, "question"), paragraphs(_facts(arms, paths), "facts")),
        section("Answer", paragraphs(first), bullets([*others, *_cost_sentences(arms)]), kind="answer"),
        section("How to read it", paragraphs(reading), bullets(_reading_notes(comparisons))),
        section(capital(table.caption), *(table_box(part) for part in _split(table))),
        section("Plots", f'<div class="figures">\n{charts}\n</div>') if charts else "",
        section(
            "Every seed", folded(f"Show the values of {counted(seeds, 'seed')}", table_box(_seed_table(frame, arms)))
        )
        if seeds
        else "",
        _unfinished_section(frame, arms),
        section("About the arms", code_box(textwrap.dedent(details).strip("\n"), "about the arms")) if details else "",
        section(
            "Do it again",
            *(command_box(command) for command in commands),
            table_box(origins, wrap=True) if origins.rows else "",
            folded("Settings that all arms share", table_box(_settings_table(arms), wrap=True)),
        ),
    ]
    return page(heading, [part for part in sections if part])


def _split(table: Table) -> list[Table]:
    """Results and costs, and below them the differences, which side by side are wider than a page."""
    apart = {index for index, column in enumerate(table.columns) if column.panel == "difference"}
    if not apart:
        return [table]

    def part(caption: str, wanted: Callable[[int], bool], notes: Sequence[str]) -> Table:
        kept = [index for index in range(len(table.columns)) if wanted(index)]
        rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
        return Table(caption, tuple(table.columns[index] for index in kept), rows, tuple(notes))

    return [
        part(table.caption, lambda index: index not in apart, ()),
        part("Differences from the baseline", lambda index: index in apart or table.columns[index].header, table.notes),
    ]


def _facts(arms: Arms, paths: Sequence[Mapping[int, str]]) -> str:
    """One line on top: data, sizes, dates."""
    counts = Counter[str]()
    for arm in arms.arms:
        counts.update(arm.counts)
    runs = counted(sum(counts.values()), "run")
    parts = [*([arms.common["dataset"]] if "dataset" in arms.common else []), *non_default(arms.common)]
    parts += [counted(len(arms.arms), "arm"), f"{runs}, {counts[DONE]:,} of them done"]
    dates = _dates(paths)
    return " \N{MIDDLE DOT} ".join([*parts, *([dates] if dates else [])])


def _dates(paths: Sequence[Mapping[int, str]]) -> str:
    """First and last day on which a run was finished, by UTC; empty where unknown."""
    days = set()
    for by_seed in paths:
        for path in by_seed.values():
            try:
                time = (Path(path) / "result.json").stat().st_mtime
            except OSError:
                continue
            days.add(datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat())
    return " to ".join(dict.fromkeys([min(days), max(days)])) if days else ""


def _cost_sentences(arms: Arms) -> list[str]:
    if sum(math.isfinite(arm.parameters) for arm in arms.arms) < 2:
        return []
    ranges = {}
    for cost in varying_costs(arms):
        if cost != "seconds":
            values = [getattr(arm, cost) for arm in arms.arms if arm.values and math.isfinite(getattr(arm, cost))]
            ranges[COST_NAMES[cost]] = (short_number(min(values)), short_number(max(values)))
    return words.cost_sentences(arms, ranges)


def _reading_notes(comparisons: Sequence[ArmComparison]) -> list[str]:
    notes = [
        "An interval says where the mean over seeds would lie, not where a single run would: for that look at the "
        "single seeds.",
    ]
    if comparisons:
        notes += [
            f"'Shown' stands for a paired t-test over seeds with p < {ALPHA:g} after Holm's correction for all "
            "comparisons, and an interval of the difference that leaves out 0.",
            f"'{capital(NOT_SHOWN)}' does not say that there is none: the seeds may be too few to show it.",
        ]
    return notes


def _seed_table(frame: pd.DataFrame, arms: Arms) -> Table:
    """A row an arm, a column a seed."""
    statuses = _statuses(frame, arms)
    seeds = sorted({seed for by_seed in statuses.values() for seed in by_seed})
    rows = []
    for arm in arms.arms:
        row = [Cell(value, field_text(value)) for value in arm.key]
        for seed in seeds:
            status = statuses.get(arm.key, {}).get(seed, "")
            text = arms.metric.format(arm.values[seed]) if seed in arm.values else status or ABSENT
            row.append(Cell(None, f"{text} {_DAGGER}" if status == DIVERGED else text))
        rows.append(tuple(row))
    diverged = any(status == DIVERGED for by_seed in statuses.values() for status in by_seed.values())
    return Table(
        caption=f"{arms.metric.heading} of every seed",
        columns=(
            *(Column(name, name, left=True, header=True) for name in arms.by),
            *(Column(f"seed {seed}", f"seed {seed}") for seed in seeds),
        ),
        rows=tuple(rows),
        notes=(f"{_DAGGER} diverged: training stopped when the loss was no longer finite",) if diverged else (),
    )


def _statuses(frame: pd.DataFrame, arms: Arms) -> dict[tuple[Any, ...], dict[int, str]]:
    """The best status of any copy of every arm's run, by seed."""
    found: dict[tuple[Any, ...], dict[int, str]] = {}
    rank = {status: position for position, status in enumerate(STATUSES)}
    for row in sorted(_rows(frame), key=lambda row: rank[row["status"]]):
        if _readable(row):
            found.setdefault(_key(row, arms), {}).setdefault(int(row["seed"]), row["status"])
    return found


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return rows


def _readable(row: Mapping[str, Any]) -> bool:
    return not any(pd.isna(row[name]) for name in FIELD_NAMES if name in row)


def _key(row: Mapping[str, Any], arms: Arms) -> tuple[Any, ...]:
    return tuple(field_value(name, row[name]) for name in arms.by)


def _unfinished_section(frame: pd.DataFrame, arms: Arms) -> str:
    """The runs that are not done and why, or nothing."""
    rows = _rows(frame)
    done = {row["digest"] for row in rows if row["status"] == DONE}
    order = {arm.key: position for position, arm in enumerate(arms.arms)}
    listing: dict[tuple[Any, ...], tuple[Cell, ...]] = {}
    for row in rows:
        if row["digest"] in done:
            continue
        readable = _readable(row)
        key = _key(row, arms) if readable else ()
        fields = [field_text(value) for value in key] if readable else [ABSENT] * len(arms.by)
        seed = int(row["seed"]) if readable else -1
        reason = textwrap.shorten(" ".join(_text(row["reason"]).split()), _LONGEST_REASON, placeholder=" ...")
        cells = [*fields, str(seed) if readable else ABSENT, row["status"], row["digest"], reason]
        place = (order.get(key, len(order)), seed, row["digest"], row["status"], reason)
        listing[place] = tuple(Cell(text, text) for text in cells)
    if not listing:
        return ""
    columns = [Column(name, name, left=True, header=True) for name in arms.by]
    columns += [Column(name, name, left=True) for name in ("seed", "status", "run", "reason")]
    title = "Runs that failed, diverged or did not finish"
    box = table_box(Table(title, tuple(columns), tuple(listing[place] for place in sorted(listing))), wrap=True)
    folding = len(listing) > _MOST_UNFOLDED
    return section(title, folded(f"Show {counted(len(listing), 'run')}", box) if folding else box)


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _config(path: str) -> dict[str, Any]:
    try:
        return Run(Path(path)).config() or {}
    except (UserError, OSError):
        return {}


def _origin_table(arms: Arms, paths: Sequence[Mapping[int, str]], configs: Sequence[Mapping[str, Any]]) -> Table:
    """Where the results come from: data, dates, machines, versions."""

    def distinct(describe: Callable[[Mapping[str, Any]], str]) -> str:
        counts = Counter(text for text in map(describe, configs) if text)
        if len(counts) <= 1:
            return next(iter(counts), "")
        return "; ".join(f"{text} ({counted(count, 'run')})" for text, count in sorted(counts.items()))

    def machine(config: Mapping[str, Any]) -> str:
        devices = Counter(str(device) for device in config.get("devices") or [])
        parts = [_text(config.get("host"))]
        parts += [f"{count} x {device}" if count > 1 else device for device, count in sorted(devices.items())]
        parts += [f"{config['cpus']} CPUs"] if config.get("cpus") else []
        return ", ".join(filter(None, parts))

    def versions(config: Mapping[str, Any]) -> str:
        found = config.get("versions")
        return ", ".join(f"{name} {found[name]}" for name in found) if isinstance(found, dict) else _text(found)

    def revision(config: Mapping[str, Any]) -> str:
        found = _text(config.get("git_revision"))
        return f"{found[:12]} with changes" if found.endswith("+") else found[:12]

    def data(config: Mapping[str, Any]) -> str:
        found = config.get("data")
        if not isinstance(found, dict):
            return _text(config.get("dataset"))
        sizes = [
            f"{found[f'{part}_examples']:,} {part}"
            for part in ("train", "validation", "test")
            if found.get(f"{part}_examples")
        ]
        return (
            f"{_text(config.get('dataset'))}, {', '.join(sizes)} images, fingerprint {_text(found.get('fingerprint'))}"
        )

    seconds = [arm.seconds * len(arm.values) for arm in arms.arms if math.isfinite(arm.seconds)]
    facts = {
        "data": distinct(data),
        "finished (UTC)": _dates(paths),
        "wall time of all runs": _duration(math.fsum(seconds)) if seconds else "",
        "machine": distinct(machine),
        "backend": distinct(lambda config: _text(config.get("backend"))),
        "versions": distinct(versions),
        "code revision": distinct(revision),
    }
    return Table(
        caption="Where the results come from",
        columns=(Column("what", "", left=True, header=True), Column("value", "", left=True)),
        rows=tuple((Cell(name, name), Cell(text, text)) for name, text in facts.items() if text),
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _settings_table(arms: Arms) -> Table:
    default = RunConfig()
    rows = []
    for name, value in arms.common.items():
        text, chapter = field_text(value), field_text(getattr(default, name))
        rows.append((Cell(name, name), Cell(text, text), Cell(None, "" if text == chapter else chapter)))
    return Table(
        caption="Settings that all arms share",
        columns=(
            Column("setting", "setting", left=True, header=True),
            Column("value", "value", left=True),
            Column("chapter", "the chapter's, where it differs", left=True),
        ),
        rows=tuple(rows),
    )
