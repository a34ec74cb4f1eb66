"""Checks a store of runs: what is sound, unfinished or damaged, and how to mend it.

    python scripts/doctor.py runs
    python scripts/doctor.py runs/kernel_size --json
    python scripts/doctor.py runs --mend

Compares every file of every run with its checksum, and reads the checkpoints of unfinished runs. Only --mend changes
something: it moves damaged files into folders DIGEST.damaged-N and deletes nothing. The exit code is 0 for a sound
store and 1 for a damaged one.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence

from absl import flags

from convjax import sweeps
from convjax.errors import UserError
from convjax.flags import run_program

_JSON = flags.DEFINE_bool("json", False, "print everything as JSON")
_MEND = flags.DEFINE_bool("mend", False, "set damaged files aside")
_CHECKPOINTS = flags.DEFINE_bool("checkpoints", True, "also read the checkpoints of unfinished runs")
_VERBOSE = flags.DEFINE_bool("all", False, "also list sound runs; by default they are only counted")


def main(arguments: Sequence[str]) -> int:
    """Examines the folders given, and prints the diagnoses."""
    folders = arguments[1:]
    if not folders:
        raise UserError("name one or more folders that hold runs, such as: doctor.py runs")
    moved = sweeps.doctor.mend(folders) if _MEND.value else []
    diagnoses = sweeps.doctor.examine(folders, checkpoints=_CHECKPOINTS.value)
    counts = collections.Counter(diagnosis.health for diagnosis in diagnoses)
    if _JSON.value:
        listed = [dataclasses.asdict(diagnosis) for diagnosis in diagnoses]
        print(json.dumps({"counts": counts, "moved": list(map(str, moved)), "findings": listed}, indent=2))
    else:
        for path in moved:
            print(f"moved to {path}")
        for diagnosis in diagnoses:
            if diagnosis.health != "sound" or _VERBOSE.value:
                print(f"{diagnosis.health}: {diagnosis.path}\n  {diagnosis.what}")
                if diagnosis.mend:
                    print(f"  {diagnosis.mend}")
        print(", ".join(f"{count:,} {health}" for health, count in sorted(counts.items())) or "no runs")
    return 1 if any(counts[health] for health in sweeps.doctor.SERIOUS) else 0


if __name__ == "__main__":
    run_program(main, arguments=True)
