"""From raw files to arrays, and back from every kind of copy, alone and while another process does the same."""

import dataclasses
import gzip
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convjax.data import cache
from convjax.data.idx import pipeline
from convjax.data.idx.sources import Folders, Mirror, user_files
from convjax.errors import UnavailableError, UserError
from tests.helpers.tiny_data import make_tiny


def prepare(tiny, data_dir, **arguments):
    arguments.setdefault("log", lambda line: None)
    return pipeline.prepare(tiny.raw, str(data_dir), **arguments)


def check(tiny, decoded):
    for pair, files in ((decoded.train, tiny.raw.train), (decoded.test, tiny.raw.test)):
        assert pair[0].dtype == np.uint8
        assert pair[1].dtype == np.int32
        assert pair[0].shape[1:] == tiny.raw.image_shape
        assert np.array_equal(pair[0][..., 0], tiny.arrays[files[0].name])
        assert np.array_equal(pair[1], tiny.arrays[files[1].name])
    assert decoded.fingerprint == cache.fingerprint(decoded.train, decoded.test)


def test_first_from_raw_files_then_from_the_decoded_copy(tiny, tmp_path, lines):
    tiny.put(tmp_path)
    first = prepare(tiny, tmp_path, log=lines.append)
    check(tiny, first)
    assert lines == [f"tiny: preparing 60 images from --data_dir={tmp_path} (once)"]
    again = prepare(tiny, tmp_path, log=lines.append, sources=[])
    check(tiny, again)
    assert isinstance(again.train[0], np.memmap)
    assert len(lines) == 1
    assert again.source == first.source == f"--data_dir={tmp_path}"


def test_the_second_start_imports_no_tfds(tiny, tmp_path):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.helpers.tiny_data import make_tiny; from convjax.data.idx import pipeline\n"
        "pipeline.prepare(make_tiny().raw, sys.argv[1], log=print, sources=[])\n"
        "heavy = 'tensorflow_datasets', 'jax', 'requests', 'PIL', 'rich', 'pandas'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[3])]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_tfds_opens_the_prepared_copy_by_itself(tiny, tmp_path):
    import tensorflow_datasets as tfds

    tiny.put(tmp_path)
    decoded = prepare(tiny, tmp_path)
    builder = tfds.builder_from_directory(tmp_path / "tiny" / "1.0.0")
    assert builder.info.splits["train"].num_examples == 40
    assert builder.info.features["label"].names == list("abcd")
    source = builder.as_data_source(split="test")
    assert [int(example["label"]) for example in source] == decoded.test[1].tolist()
    assert np.array_equal(source[7]["image"], decoded.test[0][7])


def test_one_fingerprint_from_any_source(tiny, tmp_path, server):
    tiny.put(tmp_path / "gzip")
    tiny.put(tmp_path / "plain", compressed=False)
    found = {prepare(tiny, tmp_path / name).fingerprint for name in ("gzip", "plain")}
    mirror = [Mirror(server.mirror(tiny), True)]
    found.add(prepare(tiny, tmp_path / "web", sources=mirror).fingerprint)
    assert len(found) == 1


def test_downloads_are_kept_and_found_again(tiny, tmp_path, server):
    mirror = [Mirror(server.mirror(tiny), True)]
    decoded = prepare(tiny, tmp_path, sources=mirror)
    assert decoded.source == f"{server.address}/good"
    assert {path.name for path in (tmp_path / "tiny" / "raw").iterdir()} == {f"{name}.gz" for name in tiny.content}
    shutil.rmtree(tmp_path / "tiny" / "decoded")
    shutil.rmtree(tmp_path / "tiny" / "1.0.0")
    check(tiny, prepare(tiny, tmp_path, sources=[user_files(tiny.raw, str(tmp_path))]))
    assert len(server.requests) == 4


def test_nothing_is_left_when_no_source_has_it(tiny, tmp_path, server):
    server.give(f"/m/{tiny.raw.files[0].name}.gz", gzip.compress(tiny.content[tiny.raw.files[0].name]))
    with pytest.raises(UnavailableError, match="HTTP 404"):
        prepare(tiny, tmp_path / "d", sources=[Mirror(server.address + "/m", True)])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "meta.json"])
def test_a_damaged_decoded_copy_is_made_again_without_raw_files(tiny, tmp_path, lines, name):
    tiny.put(tmp_path / "raw files")
    prepare(tiny, tmp_path, sources=[Folders("x", (tmp_path / "raw files",))])
    shutil.rmtree(tmp_path / "raw files")
    path = tmp_path / "tiny" / "decoded" / name
    path.write_bytes(path.read_bytes()[:-9])
    check(tiny, prepare(tiny, tmp_path, sources=[], log=lines.append))
    assert "decoded again" in lines[0]
    check(tiny, prepare(tiny, tmp_path, sources=[]))


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "gone", "metadata"])
def test_a_damaged_prepared_copy_is_made_again(tiny, tmp_path, how):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    shutil.rmtree(tmp_path / "tiny" / "decoded")
    (path,) = (tmp_path / "tiny" / "1.0.0").glob("*train.array_record*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    match how:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(content)
        case "gone":
            path.unlink()
        case "metadata":
            (path.parent / "metadata.json").write_text("[1")
    check(tiny, prepare(tiny, tmp_path))
    shutil.rmtree(tmp_path / "tiny" / "decoded")
    check(tiny, prepare(tiny, tmp_path, sources=[]))


def test_a_new_version_of_the_raw_files_makes_old_copies_stale(tiny, tmp_path):
    tiny.put(tmp_path / "one")
    prepare(tiny, tmp_path, sources=[Folders("one", (tmp_path / "one",))])
    other = make_tiny(seed=1)
    other.put(tmp_path / "two")
    check(other, prepare(other, tmp_path, sources=[Folders("two", (tmp_path / "two",))]))
    check(other, prepare(other, tmp_path, sources=[]))


def test_a_file_of_the_users_that_turns_bad_is_refused_though_a_copy_is_kept(tiny, tmp_path, user_cache):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    bad = tmp_path / f"{tiny.raw.train[1].name}.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:-2])
    with pytest.raises(UserError, match=f"{bad}: its gzip data ends early"):
        prepare(tiny, tmp_path)
    with pytest.raises(UserError, match=f"{bad}"):
        prepare(tiny, tmp_path)
    bad.write_bytes(good)
    check(tiny, prepare(tiny, tmp_path))


def test_files_that_proved_right_are_not_read_again(tiny, tmp_path, monkeypatch):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    monkeypatch.setattr(pipeline, "read_file", lambda *_: pytest.fail("read again"))
    check(tiny, prepare(tiny, tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": null, "files": 3}'])
def test_a_damaged_record_of_what_was_verified_is_survived(tiny, tmp_path, content):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    (tmp_path / "tiny" / "verified.json").write_text(content)
    check(tiny, prepare(tiny, tmp_path))


def test_a_folder_that_is_only_for_reading_is_only_read(tiny, tmp_path, user_cache):
    folder = tiny.put(tmp_path / "d")
    folder.chmod(0o555)
    before = sorted(folder.rglob("*"))
    decoded = prepare(tiny, folder)
    check(tiny, decoded)
    assert sorted(folder.rglob("*")) == before
    assert decoded.folder == user_cache / "tiny"


def test_a_prepared_folder_that_is_only_for_reading_is_used(tiny, tmp_path, user_cache):
    tiny.put(tmp_path)
    prepare(tiny, tmp_path)
    tmp_path.chmod(0o555)
    decoded = prepare(tiny, tmp_path)
    assert decoded.folder == tmp_path / "tiny"
    assert not list(user_cache.iterdir())
    tmp_path.chmod(0o755)


def test_a_broken_download_never_replaces_a_good_copy(tiny, tmp_path, server):
    prepare(tiny, tmp_path, sources=[Mirror(server.mirror(tiny), True)])
    for name in tiny.content:
        server.give(f"/good/{name}.gz", b"\x1f\x8bbroken")
    kept = {path: path.read_bytes() for path in (tmp_path / "tiny" / "raw").iterdir()}
    shutil.rmtree(tmp_path / "tiny" / "1.0.0")
    shutil.rmtree(tmp_path / "tiny" / "decoded")
    with pytest.raises(UnavailableError):
        prepare(tiny, tmp_path, sources=[Mirror(server.address + "/good", True)])
    assert {path: path.read_bytes() for path in (tmp_path / "tiny" / "raw").iterdir()} == kept


def _compete(folder: str, start, results) -> None:
    tiny = make_tiny()
    start.wait()
    decoded = pipeline.prepare(tiny.raw, folder, log=lambda line: None)
    results.put((os.getpid(), decoded.fingerprint, int(decoded.train[0].sum())))


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_two_processes_at_once_do_no_harm(tiny, tmp_path, damaged):
    tiny.put(tmp_path)
    expected = prepare(tiny, tmp_path if damaged else tiny.put(tmp_path / "elsewhere"))
    if damaged:
        (tmp_path / "tiny" / "decoded" / "train_labels.npy").write_bytes(b"")
        for path in (tmp_path / "tiny" / "1.0.0").glob("*.array_record*"):
            path.write_bytes(b"")
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_compete, args=(str(tmp_path), start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len({pid for pid, _, _ in found}) == 2
    assert {found[0][1:], found[1][1:]} == {(expected.fingerprint, int(tiny.arrays["train-images-idx3-ubyte"].sum()))}
    check(tiny, prepare(tiny, tmp_path, sources=[]))
    assert not list(tmp_path.glob(".incomplete-*"))


def test_a_process_that_lost_the_race_uses_the_winners_copy(tiny, tmp_path, monkeypatch):
    """The winner finishes between our check and our rename."""
    tiny.put(tmp_path)
    rival = make_tiny()
    original = cache.install
    rivals = []

    def install(made, destination, good):
        if not rivals:
            rivals.append(True)
            prepare(rival, tmp_path)
        original(made, destination, good)

    monkeypatch.setattr(cache, "install", install)
    check(tiny, prepare(tiny, tmp_path))
    assert rivals
    assert not list(tmp_path.glob(".incomplete-*"))


def test_data_that_ships_with_convjax_touches_no_disk(tiny, user_cache, monkeypatch, tmp_path):
    tiny.put(tmp_path)
    monkeypatch.setattr("convjax.data.idx.pipeline.FILES_FOLDER", tmp_path)
    embedded = dataclasses.replace(tiny, raw=dataclasses.replace(tiny.raw, embedded=True))
    decoded = prepare(embedded, "")
    check(tiny, decoded)
    assert decoded.folder is None
    assert not list(user_cache.iterdir())
    folder = pipeline.prepare_embedded_copy(embedded.raw, "")
    assert folder == user_cache / "tiny"
    assert (folder / "1.0.0" / "dataset_info.json").exists()
