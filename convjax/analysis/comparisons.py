"""Arms against a baseline arm, and whether one arm is shown to be the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convjax.analysis.arms import GROUP_FIELDS, ArmRuns, Arms
from convjax.analysis.metrics import Metric
from convjax.analysis.statistics import (
    ALPHA,
    BETTER,
    NOT_SHOWN,
    PairedComparison,
    holm,
    paired_all,
    seeds_needed,
    verdict,
)
from convjax.analysis.wording import counted, field_text, key_text, listed, unknown_name
from convjax.errors import UserError

BASELINE = "baseline"
NO_BASELINE = "no baseline arm"
OTHER_DATA = "other data: not compared"
NO_RESULTS = "no results"


@dataclass(frozen=True)
class ArmComparison:
    """One arm against its baseline.

    Attributes:
      baseline: index of the baseline arm; None where there is none.
      paired: the differences; None for the baseline itself and where arms cannot be compared.
      p_holm: the t-test's p-value, corrected for all comparisons made; NaN where there is none.
      verdict: of `convjax.analysis.statistics.verdict`, or why there is no comparison.
      seeds_needed: where no difference is shown, about how many seeds would show one of the observed size.
    """

    baseline: int | None
    paired: PairedComparison | None
    p_holm: float
    verdict: str
    seeds_needed: int | None


def parse_baseline(text: str) -> dict[str, str]:
    """`kernel_size=3,padding=valid` as a dict.

    Raises:
      UserError: a part without `=`, an unknown field, or a field named twice.
    """
    wanted: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        name = name.strip()
        if not separator:
            raise UserError(f"--baseline={text}: {part!r} is not FIELD=VALUE, such as kernel_size=3")
        if name not in GROUP_FIELDS:
            raise unknown_name("--baseline field", name, GROUP_FIELDS)
        if name in wanted:
            raise UserError(f"--baseline={text}: {name} is given twice")
        wanted[name] = value.strip()
    return wanted


def find_baselines(arms: Arms, wanted: Mapping[str, str]) -> list[int | None]:
    """For every arm the index of the arm it is compared with; its own index for a baseline.

    If one arm matches, it is the baseline of all. If several match (`kernel_size=3` with both paddings), each arm
    is compared with the match that agrees in all other fields, or with none where there is no such arm.

    Raises:
      UserError: no arm matches, or all arms do.
    """
    matching = [index for index, arm in enumerate(arms.arms) if _matches(arm, wanted)]
    spec = ",".join(f"{name}={value}" for name, value in wanted.items())
    if not matching:
        raise UserError(f"--baseline={spec} matches no arm; the arms are: {arms.labels(arms.arms)}")
    if len(matching) == 1:
        return [matching[0] for _ in arms.arms]
    if len(matching) == len(arms.arms):
        raise UserError(
            f"--baseline={spec} matches all {counted(len(matching), 'arm')}; "
            f"name a value of a field in which they differ: {', '.join(arms.by)}"
        )
    kept = [position for position, name in enumerate(arms.by) if name not in wanted]

    rests = [tuple(arm.key[position] for position in kept) for arm in arms.arms]
    found: list[int | None] = []
    for index in range(len(arms.arms)):
        candidates = [index] if index in matching else [match for match in matching if rests[match] == rests[index]]
        found.append(candidates[0] if len(candidates) == 1 else None)
    return found


def baseline_text(arms: Arms, baselines: Sequence[int | None], wanted: Mapping[str, str]) -> str:
    """The one baseline of all arms, or how each arm's own is found (`find_baselines`), in words."""
    distinct = {index for index in baselines if index is not None}
    if len(distinct) == 1:
        return arms.label(arms.arms[distinct.pop()])
    others = [name for name in arms.by if name not in wanted]
    return f"the arm of {key_text(wanted, wanted.values())} with the same {listed(others)}"


def compare_arms(arms: Arms, baselines: Sequence[int | None]) -> list[ArmComparison]:
    """Every arm against its baseline, Holm-corrected over all comparisons made."""
    reasons = [_obstacle(arms, index, baseline) for index, baseline in enumerate(baselines)]
    return compare_values([arm.values for arm in arms.arms], baselines, arms.metric, reasons)


def compare_values(
    values: Sequence[Mapping[int, float]],
    baselines: Sequence[int | None],
    metric: Metric,
    obstacles: Sequence[str],
) -> list[ArmComparison]:
    """`compare_arms` on bare values by seed; `obstacles` says why an arm is not compared, or is empty."""
    asked = [
        (index, baseline) for index, baseline in enumerate(baselines) if baseline is not None and not obstacles[index]
    ]
    compared = paired_all([(values[baseline], values[index]) for index, baseline in asked])
    corrected = holm([one.p_value for one in compared])
    tests = max(1, sum(not math.isnan(p) for p in corrected))
    results = [
        ArmComparison(baseline, None, math.nan, obstacle, None)
        for baseline, obstacle in zip(baselines, obstacles, strict=True)
    ]
    for (index, baseline), one, p_holm in zip(asked, compared, corrected, strict=True):
        words = verdict(one, p_holm, lower_is_better=metric.lower_is_better)
        # The level that Holm's method asks of the smallest p-value: the estimate is on the safe side.
        needed = seeds_needed(one.mean_difference, one.sd_difference, ALPHA / tests) if words == NOT_SHOWN else None
        results[index] = ArmComparison(baseline, one, p_holm, words, needed)
    return results


def leader(arms: Arms) -> int | None:
    """Index of the arm with the best mean, whether or not it is shown to be better; None without a direction."""
    means = {index: arm.mean for index, arm in enumerate(arms.arms) if math.isfinite(arm.mean)}
    if not means or arms.metric.lower_is_better is None or arms.mixed_data:
        return None
    return (min if arms.metric.lower_is_better else max)(means, key=lambda index: means[index])


def rivals(arms: Arms, best: int) -> list[int]:
    """Arms with results that arm `best` is not shown to be better than; empty where it is shown to be the best.

    `best` is compared with every other arm, Holm-corrected over these comparisons. Choosing the arm by its mean
    first costs little: to be the best it must win every comparison, the closest included.
    """
    values = [arm.values for arm in arms.arms]
    others = [index for index, arm in enumerate(arms.arms) if index != best and arm.values]
    compared = paired_all([(values[index], values[best]) for index in others], bootstrap=False)
    corrected = holm([one.p_value for one in compared])
    return [
        index
        for index, one, p_holm in zip(others, compared, corrected, strict=True)
        if arms.arms[index].incomparable
        or arms.arms[best].incomparable
        or verdict(one, p_holm, lower_is_better=arms.metric.lower_is_better) != BETTER
    ]


def matches(value: Any, text: str) -> bool:
    """Whether a field has the value a user wrote; numbers may be written in any way (`1e-3`)."""
    if text in (str(value), field_text(value)):
        return True
    try:
        return float(value) == float(text)
    except ValueError:
        return False


def _matches(arm: ArmRuns, wanted: Mapping[str, str]) -> bool:
    return all(name in arm.fields and matches(arm.fields[name], value) for name, value in wanted.items())


def _obstacle(arms: Arms, index: int, baseline: int | None) -> str:
    """Why an arm is not compared with its baseline; empty if it is."""
    if baseline is None:
        return NO_BASELINE
    if index == baseline:
        return BASELINE
    arm, other = arms.arms[index], arms.arms[baseline]
    if not arm.values:
        return NO_RESULTS
    if not other.values:
        return "baseline has no results"
    if any(arm.fields.get(name) != other.fields.get(name) for name in ("dataset", "dataset_fingerprint")):
        return OTHER_DATA
    if arm.incomparable:
        return f"{arm.incomparable} diverged: not compared"
    if other.incomparable:
        return f"baseline diverged {other.incomparable} times: not compared"
    return ""
