"""Claims between real processes: one owner at a time, dead owners replaced, machines without common locks."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from convjax.sweeps import lock as claims
from convjax.sweeps.lock import Claim, Claimed, last_owner, living_owner

# A process that plays another machine: another boot, and perhaps a file system whose locks do not reach here.
OWNER = """
import errno, fcntl, os, sys, time
from pathlib import Path
from convjax.sweeps import lock as claims

folder, machine, locks, heartbeat = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
claims.HEARTBEAT_SECONDS = heartbeat
if machine:
    claims._machine = lambda: machine
if locks != "locks":
    def flock(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, "no locks here")
    fcntl.flock = flock
try:
    claim = claims.Claim(folder)
except claims.Claimed as error:
    print("refused:", error, flush=True)
    sys.exit(0)
print("claimed", flush=True)
for line in sys.stdin:
    try:
        claim.require()
        print("mine", flush=True)
    except claims.Claimed as error:
        print("lost:", error, flush=True)
claim.close()
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


def test_a_claim_is_exclusive_until_it_is_given_back(tmp_path):
    with Claim(tmp_path):
        with pytest.raises(Claimed, match=f"process {os.getpid()} on"):
            Claim(tmp_path)
        assert living_owner(tmp_path)["pid"] == os.getpid()
    assert living_owner(tmp_path) is None
    assert last_owner(tmp_path)["pid"] == os.getpid()
    with Claim(tmp_path) as again:
        again.require()
    assert len(list(tmp_path.iterdir())) == 1, "older claims are tidied up"


def test_the_claim_of_a_killed_owner_is_taken_over_at_once(tmp_path):
    with owner(tmp_path) as (process, said):
        assert said == "claimed\n"
        with pytest.raises(Claimed, match=f"process {process.pid} on"):
            Claim(tmp_path)
        process.kill()
        process.wait()
        assert living_owner(tmp_path) is None
        Claim(tmp_path).close()


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_suspended_owner_keeps_its_claim_where_locks_tell(tmp_path, locks, monkeypatch):
    """Stopped for an hour, it would still write when it goes on: on one machine its lock says that it is there."""
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.3)
    with owner(tmp_path, locks=locks) as (process, said):
        assert said == "claimed\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        if locks == "locks":
            with pytest.raises(Claimed):
                Claim(tmp_path)
            process.send_signal(signal.SIGCONT)
            assert ask(process) == "mine\n"
            return
        with Claim(tmp_path):
            process.send_signal(signal.SIGCONT)
            # Before its next write it learns that the run is no longer its own.
            assert ask(process).startswith("lost:")


def test_the_owner_on_another_machine_lives_while_its_heart_beats(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(claims, "STALE_SECONDS", 1.5)
    with owner(tmp_path, machine="another", locks="no locks") as (process, said):
        assert said == "claimed\n"
        time.sleep(2)
        with pytest.raises(Claimed, match=f"process {process.pid}"):
            Claim(tmp_path)
        assert ask(process) == "mine\n"
        process.kill()
        process.wait()
        with pytest.raises(Claimed):  # nobody can know yet that it is dead
            Claim(tmp_path)
        time.sleep(1.8)
        Claim(tmp_path).close()


def test_an_owner_elsewhere_that_gave_the_run_back_is_not_waited_for(tmp_path, no_locks):
    with owner(tmp_path, machine="another", locks="no locks") as (process, said):
        assert said == "claimed\n"
        process.communicate()
        Claim(tmp_path).close()


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with Claim(tmp_path), pytest.raises(Claimed):
        Claim(tmp_path)
    Claim(tmp_path).close()


def test_a_name_that_has_come_and_gone_is_not_a_claim(tmp_path, monkeypatch):
    """One process looked, slept through two claims of others, and makes the name that is free again."""
    for _ in range(3):
        Claim(tmp_path).close()
    [path] = tmp_path.iterdir()
    assert path.name == ".claim-3"
    real, slept = claims._newest, []
    monkeypatch.setattr(claims, "_newest", lambda folder: real(folder) if slept else slept.append(1) or 1)
    with pytest.raises(Claimed):
        Claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".claim-3"]


RACE = """
import sys, os, time
from pathlib import Path
from convjax.sweeps.lock import Claim, Claimed
import convjax.sweeps.lock as claims
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
        with Claim(folder):
            inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails if another is inside too
            os.close(inside)
            taken += 1
            os.unlink(folder / "inside")
    except Claimed:
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
