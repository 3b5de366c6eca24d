"""The code of a concept: an example from a docstring, or lines of its own, with the imports that it needs."""

from __future__ import annotations

import ast
import builtins
import doctest
import functools
import importlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jaxnn
from jaxnn import classic
from jaxnn.gallery.items.base import Item

ALIASES = {"jnp": "jax.numpy", "np": "numpy", "jax": "jax"}
"""Modules that an item's own lines use without importing them, by name."""


def resolve(name: str) -> Any:
    """The object with a public name below `jaxnn`, such as "classic.perceptron.fit"; AttributeError if none has it."""
    return functools.reduce(getattr, name.split("."), jaxnn)


@functools.cache
def complete(item: Item) -> str:
    """The code of an item with its output, as it would appear in a session that begins with these lines; "" for none.

    Raises:
        AttributeError: a name of the item does not exist.
        ValueError: the item has no lines, and the docstring of its first name no example.

    Example:
        >>> complete(Item("softplus", "activations.softplus")).splitlines()[1]
        '>>> from jaxnn.activations import softplus'
    """
    if not item.names:
        return ""
    if item.run:
        return _session(item.run, _own, ())
    first = item.names[0]
    found = resolve(first)
    module = sys.modules[found.__module__]
    parent = f"jaxnn.{first}".rpartition(".")[0]
    homes = (parent, ".".join(module.__name__.split(".")[:2]), module.__name__)
    return _session(inspect.getdoc(found) or "", vars(module).__getitem__, homes, first)


def _session(text: str, lookup: Callable[[str], Any], homes: Sequence[str], name: str = "`run`") -> str:
    """The examples in a text, after lines that import what they use and do not define."""
    examples = doctest.DocTestParser().get_examples(text)
    if not examples:
        raise ValueError(f"{name} has no example: no line begins with >>>.")
    needed = _free("".join(example.source for example in examples))
    leading = list(itertools.takewhile(_is_import, (example.source for example in examples)))
    imports = _merged([*leading, *_imports({name: lookup(name) for name in needed}, homes)])
    lines = [f">>> {line}" for line in imports]
    for example in examples[len(leading) :]:
        first, *others = example.source.rstrip().split("\n")
        lines += [f">>> {first}", *(f"... {line}" for line in others)]
        lines += [example.want.rstrip("\n")] if example.want else []
    return "\n".join(lines)


def _own(name: str) -> ModuleType:
    """The module that an item's own lines mean by a name."""
    if name in ALIASES:
        return importlib.import_module(ALIASES[name])
    return getattr(classic if name in classic.MODULES else jaxnn, name)


def _free(source: str) -> list[str]:
    """The names that code uses and does not define, without builtins."""
    used, defined = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.alias(name=name, asname=other):
                defined.add(other or name.partition(".")[0])
    return sorted(used - defined - set(dir(builtins)))


def _imports(needed: dict[str, Any], homes: Sequence[str]) -> Iterator[str]:
    """An import statement for each of these objects by name; `homes` are modules to import other than modules from."""
    for name, value in needed.items():
        if not isinstance(value, ModuleType):
            yield f"from {_home(name, value, homes)} import {name}"
            continue
        parent, _, last = value.__name__.rpartition(".")
        if parent and last == name:
            yield f"from {parent} import {name}"
        else:
            yield f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")


def _is_import(source: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body)


def _merged(statements: Sequence[str]) -> list[str]:
    """Import statements in order, one per module, those of this package last."""
    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for node in ast.parse("\n".join(statements)).body:
        if isinstance(node, ast.ImportFrom):
            parts.setdefault(node.module or "", set()).update(map(ast.unparse, node.names))
        else:
            whole.add(ast.unparse(node))
    modules = sorted(parts, key=lambda module: (module.split(".")[0] == "jaxnn", module))
    return [*sorted(whole), *(f"from {module} import {', '.join(sorted(parts[module]))}" for module in modules)]


def _home(name: str, value: Any, homes: Sequence[str]) -> str:
    """The module to import an object from: the first of its own and `homes` that has it under this name."""
    own = getattr(value, "__module__", "")
    outside = [own] if not own.startswith("jaxnn") else []
    tried = [*outside, *homes]
    return next((module for module in tried if getattr(sys.modules.get(module), name, None) is value), tried[-1])
