"""Ours against optax (floor 7): the only room that imports optax."""

from jaxnn.compare import problems, report
from jaxnn.compare.entries import Entry
from jaxnn.compare.interop import as_optax
from jaxnn.compare.parity import Case, Difference, measure
from jaxnn.compare.problems import Problem
from jaxnn.compare.race import race
from jaxnn.compare.result import Race, Result

__all__ = [
    "Case",
    "Difference",
    "Entry",
    "Problem",
    "Race",
    "Result",
    "as_optax",
    "measure",
    "problems",
    "race",
    "report",
]
