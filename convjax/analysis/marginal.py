"""The marginal table: each factor of a grid averaged over the others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from convjax.analysis.arms import Arms, group_runs
from convjax.analysis.columns import difference_numbers, difference_text, panels_of, result_numbers, result_text
from convjax.analysis.comparisons import BASELINE, compare_values, matches
from convjax.analysis.render import Table
from convjax.analysis.statistics import summarize_all
from convjax.analysis.tables import Baseline, caption, difference_notes, interval_notes
from convjax.analysis.wording import field_text, key_text, listed, some, unknown_name
from convjax.config import RunConfig
from convjax.errors import UserError


@dataclass(frozen=True)
class _Level:
    """A level of a factor, averaged over the other factors.

    Attributes:
      factor, value: the level.
      means: by seed.
      averaged: how many arms each mean is over.
      base: index of the level that it is compared with.
    """

    factor: str
    value: Any
    means: Mapping[int, float]
    averaged: int
    base: int


def marginal_table(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    baseline: Baseline | None = None,
    metric: str = "test_accuracy",
    interval: str = "t",
) -> Table:
    """One row per level of every factor: the mean over the other factors, and its difference from a base level.

    The averaged arms must form a complete block; otherwise a level would profit from the arms it happens to be
    combined with. So only combinations of the other factors that exist for every level count, and only seeds that
    have all of them. The result is one number per seed, and levels are paired by seed. The base level is the one that
    `baseline` names, else the chapter's own, else the first.

    Raises:
      UserError: fewer than two factors vary, or different data.
    """
    arms = group_runs(frame, by, metric)
    factors = [name for name, levels in arms.levels.items() if len(levels) > 1]
    if len(factors) < 2:
        raise UserError(
            "--marginal averages each factor over the others, so at least two fields must vary; "
            f"here {f'only {factors[0]} does' if factors else 'none does'}"
        )
    for name in baseline or ():
        if name not in factors:
            raise unknown_name("--baseline factor", name, factors)

    levels: list[_Level] = []
    notes = [
        "each seed's value is the mean over all combinations of the other factors; an average hides how two factors "
        "interact, which a cross table shows"
    ]
    for factor in factors:
        base = len(levels) + _base_level(factor, arms.levels[factor], baseline or {})
        averaged, left_out = _averaged_levels(arms, factor, base)
        levels += averaged
        notes += left_out
    return _levels_table(arms, levels, notes, interval)


def _levels_table(arms: Arms, levels: Sequence[_Level], notes: list[str], interval: str) -> Table:
    means, bases = [level.means for level in levels], [level.base for level in levels]
    obstacles = [
        BASELINE if index == level.base else "" if level.means else "no complete block"
        for index, level in enumerate(levels)
    ]
    comparisons = compare_values(means, bases, arms.metric, obstacles)
    summaries = summarize_all(means, lower_is_better=bool(arms.metric.lower_is_better))
    names = [f"{level.factor}={field_text(level.value)}" for level in levels]
    numbers = [
        {"factor": level.factor, "level": level.value, "arms_averaged": level.averaged}
        | result_numbers(summary, arms.metric, best=False)
        | difference_numbers(comparison, names)
        for level, summary, comparison in zip(levels, summaries, comparisons, strict=True)
    ]
    text = {
        "result": [
            {"arms averaged": f"{level.averaged:,}"} | result_text(summary, arms.metric, interval)
            for level, summary in zip(levels, summaries, strict=True)
        ],
        "difference": difference_text(comparisons, arms.metric, interval),
    }
    origin = f"from {listed([names[base] for base in dict.fromkeys(bases)])}"
    notes += interval_notes(summaries, arms.metric, interval)
    notes += difference_notes(comparisons, names, arms.metric, origin, interval)
    return Table(
        caption(f"{arms.metric.heading}, each factor averaged over the others", arms),
        pd.DataFrame(numbers, dtype=object),
        panels_of(("factor", "level"), [(level.factor, level.value) for level in levels], text),
        notes=(*notes, *arms.notes),
        left=("verdict",),
    )


def _averaged_levels(arms: Arms, factor: str, base: int) -> tuple[list[_Level], list[str]]:
    """Every level of a factor, averaged over complete blocks of the others, and notes of what was left out."""
    position = arms.by.index(factor)
    values: dict[Any, dict[tuple[Any, ...], dict[int, float]]] = {level: {} for level in arms.levels[factor]}
    for arm in arms.arms:
        rest = arm.key[:position] + arm.key[position + 1 :]
        # Averaging the seeds that did not diverge would flatter the arm.
        finite = {} if arm.incomparable else {seed: x for seed, x in arm.values.items() if math.isfinite(x)}
        values[arm.key[position]][rest] = finite
    every = list(dict.fromkeys(rest for by_rest in values.values() for rest in by_rest))
    whole = [rest for rest in every if all(by_rest.get(rest) for by_rest in values.values())]
    cells = [by_rest[rest] for by_rest in values.values() for rest in whole]
    seen = sorted({seed for cell in cells for seed in cell})
    seeds = [seed for seed in seen if all(seed in cell for cell in cells)]
    levels = [
        _Level(factor, level, {seed: fmean(by_rest[rest][seed] for rest in whole) for seed in seeds}, len(whole), base)
        for level, by_rest in values.items()
    ]
    notes = []
    names = [name for name in arms.by if name != factor]
    if dropped := [key_text(names, rest) for rest in every if rest not in whole]:
        notes.append(f"{factor} is not averaged over {some(dropped, '; ')}, without results at some {factor}")
    if missing := [str(seed) for seed in seen if seed not in seeds]:
        notes.append(f"{factor}: left out seed {some(missing)}, which not all averaged arms have")
    return levels, notes


def _base_level(factor: str, levels: Sequence[Any], baseline: Baseline) -> int:
    if factor in baseline:
        found = [index for index, level in enumerate(levels) if matches(level, baseline[factor])]
        if not found:
            known = some([field_text(level) for level in levels])
            raise UserError(f"--baseline={factor}={baseline[factor]} matches no level; the levels are: {known}")
        return found[0]
    default = getattr(RunConfig(), factor, None)
    return levels.index(default) if default in levels else 0
