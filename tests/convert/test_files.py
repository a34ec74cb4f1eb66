"""Keras files: what we write, what we read, and all that we refuse. test_keras.py checks that Keras agrees."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.config import RunConfig
from convjax.convert import contents, load_keras, load_keras_model, reading, save_keras
from convjax.errors import UserError
from convjax.nn.geometry import plan

CONFIG = RunConfig(channels="2-3", dense_units="4", dropout="0.5")
LAYERS = plan(CONFIG, (10, 9, 1), 5)
SHAPES = {
    "conv2d_1": {"kernel": (3, 3, 1, 2), "bias": (2,)},
    "conv2d_2": {"kernel": (3, 3, 2, 3), "bias": (3,)},
    "dense_1": {"kernel": (6, 4), "bias": (4,)},
    "dense_2": {"kernel": (4, 5), "bias": (5,)},
}
_rng = np.random.default_rng(0)
PARAMS = {
    layer: {name: _rng.standard_normal(shape).astype(np.float32) for name, shape in variables.items()}
    for layer, variables in SHAPES.items()
}


def assert_loaded(params, expected=PARAMS):
    assert list(params) == list(expected)
    for layer, variables in expected.items():
        for name, value in variables.items():
            assert params[layer][name].dtype == np.float32
            np.testing.assert_array_equal(params[layer][name], value)


@pytest.fixture
def in_process(monkeypatch):
    """Reads files in this process, which is quicker; other tests cover the separate process."""
    monkeypatch.setattr(reading, "read_apart", contents.read)


def weights_file(path, change=lambda file: None):
    """A sound `.weights.h5` with a change."""
    save_keras(path, PARAMS, LAYERS)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def keras2_file(path, *, group="model_weights", config=True, pieces=1):
    """A whole-model file as tf.keras 2 writes it: names in attributes, variables under `NAME/NAME/kernel:0`."""
    names = {
        "conv2d": "conv2d_1",
        "max_pooling2d": "",
        "zoom": "conv2d_2",
        "flatten": "",
        "a": "dense_1",
        "b": "dense_2",
    }
    with h5py.File(path, "w") as file:
        weights = file.create_group(group) if group else file
        parts = np.array_split(np.array([name.encode() for name in names]), pieces)
        for index, part in enumerate(parts):
            weights.attrs["layer_names" if pieces == 1 else f"layer_names{index}"] = part
        for name, layer in names.items():
            variables = weights.create_group(name)
            paths = [f"{name}/{variable}:0" for variable in ("kernel", "bias")] if layer else []
            variables.attrs["weight_names"] = [path.encode() for path in paths]
            for key, value in zip(paths, PARAMS[layer].values() if layer else (), strict=True):
                variables[key] = value
        if config:
            file.attrs["model_config"] = json.dumps(KERAS2_CONFIG).encode()
    return path


def _keras2_layer(kind, **config):
    return {"class_name": kind, "config": config}


KERAS2_CONFIG = {
    "class_name": "Sequential",
    "config": {
        "name": "sequential",
        "layers": [
            _keras2_layer(
                "Conv2D", name="conv2d", batch_input_shape=[None, 10, 9, 1], filters=2, kernel_size=[3, 3],
                strides=[1, 1], padding="valid", data_format="channels_last", dilation_rate=[1, 1], groups=1,
                activation="relu", use_bias=True,
            ),
            _keras2_layer("MaxPooling2D", name="max_pooling2d", pool_size=[2, 2], strides=[2, 2], padding="valid"),
            _keras2_layer("Conv2D", name="zoom", filters=3, kernel_size=[3, 3], activation="relu", use_bias=True),
            _keras2_layer("Flatten", name="flatten", data_format="channels_last"),
            _keras2_layer("Dropout", name="dropout", rate=0.5, noise_shape=None, seed=None),
            _keras2_layer("Dense", name="a", units=4, activation="relu", use_bias=True),
            _keras2_layer("Dense", name="b", units=5, activation="softmax", use_bias=True),
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5"])
def test_what_is_saved_is_loaded(name, tmp_path):
    save_keras(tmp_path / name, PARAMS, LAYERS)
    first = (tmp_path / name).read_bytes()
    assert_loaded(load_keras(tmp_path / name, LAYERS))
    save_keras(str(tmp_path / name), PARAMS, LAYERS)
    assert (tmp_path / name).read_bytes() == first
    assert os.listdir(tmp_path) == [name]


def test_an_archive_brings_its_architecture(tmp_path):
    save_keras(tmp_path / "x.keras", PARAMS, LAYERS)
    model = load_keras_model(tmp_path / "x.keras")
    assert (model.config, model.layers) == (CONFIG, LAYERS)
    assert_loaded(model.params)


def test_saving_refuses_what_it_cannot_write_and_keeps_the_old_file(tmp_path):
    with pytest.raises(UserError, match=r"x\.h5: unknown kind of file; expected a name that ends in \.keras or"):
        save_keras(tmp_path / "x.h5", PARAMS, LAYERS)
    save_keras(tmp_path / "x.keras", PARAMS, LAYERS)
    good = (tmp_path / "x.keras").read_bytes()
    for broken in (
        {name: variables for name, variables in PARAMS.items() if name != "dense_2"},
        PARAMS | {"dense_2": {"kernel": PARAMS["dense_2"]["kernel"].T, "bias": PARAMS["dense_2"]["bias"]}},
    ):
        with pytest.raises(UserError, match=r"dense_2 has no kernel of shape \(4, 5\)"):
            save_keras(tmp_path / "x.keras", broken, LAYERS)
    assert (tmp_path / "x.keras").read_bytes() == good
    assert os.listdir(tmp_path) == ["x.keras"]


@pytest.mark.parametrize("options", [{}, {"group": ""}, {"pieces": 3}])
def test_keras_2_files_load_by_order(options, tmp_path):
    path = keras2_file(tmp_path / "x.h5", **options)
    assert_loaded(load_keras(path, LAYERS))
    model = load_keras_model(path)
    assert (model.config, model.layers) == (CONFIG, LAYERS)
    assert_loaded(model.params)


def test_early_keras_3_files_load(tmp_path, in_process):
    path = weights_file(tmp_path / "x.weights.h5", lambda file: file.move("layers", "_layer_checkpoint_dependencies"))
    assert_loaded(load_keras(path, LAYERS))


def _replace(file, key, **options):
    data = options.pop("data") if "data" in options else file[key][()]
    del file[key]
    return file.create_dataset(key, data=data, **options)


KERNEL = "layers/conv2d_1/vars/0"
HARMLESS = {
    "compressed": lambda file: _replace(file, KERNEL, compression="gzip", shuffle=True, fletcher32=True),
    "big-endian": lambda file: _replace(file, KERNEL, dtype=">f4"),
    "double": lambda file: _replace(file, KERNEL, dtype="f8"),
    "an optimizer": lambda file: file.create_dataset("optimizer/vars/0", data=7),
    "a dropout's generator": lambda file: file.create_dataset("layers/dropout/seed_generator/vars/0", data=[1, 2]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_ways_to_keep_the_same_numbers(name, tmp_path, in_process):
    assert_loaded(load_keras(weights_file(tmp_path / "x.weights.h5", HARMLESS[name]), LAYERS))


def test_nan_and_infinity_load(tmp_path, in_process):
    params = {layer: {name: value.copy() for name, value in variables.items()} for layer, variables in PARAMS.items()}
    params["conv2d_1"]["bias"][:] = np.nan, -np.inf
    save_keras(tmp_path / "x.weights.h5", params, LAYERS)
    assert_loaded(load_keras(tmp_path / "x.weights.h5", LAYERS), params)


def _external(file):
    with open(f"{file.filename}.raw", "wb") as raw:
        raw.write(bytes(4 * 54))
    _replace(file, KERNEL, data=None, shape=(3, 3, 2, 3), dtype="f4", external=f"{file.filename}.raw")


def _virtual(file):
    layout = h5py.VirtualLayout(shape=(3, 3, 2, 3), dtype="f4")
    layout[:] = h5py.VirtualSource(file.filename, KERNEL, shape=(3, 3, 2, 3))
    file.move(KERNEL, "kept")
    file.create_virtual_dataset(KERNEL, layout)


def _link(key, link):
    def change(file):
        file.move(key, "kept")
        file[key] = link(file)

    return change


def _delete(key):
    return lambda file: file.__delitem__(key)


def _bomb(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, shape=(2**20, 2**12), dtype="f4", chunks=(2**10, 2**10), compression="gzip")


def _lzf(file):
    _replace(file, KERNEL, compression="lzf")


REFUSED_WEIGHTS = {
    "external link": (_link(KERNEL, lambda file: h5py.ExternalLink(file.filename, "kept")), "link"),
    "soft link": (_link(KERNEL, lambda file: h5py.SoftLink("/kept")), "soft or external link"),
    "soft link to a group": (_link("layers/dense", lambda file: h5py.SoftLink("/kept")), "soft or external link"),
    "soft link to all": (_link("layers", lambda file: h5py.SoftLink("/kept")), "its 'layers' is a soft or external"),
    "external dataset": (_external, "is kept in another file"),
    "virtual dataset": (_virtual, "is a virtual dataset"),
    "plug-in filter": (_lzf, "unknown filter"),
    "bomb": (_bomb, "out of proportion"),
    "integers": (lambda file: _replace(file, KERNEL, dtype="i4"), "is of type int32; expected floating point"),
    "texts": (lambda file: _replace(file, KERNEL, data=["a", "b"]), "is of type object; expected floating point"),
    "a group for a dataset": (lambda file: (_delete(KERNEL)(file), file.create_group(KERNEL)), "is not a dataset"),
    "a dataset for a group": (lambda file: _replace(file, "layers/dense", data=1), "cannot be read as a Keras file"),
    "shape": (
        lambda file: _replace(file, KERNEL, data=np.zeros((3, 3, 3, 2), "f4")),
        "its layer 'conv2d_1' has shapes [(3, 3, 3, 2), (3,)]; conv2d_2 has {'kernel': (3, 3, 2, 3), 'bias': (3,)}",
    ),
    "scalar": (lambda file: _replace(file, KERNEL, data=np.float32(1)), "has shapes [(), (3,)]"),
    "missing layer": (_delete("layers/conv2d_1"), "of conv2d, dense, dense_1; the network has conv2d, conv2d_1"),
    "further layer": (lambda file: file.copy("layers/dense", "layers/dense_2"), "dense_1, dense_2; the network has"),
    "missing bias": (_delete("layers/dense/vars/1"), "layer 'dense' has shapes [(6, 4)]; dense_1 has"),
    "missing kernel": (_delete("layers/dense/vars/0"), "object '0' doesn't exist"),
    "further variable": (lambda file: file.create_dataset("layers/dense/vars/2", data=[1.0]), "(6, 4), (4,), (1,)]"),
    "no layers": (_delete("layers"), "not one with a Keras model's weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_WEIGHTS)
def test_weights_are_refused(name, tmp_path, in_process):
    change, message = REFUSED_WEIGHTS[name]
    path = weights_file(tmp_path / "x.weights.h5", change)
    expect_refusal(path, message, lambda: load_keras(path, LAYERS))


def expect_refusal(path, message, load):
    with pytest.raises(UserError) as error:
        load()
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 600


def archive(path, change=lambda members: members, **options):
    """A sound `.keras` with changed members."""
    save_keras(path, PARAMS, LAYERS)
    with zipfile.ZipFile(path) as old:
        members = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", **options) as new:
        for name, content in change(members):
            new.writestr(name, content)
    return path


def _put(name, content):
    return lambda members: [(key, content if key == name else value) for key, value in members]


def _config(change):
    """The configuration after `change`, which gets the model and its list of layers."""

    def apply(members):
        model = json.loads(dict(members)["config.json"])
        change(model, model["config"]["layers"])
        return _put("config.json", json.dumps(model).encode())(members)

    return apply


def _without_shape(model, layers):
    del layers[0], model["build_config"], model["config"]["build_input_shape"]


def _set(index, **values):
    return _config(lambda model, layers: layers[index]["config"].update(values))


REFUSED_ARCHIVES = {
    "no configuration": (lambda members: members[:1] + members[2:], "has 0 members 'config.json'"),
    "no weights": (lambda members: members[:2], "has 0 members 'model.weights.h5'"),
    "no HDF5": (_put("model.weights.h5", b"PK weights"), "a .keras archive whose weights are not an HDF5 file"),
    "no JSON": (_put("config.json", b"{'class_name'"), "as a Keras file (JSONDecodeError: Expecting property"),
    "no text": (_put("config.json", b"\xff\xfe\xfd"), "cannot be read as a Keras file"),
    "deep JSON": (_put("config.json", b"[" * 200_000), "cannot be read as a Keras file"),
    "no object": (_put("config.json", b"[1]"), "its architecture is not a JSON object"),
    "large configuration": (_put("config.json", b" " * (2**24 + 1)), "claims 16,777,217 bytes"),
    "no layers": (_config(lambda model, layers: model["config"].pop("layers")), "no proper list of layers"),
    "layers of no kind": (_config(lambda model, layers: layers.append(3)), "no proper list of layers"),
    "many layers": (_config(lambda model, layers: layers.extend([layers[1]] * 1000)), "expected at most 1000"),
    "empty": (_config(lambda model, layers: layers.clear()), "no proper list of layers"),
    "own class": (_config(lambda model, layers: layers[1].update(registered_name="My>Conv2D")), "does not know"),
    "class of no kind": (_config(lambda model, layers: layers[1].update(class_name=["a"])), "is of class ['a']"),
    "no shape": (_config(_without_shape), "input shape is None"),
    "unknown size": (_set(0, batch_shape=[None, None, None, 1]), "input shape is None; expected a whole number"),
    "no image": (_set(0, batch_shape=[None, 784]), "the model's input shape is [None, 784]"),
    "negative": (_set(1, filters=-1), "'conv2d_1' (Conv2D): filters is -1; expected a whole number from 1"),
    "fraction": (_set(1, kernel_size=[3, 2.5]), "kernel_size is 2.5"),
    "true": (_set(1, strides=[True, 1]), "strides is True"),
    "vast": (_set(1, filters=10**30), "filters is 1000000000000000000000000000000"),
    "window of three": (_set(1, kernel_size=[3, 3, 3]), "--kernel_size: '3x3' is not a whole number from 1 to 65536"),
    "channels first": (_set(1, data_format="channels_first"), "data_format is 'channels_first'; expected 'cha"),
    "padding": (_set(1, padding="causal"), "--padding='causal' is not known; expected one of valid, same"),
    "rate": (_set(5, rate=1.5), "rate is 1.5; expected 0 <= rate < 1"),
    "larger than memory": (_set(6, units=65_536), "has shapes [(6, 4), (4,)]; dense_1 has {'kernel': (6, 65536)"),
    "kernel larger than image": (_set(1, kernel_size=[11, 11]), "kernel is larger than the 10x9 feature map"),
    "other weights": (_set(3, filters=4), "has shapes [(3, 3, 2, 3), (3,)]; conv2d_2 has {'kernel': (3, 3, 2, 4)"),
    "hidden softmax": (_set(6, activation="softmax"), "softmax"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_ARCHIVES)
def test_archives_are_refused(name, tmp_path, in_process):
    change, message = REFUSED_ARCHIVES[name]
    path = archive(tmp_path / "x.keras", change)
    expect_refusal(path, message, lambda: load_keras_model(path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_answers_is_refused(tmp_path, in_process):
    path = archive(tmp_path / "x.keras", lambda members: [*members, members[2]])
    expect_refusal(path, "has 2 members 'model.weights.h5'", lambda: load_keras(path, LAYERS))


def test_compressed_archives_load_but_not_by_every_method(tmp_path, in_process):
    assert_loaded(load_keras(archive(tmp_path / "x.keras", compression=zipfile.ZIP_DEFLATED), LAYERS))
    path = archive(tmp_path / "x.keras", compression=zipfile.ZIP_LZMA)
    expect_refusal(path, "compressed by an unexpected method (14)", lambda: load_keras(path, LAYERS))


def test_zip_bombs_are_refused_before_they_unpack(tmp_path, in_process):
    bomb = _put("model.weights.h5", bytes(70 * 2**20))
    path = archive(tmp_path / "x.keras", bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    expect_refusal(path, "claims 73,400,320 bytes, out of proportion", lambda: load_keras(path, LAYERS))
    # The size that the archive states may be a lie.
    content = path.read_bytes().replace((70 * 2**20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(content)
    expect_refusal(path, "", lambda: load_keras(path, LAYERS))


def test_an_encrypted_archive_is_refused(tmp_path, in_process):
    path = archive(tmp_path / "x.keras")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = content.find(signature)
        while position >= 0:
            content[position + flags] |= 1
            position = content.find(signature, position + 4)
    path.write_bytes(content)
    expect_refusal(path, "is encrypted", lambda: load_keras(path, LAYERS))


def test_other_kinds_of_files_are_refused(tmp_path):
    def refuse(path, message):
        expect_refusal(path, message, lambda: load_keras(path, LAYERS))
        expect_refusal(path, message, lambda: load_keras_model(path))

    refuse(tmp_path / "none.keras", "no such file")
    refuse(tmp_path, "it is not a file")
    os.mkfifo(tmp_path / "pipe.keras")
    refuse(tmp_path / "pipe.keras", "it is not a file")
    for content in (b"", b"P", b"PK", b"\x89HDF", b"import os"):
        (tmp_path / "x.keras").write_bytes(content)
        refuse(
            tmp_path / "x.keras", "cannot be read" if content == b"PK" else "neither a .keras archive nor an HDF5 file"
        )
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["temperature"] = [1.0]
    refuse(tmp_path / "other.h5", "it is an HDF5 file, but not one with a Keras model's weights")


def test_weights_alone_bring_no_architecture(tmp_path):
    path = weights_file(tmp_path / "x.weights.h5")
    expect_refusal(path, "weights without an architecture", lambda: load_keras_model(path))
    path = keras2_file(tmp_path / "x.h5", config=False)
    expect_refusal(path, "weights without an architecture", lambda: load_keras_model(path))


def good_files():
    """A sound file of each kind, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        made = (
            archive(Path(folder, "x.keras")),
            weights_file(Path(folder, "x.weights.h5")),
            keras2_file(Path(folder, "x.h5")),
        )
        return [path.read_bytes() for path in made]


GOOD = good_files()


def damage(content, cut, flips):
    """The first part of `content`, with some bits flipped."""
    changed = bytearray(content[: max(1, round(cut * len(content)))])
    for position, bit in flips:
        changed[round(position * (len(changed) - 1))] ^= 1 << bit
    return bytes(changed)


positions = st.floats(0, 1)
flips = st.lists(st.tuples(positions, st.integers(0, 7)), min_size=1, max_size=12)


def loaded_or_refused(load, path):
    """What `load` returns, or None if it refuses `path` with a UserError that names it."""
    try:
        return load(path)
    except UserError as error:
        return None if str(error).startswith(f"{path}: ") else pytest.fail(str(error))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(kind=st.sampled_from([0, 1]), cut=st.one_of(st.just(1.0), positions), flips=flips)
def test_damage_ends_in_a_user_error_or_in_numbers(kind, cut, flips, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.keras"
    path.write_bytes(damage(GOOD[kind], cut, flips))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "read_apart", contents.read)
        params = loaded_or_refused(lambda path: load_keras(path, LAYERS), path)
        model = loaded_or_refused(load_keras_model, path)
    for found in (params, model and model.params):
        if found is not None:
            assert {layer: {name: value.shape for name, value in found[layer].items()} for layer in found} == SHAPES


@settings(max_examples=8, deadline=None)
@given(cut=st.one_of(st.just(1.0), positions), flips=flips)
def test_damage_that_crashes_hdf5_does_not_crash_us(cut, flips, tmp_path_factory):
    """libhdf5 itself crashes or hangs on some of these, so they are read in a separate process."""
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    path.write_bytes(damage(GOOD[2], cut, flips))
    loaded_or_refused(lambda path: load_keras(path, LAYERS), path)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "the HDF5 library crashed on it, code -11"),
        (
            "import h5py_is_missing",
            "cannot be read as a Keras file (ModuleNotFoundError: No module named 'h5py_is_missing')",
        ),
    ],
)
def test_a_reader_that_dies_is_a_user_error(program, message, tmp_path, monkeypatch):
    (tmp_path / "reader.py").write_text(program)
    monkeypatch.setattr(contents, "__file__", str(tmp_path / "reader.py"))
    path = weights_file(tmp_path / "x.weights.h5")
    expect_refusal(path, message, lambda: load_keras(path, LAYERS))


def test_a_reader_that_hangs_is_a_user_error(tmp_path, monkeypatch):
    def run(*arguments, timeout, **options):
        assert timeout < 60
        raise subprocess.TimeoutExpired(arguments, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    path = weights_file(tmp_path / "x.weights.h5")
    expect_refusal(path, "reading it takes too long", lambda: load_keras(path, LAYERS))


def test_the_reader_passes_everything_on(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(GOOD[2])
    apart, within = contents.read_apart(path), contents.read(path)
    assert not apart.keyed_by_class
    assert (apart.keyed_by_class, apart.config, list(apart.layers)) == (False, within.config, list(within.layers))
    for name, variables in within.layers.items():
        for ours, theirs in zip(variables, apart.layers[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    path.write_bytes(b"text")
    with pytest.raises(contents.Refused, match=r"neither a \.keras archive nor an HDF5 file"):
        contents.read_apart(path)


def test_the_separate_process_has_limits(tmp_path):
    path = weights_file(tmp_path / "x.weights.h5")
    program = (
        f"import resource, sys; from convjax.convert import contents; contents._main({str(path)!r});"
        "names = 'RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_FSIZE', 'RLIMIT_CORE';"
        "print(*(resource.getrlimit(getattr(resource, name))[0] for name in names), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    memory, seconds, *rest = map(int, done.stderr.split())
    assert 0 < memory < 5 * 2**30
    assert 0 < seconds < 60
    assert rest == [0, 0]
