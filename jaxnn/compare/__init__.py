"""Comparison of optimizers: the only package here that imports optax.

| name | contents |
|---|---|
| `problems` | benchmark problems, by name or your own |
| `race` | tune each optimizer on each problem, run it with fresh seeds; report performance, speed and robustness |
| `report` | a race as one HTML page, with its figures and tables |
| `Entry`, `entry`, `grid` | an optimizer of your own in a race; parsers of names and learning rates |
| `measure` | parity: the difference between a rule of ours and optax's per step, on a random pytree or a problem |
| `Case`, `pair` | the two rules of a parity measurement; `compare.cases.all_cases()` returns the package's own |
| `as_optax` | a rule of ours as optax's type, for those that need extra arguments inside optax's combinators |
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.compare import problems, report
from jaxnn.compare.entries import Entry, entry, grid
from jaxnn.compare.interop import as_optax
from jaxnn.compare.parity import Case, Cost, Parity, measure, pair
from jaxnn.compare.problems import Problem
from jaxnn.compare.race import race
from jaxnn.compare.result import Race, Result

__all__ = [
    "Case",
    "Cost",
    "Entry",
    "Parity",
    "Problem",
    "Race",
    "Result",
    "as_optax",
    "entry",
    "grid",
    "measure",
    "pair",
    "problems",
    "race",
    "report",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
