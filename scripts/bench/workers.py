"""One process for each contender: it waits while another is measured, does one command at a time, and answers."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from convjax.errors import UnavailableError, UserError

MEASURED = ("step", "epoch", "evaluate", "job", "job_memory", "job_accuracy", "target", "target_epochs")


@dataclasses.dataclass
class Worker:
    """A contender in its own process, and what was measured of it.

    Attributes:
      ready: its first answer; empty where it did not start, and `failure` says why.
      measured: a value a round for each of `MEASURED`. `step`, `epoch`, `evaluate`: seconds of a step, an epoch, all
        test images. `job`: seconds of a whole process, `job_memory` the bytes of its largest resident set. `target`:
        seconds of a job until the target accuracy (infinite where it is not reached), `target_epochs` its epochs.
    """

    name: str
    process: "subprocess.Popen[str] | None" = None
    ready: dict[str, float] = dataclasses.field(default_factory=dict)
    failure: str = ""
    measured: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {name: [] for name in MEASURED})

    def ask(self, command: str) -> dict[str, float]:
        """Sends a command (see `serve`) and returns the answer.

        Raises:
          UnavailableError: the process has ended.
        """
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            answer = _next_answer(self.process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise UnavailableError(f"{self.name} ended while it was measured")
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.communicate()

    def as_json(self) -> dict[str, Any]:
        """All measurements."""
        return {"name": self.name, "failure": self.failure, "ready": self.ready, **self.measured}


def start(name: str, *arguments: object) -> Worker:
    """Starts a contender's process (the arguments are those of `serve`) and waits until it is ready."""
    with tempfile.TemporaryFile("w+") as errors:  # an unread pipe would fill up and block the worker
        process = subprocess.Popen(
            _command(name, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        answer = _next_answer(process.stdout)
        if answer is None:
            process.wait()
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            return Worker(name, failure=lines[-1] if lines else "it ended without a message")
    return Worker(name, process, answer)


@dataclasses.dataclass(frozen=True)
class Job:
    """A process that has ended: wall seconds, bytes of its largest resident set, and its output."""

    seconds: float
    peak_memory: float
    output: str


def run(command: Sequence[str], **variables: str) -> Job:
    """Runs a command with `variables` added to the environment.

    Raises:
      UnavailableError: it failed.
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, env={**environment(), **variables}
        )
        _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait, it reports the memory of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if process.returncode:
        lines = text.strip().splitlines()
        raise UnavailableError(f"{' '.join(command[:4])} failed: {lines[-1] if lines else process.returncode}")
    return Job(seconds, usage.ru_maxrss * 1024, text)


def job(name: str, *arguments: object) -> tuple[Job, dict[str, float]]:
    """Runs a contender's process to its end (the arguments are those of `serve`); also returns its answer.

    Raises:
      UnavailableError: it failed.
    """
    done = run(_command(name, *arguments))
    return done, json.loads(done.output.strip().splitlines()[-1])


def turns(workers: Sequence[Worker], number: int) -> list[Worker]:
    """The order of round `number`. It rotates, so that no contender always follows the same neighbor."""
    first = number % len(workers)
    return [*workers[first:], *workers[:first]]


def measure_rounds(workers: Sequence[Worker], rounds: int, steps: int) -> None:
    """Alternating rounds of a window of `steps`, an epoch and an evaluation; fills `Worker.measured`."""
    for worker in workers:
        worker.ask(f"steps {min(50, steps)}")
        worker.ask("evaluate")
    for number in range(rounds):
        for worker in turns(workers, number):
            worker.measured["step"].append(worker.ask(f"steps {steps}")["seconds"] / steps)
            worker.measured["epoch"].append(worker.ask("epoch")["seconds"])
            worker.measured["evaluate"].append(worker.ask("evaluate")["seconds"])
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within rounds: a machine that changes its speed does so for both."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def numbers(flag: str, words: Sequence[str]) -> list[int]:
    """The value of a flag that lists positive whole numbers.

    Raises:
      UserError: it does not.
    """
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"--{flag}={','.join(words)}: expected positive numbers such as 64,256")
    return [int(word) for word in words]


def environment() -> dict[str, str]:
    """This process's environment with the repository first on the import path."""
    scripts = Path(__file__).parents[1]
    paths = [str(scripts.parent), str(scripts), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "bench.serve", name, *map(str, arguments)]


def _next_answer(stream: IO[str]) -> dict[str, float] | None:
    for line in stream:
        if line.startswith("{"):
            return json.loads(line)
    return None
