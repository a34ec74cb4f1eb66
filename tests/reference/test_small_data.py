"""The book's network for small data: its layers, and one sigmoid unit under binary cross-entropy, against Keras."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.convert import load_keras_model, save_keras
from convjax.errors import UserError
from convjax.nn import models
from convjax.nn.geometry import class_count, plan, total_parameters
from convjax.nn.layerwise import run_layers
from convjax.training import steps
from tests.helpers.keras_twins import flat, keras_twin, quick_jit, random_params

BOOK = RunConfig(model="small_data")
SMALL = BOOK.replace(channels="3-4", dense_units="6", learning_rate=1e-3)
SHAPE, BATCH, STEPS = (14, 13, 3), 8, 5
EXAMPLES = STEPS * BATCH - 3


def test_the_layers_are_the_books():
    """Chollet (2017), listing 5.5, as it stands there."""
    make = keras.layers
    model = keras.Sequential([keras.Input((150, 150, 3))])
    for filters in (32, 64, 128, 128):
        model.add(make.Conv2D(filters, (3, 3), activation="relu", kernel_initializer="zeros"))
        model.add(make.MaxPooling2D((2, 2)))
    model.add(make.Flatten())
    model.add(make.Dense(512, activation="relu", kernel_initializer="zeros"))
    model.add(make.Dense(1, activation="sigmoid", kernel_initializer="zeros"))

    layers = plan(BOOK, (150, 150, 3), 2)
    assert total_parameters(layers) == model.count_params() == 3_453_121
    assert [layer.kind for layer in layers] == [type(layer).__name__ for layer in model.layers]
    assert [layer.output_shape for layer in layers] == [layer.output.shape[1:] for layer in model.layers]
    assert [layer.parameters for layer in layers] == [layer.count_params() for layer in model.layers]
    assert class_count(layers) == 2


def test_more_classes_have_a_softmax_and_small_images_a_way_out():
    layers = plan(BOOK.replace(channels="32-64-128"), (28, 28, 1), 10)
    assert layers[-1].output_shape == (10,)
    assert layers[-1].activation == "softmax"
    with pytest.raises(UserError, match=r"conv2d_4 .* use --padding=same, fewer layers \(--channels\)"):
        plan(BOOK, (28, 28, 1), 10)
    plan(BOOK.replace(padding="same"), (28, 28, 1), 10)


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (EXAMPLES, *SHAPE), np.uint8), rng.integers(0, 2, EXAMPLES).astype(np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_epoch_of_one_sigmoid_unit_agrees(smoothing, examples):
    """Losses, accuracy and every weight after five steps of RMSprop, the last on a short batch."""
    images, labels = examples
    config = SMALL.replace(label_smoothing=smoothing)
    task = steps.Task.of(config, SHAPE, 2, EXAMPLES)
    params = random_params(task.layers, seed=1)
    model = keras_twin(config, SHAPE, last="sigmoid", outputs=1)
    model.set_weights(flat(params, task.layers))
    model.compile(
        keras.optimizers.RMSprop(config.learning_rate),
        keras.losses.BinaryCrossentropy(label_smoothing=smoothing),
        metrics=["accuracy"],
    )
    targets = labels[:, None].astype(np.float32)
    history = model.fit(images / np.float32(255), targets, BATCH, epochs=1, shuffle=False, verbose=0).history

    state = quick_jit(lambda: steps.create_train_state(jax.random.key(0), config.learning_rate, task=task))()
    state = state.replace(params=jax.tree.map(jnp.asarray, params))
    order = np.full(STEPS * BATCH, -1, np.int32)
    order[:EXAMPLES] = np.arange(EXAMPLES)
    state = quick_jit(lambda state, data: steps.train_epoch(state, data, 0, STEPS, steps.make_keys(0), task=task))(
        state, steps.EpochData(images, labels, order.reshape(STEPS, BATCH))
    )
    for actual, expected, start in zip(
        flat(state.params, task.layers), model.get_weights(), flat(params, task.layers), strict=True
    ):
        assert np.abs(expected - start).max() > 1e-3
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    assert float(state.sums.loss) / EXAMPLES == pytest.approx(history["loss"][0], rel=1e-5)
    assert float(state.sums.correct) / EXAMPLES == pytest.approx(history["accuracy"][0], abs=1e-6)


def test_keras_files_hold_the_sigmoid_unit_both_ways(examples, tmp_path):
    images = jnp.asarray(examples[0] / 255, jnp.float32)
    layers = plan(SMALL, SHAPE, 2)
    params = jax.tree.map(jnp.asarray, random_params(layers, seed=2))
    save_keras(tmp_path / "x.keras", params, layers)
    model = keras.saving.load_model(tmp_path / "x.keras")
    logits = quick_jit(lambda: models.build(layers).apply({"params": params}, images))()
    assert logits.shape == (EXAMPLES, 2)
    np.testing.assert_allclose(model(images)[:, 0], jax.nn.softmax(logits)[:, 1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(model(images)[:, 0], jax.nn.sigmoid(logits[:, 1] - logits[:, 0]), rtol=0, atol=1e-6)

    traced = quick_jit(lambda: run_layers(layers, params, images))()
    np.testing.assert_allclose(traced, logits, rtol=0, atol=1e-5)

    model.save(tmp_path / "back.keras")
    loaded = load_keras_model(tmp_path / "back.keras")
    assert loaded.layers == layers
    assert loaded.config == RunConfig(model="small_data", channels="3-4", dense_units="6")
    for actual, expected in zip(flat(loaded.params, layers), flat(params, layers), strict=True):
        np.testing.assert_array_equal(actual, expected)
