"""Shape, range, monotony and slope at 0 of an activation, computed from its values and its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnn.activations.table import derivative_of
from jaxnn.types import Array, Scalar

FAR = 1e4
"""Where an activation has reached its limits; it is unbounded on a side where it still changes from FAR / 2 to FAR."""


class Properties(NamedTuple):
    """What an activation does, for z from -infinity to infinity.

    Attributes:
        shape: "steps" (it takes up to three values), "linear", "piecewise linear" or "curved".
        low, high: infimum and supremum of its values; -inf or inf without bound.
        monotone: whether it never decreases.
        slope: the derivative at 0, as `derivative_of` defines it: 0 at a jump, one-sided at a kink.
    """

    shape: str
    low: float
    high: float
    monotone: bool
    slope: float

    @property
    def bounded(self) -> bool:
        """Whether both limits are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def properties(activation: Callable[..., Array], **settings: Scalar) -> Properties:
    """The properties of an element-wise activation under its settings, from its values at 16,005 points.

    Args:
        activation: a function with a derivative, a key of `DERIVATIVES`.
        settings: its settings, concrete, such as `alpha=2.0`.

    Returns:
        Properties; a minimum between 0 and infinity is that of points at distance 0.001.

    Raises:
        ValueError: the activation has no element-wise derivative here.

    Example:
        >>> from jaxnn.activations import gelu, relu, sign
        >>> properties(relu)
        Properties(shape='piecewise linear', low=0.0, high=inf, monotone=True, slope=0.0)
        >>> properties(sign).shape, round(properties(gelu).low, 2), properties(gelu).monotone
        ('steps', -0.17, False)
    """
    derivative = derivative_of(activation)
    near = np.arange(-8000, 8001) / 1000
    z = jnp.asarray(np.concatenate([[-FAR, -FAR / 2], near, [FAR / 2, FAR]]), jnp.float32)
    values = np.asarray(activation(z, **settings), np.float64)
    tails = [math.copysign(math.inf, values[i]) for i, j in ((0, 1), (-1, -2)) if abs(values[i] - values[j]) > 1]
    return Properties(
        _shape(values, np.asarray(derivative(z, **settings))),
        float(min([values.min(), *tails])),
        float(max([values.max(), *tails])),
        bool((np.diff(values) >= -1e-6).all()),  # rounding of float32
        float(derivative(jnp.zeros(()), **settings)),
    )


def _shape(values: np.ndarray, slopes: np.ndarray) -> str:
    """The shape, from values and slopes at many points."""
    if len(np.unique(values)) <= 3:
        return "steps"
    pieces = len(np.unique(slopes))
    return "linear" if pieces == 1 else "piecewise linear" if pieces <= 3 else "curved"
