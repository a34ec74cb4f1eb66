"""Locks between real processes: one owner at a time, dead owners replaced, machines without common locks."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from convjax.sweeps import lock as module
from convjax.sweeps.lock import Lock, Locked, last_owner, living_owner

# What a process is told before it begins: the folder, and whether its file system has locks.
BEGIN = """
import errno, fcntl, os, sys, time
from pathlib import Path
from convjax.sweeps import lock as module
from convjax.sweeps.lock import Lock, Locked

folder = Path(sys.argv[1])
if sys.argv[2] != "locks":
    def flock(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, "no locks here")
    fcntl.flock = flock
"""

# A process that can play another machine (another boot): it takes the lock, and answers each line of its input.
OWNER = (
    BEGIN
    + """
module.HEARTBEAT_SECONDS = 0.1
if machine := sys.argv[3]:
    module._machine = lambda: machine
with Lock(folder) as lock:
    print("locked", flush=True)
    for line in sys.stdin:
        try:
            lock.require()
            print("mine", flush=True)
        except Locked as error:
            print("lost:", error, flush=True)
"""
)


@contextlib.contextmanager
def owner(folder, locks="locks", machine=""):
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), locks, machine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def ask(process):
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline()


@pytest.fixture
def no_locks(monkeypatch):
    """This process too is on a file system without locks."""

    def flock(descriptor, operation):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_is_exclusive_until_it_is_released(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(Locked, match=f"process {os.getpid()} on"):
            Lock(tmp_path)
        assert living_owner(tmp_path)["pid"] == os.getpid()
    assert living_owner(tmp_path) is None
    assert last_owner(tmp_path)["pid"] == os.getpid()
    with Lock(tmp_path) as again:
        again.require()
    assert len(list(tmp_path.iterdir())) == 1, "older locks are tidied up"


def test_the_lock_of_a_killed_owner_is_taken_over_at_once(tmp_path):
    with owner(tmp_path) as process:
        with pytest.raises(Locked, match=f"process {process.pid} on"):
            Lock(tmp_path)
        process.kill()
        process.wait()
        assert living_owner(tmp_path) is None
        Lock(tmp_path).close()


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_suspended_owner_keeps_its_lock_only_where_flock_shows_that_it_lives(tmp_path, locks, monkeypatch):
    """Continued after an hour, it would still write: on one machine its lock shows that it exists."""
    monkeypatch.setattr(module, "STALE_SECONDS", 0.3)
    with owner(tmp_path, locks) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        if locks == "locks":
            with pytest.raises(Locked):
                Lock(tmp_path)
            process.send_signal(signal.SIGCONT)
            assert ask(process) == "mine\n"
            return
        with Lock(tmp_path):
            process.send_signal(signal.SIGCONT)
            # Before its next write it learns that it has lost the run.
            assert ask(process).startswith("lost:")


def test_the_owner_on_another_machine_lives_while_its_heart_beats(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(module, "STALE_SECONDS", 1.5)
    with owner(tmp_path, "no locks", machine="another") as process:
        time.sleep(2)
        with pytest.raises(Locked, match=f"process {process.pid}"):
            Lock(tmp_path)
        assert ask(process) == "mine\n"
        process.kill()
        process.wait()
        with pytest.raises(Locked):  # nobody here can know yet that it is dead
            Lock(tmp_path)
        time.sleep(1.8)
        Lock(tmp_path).close()


def test_a_lock_released_on_another_machine_is_free_at_once(tmp_path, no_locks):
    with owner(tmp_path, "no locks", machine="another") as process:
        process.communicate()
        Lock(tmp_path).close()


def test_a_file_system_without_hard_links_suffices(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with Lock(tmp_path), pytest.raises(Locked):
        Lock(tmp_path)
    Lock(tmp_path).close()


def test_a_lock_under_a_number_already_used_is_refused(tmp_path, monkeypatch):
    """A process looks, sleeps through two locks of others, and creates a name that is free again."""
    for _ in range(3):
        Lock(tmp_path).close()
    [path] = tmp_path.iterdir()
    assert path.name == ".lock-3"
    real, slept = module._newest, []
    monkeypatch.setattr(module, "_newest", lambda folder: real(folder) if slept else slept.append(1) or 1)
    with pytest.raises(Locked):
        Lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-3"]


RACE = (
    BEGIN
    + """
end = time.monotonic() + 1.5
taken = 0
while time.monotonic() < end:
    try:
        with Lock(folder):
            inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails if another is inside too
            os.close(inside)
            taken += 1
            os.unlink(folder / "inside")
    except Locked:
        time.sleep(0.001)
print(taken)
"""
)


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_processes_that_race_are_never_inside_together(tmp_path, locks):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), locks], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [(racer.communicate()[0], racer.returncode) for racer in racers]
    assert [code for _, code in results] == [0] * 4
    assert sum(int(out) for out, _ in results) > 10
