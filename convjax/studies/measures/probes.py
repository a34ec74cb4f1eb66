"""Linear probes: how well a linear classifier reads the classes off each layer (Alain & Bengio 2017).

A probe is multinomial logistic regression with a ridge penalty on a layer's frozen activations, fitted by SciPy's
L-BFGS on gradients from JAX. Layers have from 64 to 20,000 features. So that the penalty means the same for each, a
layer's features are centered and divided by one number that gives their vectors a mean square norm of 1. The strength
of the penalty is chosen for each layer on held-out images.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray
from scipy.optimize import minimize

from convjax.nn.geometry import Layer
from convjax.nn.layerwise import run_layers
from convjax.sweeps.measurements import Trained
from convjax.training.steps import initial_state, scale_images

TRAIN_IMAGES = 3000
"""Training images per probe; 10,000 give the same ranking of the layers and cost three times as much."""

RIDGES = (1e-4, 1e-5, 1e-6)
_HELD_OUT = 5  # one in five
_STEPS = 150
_CHUNK = 500


@dataclass(frozen=True)
class Probe:
    """A fitted probe: logits are `((features - mean) / scale) @ kernel + bias`."""

    mean: NDArray[np.float32]
    scale: float
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    ridge: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[examples, classes]` for `[examples, features]`."""
        return np.asarray((features - self.mean) / self.scale @ self.kernel + self.bias, np.float32)


@jax.jit
def _loss(weights: jax.Array, features: jax.Array, labels: jax.Array, ridge: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The penalized mean cross-entropy and its gradient; the last row of `weights` is the bias, without a penalty."""

    def loss(weights: jax.Array) -> jax.Array:
        logits = features @ weights[:-1] + weights[-1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses) + 0.5 * ridge * jnp.sum(jnp.square(weights[:-1]))

    return jax.value_and_grad(loss)(weights)


def fit_probe(
    features: NDArray[np.float32], labels: NDArray[Any], classes: int, ridges: Sequence[float] = RIDGES
) -> Probe:
    """A probe on `[examples, features]`. Every fifth example is held out to choose the ridge; the last fit uses all."""
    mean = features.mean(axis=0)
    scale = float(np.sqrt(np.mean(np.sum(np.square(features - mean), axis=1)))) or 1.0
    scaled = (features - mean) / np.float32(scale)
    labels = np.asarray(labels, np.int32)
    held_out = np.arange(len(labels)) % _HELD_OUT == 0
    seen = jnp.asarray(scaled[~held_out]), jnp.asarray(labels[~held_out])
    weights = np.zeros((features.shape[1] + 1, classes), np.float32)
    tried = []
    for ridge in sorted(ridges, reverse=True) if len(ridges) > 1 else ():
        weights = _minimize(weights, *seen, ridge)
        right = np.argmax(scaled[held_out] @ weights[:-1] + weights[-1], axis=1) == labels[held_out]
        tried.append((np.mean(right), ridge, weights))
    # max takes the first of equals: the strongest penalty.
    _, ridge, weights = max(tried, key=lambda one: one[0]) if tried else (0.0, ridges[0], weights)
    weights = _minimize(weights, jnp.asarray(scaled), jnp.asarray(labels), ridge)
    return Probe(mean, scale, weights[:-1], weights[-1], ridge)


def _minimize(start: NDArray[np.float32], features: jax.Array, labels: jax.Array, ridge: float) -> NDArray[np.float32]:
    def function(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = _loss(jnp.asarray(flat.reshape(start.shape), jnp.float32), features, labels, ridge)
        return float(value), np.asarray(gradient, np.float64).ravel()

    # Smaller changes than ftol are float32 rounding.
    options = {"maxiter": _STEPS, "ftol": 1e-7, "gtol": 1e-6}
    found = minimize(function, start.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape).astype(np.float32)


@functools.partial(jax.jit, static_argnames="layers")
def _features(layers: tuple[Layer, ...], params: Mapping[str, Any], images: jax.Array) -> jax.Array:
    return run_layers(layers, params, scale_images(images)).reshape(images.shape[0], -1)


def layer_features(
    layers: tuple[Layer, ...], params: Mapping[str, Any], images: NDArray[np.uint8]
) -> Iterator[NDArray[np.float32]]:
    """Flat activations of the last of `layers`, in chunks of images; the pixels themselves if there is no layer."""
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        short = _CHUNK - len(chunk) if len(images) > _CHUNK else 0
        padded = np.pad(chunk, ((0, short), (0, 0), (0, 0), (0, 0)))  # one shape, one program
        yield np.asarray(_features(layers, params, jnp.asarray(padded)))[: len(chunk)]


def probe_accuracy(
    layers: tuple[Layer, ...],
    params: Mapping[str, Any],
    train: tuple[NDArray[np.uint8], NDArray[Any]],
    test: tuple[NDArray[np.uint8], NDArray[Any]],
    classes: int,
) -> dict[str, float]:
    """Fits a probe on the last of `layers`: its accuracies on `train` and `test`, number of features and ridge."""
    features = np.concatenate(list(layer_features(layers, params, train[0])))
    probe = fit_probe(features, train[1], classes)
    right = [np.argmax(probe.logits(chunk), axis=1) for chunk in layer_features(layers, params, test[0])]
    return {
        "test_accuracy": float(np.mean(np.concatenate(right) == test[1])),
        "train_accuracy": float(np.mean(np.argmax(probe.logits(features), axis=1) == train[1])),
        "features": features.shape[1],
        "ridge": probe.ridge,
    }


def measure_probes(trained: Trained) -> dict[str, dict[str, dict[str, float]]]:
    """Probes on the pixels and every layer but the logits: `{"trained": {layer: ...}, "untrained": {layer: ...}}`.

    The untrained network of the same seed is probed at the last pooling and the last convolution only: its accuracy
    there is due to the architecture alone.
    """
    layers = trained.task.layers
    train, test = trained.dataset.train, trained.dataset.test
    chosen = np.random.default_rng(0).permutation(len(train.labels))[:TRAIN_IMAGES]
    seen, unseen = (train.images[chosen], train.labels[chosen]), (np.asarray(test.images), test.labels)
    data = seen, unseen, trained.dataset.num_classes
    depths = {"input": 0} | {
        layer.name: index
        for index, layer in enumerate(layers[:-1], start=1)
        if layer.kind not in ("Flatten", "Dropout", "PermutePixels")
    }
    spatial = [name for name, depth in depths.items() if depth and layers[depth - 1].receptive_field is not None]
    untrained = initial_state(trained.config, trained.task).params
    return {
        "trained": {name: probe_accuracy(layers[:depth], trained.params, *data) for name, depth in depths.items()},
        "untrained": {name: probe_accuracy(layers[: depths[name]], untrained, *data) for name in spatial[-2:]},
    }
