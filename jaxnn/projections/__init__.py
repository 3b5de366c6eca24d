"""Nearest points of convex sets."""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.projections.simplex import nearest_in_simplex

__all__ = ["nearest_in_simplex"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
