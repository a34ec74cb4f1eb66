"""Linear probes against scikit-learn's logistic regression, and features against the network itself."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from convjax.config import RunConfig
from convjax.studies.measures.probes import fit_probe, layer_features, probe_accuracy
from convjax.training.evaluation import predict
from convjax.training.steps import Task, initial_state

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def clouds():
    """300 points of three overlapping classes in 12 dimensions, far from the origin."""
    labels = RNG.integers(0, 3, 300)
    features = RNG.normal(size=(300, 12)) + 5 + RNG.normal(size=(3, 12))[labels]
    return features.astype(np.float32), labels


@pytest.mark.parametrize("ridge", [1e-1, 1e-3])
def test_a_probe_is_scikit_learns_logistic_regression(clouds, ridge):
    features, labels = clouds
    probe = fit_probe(features, labels, 3, ridges=[ridge])
    scaled = (features - probe.mean) / probe.scale
    assert np.mean(np.sum(scaled**2, axis=1)) == pytest.approx(1, rel=1e-4)
    reference = LogisticRegression(C=1 / (ridge * len(labels)), tol=1e-8, max_iter=2000).fit(scaled, labels)
    np.testing.assert_allclose(probe.kernel, reference.coef_.T, atol=0.02 * np.abs(reference.coef_).max())
    ours = probe.logits(features)
    probabilities = np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, reference.predict_proba(scaled), atol=5e-3)


def test_the_ridge_is_chosen_on_images_that_the_fit_has_not_seen():
    """Labels that have nothing to do with the features: the strongest penalty is best, though it fits worst."""
    features = RNG.normal(size=(200, 150)).astype(np.float32)
    labels = (RNG.random(200) < 0.8).astype(int)
    assert fit_probe(features, labels, 2, ridges=[1e-6, 1.0]).ridge == 1.0


def test_features_are_the_networks_and_no_image_is_left_out(digits):
    config = RunConfig(channels="2-3", dense_units="5")
    task = Task.of(config, digits.image_shape, 10, 4000)
    params = initial_state(config, task).params
    images = digits.test.images[:730]
    chunks = list(layer_features(task.layers, params, images))
    assert [len(chunk) for chunk in chunks] == [500, 230]
    np.testing.assert_allclose(np.concatenate(chunks), predict(params, images, task=task), atol=1e-4)
    pixels = next(layer_features((), params, images[:7]))
    np.testing.assert_allclose(pixels, images[:7].reshape(7, -1) / 255, atol=1e-6)


def test_a_probe_reads_digits_off_their_pixels(digits):
    train, test = ((split.images[:1000], split.labels[:1000]) for split in (digits.train, digits.test))
    found = probe_accuracy((), {}, train, test, 10)
    scaled = [images.reshape(len(images), -1) / 255 for images, _ in (train, test)]
    scale = np.sqrt(np.mean(np.sum((scaled[0] - scaled[0].mean(0)) ** 2, axis=1)))
    reference = LogisticRegression(C=1 / (found["ridge"] * 1000), max_iter=300, tol=1e-3)
    reference.fit((scaled[0] - scaled[0].mean(0)) / scale, train[1])
    expected = reference.score((scaled[1] - scaled[0].mean(0)) / scale, test[1])
    assert found["test_accuracy"] == pytest.approx(expected, abs=0.015)
    assert found["features"] == 784
    assert found["train_accuracy"] > found["test_accuracy"] > 0.8
