"""RunConfig: everything that determines a run's numbers, as one frozen value with a digest.

`flags` makes a command-line flag of each field below, `studies` and `sweeps.grid` vary fields to make the arms of an
experiment, `nn.geometry` plans the network that a configuration describes, and `training` takes the rest.

Each setting is described once, where it is declared: type, default, choices, range and help text. A setting left at
its default never changes the digest of a run that was made before the setting existed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from convjax.errors import UserError
from convjax.notation import (
    Window,
    collapse,
    format_number,
    format_window,
    join,
    parse_augmentation,
    parse_integers,
    parse_rate,
    parse_window,
    repeat,
    spread,
)
from convjax.settings import CONVOLUTION, HIDDEN_LAYER, check_scalar, coerce, require_choice, setting

MODELS = ("convnet", "local", "dense", "small_data")
PADDINGS = ("valid", "same")
POOLS = ("max", "avg", "none")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "sigmoid", "tanh", "linear")
OPTIMIZERS = ("rmsprop", "adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("float32", "bfloat16", "tf32")
CONVOLUTIONS = ("auto", "xla", "patches", "winograd")
FOLDER = "folder:"
"""Begins the name of a data set that is a folder of images."""
LARGEST_SIDE = 4096
"""Of an image, in pixels."""

_DIGEST_VERSION = 1
_EVERY = "+"
"""Suffix of a value of `pool`: pool after the last convolution too."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run, the chapter's by default.

    Fields are kept in the notation of the command line, see `convjax.notation`. Different notations of one network are
    made equal (`3x3-3-3` becomes `3`), so that it has one digest. The properties below give the values per layer.

    Raises:
      UserError: a field has an impossible value.
    """

    # fmt: off
    dataset: str = setting(
        "mnist", "mnist, fashion_mnist, kmnist, mnist_5k (embedded, no network), cats_vs_dogs, cats_vs_dogs_small, "
        "folder:PATH (images, one sub-folder per class), or any TFDS image-classification name")
    model: str = setting(
        "convnet", "the chapter's convnet; the same with unshared weights (local); the dense baseline of the chapter "
        "before; the book's net for small data (cats and dogs, section 5.2)", choices=MODELS)
    channels: str = setting(
        "32-64-64", "output channels, one value per convolution, joined by '-'",
        own={"small_data": "32-64-128-128"}, without=("dense",))
    kernel_size: str = setting("3", "convolution window: N or HxW", per=CONVOLUTION, window=1, without=("dense",))
    padding: str = setting(
        "valid", "whether convolutions pad their input", choices=PADDINGS, per=CONVOLUTION, without=("dense",))
    stride: str = setting("1", "convolution stride: N or VxH", per=CONVOLUTION, window=1, without=("dense",))
    pool: str = setting(
        "max", "max|avg|none: one value pools between convolutions but not after the last, max+ after the last too; or "
        "one value per convolution", own={"small_data": "max+"}, without=("dense",))
    pool_size: str = setting("2", "pooling window: N or HxW", per=CONVOLUTION, window=1, without=("dense",))
    pool_stride: str = setting(
        "0", "pooling stride; 0 for the window itself, smaller values overlap",
        per=CONVOLUTION, window=0, without=("dense",))
    dense_units: str = setting(
        "64", "units of the hidden dense layers; 0 for none", own={"dense": "512", "small_data": "512"})
    dropout: str = setting(
        "0", "dropout rate before the classifier (dense: after each hidden layer), or one per hidden layer")
    augment: str = setting(
        "", "augmentation of the training images, such as rotate=10+shift=0.1, or chollet; empty for none")
    activation: str = setting("relu", "activation function", choices=ACTIVATIONS, per=HIDDEN_LAYER)
    optimizer: str = setting("rmsprop", "with Keras's definitions and defaults", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-3, "step size, after any warm-up", own={"small_data": 1e-4}, above=0)
    momentum: float = setting(0.0, "of sgd and rmsprop", minimum=0, below=1)
    weight_decay: float = setting(
        0.0, "decoupled: each step also shrinks every parameter by learning rate times this", minimum=0)
    schedule: str = setting(
        "constant", "the learning rate after the warm-up: constant, or falling to 0 over the run", choices=SCHEDULES)
    warmup_steps: int = setting(0, "steps over which the learning rate rises linearly from 0", minimum=0)
    batch_size: int = setting(64, "images per step; the last, shorter batch of an epoch is used too", minimum=1)
    epochs: int = setting(5, "passes over the training images", minimum=1)
    train_size: int = setting(0, "train on a nested stratified subset of this many images; 0 for all", minimum=0)
    validation_size: int = setting(0, "hold out a fixed stratified part of the training images; 0 for none", minimum=0)
    seed: int = setting(0, "of initialization, shuffling, dropout and augmentation", minimum=0)
    precision: str = setting(
        "float32", "of activations and gradients; parameters and losses stay float32; tf32 needs an NVIDIA GPU",
        choices=PRECISIONS)
    conv: str = setting(
        "auto", "how convolutions are computed; auto is the fastest", choices=CONVOLUTIONS, without=("dense", "local"))
    head: str = setting(
        "flatten", "how the last feature map enters the dense layers: flattened, or averaged over positions (global "
        "average pooling)", choices=("flatten", "gap"), without=("dense",), new=True)
    norm: str = setting(
        "none", "normalization after each convolution, before its activation: of each channel over the batch, or of "
        "each position over its channels", choices=("none", "batch", "layer"), without=("dense",), new=True)
    pixels: str = setting(
        "grid", "images as they are, or with all pixels in one fixed random order",
        choices=("grid", "permuted"), new=True)
    image_size: str = setting("0", "resize every image to N or HxW; 0 for the size the data set has", new=True)
    color: str = setting("auto", "auto for what the data set has", choices=("auto", "grey", "rgb"), new=True)
    skip_corrupt: bool = setting(
        False, "leave out, and count, files of a folder that are not valid images; by default they are an error",
        new=True)
    label_smoothing: float = setting(
        0.0, "share of the training target that is spread evenly over all classes", minimum=0, below=1, new=True)
    early_stopping: int = setting(
        0, "stop after this many epochs without a lower validation loss and take the best weights; 0 for off",
        minimum=0, new=True)
    # fmt: on

    def __post_init__(self) -> None:
        self._put("model", coerce("model", str, self.model, "convnet"))
        require_choice("model", self.model, MODELS)
        for name in MODEL_FIELDS:
            if getattr(self, name) in ("", None):
                self._put(name, default_of(name, self.model))
        for name, field in _FIELDS.items():
            self._put(name, coerce(name, field.type, getattr(self, name), default_of(name)))
        self._check_data()
        self._put("dense_units", join(parse_integers("dense_units", self.dense_units, minimum=0)))
        if self.dense_units != "0" and 0 in self.hidden_units:
            raise UserError(
                f"--dense_units={self.dense_units}: a layer of 0 units; expected positive counts, or a single 0 "
                "for no hidden dense layer"
            )
        self._refuse_settings_without_effect()
        self._put("channels", join(parse_integers("channels", self.channels, minimum=1)))
        for name in _PER_LAYER:
            self._canonicalize_layers(name)
        self._canonicalize_pooling()
        self._canonicalize_dropout()
        augmentation = parse_augmentation(self.augment)
        self._put("augment", augmentation.spec if augmentation else "")
        for name, field in _FIELDS.items():
            if name not in _PER_LAYER:
                check_scalar(name, getattr(self, name), field.metadata)
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise UserError(f"--momentum={self.momentum:g} needs --optimizer=sgd or rmsprop, not {self.optimizer}")

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_data(self) -> None:
        if not self.dataset:
            raise UserError("--dataset is empty; name a data set, such as --dataset=mnist")
        if self.image_size != "0":
            try:
                size = parse_window("image_size", self.image_size, 1)
            except UserError:
                size = (0, 0)
            if not 1 <= min(size) <= max(size) <= LARGEST_SIDE:
                raise UserError(
                    f"--image_size={self.image_size!r} is not understood; expected N or HxW, such as 150 or 120x160, "
                    f"with sides from 1 to {LARGEST_SIDE}, or 0 for the size the data set has"
                )
            self._put("image_size", format_window(size))
        if self.skip_corrupt and not self.dataset.startswith(FOLDER):
            raise UserError(
                f"--skip_corrupt has no effect with --dataset={self.dataset}, only with {FOLDER}PATH; "
                "leave the flag out"
            )

    def _refuse_settings_without_effect(self) -> None:
        for name in fields_without_effect(self.model):
            if getattr(self, name) != default_of(name, self.model):
                raise UserError(
                    f"--{name}={getattr(self, name)} has no effect with --model={self.model}, "
                    f"{_WHY_WITHOUT[self.model]}; leave the flag out or use --model=convnet"
                )

    def _canonicalize_layers(self, name: str) -> None:
        """One value where all layers have the same, else one per layer."""
        metadata, parts = _FIELDS[name].metadata, getattr(self, name).split("-")
        if "window" in metadata:
            parts = [format_window(parse_window(name, part, metadata["window"])) for part in parts]
        for part in parts if "choices" in metadata else ():
            require_choice(name, part, metadata["choices"])
        count = len(self.layer_channels) + (len(self.hidden_units) if metadata["per"] == HIDDEN_LAYER else 0)
        values = collapse(spread(name, parts, count, metadata["per"]))
        self._put(name, values if count or metadata["per"] == CONVOLUTION else metadata["default"])

    def _canonicalize_pooling(self) -> None:
        kinds = self.pool.removesuffix(_EVERY).split("-")
        for kind in kinds:
            require_choice("pool", kind, POOLS)
        if self.pool.endswith(_EVERY) and len(kinds) > 1:
            raise UserError(f"--pool={self.pool}: '{_EVERY}' goes with one value, such as max{_EVERY}, not a list")
        convolutions = len(self.layer_channels)
        if len(kinds) > 1:
            kinds = spread("pool", kinds, convolutions, CONVOLUTION)
            between = [kinds[0]] * (convolutions - 1) + ["none"]
            every = kinds[0] + _EVERY if len(set(kinds)) == 1 else join(kinds)
            self._put("pool", kinds[0] if kinds == between else every)
        if set(self.layer_pools) == {"none"}:
            self._put("pool", "none")
        pooled = [index for index, kind in enumerate(self.layer_pools) if kind != "none"]
        if not pooled:
            self._put("pool_size", default_of("pool_size", self.model))
            self._put("pool_stride", default_of("pool_stride", self.model))
            return
        # Windows that are not used become those that are; a stride equal to the window becomes 0.
        sizes = self.layer_pool_sizes
        strides = [
            (0 if stride[0] == size[0] else stride[0], 0 if stride[1] == size[1] else stride[1])
            for stride, size in zip(self._windows("pool_stride"), sizes, strict=True)
        ]
        for name, windows in (("pool_size", sizes), ("pool_stride", strides)):
            used = [windows[index if index in pooled else pooled[0]] for index in range(len(windows))]
            self._put(name, collapse([format_window(window) for window in used]))

    def _canonicalize_dropout(self) -> None:
        rates = [parse_rate("dropout", part) for part in self.dropout.split("-")]
        layers = len(self.layer_channels) + len(self.hidden_units)
        if len(rates) > 1:
            spread("dropout", rates, layers, HIDDEN_LAYER)
        self._put("dropout", "-".join(format_number(rate) for rate in rates))
        # A list that a single value stands for becomes that value.
        for rate in sorted(set(rates)):
            if self._spread_dropout([rate]) == self.layer_dropout:
                self._put("dropout", format_number(rate))
        if not layers:
            self._put("dropout", "0")

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Output channels of each convolution; empty for the dense model."""
        return () if self.model == "dense" else tuple(int(part) for part in self.channels.split("-"))

    @property
    def hidden_units(self) -> tuple[int, ...]:
        """Units of each hidden dense layer."""
        return tuple(int(part) for part in self.dense_units.split("-") if part != "0" or "-" in self.dense_units)

    @property
    def layer_kernel_sizes(self) -> tuple[Window, ...]:
        """`(height, width)` of each convolution's kernel."""
        return self._windows("kernel_size")

    @property
    def layer_strides(self) -> tuple[Window, ...]:
        """`(vertical, horizontal)` stride of each convolution."""
        return self._windows("stride")

    @property
    def layer_paddings(self) -> tuple[str, ...]:
        """`valid` or `same` for each convolution."""
        return repeat(self.padding.split("-"), len(self.layer_channels))

    @property
    def layer_pools(self) -> tuple[str, ...]:
        """`max`, `avg` or `none` after each convolution."""
        parts, count = self.pool.split("-"), len(self.layer_channels)
        if self.pool.endswith(_EVERY):
            return (self.pool.removesuffix(_EVERY),) * count
        if len(parts) == 1 and count:
            return (*parts * (count - 1), "none")
        return tuple(parts[:count])

    @property
    def layer_pool_sizes(self) -> tuple[Window, ...]:
        """`(height, width)` of each pooling window."""
        return self._windows("pool_size")

    @property
    def layer_pool_strides(self) -> tuple[Window, ...]:
        """`(vertical, horizontal)` stride of each pooling."""
        strides = self._windows("pool_stride")
        return tuple(
            (stride[0] or size[0], stride[1] or size[1])
            for stride, size in zip(strides, self.layer_pool_sizes, strict=True)
        )

    @property
    def layer_activations(self) -> tuple[str, ...]:
        """Activation of each convolution, then of each hidden dense layer."""
        return repeat(self.activation.split("-"), len(self.layer_channels) + len(self.hidden_units))

    @property
    def layer_dropout(self) -> tuple[float, ...]:
        """Dropout rate after each convolution block, then after each hidden dense layer."""
        return self._spread_dropout([float(part) for part in self.dropout.split("-")])

    def _spread_dropout(self, rates: list[float]) -> tuple[float, ...]:
        """One value stands between the last convolution and the classifier; in a dense net, after each hidden layer."""
        convolutions, hidden = len(self.layer_channels), len(self.hidden_units)
        if len(rates) > 1:
            return tuple(rates)
        if self.model == "dense":
            return tuple(rates * hidden)
        return (0.0,) * (convolutions - 1) + (rates[0],) + (0.0,) * hidden

    @property
    def data_settings(self) -> dict[str, Any]:
        """Those of `image_size`, `color` and `skip_corrupt` that are set, as keywords of `convjax.data.load`."""
        names = ("image_size", "color", "skip_corrupt")
        return {name: getattr(self, name) for name in names if getattr(self, name) != default_of(name)}

    def _windows(self, name: str) -> tuple[Window, ...]:
        windows = [parse_window(name, part, 0) for part in getattr(self, name).split("-")]
        return repeat(windows, len(self.layer_channels))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed. With another model, the old model's own defaults become the new one's."""
        model = changes.get("model", self.model)
        if model != self.model:
            own = {name: "" for name in MODEL_FIELDS if getattr(self, name) == default_of(name, self.model)}
            changes = own | changes
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
          UserError: an unknown field or an impossible value.
        """
        unknown = sorted(set(values) - set(_FIELDS))
        if unknown:
            raise UserError(f"unknown configuration field {unknown[0]!r}; known: {', '.join(_FIELDS)}")
        return cls(**values)

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        """The configuration in a run's config.json, which holds other keys too and may lack newer fields.

        Raises:
          KeyError: a field of the first release is missing.
          UserError: an impossible value.
        """
        return cls(
            **{name: values[name] for name, field in _FIELDS.items() if name in values or "new" not in field.metadata}
        )

    @property
    def canonical_json(self) -> str:
        """The fields as JSON with sorted keys and no spaces: equal configurations, equal text.

        The notation `max+` and fields that are newer than the first release and at their default are left out: runs
        keep the names that they had before.
        """
        values = {
            name: value
            for name, value in self.to_dict().items()
            if "new" not in _FIELDS[name].metadata or value != default_of(name)
        }
        if len(self.layer_pools) > 1 and self.pool.endswith(_EVERY):
            values["pool"] = join(self.layer_pools)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the run: a hash of `canonical_json`."""
        text = f"convjax {_DIGEST_VERSION} {self.canonical_json}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(RunConfig)}
FIELD_NAMES: tuple[str, ...] = tuple(_FIELDS)
MODEL_FIELDS: tuple[str, ...] = tuple(name for name, field in _FIELDS.items() if "own" in field.metadata)
"""Fields whose default is the model's own."""
_PER_LAYER = tuple(name for name, field in _FIELDS.items() if "per" in field.metadata)
_WHY_WITHOUT = {"dense": "which has no convolutions", "local": "whose layers are computed in one way"}


def default_of(name: str, model: str = "convnet") -> Any:
    """The default of a field; some differ from model to model."""
    metadata = _FIELDS[name].metadata
    return metadata.get("own", {}).get(model, metadata["default"])


def fields_without_effect(model: str) -> tuple[str, ...]:
    """Fields that do nothing in a kind of network; they must keep their defaults."""
    return tuple(name for name, field in _FIELDS.items() if model in field.metadata.get("without", ()))


def field_type(name: str) -> type:
    """`str`, `int`, `float` or `bool`: the type of a field."""
    return _FIELDS[name].type  # type: ignore[return-value]
