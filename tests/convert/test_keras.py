"""Files to and from Keras itself: it opens what we save, we load what it saves, and both compute the same."""

import jax
import keras
import numpy as np
import pytest

from convjax.config import ACTIVATIONS, RunConfig
from convjax.convert import load_keras, load_keras_model, save_keras
from convjax.errors import UserError
from convjax.nn import models
from convjax.nn.geometry import plan
from tests.helpers.keras_twins import CLASSES, flat, keras_logits, keras_twin, quick_jit, random_params

CHAPTER, SHAPE = RunConfig(), (28, 28, 1)
RICH = RunConfig(
    channels="4-5-3",
    kernel_size="3x5-2-1x3",
    stride="2x1-1-1",
    padding="same-valid-same",
    pool="max-none-avg",
    pool_size="3x2-2-2",
    pool_stride="2x1-0-1",
    activation="gelu-selu-tanh-elu-leaky_relu",
    dense_units="7-9",
    dropout="0.1-0-0.25-0-0.5",
)
NETWORKS = {
    "chapter": (CHAPTER, SHAPE),
    "rich": (RICH, (21, 18, 3)),
    "dense": (RunConfig(model="dense", dense_units="12-8", dropout="0.2"), (9, 8, 2)),
    "linear": (RunConfig(model="dense", dense_units="0"), (9, 8, 2)),
    "averaged": (RunConfig(channels="3-4", head="gap", dense_units="0", dropout="0.25"), (12, 11, 2)),
    # Deep enough that Keras's keys, sorted as text, are not in order: conv2d_10 comes before conv2d_2.
    "one, pooled": (RunConfig(channels="3", pool="avg+", dense_units="0"), (9, 8, 2)),
    "deep": (RunConfig(channels="-".join(["2"] * 12), padding="same", pool="none", activation="silu"), (5, 5, 1)),
}


@pytest.fixture(autouse=True)
def _start_at_zero(monkeypatch):
    """Every test sets the weights, and Keras compiles a program for each shape that it draws at random."""
    zeros = keras.initializers.Zeros()
    monkeypatch.setattr(
        keras.initializers.GlorotUniform, "__call__", lambda _, *shape, **options: zeros(*shape, **options)
    )


def assert_equal(params, expected):
    assert params.keys() == expected.keys()
    for layer, variables in expected.items():
        assert list(params[layer]) == ["kernel", "bias"]
        for name, value in variables.items():
            assert params[layer][name].dtype == np.float32
            np.testing.assert_array_equal(params[layer][name], value)


@pytest.fixture(params=NETWORKS)
def network(request):
    """The configuration, plan and parameters of a network."""
    config, image_shape = NETWORKS[request.param]
    layers = plan(config, image_shape, CLASSES)
    return config, layers, random_params(layers, seed=5)


def test_keras_opens_what_we_save_and_computes_the_same(network, tmp_path):
    _, layers, params = network
    save_keras(tmp_path / "x.keras", params, layers)
    model = keras.saving.load_model(tmp_path / "x.keras")
    images = np.random.default_rng(0).random((8, *layers[0].input_shape), np.float32)
    logits = quick_jit(lambda params, images: models.build(layers).apply({"params": params}, images))(params, images)
    # A Keras user's network ends in probabilities.
    expected = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(keras_logits(model)(images), expected, rtol=0, atol=1e-6)
    assert [layer.name for layer in model.layers] == [layer.name for layer in layers]
    assert [type(layer).__name__ for layer in model.layers] == [layer.kind for layer in layers]
    for layer, made in zip(layers, model.layers, strict=True):
        if layer.kind == "Dropout":
            assert made.rate == layer.rate


def test_keras_loads_our_weights_into_a_network_of_its_own(network, tmp_path):
    config, layers, params = network
    save_keras(tmp_path / "x.weights.h5", params, layers)
    model = keras_twin(config, layers[0].input_shape)
    model.load_weights(tmp_path / "x.weights.h5")
    for actual, expected in zip(model.get_weights(), flat(params, layers), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_we_load_what_keras_saves(network, tmp_path):
    config, layers, params = network
    model = keras_twin(config, layers[0].input_shape, last="softmax")
    model.set_weights(flat(params, layers))
    for name in ("x.keras", "x.h5"):
        model.save(tmp_path / name)
        loaded = load_keras_model(tmp_path / name)
        assert loaded.config == config
        assert loaded.layers == layers
        assert_equal(loaded.params, params)
        assert_equal(load_keras(tmp_path / name, layers), params)
    model.save_weights(tmp_path / "x.weights.h5")
    assert_equal(load_keras(tmp_path / "x.weights.h5", layers), params)


def test_activations_keep_their_meaning(tmp_path):
    activations = "-".join(ACTIVATIONS)
    config = RunConfig(model="dense", dense_units="-".join("5" for _ in ACTIVATIONS), activation=activations)
    layers = plan(config, (2, 2, 1), CLASSES)
    params = random_params(layers, seed=1)
    save_keras(tmp_path / "x.keras", params, layers)
    model = keras.saving.load_model(tmp_path / "x.keras")
    images = np.linspace(-3, 3, 5 * 4, dtype=np.float32).reshape(5, 2, 2, 1)
    logits = quick_jit(lambda params, images: models.build(layers).apply({"params": params}, images))(params, images)
    np.testing.assert_allclose(keras_logits(model)(images), jax.nn.softmax(logits), rtol=0, atol=1e-6)
    model.save(tmp_path / "back.keras")
    assert load_keras_model(tmp_path / "back.keras").config.activation == activations


def test_a_keras_users_own_way_of_writing_the_network(tmp_path):
    """No input layer, own names, activations as layers, Dropout before Flatten, logits, an optimizer's state."""
    make = keras.layers
    model = keras.Sequential(
        [
            make.Conv2D(3, (3, 3), name="see"),
            make.Activation("relu", name="and"),
            make.MaxPooling2D(name="shrink"),
            make.Conv2D(4, 2, activation="swish", name="conv2d"),
            make.Dropout(0.25),
            make.Flatten(),
            make.Dense(8, activation=None, name="dense_7"),
            make.Activation("tanh"),
            make.Dropout(0.0),
            make.Dense(CLASSES, name="conv2d_1"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.build((None, 10, 11, 2))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "x.keras")
    loaded = load_keras_model(tmp_path / "x.keras")
    assert loaded.config == RunConfig(
        channels="3-4",
        kernel_size="3-2",
        pool="max",
        dense_units="8",
        activation="relu-silu-tanh",
        dropout="0.25",
    )
    assert loaded.layers == plan(loaded.config, (10, 11, 2), CLASSES)
    for actual, expected in zip(flat(loaded.params, loaded.layers), model.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_weights_of_a_functional_model_load_but_not_its_architecture(tmp_path):
    layers = plan(RunConfig(model="dense", dense_units="6"), (4, 3, 1), CLASSES)
    inputs = keras.Input((4, 3, 1))
    x = keras.layers.Dense(6, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.save(tmp_path / "x.keras")
    params = load_keras(tmp_path / "x.keras", layers)
    for actual, expected in zip(flat(params, layers), model.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    with pytest.raises(UserError, match=r"x\.keras: the model is of class 'Functional'"):
        load_keras_model(tmp_path / "x.keras")


def conv(**options):
    return keras.layers.Conv2D(2, 3, **options)


REFUSED = {
    "lambda": (lambda: [keras.layers.Lambda(lambda x: x, name="trick"), conv()], "'trick' is of class 'Lambda'"),
    "unknown layer": (lambda: [conv(), keras.layers.UpSampling2D()], "of class 'UpSampling2D'"),
    "activation": (lambda: [conv(activation="hard_tanh")], "activation is 'hard_tanh'; expected one of relu"),
    "activation layer": (lambda: [conv(activation=keras.layers.LeakyReLU(0.1))], "activation is {"),
    "lambda activation": (lambda: [conv(activation=lambda x: x)], "activation is {"),
    "no bias": (lambda: [conv(use_bias=False)], "use_bias is False; expected True"),
    "dilation": (lambda: [conv(dilation_rate=2)], "dilation_rate is (2, 2); expected (1, 1)"),
    "groups": (lambda: [conv(groups=2)], "groups is 2"),
    "pool padding": (lambda: [conv(), keras.layers.MaxPooling2D(padding="same"), conv()], "padding is 'same'"),
    "two pools": (lambda: [conv(), keras.layers.MaxPooling2D(), keras.layers.MaxPooling2D(), conv()], "cannot come"),
    "pool first": (lambda: [keras.layers.MaxPooling2D(), conv(), conv()], "cannot come where it does"),
    "no classifier": (lambda: [conv()], None),
}


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("name", REFUSED)
def test_architectures_without_a_plan_are_refused_by_name(name, tmp_path):
    make, message = REFUSED[name]
    stack = [keras.Input((20, 20, 2)), *make(), keras.layers.Flatten()]
    if message is not None:
        stack.append(keras.layers.Dense(CLASSES))
    keras.Sequential(stack).save(tmp_path / "x.keras")
    with pytest.raises(UserError) as error:
        load_keras_model(tmp_path / "x.keras")
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'x.keras'}: ")
    assert (message or "does not end in a Dense layer") in text
    assert "\n" not in text
    assert len(text) < 600
