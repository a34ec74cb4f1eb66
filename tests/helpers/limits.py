"""The rules for reading hostile input: a result or one clear refusal, in bounded time and memory, inside one folder."""

import contextlib
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from convjax.errors import UnavailableError, UserError

SECONDS = 10.0
"""Of computing. Waiting may take longer, since a harmless input may wait on a busy machine."""
WAITING_SECONDS = 120.0
BYTES = 512 * 2**20
MESSAGE_LENGTH = 2000

Result = TypeVar("Result")


class Hang(BaseException):
    """A reader took too long. No Exception, because readers may catch those."""


def peak() -> int:
    """The largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def time_limits() -> Iterator[None]:
    """Interrupts what takes too long.

    Raises:
      Hang: it does.
    """

    def ring(number: int, frame: object) -> None:
        raise Hang(f"took more than {SECONDS:g} s of computing or {WAITING_SECONDS:g} s of waiting")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, SECONDS),
        (signal.ITIMER_REAL, signal.SIGALRM, WAITING_SECONDS),
    )
    previous = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, previous, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def read_or_refused(read: Callable[[], Result], folder: Path) -> Result | None:
    """What `read` returns, or None if it refuses its input; fails if it breaks a rule.

    Args:
      read: reads one input. It may refuse it with UserError or UnavailableError, and raise nothing else.
      folder: holds the input; `read` must write nothing beside it, so its parent must hold nothing else.
    """
    before, result = peak(), None
    try:
        with time_limits():
            result = read()
    except (UserError, UnavailableError) as error:
        message = str(error)
        assert message.strip(), "it refused the input without a word"
        assert len(message) <= MESSAGE_LENGTH, f"its message has {len(message)} characters: {message[:80]!r}"
    taken = peak() - before
    assert taken <= BYTES, f"it took {taken >> 20} MiB"
    outside = {path.name for path in folder.parent.iterdir()} - {folder.name}
    assert not outside, f"it wrote outside its folder: {sorted(outside)}"
    return result
