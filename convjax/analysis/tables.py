"""The tables: arms with statistics, and two factors crossed. The other two are in `marginal` and `mcnemar`.

Each function goes from a table of runs (`convjax.sweeps.read_runs`) to a `Table`; `convjax.analysis.render`
writes it. All raise UserError for what `convjax.analysis.arms.group_runs` refuses.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from convjax.analysis.arms import DIVERGED, Arms, group_runs, non_default
from convjax.analysis.columns import (
    INTERVAL_NAMES,
    PLUS_MINUS,
    cost_numbers,
    cost_text,
    difference_numbers,
    difference_text,
    half_width_text,
    interval_numbers,
    panels_of,
    result_numbers,
    result_text,
    seeds_text,
)
from convjax.analysis.comparisons import (
    ArmComparison,
    baseline_text,
    compare_arms,
    find_baselines,
    leader,
    rivals,
)
from convjax.analysis.metrics import ABSENT, Metric
from convjax.analysis.render import Table
from convjax.analysis.statistics import ALPHA, POWER, Summary
from convjax.analysis.wording import counted, field_text, listed, natural_key, some
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
    """One row per arm: seeds, mean and sd, interval, best and worst seed, cost, and differences from a baseline.

    Args:
      frame: one row per run.
      by: fields that make the arms; None for all that vary.
      baseline: fields and values of the arm that the others are compared with (`parse_baseline`), or None.
      metric: a numeric column of the frame.
      interval: which interval readers see, `t` or `bootstrap`; CSV and JSON hold both.
      allow_mixed_data: list different data side by side.
    """
    return arms_table(group_runs(frame, by, metric, allow_mixed_data=allow_mixed_data), baseline, interval)


def arms_table(arms: Arms, baseline: Baseline | None = None, interval: str = "t") -> Table:
    """`accuracy_table` of runs that are grouped already."""
    best, best_notes = _best(arms)
    origins = [name for name in ("dataset", "dataset_fingerprint") if name not in arms.by]
    numbers = [
        dict(zip(arms.by, arm.key, strict=True))
        | {name: arm.fields[name] for name in origins}
        | result_numbers(summary, arms.metric, best=index == best)
        | cost_numbers(arm, arms.metric)
        for index, (arm, summary) in enumerate(zip(arms.arms, arms.summaries, strict=True))
    ]
    text = {
        "result": [result_text(summary, arms.metric, interval) for summary in arms.summaries],
        "cost": cost_text(arms),
    }
    notes = [*interval_notes(arms.summaries, arms.metric, interval), *best_notes]
    if baseline:
        labels = [arms.label(arm) for arm in arms.arms]
        baselines = find_baselines(arms, baseline)
        comparisons = compare_arms(arms, baselines)
        numbers = [row | difference_numbers(one, labels) for row, one in zip(numbers, comparisons, strict=True)]
        text["difference"] = difference_text(comparisons, arms.metric, interval)
        origin = f"from {baseline_text(arms, baselines, baseline)}"
        notes += difference_notes(comparisons, labels, arms.metric, origin, interval)
    return Table(
        caption(f"{arms.metric.heading} by {listed(arms.by)}", arms),
        pd.DataFrame(numbers, dtype=object),
        panels_of(arms.by, [arm.key for arm in arms.arms], text),
        notes=(*notes, *arms.notes),
        left=("verdict",),
        best=None if best is None else (best, arms.metric.heading),
    )


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
    best, best_notes = _best(arms)
    usual = arms.usual_seeds
    uneven = any(summary.n not in (0, usual) for summary in arms.summaries)

    # Rows: the fields that were added, then the row field.
    names = (*arms.by[2:], row_field)
    places = {((*arm.key[2:], arm.key[0]), arm.key[1]): index for index, arm in enumerate(arms.arms)}
    down = sorted({row for row, _ in places}, key=lambda row: [natural_key(value) for value in row])
    numbers, text, mark = [], [], None
    for row in down:
        record, texts = dict(zip(names, row, strict=True)), {}
        for value in arms.levels[column_field]:
            heading = f"{column_field}={field_text(value)}"
            index = places.get((row, value))
            summary = None if index is None else arms.summaries[index]
            statistics = {"mean": summary and summary.mean, "n": summary and summary.n, **interval_numbers(summary)}
            record |= {f"{heading} {name}": number for name, number in statistics.items()}
            texts[heading] = ABSENT if index is None else _cross_text(arms, index, interval)
            if index is not None and index == best:
                mark = (len(numbers), heading)
        numbers.append(record)
        text.append(texts)

    notes = interval_notes(arms.summaries, arms.metric, interval)
    if usual > 1:
        spread = f"{PLUS_MINUS} is half the width of" if interval == "t" else "in brackets"
        notes = [f"{spread} the 95 % interval of the mean ({INTERVAL_NAMES[interval]}) over seeds"]
    notes.append(f"{counted(usual, 'seed')} per cell{' where no other n is given' if uneven else ''}")
    if any(arm.counts[DIVERGED] for arm in arms.arms):
        notes.append(f"{_DAGGER} with diverged runs")
    if len(places) < len(down) * len(arms.levels[column_field]):
        notes.append(f"{ABSENT} no run")
    return Table(
        caption(f"{arms.metric.heading}, {row_field} by {column_field}", arms),
        pd.DataFrame(numbers, dtype=object),
        panels_of(names, down, {"": text}),
        notes=(*notes, *best_notes, *arms.notes),
        best=mark,
    )


def _cross_text(arms: Arms, index: int, interval: str) -> str:
    summary = arms.summaries[index]
    text = half_width_text(summary, arms.metric, interval) if summary.n else "no result"
    if summary.n not in (0, arms.usual_seeds):
        text += f" (n={summary.n})"
    return f"{text} {_DAGGER}" if arms.arms[index].counts[DIVERGED] else text


def caption(title: str, arms: Arms) -> str:
    """The title, and what all arms share: the data, and what differs from the chapter's run."""
    shared = [arms.common["dataset"]] if "dataset" in arms.common else []
    shared += non_default(arms.common)
    return title[0].upper() + title[1:] + (f" ({', '.join(shared)})" if shared else "")


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


def interval_notes(summaries: Sequence[Summary], metric: Metric, interval: str) -> list[str]:
    if all(summary.n < 2 for summary in summaries):
        return ["one seed per arm gives no interval and shows no difference: run 5 seeds or more"]
    text = (
        f"{PLUS_MINUS} is the standard deviation over seeds; the interval is for the mean ({INTERVAL_NAMES[interval]})"
    )
    if any(summary.n >= 2 and summary.t_interval is None for summary in summaries):
        text += f", {ABSENT} where all seeds are equal"
    beyond = [s.t_interval for s in summaries if s.t_interval and not 0 <= s.t_interval.low <= s.t_interval.high <= 1]
    if metric.unit == "%" and interval == "t" and beyond:
        text += "; where it reaches beyond 0 or 100 %, the seeds are too few for so large a spread"
    return [text]


def difference_notes(
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
        f"shown where p < {ALPHA:g} and the t interval excludes 0"
    ]
    unpaired = [
        f"{label} ({len(one.only_arm) + len(one.only_baseline)})"
        for label, _, one in made
        if one.only_arm or one.only_baseline
    ]
    if unpaired:
        notes.append(f"differences leave out the seeds that only one of the two arms has: {some(unpaired, '; ')}")
    few = [(label, one, c.seeds_needed) for label, c, one in made if c.seeds_needed]
    power = f"{POWER * 100:.0f} % power, at the observed spread"
    for label, one, needed in few if len(few) <= _MOST_WARNINGS else []:
        size = _size_text(one.mean_difference, metric)
        notes.append(
            f"{label}: {counted(one.n, 'seed')} cannot show a difference of {size}; "
            f"{seeds_text(needed, 'more than ', 'about ')} would be needed ({power})"
        )
    if len(few) > _MOST_WARNINGS:
        notes.append(
            f"in {len(few):,} comparisons the seeds are too few to show a difference of the observed size; "
            f"'seeds needed' estimates how many would do ({power})"
        )
    return notes


def _size_text(difference: float, metric: Metric) -> str:
    """`0.05 points`; what would round to nothing is `less than 0.01 points`."""
    size, smallest = abs(difference), 10**-metric.decimals / metric.scale
    text = f"less than {metric.format(smallest)}" if size < smallest / 2 else metric.format(size)
    return " ".join(filter(None, [text, metric.difference_unit]))
