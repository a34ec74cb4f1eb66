"""Grids: products, impossible arms, matching of parameters and FLOPs."""

import itertools

import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import plan, total_flops, total_parameters
from convjax.sweeps.grid import make_grid, product, program_of

SHAPES = {"mnist": ((28, 28, 1), 10)}
info = SHAPES.__getitem__


def test_product_has_every_combination_the_last_axis_fastest():
    arms = product({"kernel_size": ["1", "3"], "padding": ["valid", "same"]})
    assert [tuple(arm.values()) for arm in arms] == list(itertools.product(["1", "3"], ["valid", "same"]))


def test_arms_carry_label_config_and_cost():
    grid = make_grid(RunConfig(seed=7), product({"kernel_size": ["3", "5-3-3"]}), info)
    assert [arm.label for arm in grid.arms] == ["kernel_size=3", "kernel_size=5-3-3"]
    first = grid.arms[0]
    assert (first.parameters, first.flops) == (93_322, 5_588_480)
    assert first.config.seed == 0
    assert [config.seed for config in first.runs([2, 3])] == [2, 3]


def test_equal_configurations_are_one_arm():
    grid = make_grid(RunConfig(), product({"kernel_size": ["3", "3x3", "3-3-3", "4"]}), info)
    assert [arm.label for arm in grid.arms] == ["kernel_size=3", "kernel_size=4"]


def test_impossible_arms_are_listed_with_their_reason_and_refused():
    grid = make_grid(RunConfig(), product({"kernel_size": ["3", "5", "x"]}), info)
    assert [arm.label for arm in grid.arms] == ["kernel_size=3"]
    assert [arm.label for arm in grid.invalid] == ["kernel_size=5", "kernel_size=x"]
    assert "conv2d_3" in grid.invalid[0].reason
    with pytest.raises(UserError, match=r"2 of 3 arms are impossible .*--skip_invalid.*conv2d_3"):
        grid.require_valid()


@pytest.mark.parametrize("bad", [[], [{"seed": "1"}], [{"kernelsize": "3"}]])
def test_bad_axes_are_refused(bad):
    with pytest.raises(UserError):
        make_grid(RunConfig(), bad, info)


@pytest.mark.parametrize(("match", "measure"), [("params", total_parameters), ("flops", total_flops)])
def test_match_makes_arms_comparable(match, measure):
    base = RunConfig(padding="same")
    arms = product({"kernel_size": ["1", "3", "5", "7"]})
    grid = make_grid(base, arms, info, match=match, baseline={"kernel_size": "3"})
    assert grid.baseline == {"kernel_size": "3"}
    target = measure(plan(base, *info("mnist")))
    for arm in grid.arms:
        assert measure(plan(arm.config, *info("mnist"))) == pytest.approx(target, rel=0.04), arm.label
    # The reference itself stays as it is.
    assert grid.arms[1].config.channels == "32-64-64"


def test_match_is_the_nearest_of_all_scalings():
    """Against brute force over every factor in steps of 1/1000."""
    base = RunConfig(padding="same")
    grid = make_grid(base, [{"kernel_size": "3"}, {"kernel_size": "5"}], info, match="params")
    target = 257_162
    assert grid.arms[0].parameters == target

    def count(factor):
        channels = "-".join(str(max(1, round(c * factor))) for c in (32, 64, 64))
        return total_parameters(plan(base.replace(kernel_size="5", channels=channels), *info("mnist")))

    best = min(abs(count(factor / 1000) - target) for factor in range(1, 1500))
    assert abs(grid.arms[1].parameters - target) == best


def test_a_dense_net_is_matched_by_its_units():
    arms = [{"model": "convnet"}, {"model": "dense"}]
    by_params, by_flops = (make_grid(RunConfig(), arms, info, match=match).arms[1] for match in ("params", "flops"))
    # 785 n + 10 (n + 1) parameters nearest to 93,322, and 2 (784 n + 10 n) FLOPs nearest to 5,588,480.
    assert by_params.config.dense_units == str(round((93_322 - 10) / 795)) == "117"
    assert by_flops.config.dense_units == str(round(5_588_480 / 1588)) == "3519"
    assert by_params.label == "model=dense"


def test_an_arm_with_another_network_takes_from_the_base_what_that_has():
    base = RunConfig(channels="4-6", kernel_size="5", conv="xla", epochs=3)
    convnet, dense, local = make_grid(base, product({"model": ["convnet", "dense", "local"]}), info).arms
    assert convnet.config == base
    assert dense.config == RunConfig(model="dense", epochs=3)
    assert local.config == RunConfig(model="local", channels="4-6", kernel_size="5", epochs=3)
    # Hidden units that are not the base network's default apply to every network.
    assert make_grid(base.replace(dense_units="9"), [{"model": "dense"}], info).arms[0].config.dense_units == "9"
    # A field that the arm sets itself must have an effect.
    assert make_grid(base, [{"model": "dense", "channels": "4"}], info).invalid


def test_runs_that_differ_only_in_seed_and_learning_rate_have_one_program():
    base = RunConfig(dropout="0.5")
    for same in ({"seed": 3}, {"learning_rate": 0.1}, {"seed": 3, "learning_rate": 0.1}):
        assert program_of(base.replace(**same)) == program_of(base), same
    for other in (
        {"dropout": "0.2"},
        {"dropout": "0"},
        {"dropout": "0.5-0-0.5-0"},
        {"train_size": 100},
        {"batch_size": 32},
        {"epochs": 1},
        {"optimizer": "sgd"},
    ):
        assert program_of(base.replace(**other)) != program_of(base), other


def test_the_baseline_is_in_canonical_notation_and_otherwise_the_first_possible_arm():
    def baseline(*kernels):
        return make_grid(RunConfig(), product({"kernel_size": kernels}), info, baseline={"kernel_size": "3"}).baseline

    assert baseline("2", "3x3") == {"kernel_size": "3"}
    assert baseline("30", "2x2", "1") == {"kernel_size": "2"}
