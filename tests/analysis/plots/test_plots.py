"""The figures: the numbers that are drawn, where labels go, and what the files hold."""

import colorsys
import html.parser
import itertools
import math
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox
from scipy import stats

from convjax.analysis.arms import group_runs
from convjax.analysis.comparisons import compare_arms, find_baselines
from convjax.analysis.curves import arm_curve, mean_curve, read_lines
from convjax.analysis.plots.accuracy import accuracy_plot, heat_map
from convjax.analysis.plots.cost import cost_plot, pareto_front, place_labels, varying_costs
from convjax.analysis.plots.curves import MOST_CHARTS, MOST_LINES, learning_curves, run_curves
from convjax.analysis.plots.parts import near_range, tick_number
from convjax.analysis.plots.theme import DARK, LIGHT, PAGE, drawable, save, to_page_svg
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps import Run, read_runs

KERNELS = [
    ({"kernel_size": "1"}, [0.951, 0.955, 0.953, 0.954, 0.952]),
    ({"kernel_size": "3"}, [0.980, 0.984, 0.982, 0.981, 0.983]),
    ({"kernel_size": "4"}, [0.981, 0.983, 0.980, 0.984, 0.985]),
    ({"kernel_size": "2-3-3"}, [0.990, 0.993, 0.992, 0.991]),
]


def lines_of(figure, gid):
    """Data `[points, 2]` of every line with this mark, in the order of drawing."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]
    return [np.column_stack(line.get_data()).astype(float) for line in lines]


def texts_of(figure, gid):
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == gid]


def compared(frame, baseline, by=None):
    arms = group_runs(frame, by)
    return arms, compare_arms(arms, find_baselines(arms, baseline))


class TestAccuracyPlot:
    def test_every_seed_mean_and_interval_is_where_the_runs_say(self, runs):
        arms, comparisons = compared(runs(KERNELS), {"kernel_size": "3"})
        figure = accuracy_plot(arms, comparisons)
        # Rows go down in natural order: 1, 3, 4, then 2-3-3.
        expected = [100 * np.array(values) for _, values in KERNELS]
        dots, means, bars = (lines_of(figure, gid) for gid in ("seeds", "mean", "interval"))
        for values, dot, mean, bar in zip(expected, dots, means, bars, strict=True):
            np.testing.assert_allclose(dot[:, 0], values)
            np.testing.assert_allclose(mean[0, 0], values.mean())
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            np.testing.assert_allclose(bar[:, 0], [low, high])
        rows = [mean[0, 1] for mean in means]
        assert rows == sorted(rows)
        assert figure.axes[0].yaxis_inverted()
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert [label.split("\n")[0] for label in labels] == ["1", "3", "4", "2-3-3"]

    def test_the_baseline_is_a_line_through_all_rows(self, runs):
        arms, comparisons = compared(runs(KERNELS), {"kernel_size": "3"})
        figure = accuracy_plot(arms, comparisons)
        [line] = lines_of(figure, "baseline")
        np.testing.assert_allclose(line[:, 0], 98.2)
        assert sorted(line[:, 1]) == sorted(figure.axes[0].get_ylim())

    def test_arms_with_baselines_of_their_own_have_lines_of_their_own(self, runs):
        values = {"valid": [0.97, 0.972, 0.971], "same": [0.98, 0.982, 0.981]}
        grid = [
            ({"kernel_size": kernel, "padding": padding}, [value + shift for value in values[padding]])
            for kernel, shift in (("1", -0.01), ("3", 0.0))
            for padding in ("same", "valid")
        ]
        figure = accuracy_plot(*compared(runs(grid), {"kernel_size": "3"}))
        at = [line[0, 0] for line in lines_of(figure, "baseline")]
        np.testing.assert_allclose(at, [98.1, 97.1, 98.1, 97.1])

    def test_marks_tell_what_is_shown(self, runs):
        figure = accuracy_plot(*compared(runs(KERNELS), {"kernel_size": "3"}))
        marks = [line.get_marker() for line in figure.axes[0].lines if line.get_gid() == "mean"]
        assert marks == ["v", "D", "o", "^"]
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend[:4] == ["worse", "baseline", "no difference shown", "better"]

    def test_runs_that_did_not_go_well_are_written_at_their_arm(self, runs, row):
        frame = runs(KERNELS[:2])
        failed = row(RunConfig(kernel_size="4", seed=0), status="failed", reason="boom", test_accuracy=math.nan)
        more = [failed, row(RunConfig(kernel_size="3", seed=9), status="failed", reason="boom")]
        figure = accuracy_plot(group_runs(pd.concat([frame, pd.DataFrame(more)])))
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == ["1", "3\n1 failed", "4\n1 failed"]
        assert [text.get_text() for text in figure.axes[0].texts] == ["no result"]

    def test_values_far_away_are_written_at_the_edge(self, runs, row):
        frame = runs(KERNELS)
        config = RunConfig(kernel_size="4", seed=5)
        frame = pd.concat([frame, pd.DataFrame([row(config, 0.098, status="diverged", reason="nan")])])
        figure = accuracy_plot(group_runs(frame))
        low, high = figure.axes[0].get_xlim()
        assert 90 < low < 95.1
        assert 99.3 < high < 101
        mean = 100 * np.mean([*KERNELS[2][1], 0.098])
        assert texts_of(figure, "off-scale") == [f"\N{BLACK LEFT-POINTING TRIANGLE} mean {mean:.2f}, 1 seed at 9.80"]

    def test_one_seed_has_no_interval(self, runs):
        figure = accuracy_plot(group_runs(runs([(fields, values[:1]) for fields, values in KERNELS])))
        assert lines_of(figure, "interval") == []
        assert len(lines_of(figure, "mean")) == 4

    def test_long_names_are_wrapped_and_inside_the_figure(self, runs):
        channels = ["-".join(str(width) for _ in range(8)) for width in (101, 202)]
        arms = group_runs(
            runs([({"channels": c, "activation": a, "padding": "same", "pool": "none"}, [0.9, 0.91])
                  for c in channels for a in ("leaky_relu", "softplus")])
        )  # fmt: skip
        figure = accuracy_plot(arms)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert min(box.x0 for box in boxes) >= 0
        assert axes.get_window_extent().width > 0.4 * figure.bbox.width
        for upper, lower in itertools.pairwise(boxes):
            assert lower.y1 <= upper.y0 + 1


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=20).map(sorted),
)
def test_near_range_keeps_two_thirds_and_never_moves_an_end_for_nothing(values):
    low, high = near_range(values)
    kept = [value for value in values if low <= value <= high]
    assert len(kept) > 2 / 3 * len(values) or len(kept) == len(values)
    if (low, high) != (values[0], values[-1]):
        assert high - low < 0.15 * (values[-1] - values[0]) + 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e6, "2 M"), (10e6, "10 M"), (93_322, "93.3 k"), (1_500_000, "1.5 M"), (200.0, "200"), (2.5, "2.5"), (40, "40")],
)
def test_tick_numbers(value, text):
    assert tick_number(value) == text


class TestHeatMap:
    @pytest.fixture
    def grid(self, runs):
        def make(**more):
            return runs(
                [
                    ({"kernel_size": kernel, "padding": padding, **more}, [base, base + 0.002, base + 0.001])
                    for kernel, row in (("1", (0.95, 0.96)), ("3", (0.97, 0.98)), ("2-3-3", (0.985, 0.99)))
                    for padding, base in zip(("valid", "same"), row, strict=True)
                ]
            )

        return make

    def test_cells_hold_the_means(self, grid):
        figure = heat_map(group_runs(grid()), "kernel_size", "padding")
        [axes] = figure.axes
        # Natural order: rows 1, 3, 2-3-3; columns same, valid.
        expected = np.array([[0.961, 0.951], [0.981, 0.971], [0.991, 0.986]])
        np.testing.assert_allclose(np.asarray(axes.collections[0].get_array()).reshape(3, 2), expected)
        half = stats.t.ppf(0.975, 2) * 0.001 / math.sqrt(3)
        assert texts_of(figure, "cell") == [f"{100 * m:.2f}\n\u00b1 {100 * half:.2f}" for m in expected.ravel()]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "3", "2-3-3"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["same", "valid"]

    def test_holes_say_why(self, grid, row):
        frame = grid()
        frame = frame[~((frame["kernel_size"] == "3") & (frame["padding"] == "valid"))]
        lost = (frame["kernel_size"] == "1") & (frame["padding"] == "same")
        frame.loc[lost, "status"] = "failed"
        figure = heat_map(group_runs(frame), "kernel_size", "padding")
        cells = texts_of(figure, "cell")
        assert cells[0] == "no result"
        assert cells[3] == "no run"

    def test_a_third_field_makes_a_map_of_each_of_its_values(self, grid):
        frame = pd.concat([grid(), grid(pool="avg")])
        figure = heat_map(group_runs(frame), "kernel_size", "padding")
        assert [axes.get_title("left") for axes in figure.axes] == ["pool=avg", "pool=max"]
        first, second = (axes.collections[0].norm for axes in figure.axes)
        assert (first.vmin, first.vmax) == (second.vmin, second.vmax)

    def test_chance_is_not_a_pattern(self, runs):
        wide = [0.90, 0.98]
        frame = runs(
            [
                ({"kernel_size": kernel, "padding": padding}, [value + shift for value in wide])
                for shift, (kernel, padding) in zip(
                    (0, 0.001, 0.002, 0.003), itertools.product(("1", "3"), ("same", "valid")), strict=True
                )
            ]
        )
        [axes] = heat_map(group_runs(frame), "kernel_size", "padding").axes
        norm = axes.collections[0].norm
        half = stats.t.ppf(0.975, 1) * np.std(wide, ddof=1) / math.sqrt(2)
        assert norm.vmax - norm.vmin >= 4 * half - 1e-9

    def test_refuses_other_fields_and_too_many_maps(self, runs, grid):
        with pytest.raises(UserError, match="not grouped by stride"):
            heat_map(group_runs(grid()), "kernel_size", "stride")
        frame = pd.concat([grid(batch_size=size) for size in range(1, 12)])
        with pytest.raises(UserError, match="11 heat maps"):
            heat_map(group_runs(frame), "kernel_size", "padding")


def metrics(epochs, train, validation=None):
    lines = []
    for epoch, value in zip(range(1, epochs + 1), train, strict=True):
        line = {"epoch": epoch, "step": 10 * epoch, "train_loss": 1 - value, "train_accuracy": value}
        if validation is not None:
            line |= {"validation_loss": 1.1 - value, "validation_accuracy": validation[epoch - 1]}
        lines.append(line)
    return lines


class TestCurves:
    def test_mean_and_extremes_by_epoch(self):
        lines = {0: metrics(3, [0.5, 0.7, 0.9]), 1: metrics(3, [0.7, 0.9, 0.8])}
        curve = arm_curve(lines, "train_accuracy")
        assert curve.index.tolist() == [1, 2, 3]
        np.testing.assert_allclose(mean_curve(curve), [0.6, 0.8, 0.85])
        np.testing.assert_allclose(curve, [[0.5, 0.7], [0.7, 0.9], [0.9, 0.8]])
        assert arm_curve(lines, "validation_accuracy").empty

    def test_a_seed_that_stopped_ends_the_mean(self):
        curve = arm_curve({0: metrics(3, [0.5, 0.7, 0.9]), 1: metrics(1, [0.1]), 2: []}, "train_accuracy")
        np.testing.assert_allclose(mean_curve(curve), [0.3, np.nan, np.nan])
        assert curve.columns.tolist() == [0, 1]
        np.testing.assert_allclose(curve, [[0.5, 0.1], [0.7, np.nan], [0.9, np.nan]])

    def test_drawn_as_they_are(self, runs):
        arms = group_runs(runs([(fields, values[:2]) for fields, values in KERNELS[:2]]))
        lines = [
            {0: metrics(2, [0.5, 0.7], [0.6, 0.8]), 1: metrics(2, [0.7, 0.9], [0.6, 0.8])},
            {0: metrics(2, [0.6, 0.8], [0.7, 0.9]), 1: metrics(1, [0.4], [0.5])},
        ]
        figure = learning_curves(arms, lines, "accuracy")
        curves = lines_of(figure, "curve")
        np.testing.assert_allclose(curves[0], [[1, 60], [2, 80]])
        np.testing.assert_allclose(curves[1], [[1, 60], [2, 80]])
        np.testing.assert_allclose(curves[2], [[1, 50], [2, np.nan]])
        np.testing.assert_allclose(lines_of(figure, "stopped"), [[[1, 40]], [[1, 50]]])
        styles = [line.get_linestyle() for line in figure.axes[0].lines if line.get_gid() == "curve"]
        assert styles == ["-", "--", "-", "--"]
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["1", "3", "training", "validation"]

    def test_the_legend_lies_beside_the_data(self, runs):
        arms = group_runs(runs(KERNELS))
        figure = learning_curves(arms, [{0: metrics(2, [0.5, 0.7])}] * 4, "loss")
        figure.draw_without_rendering()
        assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())

    def test_many_arms_have_a_small_chart_each(self, runs):
        count = MOST_LINES + 1
        arms = group_runs(runs([({"batch_size": size}, [0.9, 0.91]) for size in range(1, count + 1)]))
        lines = [{0: metrics(2, [0.5, 0.7 + 0.01 * index])} for index in range(count)]
        figure = learning_curves(arms, lines, "accuracy")
        assert [axes.get_title("left") for axes in figure.axes] == [str(size) for size in range(1, count + 1)]
        ends = [curve[-1, 1] for curve in lines_of(figure, "curve")]
        np.testing.assert_allclose(ends, [70 + index for index in range(count)])

    def test_of_very_many_arms_the_best_have_charts(self, runs):
        count = MOST_CHARTS + 5
        arms = group_runs(runs([({"batch_size": size}, [0.5 + size % 7 / 100]) for size in range(1, count + 1)]))
        figure = learning_curves(arms, [{0: metrics(2, [0.5, 0.7])}] * count, "loss")
        best = sorted(range(1, count + 1), key=lambda size: (-(size % 7), size))[:MOST_CHARTS]
        assert [axes.get_title("left") for axes in figure.axes] == [str(size) for size in sorted(best)]
        assert f"best {MOST_CHARTS} of {count} arms" in " ".join(figure.get_suptitle().split())

    def test_without_metrics_there_is_nothing_to_draw(self, runs):
        with pytest.raises(UserError, match="no run has metrics"):
            learning_curves(group_runs(runs(KERNELS[:1])), [{0: []}], "loss")

    def test_a_single_run(self):
        figure = run_curves(metrics(3, [0.5, 0.7, 0.9], [0.6, 0.7, 0.8]), "one run")
        train_loss, validation_loss, train, validation = lines_of(figure, "curve")
        np.testing.assert_allclose(train[:, 1], [50, 70, 90])
        np.testing.assert_allclose(validation[:, 1], [60, 70, 80])
        np.testing.assert_allclose(train_loss[:, 1], [0.5, 0.3, 0.1])
        np.testing.assert_allclose(validation_loss[:, 1], [0.6, 0.4, 0.2])
        assert run_curves([], "no epoch was finished").axes

    def test_read_from_the_folders_of_the_runs_that_count(self, tmp_path):
        for kernel, seed in itertools.product(("1", "3"), (0, 1)):
            config = RunConfig(kernel_size=kernel, seed=seed)
            run = Run.of(tmp_path, "kernels", config)
            run.path.mkdir(parents=True)
            run.start(config, {})
            for line in metrics(2, [0.1 * int(kernel), 0.2 + 0.1 * seed]):
                run.add_metrics({**line, "seconds": 1.0})
            if (kernel, seed) != ("3", 1):
                result = {
                    "status": "done",
                    "seconds": {"total": 1.0},
                    "test_accuracy": 0.9,
                    "parameters": 1,
                    "flops": 2,
                }
                run.finish({**result, "dataset_fingerprint": "f"}, np.zeros(1), np.zeros(1))
        arms = group_runs(read_runs([tmp_path]))
        assert [sorted(arm.paths) for arm in arms.arms] == [[0, 1], [0]]
        assert [sorted(arm.paths) for arm in arms.arms] == [sorted(arm.values) for arm in arms.arms]
        curves = [arm_curve(by_seed, "train_accuracy") for by_seed in read_lines(arms)]
        np.testing.assert_allclose(mean_curve(curves[0]), [0.1, 0.25])
        np.testing.assert_allclose(mean_curve(curves[1]), [0.3, 0.2])


def beaten(costs, values, index):
    """Whether another point is as good in both and better in one, looked at one by one."""
    return any(
        costs[other] <= costs[index]
        and values[other] >= values[index]
        and (costs[other] < costs[index] or values[other] > values[index])
        for other in range(len(costs))
    )


small = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(small, small), max_size=12), st.booleans())
def test_pareto_front_against_brute_force(points, lower):
    costs, values = [cost for cost, _ in points], [value for _, value in points]
    front = pareto_front(costs, values, lower_is_better=lower)
    gains = [-value if lower else value for value in values]
    assert sorted(front) == [index for index in range(len(points)) if not beaten(costs, gains, index)]
    assert [costs[index] for index in front] == sorted(costs[index] for index in front)


def test_pareto_front_leaves_out_what_is_not_known():
    assert pareto_front([1, math.nan, 2], [0.5, 0.9, math.nan]) == [0]


class TestCostPlot:
    @pytest.fixture
    def arms(self, runs):
        parameters = {"1": 10_000, "3": 40_000, "4": 90_000, "2-3-3": 35_000}
        frame = runs(KERNELS)
        frame["parameters"] = frame["kernel_size"].map(parameters)
        frame["flops"] = 100 * frame["parameters"]
        frame["seconds"] = 40.0
        return group_runs(frame)

    def test_points_and_front(self, arms):
        for cost, factor in (("parameters", 1), ("flops", 100)):
            [axes] = cost_plot(arms, cost).axes
            points = {
                line.get_gid(): (line.get_xdata()[0], line.get_ydata()[0])
                for line in axes.lines
                if str(line.get_gid()).startswith("mean")
            }
            for index, arm in enumerate(arms.arms):
                expected = (arm.parameters * factor, 100 * np.mean(list(arm.values.values())))
                np.testing.assert_allclose(points[f"mean-{index}"], expected)
            [front] = [line for line in axes.lines if line.get_gid() == "front"]
            np.testing.assert_allclose(front.get_xdata(), np.array([10_000, 35_000]) * factor)
            np.testing.assert_allclose(front.get_ydata(), [95.3, 99.15])
            assert axes.get_xscale() == "log"

    def test_labels_cover_neither_each_other_nor_points(self, arms):
        figure = cost_plot(arms, "parameters")
        figure.draw_without_rendering()
        [axes] = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts]
        assert sorted(text.get_text() for text in axes.texts) == ["1", "2-3-3", "3", "4"]
        for first, second in itertools.combinations(boxes, 2):
            assert not first.overlaps(second)
        points = axes.transData.transform([mean[0] for i in range(4) for mean in lines_of(figure, f"mean-{i}")])
        for box, point in itertools.product(boxes, points):
            assert not box.contains(*point)

    def test_in_a_crowd_only_the_front_is_labeled(self, runs):
        frame = runs(
            [
                ({"batch_size": 10**7 + size, "activation": "leaky_relu"}, [0.9 - 0.001 * size, 0.91 - 0.001 * size])
                for size in range(60)
            ]
        )
        frame["parameters"] = 1000 + frame["batch_size"] % 100 * 10
        figure = cost_plot(group_runs(frame), "parameters")
        assert [text.get_text() for text in figure.axes[0].texts] == ["10000000"]

    def test_costs_that_do_not_differ_are_no_axis(self, arms, runs):
        assert varying_costs(arms) == ["parameters", "flops"]
        assert varying_costs(group_runs(runs(KERNELS))) == []


FRAME = Bbox([[0, 0], [400, 300]])


class TestPlacement:
    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(st.floats(0, 400), st.floats(0, 300), st.floats(5, 120), st.floats(5, 30)), min_size=1, max_size=8
        )
    )
    @example([(0.0, 0.0, 62.0, 23.0), (0.0, 0.0, 118.0, 26.0), (0.0, 0.0, 64.0, 5.0)])
    def test_labels_stay_inside(self, given):
        anchors, sizes = [(x, y) for x, y, _, _ in given], [(w, h) for _, _, w, h in given]
        for box, size in zip(place_labels(anchors, sizes, FRAME), sizes, strict=True):
            np.testing.assert_allclose((box.width, box.height), size)
            assert box.x0 >= -1e-6
            assert box.x1 <= 400 + 1e-6
            assert box.y0 >= -1e-6
            assert box.y1 <= 300 + 1e-6

    def test_neighbors_get_out_of_each_other_s_way(self):
        anchors = [(200 + 3 * index, 150.0) for index in range(5)]
        boxes = place_labels(anchors, [(60, 14)] * 5, FRAME)
        for first, second in itertools.combinations(boxes, 2):
            assert min(first.x1, second.x1) - max(first.x0, second.x0) <= 1e-6 or (
                min(first.y1, second.y1) - max(first.y0, second.y0) <= 1e-6
            )
        for box, point in itertools.product(boxes, anchors):
            assert not box.fully_contains(*point)

    def test_alone_a_label_stands_next_to_its_point(self):
        [box] = place_labels([(200, 150)], [(40, 14)], FRAME)
        np.testing.assert_allclose(box.bounds, (200 + 7, 150 - 7, 40, 14))
        assert place_labels([], [], FRAME) == []


def luminance(color):
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.array(linear) @ [0.2126, 0.7152, 0.0722], np.array(linear)


def contrast(first, second):
    low, high = sorted((luminance(first)[0], luminance(second)[0]))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes 2009, table 1, severity 1.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def cielab(linear):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(
        linear, 0, 1
    )
    scaled = xyz / [0.9505, 1.0, 1.089]
    root = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
class TestColors:
    def test_text_and_marks_stand_out(self, theme):
        assert all(contrast(color, theme.paper) >= 4.5 for color in (theme.ink, theme.muted, theme.good, theme.bad))
        assert all(contrast(color, theme.paper) >= 3 for color in theme.series)

    @pytest.mark.parametrize("sight", SIGHT)
    def test_series_can_be_told_apart(self, theme, sight):
        seen = [cielab(np.asarray(SIGHT[sight]) @ luminance(color)[1]) for color in theme.series]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 28


class TestFiles:
    @pytest.fixture
    def figure(self, runs):
        def make(theme="light", **fields):
            return accuracy_plot(group_runs(runs([({**f, **fields}, v) for f, v in KERNELS])), theme=theme)

        return make

    @pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
    def test_same_runs_same_bytes(self, figure, tmp_path, name):
        first = save(figure(), tmp_path / "a" / name).read_bytes()
        with matplotlib.rc_context(
            {"font.size": 30, "svg.fonttype": "path", "savefig.bbox": "tight", "xtick.color": "red"}
        ):
            second = save(figure(), tmp_path / "b" / name).read_bytes()
        assert first == second
        assert first.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
        assert [path.name for path in (tmp_path / "a").iterdir()] == [name]

    def test_another_ending_is_refused(self, figure, tmp_path):
        with pytest.raises(UserError, match=r"\.png or \.svg"):
            save(figure(), tmp_path / "plot.jpg")
        with pytest.raises(UserError, match="light, dark, page"):
            figure("sepia")

    def test_themes_color_the_background(self, figure):
        assert to_hex(figure("light").get_facecolor()) == LIGHT.paper
        assert to_hex(figure("dark").get_facecolor()) == DARK.paper
        assert figure("page").get_facecolor()[3] == 0

    def test_settings_are_put_back(self, figure, tmp_path):
        before = dict(matplotlib.rcParams)
        save(figure("dark"), tmp_path / "plot.svg")
        assert dict(matplotlib.rcParams) == before

    def test_pyplot_is_not_used(self):
        code = (
            "import sys, convjax.analysis.report.report, convjax.analysis.plots.run\n"
            "print('matplotlib.pyplot' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

    def test_svg_for_a_page(self, figure):
        svg = to_page_svg(figure("page", dataset="a<b & $c$"), "means", title="<Means>", description='say "hi" & go')
        assert "http" not in svg
        assert "<style" not in svg
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert all(name.startswith("means-") for name in ids)
        references = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
        assert references
        assert set(references) <= set(ids)
        assert "a&lt;b &amp; $c$" in svg
        assert '<title id="means-title">&lt;Means&gt;</title>' in svg
        assert "say &quot;hi&quot; &amp; go" in svg
        # Every color is the page's, and none of the codes that stand for them is left.
        assert "var(--ink)" in svg
        assert not set(re.findall(r"#[0-9a-f]{6}\b", svg))
        assert not any(code in svg for code in PAGE.roles().values())
        parser = html.parser.HTMLParser()
        parser.feed(svg)

    def test_numbers_in_labels_keep_their_digits(self, runs):
        arms = group_runs(runs([({"learning_rate": rate}, [0.9, 0.91]) for rate in (0.00012, 0.00034)]))
        svg = to_page_svg(accuracy_plot(arms, theme="page"), "x", title="t", description="d")
        assert ">0.00012</text>" in svg

    def test_signs_that_the_font_lacks(self):
        assert drawable("a\nb \u304a") == "a b \N{REPLACEMENT CHARACTER}"
        assert drawable("kernel_size=3 \u00b1") == "kernel_size=3 \u00b1"


def test_palettes_are_colors():
    for theme in (LIGHT, DARK, PAGE):
        codes = list(theme.roles().values())
        assert len(codes) == len(set(codes))
        for code in codes:
            assert re.fullmatch("#[0-9a-f]{6}", code)
    # The two palettes give every role the same job: dark on light, light on dark.
    value = {theme: colorsys.rgb_to_hsv(*luminance(theme.ink)[1])[2] for theme in (LIGHT, DARK)}
    assert value[LIGHT] < 0.2 < 0.6 < value[DARK]
