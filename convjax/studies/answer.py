"""The answer to a study: its table on the terminal, table.md and report.html beside its runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from convjax import analysis, sweeps
from convjax.files import write_text_atomic

if TYPE_CHECKING:
    import pandas

    from convjax.studies.study import Layout


def write_answer(layout: Layout, *, suffix: str = "", show: bool = True) -> None:
    """Writes table.md and report.html beside the runs (with `suffix` before the dot), and prints the table."""
    study, frame = layout.study, layout.frame()
    by = list(dict.fromkeys(name for arm in layout.grid.arms for name, _ in arm.overrides))
    # Data sets that are an axis are listed side by side; arms are compared within each.
    several_datasets = "dataset" in by
    table = analysis.accuracy_table(frame, by, baseline=layout.baseline, allow_mixed_data=several_datasets)
    if show:
        print(analysis.to_text(table, width=_terminal_width()))
    command = shlex.join(["python", "-m", f"experiments.{study.name}", *sys.argv[1:]])
    page = [
        f"# {study.name.replace('_', ' ').capitalize()}",
        study.question,
        f"```bash\n{command}\n```",
        analysis.to_markdown(table).strip(),
        f"How to read it: {study.reading}",
        f"```\n{layout.details}\n```" if layout.details else "",
        f"Made on {machines(frame)}.",
    ]
    table_path, report = layout.folder / f"table{suffix}.md", layout.folder / f"report{suffix}.html"
    write_text_atomic(table_path, "\n\n".join(filter(None, page)) + "\n")
    analysis.write_report(
        report,
        frame,
        title=study.name.replace("_", " "),
        question=study.question,
        reading=study.reading,
        commands=[command],
        by=by,
        baseline=layout.baseline,
        details=layout.details,
        allow_mixed_data=several_datasets,
    )
    if show:
        print(f"table: {table_path}\nreport: {report}")


def machines(frame: pandas.DataFrame) -> str:
    """The machines, versions and revisions that the runs were made with."""
    made = set()
    for path in frame["path"]:
        config = sweeps.Run(Path(path)).config() or {}
        if "versions" in config:
            processor = config.get("processor", "CPU") if config["backend"] == "cpu" else ", ".join(config["devices"])
            versions, revision = config["versions"], config["git_revision"] or "unknown"
            revision = revision[:12] + "+" * revision.endswith("+")
            made.add(
                f"{config['backend']} ({processor}, {config['cpus']} CPUs), Python {versions['python']}, JAX "
                f"{versions['jax']}, revision {revision}"
            )
    return "; ".join(sorted(made)) or "an unknown machine"


def _terminal_width() -> int:
    try:
        return max(80, os.get_terminal_size().columns)
    except OSError:
        return 160
