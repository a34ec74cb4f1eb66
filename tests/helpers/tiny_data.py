"""Small made-up IDX data sets, described and verified exactly as the real ones are, and servers of their files."""

import dataclasses
import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convjax.data.idx.catalog import RawDataset, RawFile

TRAIN, TEST, HEIGHT, WIDTH, CLASSES = 40, 20, 6, 5, 4


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file written by its definition."""
    dims = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + dims + array.astype(np.uint8).tobytes()


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A data set with the content of its raw files, by name, and the arrays in them."""

    raw: RawDataset
    content: dict[str, bytes]
    arrays: dict[str, np.ndarray]

    def put(self, folder: Path, *, compressed: bool = True, only: Callable[[str], bool] = lambda name: True) -> Path:
        """Writes the raw files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.content.items():
            if only(name):
                (folder / (f"{name}.gz" if compressed else name)).write_bytes(
                    gzip.compress(content) if compressed else content
                )
        return folder


def make_tiny(seed: int = 0, **fields: object) -> Tiny:
    rng = np.random.default_rng(seed)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (TRAIN, HEIGHT, WIDTH)),
        "train-labels-idx1-ubyte": rng.permutation(np.arange(TRAIN) % CLASSES),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (TEST, HEIGHT, WIDTH)),
        "t10k-labels-idx1-ubyte": rng.permutation(np.arange(TEST) % CLASSES),
    }
    content = {name: idx_bytes(array) for name, array in arrays.items()}
    files = [
        RawFile(
            name,
            "images" if "images" in name else "labels",
            len(arrays[name]),
            hashlib.sha256(content[name]).hexdigest(),
            hashlib.sha256(gzip.compress(content[name], mtime=0)).hexdigest(),
        )
        for name in content
    ]
    raw = RawDataset(
        name="tiny",
        description="Made up.",
        homepage="https://example.org",
        image_shape=(HEIGHT, WIDTH, 1),
        class_names=("a", "b", "c", "d"),
        train=(files[0], files[1]),
        test=(files[2], files[3]),
    )
    return Tiny(dataclasses.replace(raw, **fields), content, arrays)


class Server(http.server.ThreadingHTTPServer):
    """A web server on the loopback interface. `answers` maps a path to what it does with a request handler."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.requests: list[str] = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def give(self, path: str, content: bytes, *, status: int = 200, length: int | None = None) -> None:
        """Answers `path` with `content`, announcing `length` bytes."""

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(content) if length is None else length))
            handler.end_headers()
            handler.wfile.write(content)

        self.answers[path] = answer

    def drip(self, path: str, content: bytes, *, piece: int, pause: float) -> None:
        """Answers `path` with `content` in pieces, with a pause after each."""

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            for start in range(0, len(content), piece):
                handler.wfile.write(content[start : start + piece])
                handler.wfile.flush()
                self.closing.wait(pause)

        self.answers[path] = answer

    def hang(self, path: str, after: bytes = b"") -> None:
        """Accepts a request for `path` and never answers, or stops after some bytes."""

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            if after:
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(after) + 1000))
                handler.end_headers()
                handler.wfile.write(after)
                handler.wfile.flush()
            self.closing.wait(60)

        self.answers[path] = answer

    def mirror(self, tiny: Tiny, folder: str = "/good") -> str:
        """Serves all files of a data set; the address of the folder."""
        for name, content in tiny.content.items():
            self.give(f"{folder}/{name}.gz", gzip.compress(content))
        return self.address + folder

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what these tests are about; nothing to report."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, *arguments: object) -> None:
        """Keeps the tests' output clean."""


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for another thread or process to get somewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
