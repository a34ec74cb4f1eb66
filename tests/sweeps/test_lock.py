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

from convjax.sweeps import lock as locks
from convjax.sweeps.lock import Lock, Locked, last_owner, living_owner

# A process that plays another machine: another boot, and perhaps a file system whose locks do not reach here.
OWNER = """
import errno, fcntl, os, sys, time
from pathlib import Path
from convjax.sweeps import lock as locks

folder, machine, locks, heartbeat = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
locks.HEARTBEAT_SECONDS = heartbeat
if machine:
    locks._machine = lambda: machine
if locks != "locks":
    def flock(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, "no locks here")
    fcntl.flock = flock
try:
    lock = locks.Lock(folder)
except locks.Locked as error:
    print("refused:", error, flush=True)
    sys.exit(0)
print("locked", flush=True)
for line in sys.stdin:
    try:
        lock.require()
        print("mine", flush=True)
    except locks.Locked as error:
        print("lost:", error, flush=True)
lock.close()
"""


@contextlib.contextmanager
def owner(folder, machine="", locks="locks", heartbeat=0.1):
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), machine, locks, str(heartbeat)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline()
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


def test_a_lock_is_exclusive_until_it_is_given_back(tmp_path):
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
    with owner(tmp_path) as (process, said):
        assert said == "locked\n"
        with pytest.raises(Locked, match=f"process {process.pid} on"):
            Lock(tmp_path)
        process.kill()
        process.wait()
        assert living_owner(tmp_path) is None
        Lock(tmp_path).close()


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_suspended_owner_keeps_its_lock_where_locks_tell(tmp_path, locks, monkeypatch):
    """Stopped for an hour, it would still write when it goes on: on one machine its lock says that it is there."""
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.3)
    with owner(tmp_path, locks=locks) as (process, said):
        assert said == "locked\n"
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
            # Before its next write it learns that the run is no longer its own.
            assert ask(process).startswith("lost:")


def test_the_owner_on_another_machine_lives_while_its_heart_beats(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(locks, "STALE_SECONDS", 1.5)
    with owner(tmp_path, machine="another", locks="no locks") as (process, said):
        assert said == "locked\n"
        time.sleep(2)
        with pytest.raises(Locked, match=f"process {process.pid}"):
            Lock(tmp_path)
        assert ask(process) == "mine\n"
        process.kill()
        process.wait()
        with pytest.raises(Locked):  # nobody can know yet that it is dead
            Lock(tmp_path)
        time.sleep(1.8)
        Lock(tmp_path).close()


def test_an_owner_elsewhere_that_gave_the_run_back_is_not_waited_for(tmp_path, no_locks):
    with owner(tmp_path, machine="another", locks="no locks") as (process, said):
        assert said == "locked\n"
        process.communicate()
        Lock(tmp_path).close()


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with Lock(tmp_path), pytest.raises(Locked):
        Lock(tmp_path)
    Lock(tmp_path).close()


def test_a_name_that_has_come_and_gone_is_not_a_lock(tmp_path, monkeypatch):
    """One process looked, slept through two locks of others, and makes the name that is free again."""
    for _ in range(3):
        Lock(tmp_path).close()
    [path] = tmp_path.iterdir()
    assert path.name == ".lock-3"
    real, slept = locks._newest, []
    monkeypatch.setattr(locks, "_newest", lambda folder: real(folder) if slept else slept.append(1) or 1)
    with pytest.raises(Locked):
        Lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-3"]


RACE = """
import sys, os, time
from pathlib import Path
from convjax.sweeps.lock import Lock, Locked
import convjax.sweeps.lock as locks
folder, log = Path(sys.argv[1]), sys.argv[2]
if sys.argv[3] == "no locks":
    import errno, fcntl
    def flock(descriptor, operation):
        raise OSError(errno.ENOTSUP, "no locks here")
    fcntl.flock = flock
end = time.monotonic() + float(sys.argv[4])
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


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_processes_that_race_are_never_inside_together(tmp_path, locks):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), "", locks, "1.5"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    results = [(racer.communicate()[0], racer.returncode) for racer in racers]
    assert [code for _, code in results] == [0] * 4
    assert sum(int(out) for out, _ in results) > 10
