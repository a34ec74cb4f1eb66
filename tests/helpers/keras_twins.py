"""Networks in Keras, built from a RunConfig without convjax's plan, and random configurations to compare on."""

import functools
import os
import random
from collections.abc import Callable

import jax
import keras
import numpy as np

from convjax.config import ACTIVATIONS, RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import Layer, plan

CLASSES = 10

# Most tests compare the graph, not how hard LLVM works on it, which is most of the time. Those of test_optimized.py
# set this variable, see conftest.py.
OPTIMIZED = "CONVJAX_TESTS_OPTIMIZED" in os.environ
quick_jit = jax.jit if OPTIMIZED else functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def keras_twin(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    last: str = "linear",
    initializer: str = "zeros",
    outputs: int = CLASSES,
) -> keras.Sequential:
    """The network as a user of Keras writes it; `last` is the activation of the classifier, `outputs` its units.

    Zeros to start with, as most tests set the weights: Keras compiles a program for each shape it draws at random.
    """
    make, stack = keras.layers, [keras.Input(image_shape)]
    rates, activations = list(config.layer_dropout), list(config.layer_activations)
    for index, channels in enumerate(config.layer_channels):
        stack.append(
            make.Conv2D(
                channels,
                config.layer_kernel_sizes[index],
                strides=config.layer_strides[index],
                padding=config.layer_paddings[index],
                activation=activations.pop(0),
                kernel_initializer=initializer,
            )
        )
        if config.norm != "none":
            stack[-1] = make.Conv2D.from_config({**stack[-1].get_config(), "activation": "linear"})
            stack.append({"batch": make.BatchNormalization, "layer": make.LayerNormalization}[config.norm]())
            stack.append(make.Activation(config.layer_activations[index]))
        pooling = {"max": make.MaxPooling2D, "avg": make.AveragePooling2D}.get(config.layer_pools[index])
        if pooling:
            stack.append(pooling(config.layer_pool_sizes[index], strides=config.layer_pool_strides[index]))
        rate = rates.pop(0)
        if index == len(config.layer_channels) - 1:
            stack.append(make.GlobalAveragePooling2D() if config.head == "gap" else make.Flatten())
        if rate:
            stack.append(make.Dropout(rate))
    if not config.layer_channels:
        stack.append(make.Flatten())
    for units in config.hidden_units:
        stack.append(make.Dense(units, activation=activations.pop(0), kernel_initializer=initializer))
        rate = rates.pop(0)
        if rate:
            stack.append(make.Dropout(rate))
    stack.append(make.Dense(outputs, activation=last, kernel_initializer=initializer))
    return keras.Sequential(stack)


def random_params(layers: tuple[Layer, ...], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Weights of He's scale, so that logits are of order one, and biases that are not zero."""
    rng = np.random.default_rng(seed)
    params = {}
    for layer in layers:
        if not layer.parameters:
            continue
        window = layer.window if layer.kind == "Conv2D" else ()
        shape = (*window, layer.input_shape[-1], layer.output_shape[-1])
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        params[layer.name] = {
            "kernel": (scale * rng.standard_normal(shape)).astype(np.float32),
            "bias": (0.1 * rng.standard_normal(shape[-1:])).astype(np.float32),
        }
    return params


def flat(params: dict[str, dict[str, np.ndarray]], layers: tuple[Layer, ...]) -> list[np.ndarray]:
    """Parameters in Keras's order: layer by layer, the kernel before the bias."""
    return [np.asarray(params[layer.name][name]) for layer in layers if layer.parameters for name in ("kernel", "bias")]


def keras_logits(model: keras.Sequential) -> Callable[[np.ndarray], jax.Array]:
    """The compiled forward pass of inference."""
    variables = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]
    return quick_jit(lambda images: model.stateless_call(variables, rest, images, training=False)[0])


def random_networks(count: int, seed: int) -> list[tuple[RunConfig, tuple[int, int, int], tuple[Layer, ...]]]:
    """Configurations with the image shape and the plan of each; impossible draws are drawn again."""
    rng = random.Random(seed)
    networks = []
    while len(networks) < count:
        depth = rng.choice((1, 1, 2, 2, 3))
        hidden = rng.choice((0, 1, 1, 2))

        def per_layer(draw: Callable[[], object], count: int) -> str:
            return "-".join(str(draw()) for _ in range(count)) or "0"

        def window(largest: int) -> str:
            height, width = rng.randint(1, largest), rng.randint(1, largest)
            return f"{height}x{width}" if rng.random() < 0.5 else str(height)

        activations = rng.choices(ACTIVATIONS, k=depth + hidden)
        values = {
            "channels": per_layer(lambda: rng.randint(2, 6), depth),
            "kernel_size": per_layer(lambda: window(7), depth),
            "padding": per_layer(lambda: rng.choice(("valid", "same")), depth),
            "stride": per_layer(lambda: window(3) if rng.random() < 0.4 else 1, depth),
            "pool": per_layer(lambda: rng.choice(("max", "avg", "none")), depth),
            "pool_size": per_layer(lambda: rng.choice(("2", "3", "2x3", "3x2")), depth),
            "pool_stride": per_layer(lambda: rng.choice(("0", "0", "1", "2", "1x2")), depth),
            "dense_units": per_layer(lambda: rng.randint(4, 12), hidden),
            "activation": "-".join(activations) or "relu",
            "dropout": per_layer(lambda: rng.choice(("0", "0.3")), depth + hidden),
        }
        shape = (rng.randint(9, 20), rng.randint(9, 20), rng.randint(1, 3))
        try:
            config = RunConfig(**values)
            networks.append((config, shape, plan(config, shape, CLASSES)))
        except UserError:
            continue
    return networks
