"""Grids: from lists of values to the arms of a sweep. They find impossible arms before anything runs."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from convjax.config import FIELD_NAMES, RunConfig, default_of, fields_without_effect
from convjax.errors import UserError
from convjax.nn.geometry import plan, total_flops, total_parameters

Overrides = Mapping[str, str | int | float]
Match = Literal["", "params", "flops"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm of a sweep: a configuration without its seed.

    Attributes:
      overrides: the fields in which this arm differs from the sweep's base, in flag notation.
      config: the configuration, with seed 0.
      parameters: of the network.
      flops: of the forward pass of one image.
    """

    overrides: tuple[tuple[str, str], ...]
    config: RunConfig
    parameters: int
    flops: int

    @property
    def label(self) -> str:
        """`kernel_size=3 padding=same`, or `base` if nothing differs."""
        return _label(self.overrides)

    def has(self, fields: Mapping[str, str]) -> bool:
        """Whether this arm has these values, in flag notation, of the fields that it sets."""
        own = dict(self.overrides)
        return all(own.get(name, value) == value for name, value in fields.items())

    def runs(self, seeds: Iterable[int]) -> list[RunConfig]:
        """The arm's configuration with each seed."""
        return [self.config.replace(seed=seed) for seed in seeds]


@dataclasses.dataclass(frozen=True)
class InvalidArm:
    """An impossible arm and the reason."""

    label: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Grid:
    """The possible arms, in order, and the impossible ones."""

    arms: tuple[Arm, ...]
    invalid: tuple[InvalidArm, ...] = ()
    baseline: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def require_valid(self) -> None:
        """Refuses a grid with impossible arms.

        Raises:
          UserError: it names each one and its reason.
        """
        if self.invalid:
            reasons = "; ".join(f"{arm.label}: {arm.reason}" for arm in self.invalid)
            count = len(self.invalid)
            raise UserError(
                f"{count} of {count + len(self.arms)} arms {'is' if count == 1 else 'are'} impossible "
                f"(--skip_invalid leaves them out): {reasons}"
            )


def program_of(config: RunConfig) -> RunConfig:
    """`config` without seed and learning rate: runs that are equal in this can be trained together, as replicas."""
    return config.replace(seed=0, learning_rate=1.0)


def product(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of the axes' values; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def make_grid(
    base: RunConfig,
    changes: Sequence[Overrides],
    image_info: Callable[..., tuple[tuple[int, int, int], int]],
    *,
    match: Match = "",
    baseline: Mapping[str, str] | None = None,
) -> Grid:
    """The arms that `changes` describe, relative to `base`.

    Args:
      base: what the arms have in common; its seed is ignored.
      changes: the fields in which each arm differs from `base`. Equal configurations become one arm.
      image_info: gives image shape and number of classes of a data set by its name and `RunConfig.data_settings`.
      match: scale all channels of each arm (in a dense net, all hidden units) by one factor, which brings its
        parameters (`params`) or FLOPs (`flops`) as close as possible to those of the baseline.
      baseline: fields of the arm to match, and to compare the others with; the first arm where no arm has these.

    Raises:
      UserError: an unknown field.
    """
    if not changes:
        raise UserError("the grid is empty; give at least one value to every flag")
    for name in {name for change in changes for name in change}:
        if name not in FIELD_NAMES or name == "seed":
            raise UserError(f"{name!r} cannot be an axis; expected one of {', '.join(FIELD_NAMES)} (not seed: --seeds)")

    def build(change: Overrides, scaled: Mapping[str, str] | None = None) -> Arm:
        # An arm with another network takes from the base only the fields which that network has.
        config = _with_model(base, str(change.get("model", base.model)))
        config = config.replace(**{"seed": 0, **change, **(scaled or {})})
        layers = plan(config, *image_info(config.dataset, **config.data_settings))
        overrides = tuple((name, str(getattr(config, name))) for name in change)
        return Arm(overrides, config, total_parameters(layers), total_flops(layers))

    def size(arm: Arm) -> int:
        return arm.flops if match == "flops" else arm.parameters

    arms: dict[RunConfig, Arm] = {}
    invalid: list[InvalidArm] = []
    possible: list[tuple[Overrides, Arm]] = []
    for change in changes:
        try:
            possible.append((change, build(change)))
        except UserError as error:
            invalid.append(InvalidArm(_label(change.items()), str(error)))
    chosen = next((arm for _, arm in possible if baseline and arm.has(baseline)), possible[0][1] if possible else None)
    for change, arm in possible:
        if match and chosen and (arm.config.layer_channels or arm.config.hidden_units):
            arm = _match(functools.partial(build, change), arm, size, size(chosen))
        arms.setdefault(arm.config, arm)
    if chosen is None:
        return Grid((), tuple(invalid))
    named = baseline if baseline and chosen.has(baseline) else dict(chosen.overrides)
    return Grid(tuple(arms.values()), tuple(invalid), named)


def _with_model(config: RunConfig, model: str) -> RunConfig:
    """A copy with another kind of network: fields without effect on it, and own defaults, are reset."""
    if model == config.model:
        return config
    changes = {name: default_of(name, model) for name in fields_without_effect(model)}
    if config.dense_units == default_of("dense_units", config.model):
        changes["dense_units"] = ""
    return config.replace(model=model, **changes)


def _match(build: Callable[[Mapping[str, str]], Arm], arm: Arm, size: Callable[[Arm], int], target: int) -> Arm:
    """`arm` with its channels or units scaled so that its size is as near to `target` as possible."""
    field, counts = "channels", arm.config.layer_channels
    if not counts:
        field, counts = "dense_units", arm.config.hidden_units

    def scaled(factor: float) -> Arm:
        return build({field: "-".join(str(max(1, round(count * factor))) for count in counts)})

    low, high = 0.0, 1.0
    while size(scaled(high)) < target and high < 1024:
        low, high = high, high * 2
    # Sizes grow with the factor; after 40 halvings `low` and `high` give neighboring whole numbers of channels.
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(scaled(middle)) < target else (low, middle)
    return min((scaled(factor) for factor in (low, high)), key=lambda candidate: abs(size(candidate) - target))


def _label(overrides: Iterable[tuple[str, object]]) -> str:
    return " ".join(f"{name}={value}" for name, value in overrides) or "base"
