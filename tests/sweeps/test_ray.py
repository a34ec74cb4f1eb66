"""The Ray executor on a real cluster of several node processes on this machine, one of them killed in the middle."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convjax.config import RunConfig
from convjax.errors import UnavailableError, UserError
from convjax.sweeps.frame import find_runs
from convjax.sweeps.run import Options
from convjax.sweeps.runner import Sweep, SweepOptions, run_sweep
from tests.sweeps.test_runner import ROOT, Recorder, outcomes

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, at import and at shutdown
]

BASE = RunConfig(dataset="mnist_5k", train_size=200, channels="4-6", dense_units="8", epochs=40)


def arms(seeds=4):
    return tuple(tuple(BASE.replace(kernel_size=k, seed=seed) for seed in range(seeds)) for k in ("3", "2"))


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
    run_sweep(Sweep("study", arms(), Options(workdir=str(workdir))), SweepOptions(seed_mode="serial"), Recorder())
    return outcomes(workdir)


class Log(Recorder):
    def __init__(self):
        super().__init__()
        self.order = []

    def finished(self, config, status, reason):
        super().finished(config, status, reason)
        self.order.append(config)


def test_a_node_killed_in_the_middle_loses_nothing_and_nothing_is_done_twice(cluster, tmp_path, expected):
    victim = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    sweep = Sweep("study", arms(), Options(workdir=str(tmp_path)))
    killed = threading.Event()

    class Killer(Log):
        def watch(self, running):
            begun = [config for config in running if sweep.run(config).metrics()]
            if len(begun) >= 2 and self.order and not killed.is_set():
                killed.set()
                cluster.remove_node(victim, allow_graceful=False)

    log = Killer()
    run_sweep(sweep, SweepOptions(executor="ray", ray_address=cluster.address), log)
    assert killed.is_set(), "the node was never killed: the test shows nothing"
    assert set(log.over.values()) == {"done"}
    assert outcomes(tmp_path) == expected
    # Each run's metrics have each epoch once: no epoch was done and written by two.
    for run in find_runs([tmp_path]):
        assert [line["epoch"] for line in run.metrics()] == list(range(1, 41))


DRIVER = """
import sys
from convjax.sweeps.run import Options
from convjax.sweeps.runner import Sweep, SweepOptions, run_sweep
from tests.sweeps.test_ray import arms
from tests.sweeps.test_runner import Recorder
how = SweepOptions(executor="ray", ray_address=sys.argv[2])
run_sweep(Sweep("study", arms(), Options(workdir=sys.argv[1])), how, Recorder())
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
    log = Log()
    run_sweep(
        Sweep("study", arms(), Options(workdir=str(tmp_path))),
        SweepOptions(executor="ray", ray_address=cluster.address),
        log,
    )
    assert set(log.over.values()) == {"done"}
    assert outcomes(tmp_path) == expected


def test_a_request_that_no_machine_meets_is_refused(cluster, tmp_path):
    sweep = Sweep("study", arms(1), Options(workdir=str(tmp_path)))
    with pytest.raises(UserError, match="--ray_gpus"):
        run_sweep(sweep, SweepOptions(executor="ray", ray_address=cluster.address, ray_gpus=1), Recorder())


def test_no_cluster_is_one_line(tmp_path):
    sweep = Sweep("study", arms(1), Options(workdir=str(tmp_path)))
    with pytest.raises(UnavailableError, match="no Ray cluster"):
        run_sweep(sweep, SweepOptions(executor="ray", ray_address="auto"), Recorder())
