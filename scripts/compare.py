"""Compares the accuracy of runs: which arm is better, by how much, and whether the seeds suffice to say so.

    python scripts/compare.py runs/kernel_size --baseline=kernel_size=3
    python scripts/compare.py runs --by=kernel_size,padding --baseline=kernel_size=3,padding=valid --format=markdown
    python scripts/compare.py runs --cross=kernel_size,padding
    python scripts/compare.py runs --marginal --metric=test_loss
    python scripts/compare.py runs --mcnemar=3f2a,91cc

Runs are found at any depth below the given folders. Runs that differ only in their seed are one arm; differences from
the baseline are paired by seed. Notes below the table say what was left out and why (--format=csv has no place for
them, so they go to stderr).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from convjax import analysis, sweeps
from convjax.errors import UserError
from convjax.files import write_text_atomic
from convjax.flags import run_program

if TYPE_CHECKING:
    from convjax.analysis import Table

FORMATS = ("text", "markdown", "latex", "csv", "json", "html")

_BY = flags.DEFINE_list("by", [], "fields that make the arms, such as kernel_size,padding; empty for all that vary")
_BASELINE = flags.DEFINE_string("baseline", "", "compare every arm with this one: FIELD=VALUE[,FIELD=VALUE...]")
_METRIC = flags.DEFINE_string("metric", "test_accuracy", "any numeric result, such as test_loss or seconds")
_FORMAT = flags.DEFINE_enum("format", "text", FORMATS, "how the table is written")
_INTERVAL = flags.DEFINE_enum(
    "interval", "t", ("t", "bootstrap"), "which 95 % interval is written; csv and json have both"
)
_CROSS = flags.DEFINE_list("cross", [], "two fields, ROWS,COLUMNS: a cross table of means instead")
_MARGINAL = flags.DEFINE_bool("marginal", False, "each factor averaged over the others instead")
_MCNEMAR = flags.DEFINE_list("mcnemar", [], "digests of two runs: McNemar's exact test of their predictions instead")
_MIXED = flags.DEFINE_bool("allow_mixed_data", False, "list runs on different data side by side")
_OUTPUT = flags.DEFINE_string("output", "", "write to this file, not to the terminal")

# The views that replace the table of arms, each with the flags that mean nothing to it.
_MEANINGLESS = {
    "cross": ("by", "baseline"),
    "marginal": ("allow_mixed_data",),
    "mcnemar": ("by", "baseline", "metric", "interval", "allow_mixed_data"),
}


def main(arguments: Sequence[str]) -> None:
    """Prints or writes the table that the flags ask for."""
    folders = arguments[1:]
    if not folders:
        raise UserError("name one or more folders that hold runs, such as: compare.py runs/kernel_size")
    _check_flags()
    _write(_make_table(folders))


def _check_flags() -> None:
    views = [name for name in _MEANINGLESS if flags.FLAGS[name].value]
    if len(views) > 1:
        raise UserError(f"--{views[0]} and --{views[1]} are different tables; ask for one at a time")
    for view in views:
        for name in _MEANINGLESS[view]:
            if flags.FLAGS[name].present:
                raise UserError(f"--{name} has no place in the table of --{view}; leave it out")
    for name, flag in (("cross", _CROSS), ("mcnemar", _MCNEMAR)):
        if flag.value and len(flag.value) != 2:
            raise UserError(f"--{name}={','.join(flag.value)}: expected two names with a comma between them")


def _make_table(folders: Sequence[str]) -> Table:
    frame = sweeps.read_runs(folders)
    if frame.empty:
        raise UserError(f"no runs in {', '.join(folders)} or below; a run is a folder with a config.json")
    if _MCNEMAR.value:
        first, second = _MCNEMAR.value
        return analysis.mcnemar_table(frame, first, second, sweeps.read_correct)
    baseline = analysis.parse_baseline(_BASELINE.value) if _BASELINE.value else None
    by, metric, interval, mixed = _BY.value or None, _METRIC.value, _INTERVAL.value, _MIXED.value
    if _MARGINAL.value:
        return analysis.marginal_table(frame, by, baseline=baseline, metric=metric, interval=interval)
    if _CROSS.value:
        down, across = _CROSS.value
        return analysis.cross_table(frame, down, across, metric=metric, interval=interval, allow_mixed_data=mixed)
    return analysis.accuracy_table(
        frame, by, baseline=baseline, metric=metric, interval=interval, allow_mixed_data=mixed
    )


def _write(table: Table) -> None:
    if _FORMAT.value == "text" and not _OUTPUT.value and (sys.stdout.isatty() or "COLUMNS" in os.environ):
        content = analysis.to_text(table, max(60, shutil.get_terminal_size().columns))
    else:
        content = analysis.RENDERERS[_FORMAT.value](table)
    if _FORMAT.value == "csv":
        for note in table.notes:
            print(f"# {note}", file=sys.stderr)
    if _OUTPUT.value:
        try:
            write_text_atomic(_OUTPUT.value, content)
        except OSError as error:
            raise UserError(f"--output={_OUTPUT.value} cannot be written: {error.strerror}") from None
        print(f"wrote {_OUTPUT.value}: {table.caption}", file=sys.stderr)
        return
    # A terminal that cannot show a character prints a question mark instead of failing.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    print(content, end="")


if __name__ == "__main__":
    run_program(main, arguments=True)
