"""Execution options: how to run, not what. None of them changes a run's numbers or its digest."""

import dataclasses

from convjax.settings import require_choice, setting


@dataclasses.dataclass(frozen=True)
class Options:
    """Execution options of a run; `convjax.flags` makes a flag of each."""

    data_dir: str = setting("", "folder with raw data files, and where downloaded ones are kept")
    workdir: str = setting("runs", "folder that keeps every run")
    resume: bool = setting(
        True, "go on from a run's checkpoint; --noresume sets earlier results aside and starts again"
    )
    keep_checkpoints: int = setting(2, "how many of a run's newest checkpoints to keep; 0 for all", minimum=0)
    checkpoint_minutes: float = setting(10, "also keep a checkpoint within an epoch this often; 0 for never", minimum=0)
    debug_nans: bool = setting(False, "when the loss is NaN or infinite, stop and name the operation it came from")
    streaming: str = setting(
        "auto",
        "bring training images to the device in chunks while it computes; auto: where they exceed --memory_limit",
        choices=("auto", "yes", "no"),
    )
    memory_limit: int = setting(
        0, "MiB of training images that the device may hold; 0 for half of its memory", minimum=0
    )
    devices: str = setting(
        "auto",
        "all, or how many devices a run's batches (--seed_mode=vmap: the runs) are split among; auto: one for a run, "
        "all accelerators for runs that train together",
    )
    tensorboard: bool = setting(False, "also write TensorBoard event files into the run folder")
    diagnostics: bool = setting(
        True, "after each epoch measure every layer: norms of weights and gradients, dead channels"
    )


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Execution options of a sweep; `convjax.studies.study` makes a flag of each."""

    executor: str = setting("local", "where runs are done: here, or on a Ray cluster", choices=("local", "ray"))
    seed_mode: str = setting(
        "auto",
        "serial: one run after another; vmap: runs that differ only in seed and learning rate train together; "
        "processes: worker processes share the runs; auto: vmap on an accelerator, serial on CPU",
        choices=("auto", "serial", "vmap", "processes"),
    )
    jobs: int = setting(0, "worker processes of --seed_mode=processes; 0 for two", minimum=0)
    replicas: int = setting(32, "runs that --seed_mode=vmap trains together on each device", minimum=1)
    ray_address: str = setting("auto", "the Ray cluster; auto for the one that this machine belongs to")
    ray_cpus: float = setting(1.0, "CPUs that a run asks of the Ray cluster", minimum=0.0)
    ray_gpus: float = setting(0.0, "GPUs that a run asks of the Ray cluster", minimum=0.0)

    def __post_init__(self) -> None:
        for name in ("executor", "seed_mode"):
            require_choice(name, getattr(self, name), self.__dataclass_fields__[name].metadata["choices"])
