"""report.html: one ablation on one self-contained page. Same runs, same bytes."""

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from convjax.analysis.arms import DIVERGED, DONE, ArmRuns, Arms, group_runs, non_default
from convjax.analysis.columns import panels_of
from convjax.analysis.comparisons import ArmComparison, compare_arms, find_baselines
from convjax.analysis.curves import read_lines
from convjax.analysis.metrics import ABSENT
from convjax.analysis.render import Table, word_table
from convjax.analysis.report.answer import answer, cost_sentences
from convjax.analysis.report.figures import figures
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
from convjax.analysis.report.origin import finished_days, origin_table
from convjax.analysis.statistics import ALPHA, NOT_SHOWN
from convjax.analysis.tables import arms_table
from convjax.analysis.wording import counted, field_text
from convjax.config import RunConfig
from convjax.files import write_text_atomic

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
    """Writes the page to `path`, whole or not at all: question, answer, table, plots, every seed, how to repeat it.

    Learning curves, machines and dates are read from the runs' folders; where these are gone the page does without.

    Args:
      path: of the page.
      frame: one row per run (`convjax.sweeps.read_runs`).
      question: what the ablation asks.
      reading: how to read its answer; empty lines separate paragraphs.
      commands: that made the runs, and whatever else is needed to repeat them.
      by: fields that make the arms; None for all that vary.
      baseline: fields and values of the arm that the others are compared with, or None.
      title: of the page.
      details: preformatted text about the arms.
      metric: a numeric column of the frame.
      allow_mixed_data: list different data side by side.

    Returns the path.

    Raises:
      UserError: what `convjax.analysis.tables.accuracy_table` refuses.
    """
    arms = group_runs(frame, by, metric, allow_mixed_data=allow_mixed_data)
    table = arms_table(arms, baseline)
    comparisons = compare_arms(arms, find_baselines(arms, baseline)) if baseline else []
    charts = figures(arms, comparisons, read_lines(arms))
    first, *others = answer(arms, comparisons, baseline)
    origins = origin_table(arms)
    sections = [
        header(capital(title), paragraphs(question, "question"), paragraphs(_facts(arms), "facts")),
        section("Answer", paragraphs(first), bullets([*others, *cost_sentences(arms)]), kind="answer"),
        section("How to read it", paragraphs(reading), bullets(_reading_notes(comparisons))),
        section(capital(table.caption), *(table_box(part) for part in _split(table))),
        section("Plots", f'<div class="figures">\n{charts}\n</div>') if charts else "",
        _seeds_section(arms),
        _unfinished_section(arms),
        section("About the arms", code_box(textwrap.dedent(details).strip("\n"), "about the arms")) if details else "",
        section(
            "Do it again",
            *(command_box(command) for command in commands),
            "" if origins.numbers.empty else table_box(origins, wrap=True),
            folded("Settings that all arms share", table_box(_settings_table(arms), wrap=True)),
        ),
    ]
    write_text_atomic(path, page(capital(title), [part for part in sections if part]))
    return Path(path)


def _split(table: Table) -> list[Table]:
    """Results and costs, and the differences below them; side by side they are wider than a page."""
    panels = dict(table.panels)
    if "difference" not in panels:
        return [table]
    differences = panels.pop("difference")
    return [
        replace(table, panels=panels, notes=()),
        replace(table, caption="Differences from the baseline", panels={"": differences}, best=None),
    ]


def _facts(arms: Arms) -> str:
    """One line on top: data, sizes, dates."""
    counts = Counter(status for arm in arms.arms for status in arm.statuses.values())
    parts = [arms.common["dataset"]] if "dataset" in arms.common else []
    parts += [
        *non_default(arms.common),
        counted(len(arms.arms), "arm"),
        f"{counted(counts.total(), 'run')}, {counts[DONE]:,} of them done",
        finished_days(arms),
    ]
    return " \N{MIDDLE DOT} ".join(filter(None, parts))


def _reading_notes(comparisons: Sequence[ArmComparison]) -> list[str]:
    notes = [
        "An interval says where the mean over seeds lies, not where a single run would lie; for that look at the "
        "single seeds.",
    ]
    if comparisons:
        notes += [
            f"'Shown' means a paired t-test over seeds with p < {ALPHA:g} after Holm's correction for all "
            "comparisons, and an interval of the difference that excludes 0.",
            f"'{capital(NOT_SHOWN)}' does not say that there is none: the seeds may be too few to show it.",
        ]
    return notes


def _seeds_section(arms: Arms) -> str:
    """One row per arm, one column per seed; nothing where there is no result."""
    seeds = sorted({seed for arm in arms.arms for seed in arm.statuses})
    measured = len({seed for arm in arms.arms for seed in arm.values})
    if not measured:
        return ""

    def value(arm: ArmRuns, seed: int) -> str:
        text = arms.metric.format(arm.values[seed]) if seed in arm.values else arm.statuses.get(seed, ABSENT)
        return f"{text} {_DAGGER}" if arm.statuses.get(seed) == DIVERGED else text

    text = [{f"seed {seed}": value(arm, seed) for seed in seeds} for arm in arms.arms]
    diverged = any(arm.counts[DIVERGED] for arm in arms.arms)
    table = Table(
        caption=f"{arms.metric.heading} of every seed",
        numbers=pd.DataFrame([arm.values for arm in arms.arms], columns=seeds, dtype=object),
        panels=panels_of(arms.by, [arm.key for arm in arms.arms], {"": text}),
        notes=(f"{_DAGGER} diverged: training stopped when the loss was no longer finite",) if diverged else (),
    )
    return section("Every seed", folded(f"Show the values of {counted(measured, 'seed')}", table_box(table)))


def _unfinished_section(arms: Arms) -> str:
    """The runs that are not done and why, or nothing."""
    if arms.unfinished.empty:
        return ""
    rows = arms.unfinished.map(lambda value: ABSENT if pd.isna(value) else field_text(value))
    rows["reason"] = [
        "" if reason in (ABSENT, "(none)") else textwrap.shorten(reason, _LONGEST_REASON, placeholder=" ...")
        for reason in rows["reason"]
    ]
    title = "Runs that failed, diverged or did not finish"
    box = table_box(word_table(title, rows.rename(columns={"digest": "run"}), len(arms.by)), wrap=True)
    return section(title, folded(f"Show {counted(len(rows), 'run')}", box) if len(rows) > _MOST_UNFOLDED else box)


def _settings_table(arms: Arms) -> Table:
    default = RunConfig()
    rows = []
    for name, value in arms.common.items():
        text, chapter = field_text(value), field_text(getattr(default, name))
        rows.append((name, text, "" if text == chapter else chapter))
    return word_table(
        "Settings that all arms share",
        pd.DataFrame(rows, columns=["setting", "value", "the chapter's, where it differs"]),
    )
