"""The command line: the flags all experiments share, and the one way a program ends."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import app, flags, logging

from convjax.config import (
    ACTIVATIONS,
    COLORS,
    CONVOLUTIONS,
    FIELD_NAMES,
    HEADS,
    MODEL_FIELDS,
    MODELS,
    OPTIMIZERS,
    PADDINGS,
    PIXELS,
    POOLS,
    PRECISIONS,
    SCHEDULES,
    STREAMING,
    RunConfig,
    field_type,
)
from convjax.errors import UnavailableError, UserError

if TYPE_CHECKING:
    from convjax.sweeps.run import Options

_DEFAULTS = RunConfig()


def _listed(values: Sequence[str]) -> str:
    return "|".join(values)


_HELP = {
    "dataset": "mnist, fashion_mnist, kmnist, mnist_5k (embedded, no network), cats_vs_dogs, cats_vs_dogs_small, "
    "folder:PATH (images, one sub-folder a class), or any TFDS image-classification name",
    "model": f"{_listed(MODELS)}: the chapter's convnet, the same with unshared weights, the dense baseline of the "
    "chapter before, or the book's net for small data (cats and dogs)",
    "channels": "output channels, one per convolution; empty for the model's own (convnet 32-64-64, small_data "
    "32-64-128-128)",
    "kernel_size": "convolution window: N or HxW, one value or one per convolution",
    "padding": f"{_listed(PADDINGS)}, one value or one per convolution",
    "stride": "convolution stride: N or VxH, one value or one per convolution",
    "pool": f"{_listed(POOLS)}: one value goes between convolutions (none after the last, or max+ for there too), or "
    "give one per convolution; empty for the model's own (convnet max, small_data max+)",
    "pool_size": "pooling window: N or HxW, one value or one per convolution",
    "pool_stride": "pooling stride; 0 is the window itself, smaller values overlap",
    "dense_units": "hidden dense layers; 0 for none; empty for the model's own (convnet 64, dense and small_data 512)",
    "dropout": "rate before the classifier (dense: after each hidden layer), or one per hidden layer",
    "augment": "augmentation of the training images, such as rotate=10+shift=0.1, or chollet; empty for none",
    "activation": f"{_listed(ACTIVATIONS)}, one value or one per hidden layer",
    "optimizer": f"{_listed(OPTIMIZERS)}, as Keras has them",
    "learning_rate": "step size, after any warm-up; left out for the model's own (0.001, small_data 0.0001)",
    "momentum": "of sgd and rmsprop",
    "weight_decay": "decoupled: each step also takes learning rate times this of every weight away",
    "schedule": f"{_listed(SCHEDULES)}: the learning rate after the warm-up stays or falls to 0 over the run",
    "warmup_steps": "steps over which the learning rate rises linearly from 0",
    "batch_size": "images a step; the last, shorter batch of an epoch is used too",
    "epochs": "passes over the training images",
    "train_size": "train on a nested stratified subset of this many images; 0 for all",
    "validation_size": "hold out a fixed stratified slice of the training images; 0 for none",
    "label_smoothing": "share of the training target that is spread evenly over all classes",
    "early_stopping": "stop after so many epochs without a lower validation loss and take the best weights; 0 for off",
    "seed": "of initialisation, shuffling, dropout and augmentation",
    "precision": f"{_listed(PRECISIONS)}: of the computation, not of parameters and losses; tf32 needs an NVIDIA GPU",
    "image_size": "resize every image to N or HxW; 0 for the size the data set has",
    "color": f"{_listed(COLORS)}: auto is what the data set has",
    "skip_corrupt": "leave out files of a folder that are no sound images, and count them; else they are an error",
    "conv": f"{_listed(CONVOLUTIONS)}: how convolutions are computed",
    "head": f"{_listed(HEADS)}: the last feature map flattened, or averaged over its positions",
    "pixels": f"{_listed(PIXELS)}: the image as it is, or its pixels in one fixed random order",
}


def define_model_flags(*, grid: bool = False, skip: Sequence[str] = ()) -> None:
    """Defines a flag for every RunConfig field not in `skip`.

    With `grid` every flag takes a comma-separated list of values and its value is text.
    """
    for name in FIELD_NAMES:
        if name in skip:
            continue
        default, text = getattr(_DEFAULTS, name), _HELP[name]
        if name in MODEL_FIELDS:
            default = None if field_type(name) is float and not grid else ""
        if field_type(name) is bool:
            flags.DEFINE_bool(name, default, text)
        elif grid:
            flags.DEFINE_string(name, str(default), f"{text}; a comma separates the values of a grid")
        elif field_type(name) is int:
            flags.DEFINE_integer(name, default, text)
        elif field_type(name) is float:
            flags.DEFINE_float(name, default, text)
        else:
            flags.DEFINE_string(name, default, text)


def define_run_flags() -> None:
    """Defines the flags that say where and how to run, and do not change a run's numbers."""
    flags.DEFINE_string("data_dir", "", "folder with raw data files, and where fetched ones are kept")
    flags.DEFINE_string("workdir", "runs", "folder that keeps every run")
    flags.DEFINE_bool("progress", True, "show progress bars on a terminal; elsewhere one line an epoch")
    flags.DEFINE_bool("resume", True, "go on from a run's checkpoint; --noresume starts it again")
    flags.DEFINE_bool("quick", False, "smoke run: mnist_5k, one epoch, two seeds; ends in seconds")
    flags.DEFINE_integer("keep_checkpoints", 2, "how many of a run's newest checkpoints to keep; 0 for all", 0)
    flags.DEFINE_float("checkpoint_minutes", 10, "also keep a checkpoint within an epoch this often; 0 for never", 0)
    flags.DEFINE_bool("debug_nans", False, "when the loss is NaN or infinite, stop and name the operation it came from")
    flags.DEFINE_enum(
        "streaming",
        "auto",
        STREAMING,
        "bring training images to the device in batches while it computes; auto: where they exceed --memory_limit",
    )
    flags.DEFINE_integer("memory_limit", 0, "MiB of training images the device may hold; 0 for half of its memory", 0)
    flags.DEFINE_string(
        "devices",
        "auto",
        "all, or how many devices a run's batches (--seed_mode=vmap: the runs) are spread over; auto: one for a run, "
        "all accelerators for runs trained at once",
    )
    flags.DEFINE_bool("tensorboard", False, "also write TensorBoard event files into the run folder")
    flags.DEFINE_bool(
        "diagnostics", True, "after each epoch measure every layer: norms of weights and gradients, dead channels"
    )


def define_process_flags() -> None:
    """Defines the flags of a run that several processes, one a host, train together."""
    flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT of the first of several processes that train one run together; auto on Slurm, Kubernetes, TPU pods",
    )
    flags.DEFINE_integer("num_processes", None, "how many processes there are", 1)
    flags.DEFINE_integer("process_id", None, "which of them this is, from 0; the first writes the results", 0)


def config_from_flags() -> RunConfig:
    """The RunConfig that the flags describe; `--quick` replaces what the user did not set.

    Raises:
      UserError: an impossible value.
    """
    values = {name: flags.FLAGS[name].value for name in FIELD_NAMES if name in flags.FLAGS}
    if "quick" in flags.FLAGS and flags.FLAGS.quick:
        values |= {name: value for name, value in QUICK.items() if not flags.FLAGS[name].present}
    return RunConfig(**values)


def options_from_flags() -> "Options":
    """The Options that `define_run_flags`'s flags describe."""
    from convjax.sweeps.run import Options

    values = flags.FLAGS
    return Options(
        data_dir=values.data_dir,
        workdir=values.workdir,
        resume=values.resume,
        tensorboard=values.tensorboard,
        keep_checkpoints=values.keep_checkpoints,
        devices=values.devices,
        checkpoint_minutes=values.checkpoint_minutes,
        debug_nans=values.debug_nans,
        diagnostics=values.diagnostics,
        streaming=values.streaming,
        memory_limit=values.memory_limit,
    )


QUICK: dict[str, str | int] = {"dataset": "mnist_5k", "epochs": 1}


def run_program(main: Callable[[list[str]], int | None], *, arguments: bool = False) -> None:
    """Runs an absl `main` and leaves with the project's exit codes.

    `arguments` says that the program takes words that are not flags; they are then in `main`'s `argv[1:]`.

    0 done; 2 the user's input was wrong; 1 anything else; 130 interrupted. Errors that are the user's or the
    world's are one line on stderr that begins with the program's name.
    """
    program = os.path.basename(sys.argv[0]).removesuffix(".py")
    if program == "__main__":
        program = os.path.basename(os.path.dirname(sys.argv[0]))

    def fail(code: int, message: str) -> None:
        print(f"{program}: {message}", file=sys.stderr, flush=True)
        leave(code)

    def leave(code: int) -> None:
        sys.stdout.flush()
        if "coordinator" in flags.FLAGS and flags.FLAGS.is_parsed() and flags.FLAGS.coordinator:
            os._exit(code)  # at an orderly exit JAX would wait for the other processes, and they for this one
        sys.exit(code)

    def guarded(argv: list[str]) -> int | None:
        if len(argv) > 1 and not arguments:
            raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value (see --help)")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries tell too much at INFO
        return main(argv)

    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("convjax."):
            for flag in defined:
                # absl shows with --help the flags of the main module; ours are defined on its behalf.
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    if {"--help", "-help", "-h", "--helpshort"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)  # absl's own exit code would be 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app.run(guarded, flags_parser=flags.FLAGS)
    except flags.Error as error:
        fail(2, f"{_one_line(error)} (see --help)")
    except UserError as error:
        fail(2, _one_line(error))
    except UnavailableError as error:
        fail(1, str(error))
    except FloatingPointError as error:
        fail(1, _one_line(error))  # of --debug_nans
    except KeyboardInterrupt:
        fail(130, "interrupted; what was finished is kept, and the same command goes on from there")
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing is left to say to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        leave(1)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM is an interruption like Ctrl-C: `finally` blocks run, and the exit code is the same."""
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
