"""Fixtures of the data tests, made with tests/helpers/tiny_data.py."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.tiny_data import Server, Tiny, make_tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user's cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(folder))
    # Every TFDS builder leaves an empty folder among the temporary files.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def lines() -> list[str]:
    """Collects log lines: pass its `append` to a call."""
    return []
