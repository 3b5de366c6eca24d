"""Arithmetic on pytrees; `None` leaves pass through. Floor 0."""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.tree.arithmetic import add, norm, scale, size, subtract, vdot
from jaxnn.tree.leaves import BIAS_NAMES, all_finite, is_weight, named_leaves
from jaxnn.tree.packing import pack

__all__ = [
    "BIAS_NAMES",
    "add",
    "all_finite",
    "is_weight",
    "named_leaves",
    "norm",
    "pack",
    "scale",
    "size",
    "subtract",
    "vdot",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
