"""One run by several processes that talk over sockets, as on several hosts: the numbers of a single process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--dataset=mnist_5k",
    "--train_size=200",
    "--validation_size=100",
    "--channels=3-4",
    "--dense_units=5",
    "--batch_size=30",
    "--dropout=0.2",
    "--optimizer=sgd",
    "--learning_rate=0.05",
    "--nodiagnostics",
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(workdir, processes, *more):
    """The processes of one run, each with a store of its own name: only the first may write."""
    coordinator = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", "PYTHONPATH": str(ROOT)}
    started = []
    for index in range(processes):
        joined = [f"--coordinator={coordinator}", f"--num_processes={processes}", f"--process_id={index}"]
        command = [sys.executable, "-m", "experiments.train", *FLAGS, *more, *(joined if processes > 1 else [])]
        command.append(f"--workdir={workdir if index == 0 else f'{workdir}-{index}'}")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    return started


def finish(started, code=0, timeout=300):
    ended = []
    for process in started:
        out, errors = process.communicate(timeout=timeout)
        assert process.returncode == code, errors[-3000:]
        ended.append((out, errors))
    return ended


def outcome(workdir):
    [folder] = Path(workdir).glob("train/*")
    result, config = (json.loads((folder / name).read_text()) for name in ("result.json", "config.json"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return result, config, lines


def same_numbers(one, other):
    """To float32's rounding; an accuracy is one of 1/1000ths."""
    (result, _, lines), (result2, _, lines2) = one, other
    assert [line["step"] for line in lines] == [line["step"] for line in lines2]
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert [line[name] for line in lines] == pytest.approx([line[name] for line in lines2], abs=2e-5), name
    assert result["test_loss"] == pytest.approx(result2["test_loss"], abs=2e-5)
    assert result["test_accuracy"] == pytest.approx(result2["test_accuracy"], abs=2e-3)


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path):
    alone, several = start(tmp_path / "alone", 1, "--epochs=2"), start(tmp_path / "two", 2, "--epochs=2")
    finish(alone)
    (out, _), (silent, _) = finish(several)
    assert out.splitlines()[-1].startswith("test accuracy: ")
    assert [line for line in silent.splitlines() if not line.startswith("[Gloo]")] == []
    same_numbers(outcome(tmp_path / "alone"), outcome(tmp_path / "two"))
    config = outcome(tmp_path / "two")[1]
    assert (config["processes"], config["devices_used"]) == (2, 2)
    assert not (tmp_path / "two-1").exists()


def wait_for_epoch(workdir, epoch, started):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        for path in Path(workdir).glob("train/*/metrics.jsonl"):
            if path.read_bytes().count(b"\n") >= epoch:
                return
        time.sleep(0.01)
    for process in started:
        process.kill()
    raise AssertionError([process.communicate() for process in started])


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_others_and_the_run_goes_on_with_more(lost, tmp_path):
    finish(start(tmp_path / "alone", 1, "--epochs=40", "--keep_checkpoints=0"))
    started = start(tmp_path / "several", 2, "--epochs=40", "--keep_checkpoints=0")
    wait_for_epoch(tmp_path / "several", 2, started)
    started[lost].kill()
    begun = time.monotonic()
    _, errors = started[1 - lost].communicate(timeout=100)
    assert time.monotonic() - begun < 90
    assert started[1 - lost].returncode not in (0, None)
    assert "lost another" in errors or "another task died" in errors, errors[-3000:]
    started[lost].communicate()
    [folder] = (tmp_path / "several").glob("train/*")
    assert not (folder / "result.json").exists()
    ended = finish(start(tmp_path / "several", 4, "--epochs=40", "--keep_checkpoints=0"))
    assert ended[0][0].splitlines()[-1].startswith("test accuracy: ")
    one, other = outcome(tmp_path / "alone"), outcome(tmp_path / "several")
    assert other[0]["resumed_at_step"] > 0
    assert other[1]["processes"] == 4
    assert [line["step"] for line in one[2]] == [line["step"] for line in other[2]]
    # 280 steps carry rounding on.
    assert one[2][-1]["train_loss"] == pytest.approx(other[2][-1]["train_loss"], abs=1e-3)


@pytest.mark.slow
def test_a_process_that_is_asked_to_stop_stops_all_with_a_checkpoint(tmp_path):
    started = start(tmp_path / "several", 2, "--epochs=2000")
    wait_for_epoch(tmp_path / "several", 2, started)
    started[1].send_signal(signal.SIGTERM)
    for _, errors in finish(started, code=130):
        assert "interrupted" in errors
    [folder] = (tmp_path / "several").glob("train/*")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    newest = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert newest >= json.loads(lines[-1])["step"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--coordinator=here"], "HOST:PORT"),
        (["--coordinator=localhost:1234"], "--num_processes"),
        (["--coordinator=localhost:1234", "--num_processes=2", "--process_id=2"], "0 to 1"),
        (["--coordinator=auto", "--num_processes=2"], "leave"),
    ],
)
def test_mistakes_are_one_line(flags, says, monkeypatch):
    from convjax.errors import UserError
    from convjax.training import devices as parallel

    values = dict(flag.removeprefix("--").split("=") for flag in flags)
    numbers = [int(values[name]) if name in values else None for name in ("num_processes", "process_id")]
    with pytest.raises(UserError, match=says):
        parallel.join(values["coordinator"], *numbers)
