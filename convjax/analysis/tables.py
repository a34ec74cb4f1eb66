"""The tables: arms with statistics, factors averaged over the others, two factors crossed, two single runs.

Each function goes from a table of runs (`convjax.sweeps.frame.read_runs`) to a `Table`; `convjax.analysis.render`
writes it. All raise UserError for what `convjax.analysis.arms.group_runs` refuses.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from convjax.analysis.arms import (
    DIVERGED,
    DONE,
    Arms,
    counted,
    field_text,
    group_runs,
    listed,
    natural_key,
    non_default,
    some,
    unknown_name,
)
from convjax.analysis.columns import (
    INTERVAL_NAMES,
    PLUS_MINUS,
    cost_cells,
    cost_columns,
    difference_cells,
    difference_columns,
    difference_text,
    ends,
    half_width_text,
    interval_cells,
    p_text,
    result_cells,
    result_columns,
    seeds_text,
)
from convjax.analysis.comparisons import (
    BASELINE,
    ArmComparison,
    compare_arms,
    compare_values,
    find_baselines,
    leader,
    matches,
    rivals,
)
from convjax.analysis.metrics import ABSENT, Metric, metric_named
from convjax.analysis.render import Cell, Column, Table
from convjax.analysis.statistics import ALPHA, BETTER, NOT_SHOWN, POWER, WORSE, Summary, mcnemar, summarise_all
from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UserError

_MOST_WARNINGS = 3
_DAGGER = "\N{DAGGER}"

Baseline = Mapping[str, str]


def accuracy_table(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    baseline: Baseline | None = None,
    metric: str = "test_accuracy",
    interval: str = "t",
    allow_mixed_data: bool = False,
) -> Table:
    """One row an arm: seeds, mean and sd, interval, best and worst seed, cost, and differences from a baseline.

    Args:
      frame: one row a run.
      by: fields that make the arms; None for all that vary.
      baseline: fields and values of the arm that the others are compared with (`parse_baseline`), or None.
      metric: a numeric column of the frame.
      interval: which interval is written, `t` or `bootstrap`; CSV and JSON hold both.
      allow_mixed_data: list different data side by side.
    """
    arms = group_runs(frame, by, metric, allow_mixed_data=allow_mixed_data)
    labels = [arms.label(arm) for arm in arms.arms]
    summaries = _summaries([arm.values for arm in arms.arms], arms.metric)
    best, best_notes = _best(arms)
    origins = [name for name in ("dataset", "dataset_fingerprint") if name not in arms.by]

    columns = [Column(name, name, left=True, header=True) for name in arms.by]
    columns += [Column(name, shown=False) for name in origins]
    columns += [*result_columns(arms.metric), *cost_columns(arms)]
    rows = [
        [
            *(Cell(value, field_text(value)) for value in arm.key),
            *(Cell(arm.fields[name]) for name in origins),
            *result_cells(summary, arms.metric, interval, best=index == best),
            *cost,
        ]
        for index, (arm, summary, cost) in enumerate(zip(arms.arms, summaries, cost_cells(arms), strict=True))
    ]
    notes = [*_interval_notes(summaries, arms.metric, interval), *best_notes]
    if baseline:
        baselines = find_baselines(arms, baseline)
        comparisons = compare_arms(arms, baselines)
        columns += difference_columns(arms.metric, comparisons)
        for row, comparison in zip(rows, comparisons, strict=True):
            row += difference_cells(comparison, labels, arms.metric, interval)
        origin = _baseline_words(arms, baselines, baseline)
        notes += _difference_notes(comparisons, labels, arms.metric, origin, interval)
    return _table(f"{arms.metric.heading} by {listed(arms.by)}", arms, columns, rows, notes)


def marginal_table(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    *,
    baseline: Baseline | None = None,
    metric: str = "test_accuracy",
    interval: str = "t",
) -> Table:
    """One row a level of every factor: the mean over the other factors, and its difference from a base level.

    The arms that are averaged must form a complete block, or a level would be favoured for the company it keeps:
    only combinations of the other factors that exist for every level, and seeds that have all of them, take part.
    One number a seed comes out, and levels are paired by seed. The base level is the one `baseline` names, else the
    chapter's own, else the first.

    Raises:
      UserError: fewer than two factors vary, or different data.
    """
    arms = group_runs(frame, by, metric)
    factors = [name for position, name in enumerate(arms.by) if len({arm.key[position] for arm in arms.arms}) > 1]
    if len(factors) < 2:
        raise UserError(
            "--marginal averages each factor over the others, so two fields at least must vary; "
            f"here {f'only {factors[0]} does' if factors else 'none does'}"
        )
    for name in baseline or ():
        if name not in factors:
            raise unknown_name("--baseline factor", name, factors)

    labels: list[tuple[str, Any]] = []
    values: list[dict[int, float]] = []
    baselines: list[int | None] = []
    blocks: list[int] = []
    notes = [
        "each seed's value is the mean over all combinations of the other factors; an average hides what two factors "
        "do together, which a cross table shows"
    ]
    for factor in factors:
        levels, averaged, left_out = _complete_blocks(arms, factor)
        base = len(labels) + _base_level(factor, list(levels), baseline or {})
        labels += [(factor, level) for level in levels]
        values += levels.values()
        baselines += [base] * len(levels)
        blocks += [averaged] * len(levels)
        notes += left_out

    names = [f"{factor}={field_text(level)}" for factor, level in labels]
    obstacles = [
        BASELINE if index == base else "" if values[index] else "no complete block"
        for index, base in enumerate(baselines)
    ]
    comparisons = compare_values(values, baselines, arms.metric, obstacles)
    summaries = _summaries(values, arms.metric)
    columns = [
        Column("factor", "factor", left=True, header=True),
        Column("level", "level", left=True, header=True),
        Column("arms_averaged", "arms averaged", panel="result"),
        *result_columns(arms.metric),
        *difference_columns(arms.metric, comparisons),
    ]
    rows = [
        [
            Cell(factor, factor),
            Cell(level, field_text(level)),
            Cell(averaged, f"{averaged:,}"),
            *result_cells(summary, arms.metric, interval, best=False),
            *difference_cells(comparison, names, arms.metric, interval),
        ]
        for (factor, level), averaged, summary, comparison in zip(labels, blocks, summaries, comparisons, strict=True)
    ]
    notes += _interval_notes(summaries, arms.metric, interval)
    origin = f"from {listed([names[base] for base in dict.fromkeys(baselines) if base is not None])}"
    notes += _difference_notes(comparisons, names, arms.metric, origin, interval)
    return _table(f"{arms.metric.heading}, each factor averaged over the others", arms, columns, rows, notes)


def cross_table(
    frame: pd.DataFrame,
    row_field: str,
    column_field: str,
    *,
    metric: str = "test_accuracy",
    interval: str = "t",
    allow_mixed_data: bool = False,
) -> Table:
    """One field down, another across; each cell a mean with half the width of its 95 % interval.

    Further fields that vary are not averaged: they become columns in front, with a row for each combination.

    Raises:
      UserError: the two fields are the same.
    """
    if row_field == column_field:
        raise UserError(f"--cross={row_field},{column_field}: two different fields are needed")
    arms = group_runs(frame, [row_field, column_field], metric, allow_mixed_data=allow_mixed_data)
    summaries = _summaries([arm.values for arm in arms.arms], arms.metric)
    best, notes = _best(arms)
    seeds = Counter(summary.n for summary in summaries if summary.n)
    usual = seeds.most_common(1)[0][0] if seeds else 0

    # Rows: the fields that were added, then the row field; columns: the values of the column field.
    places = {(*arm.key[2:], arm.key[0], arm.key[1]): index for index, arm in enumerate(arms.arms)}
    down = sorted({place[:-1] for place in places}, key=lambda key: [natural_key(value) for value in key])
    across = sorted({place[-1] for place in places}, key=natural_key)
    statistics = ("mean", "n", "t_low", "t_high", "bootstrap_low", "bootstrap_high")
    columns = [Column(name, name, left=True, header=True) for name in (*arms.by[2:], row_field)]
    for value in across:
        name = f"{column_field}={field_text(value)}"
        columns.append(Column(name, name, exported=False))
        columns += [Column(f"{name} {statistic}", shown=False) for statistic in statistics]
    rows = []
    for key in down:
        row = [Cell(value, field_text(value)) for value in key]
        for value in across:
            index = places.get((*key, value))
            if index is None:
                row += [Cell()] * (1 + len(statistics))
                continue
            summary = summaries[index]
            text = half_width_text(summary, arms.metric, interval) if summary.n else "no result"
            if summary.n not in (0, usual):
                text += f" (n={summary.n})"
            if arms.arms[index].counts[DIVERGED]:
                text += f" {_DAGGER}"
            row.append(Cell(None, text, best=index == best))
            row += [Cell(summary.mean), Cell(summary.n), *interval_cells(summary)]
        rows.append(row)

    name = INTERVAL_NAMES[interval]
    spread = f"{PLUS_MINUS} is half the width of" if interval == "t" else "in brackets"
    first = (
        [f"{spread} the 95 % interval of the mean ({name}) over seeds"]
        if usual > 1
        else _interval_notes(summaries, arms.metric, interval)
    )
    first.append(f"{counted(usual, 'seed')} a cell{' where no other n is given' if len(seeds) > 1 else ''}")
    if any(arm.counts[DIVERGED] for arm in arms.arms):
        first.append(f"{_DAGGER} with diverged runs")
    if len(places) < len(down) * len(across):
        first.append(f"{ABSENT} no run")
    return _table(f"{arms.metric.heading}, {row_field} by {column_field}", arms, columns, rows, [*first, *notes])


def mcnemar_table(frame: pd.DataFrame, first: str, second: str, read_correct: Callable[[Any], ArrayLike]) -> Table:
    """Two single runs on the same test images: where they disagree, and McNemar's exact test.

    Args:
      frame: one row a run.
      first, second: their digests, or beginnings that fit one run only.
      read_correct: from a run's folder to [images] booleans, as `convjax.sweeps.frame.read_correct`.

    Raises:
      UserError: a digest fits no finished run or several, both are one run, or the runs use different data.
    """
    runs = [_run_of(frame, digest) for digest in (first, second)]
    if runs[0]["digest"] == runs[1]["digest"]:
        raise UserError(f"--mcnemar={first},{second}: both are the run {runs[0]['digest']}; name two different runs")
    if any(runs[0][name] != runs[1][name] for name in ("dataset", "dataset_fingerprint")):
        raise UserError(f"--mcnemar={first},{second}: the runs use different data, so their predictions do not pair")
    test = mcnemar(*(read_correct(run["path"]) for run in runs))
    metric = metric_named("test_accuracy")
    shown = test.p_value < ALPHA and test.interval is not None and not test.interval.contains(0.0)
    words = (BETTER if test.difference > 0 else WORSE) if shown else NOT_SHOWN
    differing = [name for name in FIELD_NAMES if name in frame.columns and runs[0][name] != runs[1][name]]

    columns = [
        Column("run", "run", left=True, header=True),
        *(Column(name, name, left=True) for name in differing),
        Column("test_accuracy", metric.heading),
        Column("right", "right"),
        Column("alone_right", "alone right"),
        Column("difference", f"difference ({metric.difference_unit})"),
        Column("difference_low", shown=False),
        Column("difference_high", shown=False),
        Column("p", "p"),
        Column("verdict", "verdict", left=True),
    ]
    comparison = [
        [*[Cell()] * 4, Cell(BASELINE, BASELINE)],
        [
            Cell(test.difference, difference_text(test.difference, test.interval, metric)),
            *ends(test.interval),
            Cell(test.p_value, p_text(test.p_value)),
            Cell(words, words),
        ],
    ]
    rows = []
    for run, alone, compared in zip(runs, (test.only_first, test.only_second), comparison, strict=True):
        right = test.both_right + alone
        rows.append(
            (
                Cell(run["digest"], run["digest"]),
                *(Cell(run[name], field_text(run[name])) for name in differing),
                Cell(right / test.n, metric.format(right / test.n)),
                Cell(right, f"{right:,}"),
                Cell(alone, f"{alone:,}"),
                *compared,
            )
        )
    return Table(
        caption=f"McNemar's exact test of two runs ({runs[0]['dataset']}, {test.n:,} test images)",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            f"both right: {test.both_right:,} images, both wrong: {test.both_wrong:,}; alone right: only this run is",
            "difference in percentage points, second - first, with its exact 95 % interval given the number of images "
            "on which the runs disagree",
            "this speaks of two trained models only; to learn what the configurations are worth compare several seeds "
            "of each",
        ),
    )


def _summaries(values: Sequence[Mapping[int, float]], metric: Metric) -> list[Summary]:
    return summarise_all(values, lower_is_better=bool(metric.lower_is_better))


def _table(
    title: str, arms: Arms, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], notes: Sequence[str]
) -> Table:
    """The table, its caption saying what all arms share: the data, and what differs from the chapter's run."""
    shared = [arms.common["dataset"]] if "dataset" in arms.common else []
    shared += non_default(arms.common)
    return Table(
        caption=title[0].upper() + title[1:] + (f" ({', '.join(shared)})" if shared else ""),
        columns=tuple(columns),
        rows=tuple(tuple(row) for row in rows),
        notes=(*notes, *arms.notes),
    )


def _best(arms: Arms) -> tuple[int | None, list[str]]:
    """The arm to be marked, if one is shown to be the best, and what to say of it."""
    first = leader(arms)
    compared = sum(bool(arm.values) for arm in arms.arms) - 1
    if first is None or compared < 1:
        return None, []
    label, others = arms.label(arms.arms[first]), rivals(arms, first)
    if not others:
        test = f"each of the other {compared:,} (paired t-tests, Holm-corrected)" if compared > 1 else "the other"
        return first, [f"marked as best: {label}, better than {test}"]
    extreme = "lowest" if arms.metric.lower_is_better else "highest"
    return None, [
        f"no single arm is shown to be the best: {label} has the {extreme} mean, but is not shown to be better than "
        f"{arms.labels([arms.arms[index] for index in others])}"
    ]


def _interval_notes(summaries: Sequence[Summary], metric: Metric, interval: str) -> list[str]:
    if all(summary.n < 2 for summary in summaries):
        return ["one seed an arm has no interval and shows no difference: run several seeds, 5 or more"]
    text = (
        f"{PLUS_MINUS} is the standard deviation over seeds; the interval is of the mean ({INTERVAL_NAMES[interval]})"
    )
    if any(summary.n >= 2 and summary.t_interval is None for summary in summaries):
        text += f", {ABSENT} where all seeds are equal"
    beyond = [s.t_interval for s in summaries if s.t_interval and not 0 <= s.t_interval.low <= s.t_interval.high <= 1]
    if metric.unit == "%" and interval == "t" and beyond:
        text += "; where it reaches beyond 0 or 100 % the seeds are too few for so large a spread"
    return [text]


def _difference_notes(
    comparisons: Sequence[ArmComparison], labels: Sequence[str], metric: Metric, origin: str, interval: str
) -> list[str]:
    made = [(label, c, c.paired) for label, c in zip(labels, comparisons, strict=True) if c.paired]
    if not made:
        return ["no arm could be compared with the baseline"]
    tests = sum(not math.isnan(c.p_holm) for _, c, _ in made)
    unit = {"points": " in percentage points", "s": " in seconds"}.get(metric.difference_unit, "")
    notes = [
        f"differences {origin}{unit}, paired by seed, with 95 % interval ({INTERVAL_NAMES[interval]}); d_z: mean / sd "
        f"of the differences; p: paired t-test, Holm-corrected for {counted(tests, 'comparison')}; a difference is "
        f"shown where p < {ALPHA:g} and the t interval leaves out 0"
    ]
    unpaired = [
        f"{label} ({len(one.only_arm) + len(one.only_baseline)})"
        for label, _, one in made
        if one.only_arm or one.only_baseline
    ]
    if unpaired:
        notes.append(f"seeds that only one of the two arms has take no part in the differences: {some(unpaired, '; ')}")
    few = [(label, one, c.seeds_needed) for label, c, one in made if c.seeds_needed]
    power = f"{POWER * 100:.0f} % power, at the spread seen"
    for label, one, needed in few if len(few) <= _MOST_WARNINGS else []:
        size = _size_text(one.mean_difference, metric)
        notes.append(
            f"{label}: with {counted(one.n, 'seed')} a difference of {size} cannot be shown; "
            f"{seeds_text(needed, 'more than ', 'about ')} would be needed ({power})"
        )
    if len(few) > _MOST_WARNINGS:
        notes.append(
            f"in {len(few):,} comparisons the seeds are too few to show a difference of the size seen; 'seeds needed' "
            f"says about how many would do ({power})"
        )
    return notes


def _size_text(difference: float, metric: Metric) -> str:
    """`0.05 points`; what would round to nothing is `less than 0.01 points`."""
    size, smallest = abs(difference), 10**-metric.decimals / metric.scale
    text = f"less than {metric.format(smallest)}" if size < smallest / 2 else metric.format(size)
    return " ".join(filter(None, [text, metric.difference_unit]))


def _baseline_words(arms: Arms, baselines: Sequence[int | None], wanted: Baseline) -> str:
    distinct = {index for index in baselines if index is not None}
    if len(distinct) == 1:
        return f"from {arms.label(arms.arms[distinct.pop()])}"
    others = [name for name in arms.by if name not in wanted]
    spec = ", ".join(f"{name}={value}" for name, value in wanted.items())
    return f"from the arm of {spec} with the same {listed(others)}"


def _complete_blocks(arms: Arms, factor: str) -> tuple[dict[Any, dict[int, float]], int, list[str]]:
    """For every level of a factor, seed to mean over the other factors; the combinations averaged; notes."""
    position = arms.by.index(factor)
    values: dict[Any, dict[tuple[Any, ...], dict[int, float]]] = {}
    for arm in arms.arms:
        rest = arm.key[:position] + arm.key[position + 1 :]
        finite = {seed: value for seed, value in arm.values.items() if math.isfinite(value)}
        # Averaging the seeds that did not diverge would flatter the arm.
        values.setdefault(arm.key[position], {})[rest] = {} if arm.incomparable else finite
    every = list(dict.fromkeys(rest for by_rest in values.values() for rest in by_rest))
    whole = [rest for rest in every if all(by_rest.get(rest) for by_rest in values.values())]
    cells = [by_rest[rest] for by_rest in values.values() for rest in whole]
    seen = sorted({seed for cell in cells for seed in cell})
    seeds = [seed for seed in seen if all(seed in cell for cell in cells)]
    means = {
        level: {seed: math.fsum(by_rest[rest][seed] for rest in whole) / len(whole) for seed in seeds}
        for level, by_rest in sorted(values.items(), key=lambda item: natural_key(item[0]))
    }
    notes = []
    names = [name for name in arms.by if name != factor]
    dropped = [
        ", ".join(f"{name}={field_text(value)}" for name, value in zip(names, rest, strict=True))
        for rest in every
        if rest not in whole
    ]
    if dropped:
        notes.append(f"{factor} is not averaged over {some(dropped, '; ')}, without results at some {factor}")
    missing = [str(seed) for seed in seen if seed not in seeds]
    if missing:
        notes.append(f"{factor}: left out seed {some(missing)}, which not all arms averaged have")
    return means, len(whole), notes


def _base_level(factor: str, levels: Sequence[Any], baseline: Baseline) -> int:
    if factor in baseline:
        found = [index for index, level in enumerate(levels) if matches(level, baseline[factor])]
        if not found:
            known = some([field_text(level) for level in levels])
            raise UserError(f"--baseline={factor}={baseline[factor]} matches no level; the levels are: {known}")
        return found[0]
    default = getattr(RunConfig(), factor, None)
    return levels.index(default) if default in levels else 0


def _run_of(frame: pd.DataFrame, digest: str) -> dict[str, Any]:
    """The finished run of a digest or its beginning."""
    found = frame[frame["digest"].astype(str).str.startswith(digest)]
    if not digest or found.empty:
        raise UserError(f"--mcnemar: no run has the digest {digest!r}; digests are the names of the run folders")
    finished = found[found["status"].isin((DONE, DIVERGED))].sort_values("path")
    if finished.empty:
        raise UserError(f"--mcnemar: the run {digest} is {found['status'].iloc[0]} and has no predictions")
    if finished["digest"].nunique() > 1:
        raise UserError(f"--mcnemar: {digest!r} fits {finished['digest'].nunique():,} runs; give more of its digits")
    return dict(finished.iloc[:1].to_dict("records")[0])
