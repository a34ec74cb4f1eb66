"""The machine side of JAX: its compilation cache and what to record about where a run happened."""

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
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/convjax` or `~/.cache/convjax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convjax"


@functools.cache
def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a program is compiled once a machine.

    `JAX_COMPILATION_CACHE_DIR`, where set, goes first. Programs for CPUs hold instructions of the CPU they were
    compiled for, and home folders are shared between machines: each kind of CPU has a folder of its own.
    """
    if jax.config.jax_compilation_cache_dir is None:
        folder = cache_home() / "xla" / hashlib.sha256(_cpu_kind().encode()).hexdigest()[:12]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a read-only home costs a compilation, not the run
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def jit_unoptimized(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` of what runs seldom, and on a CPU takes longer to optimise than to run: there it is not optimised.

    For random numbers and sorting, which gives the same bits. The initial weights of the chapter's network take 0.6 s
    to compile, 3 s optimised. Called within another traced function it is that function's part.
    """
    optimised = jax.jit(function, **options)
    brief = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        within = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arguments, keywords)))
        return (brief if jax.default_backend() == "cpu" and not within else optimised)(*arguments, **keywords)

    return call


def require_precision(precision: str) -> None:
    """Refuses a precision that this machine would only pretend to have, and makes float32 mean float32.

    Raises:
      UserError: `tf32` without an NVIDIA GPU.
    """
    backend = jax.default_backend()
    if precision == "tf32" and backend != "gpu":
        raise UserError(f"--precision=tf32 needs an NVIDIA GPU, and this is {backend}; use --precision=float32")
    if backend != "cpu":
        # For all that is computed beside the steps, which say it themselves: the default is TF32 or bfloat16.
        jax.config.update("jax_default_matmul_precision", "highest")


def _cpu_kind() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _processor() -> str:
    """Name of the CPU, as the system calls it."""
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
    """The commit of the code that runs, with `+` where the working tree differs from it; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
