"""The rules of the house (CONTRIBUTING.md): which way imports point, what stays confined, how long things may be."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room imports only from rooms below its line; rooms on one line do not know each other.
LAYERS = (
    {"experiments", "scripts"},
    {"studies"},
    {"explain", "convert"},
    {"flags"},
    {"analysis"},
    {"sweeps"},
    {"training"},
    {"nn", "data"},
    {"config"},
    {"notation", "settings"},
    {"files"},
    {"errors"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Where a library may be imported. The first three are peers of the benchmark.
CONFINED = {
    "torch": {"scripts/bench"},
    "tensorflow": {"scripts/bench"},
    "keras": {"scripts/bench", "convjax/convert"},
    "flax.linen": {"scripts/bench", "convjax/nn/layers.py", "convjax/nn/models.py"},
    "orbax": {"convjax/training/checkpoint.py"},
}

# `--help` loads none of these.
HEAVY = ("jax", "flax", "optax", "orbax", "numpy", "scipy", "pandas", "matplotlib", "h5py", "tensorflow_datasets")

# Read in this order, these explain the system.
SPINE = (
    "experiments/kernel_size.py",
    "convjax/studies/study.py",
    "convjax/config.py",
    "convjax/nn/layers.py",
    "convjax/nn/models.py",
    "convjax/training/steps.py",
    "convjax/training/loop.py",
    "convjax/sweeps/run.py",
)
SPINE_LINES = 2_050
FUNCTION_LINES = 60
FUNCTION_PARAMETERS = 6
MODULE_LINES = 400
IMPORTS_INSIDE_FUNCTIONS = 20


TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("convjax", "experiments", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
MODULES = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in TREES}


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those for type checkers alone."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from nodes_that_run(child)


def imports_of(path: str) -> set[str]:
    """Everything a file imports when it runs, dotted: modules, and names in modules."""
    found = set()
    for node in nodes_that_run(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "convjax" else first


def test_imports_point_one_way():
    wrong = []
    for module, path in MODULES.items():
        here = room_of(module)
        for name in imports_of(path) if here else ():
            there = room_of(name) if name.startswith(("convjax.", "experiments.", "scripts.")) else here
            if there not in LEVEL:
                wrong.append(f"{path} imports {name}, which has no layer")
            elif here != there and LEVEL[here] >= LEVEL[there]:
                wrong.append(f"{path} ({here}) must not import {name}")
    assert not wrong


def test_modules_import_in_no_circle():
    graph = {}
    for module, path in MODULES.items():
        # `from package import name` is an import of the submodule of that name, if there is one, else of the package.
        targets = {name if name in MODULES else name.rpartition(".")[0] for name in imports_of(path)}
        graph[module] = targets & MODULES.keys() - {module}
    circular = set()
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1]
            circular |= set(circle)
            graph[circle[1]].discard(circle[0])
        else:
            break
    assert not circular


@pytest.mark.parametrize("library", CONFINED)
def test_libraries_are_confined(library):
    for path in TREES:
        if any(is_in(name, library) for name in imports_of(path)):
            assert path.startswith(tuple(CONFINED[library])), f"{path} imports {library}"


def test_few_imports_are_inside_functions():
    inside = sum(
        isinstance(node, ast.Import | ast.ImportFrom)
        for tree in TREES.values()
        for function in functions_of(tree)
        for node in ast.walk(function)
    )
    assert inside <= IMPORTS_INSIDE_FUNCTIONS


def functions_of(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def lines_of(path: str) -> int:
    return len((ROOT / path).read_text().splitlines())


def test_modules_are_short():
    long = {path for path in TREES if path.startswith("convjax/") and lines_of(path) > MODULE_LINES}
    assert not long


def test_the_spine_is_short():
    assert sum(map(lines_of, SPINE)) <= SPINE_LINES
    exceptions = set()
    for path in SPINE:
        for function in functions_of(TREES[path]):
            arguments = function.args
            names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            parameters = len([name for name in names if name not in ("self", "cls")])
            lines = function.end_lineno - function.lineno + 1
            if parameters > FUNCTION_PARAMETERS or lines > FUNCTION_LINES:
                exceptions.add(f"{path}: {function.name}")
    assert not exceptions


SCRIPTS = [
    path
    for path, tree in TREES.items()
    if path.startswith(("experiments/", "scripts/")) and "/bench/" not in path and "__main__" in ast.unparse(tree)
]

# Runs the `--help` of every script, each in a fork of one process. Heavy imports are what makes `--help` slow, and they
# are exact where a stopwatch is not.
ASK_ALL = """
import contextlib, io, json, os, runpy, sys, traceback
import convjax.flags

def ask(path):
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        try:
            sys.argv = [path, "--help"]
            sys.path.insert(0, os.path.dirname(path))  # as Python does for a script
            runpy.run_path(path, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = traceback.format_exc()
    return {"code": code, "output": output.getvalue(), "modules": sorted(sys.modules)}

answers = {}
for path in sys.argv[1:]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        with open(writer, "w") as stream:
            json.dump(ask(path), stream)
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        answers[path] = json.loads(stream.read() or "null")
    os.wait()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def helps():
    done = subprocess.run(
        [sys.executable, "-c", ASK_ALL, *SCRIPTS], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", SCRIPTS)
def test_help_answers_without_heavy_imports(path, helps):
    answer = helps[path]
    assert answer["code"] == 0, answer["output"][-500:]
    assert "--" in answer["output"]
    assert not [name for name in HEAVY if name in answer["modules"]]
