"""The layers of the package: imports point one way, and start-up stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer imports only from the layers below it.
LAYERS = [
    {"experiments", "scripts"},
    {"studies"},
    {"explain", "convert"},
    {"flags"},
    {"analysis"},
    {"sweeps"},
    {"training"},
    {"nn", "data"},
    {"config"},
    {"notation"},
    {"errors", "files"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports_of(path: Path) -> set[str]:
    """Modules of convjax that a file imports when it runs (not those for type checkers alone)."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return {name for name in found if name.startswith("convjax.")}


FILES = [path for folder in ("convjax", "experiments", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    layer = parts[1] if parts[0] == "convjax" else parts[0]
    if layer == "__init__":
        return
    for module in imports_of(path):
        other = module.split(".")[1]
        assert other in LEVEL or other == "__version__", f"{path} imports {module}, which has no layer"
        allowed = LEVEL[other] >= LEVEL[layer]
        # nn and data are side by side and know nothing of each other.
        sideways = {layer, other} == {"nn", "data"}
        if sideways or not allowed:
            pytest.fail(f"{path.relative_to(ROOT)} ({layer}) must not import {module}")


def test_linen_and_orbax_are_confined():
    for path in FILES:
        text = path.read_text()
        if path.name not in ("models.py", "bench_peers.py"):
            assert "flax.linen" not in text, path
        if path.name != "checkpoint.py":
            assert "import orbax" not in text, path


def test_nothing_imports_tensorflow_or_torch():
    for path in FILES:
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        forbidden = {"tensorflow", "torch"} if "convert" in path.parts else {"tensorflow", "torch", "keras"}
        assert not names & forbidden or path.name == "bench_peers.py", path


HEAVY = ("jax", "flax", "optax", "tensorflow_datasets", "pandas", "matplotlib", "scipy", "orbax", "numpy")
SCRIPTS = [
    path
    for folder in ("experiments", "scripts")
    for path in sorted((ROOT / folder).glob("*.py"))
    if any(
        call in path.read_text() for call in ("run_program(", "cli.run(", "run(STUDY)", "run(CLAIM)", "run_all(CLAIMS)")
    )
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_answers_without_heavy_imports(path):
    """What makes `--help` slow is an import; which ones were made is exact where a stopwatch is not."""
    program = f"""
import runpy, sys
sys.argv = [{str(path)!r}, "--help"]
if {path.parent.name!r} == "scripts":
    sys.path.insert(0, {str(path.parent)!r})  # as Python does for a script
try:
    runpy.run_path({str(path)!r}, run_name="__main__")
except SystemExit as end:
    code = end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("CODE", code, "HEAVY", heavy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "HEAVY []" in done.stdout, done.stdout[-500:] + done.stderr[-500:]
    assert "CODE 0" in done.stdout
    assert "--" in done.stdout


def test_importing_convjax_is_light():
    done = subprocess.run(
        [sys.executable, "-c", f"import convjax, sys; print([n for n in {HEAVY!r} if n in sys.modules])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
