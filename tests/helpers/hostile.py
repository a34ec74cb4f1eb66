"""Hostile input: strategies that break sound bytes and JSON, and a way to feed few or many of them to a reader."""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

NUMBERS = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, struct.pack("<q", 2**62), b"-1", b"1e999")
WORDS = (
    *("", "0", "-1", "nan", "inf", "1e400", "9" * 400, "2147483648", "../../../x", "/etc/passwd", "\0", "\n", "\u00e9"),
    *("3x", "3-", "-", "--", "x", "1x1x1", "3-3-3-3-3", "1_000", " 3 ", "\u0663", "rotate=1e9", "a=b", "=", "None"),
    "[]",
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, -(2**63), 2**31, 1e-320, float("nan"), float("inf"), "", "1", "x" * 1000),
    *([], {}, [[1]], {"a": 1}, "../..", [None] * 3),
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with one to three changes: a flipped bit; bytes removed, repeated, overwritten, inserted, cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, len(data) // 3)))
        match draw(st.sampled_from(["flip", "remove", "repeat", "overwrite", "insert", "cut"])):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "remove":
                del data[place : place + length]
            case "repeat":
                data[place:place] = data[place : place + length]
            case "overwrite":
                word = draw(st.sampled_from(NUMBERS))
                data[place : place + len(word)] = word
            case "insert":
                data[place:place] = draw(st.binary(max_size=64))
            case "cut":
                del data[place:]
    return bytes(data)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(child, dict | list):
            yield from _parts(child)


@st.composite
def mutated_json(draw: st.DrawFn, value: Any) -> Any:
    """`value` with one to three of its parts removed, renamed, nested or replaced."""
    value = json.loads(json.dumps({"root": value}))
    parts = list(_parts(value))
    for _ in range(draw(st.integers(1, 3))):
        part, key = parts[draw(st.integers(0, len(parts) - 1))]
        if key not in part if isinstance(part, dict) else key >= len(part):
            continue  # an earlier change removed it
        match draw(st.sampled_from(["remove", "rename", "nest", "replace"])):
            case "remove":
                del part[key]
            case "rename" if isinstance(part, dict):
                part[draw(st.sampled_from(WORDS))] = part.pop(key)
            case "nest":
                part[key] = [part[key]]
            case _:
                part[key] = draw(st.sampled_from(VALUES))
    return value.get("root")


def json_bytes(value: Any) -> st.SearchStrategy[bytes]:
    """JSON text of the mutated value, or text that is no longer JSON."""
    text = mutated_json(value).map(lambda changed: json.dumps(changed).encode())
    return text | text.flatmap(mutated)


def nested(content: bytes) -> bytes:
    """JSON text too deep for any recursive parser."""
    return b'{"a":' * 100_000 + content


def amounts(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrizes a test over its number of `examples`: few by default, many among the slow tests."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


def feed(inputs: st.SearchStrategy, check: Callable[[Any], object], examples: int, always: Sequence[Any] = ()) -> None:
    """Calls `check` with each input of `always`, and with so many examples of `inputs`."""

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def test(content: Any) -> None:
        check(content)

    for content in always:
        test = example(content)(test)
    test()
