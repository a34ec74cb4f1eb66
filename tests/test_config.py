"""RunConfig: one network has one notation and one digest, and what makes no sense is refused by flag."""

import dataclasses
import json
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convjax.config import (
    ACTIVATIONS,
    CONVOLUTIONS,
    FIELD_NAMES,
    OPTIMIZERS,
    PADDINGS,
    POOLS,
    PRECISIONS,
    SCHEDULES,
    RunConfig,
    field_type,
)
from convjax.errors import UserError

# Run folders are named by these. A change makes every finished run be done again and is legitimate only when what a
# field means has changed (then raise `_DIGEST_VERSION`): say so in CHANGELOG.md. Defaults of new fields are left out.
CHAPTER_JSON = (
    '{"activation":"relu","augment":"","batch_size":64,"channels":"32-64-64","conv":"auto","dataset":"mnist",'
    '"dense_units":"64","dropout":"0","epochs":5,"kernel_size":"3","learning_rate":0.001,"model":"convnet",'
    '"momentum":0.0,"optimizer":"rmsprop","padding":"valid","pool":"max","pool_size":"2","pool_stride":"0",'
    '"precision":"float32","schedule":"constant","seed":0,"stride":"1","train_size":0,"validation_size":0,'
    '"warmup_steps":0,"weight_decay":0.0}'
)
DIGESTS = {
    "a011f258413b33ba": RunConfig(),
    "556a6e74fd3e65aa": RunConfig(model="dense"),
    "836d563e1536501c": RunConfig(model="local", head="gap", pixels="permuted"),
    "f1d36bdc331af033": RunConfig(
        kernel_size="3x5-2-1", pool="max-none-avg", dropout="0-0.25-0-0.5", activation="tanh", seed=7
    ),
}


def test_golden_digests():
    assert RunConfig().canonical_json == CHAPTER_JSON
    assert {config.digest: config for config in DIGESTS.values()} == DIGESTS


def test_the_defaults_are_the_chapters():
    config = RunConfig()
    assert config.layer_channels == (32, 64, 64)
    assert config.layer_kernel_sizes == ((3, 3),) * 3
    assert config.layer_strides == ((1, 1),) * 3
    assert config.layer_paddings == ("valid",) * 3
    assert config.layer_pools == ("max", "max", "none")
    assert config.layer_pool_sizes == config.layer_pool_strides == ((2, 2),) * 3
    assert config.hidden_units == (64,)
    assert config.layer_activations == ("relu",) * 4
    assert config.layer_dropout == (0.0,) * 4
    assert (config.optimizer, config.learning_rate, config.batch_size, config.epochs) == ("rmsprop", 1e-3, 64, 5)


def test_small_data_has_the_books_defaults():
    config = RunConfig(model="small_data")
    assert config.layer_channels == (32, 64, 128, 128)
    assert config.layer_pools == ("max",) * 4
    assert config.hidden_units == (512,)
    assert (config.optimizer, config.learning_rate) == ("rmsprop", 1e-4)
    assert RunConfig(model="small_data", channels="8-8").layer_pools == ("max", "max")


def test_another_model_brings_its_own_defaults_and_keeps_what_was_set():
    assert RunConfig().replace(model="small_data") == RunConfig(model="small_data")
    assert RunConfig(model="small_data", seed=3).replace(model="dense") == RunConfig(model="dense", seed=3)
    changed = RunConfig(channels="8-8", learning_rate=0.01).replace(model="small_data")
    assert changed == RunConfig(model="small_data", channels="8-8", learning_rate=0.01)
    assert RunConfig().replace(model="small_data", learning_rate=1e-3).learning_rate == 1e-3


# Each line: notations of one network.
SAME = [
    [{}, {"kernel_size": "3x3"}, {"kernel_size": "3-3-3"}, {"kernel_size": "3x3-3-03"}, {"kernel_size": 3}],
    [{}, {"kernel_size": " 3 "}, {"pool": "max-max-none"}, {"pool": "max"}, {"momentum": -0.0}, {"momentum": "-0"}],
    [{"stride": "1x2"}, {"stride": "1x2-1x2-1x2"}],
    [{"padding": "same"}, {"padding": "same-same-same"}],
    [{"pool": "none"}, {"pool": "none-none-none"}, {"pool": "none+"}],
    [{"pool": "max+"}, {"pool": "max-max-max"}],
    [{"channels": "32", "pool": "max"}, {"channels": "32", "pool": "none+"}],
    [{"pool": "none"}, {"pool": "none", "pool_size": "3"}, {"pool": "none", "pool_stride": "1"}],
    [{"pool_stride": "2"}, {"pool_stride": "2x2-0-2"}, {"pool_stride": "0x2"}, {}],
    [{"pool_size": "3x2"}, {"pool_size": "3x2", "pool_stride": "3x2"}],
    [{"pool_size": "3x2"}, {"pool_size": "3x2-3x2-9", "pool_stride": "0-3x0-1"}],
    [{"pool": "none-avg-none", "pool_size": "5-2-7"}, {"pool": "none-avg-none"}],
    [{"activation": "elu"}, {"activation": "elu-elu-elu-elu"}],
    [{"dropout": "0.5"}, {"dropout": ".50"}, {"dropout": "0-0-0.5-0"}, {"dropout": 0.5}],
    [{"dropout": "0.0"}, {"dropout": "0-0-0-0"}, {"dropout": "0.00000000001"}, {}],
    [{"dense_units": ""}, {"dense_units": "64"}, {"dense_units": "064"}, {"dense_units": 64}],
    [{"dense_units": "0"}, {"dense_units": 0}, {"dense_units": "00"}],
    [{"model": "dense"}, {"model": "dense", "dense_units": "512"}],
    [
        {"model": "dense", "dense_units": "9-8", "dropout": "0.2"},
        {"model": "dense", "dense_units": "9-8", "dropout": "0.2-0.2"},
    ],
    [
        {"model": "dense", "dense_units": "0"},
        {"model": "dense", "dense_units": "0", "activation": "elu", "dropout": "0.5"},
    ],
    [{"model": "small_data"}, {"model": "small_data", "channels": "32-64-128-128", "pool": "max-max-max-max"}],
    [{}, {"channels": "32-64-64", "pool": ""}, {"learning_rate": None}, {"learning_rate": ""}],
    [{"augment": "rotate=10+shift=0.1"}, {"augment": "shift=0.1x0.10+rotate=10.0+fill=nearest"}],
    [{"augment": "chollet"}, {"augment": "rotate=40+shift=0.2+shear=0.2+zoom=0.2+flip"}, {"augment": "flip+chollet"}],
    [{"augment": ""}, {"augment": "rotate=0"}, {}],
    [{"learning_rate": 1}, {"learning_rate": "1.0"}, {"learning_rate": "1e0"}],
    [{"epochs": "5"}, {"epochs": 5.0}, {}],
]


@pytest.mark.parametrize("notations", SAME, ids=lambda notations: str(notations[0]))
def test_notations_of_one_network_are_one(notations):
    configs = {RunConfig(**values) for values in notations}
    assert len(configs) == 1
    assert len({RunConfig(**values).digest for values in notations}) == 1


DIFFERENT = [
    {},
    {"kernel_size": "5"},
    {"kernel_size": "3-3-5"},
    {"kernel_size": "3x5"},
    {"kernel_size": "5x3"},
    {"padding": "same"},
    {"stride": "2-1-1"},
    {"pool": "avg"},
    {"pool": "none"},
    {"pool": "max-max-max"},
    {"channels": "32"},
    {"channels": "32", "pool": "max+"},
    {"channels": "32", "pool": "avg+"},
    {"pool_size": "3"},
    {"pool_stride": "1"},
    {"dense_units": "64-64"},
    {"dense_units": "0"},
    {"dropout": "0.5"},
    {"dropout": "0.5-0.5-0.5-0.5"},
    {"activation": "relu-relu-relu-elu"},
    {"conv": "patches"},
    {"seed": 1},
    {"learning_rate": 0.0010000001},
    {"model": "dense"},
    {"augment": "shift=0.1"},
    {"image_size": "14"},
    {"image_size": "14x28"},
    {"color": "rgb"},
    {"dataset": "folder:photos"},
    {"dataset": "folder:photos", "skip_corrupt": True},
    {"model": "local"},
    {"head": "gap"},
    {"pixels": "permuted"},
    {"label_smoothing": 0.1},
    {"early_stopping": 3},
    {"weight_decay": 0.01},
]


def test_pooling_after_every_convolution_is_one_value_for_any_number_of_them():
    config = RunConfig(pool="max-max-max")
    assert config.pool == "max+"
    assert config.replace(channels="8-16").layer_pools == ("max", "max")
    assert '"pool":"max-max-max"' in config.canonical_json  # as before there was such a notation
    assert '"pool":"max+"' in config.replace(channels="8").canonical_json


def test_settings_of_the_data():
    config = RunConfig(dataset="folder:photos", image_size="0150x150", color="grey", skip_corrupt="true")
    assert config.data_settings == {"image_size": "150", "color": "grey", "skip_corrupt": True}
    assert RunConfig().data_settings == {}
    assert RunConfig(image_size="150x150").digest == RunConfig(image_size="150").digest


def test_different_runs_have_different_digests():
    assert len({RunConfig(**values).digest for values in DIFFERENT}) == len(DIFFERENT)


REFUSED = [
    ({"dataset": ""}, "--dataset is empty"),
    ({"model": "resnet"}, "--model='resnet' is not known; expected one of convnet, local, dense"),
    ({"kernel_size": "0"}, "--kernel_size: '0' is not a whole number from 1"),
    ({"kernel_size": "3-3"}, "--kernel_size has 2 values for 3 convolutions; give one value for all, or 3 joined by"),
    ({"kernel_size": "3,5"}, "--kernel_size: '3,5' is not a whole number"),
    ({"kernel_size": "3x"}, "--kernel_size: '' is not a whole number"),
    ({"kernel_size": "3x3x3"}, "'3x3' is not"),
    ({"kernel_size": "-3"}, "'' is not"),
    ({"kernel_size": "3.0"}, "'3.0' is not"),
    ({"kernel_size": "1_0"}, "'1_0' is not"),
    ({"kernel_size": "٣"}, "'٣' is not"),
    ({"kernel_size": ""}, "--kernel_size: '' is not"),
    ({"kernel_size": "65537"}, "to 65536"),
    ({"kernel_size": "9" * 5000}, "to 65536"),
    ({"pool_stride": "0" * 12 + "9" * 9}, "to 65536"),
    ({"kernel_size": True}, "--kernel_size=True: expected text"),
    ({"kernel_size": [3]}, "--kernel_size=[3]: expected text"),
    ({"channels": "32--64"}, "--channels: '' is not"),
    ({"padding": "causal"}, "--padding='causal' is not known; expected one of valid, same"),
    ({"padding": "same-valid"}, "--padding has 2 values for 3 convolutions"),
    ({"stride": "0x1"}, "--stride: '0' is not"),
    ({"pool": "median"}, "--pool='median' is not known; expected one of max, avg, none"),
    ({"pool": "max-avg"}, "--pool has 2 values for 3 convolutions"),
    ({"pool": "max+-avg-max"}, "--pool='max+' is not known"),
    ({"pool": "max-avg-max+"}, "--pool=max-avg-max+: '+' goes with one value, such as max+, not a list"),
    ({"pool": "+"}, "--pool='' is not known"),
    ({"pool_size": "0"}, "--pool_size: '0' is not"),
    ({"dense_units": "64-0"}, "--dense_units=64-0: a layer of 0 units"),
    ({"dense_units": "0-0"}, "a layer of 0 units"),
    ({"activation": "softmax"}, "--activation='softmax' is not known; expected one of relu"),
    ({"activation": "relu-elu"}, "--activation has 2 values for 4 hidden layers"),
    ({"dropout": "1"}, "--dropout: '1' is not a rate; expected 0 <= rate < 1"),
    ({"dropout": "0.99999999999"}, "is not a rate"),
    ({"dropout": "nan"}, "is not a rate"),
    ({"dropout": "-0.1"}, "is not a rate"),
    ({"dropout": "0.1-0.2"}, "--dropout has 2 values for 4 hidden layers"),
    ({"optimizer": "lion"}, "--optimizer='lion' is not known"),
    ({"schedule": "step"}, "--schedule='step' is not known"),
    ({"precision": "float16"}, "--precision='float16' is not known; expected one of float32, bfloat16"),
    ({"image_size": "0x0"}, "--image_size='0x0' is not understood; expected N or HxW, such as 150 or 120x160"),
    ({"image_size": "4097"}, "with sides from 1 to 4096"),
    ({"image_size": "-1"}, "--image_size='-1' is not understood"),
    ({"color": "red"}, "--color='red' is not known; expected one of auto, grey, rgb"),
    ({"skip_corrupt": "maybe", "dataset": "folder:x"}, "--skip_corrupt='maybe': expected true or false"),
    ({"skip_corrupt": True}, "--skip_corrupt has no effect with --dataset=mnist, only with folder:PATH"),
    ({"conv": "fft"}, "--conv='fft' is not known; expected one of auto, xla, patches, winograd"),
    ({"learning_rate": 0}, "--learning_rate=0 is out of range; expected more than 0"),
    ({"learning_rate": "fast"}, "--learning_rate=fast: expected a number, such as 0.001"),
    ({"learning_rate": float("nan")}, "expected a number"),
    ({"learning_rate": "inf"}, "expected a number"),
    ({"momentum": 1.0}, "expected 0 <= momentum < 1"),
    ({"momentum": 0.9, "optimizer": "adam"}, "--momentum=0.9 needs --optimizer=sgd or rmsprop, not adam"),
    ({"weight_decay": -0.1}, "--weight_decay=-0.1 is out of range"),
    ({"label_smoothing": 1}, "--label_smoothing=1 is out of range; expected 0 <= label_smoothing < 1"),
    ({"early_stopping": -1}, "--early_stopping=-1 is out of range; expected at least 0"),
    ({"augment": "spin=3"}, "--augment=spin=3: 'spin=3' is not understood; expected rotate=40"),
    ({"model": "dense", "pool": "max+"}, "--pool=max+ has no effect with --model=dense"),
    ({"batch_size": 0}, "--batch_size=0 is out of range; expected at least 1"),
    ({"epochs": 2.5}, "--epochs=2.5: expected a whole number, such as 5"),
    ({"epochs": True}, "expected a whole number"),
    ({"epochs": None}, "expected a whole number"),
    ({"seed": -1}, "--seed=-1 is out of range; expected at least 0"),
    ({"seed": 2**31}, "expected a whole number"),
    ({"train_size": -5}, "--train_size=-5"),
    ({"model": "dense", "kernel_size": "5"}, "--kernel_size=5 has no effect with --model=dense"),
    ({"model": "dense", "head": "gap"}, "--head=gap has no effect with --model=dense, which has no convolutions"),
    ({"model": "local", "conv": "xla"}, "--conv=xla has no effect with --model=local"),
    ({"head": "max"}, "--head='max' is not known; expected one of flatten, gap"),
    ({"pixels": "shuffled"}, "--pixels='shuffled' is not known; expected one of grid, permuted"),
    ({"model": "dense", "activation": "relu-elu"}, "--activation has 2 values for 1 hidden layer;"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused_by_flag(values, message):
    with pytest.raises(UserError) as error:
        RunConfig(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_single_value_of_dropout_stands_before_the_classifier():
    assert RunConfig(dropout="0.5").layer_dropout == (0, 0, 0.5, 0)
    assert RunConfig(dropout="0.1-0.2-0.3-0.4").layer_dropout == (0.1, 0.2, 0.3, 0.4)
    assert RunConfig(model="dense", dense_units="8-8", dropout="0.5").layer_dropout == (0.5, 0.5)


def test_pool_stride_zero_is_the_window_along_each_axis():
    config = RunConfig(pool_size="3x2-2-2", pool_stride="0x1-1-0")
    assert config.layer_pool_strides[:2] == ((3, 1), (1, 1))


def test_from_dict_refuses_unknown_fields():
    with pytest.raises(UserError, match="unknown configuration field 'kernels'; known: dataset, model"):
        RunConfig.from_dict({"kernels": 3})


def test_a_record_from_before_a_field_was_added_is_read_and_keeps_its_digest():
    record = json.loads(CHAPTER_JSON) | {"backend": "cpu", "digest": "?"}
    assert "early_stopping" not in record
    assert RunConfig.from_record(record) == RunConfig()
    del record["seed"]
    with pytest.raises(KeyError, match="seed"):
        RunConfig.from_record(record)


def test_configurations_are_values():
    config = RunConfig()
    assert {RunConfig(): 1}[RunConfig(kernel_size="3x3")] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert config.replace(seed=3).seed == 3
    assert config.seed == 0
    with pytest.raises(UserError):
        config.replace(kernel_size="x")
    assert {field_type(name) for name in FIELD_NAMES} == {str, int, float, bool}


windows = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda pair: f"{pair[0]}x{pair[1]}")


@st.composite
def configurations(draw):
    """Keyword arguments of a convnet, in long-winded notation."""
    depth, hidden = draw(st.integers(1, 4)), draw(st.integers(0, 3))

    def joined(values, count):
        return "-".join(str(value) for value in draw(st.lists(values, min_size=count, max_size=count)))

    optimizer = draw(st.sampled_from(OPTIMIZERS))
    rates = st.floats(0, 0.99).map(lambda rate: f"{rate:.4f}")
    return {
        "channels": joined(st.integers(1, 128), depth),
        "kernel_size": joined(windows, depth),
        "padding": joined(st.sampled_from(PADDINGS), depth),
        "stride": joined(windows, depth),
        # One value alone is the one between convolutions.
        "pool": joined(st.sampled_from(POOLS), depth) + "+" * (depth == 1),
        "pool_size": joined(windows, depth),
        "pool_stride": joined(st.one_of(st.just("0"), windows), depth),
        "dense_units": joined(st.integers(1, 64), hidden) if hidden else "0",
        "activation": joined(st.sampled_from(ACTIVATIONS), depth + hidden),
        "dropout": joined(rates, depth + hidden),
        "optimizer": optimizer,
        "learning_rate": draw(st.floats(1e-8, 10)),
        "momentum": draw(st.floats(0, 0.99)) if optimizer in ("sgd", "rmsprop") else 0.0,
        "weight_decay": draw(st.floats(0, 1)),
        "label_smoothing": draw(st.floats(0, 0.99)),
        "early_stopping": draw(st.integers(0, 9)),
        "schedule": draw(st.sampled_from(SCHEDULES)),
        "precision": draw(st.sampled_from(PRECISIONS)),
        "conv": draw(st.sampled_from(CONVOLUTIONS)),
        "seed": draw(st.integers(0, 2**31 - 1)),
    }


@settings(deadline=None)
@given(configurations())
def test_layers_are_as_written_and_the_short_form_says_the_same(values):
    config = RunConfig(**values)

    def window(text):
        height, _, width = text.partition("x")
        return int(height), int(width or height)

    assert config.layer_channels == tuple(map(int, values["channels"].split("-")))
    assert config.layer_kernel_sizes == tuple(map(window, values["kernel_size"].split("-")))
    assert config.layer_strides == tuple(map(window, values["stride"].split("-")))
    assert config.layer_paddings == tuple(values["padding"].split("-"))
    assert config.layer_activations == tuple(values["activation"].split("-"))
    assert config.layer_pools == tuple(values["pool"].removesuffix("+").split("-"))
    for index, kind in enumerate(config.layer_pools):
        if kind != "none":
            size, stride = (window(values[name].split("-")[index]) for name in ("pool_size", "pool_stride"))
            assert config.layer_pool_sizes[index] == size
            assert config.layer_pool_strides[index] == (size if stride == (0, 0) else stride)
    rates = tuple(float(rate) for rate in values["dropout"].split("-"))
    assert config.layer_dropout == rates

    # Writing it down and reading it back changes nothing, through JSON either.
    assert RunConfig.from_dict(config.to_dict()) == config
    again = RunConfig.from_dict(json.loads(config.canonical_json))
    assert again == config
    assert (again.canonical_json, again.digest) == (config.canonical_json, config.digest)
    assert len(config.digest) == 16
    assert set(config.digest) <= set(string.hexdigits.lower())


@settings(deadline=None)
@given(one=configurations(), other=configurations(), data=st.data())
def test_equal_layers_equal_digest(one, other, data):
    """Two configurations have one digest exactly where they describe the same layers and the same training."""
    mixed = {name: data.draw(st.sampled_from([one[name], value])) for name, value in other.items()}
    try:
        first, second = RunConfig(**one), RunConfig(**mixed)
    except UserError:
        assume(False)

    def meaning(config):
        pools = [
            (kind, size, stride) if kind != "none" else None
            for kind, size, stride in zip(
                config.layer_pools, config.layer_pool_sizes, config.layer_pool_strides, strict=True
            )
        ]
        training = {name: getattr(config, name) for name in FIELD_NAMES if name not in NETWORK}
        return (
            config.layer_channels,
            config.layer_kernel_sizes,
            config.layer_strides,
            config.layer_paddings,
            config.layer_activations,
            config.layer_dropout,
            config.hidden_units,
            pools,
            training,
        )

    assert (first.digest == second.digest) == (meaning(first) == meaning(second))


NETWORK = (
    "channels", "kernel_size", "stride", "padding", "activation", "dropout", "dense_units", "pool", "pool_size",
    "pool_stride",
)  # fmt: skip


@given(name=st.sampled_from(FIELD_NAMES), value=st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.none()))
def test_any_value_of_any_field_is_taken_or_refused_in_one_way(name, value):
    try:
        config = RunConfig(**{name: value})
    except UserError:
        return
    assert RunConfig.from_dict(json.loads(config.canonical_json)) == config
