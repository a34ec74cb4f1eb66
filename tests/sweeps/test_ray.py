"""The Ray executor on a real cluster of several node processes on this machine, one of them killed in the middle."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convjax.errors import UnavailableError, UserError
from convjax.sweeps.frame import find_runs
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.runner import run_sweep
from tests.helpers.sweeps import ROOT, SMALL, Recorder, make_sweep, outcomes

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, at import and at shutdown
]

LONG = SMALL.replace(epochs=40)
SEEDS = 4


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("local")
    run_sweep(make_sweep(LONG, workdir, seeds=SEEDS), SweepOptions(seed_mode="serial"), Recorder())
    return outcomes(workdir)


def test_a_node_killed_in_the_middle_loses_nothing_and_nothing_is_done_twice(cluster, tmp_path, expected):
    victim = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    sweep = make_sweep(LONG, tmp_path, seeds=SEEDS)
    killed = threading.Event()

    class Killer(Recorder):
        def watch(self, running):
            begun = [config for config in running if sweep.run(config).metrics()]
            if len(begun) >= 2 and self.over and not killed.is_set():
                killed.set()
                cluster.remove_node(victim, allow_graceful=False)

    recorder = Killer()
    run_sweep(sweep, SweepOptions(executor="ray", ray_address=cluster.address), recorder)
    assert killed.is_set(), "the node was never killed: the test shows nothing"
    assert set(recorder.over.values()) == {"done"}
    assert outcomes(tmp_path) == expected
    # Each run's metrics have each epoch once: no epoch was done and written by two.
    for run in find_runs([tmp_path]):
        assert [line["epoch"] for line in run.metrics()] == list(range(1, 41))


DRIVER = """
import sys
from convjax.sweeps.options import SweepOptions
from convjax.sweeps.runner import run_sweep
from tests.helpers.sweeps import Recorder, make_sweep
from tests.sweeps.test_ray import LONG, SEEDS
how = SweepOptions(executor="ray", ray_address=sys.argv[2])
run_sweep(make_sweep(LONG, sys.argv[1], seeds=SEEDS), how, Recorder())
"""


def test_a_killed_driver_is_started_again(cluster, tmp_path, expected):
    cluster.add_node(num_cpus=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 120
    while not list(Path(tmp_path).glob("study/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    assert 0 < len(list(Path(tmp_path).glob("study/*/result.json"))) < 8
    recorder = Recorder()
    how = SweepOptions(executor="ray", ray_address=cluster.address)
    run_sweep(make_sweep(LONG, tmp_path, seeds=SEEDS), how, recorder)
    assert set(recorder.over.values()) == {"done"}
    assert outcomes(tmp_path) == expected


def test_a_request_that_no_machine_meets_is_refused(cluster, tmp_path):
    sweep = make_sweep(LONG, tmp_path, seeds=1)
    with pytest.raises(UserError, match="--ray_gpus"):
        run_sweep(sweep, SweepOptions(executor="ray", ray_address=cluster.address, ray_gpus=1), Recorder())


def test_no_cluster_is_one_line(tmp_path):
    sweep = make_sweep(LONG, tmp_path, seeds=1)
    with pytest.raises(UnavailableError, match="no Ray cluster"):
        run_sweep(sweep, SweepOptions(executor="ray", ray_address="auto"), Recorder())
