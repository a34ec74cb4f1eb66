"""JAX and the machine: the compilation cache, precision, and what a run records about where it ran."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from convjax.errors import UserError

_PACKAGES = ("convjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def cache_home() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME/convjax` or `~/.cache/convjax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convjax"


@functools.cache
def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a machine compiles each program once.

    `JAX_COMPILATION_CACHE_DIR` takes precedence. Machines may share a home folder, and a compiled program only runs on
    its kind of CPU: each kind has a folder of its own.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[missing-attribute]
        folder = cache_home() / "xla" / hashlib.sha256(_cpu_kind().encode()).hexdigest()[:12]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a read-only home costs a compilation, not the run
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def on_cpu() -> bool:
    """Whether computations run on a CPU."""
    return jax.default_backend() == "cpu"


def jit_unoptimized(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` without optimization on CPU, for functions that run seldom and take longer to optimize than to run.

    Only for random numbers and sorting, whose bits do not depend on it. The initial weights of the chapter's network
    compile in 0.6 s, in 3 s with optimization. Inside another traced function it is inlined as usual.
    """
    optimized = jax.jit(function, **options)
    brief = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        within = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arguments, keywords)))
        return (brief if on_cpu() and not within else optimized)(*arguments, **keywords)

    return call


def require_precision(precision: str) -> None:
    """Refuses a precision that this machine does not have, and makes float32 mean float32 on accelerators.

    Raises:
      UserError: `tf32` without an NVIDIA GPU.
    """
    backend = jax.default_backend()
    if precision == "tf32" and backend != "gpu":
        raise UserError(f"--precision=tf32 needs an NVIDIA GPU, and this is {backend}; use --precision=float32")
    if backend != "cpu":
        # The steps set their own precision; this is for everything else, where the default is TF32 or bfloat16.
        jax.config.update("jax_default_matmul_precision", "highest")


def _cpu_kind() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _processor() -> str:
    """The CPU's name."""
    for line in _cpu_kind().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Versions, backend, devices, host and git revision, as JSON values."""
    devices = jax.devices()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in devices],
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "host": platform.node(),
        "git_revision": git_revision(),
    }


@functools.cache
def git_revision() -> str | None:
    """The commit of the running code, with `+` where the working tree differs; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
