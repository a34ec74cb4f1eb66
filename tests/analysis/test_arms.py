import math
import random

import numpy as np
import pandas as pd
import pytest

from convjax.analysis.arms import group_runs
from convjax.analysis.wording import field_text, natural_key
from convjax.config import RunConfig
from convjax.errors import UserError

THREE, FIVE = {"kernel_size": "3"}, {"kernel_size": "5"}


def keys(arms):
    return [arm.key for arm in arms.arms]


class TestGrouping:
    def test_by_default_all_fields_that_vary(self, runs):
        frame = runs([({"kernel_size": k, "padding": p}, [0.9, 0.8]) for k in "35" for p in ("valid", "same")])
        arms = group_runs(frame)
        assert arms.by == ("kernel_size", "padding")
        assert keys(arms) == [("3", "same"), ("3", "valid"), ("5", "same"), ("5", "valid")]
        assert arms.arms[0].values == {0: 0.9, 1: 0.8}
        assert arms.label(arms.arms[1]) == "kernel_size=3, padding=valid"
        assert arms.common["dataset"] == "mnist"
        assert "padding" not in arms.common

    def test_fields_that_vary_inside_an_arm_are_added_and_said(self, runs):
        frame = runs([({**k, "padding": p}, [0.9]) for k in (THREE, FIVE) for p in ("valid", "same")])
        arms = group_runs(frame, ["kernel_size"])
        assert arms.by == ("kernel_size", "padding")
        assert len(arms.arms) == 4
        assert "also grouped by padding: runs that differ there are not averaged" in arms.notes

    def test_fields_that_vary_with_the_arm_are_said(self, runs):
        frame = runs([(THREE, [0.9, 0.8]), ({**FIVE, "channels": "20-40-40"}, [0.9, 0.8])])
        arms = group_runs(frame, ["kernel_size"])
        assert arms.by == ("kernel_size",)
        assert "the arms also differ in channels, not only in kernel_size" in arms.notes
        assert "channels" not in arms.common
        assert arms.arms[1].fields["channels"] == "20-40-40"

    def test_one_arm_has_a_name(self, runs):
        arms = group_runs(runs([(THREE, [0.9, 0.8])]))
        assert arms.by == ("model",)
        assert keys(arms) == [("convnet",)]

    def test_rows_may_come_in_any_order(self, runs):
        frame = runs([({"kernel_size": k}, [0.9, 0.8, 0.7]) for k in ("10", "9", "3", "5-3-3")])
        shuffled = frame.iloc[random.Random(0).sample(range(len(frame)), len(frame))]
        assert group_runs(shuffled) == group_runs(frame)
        assert keys(group_runs(shuffled)) == [("3",), ("9",), ("10",), ("5-3-3",)]

    def test_grouping_by_origin(self, runs):
        frame = pd.concat([runs([(THREE, [0.9])], backend=backend) for backend in ("cpu", "gpu")])
        arms = group_runs(frame, ["backend"])
        assert keys(arms) == [("cpu",), ("gpu",)]

    def test_numbers_of_a_column_with_gaps_are_whole_again(self, runs, row):
        damaged = dict.fromkeys(RunConfig().to_dict(), np.nan)
        frame = pd.concat(
            [
                runs([({"epochs": 2}, [0.9, 0.8]), ({"epochs": 10}, [0.9, 0.8])]),
                pd.DataFrame([{**row(RunConfig()), **damaged, "status": "damaged", "reason": "not JSON"}]),
            ]
        )
        assert frame["seed"].dtype == float
        arms = group_runs(frame)
        assert keys(arms) == [(2,), (10,)]
        assert [type(seed) for seed in arms.arms[0].values] == [int, int]
        assert "5 runs: 4 done; left out: 1 damaged (not JSON)" in arms.notes

    def test_cost_is_the_models_and_the_mean_of_the_times(self, runs):
        arms = group_runs(runs([(THREE, [0.9, 0.8, 0.7])]))
        assert (arms.arms[0].parameters, arms.arms[0].flops) == (93_322, 5_000_000)
        assert arms.arms[0].seconds == pytest.approx((40 + 41 + 42) / 3)

    def test_costs_that_differ_inside_an_arm_are_not_averaged(self, runs):
        frame = runs([(THREE, [0.9, 0.8])])
        frame.loc[0, "flops"] = 1
        assert math.isnan(group_runs(frame).arms[0].flops)


class TestNothingVanishes:
    def test_every_status_is_counted_with_its_reason(self, runs, row):
        def config(seed):
            return RunConfig(kernel_size="5", seed=seed)

        frame = pd.concat(
            [
                runs([(THREE, [0.99, 0.98]), (FIVE, [0.97])]),
                pd.DataFrame(
                    [
                        row(config(1), 0.1, status="diverged", reason="loss is NaN from epoch 2"),
                        row(config(2), status="failed", reason="XlaRuntimeError:\n  out of\tmemory"),
                        row(config(3), status="failed", reason="XlaRuntimeError:\n  out of\tmemory"),
                        row(config(4), status="unfinished", reason="2 of 5 epochs"),
                        row(config(5), status="damaged", reason="x" * 500),
                    ]
                ),
            ]
        )
        arms = group_runs(frame)
        assert arms.arms[1].counts == {"done": 1, "diverged": 1, "failed": 2, "unfinished": 1, "damaged": 1}
        # The diverged run's accuracy was measured, so it counts.
        assert arms.arms[1].values == {0: 0.97, 1: 0.1}
        assert arms.arms[1].incomparable == 0
        [note] = [note for note in arms.notes if note.startswith("8 runs")]
        assert "3 done, 1 diverged (the measured test accuracy counts)" in note
        assert "left out: 2 failed (XlaRuntimeError: out of memory)" in note
        assert "1 unfinished (2 of 5 epochs)" in note
        assert f"1 damaged ({'x' * 99}…)" in note

    def test_an_arm_without_results_stays(self, runs, row):
        failed = row(RunConfig(kernel_size="5"), status="failed", reason="no", dataset_fingerprint=np.nan)
        arms = group_runs(pd.concat([runs([(THREE, [0.9])]), pd.DataFrame([failed])]))
        assert keys(arms) == [("3",), ("5",)]
        assert arms.arms[1].values == {}

    def test_diverged_without_a_value_is_known_to_the_arm(self, runs, row):
        lost = row(RunConfig(**FIVE, seed=1), 0.1, status="diverged", test_loss=math.nan)
        frame = pd.concat([runs([(THREE, [0.9, 0.8]), (FIVE, [0.9])]), pd.DataFrame([lost])])
        arms = group_runs(frame, metric="test_loss")
        assert arms.arms[1].incomparable == 1
        assert math.isnan(arms.arms[1].values[1])
        assert any("1 without a finite test loss: their arms are not compared" in note for note in arms.notes)

    def test_a_finished_run_without_the_metric_is_counted(self, runs):
        frame = runs([(THREE, [0.9, 0.8])])
        frame.loc[0, "validation_accuracy"] = 0.5
        arms = group_runs(frame, metric="validation_accuracy")
        assert "1 finished run without a value of validation_accuracy left out" in arms.notes

    def test_reasons_cannot_command_the_terminal(self, runs, row):
        failed = row(RunConfig(), status="failed", reason="\x1b[31mred\x07")
        arms = group_runs(pd.concat([runs([(FIVE, [0.9])]), pd.DataFrame([failed])]))
        assert any("1 failed ([31mred)" in note for note in arms.notes)

    def test_origins_that_differ_are_said(self, runs):
        frame = runs([(THREE, [0.9, 0.8])])
        frame["backend"] = ["cpu", "gpu"]
        frame["git_revision"] = ["a" * 40, None]
        arms = group_runs(frame)
        assert "the runs come from different back ends: cpu, gpu" in arms.notes
        assert f"the runs come from different code revisions: {'a' * 12}, unknown" in arms.notes


class TestCopies:
    def test_count_once(self, runs):
        frame = pd.concat(
            [
                runs([(THREE, [0.9, 0.8])], experiment="a"),
                runs([(THREE, [0.9, 0.7])], experiment="b"),
            ]
        )
        arms = group_runs(frame)
        assert arms.arms[0].values == {0: 0.9, 1: 0.8}
        assert (
            "2 further copies of these runs left out; 1 with another test accuracy: the first by path counts"
            in arms.notes
        )

    def test_a_finished_copy_wins(self, row):
        frame = pd.DataFrame(
            [
                row(RunConfig(), status="failed", reason="no", experiment="a"),
                row(RunConfig(), 0.9, experiment="b"),
            ]
        )
        arms = group_runs(frame)
        assert arms.arms[0].values == {0: 0.9}
        assert arms.arms[0].counts["failed"] == 0
        assert "1 further copy of these runs left out" in arms.notes


class TestDifferentData:
    def test_data_sets_are_not_mixed(self, runs):
        frame = runs([({"dataset": name}, [0.9, 0.8]) for name in ("mnist", "mnist_5k")])
        with pytest.raises(UserError, match=r"mnist: 2 runs; mnist_5k: 2 runs.*--allow_mixed_data"):
            group_runs(frame, ["kernel_size"])

    def test_fingerprints_are_not_mixed(self, runs):
        frame = runs([(THREE, [0.9, 0.8])])
        frame.loc[1, "dataset_fingerprint"] = "another"
        with pytest.raises(UserError, match=r"mnist \(fingerprint another\): 1 run; .*--allow_mixed_data"):
            group_runs(frame)

    def test_when_allowed_they_are_arms_of_their_own(self, runs):
        frame = runs([({"dataset": name}, [0.9, 0.8]) for name in ("mnist", "mnist_5k")])
        frame.loc[1, "dataset_fingerprint"] = "another"
        arms = group_runs(frame, ["kernel_size"], allow_mixed_data=True)
        assert arms.mixed_data
        assert arms.by == ("kernel_size", "dataset", "dataset_fingerprint")
        assert [arm.values for arm in arms.arms] == [{1: 0.8}, {0: 0.9}, {0: 0.9, 1: 0.8}]

    def test_a_run_that_failed_before_it_saw_the_data_is_no_other_data(self, runs, row):
        failed = row(RunConfig(), status="failed", reason="no", dataset_fingerprint=np.nan)
        arms = group_runs(pd.concat([runs([(THREE, [None, 0.9])]), pd.DataFrame([failed])]))
        assert not arms.mixed_data
        assert arms.arms[0].counts["failed"] == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"by": ["kernal_size"]}, "did you mean kernel_size"),
            ({"by": ["zzz"]}, "known: dataset, model"),
            ({"by": ["seed"]}, "averaged over"),
            ({"metric": "test_acuracy"}, "did you mean test_accuracy"),
            ({"metric": "kernel_size"}, "not known"),
            ({"metric": "backend"}, "not known"),
            ({"metric": "validation_accuracy"}, "none of the 2 finished runs has a value"),
        ],
    )
    def test_message(self, runs, arguments, message):
        with pytest.raises(UserError, match=message):
            group_runs(runs([(THREE, [0.9, 0.8])]), **arguments)

    def test_no_runs(self, runs):
        with pytest.raises(UserError, match="no runs"):
            group_runs(runs([(THREE, [0.9])]).iloc[:0])

    def test_no_readable_run(self, runs):
        frame = runs([(THREE, [0.9, 0.8])])
        frame["kernel_size"] = np.nan
        frame["reason"] = "lacks kernel_size"
        with pytest.raises(UserError, match="none of the 2 runs can be read: lacks kernel_size"):
            group_runs(frame)


def test_natural_order():
    ordered = ["0", "1", "2", "3", "3x5", "5", "5x3", "7", "10", "3-3-5", "5-3-3", "16-16", "32-64-64", "avg", "max"]
    # Single values before values per layer, both by size.
    backwards = ordered[::-1]
    assert sorted(backwards, key=natural_key) == ordered
    assert sorted([1e-2, 64, 1e-4, 5], key=natural_key) == [1e-4, 1e-2, 5, 64]
    assert sorted(["b10", "b9", "a", ""], key=natural_key) == ["", "a", "b9", "b10"]


@pytest.mark.parametrize(
    ("value", "text"), [("", "(none)"), (1e-3, "0.001"), (1e-5, "1e-05"), (64, "64"), ("3x5", "3x5")]
)
def test_field_text(value, text):
    assert field_text(value) == text
