"""RunConfig: everything that determines a run's numbers, as one frozen value with a digest."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from convjax.errors import UnavailableError as UnavailableError
from convjax.errors import UserError as UserError
from convjax.notation import parse

T = TypeVar("T")


# What a field left empty stands for.
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "convnet": {"channels": "32-64-64", "pool": "max", "dense_units": "64", "learning_rate": 1e-3},
    "local": {"channels": "32-64-64", "pool": "max", "dense_units": "64", "learning_rate": 1e-3},
    "dense": {"channels": "32-64-64", "pool": "max", "dense_units": "512", "learning_rate": 1e-3},
    "small_data": {"channels": "32-64-128-128", "pool": "max+", "dense_units": "512", "learning_rate": 1e-4},
}
MODELS = tuple(_OWN_DEFAULTS)
MODEL_FIELDS = ("channels", "pool", "dense_units", "learning_rate")
"""Fields whose default is the model's own."""
PADDINGS = ("valid", "same")
POOLS = ("max", "avg", "none")
HEADS = ("flatten", "gap")
PIXELS = ("grid", "permuted")
ACTIVATIONS = (
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "sigmoid",
    "tanh",
    "linear",
)
OPTIMIZERS = ("rmsprop", "adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("float32", "bfloat16", "tf32")
CONVOLUTIONS = ("auto", "xla", "patches", "winograd")
STREAMING = ("auto", "yes", "no")
COLORS = ("auto", "grey", "rgb")
FOLDER = "folder:"
"""Begins the name of a data set that is a folder of images."""
LARGEST_SIDE = 4096

_EVERY = "+"
"""Behind one value of `pool`: after the last convolution too."""

_DIGEST_VERSION = 1
# Fields added since: their defaults are left out of the digest, so that runs done before keep their names.
_NEW: dict[str, bool] = {"new": True}
_LARGEST_INTEGER = 2**31 - 1

Window = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run, the chapter's by default.

    Fields that may differ from layer to layer are kept in the notation of the command line: one value for all
    layers or values joined by `-` (`5-3-3`); a window is `N` or `HxW`. Equal notations are made the same
    (`3x3-3-3` becomes `3`), so that one network has one digest. The properties below give the values per layer.
    Fields of `MODEL_FIELDS` that are left empty become the model's own.

    Attributes:
      dataset: a name that `convjax.data.load` knows.
      model: `convnet`, `dense` (the chapter-2 baseline), or `local`: as the convnet, but with a kernel of its own at
        every position (locally connected, weights not shared), or `small_data`: the book's net for cats and dogs
        (section 5.2), four convolutions of 32-64-128-128 channels, each with pooling (`max+`), 512 dense units,
        learning rate 1e-4, and for two classes one sigmoid unit under binary cross-entropy.
      channels: output channels of each convolution; its length is the number of convolutions.
      kernel_size, stride, padding: of each convolution.
      pool: `max`, `avg` or `none` after each convolution. One value stands for every convolution but the last,
        as in the chapter: pooling goes between convolutions. With `+` (`max+`) it stands after the last, or the only
        one, too.
      pool_size: window of each pooling; pool_stride: its stride, `0` for the window itself (no overlap).
      dense_units: hidden dense layers; `0` for none, empty for the model's own (convnet 64, dense and small_data 512).
      dropout: rate after each convolution block and hidden dense layer; one value stands between the last
        convolution and the classifier (convnet) or after each hidden layer (dense).
      augment: augmentation of training images, see `convjax.notation`; empty for none.
      activation: of each convolution and hidden dense layer.
      optimizer: `rmsprop`, `adam`, `adamw` or `sgd`, with `momentum` (sgd, rmsprop).
      weight_decay: decoupled (Loshchilov & Hutter, 2019) for every optimizer, as `weight_decay` of Keras's optimizers:
        each step also takes learning rate times `weight_decay` of every weight and bias away. It is not in the loss;
        without momentum, sgd with it is sgd with an L2 penalty (the book's `kernel_regularizer`) of half of it.
      label_smoothing: in training, the share of the target that is spread evenly over all classes (Szegedy et al.,
        2016). Validation and test losses are without, so that they compare.
      schedule: of the learning rate after `warmup_steps` linear steps: constant, or falling to 0 over the run.
      batch_size, epochs: as in Keras's `fit`; the last short batch is included.
      train_size: nested stratified subset of the training images; 0 for all.
      validation_size: stratified slice of the training images held out; 0 for none.
      early_stopping: stop after so many epochs without a new lowest validation loss, and take the weights of the epoch
        that had it; 0 to train to the end and take the last. As Keras's `EarlyStopping(patience=...,
        restore_best_weights=True)`.
      seed: of initialisation, shuffling, dropout and augmentation, which use independent streams.
      precision: of the forward and backward computation; parameters, losses and statistics are always float32.
        `float32` is just that on every device (GPUs and TPUs round the factors of products to fewer bits unless told
        not to); `tf32` lets an NVIDIA GPU round them to 10 bits, `bfloat16` is 7 bits for all activations.
      conv: how convolutions are computed, see `convjax.nn.conv`.
      head: how the last feature map goes into the dense layers: `flatten`, or `gap`, the mean of each channel over all
        positions (global average pooling).
      pixels: `grid`, or `permuted`: one fixed permutation of every image's pixels before the first layer, which
        takes away that neighbours in the image are neighbours for the network.
      image_size: every image is resized to it, `N` or `HxW`; `0` for the size the data set has.
      color: `grey` or `rgb`; `auto` for what the data set is.
      skip_corrupt: leave out files of a folder of images that cannot be used; else they are an error. The run's
        fingerprint is that of the images that are left.

    Raises:
      UserError: a field has an impossible value.
    """

    dataset: str = "mnist"
    model: str = "convnet"
    channels: str = ""
    kernel_size: str = "3"
    padding: str = "valid"
    stride: str = "1"
    pool: str = ""
    pool_size: str = "2"
    pool_stride: str = "0"
    dense_units: str = ""
    dropout: str = "0"
    augment: str = ""
    activation: str = "relu"
    optimizer: str = "rmsprop"
    learning_rate: float = None  # type: ignore[assignment]
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    batch_size: int = 64
    epochs: int = 5
    train_size: int = 0
    validation_size: int = 0
    seed: int = 0
    precision: str = "float32"
    conv: str = "auto"
    head: str = dataclasses.field(default="flatten", metadata=_NEW)
    pixels: str = dataclasses.field(default="grid", metadata=_NEW)
    image_size: str = dataclasses.field(default="0", metadata=_NEW)
    color: str = dataclasses.field(default="auto", metadata=_NEW)
    skip_corrupt: bool = dataclasses.field(default=False, metadata=_NEW)
    label_smoothing: float = dataclasses.field(default=0.0, metadata=_NEW)
    early_stopping: int = dataclasses.field(default=0, metadata=_NEW)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("model", _coerce("model", str, self.model))
        _choice("model", self.model, MODELS)
        for name, own in _OWN_DEFAULTS[self.model].items():
            if getattr(self, name) in ("", None):
                put(name, own)
        for field in dataclasses.fields(self):
            put(field.name, _coerce(field.name, field.type, getattr(self, field.name)))
        if not self.dataset:
            raise UserError("--dataset is empty; name a data set, such as --dataset=mnist")
        self._put_data(put)
        put("dense_units", _join(_integers("dense_units", self.dense_units, minimum=0)))
        if self.dense_units != "0" and 0 in self.hidden_units:
            raise UserError(
                f"--dense_units={self.dense_units}: a layer of 0 units; expected positive counts, or a single 0 "
                "for no hidden dense layer"
            )
        self._require_defaults()
        put("channels", _join(_integers("channels", self.channels, minimum=1)))
        convolutions, hidden = len(self.layer_channels), len(self.hidden_units)
        layers = convolutions + hidden

        for name, minimum in (("kernel_size", 1), ("stride", 1), ("pool_size", 1), ("pool_stride", 0)):
            values = [_format_window(_window(name, part, minimum)) for part in getattr(self, name).split("-")]
            put(name, _collapse(_spread(name, values, convolutions, "convolution")))
        for part in self.padding.split("-"):
            _choice("padding", part, PADDINGS)
        for part in self.pool.removesuffix(_EVERY).split("-"):
            _choice("pool", part, POOLS)
        if self.pool.endswith(_EVERY) and "-" in self.pool:
            raise UserError(f"--pool={self.pool}: '{_EVERY}' goes with one value, such as max{_EVERY}, not a list")
        put("padding", _collapse(_spread("padding", self.padding.split("-"), convolutions, "convolution")))
        pools = self.pool.split("-")
        if len(pools) > 1:
            pools = _spread("pool", pools, convolutions, "convolution")
            between = [pools[0]] * (convolutions - 1) + ["none"]
            every = pools[0] + _EVERY if len(set(pools)) == 1 else "-".join(pools)
            put("pool", pools[0] if pools == between else every)
        if set(self.layer_pools) == {"none"}:
            put("pool", "none")
        self._put_canonical_windows(put)

        for part in self.activation.split("-"):
            _choice("activation", part, ACTIVATIONS)
        put(
            "activation",
            _collapse(_spread("activation", self.activation.split("-"), layers, "hidden layer")),
        )
        if not layers:
            put("activation", _FIELDS["activation"].default)
        rates = [_rate("dropout", part) for part in self.dropout.split("-")]
        if len(rates) > 1:
            _spread("dropout", rates, layers, "hidden layer")
        put("dropout", "-".join(_format_number(rate) for rate in rates))
        for rate in sorted(set(rates)):
            if _spread_dropout([rate], self.model, convolutions, hidden) == self.layer_dropout:
                put("dropout", _format_number(rate))
        if not layers:
            put("dropout", "0")

        augmentation = parse(self.augment)
        put("augment", augmentation.spec if augmentation else "")
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("precision", self.precision, PRECISIONS)
        _choice("conv", self.conv, CONVOLUTIONS)
        _choice("head", self.head, HEADS)
        _choice("pixels", self.pixels, PIXELS)
        _at_least("learning_rate", self.learning_rate, 0.0, exclusive=True)
        _at_least("weight_decay", self.weight_decay, 0.0)
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum={self.momentum:g} is out of range; expected 0 <= momentum < 1")
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise UserError(f"--momentum={self.momentum:g} needs --optimizer=sgd or rmsprop, not {self.optimizer}")
        for name, minimum in (
            ("warmup_steps", 0),
            ("batch_size", 1),
            ("epochs", 1),
            ("train_size", 0),
            ("validation_size", 0),
            ("early_stopping", 0),
            ("seed", 0),
        ):
            _at_least(name, getattr(self, name), minimum)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"--label_smoothing={self.label_smoothing:g} is out of range; expected 0 <= label_smoothing < 1"
            )

    def _put_data(self, put: Callable[[str, Any], None]) -> None:
        _choice("color", self.color, COLORS)
        if self.image_size != "0":
            try:
                size = _window("image_size", self.image_size, 1)
            except UserError:
                size = (0, 0)
            if not 1 <= min(size) <= max(size) <= LARGEST_SIDE:
                raise UserError(
                    f"--image_size={self.image_size!r} is not understood; expected N or HxW, such as 150 or 120x160, "
                    f"with sides from 1 to {LARGEST_SIDE}, or 0 for the size the data set has"
                )
            put("image_size", _format_window(size))
        if self.skip_corrupt and not self.dataset.startswith(FOLDER):
            raise UserError(
                f"--skip_corrupt has no effect with --dataset={self.dataset}, only with {FOLDER}PATH; "
                "leave the flag out"
            )

    def _put_canonical_windows(self, put: Callable[[str, Any], None]) -> None:
        """Pooling windows that are not used become those that are; a stride that is the window's becomes 0."""
        sizes = self.layer_pool_sizes
        strides = [
            (0 if stride[0] == size[0] else stride[0], 0 if stride[1] == size[1] else stride[1])
            for stride, size in zip(self._windows("pool_stride"), sizes, strict=True)
        ]
        pooled = [index for index, kind in enumerate(self.layer_pools) if kind != "none"]
        if not pooled:
            put("pool_size", _FIELDS["pool_size"].default)
            put("pool_stride", _FIELDS["pool_stride"].default)
            return
        for name, windows in (("pool_size", sizes), ("pool_stride", strides)):
            used = [windows[index if index in pooled else pooled[0]] for index in range(len(windows))]
            put(name, _collapse([_format_window(window) for window in used]))

    def _require_defaults(self) -> None:
        """Refuses what would have no effect."""
        names, because = _WITHOUT_EFFECT.get(self.model, ((), ""))
        for name in names:
            given, default = getattr(self, name), _default(name, self.model)
            if given != default:
                raise UserError(
                    f"--{name}={given} has no effect with --model={self.model}, {because}; "
                    "leave the flag out or use --model=convnet"
                )

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
        return tuple(_repeat(self.padding.split("-"), len(self.layer_channels)))

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
        return tuple(_repeat(self.activation.split("-"), len(self.layer_channels) + len(self.hidden_units)))

    @property
    def layer_dropout(self) -> tuple[float, ...]:
        """Dropout rate after each convolution block, then after each hidden dense layer."""
        rates = [float(part) for part in self.dropout.split("-")]
        return _spread_dropout(rates, self.model, len(self.layer_channels), len(self.hidden_units))

    @property
    def data_settings(self) -> dict[str, Any]:
        """Those of `image_size`, `color` and `skip_corrupt` that are set, as keywords of `convjax.data.load`."""
        names = ("image_size", "color", "skip_corrupt")
        return {name: getattr(self, name) for name in names if getattr(self, name) != _FIELDS[name].default}

    def _windows(self, name: str) -> tuple[Window, ...]:
        windows = [_window(name, part, 0) for part in getattr(self, name).split("-")]
        return tuple(_repeat(windows, len(self.layer_channels)))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed. With another model, what was the old one's own becomes the new one's."""
        model = changes.get("model", self.model)
        if model != self.model:
            own = _OWN_DEFAULTS[self.model]
            changes = {name: "" for name in own if getattr(self, name) == own[name]} | changes
        return dataclasses.replace(self, **changes)

    def with_model(self, model: str) -> Self:
        """A copy with another kind of network: what has no effect there, or was the other's own, has its default."""
        if model == self.model:
            return self
        changes = dict.fromkeys(_WITHOUT_EFFECT.get(model, ((), ""))[0])
        changes = {name: _FIELDS[name].default for name in changes}
        if self.dense_units == RunConfig(model=self.model).dense_units:
            changes["dense_units"] = ""
        return self.replace(model=model, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; keys that are not fields are an error.

        Raises:
          UserError: an unknown field or an impossible value.
        """
        unknown = sorted(set(values) - set(_FIELDS))
        if unknown:
            raise UserError(f"unknown configuration field {unknown[0]!r}; known: {', '.join(_FIELDS)}")
        return cls(**values)

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        """The configuration in a run's config.json, which holds other keys too and may lack fields added since.

        Raises:
          KeyError: a field of the first release is missing.
          UserError: an impossible value.
        """
        return cls(
            **{name: values[name] for name, field in _FIELDS.items() if name in values or not field.metadata.get("new")}
        )

    @property
    def canonical_json(self) -> str:
        """The fields as JSON with sorted keys and no spaces: equal configurations, equal text.

        A field that came after the first release is left out while it has its default, and so is the notation `max+`:
        runs keep the names they had before.
        """
        values = {
            name: value
            for name, value in self.to_dict().items()
            if not (_FIELDS[name].metadata.get("new") and value == _FIELDS[name].default)
        }
        if len(self.layer_pools) > 1 and self.pool.endswith(_EVERY):
            values["pool"] = "-".join(self.layer_pools)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the run: a hash of `canonical_json`."""
        text = f"convjax {_DIGEST_VERSION} {self.canonical_json}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_CONVOLUTION_FIELDS = (
    "channels",
    "kernel_size",
    "padding",
    "stride",
    "pool",
    "pool_size",
    "pool_stride",
    "conv",
    "head",
)
_WITHOUT_EFFECT = {
    "dense": (_CONVOLUTION_FIELDS, "which has no convolutions"),
    "local": (("conv",), "whose layers are computed in one way"),
}

_FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(RunConfig)}
FIELD_NAMES: tuple[str, ...] = tuple(_FIELDS)


def _default(name: str, model: str = "convnet") -> Any:
    return _OWN_DEFAULTS[model].get(name, _FIELDS[name].default)


def fields_without_effect(model: str) -> tuple[str, ...]:
    """Fields that a kind of network has nothing for; they must keep their defaults."""
    return _WITHOUT_EFFECT.get(model, ((), ""))[0]


def field_type(name: str) -> type:
    """`str`, `int`, `float` or `bool`: the type of a RunConfig field."""
    return _FIELDS[name].type  # type: ignore[return-value]


def _coerce(name: str, kind: Any, value: Any) -> Any:
    """`value` as the field's type; per-layer fields also take plain integers (`kernel_size=5`)."""
    if kind is str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(f"--{name}={value!r}: expected text such as {_default(name)!r}")
        return str(value).strip()
    if kind is bool:
        known = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
        if known is None:
            raise UserError(f"--{name}={value!r}: expected true or false")
        return known
    try:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if kind is int and (number != float(value) or abs(number) > _LARGEST_INTEGER):
            raise ValueError
        if kind is float and not math.isfinite(number):
            raise ValueError
        number += 0  # -0.0 becomes 0.0: they are equal, and so must their digests be
    except (ValueError, TypeError, OverflowError):
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name}={value}: expected {expected}, such as {_default(name)}") from None
    return number


def _choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"--{name}={value!r} is not known; expected one of {', '.join(allowed)}")


def _at_least(name: str, value: float, minimum: float, *, exclusive: bool = False) -> None:
    if value < minimum or (exclusive and value == minimum):
        bound = f"more than {minimum:g}" if exclusive else f"at least {minimum:g}"
        raise UserError(f"--{name}={value:g} is out of range; expected {bound}")


def _integer(name: str, text: str, minimum: int) -> int:
    # int() alone would also take "1_0", "+3" and non-ASCII digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 12) or not minimum <= int(text) <= 65_536:
        raise UserError(
            f"--{name}: {text!r} is not a whole number from {minimum} to 65536; "
            f"expected a value such as {_default(name)}, or one per layer joined by '-'"
        )
    return int(text)


def _integers(name: str, text: str, minimum: int) -> list[int]:
    return [_integer(name, part, minimum) for part in text.split("-")]


def _window(name: str, text: str, minimum: int) -> Window:
    height, separator, width = text.partition("x")
    return (
        _integer(name, height, minimum),
        _integer(name, width if separator else height, minimum),
    )


def _rate(name: str, text: str) -> float:
    try:
        rate = round(float(text), 10)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise UserError(f"--{name}: {text!r} is not a rate; expected 0 <= rate < 1, such as 0.5")
    return rate


def _format_window(window: Window) -> str:
    return str(window[0]) if window[0] == window[1] else f"{window[0]}x{window[1]}"


def _format_number(value: float) -> str:
    # Exponents would bring in the separator '-'.
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _join(values: Sequence[object]) -> str:
    return "-".join(str(value) for value in values)


def _spread(name: str, values: list[T], count: int, unit: str) -> list[T]:
    """One value repeated, or exactly one per layer."""
    if len(values) == 1:
        return values * count if count else values
    if len(values) != count:
        raise UserError(
            f"--{name} has {len(values)} values for {count} {unit}{'' if count == 1 else 's'}; "
            f"give one value for all, or {count} joined by '-'"
        )
    return values


def _repeat(values: Sequence[T], count: int) -> list[T]:
    return list(values) * count if len(values) == 1 else list(values)


def _collapse(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else "-".join(values)


def _spread_dropout(rates: list[float], model: str, convolutions: int, hidden: int) -> tuple[float, ...]:
    if len(rates) > 1:
        return tuple(rates)
    if model == "dense":
        return tuple(rates * hidden)
    return (0.0,) * (convolutions - 1) + (rates[0],) + (0.0,) * hidden
