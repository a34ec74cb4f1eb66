"""The decoded copy reads back as written; damage is noticed."""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.data import cache
from convjax.data.cache import Decoded
from convjax.errors import UnavailableError, UserError


def made(root: Path, seed: int = 0) -> Decoded:
    rng = np.random.default_rng(seed)
    pairs = [
        (rng.integers(0, 256, (count, 4, 3, 1), np.uint8), rng.integers(0, 5, count, np.int32)) for count in (30, 10)
    ]
    return Decoded("set", cache.fingerprint(*pairs), tuple("abcde"), "somewhere", *pairs, root / "set")


def same(one: Decoded, other: Decoded) -> bool:
    arrays = zip((*one.train, *one.test), (*other.train, *other.test), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("name", "fingerprint", "class_names", "source", "folder")
    )


def test_round_trip(tmp_path):
    decoded = made(tmp_path)
    cache.write(tmp_path, "key", decoded)
    read = cache.read(tmp_path / "set", "key")
    assert same(read, decoded)
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in (*read.train, *read.test))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_other_content_is_not_taken_for_this(tmp_path):
    cache.write(tmp_path, "key", made(tmp_path))
    assert cache.read(tmp_path / "set", "another key") is None
    assert cache.read(tmp_path / "other", "key") is None


NAMES = ["meta.json", "train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "longer", "flipped", "zeros"])
def test_damage_is_noticed(tmp_path, name, how):
    cache.write(tmp_path, "key", made(tmp_path))
    path = tmp_path / "set" / "decoded" / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0x20]) + content[middle + 1 :]
    changed = {
        "empty": b"",
        "cut": content[:-9],
        "longer": content + b"x",
        "flipped": flipped,
        "zeros": bytes(len(content)),
    }
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(changed[how])
    if name == "meta.json" and how == "flipped":
        # The flipped bit may be in the name of the source, which determines no number.
        found = cache.read(tmp_path / "set", "key")
        assert found is None or found.fingerprint == made(tmp_path).fingerprint
    else:
        assert cache.read(tmp_path / "set", "key") is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_any_json_in_the_place_of_meta_is_survived(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / "decoded").mkdir()
    (folder / "decoded" / "meta.json").write_text(json.dumps(content))
    assert cache.read(folder, "key") is None


def test_a_damaged_copy_is_replaced_and_a_good_one_kept(tmp_path):
    cache.write(tmp_path, "key", made(tmp_path, seed=0))
    cache.write(tmp_path, "key", made(tmp_path, seed=1))
    assert same(cache.read(tmp_path / "set", "key"), made(tmp_path, seed=0))
    (tmp_path / "set" / "decoded" / "test_images.npy").unlink()
    cache.write(tmp_path, "key", made(tmp_path, seed=1))
    assert same(cache.read(tmp_path / "set", "key"), made(tmp_path, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_old_mapping_survives_its_replacement(tmp_path):
    cache.write(tmp_path, "key", made(tmp_path, seed=0))
    old = cache.read(tmp_path / "set", "key")
    cache.write(tmp_path, "key two", made(tmp_path, seed=1))
    assert same(old, made(tmp_path, seed=0))


def test_the_fingerprint_depends_on_content_alone():
    decoded = made(Path())
    again = cache.fingerprint(
        (np.asfortranarray(decoded.train[0]), decoded.train[1].astype(">i8")),
        (decoded.test[0], decoded.test[1].astype(np.uint8)),
    )
    assert again == decoded.fingerprint
    assert len(bytes.fromhex(decoded.fingerprint)) == 8


def test_any_change_changes_the_fingerprint():
    (images, labels), test = made(Path()).train, made(Path()).test
    seen = {cache.fingerprint((images, labels), test)}
    pixel, label = images.copy(), labels.copy()
    pixel[-1, -1, -1, 0] ^= 1
    label[0] += 1
    seen.add(cache.fingerprint((pixel, labels), test))
    seen.add(cache.fingerprint((images, label), test))
    seen.add(cache.fingerprint((images.reshape(30, 3, 4, 1), labels), test))
    seen.add(cache.fingerprint(test, (images, labels)))
    seen.add(cache.fingerprint((images[::-1], labels[::-1]), test))
    assert len(seen) == 6


def test_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVJAX_DATA_DIR", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert cache.user_cache() == Path("/one")
    monkeypatch.delenv("CONVJAX_DATA_DIR")
    assert cache.user_cache() == Path("/two/convjax/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG specification says to ignore it
    assert cache.user_cache() == Path("/three/.cache/convjax/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.user_cache() == Path("/three/.cache/convjax/data")


def test_roots(tmp_path, user_cache):
    assert cache.roots("") == cache.Roots((user_cache,), user_cache)
    assert cache.roots(str(tmp_path)) == cache.Roots((tmp_path,), tmp_path)
    assert cache.roots(str(tmp_path / "new" / "deeper")).write == tmp_path / "new" / "deeper"
    frozen = tmp_path / "frozen"
    frozen.mkdir(mode=0o555)
    assert cache.roots(str(frozen)) == cache.Roots((frozen, user_cache), user_cache)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        cache.roots(str(tmp_path / "file"))


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"cannot write to .*CONVJAX_DATA_DIR"), cache.scratch(tmp_path / "file"):
        pass


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UnavailableError, match="No space left on device"):
        cache.write(tmp_path, "key", made(tmp_path))
    assert cache.read(tmp_path / "set", "key") is None
    assert not list(tmp_path.rglob("*.npy"))


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path):
    for name, age in (("old", 2 * 24 * 3600), ("new", 60)):
        folder = tmp_path / f".incomplete-{name}"
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    with cache.scratch(tmp_path):
        assert not (tmp_path / ".incomplete-old").exists()
        assert (tmp_path / ".incomplete-new").exists()


def test_a_folder_that_cannot_be_renamed_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        cache.install(tmp_path / "absent", tmp_path / "place", good=lambda: False)


def test_decoded_is_immutable(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        made(tmp_path).name = "other"
