import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from convjax.analysis import statistics
from convjax.analysis.mcnemar import mcnemar
from convjax.analysis.statistics import (
    BETTER,
    CONSTANT,
    HIGHER,
    LOWER,
    NO_PAIRS,
    NOT_SHOWN,
    ONE_SEED,
    WORSE,
    Interval,
    holm,
    paired,
    paired_all,
    seeds_needed,
    summarize,
    summarize_all,
    verdict,
)


def by_seed(values):
    return dict(enumerate(values))


accuracies = st.lists(st.integers(9000, 10_000).map(lambda right: right / 10_000), min_size=2, max_size=8)


class TestSummary:
    def test_hand_computed(self):
        # mean 15/5 = 3; squared deviations 4+1+0+1+4 = 10, sd = sqrt(10/4); half-width = t(0.975, 4) * sd / sqrt(5),
        # where t(0.975, 4) = 2.776445 (any table): 2.776445 * 1.581139 / 2.236068 = 1.963243.
        summary = summarize({3: 4.0, 0: 1.0, 1: 2.0, 4: 5.0, 2: 3.0})
        assert summary.n == 5
        assert summary.mean == 3.0
        assert summary.sd == pytest.approx(1.5811388)
        assert summary.t_interval.low == pytest.approx(3 - 1.963243, abs=1e-6)
        assert summary.t_interval.high == pytest.approx(3 + 1.963243, abs=1e-6)
        assert (summary.best, summary.best_seed, summary.worst, summary.worst_seed) == (5.0, 4, 1.0, 0)

    def test_lower_is_better_turns_best_and_worst_round(self):
        summary = summarize(by_seed([0.3, 0.1, 0.2]), lower_is_better=True)
        assert (summary.best, summary.best_seed, summary.worst, summary.worst_seed) == (0.1, 1, 0.3, 0)

    def test_best_of_equals_is_the_lowest_seed(self):
        summary = summarize({9: 0.5, 2: 0.5, 5: 0.4, 1: 0.4})
        assert (summary.best_seed, summary.worst_seed) == (2, 1)

    @given(accuracies)
    @settings(max_examples=30, deadline=None)
    def test_t_interval_is_statsmodels(self, values):
        assume(len(set(values)) > 1)
        low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
        interval = summarize(by_seed(values)).t_interval
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))

    @given(st.lists(st.lists(st.integers(0, 200), min_size=3, max_size=7), min_size=1, max_size=5))
    @settings(max_examples=20, deadline=None)
    def test_bootstrap_is_scipys_for_each_arm_alone(self, arms):
        summaries = summarize_all([by_seed([9800 + value for value in values]) for values in arms])
        for values, summary in zip(arms, summaries, strict=True):
            if len(set(values)) == 1:
                assert summary.bootstrap_interval is None
                continue
            # Whole numbers, so that sums are exact and ties are ties; not standardised; no other arms beside it.
            expected = stats.bootstrap(
                (values,), np.mean, n_resamples=4999, method="BCa", rng=np.random.default_rng(0)
            ).confidence_interval
            assert summary.bootstrap_interval.low == pytest.approx(9800 + expected.low, abs=1e-6)
            assert summary.bootstrap_interval.high == pytest.approx(9800 + expected.high, abs=1e-6)
            assert summary.bootstrap_interval.method == "BCa"

    @given(st.permutations([9911, 9917, 9921, 9921, 9930]))
    @settings(max_examples=10, deadline=None)
    def test_bootstrap_of_fractions_is_that_of_counts(self, right):
        counts, fractions = summarize(by_seed(right)), summarize(by_seed([count / 10_000 for count in right]))
        assert fractions.bootstrap_interval.low == pytest.approx(counts.bootstrap_interval.low / 10_000, abs=1e-12)
        assert fractions.bootstrap_interval.high == pytest.approx(counts.bootstrap_interval.high / 10_000, abs=1e-12)

    def test_bootstrap_hand_computed(self):
        # Two values in equal numbers, 0 and 1: the mean of a resample is Binomial(8, 1/2) / 8. Symmetric, so BCa is
        # the percentile interval: P(X <= 1) = 9/256 = 0.035 > 0.025 > P(X = 0), hence from 1/8 to 7/8.
        interval = summarize(by_seed([0, 0, 0, 0, 1, 1, 1, 1])).bootstrap_interval
        assert interval.low == pytest.approx(1 / 8)
        assert interval.high == pytest.approx(7 / 8)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_intervals_contain_the_mean_and_mean_lies_between_the_extremes(self, values):
        summary = summarize(by_seed(values))
        slack = 1e-12
        assert summary.worst - slack <= summary.mean <= summary.best + slack
        for interval in (summary.t_interval, summary.bootstrap_interval):
            if interval is not None:
                assert interval.low - slack <= summary.mean <= interval.high + slack

    def test_tiny_values_keep_their_bootstrap_interval(self):
        large, tiny = summarize(by_seed([1.0, 2.0, 4.0])), summarize(by_seed([1e-130, 2e-130, 4e-130]))
        assert tiny.bootstrap_interval.low == pytest.approx(large.bootstrap_interval.low * 1e-130, rel=1e-9)

    def test_one_seed_has_no_spread(self):
        summary = summarize({7: 0.99})
        assert (summary.n, summary.mean, summary.best_seed, summary.worst_seed) == (1, 0.99, 7, 7)
        assert math.isnan(summary.sd)
        assert summary.t_interval is None
        assert summary.bootstrap_interval is None

    def test_two_seeds_have_a_t_interval_only(self):
        summary = summarize(by_seed([0.98, 0.99]))
        assert summary.t_interval is not None
        assert summary.bootstrap_interval is None

    def test_equal_values_have_no_interval(self):
        summary = summarize(by_seed([0.1 + 0.2, 0.3, 0.3]))
        assert summary.sd == pytest.approx(0, abs=1e-15)
        assert summary.t_interval is None
        assert summary.bootstrap_interval is None

    def test_values_that_are_not_finite_are_counted_and_left_out(self):
        summary = summarize({0: 0.5, 1: math.nan, 2: 0.7, 3: math.inf})
        assert (summary.n, summary.missing, summary.mean) == (2, 2, pytest.approx(0.6))
        nothing = summarize({0: math.nan})
        assert (nothing.n, nothing.missing, nothing.best_seed) == (0, 1, None)
        assert math.isnan(nothing.mean)


BASELINE = {0: 10.0, 1: 12.0, 2: 14.0, 3: 16.0}
ARM = {0: 11.0, 1: 12.0, 2: 16.0, 3: 17.0}


class TestPaired:
    def test_hand_computed(self):
        # Differences 1, 0, 2, 1: mean 1, sd = sqrt((0+1+1+0)/3) = 0.816497, t = 1 / (0.816497/2) = 2.449490.
        # Student's t with 3 degrees of freedom: p = 1 - 2/pi * (atan(u) + u / (1 + u^2)), u = t / sqrt(3) = sqrt(2).
        # Half-width t(0.975, 3) * sd / 2 = 3.182446 * 0.408248 = 1.299228.
        comparison = paired(BASELINE, ARM)
        assert comparison.n == 4
        assert comparison.mean_difference == 1.0
        assert comparison.sd_difference == pytest.approx(0.8164966)
        assert comparison.cohen_dz == pytest.approx(1.2247449)
        assert comparison.t_interval.low == pytest.approx(1 - 1.299228, abs=1e-6)
        assert comparison.t_interval.high == pytest.approx(1 + 1.299228, abs=1e-6)
        u = math.sqrt(2)
        assert comparison.p_value == pytest.approx(1 - 2 / math.pi * (math.atan(u) + u / 3))
        # No flip of signs gives a sum above 4; the zero's sign is free: 2 of 16, both tails 4 of 16.
        assert comparison.p_sign_flip == pytest.approx(4 / 16)

    @given(accuracies, st.data())
    @settings(max_examples=30, deadline=None)
    def test_is_scipys_paired_test(self, values, data):
        others = data.draw(st.lists(st.sampled_from([*values, 0.95, 0.97]), min_size=len(values), max_size=len(values)))
        differences = np.subtract(others, values)
        assume(np.ptp(differences) > 1e-6)
        comparison = paired(by_seed(values), by_seed(others))
        expected = stats.ttest_rel(others, values)
        assert comparison.p_value == pytest.approx(expected.pvalue)
        assert comparison.t_interval.low == pytest.approx(expected.confidence_interval().low)
        assert comparison.t_interval.high == pytest.approx(expected.confidence_interval().high)

    @given(st.lists(st.integers(-20, 20), min_size=2, max_size=7))
    @settings(max_examples=30, deadline=None)
    def test_sign_flip_counts_all_sign_patterns(self, differences):
        sums = [
            sum(sign * d for sign, d in zip(signs, differences, strict=True))
            for signs in itertools.product((-1, 1), repeat=len(differences))
        ]
        extreme = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
        comparison = paired(by_seed([0.0] * len(differences)), by_seed(map(float, differences)))
        assert comparison.p_sign_flip == pytest.approx(extreme)

    @given(accuracies, accuracies)
    @settings(max_examples=30, deadline=None)
    def test_swapping_the_arms_turns_the_sign_only(self, first, second):
        there, back = paired(by_seed(first), by_seed(second)), paired(by_seed(second), by_seed(first))
        assert there.n == back.n == min(len(first), len(second))
        assert there.mean_difference == -back.mean_difference
        assert (there.only_arm, there.only_baseline) == (back.only_baseline, back.only_arm)
        assert (there.p_sign_flip, there.identical, there.constant) == (
            back.p_sign_flip,
            back.identical,
            back.constant,
        )
        assert there.p_value == pytest.approx(back.p_value, nan_ok=True)
        if there.t_interval:
            assert (there.t_interval.low, there.t_interval.high) == (-back.t_interval.high, -back.t_interval.low)
            assert there.cohen_dz == -back.cohen_dz

    def test_seeds_of_one_arm_only_are_counted_and_ignored(self):
        baseline = {**BASELINE, 8: 1.0, 9: math.nan}
        arm = {**ARM, 5: 99.0, 9: 3.0}
        comparison = paired(baseline, arm)
        assert (comparison.only_baseline, comparison.only_arm) == ((8,), (5, 9))
        alone = paired(BASELINE, ARM)
        assert dataclasses.replace(comparison, only_baseline=(), only_arm=()) == alone

    def test_result_does_not_depend_on_company_or_order(self):
        more = [(by_seed([0.9, 0.8, 0.7, 0.6]), by_seed([0.5, 0.9, 0.1, 0.2])), (ARM, by_seed([1.0, 5.0]))]
        reversed_arm = dict(reversed(list(ARM.items())))
        among = paired_all([more[0], (BASELINE, reversed_arm), more[1]])
        assert among[1] == paired(BASELINE, ARM)

    def test_identical_arms(self):
        comparison = paired(BASELINE, BASELINE)
        assert comparison.identical
        assert not comparison.constant
        assert (comparison.p_value, comparison.p_sign_flip, comparison.mean_difference) == (1.0, 1.0, 0.0)
        assert comparison.t_interval is None

    def test_equal_differences_are_no_evidence_of_precision(self):
        # 0.9917 - 0.9907 and 0.9927 - 0.9917 differ in the last bit; that is not a spread.
        comparison = paired(by_seed([0.9907, 0.9917, 0.9900]), by_seed([0.9917, 0.9927, 0.9910]))
        assert comparison.constant
        assert comparison.t_interval is None
        assert math.isnan(comparison.p_value)
        assert math.isnan(comparison.cohen_dz)
        # All three signs flip together or not: 2 of 8.
        assert comparison.p_sign_flip == pytest.approx(0.25)

    def test_one_pair_and_none(self):
        one = paired({0: 1.0, 1: 2.0}, {1: 2.5, 2: 3.0})
        assert (one.n, one.mean_difference) == (1, 0.5)
        assert one.t_interval is None
        assert math.isnan(one.p_value)
        none = paired({0: 1.0}, {1: 2.0})
        assert none.n == 0
        assert math.isnan(none.mean_difference)


class TestHolm:
    def test_hand_computed(self):
        # Sorted 0.01, 0.03, 0.04: 3 * 0.01 = 0.03; 2 * 0.03 = 0.06; 1 * 0.04, but not below the 0.06 before it.
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])

    def test_tests_not_made_are_not_counted(self):
        corrected = holm([0.01, math.nan, 0.04])
        assert corrected[0] == pytest.approx(0.02)
        assert math.isnan(corrected[1])
        assert corrected[2] == pytest.approx(0.04)
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    @settings(max_examples=20, deadline=None)
    def test_is_statsmodels(self, p_values):
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_is_monotone_and_never_below_the_raw_value(self, p_values):
        corrected = holm(p_values)
        assert all(raw <= c + 1e-15 for raw, c in zip(p_values, corrected, strict=True))
        assert max(corrected) <= 1
        in_order = [c for _, c in sorted(zip(p_values, corrected, strict=True))]
        assert in_order == sorted(in_order)


class TestVerdict:
    def comparison(self, **changes):
        return dataclasses.replace(paired(by_seed([0.0, 0.0, 0.0]), by_seed([1.0, 2.0, 3.0])), **changes)

    @pytest.mark.parametrize(
        ("mean", "lower_is_better", "words"),
        [
            (0.2, False, BETTER),
            (-0.2, False, WORSE),
            (0.2, True, WORSE),
            (-0.2, True, BETTER),
            (0.2, None, HIGHER),
            (-0.2, None, LOWER),
        ],
    )
    def test_direction(self, mean, lower_is_better, words):
        interval = Interval(mean - 0.1, mean + 0.1, "t")
        comparison = self.comparison(mean_difference=mean, t_interval=interval)
        assert verdict(comparison, 0.049, lower_is_better=lower_is_better) == words

    def test_both_p_value_and_interval_must_agree(self):
        clear, unclear = Interval(0.1, 0.3, "t"), Interval(-0.1, 0.5, "t")
        assert verdict(self.comparison(t_interval=clear), 0.05) == NOT_SHOWN
        assert verdict(self.comparison(t_interval=clear), math.nan) == NOT_SHOWN
        assert verdict(self.comparison(t_interval=unclear), 0.001) == NOT_SHOWN
        assert verdict(self.comparison(t_interval=None), 0.001) == NOT_SHOWN

    def test_cases_without_a_test(self):
        arm = by_seed([0.5, 0.6, 0.7])
        assert verdict(paired(arm, {5: 0.5}), math.nan) == NO_PAIRS
        assert verdict(paired(arm, {0: 0.9}), math.nan) == ONE_SEED
        assert verdict(paired(arm, arm), 1.0) == NOT_SHOWN
        assert verdict(paired(arm, by_seed([0.6, 0.7, 0.8])), math.nan) == CONSTANT

    def test_arms_without_a_difference_are_rarely_told_apart(self):
        # 600 sweeps of 4 arms drawn from one distribution, against a fifth: a sweep with any claim is a mistake, which
        # Holm keeps to 5 %. Three standard errors of 600 such sweeps are 2.7 %.
        generator = np.random.default_rng(5)
        mistakes = 0
        for _ in range(600):
            baseline, *arms = generator.normal(0.99, 0.001, (5, 5))
            compared = paired_all([(by_seed(baseline), by_seed(arm)) for arm in arms], bootstrap=False)
            corrected = holm([one.p_value for one in compared])
            mistakes += any(verdict(c, p) != NOT_SHOWN for c, p in zip(compared, corrected, strict=True))
        assert 0 < mistakes / 600 < 0.05 + 0.027


class TestMcNemar:
    def test_hand_computed(self):
        # 9 discordant images, 1 and 8: p = 2 * (C(9,0) + C(9,1)) / 2^9 = 20 / 512.
        first = [True] * 20 + [False] * 3 + [True] + [False] * 8
        second = [True] * 20 + [False] * 3 + [False] + [True] * 8
        test = mcnemar(first, second)
        assert (test.n, test.both_right, test.both_wrong, test.only_first, test.only_second) == (32, 20, 3, 1, 8)
        assert test.p_value == pytest.approx(20 / 512)
        assert test.difference == pytest.approx(7 / 32)
        # Clopper-Pearson for 8 of 9 is [0.517503, 0.997191] (tables); times 9/32 after 2s - 1.
        assert test.interval.low == pytest.approx((2 * 0.517503 - 1) * 9 / 32, abs=1e-6)
        assert test.interval.high == pytest.approx((2 * 0.997191 - 1) * 9 / 32, abs=1e-6)

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
    @settings(max_examples=50, deadline=None)
    def test_is_statsmodels_and_the_interval_agrees_with_the_test(self, pairs):
        first, second = zip(*pairs, strict=True)
        table = [[sum(p == (a, b) for p in pairs) for b in (True, False)] for a in (True, False)]
        test = mcnemar(first, second)
        if table[0][1] + table[1][0]:
            assert test.p_value == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
            assert test.interval.contains(test.difference)
            if abs(test.p_value - 0.05) > 1e-9:
                assert test.interval.contains(0.0) == (test.p_value > 0.05)
        else:
            assert test.p_value == 1.0
            assert test.interval is None

    def test_rejects_what_does_not_pair(self):
        with pytest.raises(ValueError, match="equally long"):
            mcnemar([True], [True, False])
        with pytest.raises(ValueError, match="equally long"):
            mcnemar([], [])


class TestSeedsNeeded:
    def test_textbook_value(self):
        # The usual example: a medium effect (d = 0.5) at 5 % and 80 % power takes 34 pairs (Cohen 1988, G*Power).
        assert seeds_needed(0.5, 1.0) == 34
        assert seeds_needed(-0.0005, 0.001) == 34

    @pytest.mark.parametrize("effect", [0.1, 0.31, 0.8, 1.3])
    @pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0005])
    def test_is_the_smallest_number_that_statsmodels_finds_sufficient(self, effect, alpha):
        n = seeds_needed(effect, 1.0, alpha)
        enough, too_few = (TTestPower().power(effect, count, alpha) for count in (n, n - 1))
        assert enough >= 0.8
        assert too_few < 0.8

    @pytest.mark.parametrize("effect", [2.0, 5.0, 20.0])
    @pytest.mark.parametrize("alpha", [0.05, 0.0005])
    def test_large_effects_where_statsmodels_has_no_answer(self, effect, alpha):
        def power(n):
            # Given the sample's sd, s times the true one, the test finds what exceeds critical * s by chance Phi.
            critical = stats.t.isf(alpha / 2, n - 1)
            scaled = stats.chi(n - 1, scale=(n - 1) ** -0.5)
            found = lambda s: scaled.pdf(s) * stats.norm.sf(critical * s - effect * n**0.5)  # noqa: E731
            return integrate.quad(found, 0, scaled.isf(1e-12), limit=500, points=[effect * n**0.5 / critical])[0]

        n = seeds_needed(effect, 1.0, alpha)
        assert power(n) >= 0.8
        assert n == 2 or power(n - 1) < 0.8

    def test_large_numbers_go_on_where_the_exact_ones_end(self):
        # Just below and above 1,000, statsmodels' solution rounded up.
        for effect in (0.0890, 0.0885, 0.05, 0.01):
            exact = math.ceil(TTestPower().solve_power(effect, alpha=0.05, power=0.8))
            assert abs(seeds_needed(effect, 1.0) - exact) <= 1

    @given(st.floats(1e-5, 1e5), st.sampled_from([0.05, 0.005, 1e-4, 1e-6]))
    @settings(max_examples=100, deadline=None)
    def test_larger_effects_never_need_more(self, effect, alpha):
        n = seeds_needed(effect, 1.0, alpha)
        assert n >= 2
        assert seeds_needed(2 * effect, 1.0, alpha) <= n
        assert seeds_needed(effect, 1.0, 2 * alpha) <= n

    @pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (1e-9, 1.0)])
    def test_no_number_without_an_effect(self, mean, sd):
        assert seeds_needed(mean, sd) is None

    @given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_always_more_than_did_not_suffice(self, differences):
        comparison = paired(by_seed([0.0] * len(differences)), by_seed(differences))
        if verdict(comparison, comparison.p_value) == NOT_SHOWN:
            needed = seeds_needed(comparison.mean_difference, comparison.sd_difference)
            assert needed is None or needed > comparison.n


def test_intervals_are_at_the_level_that_is_written():
    assert statistics.LEVEL == 0.95
    assert summarize(by_seed([1.0, 2.0])).t_interval.level == 0.95
