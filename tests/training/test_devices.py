"""Several devices: one run's batches, or many runs, spread over simulated ones; the same numbers as on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.errors import UserError
from convjax.nn.layers import Dropout, TrainingInputs
from convjax.training import devices as parallel
from convjax.training.steps import image_keys

ROOT = Path(__file__).parents[2]

# 150 images in batches of 20: an epoch's last batch has 10. Neither 20 nor 10 divides by 3.
PROGRAM = """
import json, sys
import jax, numpy as np
from convjax import data
from convjax.config import RunConfig
from convjax.training import loop
from convjax.training import devices as parallel
from tests.helpers import training

dataset = data.load("mnist_5k", train_size=150, validation_size=70)
base = RunConfig(channels="3-4", dense_units="5", batch_size=20, epochs=2, dropout="0.2-0.3-0.2", augment="shift=0.1",
                 optimizer="sgd", momentum=0.9, learning_rate=0.05)
CUT = 5  # steps: in the middle of the first epoch

def fit(devices, states=None, stop=False):
    lines = []
    loop._FIRST_LOOK = CUT if stop else 20
    try:
        [state] = training.fit([base], dataset, states, devices=parallel.choose(str(devices)), should_stop=lambda: stop,
                           on_epoch=lambda index, line, state: lines.append(line))
    except loop.Interrupted as interrupted:
        [state] = interrupted.states
    return state, lines

def tell(state, lines):
    leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state.params)]
    last = lines[-1]
    means = [last.train_loss, last.train_accuracy, last.validation_loss, last.validation_accuracy]
    return {"params": leaves, "means": means, "step": int(state.step), "epochs": len(lines)}

found = {"devices": len(jax.devices())}
for devices in map(int, sys.argv[1].split(",")):
    found[str(devices)] = tell(*fit(devices))
# Interrupted on 3 devices within an epoch, resumed on 2.
state, _ = fit(3, stop=True)
found["cut"] = int(state.step)
found["resumed"] = tell(*fit(2, [state]))
print("FOUND", json.dumps(found))
"""


def simulate(program, *arguments, devices=8, more="--xla_backend_optimization_level=0"):
    flags = f"--xla_force_host_platform_device_count={devices} {more}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="module")
def found():
    return simulate(PROGRAM, "1,2,3", devices=3)


@pytest.mark.parametrize("devices", ["2", "3", "resumed"])
def test_any_number_of_devices_trains_the_same_run(devices, found):
    """Dropout, augmentation, the short batch, the means and the validation included."""
    one, other = found["1"], found[devices]
    assert one["step"] == other["step"] == 16
    assert found["cut"] == 5
    for a, b in zip(one["params"], other["params"], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert other["means"] == pytest.approx(one["means"], abs=1e-5)


RUNS = """
import json, sys
import jax, numpy as np
from convjax import data
from convjax.config import RunConfig
from convjax.training import loop
from convjax.training import devices as parallel
from tests.helpers import training

base = RunConfig(channels="4-6", dense_units="8", epochs=2)
arms = [{}, {"learning_rate": 3e-3}, {"seed": 7}, {"learning_rate": 1e30}, {"seed": 4}]
configs = [base.replace(dropout="0.2", train_size=200, **arm) for arm in arms]
dataset = data.load("mnist_5k", train_size=200)

def leaves(state):
    # repr: NaN is not equal to itself
    return [repr(np.asarray(leaf).tolist()) for leaf in jax.tree.leaves(state)] if not loop.diverged(state) else []

def together(devices, stops=()):
    loop._FIRST_LOOK = 3
    lines = [[] for _ in configs]
    def on_epoch(index, line, state):
        lines[index].append([line.epoch, line.step, line.train_loss, line.train_accuracy])
    states = None
    for stop in [*stops, False]:
        try:
            states = training.fit(configs, dataset, states, devices=parallel.choose(str(devices), runs=len(configs)),
                              on_epoch=on_epoch, should_stop=lambda: stop)
        except loop.Interrupted as interrupted:
            states = interrupted.states
    return [leaves(state) for state in states], lines

found = {"serial": [[], []]}
for config in configs:
    lines = []
    [state] = training.fit([config], dataset, on_epoch=lambda index, line, state:
                       lines.append([line.epoch, line.step, line.train_loss, line.train_accuracy]))
    found["serial"][0].append(leaves(state))
    found["serial"][1].append(lines)
for devices in sys.argv[1].split(","):
    found[devices] = together(int(devices))
found["interrupted"] = together(2, stops=[True, True])
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs():
    return simulate(RUNS, "1,2", devices=2, more="")


@pytest.mark.parametrize("how", ["1", "2", "interrupted"])
def test_replicas_are_the_serial_runs(how, runs):
    """Replicas of several seeds and learning rates, one of which diverges."""
    parameters, lines = runs[how]
    assert lines == runs["serial"][1]
    assert parameters == runs["serial"][0]
    assert [bool(each) for each in parameters] == [True, True, True, False, True]


@pytest.mark.slow
def test_a_device_for_each_replica_gives_the_serial_runs():
    """XLA then drops the replicas' axis and may round differently."""
    runs = simulate(RUNS, "8", more="")
    parameters, lines = runs["8"]
    for ours, alone in zip(lines, runs["serial"][1], strict=True):
        assert np.array(ours) == pytest.approx(np.array(alone), rel=1e-5)
    assert [bool(each) for each in parameters] == [True, True, True, False, True]


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.37])
def test_dropout_draws_for_each_image(rate):
    """The share that is kept, its scale, and that a part of a batch draws what the whole batch would."""
    keys = image_keys(jax.random.key(2), jnp.int32(5), 60)
    x = jax.random.uniform(jax.random.key(1), (60, 20, 3), minval=1.0)

    def drop(x, keys):
        return Dropout(rate, name="dropout_1").apply({}, x, TrainingInputs(keys, jnp.ones(len(x))))

    dropped = np.asarray(drop(x, keys))
    kept = dropped != 0
    assert kept.mean() == pytest.approx(1 - rate, abs=4 * np.sqrt(rate * (1 - rate) / kept.size))
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)
    assert len({image.tobytes() for image in kept}) == 60
    np.testing.assert_array_equal(dropped, np.concatenate([drop(x[:7], keys[:7]), drop(x[7:], keys[7:])]))
    other = Dropout(rate, name="dropout_2").apply({}, x, TrainingInputs(keys, jnp.ones(60)))
    assert not np.array_equal(other != 0, kept)


@pytest.mark.parametrize(("wanted", "says"), [("many", "all, auto"), ("0", "all, auto"), ("64", "device_count=64")])
def test_devices_that_are_not_there_are_the_users_error(wanted, says):
    with pytest.raises(UserError, match=says):
        parallel.choose(wanted)


def test_on_cpu_the_default_is_one_device():
    assert parallel.choose() == parallel.choose("1") == parallel.choose(runs=5) == parallel.ONE
