"""What metrics.jsonl says of the layers, against the model's own gradient and filters killed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.config import RunConfig
from convjax.training.diagnostics import SAMPLE, layer_diagnostics, layer_norms
from convjax.training.steps import Task, initial_state

CONFIG = RunConfig(dataset="mnist_5k", channels="3-4", kernel_size="5", stride="2", pool="none", dense_units="6")


@pytest.fixture(scope="module")
def trained(digits):
    task = Task.of(CONFIG, digits.image_shape, digits.num_classes, len(digits.train.labels))
    params = jax.device_get(initial_state(CONFIG, task).params)
    # Off relu's kink: with zero biases an empty patch is at it, and Winograd's rounding decides on which side.
    return task, {name: {"kernel": each["kernel"], "bias": each["bias"] + 0.01} for name, each in params.items()}


def test_norms_are_those_of_the_models_gradient(trained, digits):
    task, params = trained
    found = layer_diagnostics(params, digits.train.images, digits.train.labels, task=task)
    images, labels = jnp.asarray(digits.train.images[:SAMPLE] / np.float32(255)), digits.train.labels[:SAMPLE]

    def loss(params):
        logits = task.model.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    names = ["conv2d_1", "conv2d_2", "dense_1", "dense_2"]
    for quantity, tree in (("weight_norm", params), ("gradient_norm", gradient)):
        assert list(found[quantity]) == names
        for name in names:
            flat = np.concatenate([np.ravel(tree[name]["kernel"]), np.ravel(tree[name]["bias"])])
            assert found[quantity][name] == pytest.approx(np.linalg.norm(flat), rel=1e-4)
    assert layer_norms(gradient) == pytest.approx(found["gradient_norm"], rel=1e-4)


def test_a_filter_that_never_fires_is_dead(trained, digits):
    task, params = trained
    killed = jax.tree.map(np.copy, params)
    killed["conv2d_1"]["bias"][1] = -100.0  # below zero whatever the image
    killed["dense_1"]["bias"][:3] = -1e4
    alive = layer_diagnostics(params, digits.train.images, digits.train.labels, task=task)["dead_channels"]
    found = layer_diagnostics(killed, digits.train.images, digits.train.labels, task=task)["dead_channels"]
    assert list(found) == ["conv2d_1", "conv2d_2", "dense_1"]
    assert alive["conv2d_1"] == 0
    assert found["conv2d_1"] == pytest.approx(1 / 3)
    assert found["dense_1"] >= 0.5


def test_numbers_that_are_not_finite_are_none(trained, digits):
    task, params = trained
    broken = {**params, "dense_2": {"kernel": params["dense_2"]["kernel"] * np.nan, "bias": params["dense_2"]["bias"]}}
    found = layer_diagnostics(broken, digits.train.images, digits.train.labels, task=task)
    assert found["weight_norm"]["dense_2"] is None
    assert found["gradient_norm"]["dense_1"] is None
    assert found["weight_norm"]["dense_1"] > 0
