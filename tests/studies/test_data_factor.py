"""The factor in data, on curves where it can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.studies.data_factor import data_factor

SIZES = (100, 1000, 10_000)


def curve(*accuracies, spread=()):
    return {
        size: {seed: accuracy + off for seed, off in enumerate(spread or (0.0,))}
        for size, accuracy in zip(SIZES, accuracies, strict=True)
    }


def test_by_hand():
    # 0.85 is half way from 0.8 at 100 to 0.9 at 1,000: at the geometric mean of the two sizes, 316.2.
    found = data_factor({0: 0.85}, curve(0.8, 0.9, 0.95), 10_000)
    assert found.examples == pytest.approx(np.sqrt(100 * 1000))
    assert found.factor == pytest.approx(10_000 / np.sqrt(1e5))
    assert (found.bound, found.seeds, found.interval) == ("", 1, None)
    # Exactly at a size.
    assert data_factor({0: 0.9}, curve(0.8, 0.9, 0.95), 10_000).factor == pytest.approx(10)
    assert data_factor({0: 0.8}, curve(0.8, 0.9, 0.95), 100).bound == ""


def test_beyond_the_sizes_that_were_run_it_is_a_bound():
    low, high = data_factor({0: 0.7}, curve(0.8, 0.9, 0.95), 1000), data_factor({0: 0.99}, curve(0.8, 0.9, 0.95), 1000)
    assert (low.bound, low.factor) == ("at least", pytest.approx(10))
    assert (high.bound, high.factor) == ("at most", pytest.approx(0.1))


def test_a_curve_that_falls_is_read_at_its_first_crossing():
    assert data_factor({0: 0.85}, curve(0.8, 0.9, 0.7), 1000).examples == pytest.approx(np.sqrt(1e5))
    assert data_factor({0: 0.9}, curve(0.8, 0.9, 0.7), 1000).examples == pytest.approx(1000)


@given(
    # Of 10,000 images: accuracies nearer to each other than rounding are no curve.
    accuracies=st.lists(
        st.integers(1000, 9900).map(lambda right: right / 10_000), min_size=3, max_size=3, unique=True
    ).map(sorted),
    size=st.sampled_from(SIZES),
)
def test_a_curve_against_itself_is_one(accuracies, size):
    arm = curve(*accuracies, spread=(0.0, 0.001, -0.001, 0.0005))
    assert data_factor(arm[size], arm, size).factor == pytest.approx(1.0)


def test_the_interval_is_the_bootstraps():
    """All that seeds differ in is the baseline's accuracy, so the resampled factor is a function of its mean."""
    reached = {0: 0.82, 1: 0.84, 2: 0.86, 3: 0.88}
    arm = {size: dict.fromkeys(reached, values[0]) for size, values in curve(0.8, 0.9, 0.95).items()}
    found = data_factor(reached, arm, 1000)
    means = np.random.default_rng(1).choice(list(reached.values()), (20_000, 4)).mean(1)
    factors = 1000 / 10 ** (2 + (means - 0.8) / 0.1)
    assert found.interval.method == "bootstrap"
    assert (found.interval.low, found.interval.high) == pytest.approx(np.quantile(factors, [0.025, 0.975]), rel=0.03)
    assert found.interval.contains(found.factor)


def test_only_seeds_that_all_have_count():
    arm = {100: {0: 0.8, 1: 0.1}, 1000: {0: 0.9, 2: 0.2}}
    assert data_factor({0: 0.9, 1: 0.9, 2: 0.9}, arm, 1000).factor == pytest.approx(1.0)
    with pytest.raises(ValueError, match="in common"):
        data_factor({3: 0.9}, arm, 1000)
    with pytest.raises(ValueError, match="in common"):
        data_factor({3: 0.9}, {}, 1000)
