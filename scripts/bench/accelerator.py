"""`scripts/bench.py --platform=gpu`: the chapter's run on an accelerator, and many seeds trained together.

python scripts/bench.py --platform=gpu --peers=torch --rounds=5 --jobs=3

We are measured in float32 (exact products), TF32 and bfloat16; PyTorch eagerly, compiled, as CUDA graphs (all with its
default, TF32 convolutions) and in true float32. The page goes to `experiments/results/PLATFORM.md`.
"""

import dataclasses
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl.flags import FlagValues

from bench import ours, tables, task, workers
from bench.workers import Worker
from convjax import data
from convjax.errors import UnavailableError
from convjax.files import write_text_atomic

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
OURS = {"gpu": ("convjax", "convjax-tf32", "convjax-bfloat16"), "tpu": ("convjax", "convjax-bfloat16")}
TORCH = {"gpu": ("torch", "torch-float32", "torch-compile", "torch-graphs"), "cpu": ("torch", "torch-compile")}


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Seeds trained together: seconds to compile and of one epoch of all, or the `failure` that left none."""

    runs: int
    compile: float = 0.0
    epoch: float = 0.0
    failure: str = ""

    def row(self, epochs: int) -> str:
        """A row of Markdown; a run has `epochs` epochs."""
        if self.failure:
            return f"| {self.runs} | {self.failure} | | | |"
        rate = self.runs / (epochs * self.epoch)
        return f"| {self.runs} | {self.compile:.1f} | {self.epoch:.3g} | {rate:.3g} | {1 / rate:.3g} |"


def measure(values: FlagValues, *, torch: bool) -> dict[str, Any]:
    """Measures, writes and prints the page, and returns all measurements.

    Raises:
      UnavailableError: JAX does not see such a platform.
    """
    counts = workers.numbers("seed_counts", values.seed_counts)
    # Workers share the device; by default each JAX process takes three quarters of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if jax.default_backend() != values.platform:
        raise UnavailableError(
            f"--platform={values.platform}: JAX sees {jax.default_backend()} here; "
            "for NVIDIA GPUs: pip install 'convjax[cuda]'"
        )
    dataset = data.load(values.dataset, values.data_dir)
    names = [*OURS.get(values.platform, ("convjax",)), *(TORCH.get(values.platform, ()) if torch else ())]
    with tempfile.TemporaryDirectory() as folder:
        arguments = task.save(dataset, folder), values.batch_size
        started = [workers.start(name, *arguments) for name in names]
        running = [worker for worker in started if not worker.failure]
        workers.measure_rounds(running, values.rounds, values.steps)
        for worker in running:
            worker.close()
        for number in range(values.jobs):
            for worker in workers.turns(running, number):
                done, _ = workers.job(worker.name, *arguments, values.epochs, 0, number)
                worker.measured["job"].append(done.seconds)
    seeds = [_seeds(count, values, dataset) for count in counts]
    page = _page(values, started, seeds)
    target = Path(values.page) if values.page else RESULTS / f"{values.platform}.md"
    write_text_atomic(target, page)
    print(page)
    print(f"wrote {target}", file=sys.stderr)
    return {
        "contenders": [worker.as_json() for worker in started],
        "seeds": [dataclasses.asdict(each) for each in seeds],
    }


def _seeds(runs: int, values: FlagValues, dataset: data.Dataset) -> Seeds:
    try:
        compiled, seconds = ours.seeds_together(runs, dataset, values.batch_size, max(1, min(3, values.rounds)))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Seeds(runs, failure="does not fit the device's memory")
    return Seeds(runs, compiled, statistics.median(seconds))


def _page(values: FlagValues, started: Sequence[Worker], seeds: Sequence[Seeds]) -> str:
    machine = ours.environment()
    devices = ", ".join(f"{machine['devices'].count(kind)} x {kind}" for kind in dict.fromkeys(machine["devices"]))
    missing = "".join(f"\n{worker.name}: not measured ({worker.failure})\n" for worker in started if worker.failure)
    return f"""# Speed on {values.platform}

```bash
{shlex.join(["python", "scripts/bench.py", *sys.argv[1:]])}
```

The chapter's network on {values.dataset}, batches of {values.batch_size}, jobs of {values.epochs} epochs. Medians \
(range) of {values.rounds} alternating rounds; bold: our time over theirs.

{tables.of_workers([worker for worker in started if not worker.failure])}
{missing}
Seeds trained together as one program:

| seeds | s to compile | s an epoch of all | runs of {values.epochs} epochs a second | s a run |
|---|---|---|---|---|
{chr(10).join(each.row(values.epochs) for each in seeds)}

Made on {devices} ({machine["processor"]}, {machine["cpus"]} CPUs), Python {machine["versions"]["python"]}, \
JAX {machine["versions"]["jax"]}, revision {(machine["git_revision"] or "unknown")[:12]}.
"""
