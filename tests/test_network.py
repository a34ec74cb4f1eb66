"""No test and no import uses the network."""

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("host", ["93.184.215.14", "example.org", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_the_guard_refuses_other_machines(host, no_network):
    with pytest.raises(OSError, match="no network"):
        socket.create_connection((host, 443), timeout=1)
    assert no_network == [host]
    no_network.clear()


def test_the_guard_lets_this_machine_pass():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_processes_that_tests_start_have_no_network():
    program = "import urllib.request; urllib.request.urlopen('https://example.org', timeout=5)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "Connection refused" in done.stderr
    assert urllib.request.getproxies()["https"] == "http://127.0.0.1:9"


IMPORT_ALL = """
import socket, sys
def refuse(*arguments, **named):
    raise SystemExit(f"an import asked for the network: {arguments[1:]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.gethostbyname = refuse
import importlib, pkgutil, convjax
for module in pkgutil.walk_packages(convjax.__path__, "convjax."):
    importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("convjax.")]), "modules")
"""


def test_importing_everything_asks_for_no_network():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 40
