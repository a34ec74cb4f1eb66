"""The command line: flags for every field, exit codes, one-line errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from convjax.config import FIELD_NAMES

ROOT = Path(__file__).parent.parent

PROGRAM = """
from convjax.flags import config_from_flags, define_model_flags, define_run_flags, run_program
from convjax.errors import UnavailableError, UserError
def main(argv):
    {body}
define_model_flags()
define_run_flags()
run_program(main)
"""


def run(body, *flags):
    command = [sys.executable, "-c", PROGRAM.format(body=body), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("pass", 0, ""),
        ("return 1", 1, ""),
        ("raise UserError('bad flag')", 2, "bad flag"),
        ("raise UnavailableError('no network')", 1, "no network"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_exit_codes(body, code, says):
    done = run(body)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_other_errors_are_bugs_and_keep_their_traceback():
    done = run("raise RuntimeError('bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("flag", ["--epochs=many", "--nosuch=1", "stray", "--batch_size=0", "--kernel_size=5-"])
def test_bad_words_are_one_line_and_exit_code_2(flag):
    done = run("config_from_flags()", flag)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_every_field_is_a_flag_and_help_tells_of_it():
    done = run("pass", "--help")
    for name in FIELD_NAMES:
        assert re.search(rf"--(\[no\])?{name}:", done.stdout + done.stderr), name


def test_quick_gives_way_to_what_the_user_set():
    body = "c = config_from_flags(); print(c.dataset, c.epochs)"
    assert run(body, "--quick").stdout == "mnist_5k 1\n"
    assert run(body, "--quick", "--epochs=3").stdout == "mnist_5k 3\n"
    assert run(body).stdout == "mnist 5\n"


def test_a_reader_that_has_gone_is_no_traceback():
    command = f"{sys.executable} -c '{PROGRAM.format(body='[print(i) for i in range(100000)]')}' | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr
