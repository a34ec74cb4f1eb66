"""Feeds broken input to everything that reads a user's files or flags, and looks for what must not happen.

    python scripts/fuzz.py --seconds=60
    python scripts/fuzz.py --targets=idx,keras --inputs=10000 --seed=7

Allowed is a result or a refusal (one line: UserError, UnavailableError). Not allowed are any other exception, more
than 10 s of computing, 2 min of waiting or 512 MiB for an input, a crash, and a file outside the folder of the input.
What breaks a rule is kept in --keep, with the exception; `--inputs` and `--seed` give the same inputs again. The last
line counts the inputs.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UnavailableError, UserError
from convjax.flags import run_program

_SECONDS = flags.DEFINE_float("seconds", 60, "time for all targets together; ignored with --inputs", 0)
_INPUTS = flags.DEFINE_integer("inputs", 0, "inputs for each target instead", 0)
_SEED = flags.DEFINE_integer("seed", 0, "of the inputs")
_TARGETS = flags.DEFINE_list("targets", [], "what to feed; empty for everything")
_KEEP = flags.DEFINE_string("keep", "fuzz-failures", "folder for inputs that break a rule")

SECONDS_AN_INPUT = 10.0
WAITING_AN_INPUT = 120.0
BYTES_AN_INPUT = 512 * 2**20


class Hang(BaseException):
    """An input took too long."""


@dataclasses.dataclass
class Target:
    """Something that reads input.

    Attributes:
      make: the next input.
      feed: reads an input, from files below a folder of its own.
    """

    make: Callable[[random.Random], bytes]
    feed: Callable[[bytes, Path], object]


# How inputs are broken.

_NUMBERS = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, struct.pack("<q", 2**62), b"-1", b"1e999")
_WORDS = (
    *("", "0", "-1", "nan", "inf", "1e400", "9" * 400, "2147483648", "../../../x", "/etc/passwd", "\0", "\n", "\u00e9"),
    *(
        "3x",
        "3-",
        "-",
        "--",
        "x",
        "1x1x1",
        "3-3-3-3-3",
        "1_000",
        " 3 ",
        "\u0663",
        "rotate=1e9",
        "a=b",
        "=",
        "None",
        "[]",
    ),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, -(2**63), 2**31, 1e-320, float("nan"), float("inf"), "", "1", "x" * 1000),
    *([], {}, [[1]], {"a": 1}, "../..", [None] * 3),
)


def mutated(content: bytes, choose: random.Random, *, times: int = 3) -> bytes:
    """`content` with a few bits flipped, pieces cut out, doubled or overwritten, or cut short."""
    data = bytearray(content)
    for _ in range(choose.randint(1, times)):
        place, length = choose.randrange(len(data) + 1), choose.choice((1, 2, 4, 8, 64, len(data) // 3))
        how = choose.randrange(6)
        if how == 0 and data:
            data[place % len(data)] ^= 1 << choose.randrange(8)
        elif how == 1:
            del data[place : place + length]
        elif how == 2:
            data[place:place] = data[place : place + length]
        elif how == 3:
            word = choose.choice(_NUMBERS)
            data[place : place + len(word)] = word
        elif how == 4:
            data[place:place] = choose.randbytes(length % 65)
        elif choose.random() < 0.3:
            del data[place:]
    return bytes(data)


def mutated_json(value: Any, choose: random.Random) -> Any:
    """`value` with a few of its parts replaced, removed, renamed or nested."""
    parts: list[tuple[Any, Any]] = []

    def collect(part: Any) -> None:
        for key, child in part.items() if isinstance(part, dict) else enumerate(part):
            parts.append((part, key))
            if isinstance(child, dict | list):
                collect(child)

    value = json.loads(json.dumps({"root": value}))
    collect(value)
    for _ in range(choose.randint(1, 3)):
        part, key = choose.choice(parts)
        with contextlib.suppress(LookupError):
            how = choose.randrange(5)
            if how == 0:
                del part[key]
            elif how == 1 and isinstance(part, dict):
                part[choose.choice(_WORDS)] = part.pop(key)
            elif how == 2:
                part[key] = [part[key]]
            else:
                part[key] = choose.choice(_VALUES)
    return value.get("root")


def json_bytes(value: Any, choose: random.Random) -> bytes:
    """Broken JSON: broken as a value mostly, as text now and then."""
    text = json.dumps(mutated_json(value, choose)).encode()
    if choose.random() < 0.2:
        text = mutated(text, choose)
    if choose.random() < 0.01:
        text = b'{"a":' * 100_000 + text
    return text


# What is fed.


def targets(folder: Path) -> dict[str, Target]:
    """All targets. What sound input needs is made in `folder`."""
    return {
        "flags": Target(_make_flags, _feed_flags),
        **_idx_targets(),
        "folder": _folder_target(),
        **_store_targets(folder),
        **_keras_targets(),
    }


def _make_flags(choose: random.Random) -> bytes:
    values: dict[str, str] = {}
    for name in choose.sample(FIELD_NAMES, choose.randint(1, 5)):
        default = str(getattr(RunConfig(), name))
        value = choose.choice([choose.choice(_WORDS), default, f"{default}-{default}", f"{default}x2"])
        values[name] = mutated(value.encode(), choose).decode(errors="replace") if choose.random() < 0.5 else value
    return json.dumps(values).encode()


def _feed_flags(content: bytes, folder: Path) -> object:
    from convjax.nn.geometry import plan

    config = RunConfig(**json.loads(content))
    assert RunConfig.from_dict(config.to_dict()).digest == config.digest
    return plan(config, (28, 28, 1), 10)


def _idx_targets() -> dict[str, Target]:
    from convjax.data.idx import reading as idx
    from convjax.data.idx.catalog import RawFile

    images = b"\0\0\x08\x03" + struct.pack(">III", 4, 5, 6) + bytes(range(120))
    labels = b"\0\0\x08\x01" + struct.pack(">I", 4) + bytes([0, 1, 2, 9])
    packed = {kind: zlib.compress(raw, wbits=31) for kind, raw in (("images", images), ("labels", labels))}
    bomb = zlib.compress(bytes(1 << 26), 9, 31)

    def make(choose: random.Random) -> bytes:
        return mutated(choose.choice([images, labels]), choose)

    def make_gzip(choose: random.Random) -> bytes:
        return mutated(choose.choice([*packed.values(), bomb]), choose)

    def feed(content: bytes, folder: Path) -> object:
        path = folder / "data-idx-ubyte"
        path.write_bytes(content)
        kind = "labels" if b"\x08\x01" in content[:4] else "images"
        # Half of the files hash to what is expected, so that what is behind the check is reached.
        with contextlib.suppress(zlib.error):
            content = (
                zlib.decompress(content, wbits=31) if content[:2] == b"\x1f\x8b" and len(content) < 1000 else content
            )
        digest = hashlib.sha256(content).hexdigest()
        file = RawFile(path.name, kind, 4, digest if len(content) % 2 else "0" * 64)
        return idx.read(path, file, (5, 6, 1), 10)

    return {"idx": Target(make, feed), "gzip": Target(make_gzip, feed)}


def _folder_target() -> Target:
    from PIL import Image

    from convjax.data.folders import folder as folders

    pictures = []
    for kind, color in (("PNG", "L"), ("JPEG", "RGB"), ("PNG", "P"), ("BMP", "RGB"), ("GIF", "L"), ("PNG", "RGBA")):
        buffer = io.BytesIO()
        Image.new(color, (9, 7)).save(buffer, kind)
        pictures.append(buffer.getvalue())
    # A PNG header that claims 60,000 x 60,000 pixels.
    enormous = bytearray(pictures[0])
    enormous[16:24] = struct.pack(">II", 60_000, 60_000)
    enormous[29:33] = struct.pack(">I", zlib.crc32(enormous[12:29]))
    names = [
        f"{split}{name}"
        for split in ("", "train/", "test/")
        for name in ("cat/1.png", "cat/2.jpg", "dog/3", "dog/4.gif")
    ]
    odd = [
        "x/../y",
        "cat/\udcff",
        "cat/a\nb",
        ".hidden/1",
        "cat/deep/er/5",
        "stray",
        "Thumbs.db",
        "train/val/6",
        "cat " + "7" * 200,
    ]

    def make(choose: random.Random) -> bytes:
        tree: dict[str, dict[str, str]] = {}
        for name in choose.sample(names, choose.randint(1, 8)) + choose.sample(odd, choose.randint(0, 3)):
            picture = choose.choice([*pictures, enormous])
            content = mutated(picture, choose) if choose.random() < 0.6 else picture
            tree[name] = {"content": bytes(content).hex()}
            if choose.random() < 0.1:
                tree[name] = {"link": choose.choice(["/etc", "/dev/zero", "..", "nowhere", "1.png", "../cat"])}
        return json.dumps(tree).encode()

    def feed(content: bytes, place: Path) -> object:
        shutil.rmtree(place / "images", ignore_errors=True)
        for name, what in json.loads(content).items():
            path = place / "images" / name
            with contextlib.suppress(OSError):  # a file where another name has a folder
                path.parent.mkdir(parents=True, exist_ok=True)
                if "link" in what:
                    path.symlink_to(what["link"])
                else:
                    path.write_bytes(bytes.fromhex(what["content"]))
        (place / "images").mkdir(exist_ok=True)
        return folders.prepare(
            f"folder:{place / 'images'}",
            str(place / "cache"),
            size=(5, 6),
            color="grey" if len(content) % 2 else "rgb",
            skip_corrupt=len(content) % 3 > 0,
            log=lambda line: None,
        )

    return Target(make, feed)


def _store_targets(folder: Path) -> dict[str, Target]:
    import numpy as np

    from convjax.sweeps.store import Run

    config = RunConfig()
    sound = Run.of(folder, "study", config)
    sound.path.mkdir(parents=True)
    sound.start(config, {"backend": "cpu", "versions": {"jax": "0"}, "git_revision": None, "host": "h"})
    for epoch in (1, 2):
        sound.add_metrics(
            {"epoch": epoch, "step": 10 * epoch, "train_loss": 0.5, "train_accuracy": 0.9, "seconds": 1.0}
        )
    numbers = dict.fromkeys(("test_accuracy", "test_loss", "train_accuracy", "train_loss"), 0.5)
    result = {"status": "done", "reason": "", **numbers, "parameters": 10, "flops": 20, "dataset_fingerprint": "abc"}
    sound.finish({**result, "seconds": {"train": 1.0, "total": 1.5}}, np.array([1, 2, 3]), np.array([1, 2, 0]))
    sound.fail(RuntimeError("out of memory"), "trace")
    files = {path.name: path.read_bytes() for path in sound.path.iterdir() if path.is_file()}

    def target(name: str, *, without: Sequence[str] = ()) -> Target:
        def make(choose: random.Random) -> bytes:
            if not name.endswith(".json"):
                return mutated(files[name], choose)
            return json_bytes(json.loads(files[name]), choose)

        def feed(content: bytes, place: Path) -> None:
            run = Run(place / "study" / config.digest)
            run.path.mkdir(parents=True, exist_ok=True)
            for other, sound_content in files.items():
                (run.path / other).unlink(missing_ok=True)
                if other not in without:
                    (run.path / other).write_bytes(sound_content)
            (run.path / name).write_bytes(content)
            _read_store(run)

        return Target(make, feed)

    unchecked = ("SHA256SUMS",)
    return {
        "config.json": target("config.json", without=unchecked),
        "result.json": target("result.json", without=unchecked),
        "failure.json": target("failure.json", without=("result.json",)),
        "metrics.jsonl": target("metrics.jsonl", without=("result.json",)),
        "predictions.npy": target("predictions.npy", without=unchecked),
        "SHA256SUMS": target("SHA256SUMS"),
    }


def _read_store(run: Any) -> None:
    """All that looks at a run, and the table of it."""
    from convjax.analysis.tables import accuracy_table
    from convjax.sweeps import doctor
    from convjax.sweeps.frame import read_correct, read_runs

    frame = read_runs([run.path.parent])
    doctor.examine([run.path.parent], checkpoints=False)
    run.last_metrics()
    for read in (run.metrics, lambda: read_correct(run.path)):
        with contextlib.suppress(UserError):
            read()
    if frame["status"][0] != "damaged":  # tables take most of the time, and what is damaged is not in them
        with contextlib.suppress(UserError):
            accuracy_table(frame)


def _keras_targets() -> dict[str, Target]:
    import numpy as np

    from convjax.nn.geometry import plan
    from convjax.nn.keras_config import to_keras_config
    from convjax.nn.keras_io import _archive_bytes, _weights_bytes, load_keras, load_keras_model

    layers = plan(RunConfig(channels="2-3", dense_units="4"), (28, 28, 1), 10)
    params = {
        layer.name: {
            "kernel": np.zeros(
                (*(layer.window if layer.kind == "Conv2D" else ()), layer.input_shape[-1], layer.output_shape[-1])
            ),
            "bias": np.zeros(layer.output_shape[-1]),
        }
        for layer in layers
        if layer.parameters
    }
    weights = _weights_bytes(params, layers)
    archive, architecture = _archive_bytes(weights, layers), to_keras_config(layers)

    def make_archive(choose: random.Random) -> bytes:
        if choose.random() < 0.2:
            return mutated(archive, choose)
        config = json_bytes(architecture, choose) if choose.random() < 0.7 else json.dumps(architecture).encode()
        members = {"metadata.json": b"{}", "config.json": config, "model.weights.h5": weights}
        if choose.random() < 0.3:
            members[choose.choice(["../evil", "/tmp/evil", "config.json/../../evil", "model.weights.h5"])] = b"x"
        if choose.random() < 0.1:
            members["config.json"] = b" " * (1 << 25)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", choose.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
            for name, content in members.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def feed_archive(content: bytes, folder: Path) -> None:
        path = folder / "model.keras"
        path.write_bytes(content)
        load_keras_model(path)

    def feed_weights(content: bytes, folder: Path) -> None:
        path = folder / "model.weights.h5"
        path.write_bytes(content)
        load_keras(path, layers)

    return {
        "keras": Target(make_archive, feed_archive),
        "h5": Target(lambda choose: mutated(weights, choose), feed_weights),
    }


# The rules.


@contextlib.contextmanager
def _time_limits() -> Iterator[None]:
    """On a busy machine a harmless input may wait for long; what computes for long does not end."""

    def ring(number: int, frame: object) -> None:
        raise Hang(f"took more than {SECONDS_AN_INPUT:g} s of computing or {WAITING_AN_INPUT:g} s of waiting")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, SECONDS_AN_INPUT),
        (signal.ITIMER_REAL, signal.SIGALRM, WAITING_AN_INPUT),
    )
    previous = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, previous, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def broken_rule(target: Target, content: bytes, folder: Path) -> str:
    """Feeds one input; what it did that it must not, or nothing.

    Args:
      folder: an empty one; the input gets a folder in it, and nothing else may come there.
    """
    inside = folder / "inside"
    inside.mkdir(exist_ok=True)
    before = _peak()
    try:
        with _time_limits():
            target.feed(content, inside)
    except (UserError, UnavailableError) as error:
        if not str(error).strip() or len(str(error)) > 2000:
            return f"its message is {len(str(error))} characters long: {str(error)[:80]!r}"
    except (Exception, Hang):
        return traceback.format_exc()
    if _peak() - before > BYTES_AN_INPUT:
        return f"took {(_peak() - before) >> 20} MiB"
    if outside := sorted({path.name for path in folder.iterdir()} - {"inside"}):
        return f"wrote outside its folder: {outside}"
    return ""


def fuzz(
    name: str, target: Target, seed: int, *, inputs: int = 0, seconds: float = 0.0
) -> tuple[int, dict[str, bytes]]:
    """Feeds `inputs` inputs, or as many as `seconds` allow; how many, and those that broke a rule, by the rule."""
    choose = random.Random(f"{seed} {name}")
    failures: dict[str, bytes] = {}
    count, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="convjax-fuzz-") as folder:
        while count < inputs or (not inputs and time.monotonic() < end):
            content = target.make(choose)
            if rule := broken_rule(target, content, Path(folder)):
                failures.setdefault(rule, content)
            count += 1
    return count, failures


def main(argv: list[str]) -> int:
    """Feeds every target and reports."""
    with tempfile.TemporaryDirectory(prefix="convjax-fuzz-") as folder:
        known = targets(Path(folder))
        names = _TARGETS.value or list(known)
        for name in names:
            if name not in known:
                raise UserError(f"--targets={name} is not known; expected some of {', '.join(known)}")
        counts, broken = {}, 0
        for name in names:
            budget = {"inputs": _INPUTS.value} if _INPUTS.value else {"seconds": _SECONDS.value / len(names)}
            counts[name], failures = fuzz(name, known[name], _SEED.value, **budget)
            print(f"{name}: {counts[name]:,} inputs, {len(failures)} ways to break a rule", flush=True)
            for rule, content in failures.items():
                broken += 1
                path = Path(_KEEP.value) / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.with_name(f"{path.name}.txt").write_text(rule)
                print(f"  {path}: {rule.strip().splitlines()[-1][:200]}")
    print(f"{sum(counts.values()):,} inputs, {broken} ways to break a rule (seed {_SEED.value})")
    return 1 if broken else 0


if __name__ == "__main__":
    run_program(main)
