"""Verdicts: all three words, their bounds, and what the sentences say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from convjax.analysis.statistics import Interval
from convjax.studies.verdict import (
    CONTRADICTED,
    NOT_SHOWN,
    SUPPORTED,
    WORDS,
    Claimed,
    Finding,
    above,
    below,
    difference,
    estimate,
    exact,
    judge,
    overall,
    prediction,
    rate,
    within,
)


def interval(low, high):
    return Interval(low, high, "t")


BOUNDS = [
    ("higher", 0.0, (0.001, 1.0), SUPPORTED),
    ("higher", 0.0, (0.0, 1.0), NOT_SHOWN),  # an end on the bound decides nothing
    ("higher", 0.0, (-1.0, 1.0), NOT_SHOWN),
    ("higher", 0.0, (-1.0, 0.0), NOT_SHOWN),
    ("higher", 0.0, (-1.0, -0.001), CONTRADICTED),
    ("higher", 0.5, (0.4, 0.9), NOT_SHOWN),
    ("higher", 0.5, (0.51, 0.9), SUPPORTED),
    ("higher", 0.5, (0.1, 0.49), CONTRADICTED),
    ("lower", 0.0, (-1.0, -0.001), SUPPORTED),
    ("lower", 0.0, (-1.0, 0.0), NOT_SHOWN),
    ("lower", 0.0, (0.001, 1.0), CONTRADICTED),
    ("lower", 0.5, (-0.9, -0.51), SUPPORTED),
    ("lower", 0.5, (-0.49, 0.2), CONTRADICTED),
    ("equal", 0.5, (-0.49, 0.49), SUPPORTED),
    ("equal", 0.5, (0.1, 0.2), SUPPORTED),  # a difference that is shown, but does not matter
    ("equal", 0.5, (-0.5, 0.1), NOT_SHOWN),
    ("equal", 0.5, (0.4, 0.6), NOT_SHOWN),
    ("equal", 0.5, (0.5, 0.9), NOT_SHOWN),
    ("equal", 0.5, (0.51, 0.9), CONTRADICTED),
    ("equal", 0.5, (-0.9, -0.51), CONTRADICTED),
]


CLAIMED = {"higher": above, "lower": lambda by: below(-by), "equal": within}


@pytest.mark.parametrize(("claimed", "margin", "ends", "word"), BOUNDS)
def test_where_the_interval_lies_decides(claimed, margin, ends, word):
    assert judge(interval(*ends), CLAIMED[claimed](margin)) == word
    moved = Claimed(*(end + 1 for end in (CLAIMED[claimed](margin).low, CLAIMED[claimed](margin).high)))
    assert judge(interval(*(end + 1 for end in ends)), moved) == word


def test_without_an_interval_nothing_is_shown():
    assert judge(None, above()) == NOT_SHOWN
    assert judge(interval(-math.inf, math.inf), within(1.0)) == NOT_SHOWN


@pytest.mark.parametrize("margin", [0.0, -0.1])
def test_a_margin_without_room_is_refused(margin):
    with pytest.raises(ValueError, match="no effect lies within"):
        within(margin)


floats = st.floats(-1, 1)


@given(low=floats, width=st.floats(0, 1), margin=st.floats(0, 1))
def test_lower_is_the_mirror_of_higher(low, width, margin):
    one, mirrored = interval(low, low + width), interval(-(low + width), -low)
    assert judge(one, above(margin)) == judge(mirrored, below(-margin))


@given(low=floats, width=st.floats(0, 1), margin=st.floats(0.001, 1))
def test_equal_within_a_margin_excludes_a_difference_beyond_it(low, width, margin):
    one = interval(low, low + width)
    word = judge(one, within(margin))
    beyond = {judge(one, above(margin)), judge(one, below(-margin))}
    assert (word == SUPPORTED) == (beyond == {CONTRADICTED})
    assert (word == CONTRADICTED) == (SUPPORTED in beyond)


def by_seed(*values):
    return dict(enumerate(values))


BASE, MORE = by_seed(0.97, 0.971, 0.972, 0.969), by_seed(0.991, 0.990, 0.992, 0.9915)


def test_a_difference_is_paired_and_told_with_its_interval():
    found = difference("the arm is more accurate", BASE, MORE, above())
    low, high = DescrStatsW([0.021, 0.019, 0.020, 0.0225]).tconfint_mean()
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.effect == pytest.approx(0.020625)
    assert found.word == SUPPORTED
    assert found.sentence == (
        f"The arm is more accurate: supported (+2.06 points, 95 % interval +{100 * low:.2f} to +{100 * high:.2f}, "
        "4 seeds)."
    )
    assert difference("x", MORE, BASE, above()).word == CONTRADICTED
    assert difference("x", MORE, BASE, below()).word == SUPPORTED
    assert difference("x", BASE, MORE, within(0.01)).word == CONTRADICTED
    assert difference("x", BASE, MORE, within(0.05)).word == SUPPORTED
    assert "margin 5.00 points" in difference("x", BASE, MORE, within(0.05)).evidence


def test_the_rule_for_equality_is_two_one_sided_t_tests():
    values = [0.001, -0.002, 0.0005, 0.0015, -0.001]
    for margin in (0.0005, 0.001, 0.002, 0.003):
        both = max(
            stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
            stats.ttest_1samp(values, margin, alternative="less").pvalue,
        )
        found = difference("x", by_seed(*[0.0] * 5), by_seed(*values), within(margin))
        assert (found.word == SUPPORTED) == (both < 0.025)


def test_seeds_that_agree_exactly():
    same = difference("x", BASE, BASE, within(0.01))
    assert (same.word, same.evidence) == (SUPPORTED, "the same in all 4 seeds; margin 1.00 points")
    assert difference("x", BASE, BASE, above()).word == NOT_SHOWN
    # One and the same difference in every seed has no spread to judge it by.
    constant = difference("x", by_seed(0.5, 0.5), by_seed(0.75, 0.75), above())
    assert (constant.word, constant.evidence) == (NOT_SHOWN, "+25.00 points in all 2 seeds: no interval")


def test_one_seed_shows_nothing():
    assert difference("x", by_seed(0.1), by_seed(0.9), above()).word == NOT_SHOWN
    assert difference("x", {}, by_seed(0.9), above()).evidence == "0 seeds: no interval"


def test_any_quantity_against_a_number():
    found = estimate("it needs less data", 6.5, interval(4.0, 9.0), above(1.0), metric="data factor")
    assert (found.word, found.interval) == (SUPPORTED, interval(4.0, 9.0))
    assert found.evidence == "6.5000, 95 % interval 4.0000 to 9.0000"
    assert estimate("x", 0.9, interval(0.8, 1.2), above(1.0), metric="m").word == NOT_SHOWN
    assert estimate("x", 0.5, interval(0.4, 0.6), above(1.0), metric="m").word == CONTRADICTED


def test_a_rate_is_judged_by_the_seed_that_speaks_most_against_it():
    values = by_seed(1.0, 0.97, 1.0)
    found = rate("it can", values, 200, above(0.9))
    assert found.effect == 0.97
    assert (found.interval.low, found.interval.high) == pytest.approx(proportion_confint(194, 200, method="beta"))
    assert found.word == SUPPORTED
    assert rate("it cannot", by_seed(0.5, 0.5), 1000, within(0.05, of=0.5)).word == SUPPORTED
    assert rate("it cannot", by_seed(0.5, 0.9), 1000, within(0.05, of=0.5)).word == CONTRADICTED
    assert rate("x", {}, 10, above(0.5)).word == NOT_SHOWN


def finding(word, decides=True):
    return Finding("x", word, 0.0, None, "", decides)


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), beside=st.lists(st.sampled_from(WORDS)))
def test_a_claim_stands_with_all_its_parts_and_falls_with_any(words, beside):
    found = overall([*map(finding, words), *(finding(word, decides=False) for word in beside)])
    if CONTRADICTED in words:
        assert found == CONTRADICTED
    else:
        assert found == (SUPPORTED if NOT_SHOWN not in words else NOT_SHOWN)


def test_a_claim_needs_something_that_decides():
    with pytest.raises(ValueError, match="decides"):
        overall([finding(SUPPORTED, decides=False)])


def test_arithmetic_holds_or_not():
    assert exact("28 becomes 26", True, "26").word == SUPPORTED
    assert exact("28 becomes 26", False, "25").sentence == "28 becomes 26: contradicted (25)."


def test_a_single_run_lies_in_the_prediction_interval_or_not():
    values = by_seed(0.990, 0.991, 0.992, 0.993)
    # t(0.975, 3) = 3.182446, mean 0.9915, sd 0.00129099: half width 3.182446 * sd * sqrt(1 + 1/4) = 0.0045934.
    found = prediction("it is usual", values, 0.9920)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (0.9915 - 0.0045934, 0.9915 + 0.0045934), abs=1e-7
    )
    assert found.word == SUPPORTED
    assert found.evidence == (
        "2 of 4 seeds below it; their mean is 99.15 %, and one more run lies in 98.69 to 99.61 % with 95 % probability"
    )
    assert prediction("it is usual", values, 0.9962).word == CONTRADICTED
    assert prediction("it is usual", by_seed(0.99, 0.991), 0.9).word == NOT_SHOWN
    assert prediction("it is usual", by_seed(0.99, 0.99, 0.99), 0.9).word == NOT_SHOWN
