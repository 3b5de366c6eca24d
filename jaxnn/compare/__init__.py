"""The bench on which optimizers meet (floor 7): the only room that imports optax.

| name | what |
|---|---|
| `problems` | what they meet on, by name or of your own |
| `race` | tune each on each problem, run it with fresh seeds, and say how good, fast and robust it is |
| `report` | a race as one HTML page, with its figures and tables |
| `Entry`, `entry`, `grid` | an optimizer of your own in a race; how names and learning rates are read |
| `measure` | parity: how far a rule of ours is from optax's, step by step, on a random tree or any problem |
| `Case`, `pair` | what parity is measured of; `compare.cases.all_cases()` holds every rule's |
| `as_optax` | a rule of ours that needs extra arguments, inside optax's combinators |
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
