"""Normalization against Keras: forward pass, running statistics, gradients through 20 steps, files both ways."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.convert.reading import load_keras_model
from convjax.convert.writing import save_keras
from convjax.nn.geometry import plan
from convjax.training import steps
from tests.helpers.keras_twins import CLASSES, keras_twin, quick_jit

SHAPE, BATCH, STEPS, RATE = (28, 28, 1), 64, 20, 0.01
NORMS = ("batch", "layer")
KEYS = {"BatchNormalization": ("scale", "bias", "mean", "variance"), "LayerNormalization": ("scale", "bias")}


def config_of(norm):
    return RunConfig(norm=norm, channels="4-6", dense_units="8", padding="same", pool="avg", activation="tanh")


def random_weights(layers, seed):
    """Every parameter and statistic away from its initial value, in Keras's order."""
    rng, weights = np.random.default_rng(seed), {}
    for layer in layers:
        if layer.kind in KEYS:
            arrays = {key: rng.normal(key in ("scale", "variance"), 0.1, layer.channels) for key in KEYS[layer.kind]}
        elif layer.parameters:
            window = layer.window if layer.kind == "Conv2D" else ()
            shape = (*window, layer.input_shape[-1], layer.channels)
            arrays = {
                "kernel": rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape),
                "bias": rng.normal(0, 0.1, shape[-1]),
            }
        else:
            continue
        weights[layer.name] = {key: jnp.asarray(array, jnp.float32) for key, array in arrays.items()}
    return weights


def flat(weights):
    # Copies: Keras gives its arrays away to the programs that it runs.
    return [np.array(array) for arrays in weights.values() for array in arrays.values()]


@pytest.mark.parametrize("norm", NORMS)
def test_evaluation_uses_the_running_statistics_as_keras_does(norm, digits):
    layers = plan(config_of(norm), SHAPE, CLASSES)
    task = steps.Task.of(config_of(norm), SHAPE, CLASSES, 64)
    weights = random_weights(layers, 0)
    model = keras_twin(config_of(norm), SHAPE)
    model.set_weights(flat(weights))
    images = jnp.asarray(digits.test.images[:32])
    expected = model.predict(np.asarray(images) / np.float32(255), verbose=0)
    np.testing.assert_allclose(steps.eval_step(weights, images, task=task), expected, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_twenty_steps_and_the_running_statistics_agree(norm, digits):
    config, examples = config_of(norm).replace(optimizer="sgd", learning_rate=RATE), STEPS * BATCH
    task = steps.Task.of(config, SHAPE, CLASSES, examples)
    images, labels = digits.train.images[:examples], digits.train.labels[:examples]
    weights = random_weights(task.layers, 1)
    model = keras_twin(config, SHAPE, last="softmax")
    model.set_weights(flat(weights))
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images.astype("float32") / 255, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)

    state = quick_jit(lambda: steps.create_train_state(jax.random.key(0), RATE, task=task))()
    taken = {name: {key: jnp.asarray(array) for key, array in arrays.items()} for name, arrays in weights.items()}
    params = {name: {key: taken[name][key] for key in arrays} for name, arrays in state.params.items()}
    statistics = None
    if state.statistics is not None:
        statistics = {name: {key: taken[name][key] for key in each} for name, each in state.statistics.items()}
    order = np.arange(examples, dtype=np.int32).reshape(STEPS, BATCH)
    data = steps.EpochData(images, labels, order)
    train = quick_jit(lambda state, data: steps.train_epoch(state, data, 0, STEPS, steps.make_keys(0), task=task))
    state = train(state.replace(params=params, statistics=statistics), data)

    ordered = {name: {key: state.weights[name][key] for key in arrays} for name, arrays in weights.items()}
    names = [f"{name}/{key}" for name, arrays in ordered.items() for key in arrays]
    for name, ours, theirs, start in zip(names, flat(ordered), model.get_weights(), flat(weights), strict=True):
        # Batch normalization subtracts a convolution's bias again, so that it has no gradient.
        assert np.abs(theirs - start).max() > 1e-4 or (norm, name[:4], name[-4:]) == ("batch", "conv", "bias")
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=name)


def test_a_short_batch_has_the_statistics_of_its_real_images(digits):
    task = steps.Task.of(config_of("batch").replace(optimizer="sgd"), SHAPE, CLASSES, 40)
    state = steps.initial_state(RunConfig(learning_rate=0.01), task)
    images, labels = jnp.asarray(digits.train.images[:40]), jnp.asarray(digits.train.labels[:40])
    index = jnp.concatenate([jnp.arange(40), jnp.full(24, -1)])
    step = quick_jit(lambda batch: steps.train_step(state, batch, steps.make_keys(0), task=task)[0])
    padded = step(steps.take_batch(images, labels, index))
    short = step(steps.Batch(images, labels, jnp.ones(40)))
    for one, other in zip(jax.tree.leaves(padded.weights), jax.tree.leaves(short.weights), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_keras_files_hold_normalization_both_ways(norm, digits, tmp_path):
    layers = plan(config_of(norm), SHAPE, CLASSES)
    weights, task = random_weights(layers, 2), steps.Task.of(config_of(norm), SHAPE, CLASSES, 64)
    images = jnp.asarray(digits.test.images[:16])
    logits = np.asarray(steps.eval_step(weights, images, task=task))
    save_keras(tmp_path / "net.keras", weights, layers)
    model = keras.saving.load_model(tmp_path / "net.keras")
    probabilities = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(model.predict(np.asarray(images) / np.float32(255), verbose=0), probabilities, atol=1e-6)
    found = load_keras_model(tmp_path / "net.keras")
    assert found.layers == layers
    for one, other in zip(flat(found.params), flat(weights), strict=True):
        np.testing.assert_array_equal(one, other)
