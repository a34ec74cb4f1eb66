"""Losses, gradients and training steps, from the same weights on the same real digits as Keras."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.config import CONVOLUTIONS, RunConfig
from convjax.nn import models
from convjax.nn.geometry import plan
from convjax.nn.pool import avg_pool, max_pool
from convjax.training import steps
from convjax.training.loop import stopped_early
from tests.helpers.keras_twins import CLASSES, flat, keras_twin, quick_jit, random_networks, random_params

SHAPE, BATCH, STEPS = (28, 28, 1), 64, 20
CHAPTER, DENSE = RunConfig(), RunConfig(model="dense", dense_units="16")
NETWORKS = [(CHAPTER, SHAPE), (DENSE, SHAPE), *((config, shape) for config, shape, _ in random_networks(4, seed=1))]


@pytest.mark.parametrize("index", range(len(NETWORKS)))
def test_the_loss_and_every_gradient_agree(index, digits):
    config, image_shape = NETWORKS[index]
    # Without dropout: the two draw from different generators.
    config = config.replace(dropout="0")
    layers = plan(config, image_shape, CLASSES)
    params = random_params(layers, index)
    images = crop(digits.train.images[:BATCH], image_shape)
    labels = digits.train.labels[:BATCH]
    methods = CONVOLUTIONS if config == CHAPTER else ("auto", CONVOLUTIONS[1 + index % 3])

    model = keras_twin(config, image_shape)
    mean_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @quick_jit
    def theirs(variables, images, labels):
        return jax.value_and_grad(
            lambda variables: mean_loss(labels, model.stateless_call(variables, [], images, training=True)[0])
        )(variables)

    @quick_jit
    def ours(params, images, labels):
        def mean_loss(params, method):
            logits = models.build(layers, method=method).apply({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return {method: jax.value_and_grad(mean_loss)(params, method) for method in methods}

    expected_loss, expected = theirs(flat(params, layers), images, labels)
    for method, (loss, gradients) in ours(params, images, labels).items():
        assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5), method
        for actual, gradient in zip(flat(gradients, layers), expected, strict=True):
            # Relative to the largest entry: small ones are differences of large ones.
            scale = np.abs(gradient).max()
            assert scale > 0
            np.testing.assert_allclose(actual, gradient, rtol=0, atol=1e-5 * scale, err_msg=method)


def crop(images, image_shape):
    """The middle of real digits as `[batch, height, width, channels]`, 0..1; channels differ in brightness."""
    height, width, channels = image_shape
    top, left = (28 - height) // 2, (28 - width) // 2
    images = images[:, top : top + height, left : left + width].astype(np.float32) / 255
    return images * np.linspace(1, 0.5, channels, dtype=np.float32)


OPTIMIZERS = {
    "rmsprop with momentum": (DENSE.replace(momentum=0.9), lambda rate: keras.optimizers.RMSprop(rate, momentum=0.9)),
    "adam": (DENSE.replace(optimizer="adam"), keras.optimizers.Adam),
    "adamw": (
        DENSE.replace(optimizer="adamw", weight_decay=0.01),
        lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.01),
    ),
    "sgd": (DENSE.replace(optimizer="sgd", learning_rate=0.1), keras.optimizers.SGD),
    "sgd with momentum": (
        DENSE.replace(optimizer="sgd", learning_rate=0.1, momentum=0.9),
        lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    ),
    "rmsprop with weight decay": (
        DENSE.replace(weight_decay=0.02),
        lambda rate: keras.optimizers.RMSprop(rate, weight_decay=0.02),
    ),
    "adam with weight decay and smoothed labels": (
        DENSE.replace(optimizer="adam", weight_decay=0.05, label_smoothing=0.1),
        lambda rate: keras.optimizers.Adam(rate, weight_decay=0.05),
    ),
    "sgd with momentum and weight decay": (
        DENSE.replace(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.05),
        lambda rate: keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.05),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_of_each_optimizer_agree(name, digits):
    config, optimizer = OPTIMIZERS[name]
    compare_training(config, optimizer(config.learning_rate), digits, STEPS * BATCH)


@pytest.mark.parametrize(
    "config",
    [
        CHAPTER.replace(conv="patches"),
        # Without the decisions of maximum and relu, which any rounding turns when two values are near enough: over
        # twenty steps one such turn, of one window of one image, moves the weights by more than the rest together.
        CHAPTER.replace(conv="winograd", pool="avg", activation="tanh"),
    ],
    ids=["patches", "winograd"],
)
def test_an_epoch_of_the_chapters_run_agrees_to_its_short_last_batch(config, digits):
    compare_training(config, "rmsprop", digits, STEPS * BATCH - 32)


def compare_training(config, optimizer, digits, examples):
    """An epoch of `fit`, unshuffled, and of `train_epoch` in the same order: weights, mean loss and accuracy."""
    task = steps.Task.of(config, SHAPE, CLASSES, examples)
    params = random_params(task.layers, seed=3)
    images, labels = digits.train.images[:examples], digits.train.labels[:examples]

    model = keras_twin(config, SHAPE, last="softmax")
    model.set_weights(flat(params, task.layers))
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    targets = keras.utils.to_categorical(labels)
    history = model.fit(
        images.astype("float32") / 255, targets, batch_size=BATCH, epochs=1, shuffle=False, verbose=0
    ).history

    state = quick_jit(lambda: steps.create_train_state(jax.random.key(0), config.learning_rate, task=task))()
    state = state.replace(params=jax.tree.map(jnp.asarray, params))
    order = np.full(STEPS * BATCH, -1, np.int32)
    order[:examples] = np.arange(examples)
    train = quick_jit(
        lambda state, images, labels, order: steps.train_epoch(
            state, steps.EpochData(images, labels, order), 0, STEPS, steps.make_keys(0), task=task
        )
    )
    state = train(state, images, labels, order.reshape(STEPS, BATCH))

    before = flat(params, task.layers)
    for actual, expected, start in zip(flat(state.params, task.layers), model.get_weights(), before, strict=True):
        assert np.abs(expected - start).max() > 1e-3
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    assert int(state.sums.examples) == examples
    assert float(state.sums.loss) / examples == pytest.approx(history["loss"][0], rel=1e-5)
    assert float(state.sums.correct) / examples == pytest.approx(history["accuracy"][0], abs=1e-6)


@given(
    patience=st.integers(1, 4),
    losses=st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.5]), min_size=1, max_size=12),
)
def test_early_stopping_stops_and_restores_where_keras_does(patience, losses):
    """Weights are the number of their epoch, so that they say which were restored."""
    task = steps.Task.of(RunConfig(early_stopping=patience, validation_size=1), SHAPE, CLASSES, 7 * 64)
    model = keras.Sequential()
    weights, model.stop_training = [0], False
    model.get_weights = lambda: list(weights)
    model.set_weights = lambda values: weights.__setitem__(slice(None), values)
    callback = keras.callbacks.EarlyStopping("val_loss", patience=patience, mode="min", restore_best_weights=True)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        weights[:] = [epoch + 1]
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    callback.on_train_end()

    start = {"layer_1": {"kernel": np.float32(0)}}
    state = steps.TrainState(
        jnp.int32(0),
        start,
        None,
        jnp.float32(1),
        steps.zero_sums(),
        steps.Best(jnp.float32(jnp.inf), jnp.int32(0), start),
    )
    for number, loss in enumerate(losses, start=1):
        state = state.replace(
            step=jnp.int32(7 * number), params={"layer_1": {"kernel": np.float32(number)}}
        ).after_validation(loss)
        if stopped_early(state, task):
            break
    assert number == epoch + 1
    assert float(state.result_params["layer_1"]["kernel"]) == weights[0]


@pytest.mark.parametrize("window", [(2, 2), (3, 2)])
@pytest.mark.parametrize("strides", [None, (1, 2)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_and_its_gradient_agree_where_maxima_tie(kind, strides, window):
    """Where positions tie Keras gives all the gradient to the first; half the entries here are ties."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2, (2, 7, 8, 3)), jnp.float32)
    layer = {"max": keras.layers.MaxPooling2D, "avg": keras.layers.AveragePooling2D}[kind](window, strides=strides)
    function = {"max": max_pool, "avg": avg_pool}[kind]
    weights = jnp.asarray(rng.standard_normal(layer.compute_output_shape(x.shape)), jnp.float32)

    expected, pull_back = jax.vjp(layer, x)
    actual, our_pull_back = jax.vjp(lambda x: function(x, window, strides), x)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(our_pull_back(weights)[0], pull_back(weights)[0], rtol=1e-5, atol=1e-6)
