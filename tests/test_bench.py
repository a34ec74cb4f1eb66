"""scripts/bench.py runs: its numbers mean nothing here, but every way of measuring works."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def bench(path, *flags, code=0):
    command = [sys.executable, "scripts/bench.py", "--dataset=mnist_5k", "--rounds=1", "--steps=2", f"--json={path}"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_the_chapters_run_is_measured_beside_a_peer(tmp_path):
    path = tmp_path / "measured.json"
    flags = ["--jobs=1", "--epochs=1", "--target_jobs=1", "--target=0.1", f"--profile={tmp_path / 'trace'}"]
    done = bench(path, "--peers=flax-naive,torch-compile", *flags)
    assert "| an epoch, s |" in done.stdout
    ours, peer, missing = json.loads(path.read_text())["contenders"]
    for contender in (ours, peer):
        assert all(len(contender[name]) == 1 for name in ("step", "epoch", "evaluate", "job", "target"))
    assert (ours["name"], peer["name"], missing["name"]) == ("convjax", "flax-naive", "torch-compile")
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_seeds_together_and_streaming_are_measured(tmp_path):
    path, page = tmp_path / "measured.json", tmp_path / "page.md"
    bench(path, "--platform=cpu", "--seed_counts=1,2", f"--page={page}")
    assert [each["runs"] for each in json.loads(path.read_text())["seeds"]] == [1, 2]
    assert "# Speed on cpu" in page.read_text()
    bench(path, "--streaming")
    assert set(json.loads(path.read_text())["seconds_an_epoch"]["dense"]) == {"resident", "streamed"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--peers=chainer", "bench: --peers: unknown 'chainer'; expected some of torch, "),
        ("--seed_counts=1,0", "bench: --seed_counts=1,0: expected positive numbers such as 64,256"),
    ],
)
def test_wrong_flags_are_one_line(flag, message, tmp_path):
    done = bench(tmp_path / "none", "--platform=cpu", flag, code=2)
    [line] = done.stderr.splitlines()
    assert line.startswith(message)
