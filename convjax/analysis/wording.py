"""How fields, keys, counts and lists are written in tables, notes and messages."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from convjax.errors import UserError

_MOST_NAMED = 3


def field_text(value: Any) -> str:
    """A field's value as the user writes it on the command line; `(none)` for the empty one."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "(none)"


def key_text(names: Iterable[str], values: Iterable[Any]) -> str:
    """`kernel_size=3, padding=valid`."""
    return ", ".join(f"{name}={field_text(value)}" for name, value in zip(names, values, strict=True))


def natural_key(value: Any) -> tuple[Any, ...]:
    """Sorting key: 1, 2, 3, 3x5, 5, 7, 10, 5-3-3, then words; numbers by size, not by their digits."""
    if isinstance(value, int | float):
        return (0, (float(value),), "")
    text = str(value)
    if re.fullmatch(r"[0-9.]+([-x][0-9.]+)*", text):
        numbers = tuple(float(part) for part in re.findall(r"[0-9]+(?:\.[0-9]+)?", text))
        return (1 if "-" in text else 0, numbers, text)
    return (2, (), tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"([0-9]+)", text) if p))


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names and how many more there are."""
    text = separator.join(names[:_MOST_NAMED])
    rest = len(names) - _MOST_NAMED
    return f"{text}{separator}and {rest:,} more" if rest > 0 else text


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def counted(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unknown_name(what: str, name: str, known: Sequence[str]) -> UserError:
    """An error that names what the user probably meant."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return UserError(f"{what} {name!r} is not known; {hint}")
