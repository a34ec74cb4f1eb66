"""A loss that is not finite: which step it was, what is said of it, and the operation it came from."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.sweeps.frame import read_run
from convjax.sweeps.options import Options
from convjax.sweeps.run import Reporter, execute
from convjax.sweeps.store import Run
from convjax.training import loop
from convjax.training.divergence import first_nonfinite
from convjax.training.steps import Task, epoch_order, initial_state, make_keys, take_batch, train_step
from tests.helpers.training import fit

# A network of which every step is finite until the weights overflow float32 in the third.
DIVERGES = RunConfig(
    dataset="mnist_5k", train_size=200, model="dense", dense_units="8", epochs=3, optimizer="sgd", learning_rate=1e12
)


@pytest.fixture(scope="module")
def dataset():
    from convjax import data

    return data.load("mnist_5k", train_size=200)


def divergences_of(configs, dataset, **changes):
    found = {}
    states = fit(configs, dataset, on_divergence=found.__setitem__, **changes)
    return found, states


def test_the_step_is_named_as_stepping_by_hand_finds_it(dataset, monkeypatch):
    found, [state] = divergences_of([DIVERGES], dataset)
    task = Task.of(DIVERGES, dataset.image_shape, dataset.num_classes, 200)
    step = jax.jit(functools.partial(train_step, task=task))
    keys, by_hand = make_keys(0), initial_state(DIVERGES, task)
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    for number in range(1, 13):
        order = epoch_order(keys.shuffle, (number - 1) // 4, examples=200, batch_size=64)
        batch = take_batch(images, labels, order[(number - 1) % 4])
        before = by_hand
        by_hand, sums = step(by_hand, batch, keys)
        if not math.isfinite(sums.loss):
            break
    assert (found[0].step, int(state.step)) == (number, number)
    assert number > 2, "the example is to diverge after some sound steps"
    assert found[0].learning_rate == pytest.approx(1e12)
    for layer, norm in found[0].weight_norms.items():
        flat = np.concatenate([np.ravel(array) for array in jax.tree.leaves(before.params[layer])])
        assert norm == pytest.approx(np.linalg.norm(flat.astype(np.float64)))
    assert f"step {number:,}" in str(found[0])
    assert "gradient norms dense_1" in str(found[0])

    # However the epoch is cut, the same is said.
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    assert divergences_of([DIVERGES], dataset)[0][0].to_dict() == found[0].to_dict()


def test_of_seeds_trained_at_once_the_one_that_diverged_is_described(dataset):
    sound = DIVERGES.replace(learning_rate=1e-3)
    together, states = divergences_of([sound, DIVERGES], dataset)
    assert list(together) == [1]
    assert int(states[0].step) == 12
    assert together[1].to_dict() == divergences_of([DIVERGES], dataset)[0][0].to_dict()


def test_the_first_operation_that_was_not_finite_is_found(dataset):
    found, _ = divergences_of([DIVERGES], dataset)
    task = Task.of(DIVERGES, dataset.image_shape, dataset.num_classes, 200)
    text = first_nonfinite(found[0], task=task)
    assert text.startswith("invalid value (")
    assert ".py:" in text


def test_a_divergent_run_says_step_rate_and_norms_and_stays_in_tables(dataset, tmp_path):
    [result] = execute([DIVERGES], "study", Options(workdir=str(tmp_path)), Reporter())
    assert result["status"] == "diverged"
    assert result["divergence"]["step"] == result["steps"]
    for words in ("step ", "learning rate 1e+12", "gradient norms dense_1", "--learning_rate"):
        assert words in result["reason"]
    assert set(result["divergence"]["gradient_norms"]) == {"dense_1", "dense_2"}
    row = read_run(Run.of(tmp_path, "study", DIVERGES))
    assert (row["status"], row["reason"]) == ("diverged", result["reason"])


def test_debug_nans_is_an_error_that_names_the_operation(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step \d.*invalid value \((nan|inf)\) encountered in"):
        execute([DIVERGES], "study", Options(workdir=str(tmp_path), debug_nans=True), Reporter())
    assert Run.of(tmp_path, "study", DIVERGES).result() is None


def test_weights_that_broke_in_the_last_step_are_a_divergence(tmp_path):
    """The loss of every step was finite, and yet the network is none any more."""
    config = DIVERGES.replace(epochs=1, batch_size=200, learning_rate=3e38)
    [result] = execute([config], "study", Options(workdir=str(tmp_path)), Reporter())
    assert result["steps"] == 1
    assert (result["status"], result["test_loss"]) == ("diverged", None)
    assert "test loss" in result["reason"]


def test_pausing_within_epochs_changes_nothing(dataset, monkeypatch):
    config = DIVERGES.replace(learning_rate=1e-3, optimizer="rmsprop", dropout="0.3")
    [undisturbed] = fit([config], dataset)
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    paused = {}

    def keep(index, state):
        paused[int(state.step)] = jax.tree.map(np.array, state)  # training goes on and consumes it

    [state] = fit([config], dataset, should_pause=lambda: True, on_pause=keep)
    assert list(paused) == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert jax.tree.all(jax.tree.map(np.array_equal, state, undisturbed))
    [resumed] = fit([config], dataset, [paused[6]])
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed, undisturbed))
