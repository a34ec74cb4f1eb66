"""How fast is convjax beside the peers installed on this machine?

python scripts/bench.py --peers=torch,keras-tensorflow --rounds=5 --jobs=5

Every contender trains the chapter's network in its own process, which waits while another is measured. Rounds alternate
through all contenders, so a machine that changes its speed changes it for all. The table gives medians, ranges, and
medians of the ratios within rounds. Other measurements: `--conv_grid` single convolutions, `--streaming` streamed
images, `--platform=gpu` accelerators. `scripts/bench.sh` installs the peers in a venv of their own and runs this.
"""

import bench
from absl import flags

from convjax.errors import UserError
from convjax.files import write_json_atomic
from convjax.flags import run_program

PEERS = {
    "torch": ("torch", "torch-channels_last"),
    "torch-compile": ("torch-compile",),
    "keras": ("keras-tensorflow",),
    "keras-tensorflow": ("keras-tensorflow",),
    "keras-jax": ("keras-jax",),
    "keras-torch": ("keras-torch",),
    "flax-naive": ("flax-naive",),
}
"""What `--peers` may name, and the modes in which each is measured."""


def main(argv: list[str]) -> None:
    """Measures what the flags ask for and prints it."""
    del argv
    values = flags.FLAGS
    names = [name.strip() for name in values.peers.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise UserError(f"--peers: unknown {name!r}; expected some of {', '.join(PEERS)}")
    if values.platform:
        results = bench.accelerator.measure(values, torch="torch" in names)
    elif values.streaming:
        results = bench.streaming.measure(values)
    elif values.conv_grid:
        results = bench.conv_grid.measure(values, torch="torch" in names)
    else:
        results = bench.chapter.measure(values, {name: PEERS[name] for name in names})
    machine = bench.ours.environment()
    print(f"on {machine['processor']}, {machine['cpus']} CPUs, JAX {machine['versions']['jax']}")
    if values.json:
        write_json_atomic(values.json, {"machine": machine, **results})


if __name__ == "__main__":
    flags.DEFINE_string("peers", "", f"what else to measure: {', '.join(PEERS)}")
    flags.DEFINE_integer("rounds", 5, "alternating rounds", 1)
    flags.DEFINE_integer("steps", 200, "steps of the short window", 1)
    flags.DEFINE_integer("jobs", 0, "rounds of whole jobs, each in a fresh process; only the best mode of each peer", 0)
    flags.DEFINE_integer("epochs", 5, "epochs of a job", 1)
    flags.DEFINE_integer("target_jobs", 0, "rounds of jobs that stop at the first epoch to reach --target", 0)
    flags.DEFINE_float("target", 0.99, "test accuracy", 0, 1)
    flags.DEFINE_integer("batch_size", 64, "images a step", 1)
    flags.DEFINE_bool("conv_grid", False, "single convolutions, forward and backward, against XLA's and PyTorch's")
    flags.DEFINE_list("grid_batches", ["64", "256", "1024"], "batch sizes of --conv_grid")
    flags.DEFINE_enum("platform", "", ["", "gpu", "tpu", "cpu"], "measure on this, also many seeds trained together")
    flags.DEFINE_list("seed_counts", ["1", "8", "64", "256"], "how many seeds --platform trains together")
    flags.DEFINE_string("page", "", "where --platform writes its table; experiments/results/PLATFORM.md by default")
    flags.DEFINE_bool("streaming", False, "streamed images against resident ones; no peers")
    flags.DEFINE_string("profile", "", "also write a JAX trace of --steps of our steps into this folder")
    flags.DEFINE_string("dataset", "mnist", "see experiments.train")
    flags.DEFINE_string("data_dir", "", "see experiments.train")
    flags.DEFINE_string("json", "", "also write all measurements to this file")
    run_program(main)
