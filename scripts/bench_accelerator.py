"""scripts/bench.py on an accelerator: a step, an epoch, the whole job and seeds a second, beside PyTorch's modes.

python scripts/bench.py --platform=gpu --peers=torch --rounds=5 --jobs=3

PyTorch runs eagerly, compiled and as CUDA graphs, with its own defaults (convolutions in TF32) and in float32 proper.
Ours are float32 (exact products), TF32 and bfloat16. The table goes to `experiments/results/PLATFORM.md`.
"""

import dataclasses
import os
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_workers

from convjax.config import RunConfig
from convjax.errors import UnavailableError, UserError

RESULTS = Path(__file__).parents[1] / "experiments" / "results"
OURS = {"gpu": ("convjax", "convjax-tf32", "convjax-bfloat16"), "tpu": ("convjax", "convjax-bfloat16")}
TORCH = {"gpu": ("torch", "torch-float32", "torch-compile", "torch-graphs"), "cpu": ("torch", "torch-compile")}


@dataclasses.dataclass
class Timing:
    """Seconds of one contender, an entry a round."""

    step: list[float] = dataclasses.field(default_factory=list)
    epoch: list[float] = dataclasses.field(default_factory=list)
    evaluate: list[float] = dataclasses.field(default_factory=list)
    job: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Runs trained at once: seconds of one epoch of all of them; `failure` says why there are none."""

    runs: int
    compile: float = 0.0
    epoch: float = 0.0
    failure: str = ""

    def as_row(self, epochs: int) -> str:
        """A row of Markdown; seeds a second are whole runs of `epochs` epochs."""
        if self.failure:
            return f"| {self.runs} | {self.failure} | | | |"
        rate = self.runs / (epochs * self.epoch)
        return f"| {self.runs} | {self.compile:.1f} | {self.epoch:.3g} | {rate:.3g} | {1 / rate:.3g} |"


def measure(values: Any, arrays: Path, loaded: Any, *, torch: bool) -> dict[str, Any]:
    """Measures all, writes the page, and returns everything for --json.

    Args:
      values: the flags of scripts/bench.py.
      arrays: the data for the workers, see `bench_peers.Data`.
      loaded: the data set.
      torch: also measure PyTorch.

    Raises:
      UnavailableError: JAX does not see such a platform.
    """
    try:
        counts = [int(count) for count in values.seed_counts]
        if min(counts) < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--seed_counts={','.join(values.seed_counts)}: expected numbers such as 1,8,64") from None
    # Workers share the device with one another; by default each JAX process takes three quarters of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    if jax.default_backend() != values.platform:
        raise UnavailableError(
            f"--platform={values.platform}: JAX sees {jax.default_backend()} here; "
            "for NVIDIA GPUs: pip install 'convjax[cuda]'"
        )
    peers = TORCH.get(values.platform, ()) if torch else ()
    names = [*OURS.get(values.platform, ("convjax",)), *peers]
    timings, failures = _contenders(values, names, arrays)
    seeds = [_seeds(count, values, loaded) for count in counts]
    page = _page(values, timings, failures, seeds)
    target = Path(values.page) if values.page else RESULTS / f"{values.platform}.md"
    from convjax.files import write_text_atomic

    write_text_atomic(target, page)
    print(page)
    print(f"wrote {target}", file=sys.stderr)
    return {
        "contenders": {name: dataclasses.asdict(timing) for name, timing in timings.items()},
        "failures": failures,
        "seeds": [dataclasses.asdict(each) for each in seeds],
    }


def _contenders(values: Any, names: Sequence[str], arrays: Path) -> tuple[dict[str, Timing], dict[str, str]]:
    arguments = [str(arrays), str(values.batch_size)]
    workers = [bench_workers.start(name, arguments) for name in names]
    failures = {worker.name: worker.failure for worker in workers if worker.failure}
    running = [worker for worker in workers if not worker.failure]
    timings = {worker.name: Timing() for worker in running}
    bench_workers.measure_rounds(values.rounds, values.steps, [(worker, timings[worker.name]) for worker in running])
    for worker in running:
        worker.close()
    for number in range(values.jobs):
        for worker in bench_workers.turns(running, number):
            done, _ = bench_workers.job(worker.name, [*arguments, values.epochs, 0, number])
            timings[worker.name].job.append(done.seconds)
    return timings, failures


def _seeds(runs: int, values: Any, loaded: Any) -> Seeds:
    """An epoch of `runs` seeds as one program, spread over all devices."""
    import jax

    from convjax.training import devices as parallel
    from convjax.training import loop
    from convjax.training.steps import Task, make_keys

    configs = [RunConfig(dataset=values.dataset, batch_size=values.batch_size, seed=seed) for seed in range(runs)]
    examples = len(loaded.train.labels)
    task = Task.of(configs[0], loaded.image_shape, loaded.num_classes, examples)
    devices = parallel.choose("auto", runs=runs)
    try:
        start = time.perf_counter()
        programs = loop.Programs.compile(task, examples, runs if runs > 1 else 0, devices=devices)
        compiled = time.perf_counter() - start
        all_keys = [make_keys(config.seed) for config in configs]
        keys = programs.stack(all_keys)
        state = programs.stack([loop.initial_state(config, task) for config in configs])
        images, labels = devices.put((loaded.train.images, loaded.train.labels), parallel.EVERYWHERE)
        order = programs.order(all_keys, 0)

        def train(stop: int, state: Any) -> Any:
            bounds = programs.bounds([0] * runs), programs.bounds([stop] * runs)
            return jax.block_until_ready(programs.train(state, images, labels, order, *bounds, keys))

        state = train(min(20, programs.steps), state)
        seconds = []
        for _ in range(max(1, min(3, values.rounds))):
            start = time.perf_counter()
            state = train(programs.steps, state)
            seconds.append(time.perf_counter() - start)
        return Seeds(runs, compiled, statistics.median(seconds))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Seeds(runs, failure="does not fit the device's memory")


def _page(values: Any, timings: dict[str, Timing], failures: dict[str, str], seeds: Sequence[Seeds]) -> str:
    from convjax.training.backend import environment

    machine = environment()
    ours = next(iter(timings.values()))
    head = ["", "ms a step", "s an epoch", "ours / theirs", "s to evaluate", f"s the job of {values.epochs} epochs"]
    rows = [
        "| "
        + " | ".join(
            [
                name,
                _middle(timing.step, 1e3),
                _middle(timing.epoch),
                f"{bench_workers.ratio(ours.epoch, timing.epoch):.2f}",
                _middle(timing.evaluate),
                _middle(timing.job),
            ]
        )
        + " |"
        for name, timing in timings.items()
    ]
    devices = ", ".join(f"{machine['devices'].count(kind)} x {kind}" for kind in dict.fromkeys(machine["devices"]))
    revision = (machine["git_revision"] or "unknown")[:12]
    command = shlex.join(["python", "scripts/bench.py", *sys.argv[1:]])
    return "\n".join(
        [
            f"# Speed on {values.platform}",
            "",
            f"```bash\n{command}\n```",
            "",
            f"The chapter's network on {values.dataset}, batches of {values.batch_size}. Medians (range) of "
            f"{values.rounds} alternating rounds; whole jobs from process start to end.",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *rows,
            *(f"\n{name}: not measured ({reason})" for name, reason in failures.items()),
            "",
            "Seeds trained at once as one program:",
            "",
            f"| seeds | s to compile | s an epoch of all | runs of {values.epochs} epochs a second | s a run |",
            "|---" * 5 + "|",
            *(each.as_row(values.epochs) for each in seeds),
            "",
            f"Made on {devices} ({machine['processor']}, {machine['cpus']} CPUs), Python "
            f"{machine['versions']['python']}, JAX {machine['versions']['jax']}, revision {revision}.",
            "",
        ]
    )


def _middle(values: Sequence[float], unit: float = 1.0) -> str:
    if not values:
        return ""
    scaled = [value * unit for value in values]
    return f"{statistics.median(scaled):.4g} ({min(scaled):.4g} - {max(scaled):.4g})"
