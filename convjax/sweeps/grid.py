"""Grids: from value lists to the arms of a sweep. Impossible arms are found here, before anything runs."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import plan, total_flops, total_parameters

Overrides = Mapping[str, str | int | float]
Match = Literal["", "params", "flops"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm of a sweep: a configuration but for its seed.

    Attributes:
      overrides: the fields in which this arm differs from the sweep's base, in flag notation.
      config: the configuration, with seed 0.
      parameters, flops: of the network, the latter for one image's forward pass.
    """

    overrides: tuple[tuple[str, str], ...]
    config: RunConfig
    parameters: int
    flops: int

    @property
    def label(self) -> str:
        """`kernel_size=3 padding=same`, or `base` where nothing differs."""
        return " ".join(f"{name}={value}" for name, value in self.overrides) or "base"

    def runs(self, seeds: Iterable[int]) -> list[RunConfig]:
        """The arm's configuration once a seed."""
        return [self.config.replace(seed=seed) for seed in seeds]


@dataclasses.dataclass(frozen=True)
class InvalidArm:
    """An arm that cannot be, and why."""

    label: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Grid:
    """The arms that can run, in order, and those that cannot."""

    arms: tuple[Arm, ...]
    invalid: tuple[InvalidArm, ...] = ()

    def require_valid(self) -> None:
        """Refuses a grid with impossible arms.

        Raises:
          UserError: naming each and its reason.
        """
        if self.invalid:
            reasons = "; ".join(f"{arm.label}: {arm.reason}" for arm in self.invalid)
            count = len(self.invalid)
            raise UserError(
                f"{count} of {count + len(self.arms)} arms {'is' if count == 1 else 'are'} impossible "
                f"(--skip_invalid leaves them out): {reasons}"
            )


def program_of(config: RunConfig) -> RunConfig:
    """`config` without what one program takes as arguments: runs that are equal in this may be trained at once.

    Left out are seed, learning rate, dropout rates (but not which layers have dropout) and, where no schedule depends
    on the number of steps, the training subset.
    """
    dropout = "-".join("0.5" if rate else "0" for rate in config.layer_dropout)
    changes: dict[str, str | int | float] = {"seed": 0, "learning_rate": 1.0, "dropout": dropout or "0"}
    if config.schedule == "constant":
        changes["train_size"] = 0
    return config.replace(**changes)


def product(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of the axes' values; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def make_grid(
    base: RunConfig,
    changes: Sequence[Overrides],
    image_info: Callable[..., tuple[tuple[int, int, int], int]],
    *,
    match: Match = "",
    reference: Overrides | None = None,
) -> Grid:
    """The arms that `changes` describe, each a change of `base`.

    Args:
      base: what the arms have in common; its seed is not used.
      changes: the fields in which each arm differs from `base`. Equal configurations become one arm.
      image_info: image shape and number of classes of a data set, by its name and `RunConfig.data_settings`.
      match: scale all channels of each arm (of a dense net all hidden units) by one factor, so that its parameters
        (`params`) or FLOPs (`flops`) come as close as they can to those of the reference arm.
      reference: the arm to match; the first by default.

    Raises:
      UserError: an unknown field, or a reference that is itself impossible.
    """
    if not changes:
        raise UserError("the grid is empty; give at least one value to every flag")
    for name in {name for change in changes for name in change}:
        if name not in FIELD_NAMES or name == "seed":
            raise UserError(f"{name!r} cannot be an axis; expected one of {', '.join(FIELD_NAMES)} (not seed: --seeds)")

    def build(change: Overrides, scaled: Overrides | None = None) -> tuple[RunConfig, int, int]:
        # An arm with another network takes from the base what that network has.
        config = base.with_model(str(change.get("model", base.model)))
        config = config.replace(**{"seed": 0, **change, **(scaled or {})})
        layers = plan(config, *image_info(config.dataset, **config.data_settings))
        return config, total_parameters(layers), total_flops(layers)

    measure = 2 if match == "flops" else 1
    target = build(changes[0] if reference is None else reference)[measure] if match else 0
    arms: dict[RunConfig, Arm] = {}
    invalid: list[InvalidArm] = []
    for change in changes:
        label = " ".join(f"{name}={value}" for name, value in change.items()) or "base"
        try:
            built = build(change)
            if match and (built[0].layer_channels or built[0].hidden_units):
                built = _match(lambda scaled, change=change: build(change, scaled), built, measure, target)
        except UserError as error:
            invalid.append(InvalidArm(label, str(error)))
            continue
        config, parameters, flops = built
        overrides = tuple((name, str(getattr(config, name))) for name in change)
        if config not in arms:
            arms[config] = Arm(overrides, config, parameters, flops)
    return Grid(tuple(arms.values()), tuple(invalid))


Built = tuple[RunConfig, int, int]


def _match(build: Callable[[Overrides], Built], built: Built, measure: int, target: int) -> Built:
    """`built` with its channels or units scaled so that `built[measure]` is as near `target` as whole ones allow."""
    field, counts = "channels", built[0].layer_channels
    if not counts:
        field, counts = "dense_units", built[0].hidden_units

    def scaled(factor: float) -> Built:
        return build({field: "-".join(str(max(1, round(count * factor))) for count in counts)})

    low, high = 0.0, 1.0
    while scaled(high)[measure] < target and high < 1024:
        low, high = high, high * 2
    # Both counts grow with the factor; 40 halvings leave two neighbours in whole channels.
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if scaled(middle)[measure] < target else (low, middle)
    return min((scaled(factor) for factor in (low, high)), key=lambda candidate: abs(candidate[measure] - target))
