import math

import pandas as pd
import pytest

from convjax.analysis.arms import group_runs
from convjax.analysis.comparisons import compare_arms, find_baselines, leader, parse_baseline, rivals
from convjax.analysis.statistics import BETTER, NOT_SHOWN, ONE_SEED, WORSE, holm, paired, seeds_needed
from convjax.config import RunConfig
from convjax.errors import UserError

LOW, MIDDLE, HIGH = [0.971, 0.973, 0.970, 0.972], [0.981, 0.982, 0.980, 0.983], [0.992, 0.993, 0.989, 0.994]


def kernels(**accuracies):
    return [({"kernel_size": name.removeprefix("k").replace("_", "-")}, values) for name, values in accuracies.items()]


class TestParse:
    def test_fields_and_values(self):
        assert parse_baseline("kernel_size=3, padding=valid") == {"kernel_size": "3", "padding": "valid"}
        assert parse_baseline("augment=rotate=10+shift=0.1") == {"augment": "rotate=10+shift=0.1"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("kernel_size", "not FIELD=VALUE"),
            ("kernel_size=3,", "not FIELD=VALUE"),
            ("kernel=3", "did you mean kernel_size"),
            ("seed=3", "not known"),
            ("padding=same,padding=valid", "given twice"),
        ],
    )
    def test_refusals(self, text, message):
        with pytest.raises(UserError, match=message):
            parse_baseline(text)


class TestFindBaselines:
    def test_one_match_is_everybodys_baseline(self, runs):
        arms = group_runs(runs(kernels(k1=LOW, k3=MIDDLE, k5=HIGH)))
        assert find_baselines(arms, {"kernel_size": "3"}) == [1, 1, 1]

    def test_numbers_may_be_written_in_any_way(self, runs):
        arms = group_runs(runs([({"learning_rate": rate}, LOW) for rate in (1e-4, 1e-3)]))
        for text in ("1e-3", "0.001", ".001"):
            assert find_baselines(arms, {"learning_rate": text}) == [1, 1]

    def test_several_matches_pair_with_what_agrees_elsewhere(self, runs):
        cells = [(k, p) for k in ("1", "3", "5") for p in ("same", "valid") if (k, p) != ("3", "same")]
        arms = group_runs(runs([({"kernel_size": k, "padding": p}, LOW) for k, p in cells]))
        found = find_baselines(arms, {"padding": "valid"})
        names = [arm.key for arm in arms.arms]
        assert [(names[i], names[b]) for i, b in enumerate(found)] == [
            (("1", "same"), ("1", "valid")),
            (("1", "valid"), ("1", "valid")),
            (("3", "valid"), ("3", "valid")),
            (("5", "same"), ("5", "valid")),
            (("5", "valid"), ("5", "valid")),
        ]

    def test_no_counterpart_is_no_baseline(self, runs):
        cells = [("1", "same"), ("1", "valid"), ("3", "valid"), ("5", "valid"), ("5", "same"), ("7", "same")]
        arms = group_runs(runs([({"kernel_size": k, "padding": p}, LOW) for k, p in cells]))
        found = find_baselines(arms, {"padding": "valid"})
        assert found[-1] is None
        assert compare_arms(arms, found)[-1].verdict == "no baseline arm"

    def test_a_field_that_goes_with_the_arm(self, runs):
        arms = group_runs(
            runs([({"kernel_size": "3"}, LOW), ({"kernel_size": "5", "channels": "20-40-40"}, LOW)]), ["kernel_size"]
        )
        assert find_baselines(arms, {"channels": "20-40-40"}) == [1, 1]

    def test_refusals_name_the_arms(self, runs):
        arms = group_runs(runs(kernels(k1=LOW, k2=LOW, k3=LOW, k5=LOW, k7=LOW)))
        with pytest.raises(UserError, match=r"matches no arm; the arms are: kernel_size=1; .*; and 2 more"):
            find_baselines(arms, {"kernel_size": "4"})
        with pytest.raises(UserError, match=r"matches all 5 arms; .* differ: kernel_size"):
            find_baselines(arms, {"padding": "valid"})


class TestCompareArms:
    def test_holm_counts_the_comparisons_made(self, runs):
        arms = group_runs(runs(kernels(k1=LOW, k3=MIDDLE, k5=[0.982, 0.981, 0.980, 0.984], k7=[0.99])))
        results = compare_arms(arms, find_baselines(arms, {"kernel_size": "3"}))
        values = [arm.values for arm in arms.arms]
        raw = [paired(values[1], values[index]).p_value for index in (0, 2)]
        assert [results[0].p_holm, results[2].p_holm] == pytest.approx(holm(raw))
        assert [result.verdict for result in results] == [WORSE, "baseline", NOT_SHOWN, ONE_SEED]
        assert math.isnan(results[3].p_holm)
        one = results[2].paired
        # Two tests were made, so the power is asked for at 5 % / 2.
        assert results[2].seeds_needed == seeds_needed(one.mean_difference, one.sd_difference, 0.025)
        assert results[0].seeds_needed is None

    def test_losses_are_better_when_lower(self, runs):
        arms = group_runs(runs(kernels(k3=MIDDLE, k5=HIGH)), metric="test_loss")
        assert compare_arms(arms, [0, 0])[1].verdict == BETTER

    def test_survivors_of_divergence_are_not_compared(self, runs, row):
        lost = [
            row(RunConfig(kernel_size="5", seed=seed), 0.1, status="diverged", test_loss=math.nan) for seed in (2, 3)
        ]
        frame = pd.concat([runs(kernels(k3=MIDDLE, k5=[0.999, 0.998], k7=HIGH)), pd.DataFrame(lost)])
        by_loss = group_runs(frame, metric="test_loss")
        from_three, from_five = compare_arms(by_loss, [0, 0, 0]), compare_arms(by_loss, [1, 1, 1])
        assert from_three[1].verdict == "2 diverged: not compared"
        assert from_three[1].paired is None
        assert from_three[2].verdict == BETTER
        assert from_five[0].verdict == from_five[2].verdict == "baseline diverged 2 times: not compared"

    def test_different_data_is_not_compared(self, runs):
        frame = runs([({"dataset": name}, HIGH) for name in ("mnist", "mnist_5k")])
        arms = group_runs(frame, allow_mixed_data=True)
        assert compare_arms(arms, [0, 0])[1].verdict == "other data: not compared"

    def test_a_failed_run_that_does_not_know_its_data_is_no_obstacle(self, runs, row):
        failed = row(RunConfig(kernel_size="5", seed=9), status="failed", reason="no", dataset_fingerprint=math.nan)
        arms = group_runs(pd.concat([runs(kernels(k3=MIDDLE, k5=HIGH)), pd.DataFrame([failed])]))
        assert compare_arms(arms, [0, 0])[1].verdict == BETTER

    def test_arms_without_results(self, runs, row):
        failed = row(RunConfig(kernel_size="5"), status="failed", reason="no")
        arms = group_runs(pd.concat([runs(kernels(k3=MIDDLE)), pd.DataFrame([failed])]))
        assert compare_arms(arms, [0, 0])[1].verdict == "no results"
        assert compare_arms(arms, [1, 1])[0].verdict == "baseline has no results"


class TestBest:
    def test_shown_against_every_other_arm(self, runs):
        arms = group_runs(runs(kernels(k1=LOW, k3=MIDDLE, k5=HIGH)))
        assert leader(arms) == 2
        assert rivals(arms, 2) == []

    def test_a_close_second_is_a_rival(self, runs):
        arms = group_runs(runs(kernels(k1=LOW, k3=[0.991, 0.995, 0.989, 0.992], k5=HIGH)))
        assert leader(arms) == 2
        assert rivals(arms, 2) == [1]

    def test_lowest_loss_leads(self, runs):
        assert leader(group_runs(runs(kernels(k1=LOW, k3=HIGH)), metric="test_loss")) == 1

    def test_one_seed_shows_nothing(self, runs):
        arms = group_runs(runs(kernels(k1=[0.5], k3=[0.99])))
        assert rivals(arms, leader(arms)) == [0]

    def test_an_arm_that_diverged_out_of_sight_stays_a_rival(self, runs, row):
        lost = row(RunConfig(kernel_size="5", seed=9), 0.1, status="diverged", test_loss=math.nan)
        frame = pd.concat([runs(kernels(k3=HIGH, k5=LOW)), pd.DataFrame([lost])])
        arms = group_runs(frame, metric="test_loss")
        assert leader(arms) == 0
        assert rivals(arms, 0) == [1]

    def test_nobody_leads_without_direction_or_on_different_data(self, runs):
        assert leader(group_runs(runs(kernels(k3=LOW, k5=HIGH)), metric="parameters")) is None
        mixed = runs([({"dataset": name}, HIGH) for name in ("mnist", "mnist_5k")])
        assert leader(group_runs(mixed, allow_mixed_data=True)) is None
