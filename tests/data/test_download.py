"""Downloads arrive whole or fail, and give up only on silence."""

import time

import pytest
import requests

from convjax.data.download import DownloadError, Patience, download, explain

CONTENT = bytes(range(256)) * 400


def get(url, path, **arguments):
    arguments = {"limit": len(CONTENT), "patience": Patience(), "allow_http": True} | arguments
    download(url, path, **arguments)


def test_a_download_arrives_whole(server, tmp_path):
    server.give("/x", CONTENT)
    calls = []
    get(server.address + "/x", tmp_path / "x", progress=lambda *call: calls.append(call))
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert calls[-1] == ("x", len(CONTENT), len(CONTENT))


def test_a_response_that_can_only_be_read_in_whole_chunks_arrives_too(server, tmp_path, monkeypatch):
    server.give("/x", CONTENT)
    monkeypatch.setattr("urllib3.response.HTTPResponse.read1", property())  # as in old versions: AttributeError
    get(server.address + "/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda server: None, "HTTP 404 Not Found"),
        (lambda server: server.give("/x", b"", status=503), "HTTP 503"),
        (lambda server: server.give("/x", CONTENT[:100], length=5000), "100|IncompleteRead"),
        (lambda server: server.give("/x", CONTENT + b"more"), "offers 102,404 bytes, more than the 102,400"),
    ],
    ids=["missing", "busy", "cut", "too long"],
)
def test_what_does_not_arrive_whole_is_an_error(server, tmp_path, make, message):
    make(server)
    with pytest.raises(DownloadError, match=message):
        get(server.address + "/x", tmp_path / "x")


def test_a_server_that_never_stops_is_cut_off(server, tmp_path):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        while not server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    server.answers["/x"] = answer
    with pytest.raises(DownloadError, match="sends more than"):
        get(server.address + "/x", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size <= len(CONTENT) + (1 << 17)


def test_a_gzip_label_does_not_unpack_the_file(server, tmp_path):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"\x1f\x8bxyz")

    server.answers["/x"] = answer
    get(server.address + "/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"\x1f\x8bxyz"


@pytest.mark.parametrize("before", [b"", b"some"], ids=["never answers", "stops"])
def test_silence_is_given_up_on(server, tmp_path, before):
    server.hang("/x", after=before)
    patience = Patience(first_byte=0.3, stall=0.3, total=1.0)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="stopped after 4 bytes" if before else "did not answer"):
        get(server.address + "/x", tmp_path / "x", patience=patience)
    assert 0.3 <= time.monotonic() - started < 5
    assert patience.total <= 0.7


def test_a_name_look_up_that_hangs_is_given_up_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: server.closing.wait(60))
    with pytest.raises(DownloadError, match="did not answer"):
        get("http://stuck.invalid/x", tmp_path / "x", patience=Patience(first_byte=0.3))


def test_patience_is_for_all_attempts_together(server, tmp_path):
    server.hang("/x")
    patience = Patience(first_byte=0.2, total=0.3)
    with pytest.raises(DownloadError, match="did not answer"):
        get(server.address + "/x", tmp_path / "x", patience=patience)
    with pytest.raises(DownloadError, match="did not answer"):
        get(server.address + "/x", tmp_path / "x", patience=patience)
    with pytest.raises(DownloadError, match="not tried"):
        get(server.address + "/x", tmp_path / "x", patience=patience)


def test_a_slow_download_that_goes_on_is_left_alone(server, tmp_path):
    content = CONTENT[:3000]
    server.drip("/x", content, piece=100, pause=0.05)
    patience = Patience(first_byte=1.0, stall=1.0, total=1.0)
    started = time.monotonic()
    get(server.address + "/x", tmp_path / "x", patience=patience)
    assert time.monotonic() - started > patience.stall
    assert (tmp_path / "x").read_bytes() == content
    assert patience.total == 1.0


def test_only_https_is_asked(server, tmp_path):
    server.give("/x", CONTENT)
    with pytest.raises(DownloadError, match="is not HTTPS"):
        get(server.address + "/x", tmp_path / "x", allow_http=False)
    assert server.requests == []


def test_redirects_are_followed_but_not_away_from_https(server, tmp_path, monkeypatch):
    def redirect(to):
        def answer(handler):
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer

    server.answers["/a"] = redirect("/x")
    server.give("/x", CONTENT)
    get(server.address + "/a", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT

    server.answers["/round"] = redirect("/round")
    with pytest.raises(DownloadError, match="too many redirects"):
        get(server.address + "/round", tmp_path / "y")

    # An HTTPS server that redirects to plain HTTP; the session sends its address to the loopback server.
    server.requests.clear()
    original = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda self, url, **kw: original(self, url.replace("https://secure", server.address), **kw),
    )
    server.answers["/down"] = redirect(server.address + "/x")
    with pytest.raises(DownloadError, match="is not HTTPS"):
        get("https://secure/down", tmp_path / "z", allow_http=False)
    assert server.requests == ["/down"]


def test_refused_connections_are_explained(tmp_path):
    with pytest.raises(DownloadError, match="Connection refused"):
        get("http://127.0.0.1:1/x", tmp_path / "x")


def test_explain_finds_the_innermost_reason():
    outer = RuntimeError("wrapped")
    outer.__cause__ = OSError(111, "Connection refused")
    assert explain(outer) == "Connection refused"
    assert explain(ConnectionError("outer", OSError(-2, "Name or service not known"))) == "Name or service not known"
    assert explain(ValueError()) == "ValueError"
