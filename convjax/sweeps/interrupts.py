"""Interruption: SIGINT and SIGTERM become a question that training asks between steps."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GRACE_SECONDS = 4.0
_INTERRUPTED = 130
"""Exit code, as that of `convjax.flags`."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a function that says whether one came; a second SIGINT stops at once.

    Whoever sends SIGTERM usually sends SIGKILL soon after. If nobody asks within `_GRACE_SECONDS` (a long compilation,
    a step of minutes), the process exits, and the run resumes from its newest checkpoint on disk.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    leave = threading.Timer(_GRACE_SECONDS, os._exit, [_INTERRUPTED])
    leave.daemon = True

    def request(number: int, frame: object) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and leave.ident is None:
            leave.start()
        requested.set()

    def asked() -> bool:
        if requested.is_set():
            leave.cancel()  # whoever asked now saves a checkpoint, which may take longer
        return requested.is_set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        leave.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
