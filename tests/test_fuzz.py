"""Every reader of users' input against broken input, a few hundred of each; scripts/fuzz.py does it for longer."""

import importlib.util
import struct
from pathlib import Path

import pytest

from convjax.data.idx import reading as idx
from convjax.data.idx.catalog import RawFile
from convjax.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"
INPUTS = {"flags": 400, "idx": 400, "gzip": 200, "folder": 12, "keras": 4, "h5": 2}
SLOW_INPUTS = {"flags": 20_000, "idx": 20_000, "gzip": 5_000, "folder": 2_000, "keras": 400, "h5": 200}


@pytest.fixture(scope="module")
def fuzzer():
    spec = importlib.util.spec_from_file_location("fuzz_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known(fuzzer, tmp_path_factory):
    return fuzzer.targets(tmp_path_factory.mktemp("sound"))


NAMES = (
    "flags", "idx", "gzip", "folder", "config.json", "result.json", "failure.json", "metrics.jsonl", "predictions.npy",
    "SHA256SUMS", "keras", "h5",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_broken_input_is_refused_or_read(name, fuzzer, known):
    count, failures = fuzzer.fuzz(name, known[name], 0, inputs=INPUTS.get(name, 25))
    assert not failures, next(iter(failures))
    assert count == INPUTS.get(name, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_much_broken_input_is_refused_or_read(name, fuzzer, known):
    count, failures = fuzzer.fuzz(name, known[name], 1, inputs=SLOW_INPUTS.get(name, 1000))
    assert not failures, next(iter(failures))
    print(f"{name}: {count:,} inputs")


def test_every_target_is_tried_here(known):
    assert set(known) >= set(NAMES)


def test_the_rules_find_what_they_are_for(fuzzer, tmp_path):
    def feed(action):
        return fuzzer.broken_rule(fuzzer.Target(None, action), b"", tmp_path)

    def hang(content, folder):
        while True:
            pass

    def raises(error):
        def feed_it(content, folder):
            raise error

        return feed_it

    assert "ZeroDivisionError" in feed(lambda content, folder: 1 / 0)
    assert feed(raises(UserError("no"))) == ""
    assert "long" in feed(raises(UserError("x" * 5000)))
    fuzzer_seconds, fuzzer.SECONDS_AN_INPUT = fuzzer.SECONDS_AN_INPUT, 0.2
    assert "Hang" in feed(hang)
    fuzzer.SECONDS_AN_INPUT = fuzzer_seconds
    # What this process has once taken it takes again unnoticed, and that may be gigabytes: its word is made up.
    limit = fuzzer.BYTES_AN_INPUT
    peak, taken = fuzzer._peak, iter([1, limit, 1, limit + 2, limit + 2])
    fuzzer._peak = lambda: next(taken)
    assert feed(lambda content, folder: None) == ""
    assert "MiB" in feed(lambda content, folder: None)
    fuzzer._peak = peak
    assert peak() > 1 << 20
    assert "outside" in feed(lambda content, folder: (folder.parent / "escaped").write_bytes(b""))


def test_an_idx_header_that_claims_2_to_the_31_images_is_refused_before_anything_is_allocated(fuzzer, tmp_path):
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 2**31, 28, 28) + bytes(100))
    before = fuzzer._peak()
    with pytest.raises(UserError, match=r"holds 2,147,483,648 images, expected 10"):
        idx.read(path, RawFile("images", "images", 10, "0" * 64), (28, 28, 1), 10)
    assert fuzzer._peak() - before < 32 << 20
