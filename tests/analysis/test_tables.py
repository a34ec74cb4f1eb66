import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convjax.analysis.columns import p_text
from convjax.analysis.comparisons import parse_baseline
from convjax.analysis.marginal import marginal_table
from convjax.analysis.mcnemar import mcnemar_table
from convjax.analysis.render import to_json, to_text
from convjax.analysis.tables import accuracy_table, cross_table
from convjax.config import RunConfig
from convjax.errors import UserError

LOW, MIDDLE, HIGH = [0.971, 0.973, 0.970, 0.972], [0.981, 0.982, 0.980, 0.983], [0.992, 0.993, 0.989, 0.994]


def column(table, key):
    """Numbers of a column, by its key."""
    return list(table.numbers[key])


def texts(table, heading):
    return list(table.text[heading])


def marked(table):
    """Of the value marked as the best: the first name of its row, and its text."""
    if table.best is None:
        return None
    row, heading = table.best
    return table.text.index.get_level_values(0)[row], table.text[heading].iloc[row]


def has_note(table, *parts):
    return any(all(part in note for part in parts) for note in table.notes)


class TestAccuracyTable:
    def test_one_row_an_arm(self, runs):
        table = accuracy_table(
            runs([({"kernel_size": k, "epochs": 3}, values) for k, values in (("3", MIDDLE), ("5", HIGH))])
        )
        assert table.caption == "Test accuracy (%) by kernel_size (mnist, epochs=3)"
        assert column(table, "kernel_size") == ["3", "5"]
        assert column(table, "n") == [4, 4]
        # 0.981 + 0.982 + 0.980 + 0.983 = 3.926.
        assert column(table, "mean")[0] == pytest.approx(3.926 / 4)
        assert texts(table, "test accuracy (%)") == ["98.15 ± 0.13", "99.20 ± 0.22"]
        assert texts(table, "best (seed)") == ["98.30 (3)", "99.40 (3)"]
        assert texts(table, "worst (seed)") == ["98.00 (2)", "98.90 (2)"]
        assert column(table, "dataset") == ["mnist", "mnist"]
        assert marked(table) == ("5", "99.20 ± 0.22")
        assert has_note(table, "marked as best: kernel_size=5")

    def test_nothing_is_marked_where_statistics_do_not_support_it(self, runs):
        table = accuracy_table(runs([({"kernel_size": "3"}, [0.990, 0.994, 0.991]), ({"kernel_size": "5"}, HIGH[:3])]))
        assert marked(table) is None
        assert has_note(table, "no single arm is shown to be the best: kernel_size=3 has the highest mean")

    def test_the_interval_asked_for_is_written_and_both_are_kept(self, runs):
        frame = runs([({"kernel_size": k}, values) for k, values in (("3", MIDDLE), ("5", HIGH))])
        by_t, by_bootstrap = (accuracy_table(frame, interval=name) for name in ("t", "bootstrap"))
        for table, prefix in ((by_t, "t"), (by_bootstrap, "bootstrap")):
            low, high = column(table, f"{prefix}_low")[0], column(table, f"{prefix}_high")[0]
            assert texts(table, "95 % interval")[0] == f"[{100 * low:.2f}, {100 * high:.2f}]"
        assert column(by_t, "bootstrap_low") == column(by_bootstrap, "bootstrap_low")

    def test_counts_of_runs_are_shown_only_where_there_are_any(self, runs, row):
        frame = runs([({"kernel_size": "3"}, MIDDLE)])
        shown = accuracy_table(frame).text
        assert not any(name in shown for name in ("done", "diverged", "failed", "unfinished", "damaged"))
        failed = row(RunConfig(kernel_size="5"), status="failed", reason="no")
        table = accuracy_table(pd.concat([frame, pd.DataFrame([failed])]))
        assert "failed" in table.text
        assert column(table, "failed") == [0, 1]
        assert texts(table, "test accuracy (%)")[1] == "—"

    def test_metric_has_no_second_column(self, runs):
        table = accuracy_table(runs([({}, MIDDLE)]), metric="seconds")
        assert "seconds" not in table.numbers
        assert table.caption.startswith("Seconds by model")

    def test_one_seed(self, runs):
        frame = runs([({"kernel_size": k}, [0.99]) for k in "35"])
        table = accuracy_table(frame, baseline={"kernel_size": "3"})
        assert texts(table, "test accuracy (%)") == ["99.00", "99.00"]
        assert texts(table, "95 % interval") == ["—", "—"]
        assert column(table, "verdict") == ["baseline", "one seed: no interval"]
        assert has_note(table, "one seed per arm gives no interval")

    def test_too_few_seeds_are_said_with_how_many_would_do(self, runs):
        # Differences 0.0010, -0.0002, 0.0008: mean 0.00053, sd 0.00064, d_z 0.83: 14 pairs for 80 % power.
        frame = runs([({"kernel_size": "3"}, [0.99] * 3), ({"kernel_size": "5"}, [0.9910, 0.9898, 0.9908])])
        table = accuracy_table(frame, baseline={"kernel_size": "3"})
        assert column(table, "seeds_needed") == [None, 14]
        assert has_note(
            table, "kernel_size=5: 3 seeds cannot show a difference of 0.05 points; about 14 would be needed"
        )

    def test_many_warnings_are_one(self, runs):
        arms = [({"kernel_size": str(k)}, [0.9910, 0.9898 + k * 1e-4, 0.9908]) for k in range(1, 7)]
        table = accuracy_table(runs(arms), baseline={"kernel_size": "1"})
        assert has_note(table, "in 5 comparisons the seeds are too few")
        assert not has_note(table, "cannot show")

    def test_t_intervals_out_of_range_are_explained(self, runs):
        table = accuracy_table(runs([({}, [0.1, 0.99, 0.99])]))
        assert column(table, "t_high")[0] > 1
        assert has_note(table, "reaches beyond 0 or 100 %")

    def test_unpaired_seeds_are_counted(self, runs):
        frame = runs([({"kernel_size": "3"}, [*MIDDLE, None, 0.98]), ({"kernel_size": "5"}, [*HIGH, 0.99])])
        table = accuracy_table(frame, baseline={"kernel_size": "3"})
        assert column(table, "pairs") == [None, 4]
        assert has_note(table, "the seeds that only one of the two arms has", "kernel_size=5 (2)")

    def test_baselines_of_several_groups(self, runs):
        frame = runs(
            [
                ({"kernel_size": k, "padding": p}, values)
                for k, values in (("3", MIDDLE), ("5", HIGH))
                for p in ("same", "valid")
            ]
        )
        table = accuracy_table(frame, ["kernel_size"], baseline=parse_baseline("kernel_size=3"))
        assert column(table, "baseline") == ["kernel_size=3, padding=same", "kernel_size=3, padding=valid"] * 2
        assert column(table, "verdict") == ["baseline", "baseline", "better", "better"]
        assert has_note(table, "differences from the arm of kernel_size=3 with the same padding")

    def test_a_baseline_alone(self, runs):
        table = accuracy_table(runs([({"kernel_size": "3"}, MIDDLE)]), baseline={"kernel_size": "3"})
        assert column(table, "verdict") == ["baseline"]
        assert has_note(table, "no arm could be compared with the baseline")

    def test_different_data(self, runs):
        frame = runs([({"dataset": name}, MIDDLE) for name in ("mnist", "mnist_5k")])
        with pytest.raises(UserError, match="different data"):
            accuracy_table(frame)
        table = accuracy_table(frame, baseline={"dataset": "mnist"}, allow_mixed_data=True)
        assert column(table, "verdict") == ["baseline", "other data: not compared"]
        assert marked(table) is None

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_order_of_the_runs_does_not_matter(self, runs, row, random):
        failed = row(RunConfig(kernel_size="7", seed=1), status="failed", reason="no")
        arms = [({"kernel_size": k}, values) for k, values in (("10", LOW), ("3", MIDDLE), ("5", HIGH))]
        frame = pd.concat([runs(arms), pd.DataFrame([failed])])
        shuffled = frame.iloc[random.sample(range(len(frame)), len(frame))]
        tables = [accuracy_table(one, baseline={"kernel_size": "3"}) for one in (frame, shuffled)]
        for write in (to_text, to_json):
            assert write(tables[0]) == write(tables[1])


class TestMarginalTable:
    def frame(self, runs, cells):
        return runs([({"kernel_size": k, "padding": p}, values) for (k, p), values in cells.items()])

    def test_hand_computed(self, runs):
        frame = self.frame(
            runs,
            {
                ("3", "valid"): [0.90, 0.92, 0.94],
                ("3", "same"): [0.92, 0.92, 0.96],
                ("5", "valid"): [0.94, 0.97, 0.97],
                ("5", "same"): [0.94, 0.95, 0.99],
            },
        )
        table = marginal_table(frame)
        assert list(zip(column(table, "factor"), column(table, "level"), strict=True)) == [
            ("kernel_size", "3"),
            ("kernel_size", "5"),
            ("padding", "same"),
            ("padding", "valid"),
        ]
        # kernel_size=3, seed by seed over both paddings: 0.91, 0.92, 0.95; kernel_size=5: 0.94, 0.96, 0.98.
        # padding=same over both kernels: 0.93, 0.935, 0.975; valid: 0.92, 0.945, 0.955.
        assert column(table, "mean") == pytest.approx([2.78 / 3, 2.88 / 3, 2.84 / 3, 2.82 / 3])
        assert column(table, "best") == pytest.approx([0.95, 0.98, 0.975, 0.955])
        # The chapter's own levels, 3 and valid, are the base: differences 0.03, 0.04, 0.03 and 0.01, -0.01, 0.02.
        assert column(table, "difference") == [None, pytest.approx(0.1 / 3), pytest.approx(0.02 / 3), None]
        assert column(table, "arms_averaged") == [2, 2, 2, 2]
        # t of 0.03, 0.04, 0.03 is 10; with 2 degrees of freedom p = 1 - 10 / sqrt(102) = 0.00985; Holm doubles it.
        assert column(table, "p_holm")[1] == pytest.approx(2 * (1 - 10 / math.sqrt(102)))
        assert column(table, "verdict") == ["baseline", "better", "no difference shown", "baseline"]

    def test_base_levels_can_be_chosen(self, runs):
        frame = self.frame(runs, {(k, p): MIDDLE for k in "35" for p in ("same", "valid")})
        table = marginal_table(frame, baseline={"kernel_size": "5"})
        assert column(table, "verdict") == ["no difference shown", "baseline", "no difference shown", "baseline"]
        with pytest.raises(UserError, match="matches no level; the levels are: 3, 5"):
            marginal_table(frame, baseline={"kernel_size": "4"})
        with pytest.raises(UserError, match="'stride' is not known; known: kernel_size, padding"):
            marginal_table(frame, baseline={"stride": "1"})

    def test_only_complete_blocks_are_averaged(self, runs):
        # kernel_size=7 exists with padding=same only: averaging the others over both would compare unlike things.
        cells = {("3", "valid"): LOW, ("3", "same"): HIGH, ("5", "valid"): LOW, ("5", "same"): MIDDLE}
        table = marginal_table(self.frame(runs, {**cells, ("7", "same"): [*HIGH[:3], None]}))
        by_level = dict(zip(column(table, "level"), column(table, "mean"), strict=True))
        # padding=same alone, and the seeds 0, 1, 2 that kernel_size=7 has.
        assert by_level["3"] == pytest.approx(sum(HIGH[:3]) / 3)
        assert by_level["5"] == pytest.approx(sum(MIDDLE[:3]) / 3)
        assert by_level["valid"] == pytest.approx(sum(LOW) / 4)
        assert has_note(table, "kernel_size is not averaged over padding=valid, without results at some kernel_size")
        assert has_note(table, "kernel_size: left out seed 3")
        assert has_note(table, "padding is not averaged over kernel_size=7, without results at some padding")

    def test_no_complete_block(self, runs):
        cells = {("3", "valid"): LOW, ("5", "same"): HIGH, ("5", "valid"): MIDDLE, ("7", "same"): MIDDLE}
        table = marginal_table(self.frame(runs, cells))
        assert column(table, "n") == [0, 0, 0, 4, 4]
        assert column(table, "verdict")[1] == "no complete block"

    def test_two_factors_are_needed(self, runs):
        with pytest.raises(UserError, match="here only kernel_size does"):
            marginal_table(runs([({"kernel_size": k}, LOW) for k in "35"]))
        with pytest.raises(UserError, match="here none does"):
            marginal_table(runs([({}, LOW)]))


class TestCrossTable:
    def test_rows_by_columns(self, runs):
        cells = {("3", "valid"): MIDDLE, ("10", "valid"): LOW, ("3", "same"): HIGH, ("7", "same"): [*MIDDLE, 0.98]}
        frame = runs([({"kernel_size": k, "padding": p}, values) for (k, p), values in cells.items()])
        table = cross_table(frame, "kernel_size", "padding")
        # sd of MIDDLE = sqrt(5/3)e-3 = 0.001291, t(0.975, 3) = 3.182446: half-width 3.182446 * 0.001291 / 2 = 0.00205.
        assert column(table, "kernel_size") == ["3", "7", "10"]
        assert texts(table, "padding=valid") == ["98.15 ± 0.21", "—", "97.15 ± 0.21"]
        assert texts(table, "padding=same")[1].endswith(" (n=5)")
        assert column(table, "padding=same mean") == [pytest.approx(0.992), pytest.approx(0.9812), None]
        assert marked(table) == ("3", "99.20 ± 0.34")
        assert has_note(table, "4 seeds per cell where no other n is given")
        assert has_note(table, "— no run")

    def test_other_fields_stand_in_front(self, runs):
        frame = runs(
            [
                ({"kernel_size": k, "padding": p, "epochs": e}, MIDDLE)
                for k in "35"
                for p in ("same", "valid")
                for e in (2, 10)
            ]
        )
        table = cross_table(frame, "padding", "kernel_size")
        assert list(table.text.index.names) == ["epochs", "padding"]
        assert list(zip(column(table, "epochs"), column(table, "padding"), strict=True)) == [
            (2, "same"),
            (2, "valid"),
            (10, "same"),
            (10, "valid"),
        ]
        assert has_note(table, "also grouped by epochs")

    def test_cells_without_results_and_with_diverged_runs(self, runs, row):
        extra = [
            row(RunConfig(kernel_size="3", padding="same"), status="failed", reason="no"),
            row(RunConfig(kernel_size="5", padding="same"), 0.1, status="diverged"),
        ]
        frame = pd.concat([runs([({"kernel_size": k}, [0.99]) for k in "35"]), pd.DataFrame(extra)])
        table = cross_table(frame, "kernel_size", "padding")
        assert texts(table, "padding=same") == ["no result", "10.00 †"]
        assert has_note(table, "† with diverged runs")

    def test_bootstrap_intervals_are_written_with_both_ends(self, runs):
        frame = runs([({"kernel_size": k, "padding": p}, HIGH) for k in "35" for p in ("same", "valid")])
        table = cross_table(frame, "kernel_size", "padding", interval="bootstrap")
        low, high = (column(table, f"padding=same bootstrap_{end}")[0] for end in ("low", "high"))
        assert texts(table, "padding=same")[0] == f"99.20 [{100 * low:.2f}, {100 * high:.2f}]"

    def test_two_fields_are_needed(self, runs):
        with pytest.raises(UserError, match="two different fields"):
            cross_table(runs([({}, LOW)]), "padding", "padding")


class TestMcnemarTable:
    @pytest.fixture
    def frame(self, runs):
        frame = runs([({"kernel_size": k}, [0.9, 0.9]) for k in "35"])
        frame["digest"] = ["aa11", "aa22", "bb11", "bb22"]
        return frame

    def test_hand_computed(self, frame):
        # Alone right: 1 and 8 of 40 images; exact p = 20 / 512 = 0.0391 (see test_statistics).
        right = {"aa22": [True] * 24 + [False] * 7 + [True] + [False] * 8}
        right["bb11"] = [True] * 24 + [False] * 7 + [False] + [True] * 8
        folders = dict(zip(frame["path"], frame["digest"], strict=True))
        table = mcnemar_table(frame, "aa2", "bb1", lambda path: np.array(right[folders[path]]))
        assert column(table, "run") == ["aa22", "bb11"]
        assert (column(table, "kernel_size"), column(table, "seed")) == (["3", "5"], [1, 0])
        assert column(table, "right") == [25, 32]
        assert column(table, "alone_right") == [1, 8]
        assert column(table, "difference") == [None, 7 / 40]
        assert texts(table, "p") == ["—", "0.039"]
        assert column(table, "verdict") == ["baseline", "better"]
        assert has_note(table, "both right: 24 images, both wrong: 7")

    @pytest.mark.parametrize("alone", [(1, 1), (0, 0), (0, 5), (2, 9)])
    def test_words_claim_no_more_than_the_test(self, frame, alone):
        # Two-sided p of 5 in 5 is 2/32 = 0.0625, of 9 in 11 is 2 (1 + 11 + 55) / 2048 = 0.065: not shown.
        first, second = alone
        right = iter([[True] * first + [False] * second, [False] * first + [True] * second])
        table = mcnemar_table(frame, "aa22", "bb11", lambda path: np.array([*next(right), True, False]))
        assert column(table, "verdict")[1] == "no difference shown"

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            ("cc", "aa11", "no run has the digest 'cc'"),
            ("", "aa11", "no run has the digest ''"),
            ("aa", "bb11", "'aa' fits 2 runs"),
            ("aa1", "aa11", "both are the run aa11"),
            ("bb22", "aa11", "is failed and has no predictions"),
            ("bb11", "aa22", "different data"),
        ],
    )
    def test_refusals(self, frame, first, second, message):
        frame.loc[3, "status"] = "failed"
        frame.loc[2, "dataset_fingerprint"] = "another"
        with pytest.raises(UserError, match=message):
            mcnemar_table(frame, first, second, lambda path: np.array([True]))


def test_p_values_are_never_rounded_across_the_threshold():
    assert [p_text(p) for p in (0.04996, 0.05, 0.0504, 0.0496, 0.00049, 0.9996, math.nan)] == [
        "0.04996",
        "0.050",
        "0.050",
        "0.0496",
        "<0.001",
        "1.000",
        "—",
    ]


def test_a_thousand_runs_make_one_table(runs):
    generator = np.random.default_rng(0)
    fields = [
        {"kernel_size": k, "padding": p, "batch_size": b, "epochs": e}
        for k in ("1", "2", "3", "5", "7")
        for p in ("valid", "same")
        for b in (32, 64, 128, 256, 512)
        for e in (1, 2, 3, 4)
    ]
    frame = runs([(one, generator.normal(0.99, 0.001, 5)) for one in fields])
    table = accuracy_table(frame, baseline=parse_baseline("kernel_size=3,padding=valid,batch_size=64,epochs=4"))
    assert len(table.numbers) == 200
    assert has_note(table, "Holm-corrected for 199 comparisons")
    assert has_note(table, "1,000 runs: 1,000 done")
    # Noise alone: with 199 comparisons at 5 % nearly always nothing is shown.
    assert set(column(table, "verdict")) == {"baseline", "no difference shown"}
    assert len(to_text(table).splitlines()) > 400
