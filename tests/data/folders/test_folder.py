"""Folders of images: what is read, how it is split, what is refused, what is reported."""

import hashlib
import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convjax import data
from convjax.data.folders import image_set, images
from convjax.errors import UnavailableError, UserError


def picture(seed: int, *, size=(20, 30), mode="RGB", form="PNG", **options) -> bytes:
    """The bytes of an image file of random pixels; size is (height, width)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def fill(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def flat(count: int = 10, **options) -> dict[str, bytes]:
    """Two classes without a level of splits."""
    return {
        f"{name}/{index:03}.png": picture(100 * label + index, **options)
        for label, name in enumerate(("ant", "bee"))
        for index in range(count)
    }


def load(folder: Path, **settings) -> data.Dataset:
    return data.load(f"folder:{folder}", **settings)


def rows(split: data.Split) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in np.asarray(split.images)}


def test_jpeg_png_and_webp_of_any_size_become_arrays_of_one(tmp_path):
    contents = {
        "train/ant/a.jpg": picture(0, size=(31, 17), form="JPEG"),
        "train/ant/b.webp": picture(1, size=(64, 40), form="WEBP"),
        "train/bee/deeper/c.png": picture(2, mode="L"),
        "train/bee/d.png": picture(3, mode="P"),
        "train/bee/e.png": picture(4, mode="RGBA"),
        "validation/bee/f.jpeg": picture(5, form="JPEG"),
        "test/ant/g.JPG": picture(6, form="JPEG"),
        "test/bee/h": picture(7, form="JPEG"),  # its name does not matter
        "train/ant/.DS_Store": b"litter",
        "train/ant/Thumbs.db": b"litter",
        "README.txt": b"not in a class",
    }
    dataset = load(fill(tmp_path / "photos", contents), image_size="12x16")
    assert dataset.class_names == ("ant", "bee")
    assert dataset.image_shape == (12, 16, 3)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.validation.labels.tolist() == [1]
    assert dataset.test.labels.tolist() == [0, 1]
    for image, name in zip(dataset.test.images, ("test/ant/g.JPG", "test/bee/h"), strict=True):
        with Image.open(io.BytesIO(contents[name])) as original:
            expected = original.convert("RGB").resize((16, 12), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(expected))
    assert data.image_info(f"folder:{tmp_path}/photos", image_size="12x16") == ((12, 16, 3), 2)
    with pytest.raises(UserError, match=r"has 1 validation images of its own; leave the flag out"):
        load(tmp_path / "photos", image_size="12x16", validation_size=1)


def test_without_resizing_pixels_are_the_files_own_and_grey_stays_grey(tmp_path):
    contents = flat(mode="L")
    dataset = load(fill(tmp_path, contents))
    assert dataset.image_shape == (20, 30, 1)
    originals = {Image.open(io.BytesIO(content)).tobytes() for content in contents.values()}
    assert rows(dataset.train) | rows(dataset.test) == originals
    assert not rows(dataset.train) & rows(dataset.test)
    assert load(tmp_path, color="rgb").image_shape == (20, 30, 3)
    assert data.image_info(f"folder:{tmp_path}") == ((20, 30, 1), 2)
    assert data.image_info(f"folder:{tmp_path}", image_size="9", color="rgb") == ((9, 9, 3), 2)


def test_images_that_differ_in_size_need_a_size(tmp_path):
    fill(tmp_path, flat() | {"bee/large.png": picture(7, size=(21, 30))})
    with pytest.raises(UserError, match=r"ant/000.png is 20x30, bee/large.png 21x30.*--image_size=150"):
        load(tmp_path)


def test_a_folder_is_split_by_content_alone(tmp_path):
    contents = flat(20)
    one = load(fill(tmp_path / "one", contents))
    assert np.bincount(one.train.labels).tolist() == [16, 16]
    assert np.bincount(one.test.labels).tolist() == [4, 4]
    renamed = {
        f"{Path(name).parent}/{hashlib.md5(content).hexdigest()}.png": content for name, content in contents.items()
    }
    other = load(fill(tmp_path / "other", renamed))
    assert rows(other.test) == rows(one.test)
    held_out = load(tmp_path / "one", validation_size=8)
    assert np.bincount(held_out.validation.labels).tolist() == [4, 4]


def test_copies_of_a_file_stay_on_one_side_of_the_split():
    items = [image_set.Item(str(index), 0, "", sha, bytes) for index, sha in enumerate("aabbccddddddddddddde")]
    split = {}
    for item in image_set.split_by_content(items):
        split.setdefault(item.sha256, set()).add(item.split)
    assert all(len(found) == 1 for found in split.values())
    assert {each for found in split.values() for each in found} == {"train", "test"}


def test_the_same_content_is_decoded_once_and_other_content_anew(tmp_path, lines):
    folder = fill(tmp_path / "photos", flat())
    first = load(folder, log=lines.append)
    assert load(folder, log=lines.append).fingerprint == first.fingerprint
    os.rename(folder, tmp_path / "moved")
    moved = load(tmp_path / "moved", log=lines.append)
    assert moved.fingerprint == first.fingerprint
    assert len(lines) == 1, "decoded more than once"
    # A changed file is read again, even with the same size and modification time.
    victim = tmp_path / "moved" / "ant" / "000.png"
    times = victim.stat()
    victim.write_bytes(picture(999)[: times.st_size].ljust(times.st_size, b"\0"))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = load(tmp_path / "moved", log=lines.append, skip_corrupt=True)
    assert changed.fingerprint != first.fingerprint


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes that claims to be gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_what_is_no_sound_image_is_named_or_left_out_and_counted(tmp_path, monkeypatch):
    good = flat()
    sound = load(fill(tmp_path / "sound", good))
    monkeypatch.setattr(images, "LARGEST_FILE", 100_000)
    monkeypatch.setattr("convjax.data.folders.folder.LARGEST_FILE", 100_000)
    bad = {
        "ant/bomb.png": bomb(),
        "ant/cut.jpg": picture(1, form="JPEG")[:-200],
        "ant/huge.png": bomb(11_000, 11_000),
        "ant/empty.png": b"",
        "ant/gif.gif": b"GIF89a" + bytes(100),
        "ant/large.png": bytes(100_001),
        "ant/notes.txt": b"these are ants",
        "bee/noise.webp": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8 " + bytes(92),
    }
    folder = fill(tmp_path / "photos", good | bad)
    outside = fill(tmp_path / "outside", {"secret.png": picture(5), "more/secret.png": picture(6)})
    (folder / "bee" / "link.png").symlink_to(outside / "secret.png")
    (folder / "bee" / "folder").symlink_to(outside / "more")
    (folder / "bee" / "broken.png").symlink_to(folder / "nowhere")
    (folder / "bee" / "inside.png").symlink_to(folder / "bee" / "000.png")
    os.mkfifo(folder / "bee" / "pipe.png")
    with pytest.raises(UserError) as refused:
        load(folder)
    assert "12 files cannot be used" in str(refused.value)
    assert "and 7 more; repair or remove them, or give --skip_corrupt" in str(refused.value)
    assert "\n" not in str(refused.value)

    dataset = load(folder, skip_corrupt=True)
    assert dataset.details["left_out"] == 12
    reasons = {each["name"]: each["reason"] for each in dataset.details["left_out_files"]}
    assert set(reasons) == {*bad, "bee/link.png", "bee/folder", "bee/broken.png", "bee/pipe.png"}
    assert reasons["ant/bomb.png"] == "claims to have more than 100,000,000 pixels"
    assert "damaged" in reasons["ant/cut.jpg"]
    assert "11000x11000 pixels; the most allowed are 100,000,000" in reasons["ant/huge.png"]
    assert reasons["ant/empty.png"] == "is empty"
    assert reasons["ant/notes.txt"] == reasons["ant/gif.gif"] == "is no JPEG, PNG or WebP image"
    assert "100,001 bytes" in reasons["ant/large.png"]
    assert "leads out of the folder" in reasons["bee/link.png"]
    assert reasons["bee/folder"] == "is a link to a folder"
    assert reasons["bee/pipe.png"] == "is no file"
    assert any(line.startswith("left out 12 files: ant/bomb.png claims") for line in dataset.details["notes"])
    # The good images (and the link to one of them) are left, split as without the others.
    assert rows(dataset.train) | rows(dataset.test) == rows(sound.train) | rows(sound.test)
    assert rows(dataset.test) == rows(sound.test)
    # The decoded copy is refused, too, without the flag.
    with pytest.raises(UserError, match="12 files cannot be used"):
        load(folder)


def test_imbalance_duplicates_and_empty_classes_are_reported(tmp_path):
    contents = {f"train/ant/{index}.png": picture(index) for index in range(9)}
    contents |= {f"train/bee/{index}.png": picture(50 + index) for index in range(3)}
    contents |= {"test/ant/x.png": picture(0), "test/ant/y.png": picture(70), "test/bee/z.png": picture(71)}
    contents |= {"train/bee/3.png": picture(1)}
    folder = fill(tmp_path, contents)
    (folder / "train" / "cow").mkdir()
    dataset = load(folder)
    assert dataset.class_names == ("ant", "bee", "cow")
    notes = "\n".join(dataset.details["notes"])
    assert "13 train, 3 test images; in training ant 9, bee 4, cow 0" in notes
    assert "without train images: cow" in notes
    assert "without test images: cow" in notes
    assert "9 training images of ant, 4 of bee; always answering ant would be right for 66.7% of the test" in notes
    assert "1 image is in more than one split" in notes
    assert "test/ant/x.png = train/ant/0.png" in notes
    assert (
        "1 image is under more than one class (one of the labels is wrong): train/ant/1.png = train/bee/3.png" in notes
    )
    # For a sound folder only its sizes are reported.
    plain = load(fill(tmp_path / "plain", flat()))
    assert plain.details["notes"] == ["16 train, 4 test images; in training ant 8, bee 8"]


def test_names_are_shown_without_what_would_harm_a_terminal(tmp_path):
    folder = fill(tmp_path / "photos", flat(5))
    (folder / "ant" / "a\x1b[2J\n.png").write_bytes(b"")
    with open(os.fsencode(folder / "bee") + b"/\xff.png", "wb"):
        pass
    with pytest.raises(
        UserError, match=re.escape("2 files cannot be used: ant/a\ufffd[2J\ufffd.png is empty; bee/\ufffd.png is")
    ):
        load(folder)
    assert load(folder, skip_corrupt=True).details["left_out"] == 2


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ({}, "has 0 sub-folders; expected one per class"),
        ({"ant/a.png": b""}, "has 1 sub-folder; expected one per class (at least two)"),
        ({"train/ant/a.png": b"", "test/ant/a.png": b""}, "train has 1 sub-folder; expected one per class"),
        ({"train/ant/a": b"", "train/bee/a": b"", "cow/a": b""}, "both a folder train and a folder 'cow'"),
        ({"train/ant/a": b"", "train/bee/a": b"", "test/cow/a": b""}, "a class 'cow' that its train folder lacks"),
        (
            {f"{split}/{name}/a": b"" for split in ("train", "val", "valid") for name in ("ant", "bee")},
            "more than one validation folder",
        ),
        ({"ant/.hidden": b"", "bee/.hidden": b""}, "there is no image in it"),
        ({"ant/a.png": picture(0), "bee/.hidden": b""}, "no image is left to test on"),
    ],
)  # fmt: skip
def test_what_is_no_folder_of_classes_is_refused_in_a_line(contents, says, tmp_path):
    with pytest.raises(UserError) as refused:
        load(fill(tmp_path, contents), image_size="8")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    for path, says in (("", "path is missing"), ("nowhere", "no folder"), ("file", "is a file"), ("ring", "cannot be")):
        with pytest.raises(UserError, match=says):
            data.load(f"folder:{tmp_path / path if path else ''}")
    fill(tmp_path / "photos", flat(2))
    (tmp_path / "photos" / "cow").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link that leads out of the folder"):
        load(tmp_path / "photos")


def test_a_disk_that_is_too_small_is_told_before_decoding(tmp_path, monkeypatch):
    fill(tmp_path, flat())

    class Usage:
        free = 1 << 20

    monkeypatch.setattr(image_set.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(UnavailableError, match="make --image_size smaller"):
        load(tmp_path, image_size="4096")


def test_a_damaged_copy_is_made_again(tmp_path, user_cache, lines):
    folder = fill(tmp_path, flat())
    first = load(folder)
    [array] = user_cache.glob("folder-*/decoded/train_images.npy")
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    assert load(folder, log=lines.append).fingerprint == first.fingerprint
    assert len(lines) == 1


def test_images_are_turned_as_their_exif_says_and_16_bits_scaled():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    content = picture(3, form="JPEG", exif=exif, quality=100)
    assert images.inspect(content) == ((30, 20), False)
    upright = images.decode(picture(3, form="JPEG", quality=100), None, "rgb")
    np.testing.assert_array_equal(images.decode(content, None, "rgb"), np.rot90(upright, -1))
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    assert images.decode(buffer.getvalue(), None, "grey").ravel().tolist() == [0, 0, 1, 255]


def test_any_data_set_can_be_resized_and_recolored(lines):
    own = data.load("mnist_5k")
    small = data.load("mnist_5k", image_size="14", color="rgb", log=lines.append)
    assert small.image_shape == (14, 14, 3)
    assert data.image_info("mnist_5k", image_size="14", color="rgb") == ((14, 14, 3), 10)
    digit = Image.fromarray(own.train.images[5, :, :, 0]).resize((14, 14), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small.train.images[5], np.stack([np.asarray(digit)] * 3, axis=-1))
    assert small.fingerprint != own.fingerprint
    assert data.load("mnist_5k", image_size="14", color="rgb", log=lines.append).fingerprint == small.fingerprint
    assert len(lines) == 1
    assert data.load("mnist_5k", image_size="28", color="grey").fingerprint == own.fingerprint


def test_a_large_selection_stays_in_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(data.loading, "_COPIED_BYTES", 0)
    whole = data.load("mnist_5k")
    part = data.load("mnist_5k", train_size=100, validation_size=50)
    monkeypatch.undo()
    copied = data.load("mnist_5k", train_size=100, validation_size=50)
    assert not isinstance(part.train.images, np.ndarray)
    for mine, theirs in ((part.train, copied.train), (part.validation, copied.validation)):
        np.testing.assert_array_equal(np.asarray(mine.images), theirs.images)
        np.testing.assert_array_equal(mine.images[[5, 3]], theirs.images[[5, 3]])
        np.testing.assert_array_equal(mine.images[4:9], theirs.images[4:9])
        assert (mine.images.shape, mine.images.dtype, len(mine.images)) == (
            theirs.images.shape,
            theirs.images.dtype,
            len(theirs.images),
        )
    assert isinstance(whole.train.images, np.ndarray)
