"""Settings: dataclass fields that carry their own description, and checks of values against it. No JAX."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from convjax.errors import UserError

_LARGEST_INTEGER = 2**31 - 1

CONVOLUTION, HIDDEN_LAYER = "convolution", "hidden layer"
"""What a field with one value per layer has a value for: each convolution; each convolution and hidden dense layer."""


def setting(default: Any, help: str, **description: Any) -> Any:
    """A dataclass field with its description.

    Args:
      default: its default, in the notation of flags.
      help: the help text of its flag. Choices, and that there may be a value per layer, are added to it.
      description: any of
        own: defaults of models that differ from `default`; such a field may be left empty.
        choices: the possible values.
        per: `CONVOLUTION` or `HIDDEN_LAYER`, where the field may have a value per layer.
        window: the smallest side, where the values are windows `N` or `HxW`.
        minimum, above, below: the range of a number; `above` and `below` are exclusive.
        without: models that the field has no effect on.
        new: whether the field came after the first release; its default is then left out of the digest.
    """
    return dataclasses.field(
        default=None if "own" in description else default, metadata={"default": default, "help": help, **description}
    )


def coerce(name: str, kind: Any, value: Any, default: Any) -> Any:
    """`value` as the setting's type `kind`; text settings also take plain numbers (`kernel_size=5`).

    Raises:
      UserError: it is no such value; the message gives `default` as an example.
    """
    if kind is str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(f"--{name}={value!r}: expected text such as {default!r}")
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
        return number + 0  # -0.0 becomes 0.0: they are equal, and so must their digests be
    except (ValueError, TypeError, OverflowError):
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name}={value}: expected {expected}, such as {default}") from None


def require_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises a UserError where `value` is not one of `allowed`."""
    if value not in allowed:
        raise UserError(f"--{name}={value!r} is not known; expected one of {', '.join(allowed)}")


def check_scalar(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raises a UserError where a value is not among the choices, or out of the range, that `setting` described."""
    if "choices" in metadata:
        require_choice(name, value, metadata["choices"])
    if "below" in metadata:
        low, high = metadata["minimum"], metadata["below"]
        if not low <= value < high:
            raise UserError(f"--{name}={value:g} is out of range; expected {low} <= {name} < {high}")
    elif "above" in metadata and value <= metadata["above"]:
        raise UserError(f"--{name}={value:g} is out of range; expected more than {metadata['above']}")
    elif "minimum" in metadata and value < metadata["minimum"]:
        raise UserError(f"--{name}={value:g} is out of range; expected at least {metadata['minimum']}")
