"""Evidence: the arm that is meant, its values by seed, and what is said of what was run."""

import math
import statistics

import pandas as pd
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.studies.evidence import StudyRuns, facts
from convjax.sweeps.grid import make_grid, product

SHAPE = ((28, 28, 1), 10)


def study(row, base, arms, accuracy, *, measured=None, match="", **more):
    arms = make_grid(base, arms, lambda name: SHAPE, match=match).arms
    rows = [
        row(arm.config.replace(seed=seed), accuracy(arm.config) + seed / 1000, **more)
        for arm in arms
        for seed in range(3)
    ]
    kept = {} if measured is None else {one["digest"]: {"probe": measured(one)} for one in rows}
    return StudyRuns(arms, pd.DataFrame(rows), kept)


@pytest.fixture
def plain(row):
    arms = product({"model": ["convnet", "dense"], "pixels": ["grid", "permuted"]})
    accuracy = {"convnet": 0.9, "dense": 0.8}
    return study(row, RunConfig(epochs=2), arms, lambda c: accuracy[c.model], measured=lambda one: one["seed"] * 2)


@pytest.fixture
def flops(row):
    return study(row, RunConfig(epochs=2), product({"kernel_size": ["3", "5-3-3"]}), lambda c: 0.7, match="flops")


def test_values_are_those_of_the_arm_by_seed(plain):
    found = plain.values(model="dense", pixels="permuted")
    assert found == {0: 0.8, 1: pytest.approx(0.801), 2: pytest.approx(0.802)}
    assert plain.values("seconds", model="convnet", pixels="grid") == {0: 40.0, 1: 41.0, 2: 42.0}
    assert statistics.fmean(plain.values(model="convnet", pixels="grid").values()) == pytest.approx(0.901)


def test_a_scaled_arm_is_named_by_its_own_field(flops):
    arm = flops.arm(kernel_size="5-3-3")
    assert arm.config.channels != "32-64-64"
    assert flops.values(kernel_size="5-3-3")[0] == 0.7
    assert flops.arm(channels="32-64-64").label == "kernel_size=3"


def test_an_arm_must_be_the_only_one(plain):
    with pytest.raises(UserError, match="2 arms of this study match model=dense, expected one; its arms are model="):
        plain.values(model="dense")
    with pytest.raises(UserError, match="0 arms of this study match model=local"):
        plain.values(model="local")


def test_measurements_come_by_seed(plain):
    assert plain.measured("probe", model="dense", pixels="grid") == {0: 0, 1: 2, 2: 4}
    with pytest.raises(UserError, match="other has been measured on no run of model=dense pixels=grid"):
        plain.measured("other", model="dense", pixels="grid")


def test_an_arm_without_a_finished_run_is_told(row):
    arms = [{"kernel_size": "3"}, {"kernel_size": "5-3-3"}]
    whole = study(row, RunConfig(), arms, lambda c: 0.7)
    assert not whole.unfinished()
    frame = whole.frame.copy()
    frame.loc[frame["kernel_size"] == "3", "status"] = "failed"
    assert StudyRuns(whole.arms, frame).unfinished()
    assert StudyRuns(whole.arms, whole.frame[whole.frame["kernel_size"] == "3"]).unfinished()


def test_runs_without_a_value_are_no_values(row):
    config = RunConfig()
    rows = [
        row(config, 0.9),
        row(config.replace(seed=1), math.nan, status="diverged"),
        row(config.replace(seed=2), math.nan, status="failed"),
        row(config.replace(seed=3), 0.1, status="diverged"),
    ]
    arms = make_grid(config, [{}], lambda name: SHAPE).arms
    assert StudyRuns(arms, pd.DataFrame(rows)).values() == {0: 0.9, 3: 0.1}


def test_facts_say_what_was_run(plain, flops):
    assert facts({"plain": plain, "flops": flops}) == [
        "plain: mnist, epochs=2, 4 arms, 3 seeds each, 12 of 12 runs",
        "flops: mnist, epochs=2, 2 arms, 3 seeds each, 6 of 6 runs",
    ]
    assert facts({"plain": plain}) == ["mnist, epochs=2, 4 arms, 3 seeds each, 12 of 12 runs"]
