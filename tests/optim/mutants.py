"""Deliberately broken rules: each must be caught by its parity with optax.

    python -m tests.optim.mutants            # every mutant of every family, with how far it is off

A mutant is (module of jaxnn.optim, case, text in its source, text that breaks it), listed as MUTANTS in the family's
test file. The module's source with the text replaced is executed as a module of its own, and its functions stand in
for the family's when the case is measured.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import tests.optim
from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.compare.parity import measure

Mutant: TypeAlias = tuple[str, str, str, str]
PLACES = {
    info.name.rpartition(".")[2]: info.name for info in pkgutil.walk_packages(optim.__path__, f"{optim.__name__}.")
}
"""The modules of `jaxnn.optim`, whatever folder they are in."""

CAUGHT = 1e-6
"""A mutant must be off by more than this, a million times what the rules themselves are."""


def all_mutants() -> list[Mutant]:
    """The mutants of all families' test files."""
    names = sorted(info.name for info in pkgutil.iter_modules(tests.optim.__path__) if info.name.startswith("test_"))
    modules = [importlib.import_module(f"tests.optim.{name}") for name in names if name != "test_mutants"]
    return [mutant for module in modules for mutant in getattr(module, "MUTANTS", [])]


def mutated(module: str, old: str, new: str) -> SimpleNamespace:
    """`jaxnn.optim` with the functions of one module replaced by those of its broken source.

    Where `jaxnn.optim` exports nothing of the module, those that import it are executed anew with the broken functions.
    """
    original = importlib.import_module(PLACES[module])
    source = inspect.getsource(original)
    if source.count(old) != 1:
        raise ValueError(f"mutants: {module}.py must hold {old!r} exactly once, it does {source.count(old)} times.")
    broken = executed(original, source.replace(old, new), f"{module} ({old} -> {new})")
    library = vars(optim) | broken
    own = {name: broken[name] for name, value in vars(original).items() if is_defined_in(value, original)}
    if not any(is_defined_in(value, original) for value in vars(optim).values()):
        rooms = [m for name, m in sorted(sys.modules.items()) if name.startswith(f"{optim.__name__}.")]
        for user in rooms:
            if user is not original and own.keys() & vars(user).keys():
                anew = executed(user, inspect.getsource(user), user.__name__, own)
                library |= {name: value for name, value in anew.items() if is_defined_in(value, user)}
    return SimpleNamespace(**library)


def is_defined_in(value: Any, module: ModuleType) -> bool:
    """Whether a function or class is the module's own, not one that it imports."""
    return getattr(value, "__module__", None) == module.__name__


def executed(module: ModuleType, source: str, name: str, replaced: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that a source makes, as a module of its own; those it imports may be replaced."""
    made = ModuleType(module.__name__)
    exec(compile(source, name, "exec"), made.__dict__)
    made.__dict__.update({k: v for k, v in (replaced or {}).items() if k in made.__dict__})
    return {k: v for k, v in vars(made).items() if not k.startswith("__")}


def largest_difference(mutant: Mutant) -> float:
    """How far the broken rule is from optax (NaN, and a state of other shapes, count as infinitely far)."""
    module, case, old, new = mutant
    try:
        found = measure(all_cases()[case], "own", library=mutated(module, old, new)).largest
    except ValueError as error:
        if str(error).startswith("parity: state"):
            return float("inf")
        raise
    return found if found == found else float("inf")


def main() -> None:
    mutants = all_mutants()
    missed = 0
    for mutant in mutants:
        try:
            off = largest_difference(mutant)
        except (TypeError, ValueError, ArithmeticError, KeyError) as error:
            print(f"raises    {mutant[0]:18} {mutant[1]:32} {mutant[2]!r} -> {mutant[3]!r}: {error!s:.60}")
            continue
        missed += off <= CAUGHT
        verdict = "caught" if off > CAUGHT else "MISSED"
        print(f"{verdict} {off:8.1e} {mutant[0]:18} {mutant[1]:32} {mutant[2]!r} -> {mutant[3]!r}")
    print(f"{len(mutants)} mutants, {missed} missed")


if __name__ == "__main__":
    main()
