"""Hostile .keras and .weights.h5 files: they are read or refused, and nothing is written outside their folder."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from convjax.config import RunConfig
from convjax.convert import load_keras, load_keras_model, save_keras
from convjax.convert.keras_layers import KERAS_LAYERS
from convjax.nn.geometry import plan
from tests.helpers.hostile import amounts, feed, json_bytes, mutated, nested
from tests.helpers.limits import read_or_refused

LAYERS = plan(RunConfig(channels="2-3", dense_units="4"), (28, 28, 1), 10)
PARAMS = {
    layer.name: {name: np.zeros(shape) for name, shape in KERAS_LAYERS[layer.kind](layer).weights.items()}
    for layer in LAYERS
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The configuration and the weights in a sound archive."""
    path = tmp_path_factory.mktemp("sound") / "model.keras"
    save_keras(path, PARAMS, LAYERS)
    with zipfile.ZipFile(path) as file:
        return file.read("config.json"), file.read("model.weights.h5")


@pytest.fixture
def inside(tmp_path):
    folder = tmp_path / "arena" / "inside"
    folder.mkdir(parents=True)
    return folder


def archive(config: bytes, weights: bytes, extra: str = "") -> bytes:
    members = {"metadata.json": b"{}", "config.json": config, "model.weights.h5": weights}
    if extra:
        members[extra] = b"x"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


EXTRA = st.sampled_from(["", "", "../evil", "/tmp/evil", "config.json/../../evil", "model.weights.h5"])


@amounts(4, 400)
def test_an_archive_is_read_or_refused(inside, sound, examples):
    config, weights = sound

    def check(content):
        (inside / "model.keras").write_bytes(content)
        read_or_refused(lambda: load_keras_model(inside / "model.keras"), inside)

    configs = json_bytes(json.loads(config)) | st.just(config)
    inputs = st.builds(archive, configs, st.just(weights), EXTRA) | mutated(archive(config, weights))
    always = [archive(nested(config), weights), archive(b" " * (1 << 25), weights), archive(config, weights, "../evil")]
    feed(inputs, check, examples, always)


@amounts(2, 200)
def test_weights_are_read_or_refused(inside, sound, examples):
    def check(content):
        (inside / "model.weights.h5").write_bytes(content)
        read_or_refused(lambda: load_keras(inside / "model.weights.h5", LAYERS), inside)

    feed(mutated(sound[1]), check, examples)
