"""Worker processes of scripts/bench.py: they wait while another is measured, do a word of work when asked, and tell."""

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

from convjax.errors import UnavailableError

SCRIPT = Path(__file__).with_name("bench_peers.py")


@dataclasses.dataclass
class Worker:
    """A contender in a process of its own.

    Attributes:
      first: what it said when it was ready; empty where it could not be started, and `failure` then says why.
    """

    name: str
    process: "subprocess.Popen[str] | None" = None
    first: dict[str, float] = dataclasses.field(default_factory=dict)
    failure: str = ""

    def ask(self, words: str) -> dict[str, float]:
        """Has the worker do something and returns its answer."""
        assert self.process is not None
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(words + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise UnavailableError(f"{self.name} ended while it was measured") from None
        answer = _next_answer(stdout)
        if answer is None:
            raise UnavailableError(f"{self.name} ended while it was measured")
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.communicate()


def start(name: str, arguments: Sequence[str]) -> Worker:
    """Starts `bench_peers.py NAME ARGUMENTS...` and waits until it is ready."""
    with tempfile.TemporaryFile("w+") as errors:  # a pipe that nobody reads would fill up and block the worker
        process = subprocess.Popen(
            _command(name, arguments),
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
            return Worker(name, failure=lines[-1] if lines else "it ended without a word")
    return Worker(name, process, answer)


@dataclasses.dataclass(frozen=True)
class Job:
    """A process that ran to its end: wall seconds, bytes of its largest resident set, and what it printed."""

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
        _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait, it tells the memory of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if process.returncode:
        lines = text.strip().splitlines()
        raise UnavailableError(f"{' '.join(command[:4])} failed: {lines[-1] if lines else process.returncode}")
    return Job(seconds, usage.ru_maxrss * 1024, text)


def job(name: str, arguments: Sequence[object]) -> tuple[Job, dict[str, float]]:
    """Runs `bench_peers.py NAME ARGUMENTS...` as a job; also its answer.

    Raises:
      UnavailableError: it failed.
    """
    done = run(_command(name, arguments))
    return done, json.loads(done.output.strip().splitlines()[-1])


def _command(name: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, str(SCRIPT), name, *map(str, arguments)]


def environment() -> dict[str, str]:
    """This process's, with this repository first on the import path."""
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def turns(contenders: Sequence[Worker], number: int) -> list[Worker]:
    """The order of round `number`: it turns, so that nobody always follows the same neighbour."""
    start = number % len(contenders)
    return [*contenders[start:], *contenders[:start]]


def measure_rounds(rounds: int, steps: int, timings: Sequence[tuple[Worker, Any]]) -> None:
    """Alternating rounds of a window of `steps`, an epoch and an evaluation.

    Args:
      timings: each worker with an object whose lists `step`, `epoch` and `evaluate` grow by the seconds of each round.
    """
    by_name = {worker.name: timing for worker, timing in timings}
    workers = [worker for worker, _ in timings]
    for worker in workers:
        worker.ask(f"steps {min(50, steps)}")
        worker.ask("evaluate")
    for number in range(rounds):
        for worker in turns(workers, number):
            timing = by_name[worker.name]
            timing.step.append(worker.ask(f"steps {steps}")["seconds"] / steps)
            timing.epoch.append(worker.ask("epoch")["seconds"])
            timing.evaluate.append(worker.ask("evaluate")["seconds"])
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios, so that a machine that changes its speed does so for both."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _next_answer(stream: IO[str]) -> dict[str, float] | None:
    for line in stream:
        if line.startswith("{"):
            return json.loads(line)
    return None
