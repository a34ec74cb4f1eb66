"""The command line: the flags that all experiments share, and the one way a program ends.

Flags are made from the fields of `RunConfig` (what to run) and `sweeps.Options` (how to run it): each setting is
described once, at its field.
"""

import dataclasses
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from absl import app, flags, logging

from convjax.config import FIELD_NAMES, RunConfig, field_type
from convjax.errors import UnavailableError, UserError
from convjax.sweeps.options import Options, SweepOptions

QUICK: dict[str, str | int] = {"dataset": "mnist_5k", "epochs": 1}
"""What `--quick` sets, unless the user did."""

T = TypeVar("T", Options, SweepOptions)


def define_model_flags(*, grid: bool = False, skip: Sequence[str] = ()) -> None:
    """Defines a flag for every RunConfig field not in `skip`.

    With `grid` every flag takes a comma-separated list of values, and its value is text.
    """
    for field in dataclasses.fields(RunConfig):
        if field.name in skip:
            continue
        kind, text = field_type(field.name), _help(field.metadata)
        default: Any = field.default
        if kind is bool:
            flags.DEFINE_bool(field.name, default, text)
        elif grid:
            default = "" if default is None else str(default)
            flags.DEFINE_string(field.name, default, f"{text}; a comma separates the values of a grid")
        elif kind is int:
            flags.DEFINE_integer(field.name, default, text)
        elif kind is float:
            flags.DEFINE_float(field.name, default, text)
        else:
            flags.DEFINE_string(field.name, "" if default is None else default, text)


def _help(metadata: Mapping[str, Any]) -> str:
    """The help text of a field's flag, with its choices and its defaults for other models."""
    text: str = metadata["help"]
    if "choices" in metadata:
        text = f"{'|'.join(metadata['choices'])}: {text}"
    if "per" in metadata:
        text += f"; one value, or one per {metadata['per']} joined by '-'"
    if "own" in metadata:
        own = ", ".join(f"{model} {value}" for model, value in metadata["own"].items())
        text += f"; left out for the model's own ({metadata['default']}; {own})"
    return text


def define_run_flags() -> None:
    """Defines a flag for every field of `Options`, and what programs that run something share."""
    define_flags_of(Options)
    flags.DEFINE_bool("progress", True, "show progress bars on a terminal; elsewhere one line per epoch")
    flags.DEFINE_bool("quick", False, "smoke run: mnist_5k, one epoch, two seeds; ends in seconds")


def define_flags_of(options: type[Options | SweepOptions]) -> None:
    """Defines a flag for every field of a dataclass whose fields are `convjax.settings.setting`s."""
    for field in dataclasses.fields(options):
        default: Any = field.default
        text = field.metadata["help"]
        minimum, choices = field.metadata.get("minimum"), field.metadata.get("choices")
        if field.type is bool:
            flags.DEFINE_bool(field.name, default, text)
        elif field.type is int:
            flags.DEFINE_integer(field.name, default, text, minimum)
        elif field.type is float:
            flags.DEFINE_float(field.name, default, text, minimum)
        elif choices:
            flags.DEFINE_enum(field.name, default, choices, text)
        else:
            flags.DEFINE_string(field.name, default, text)


def config_from_flags() -> RunConfig:
    """The RunConfig that the flags describe; `--quick` replaces what the user did not set.

    Raises:
      UserError: an impossible value.
    """
    values = {name: flags.FLAGS[name].value for name in FIELD_NAMES if name in flags.FLAGS}
    if "quick" in flags.FLAGS and flags.FLAGS.quick:
        values |= {name: value for name, value in QUICK.items() if not flags.FLAGS[name].present}
    return RunConfig.from_dict(values)


def options_from_flags(options: type[T] = Options) -> T:
    """An instance of a dataclass whose flags `define_flags_of` defined."""
    return options(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(options)})


def run_program(main: Callable[[list[str]], int | None], *, arguments: bool = False) -> None:
    """Runs an absl `main` and exits with the project's exit codes.

    0 done; 2 the user's input was wrong; 1 anything else; 130 interrupted. An error that the user or the environment
    caused is one line on stderr that begins with the program's name.

    Args:
      main: the program.
      arguments: whether it takes words that are not flags; they are then in `main`'s `argv[1:]`.
    """
    program = os.path.basename(sys.argv[0]).removesuffix(".py")
    if program == "__main__":
        program = os.path.basename(os.path.dirname(sys.argv[0]))

    def guarded(argv: list[str]) -> int | None:
        if len(argv) > 1 and not arguments:
            raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value (see --help)")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries say too much at INFO
        return main(argv)

    _show_help_if_asked()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app.run(guarded, flags_parser=flags.FLAGS)
    except flags.Error as error:
        _exit(program, 2, f"{_one_line(error)} (see --help)")
    except UserError as error:
        _exit(program, 2, _one_line(error))
    except UnavailableError as error:
        _exit(program, 1, str(error))
    except FloatingPointError as error:  # of --debug_nans
        _exit(program, 1, _one_line(error))
    except KeyboardInterrupt:
        _exit(program, 130, "interrupted; finished work is kept, and the same command resumes from there")
    except BrokenPipeError:
        # The reader of our output is gone (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _show_help_if_asked() -> None:
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("convjax."):
            for flag in defined:
                # absl's --help shows the flags of the main module; ours are defined on its behalf.
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    if {"--help", "-help", "-h", "--helpshort"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)  # absl's own exit code would be 1


def _exit(program: str, code: int, message: str) -> None:
    print(f"{program}: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM is an interruption like Ctrl-C: `finally` blocks run, and the exit code is the same."""
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
