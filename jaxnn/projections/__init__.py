"""Euclidean projections onto convex sets (and spheres), with optax's names and arguments.

| set | function |
|---|---|
| p >= 0 | `projection_non_negative` |
| lower <= p <= upper; 0 <= p <= scale | `projection_box`, `projection_hypercube` |
| all abs(p) <= scale | `projection_linf_ball` |
| p >= 0, sum p = scale | `projection_simplex` (of pytrees); `nearest_in_simplex` (along the last axis) |
| sum abs(p) = scale, <= scale | `projection_l1_sphere`, `projection_l1_ball` |
| norm of p = scale, <= scale | `projection_l2_sphere`, `projection_l2_ball` |
| multiples of a; <a, p> = b, <= b | `projection_vector`, `projection_hyperplane`, `projection_halfspace` |
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.projections.sets import (
    projection_box,
    projection_halfspace,
    projection_hypercube,
    projection_hyperplane,
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_ball,
    projection_non_negative,
    projection_simplex,
    projection_vector,
)
from jaxnn.projections.simplex import nearest_in_simplex

__all__ = [
    "nearest_in_simplex",
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
