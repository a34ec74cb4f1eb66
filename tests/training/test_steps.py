"""The pure steps: shuffling, sums, the padded last batch, schedules, cutting an epoch anywhere."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.training import steps
from convjax.training.evaluation import predict
from convjax.training.optimizers import make_optimizer
from convjax.training.program import Program
from convjax.training.steps import Batch, Task

SMALL = RunConfig(channels="4-6", dense_units="8", batch_size=16)


train_step = jax.jit(steps.train_step, static_argnames="task")


def make(config=SMALL, examples=100, shape=(12, 12, 1), classes=10):
    task = Task.of(config, shape, classes, examples)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (examples, *shape), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, classes, examples, dtype=np.int32))
    keys = steps.make_keys(config.seed)
    state = steps.create_train_state(keys.init, config.learning_rate, task=task)
    return task, images, labels, keys, state


def run_epoch(task, images, labels, keys, state, bounds, epoch=0):
    order = steps.epoch_order(keys.shuffle, epoch, examples=len(labels), batch_size=task.config.batch_size)
    data = steps.EpochData(images, labels, order)
    train = jax.jit(lambda state, start, stop: steps.train_epoch(state, data, start, stop, keys, task=task))
    for start, stop in bounds:
        state = train(state, start, stop)
    return state


def changed(task, **changes):
    return dataclasses.replace(task, config=task.config.replace(**changes))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@settings(max_examples=20, deadline=None)
@given(examples=st.integers(1, 300), batch_size=st.integers(1, 64), epoch=st.integers(0, 5))
def test_an_epochs_order_has_every_example_once(examples, batch_size, epoch):
    order = np.asarray(steps.epoch_order(jax.random.key(1), epoch, examples=examples, batch_size=batch_size))
    assert order.shape == (-(-examples // batch_size), batch_size)
    assert sorted(order[order >= 0]) == list(range(examples))
    # The padding is at the very end.
    flat = order.ravel()
    assert (flat[:examples] >= 0).all()
    assert (flat[examples:] == -1).all()


def test_epochs_and_seeds_shuffle_differently():
    def order(seed, epoch):
        key = steps.make_keys(seed).shuffle
        return tuple(np.asarray(steps.epoch_order(key, epoch, examples=200, batch_size=10)).ravel())

    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
    assert order(1, 2) == order(1, 2)


def test_the_streams_of_a_seed_are_independent_keys():
    keys = {jax.random.key_data(key).tobytes() for seed in range(20) for key in steps.make_keys(seed)}
    assert len(keys) == 20 * len(steps.Keys._fields)


@pytest.mark.parametrize("bounds", [[(0, 1), (1, 2), (2, 7)], [(0, 3), (3, 3), (3, 7)]])
def test_an_epoch_may_be_cut_anywhere(bounds):
    task, images, labels, keys, state = make()
    whole = run_epoch(task, images, labels, keys, state, [(0, 7)])
    cut = run_epoch(task, images, labels, keys, state, bounds)
    for one, other in zip(leaves(whole), leaves(cut), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(whole.step) == 7
    assert float(whole.sums.examples) == 100


def test_the_last_short_batch_counts_its_own_examples_only():
    """As in Keras: the loss of the last batch is the mean over its 4 examples, not over 16 rows."""
    task, images, labels, keys, state = make()
    order = np.asarray(steps.epoch_order(keys.shuffle, 0, examples=100, batch_size=16))[-1]
    rows = order[order >= 0]
    assert len(rows) == 4
    padded = Batch(images[np.maximum(order, 0)], labels[np.maximum(order, 0)], jnp.asarray(order >= 0, jnp.float32))
    short = Batch(images[rows], labels[rows], jnp.ones(4))
    one, one_sums = train_step(state, padded, keys, task=task)
    other, other_sums = train_step(state, short, keys, task=changed(task, batch_size=4))
    for a, b in zip(leaves(one.params), leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(one_sums.loss, other_sums.loss, rtol=1e-6)
    assert float(one_sums.examples) == 4


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_a_large_batch_in_parts_has_the_gradients_of_the_whole(weight_decay, monkeypatch):
    config = dataclasses.replace(
        SMALL, batch_size=192, conv="patches", label_smoothing=0.1, optimizer="adamw", weight_decay=weight_decay
    )
    task, images, labels, keys, state = make(config, examples=190)
    index = jnp.concatenate([jnp.arange(190), jnp.full(2, -1)])
    batch = steps.take_batch(images, labels, index)
    found = jax.jit(lambda: steps.loss_and_gradients(state, batch, keys, task=task))()
    assert "scan" in str(jax.make_jaxpr(lambda: steps.loss_and_gradients(state, batch, keys, task=task))())
    monkeypatch.setattr(steps, "_parts", lambda task, batch_size: 1)
    whole = jax.jit(lambda: steps.loss_and_gradients(state, batch, keys, task=changed(task, conv="xla")))()
    for part, expected in zip(leaves(found), leaves(whole), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-6)


def test_rmsprop_is_the_chapters_formula():
    """v = 0.9 v + 0.1 g^2; w -= lr g / sqrt(v + 1e-7), by hand over three steps."""
    task, *_ = make()
    optimizer = make_optimizer(task.config, jnp.float32(0.01))
    weight, state = jnp.float32(1.0), optimizer.init(jnp.float32(1.0))
    expected, velocity = 1.0, 0.0
    for gradient in (0.5, -0.2, 0.1):
        updates, state = optimizer.update(jnp.float32(gradient), state, weight)
        weight = optax.apply_updates(weight, updates)
        velocity = 0.9 * velocity + 0.1 * gradient**2
        expected -= 0.01 * gradient / np.sqrt(velocity + 1e-7)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def rate(step, **changes):
    config = SMALL.replace(epochs=2, **changes)
    task = Task.of(config, (12, 12, 1), 10, 160)  # 10 steps an epoch, 20 in all
    return float(task.learning_rate(jnp.float32(0.1), jnp.asarray(step)))


def test_learning_rate_schedules_have_their_closed_forms():
    assert rate(19, schedule="constant") == pytest.approx(0.1)
    assert rate(5, schedule="linear") == pytest.approx(0.1 * (1 - 5 / 20))
    assert rate(5, schedule="cosine") == pytest.approx(0.1 * 0.5 * (1 + np.cos(np.pi * 5 / 20)))
    assert rate(0, schedule="constant", warmup_steps=4) == pytest.approx(0.025)
    assert rate(3, schedule="constant", warmup_steps=4) == pytest.approx(0.1)
    assert rate(4, schedule="linear", warmup_steps=4) == pytest.approx(0.1)
    assert rate(12, schedule="linear", warmup_steps=4) == pytest.approx(0.05)


def test_a_loss_that_is_no_number_stops_at_its_step():
    config = SMALL.replace(learning_rate=1e30, optimizer="sgd")
    task, images, labels, keys, state = make(config)
    stopped = run_epoch(task, images, labels, keys, state, [(0, 7)])
    assert not np.isfinite(float(stopped.sums.loss))
    assert int(stopped.step) < 7
    in_pieces = run_epoch(task, images, labels, keys, state, [(0, 1), (1, 4), (4, 7)])
    assert int(in_pieces.step) == int(stopped.step)


def test_dropout_differs_by_step_and_not_by_call():
    task, images, labels, keys, state = make(SMALL.replace(dropout="0.5"))
    batch = Batch(images[:16], labels[:16], jnp.ones(16))
    once = train_step(state, batch, keys, task=task)[1].loss
    again = train_step(state, batch, keys, task=task)[1].loss
    later = train_step(state.replace(step=jnp.int32(1)), batch, keys, task=task)[1].loss
    assert float(once) == float(again) != float(later)
    # Evaluation has none: twice the same, and equal to the same net without dropout.
    plain = Task.of(SMALL, (12, 12, 1), 10, 100)
    np.testing.assert_array_equal(predict(state.params, images, task=task), predict(state.params, images, task=plain))


@pytest.mark.parametrize("count", [1, 124, 125, 126, 250])
def test_predict_drops_no_image(count):
    task, images, *_, state = make(examples=250)
    logits = np.asarray(predict(state.params, images[:count], task=task))
    assert logits.shape == (count, 10)
    one_by_one = np.concatenate(
        [steps.eval_step(state.params, images[i : i + 1], task=task) for i in range(0, count, 7)]
    )
    np.testing.assert_allclose(logits[::7], one_by_one, atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_comes_near():
    task, images, labels, keys, state = make(SMALL.replace(precision="bfloat16"))
    exact = Task.of(SMALL, (12, 12, 1), 10, 100)
    batch = Batch(images[:16], labels[:16], jnp.ones(16))
    new, sums = train_step(state, batch, keys, task=task)
    _, exact_sums = train_step(state, batch, keys, task=exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(new.params)} == {jnp.dtype("float32")}
    assert float(sums.loss) == pytest.approx(float(exact_sums.loss), rel=0.02)


def test_runs_of_other_seeds_rates_and_lengths_share_a_program():
    def train_of(**changes):
        return Program.compile(Task.of(SMALL.replace(**changes), (12, 12, 1), 10, 100)).train

    assert train_of() is train_of(seed=3, learning_rate=0.5, epochs=9)
    assert train_of() is not train_of(kernel_size="2")


def test_a_plan_that_the_module_does_not_compute_is_refused():
    task, *_ = make()
    planned = dataclasses.replace(task.layers[0], parameters=7)
    with pytest.raises(UserError, match=r"conv2d_1 \(Conv2D\): the plan has 7 parameters, the module 40"):
        Program.compile(dataclasses.replace(task, layers=(planned, *task.layers[1:])))


def traced(task, state, batch, keys):
    return str(jax.make_jaxpr(lambda *arguments: steps.loss_and_gradients(*arguments, task=task))(state, batch, keys))


@pytest.mark.parametrize(("precision", "expected"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_products_have_the_precision_that_was_asked_for(precision, expected, monkeypatch):
    """TF32 on a GPU, and bfloat16 on a TPU, only where the user asks."""
    task, images, labels, keys, state = make(SMALL.replace(precision=precision))
    batch = Batch(images[:16], labels[:16], jnp.ones(16))
    assert "Precision." not in traced(task, state, batch, keys)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = traced(task, state, batch, keys)
    assert set(re.findall(r"Precision\.(\w+)", text)) == {expected}
    assert len(re.findall(r" (?:dot_general|conv_general_dilated)\[", text)) == text.count("precision=") >= 11
    assert "precision=None" not in text


def test_tf32_is_refused_where_there_is_none():
    from convjax.training import backend

    with pytest.raises(UserError, match="tf32"):
        backend.require_precision("tf32")
    backend.require_precision("float32")
