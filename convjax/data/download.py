"""Downloads a file and gives up on silence: after some seconds without a byte, however long the whole takes."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

Log = Callable[[str], None]
"""Receives news for the user, one line at a time."""
Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received so far and the bytes expected (None: unknown)."""

NOT_TRIED = "not tried: the time limit for sources that do not answer is used up"
_REDIRECTS = 5
_CHUNK = 1 << 16
# Only ends abandoned threads; `Patience` decides when to give up.
_SOCKET_SECONDS = 30


class DownloadError(Exception):
    """A download failed; the message says why and does not repeat the address."""


@dataclasses.dataclass
class Patience:
    """How long to wait for bytes that do not arrive, over all attempts together.

    Attributes:
      first_byte: seconds until the first byte of one attempt, name look-up and TLS included.
      stall: seconds without a byte after the first one.
      total: seconds that all failing attempts together may wait. It bounds the time until a closed network is reported,
        however many sources there are. A download that makes progress, however slowly, spends nothing.
    """

    first_byte: float = 4.0
    stall: float = 10.0
    total: float = 16.0

    def allowance(self, *, begun: bool) -> float:
        """Seconds that may still pass without a byte."""
        return max(0.0, min(self.stall if begun else self.first_byte, self.total))

    def spend(self, seconds: float) -> None:
        """Records seconds that were waited in vain."""
        self.total -= seconds


class _Transfer(threading.Thread):
    """One download in its own thread, because a name look-up has no time-out."""

    def __init__(self, url: str, path: Path, limit: int, allow_http: bool):
        super().__init__(daemon=True)
        self.received = 0
        self.expected: int | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self._arguments = (url, path, limit, allow_http)

    def run(self) -> None:
        try:
            self._receive(*self._arguments)
        except Exception as error:  # handed to the waiting thread, whatever it is
            self.error = error

    def _receive(self, url: str, path: Path, limit: int, allow_http: bool) -> None:
        import requests  # here, because only a download should pay for this import

        with requests.Session() as session, _open(session, url, allow_http) as response:
            if response.status_code != 200:
                raise DownloadError(f"HTTP {response.status_code} {response.reason}")
            length = response.headers.get("Content-Length", "")
            self.expected = int(length) if length.isdecimal() else None
            if self.expected is not None and self.expected > limit:
                raise DownloadError(f"offers {self.expected:,} bytes, more than the {limit:,} allowed")
            # read1 returns what has arrived without waiting for more, so every byte of a slow line counts as progress.
            # A response that lacks it (of an old urllib3) is read in whole chunks.
            read = getattr(response.raw, "read1", response.raw.read)
            with path.open("wb") as file:
                # decode_content=False: a .gz stays compressed even if the server labels it as gzip-encoded.
                while chunk := read(_CHUNK, decode_content=False):
                    if self.cancelled:
                        return
                    file.write(chunk)
                    self.received += len(chunk)
                    if self.received > limit:
                        raise DownloadError(f"sends more than the {limit:,} bytes allowed")
        if self.expected is not None and self.received < self.expected:
            raise DownloadError(f"the transfer ended after {self.received:,} of {self.expected:,} bytes")


def _open(session: Any, url: str, allow_http: bool) -> Any:
    """The streamed response to a GET of `url`. Follows redirects by hand, to refuse those that leave HTTPS."""
    for _ in range(_REDIRECTS):
        if urlsplit(url).scheme != "https" and not allow_http:
            raise DownloadError(f"is not HTTPS: {url}")
        headers = {"Accept-Encoding": "identity"}
        response = session.get(url, stream=True, timeout=_SOCKET_SECONDS, headers=headers, allow_redirects=False)
        if not response.is_redirect:
            return response
        url = urljoin(url, response.headers["Location"])
        response.close()
    raise DownloadError("too many redirects")


def download(
    url: str,
    path: Path,
    *,
    limit: int,
    patience: Patience,
    progress: Progress | None = None,
    allow_http: bool = False,
) -> None:
    """Downloads `url` to `path`, through the proxies that the environment names.

    Args:
      limit: the most bytes the file can have.
      patience: how long to wait without a byte; a failing download reduces it by the time it waited.
      progress: receives the bytes as they arrive.
      allow_http: for servers on this machine; otherwise only HTTPS is used.

    Raises:
      DownloadError: the file did not arrive whole; `path` may hold a part of it.
    """
    if patience.allowance(begun=False) == 0:
        raise DownloadError(NOT_TRIED)
    transfer = _Transfer(url, path, limit, allow_http)
    transfer.start()
    received, since = 0, time.monotonic()
    try:
        while transfer.is_alive():
            transfer.join(0.05)
            if transfer.received != received:
                received, since = transfer.received, time.monotonic()
                if progress:
                    progress(path.name, received, transfer.expected)
            silent = time.monotonic() - since
            if silent > patience.allowance(begun=received > 0) and transfer.is_alive():
                patience.spend(silent)
                what = f"stopped after {received:,} bytes" if received else "did not answer"
                raise DownloadError(f"{what} (waited {silent:.0f} s)")
    finally:
        transfer.cancelled = True
    if transfer.error is not None:
        patience.spend(time.monotonic() - since)
        raise DownloadError(explain(transfer.error)) from transfer.error
    if progress:
        progress(path.name, transfer.received, transfer.expected)


def explain(error: Exception) -> str:
    """The innermost reason in a chain of network errors."""
    if isinstance(error, DownloadError):
        return str(error)
    innermost: BaseException = error
    while True:
        cause = getattr(innermost, "reason", None) or innermost.__cause__ or innermost.__context__
        if not isinstance(cause, BaseException):
            arguments = [argument for argument in innermost.args if isinstance(argument, BaseException)]
            cause = arguments[0] if arguments else None
        if cause is None or cause is innermost:
            break
        innermost = cause
    text = innermost.strerror if isinstance(innermost, OSError) and innermost.strerror else str(innermost)
    return " ".join(text.split()) or type(innermost).__name__
