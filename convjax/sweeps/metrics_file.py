"""The file format of metrics.jsonl: one JSON object per line, with a step and a CRC-32; `Run` in `store` uses it."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convjax.files import sync_folder

Line = dict[str, Any]

_LARGEST_LINE = 1 << 20


def append_line(path: Path, line: Line) -> None:
    """Appends a line with its checksum and syncs it to disk."""
    new = not path.exists()
    with open(path, "ab") as file:
        file.write((json.dumps({**line, "crc32": _crc32(line)}) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def read_lines(path: Path) -> tuple[list[tuple[Line, int]], str]:
    """The lines up to the first damaged one, each with its end in the file, and what is wrong with that one.

    The reason is empty if no line is damaged. A crash may have cut off the last line, which is no damage.
    """
    lines: list[tuple[Line, int]] = []
    try:
        with open(path, "rb") as file:
            while text := file.readline(_LARGEST_LINE):
                line = _parse(text)
                if not text.endswith(b"\n") and len(text) < _LARGEST_LINE:
                    break  # a crash cut it off
                if line is None:
                    return lines, f"line {len(lines) + 1} is not what was written"
                lines.append((line, file.tell()))
    except FileNotFoundError:
        pass
    except OSError as error:
        return lines, " ".join(str(error).split())[:200]
    return lines, ""


def last_line(path: Path) -> Line | None:
    """The last complete line, found from the end because the file may be large."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            for size in (1 << 13, 2 * _LARGEST_LINE):
                file.seek(max(0, end - size))
                # The first piece may begin within a line; the last is an incomplete line or nothing.
                for text in reversed(file.read().split(b"\n")[:-1]):
                    line = _parse(text)
                    if line is not None:
                        return line
    except FileNotFoundError:
        pass
    return None


def truncate(path: Path, size: int) -> None:
    """Drops what follows the first `size` bytes."""
    if path.exists() and path.stat().st_size != size:
        with open(path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())


def _parse(text: bytes) -> Line | None:
    """A line without its checksum, or None if it is damaged. Earlier versions wrote no checksum."""
    try:
        line = json.loads(text)
        crc32 = line.pop("crc32", None)
        sound = isinstance(line["step"], int) and (crc32 is None or crc32 == _crc32(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return line if sound else None


def _crc32(line: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(line).encode()):08x}"
