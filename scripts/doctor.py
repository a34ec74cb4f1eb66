"""Checks a store of runs: what is sound, unfinished, stale or damaged, and how to mend it.

    python scripts/doctor.py runs
    python scripts/doctor.py runs/kernel_size --json
    python scripts/doctor.py runs --mend

Reads every file of every run and compares it with its checksum; reads the checkpoints of unfinished runs. Nothing is
changed, except by --mend, which moves what is damaged into folders DIGEST.damaged-N (and deletes nothing). The exit
code is 0 for a sound store and 1 for one with damage.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence

from absl import flags

from convjax.errors import UserError
from convjax.flags import run_program

_JSON = flags.DEFINE_bool("json", False, "print everything that was found, as JSON")
_MEND = flags.DEFINE_bool("mend", False, "set aside what is damaged")
_CHECKPOINTS = flags.DEFINE_bool("checkpoints", True, "also read the checkpoints of unfinished runs")
_VERBOSE = flags.DEFINE_bool("all", False, "also list the sound runs, which are only counted otherwise")


def main(arguments: Sequence[str]) -> int:
    """Prints what was found."""
    from convjax.sweeps import doctor

    folders = arguments[1:]
    if not folders:
        raise UserError("name one or more folders that hold runs, such as: doctor.py runs")
    moved = doctor.mend(folders) if _MEND.value else []
    findings = doctor.examine(folders, checkpoints=_CHECKPOINTS.value)
    counts = collections.Counter(finding.health for finding in findings)
    if _JSON.value:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"counts": counts, "moved": list(map(str, moved)), "findings": listed}, indent=2))
    else:
        for path in moved:
            print(f"moved to {path}")
        for finding in findings:
            if finding.health != "sound" or _VERBOSE.value:
                print(f"{finding.health}: {finding.path}\n  {finding.what}")
                if finding.mend:
                    print(f"  {finding.mend}")
        print(", ".join(f"{count:,} {health}" for health, count in sorted(counts.items())) or "no runs")
    return 1 if any(counts[health] for health in doctor.SERIOUS) else 0


if __name__ == "__main__":
    run_program(main, arguments=True)
