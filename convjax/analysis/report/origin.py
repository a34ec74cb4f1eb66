"""Where the results of a report come from: data, dates, machines, versions."""

import datetime
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from convjax.analysis.arms import Arms
from convjax.analysis.render import Table, word_table
from convjax.analysis.wording import counted
from convjax.errors import UserError
from convjax.sweeps.store import Run

Config = Mapping[str, Any]


def finished_days(arms: Arms) -> str:
    """First and last day on which a run was finished, in UTC; empty where unknown."""
    days = set()
    for path in _paths(arms):
        try:
            time = (path / "result.json").stat().st_mtime
        except OSError:
            continue
        days.add(datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat())
    return " to ".join(dict.fromkeys([min(days), max(days)])) if days else ""


def origin_table(arms: Arms) -> Table:
    """One row per fact; facts that no run's folder tells are left out."""
    configs = [_config(path) for path in _paths(arms)]

    def distinct(describe: Callable[[Config], str]) -> str:
        counts = Counter(text for text in map(describe, configs) if text)
        if len(counts) <= 1:
            return next(iter(counts), "")
        return "; ".join(f"{text} ({counted(count, 'run')})" for text, count in sorted(counts.items()))

    seconds = [arm.seconds * len(arm.values) for arm in arms.arms if math.isfinite(arm.seconds)]
    facts = {
        "data": distinct(_data),
        "finished (UTC)": finished_days(arms),
        "wall time of all runs": _duration(math.fsum(seconds)) if seconds else "",
        "machine": distinct(_machine),
        "backend": distinct(lambda config: _text(config.get("backend"))),
        "versions": distinct(_versions),
        "code revision": distinct(_revision),
    }
    rows = [fact for fact in facts.items() if fact[1]]
    return word_table("Where the results come from", pd.DataFrame(rows, columns=["what", "value"]))


def _paths(arms: Arms) -> list[Path]:
    return [Path(path) for arm in arms.arms for path in arm.paths.values()]


def _config(path: Path) -> Config:
    try:
        return Run(path).config() or {}
    except (UserError, OSError):
        return {}


def _data(config: Config) -> str:
    found = config.get("data")
    if not isinstance(found, dict):
        return _text(config.get("dataset"))
    sizes = [
        f"{found[f'{part}_examples']:,} {part}"
        for part in ("train", "validation", "test")
        if found.get(f"{part}_examples")
    ]
    return f"{_text(config.get('dataset'))}, {', '.join(sizes)} images, fingerprint {_text(found.get('fingerprint'))}"


def _machine(config: Config) -> str:
    devices = Counter(str(device) for device in config.get("devices") or [])
    parts = [_text(config.get("host"))]
    parts += [f"{count} x {device}" if count > 1 else device for device, count in sorted(devices.items())]
    parts += [f"{config['cpus']} CPUs"] if config.get("cpus") else []
    return ", ".join(filter(None, parts))


def _versions(config: Config) -> str:
    found = config.get("versions")
    return ", ".join(f"{name} {found[name]}" for name in found) if isinstance(found, dict) else _text(found)


def _revision(config: Config) -> str:
    found = _text(config.get("git_revision"))
    return f"{found[:12]} with changes" if found.endswith("+") else found[:12]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
