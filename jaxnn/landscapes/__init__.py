"""Test functions R^d -> R for optimizers, each with its minima, a start and bounds for plots.

| landscape | minima | what it tests |
|---|---|---|
| `quadratic` | 0 | condition number: the zigzag of gradient descent |
| `noisy_quadratic` | 0 | gradient noise with the spectrum of a network's Hessian |
| `rosenbrock` | (1, ..., 1) | a curved, flat valley |
| `beale` | (3, 1/2) | flat floor, steep walls: exploding steps |
| `himmelblau` | four, of equal value | basins of attraction |
| `saddle` | none | escape from a saddle point |
| `plateau` | 0 | vanishing gradients |
| `schwefel` | (420.97, ..., 420.97) | many local minima: sensitivity to the start |

`make_landscape` makes one of your own. A landscape is called on ONE point (d,) of any floating dtype; for a batch use
`jax.vmap`. Half precision is computed in float32, and the value returned in the point's dtype (in float16, values above
65,504 and gradients in Beale's corners overflow). Otherwise gradients are finite everywhere within the bounds.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.landscapes.base import Landscape, make_landscape
from jaxnn.landscapes.classics import beale, himmelblau, plateau, rosenbrock, saddle, schwefel
from jaxnn.landscapes.quadratics import NoisyQuadratic, noisy_quadratic, quadratic

LANDSCAPES: MappingProxyType[str, Callable[[], Landscape]] = MappingProxyType(
    {make.__name__: make for make in (rosenbrock, beale, himmelblau, saddle, plateau, schwefel)}
)
"""Factories of landscapes, by name; called without arguments, they make two-dimensional ones."""

__all__ = [
    "LANDSCAPES",
    "Landscape",
    "NoisyQuadratic",
    "beale",
    "himmelblau",
    "make_landscape",
    "noisy_quadratic",
    "plateau",
    "quadratic",
    "rosenbrock",
    "saddle",
    "schwefel",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
