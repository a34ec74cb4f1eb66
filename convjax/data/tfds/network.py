"""Makes TFDS's downloader give up in seconds; by default it retries a closed network for minutes."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from tensorflow_datasets.core.download import downloader

from convjax.data.download import DownloadError, explain

_ANSWER_SECONDS = 8.0
_STALL_SECONDS = 30.0
_CHUNK = 1 << 16
_THIS_MACHINE = ("127.0.0.1", "localhost")


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Within it, a TFDS download fails if the server does not answer in 8 s, or sends nothing for 30 s.

    This covers HTTP downloads except those from Google Drive, which TFDS handles separately.
    """
    patient = downloader._open_url

    def open_url(url: str, **keywords: Any) -> contextlib.AbstractContextManager[tuple[Any, Iterable[bytes]]]:
        if not url.startswith("http") or downloader._DRIVE_URL.match(url):
            return patient(url, **keywords)
        return _opened(url, **keywords)

    downloader._open_url = open_url
    try:
        yield
    finally:
        downloader._open_url = patient


@contextlib.contextmanager
def _opened(url: str, **keywords: Any) -> Iterator[tuple[Any, Iterable[bytes]]]:
    """The response to a GET of `url` and its content in pieces; uses HTTPS even if TFDS names HTTP."""
    response = _answer(_by_https(url), keywords)
    with response:
        for step in (*response.history, response):
            if step.url != _by_https(step.url):
                raise DownloadError(f"{url}: leads to {step.url}, which is not HTTPS")
        if response.status_code != 200:
            raise DownloadError(f"{url}: HTTP {response.status_code} {response.reason}")
        yield response, response.iter_content(_CHUNK)


def _by_https(url: str) -> str:
    """The address with HTTPS instead of HTTP, except for servers on this machine."""
    parts = urlsplit(url)
    return url if parts.hostname in _THIS_MACHINE else parts._replace(scheme="https").geturl()


def _answer(url: str, keywords: dict[str, Any]) -> requests.Response:
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(requests.get(url, stream=True, timeout=_STALL_SECONDS, **keywords))
        except Exception as error:  # handed to the waiting thread, whatever it is
            answers.append(error)

    # In its own thread, because a name look-up has no time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if not answers:
        raise DownloadError(f"{url}: did not answer (waited {_ANSWER_SECONDS:.0f} s)")
    if isinstance(answers[0], Exception):
        raise DownloadError(f"{url}: {explain(answers[0])}") from answers[0]
    return answers[0]
