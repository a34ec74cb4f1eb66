"""Folders of images that are damaged, enormous, oddly named or full of links: they are read or refused."""

import io
import shutil

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from convjax.data.folders import folder, images
from convjax.errors import UserError
from tests.data.folders.test_folder import bomb
from tests.helpers.hostile import amounts, feed, mutated
from tests.helpers.limits import read_or_refused


def picture(form: str, mode: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, form)
    return buffer.getvalue()


KINDS = (("JPEG", "RGB"), ("JPEG", "L"), ("WEBP", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("BMP", "RGB"))
PICTURES = [*(picture(*kind) for kind in KINDS), bomb(), bomb(11_000, 11_000)]
LEVELS = [("",), ("train/",), ("train/", "test/"), ("train/", "test/", "")]
NAMES = ("cat/1.png", "cat/2.jpg", "cat/3.webp", "dog/4", "dog/5.gif", "dog/6")
ODD_NAMES = [
    *("x/../y", "cat/\udcff", "cat/a\nb", ".hidden/1", "cat/deep/er/5", "stray", "Thumbs.db", "train/val/6"),
    "cat " + "7" * 200,
]
TARGETS = ["/etc", "/dev/zero", "..", "nowhere", "1.png", "../cat"]

IMAGE = st.sampled_from(PICTURES)
DAMAGED = IMAGE.flatmap(mutated)
ENTRIES = IMAGE | DAMAGED | st.sampled_from(TARGETS)
"""Bytes for a file, text for a link."""


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes | str]:
    """Files and links by their paths: with or without levels, each name there or not, and a few odd ones."""
    names = [f"{split}{name}" for split in draw(st.sampled_from(LEVELS)) for name in NAMES]
    tree = {name: draw(ENTRIES) for name in names if draw(st.integers(0, 3))}
    return tree | draw(st.dictionaries(st.sampled_from(ODD_NAMES), ENTRIES, max_size=3))


SOUND = {f"{name}/{number}": picture for name in ("cat", "dog") for number, picture in enumerate(PICTURES[:6])}


@pytest.fixture
def arena(tmp_path):
    place = tmp_path / "arena" / "inside"
    place.mkdir(parents=True)
    return place


@amounts(12, 2_000)
def test_a_folder_is_decoded_or_refused(arena, examples):
    def check(chosen):
        tree, color, skip_corrupt = chosen
        shutil.rmtree(arena / "images", ignore_errors=True)
        (arena / "images").mkdir()
        for name, entry in tree.items():
            path = arena / "images" / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(entry) if isinstance(entry, str) else path.write_bytes(entry)
            except OSError:
                continue  # a file where another name has a folder
        decoded = read_or_refused(
            lambda: folder.prepare(
                f"folder:{arena / 'images'}",
                str(arena / "cache"),
                size=(5, 6),
                color=color,
                skip_corrupt=skip_corrupt,
                log=lambda line: None,
            ),
            arena,
        )
        if decoded is not None:
            for pixels, labels in (decoded.train, decoded.test):
                assert pixels.dtype == np.uint8
                assert pixels.shape == (len(labels), 5, 6, 1 if color == "grey" else 3)

    inputs = st.tuples(trees(), st.sampled_from(["grey", "rgb"]), st.sampled_from([True, True, False]))
    feed(inputs, check, examples, always=[(SOUND, "grey", False), (SOUND | {"dog/bad": b"x"}, "rgb", True)])


@amounts(100, 5_000)
def test_an_image_is_decoded_or_refused(arena, examples):
    def read(content):
        try:
            return images.inspect(content)[0], images.decode(content, None, "rgb")
        except images.BadImage as error:
            raise UserError(str(error)) from error

    def check(content):
        found = read_or_refused(lambda: read(content), arena)
        assert found is None or found[1].shape == (*found[0], 3)

    feed(DAMAGED | st.binary(max_size=100), check, examples, always=PICTURES)
