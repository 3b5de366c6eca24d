"""The house keeps its floors: imports go down, never up or sideways, and each file stays readable."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import jaxnn
from jaxnn import missing

PACKAGE = Path(jaxnn.__file__).parent
HELPER_LINES = 4
"""What one line explains needs no example."""

MAX_LINES = 400
JIT_FLOOR = 6

FLOORS = {
    "missing": 0, "types": 0, "varying": 0, "placement": 0, "numerics": 0, "checks": 0, "tree": 0, "files": 0, "npz": 0,
    "activations": 1, "kernels": 1, "ops": 1, "projections": 1, "perturbations": 1, "microbatching": 1,
    "initializers": 2, "losses": 2, "metrics": 2, "schedules": 2, "landscapes": 2, "data": 2,
    "layers": 3, "optim": 3, "tape": 3,
    "models": 4,
    "backprop": 5, "per_example": 5, "interchange": 5,
    "train": 6, "plots": 6,
    "classic": 7, "compare": 7,
    "studies": 8, "gallery": 8, "playground": 8,
    "cli": 9,
    "__init__": 10, "__main__": 10,
}  # fmt: skip
FLOOR_0_ORDER = ("missing", "types", "varying", "placement", "numerics", "checks", "tree", "files", "npz")
"""Floor 0 is the one floor whose rooms lean on each other, each only on those before it."""

FOLDERS = {
    "optim": {
        "": (), "rules": ("",), "wrappers": ("",), "precision": ("",), "linesearch": ("",),
        "matrix": ("", "rules", "wrappers", "precision"),
    },
    "per_example": {
        "": (),
        "recording": ("",),
        "streaming": ("", "recording"),
        "privacy": ("", "recording", "streaming"),
    },
    "train": {
        "": ("feeds", "saving"), "feeds": ("",), "saving": ("",), "sweeps": ("", "saving"), "foreign": (),
    },
}  # fmt: skip
"""Of rooms with folders, which folder leans on which others; "" is the room's own top, without its `__init__`."""

SOURCES = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "__init__"


@functools.cache
def nodes(source: str) -> list[ast.AST]:
    """Every node of a source, at any depth."""
    return list(ast.walk(ast.parse(source)))


@functools.cache
def imported_modules(source: str) -> list[str]:
    """Every module that a source imports, at any depth; `from a import b` counts as a.b where that is a module."""
    found = []
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"relative import: {ast.unparse(node)}")
            base = node.module or ""
            found += [f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names]
    return found


@functools.cache
def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("jaxnn") and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def folder(module: str) -> str:
    """The folder of its room that a module is in, "" for the top."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in FOLDERS.get(room(module), ()) else ""


def import_faults(module: str, source: str) -> list[str]:
    """What a module imports against the rules."""
    faults = []
    here = room(module)
    if here in FOLDERS and module != f"jaxnn.{here}":
        mine = folder(module)
        for target in imported_modules(source):
            if target.startswith(f"jaxnn.{here}.") and folder(target) not in (mine, *FOLDERS[here][mine]):
                faults.append(f"{module} imports {target} of a folder that {mine or 'the top'} does not lean on")
    for target in imported_modules(source):
        if target.split(".")[0] == "optax" and here != "compare":
            faults.append(f"{module} imports optax")
        if target.split(".")[0] != "jaxnn" or target == "jaxnn" or room(target) == here:
            continue
        there = room(target)
        downward = FLOORS[there] < FLOORS[here]
        within_0 = here in FLOOR_0_ORDER and there in FLOOR_0_ORDER[: FLOOR_0_ORDER.index(here)]
        if not (downward or within_0):
            faults.append(f"{module} (floor {FLOORS[here]}) imports {target} (floor {FLOORS[there]})")
    return faults


def uses_jit(source: str) -> bool:
    """Docstrings are constants, so that examples in them do not count."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("jit", "pmap"))
        or (isinstance(node, ast.Name) and node.id in ("jit", "pmap"))
        for node in nodes(source)
    )


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of imports, or []."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for neighbour in sorted(graph.get(node, ())):
            if found := visit(neighbour, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def import_graph() -> dict[str, set[str]]:
    # A package's __init__ re-exports its modules; a module that imports its own package's __init__ would be a circle.
    return {
        module_name(path): {t for t in imported_modules(source) if is_module(t) and t != module_name(path)}
        for path, source in SOURCES.items()
    }


def test_modules_keep_to_their_floors() -> None:
    faults = []
    for path, source in SOURCES.items():
        module = module_name(path)
        assert room(module) in FLOORS, f"{module} is in no room of the floor table"
        faults += import_faults(module, source)
        if source.count("\n") > MAX_LINES:
            faults.append(f"{module} has {source.count(chr(10))} lines, at most {MAX_LINES}")
        if FLOORS[room(module)] < JIT_FLOOR and uses_jit(source):
            faults.append(f"{module} compiles below floor {JIT_FLOOR}")
    assert faults == []


def test_library_raises_no_assertion_errors() -> None:
    faults = [
        f"{module_name(path)}:{node.lineno} asserts; raise ValueError or TypeError"
        for path, source in SOURCES.items()
        for node in nodes(source)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr.startswith("assert_"))
    ]
    assert faults == []


def is_public(module: str, function: str) -> bool:
    """Whether users call it: the room lists the function, or the module whose function it is."""
    names, name = missing.public_names().get(room(module), ()), module.rpartition(".")[2]
    if function in names or name not in names:
        return function in names
    # `optim` lists the function `adam`, not the module of that name.
    return isinstance(getattr(importlib.import_module(f"jaxnn.{room(module)}"), name), ModuleType)


def undocumented(path: Path, source: str) -> Iterator[str]:
    """What lacks a docstring or, of what users call, an example."""
    module = module_name(path)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            if not text:
                yield f"{module}.{node.name} has no docstring"
                continue
            helper = "\n" not in text and node.end_lineno - node.body[0].end_lineno <= HELPER_LINES
            if helper or room(module) == "train" or ".cases." in module:
                continue
            if isinstance(node, ast.FunctionDef) and is_public(module, node.name) and ">>>" not in text:
                yield f"{module}.{node.name} shows no example"


def test_functions_have_docstrings_and_public_ones_an_example() -> None:
    assert [fault for path, source in SOURCES.items() for fault in undocumented(path, source)] == []


def test_what_is_public() -> None:
    public = {"metrics.accuracy", "optim.rules.adam.adam", "layers.dense.init", "tree.arithmetic.norm", "data.toy.xor"}
    internal = {
        "optim.chain.require_transformation",
        "files.write_text",
        "schedules.base.ratio",
        "losses.base.poison",
        "layers.moments.standardize",
    }
    found = {name for name in public | internal if is_public("jaxnn." + name.rpartition(".")[0], name.split(".")[-1])}
    assert found == public


def test_imports_form_no_circle() -> None:
    assert circle(import_graph()) == []


def test_what_is_imported_is_declared() -> None:
    """The library runs with its dependencies alone; accountants and safetensors are extras, asked for where needed."""
    metadata = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in metadata["dependencies"]}  # type: ignore[index]
    declared = {"PIL" if name == "pillow" else name for name in declared}
    imported = {name.partition(".")[0] for source in SOURCES.values() for name in imported_modules(source)}
    outside = imported - sys.stdlib_module_names - {"jaxnn", "mpl_toolkits"}
    assert outside == declared | {"dp_accounting", "orbax", "safetensors"}


def test_top_level_holds_only_what_the_layout_lists() -> None:
    root = PACKAGE.parent
    if not (root / "pyproject.toml").exists():
        pytest.skip("installed package, not a checkout")
    allowed = {"pyproject.toml", "jaxnn", "tests", "examples", "benchmarks", "README.md", "LICENSE"}
    ignored = {"runs", "build", "dist"}
    extra = {p.name for p in root.iterdir() if not p.name.startswith(".")} - allowed - ignored
    assert not extra


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("jaxnn.ops.conv", "from jaxnn.layers import Dense", "imports jaxnn.layers (floor 3)"),
        ("jaxnn.losses", "import jaxnn.metrics", "imports jaxnn.metrics (floor 2)"),
        ("jaxnn.optim.adam", "def f():\n    import optax", "imports optax"),
        ("jaxnn.types", "from jaxnn.tree import norm", "imports jaxnn.tree (floor 0)"),
        ("jaxnn.optim.rules.sgd", "from jaxnn.optim.matrix.muon import muon", "a folder that rules does not lean on"),
        ("jaxnn.optim.base", "from jaxnn.optim.rules.adam import adam", "a folder that the top does not lean on"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, fault: str) -> None:
    assert any(fault in found for found in import_faults(module, source))


def test_a_circle_and_a_jit_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert uses_jit("import jax\nf = jax.jit(g)")
    assert uses_jit(textwrap.dedent("@jit\ndef f(): pass"))
    assert not uses_jit('def f():\n    """>>> jax.jit(f)"""')
