"""Settings for all tests: strict JAX, checked annotations, no network, caches in a folder of the session's own."""

import ipaddress
import os
import socket
import tempfile

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the process that started them
    _cache = tempfile.TemporaryDirectory(prefix="convjax-tests-")
    os.environ["XDG_CACHE_HOME"] = _cache.name
os.environ.pop("CONVJAX_DATA_DIR", None)
os.environ["KERAS_BACKEND"] = "jax"
# Keras reads and writes its settings there.
os.environ["KERAS_HOME"] = os.path.join(os.environ["XDG_CACHE_HOME"], "keras")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Optimizing takes most of the compiler's time, and tests compile far more than they compute.
if "CONVJAX_TESTS_OPTIMIZED" not in os.environ:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
# Processes started by tests cannot reach the network by HTTP either: nothing listens on this port.
os.environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")

import hypothesis
import jax
import jaxtyping
import pytest

import tests.helpers.checked  # noqa: F401  (the hook below names it)

# The same examples every time, however slow the machine, so that a failure can be reproduced.
hypothesis.settings.register_profile(
    "convjax", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("convjax")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Every call in these packages is checked against its annotations, shapes and dtypes included.
jaxtyping.install_import_hook(["convjax.nn", "convjax.training", "convjax.explain"], "tests.helpers.checked.check")

_asked: list[str] = []


def _is_here(host: object) -> bool:
    """Whether an address is this machine's. Looking up any name but its own would ask the network."""
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses


def _addresses() -> set[str]:
    try:
        return {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()


_own_addresses = _addresses()


def _guarded(real):
    def guarded(*arguments, **named):
        target = arguments[1] if isinstance(arguments[0], socket.socket) else arguments
        if isinstance(target, tuple) and not _is_here(target[0]):
            _asked.append(str(target[0]))
            raise ConnectionRefusedError(f"tests have no network: {target[0]}")
        return real(*arguments, **named)

    return guarded


for _owner, _name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
    setattr(_owner, _name, _guarded(getattr(_owner, _name)))


@pytest.fixture(autouse=True)
def no_network():
    """Fails a test that asks for the network, even where the code under test handles the refusal."""
    _asked.clear()
    yield _asked
    assert not _asked, f"the test asked for the network: {_asked}"


@pytest.fixture(scope="session")
def digits():
    """The embedded digits: 4,000 real training and 1,000 test images."""
    from convjax import data

    return data.load("mnist_5k")
