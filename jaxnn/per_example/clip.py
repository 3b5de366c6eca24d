"""Clip functions: from norms n (N,) to factors c(n) (N,), such that c(n) n is at most C, for `clipped_grad`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxnn.checks import require_between, require_positive
from jaxnn.numerics import safe_divide
from jaxnn.types import Array, Scalar

Clip: TypeAlias = Callable[[Array], Array]


def flat(bound: Scalar) -> Clip:
    """min(1, C / n): gradients with a norm above C are scaled to norm C, others stay. 1 at n = 0.

    Args:
        bound: C >= 0, may be infinite; may be traced.

    Raises:
        ValueError: C negative, if known.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> flat(1.0)(jnp.array([0.0, 0.5, 4.0]))
        Array([1.  , 1.  , 0.25], dtype=float32)
    """
    require_between("flat", "bound", bound, 0, math.inf)

    def factors(norms: Array) -> Array:
        most = jnp.asarray(bound, norms.dtype)
        # The inner where keeps the derivative finite: that of C / n at C = inf would be NaN in the branch not taken.
        stays = norms <= most
        return jnp.where(stays, jnp.ones((), norms.dtype), safe_divide(jnp.where(stays, 0, most), norms))

    return factors


def automatic(bound: Scalar = 1.0, gamma: Scalar = 0.01) -> Clip:
    """C / (n + gamma): gradients with n well above gamma get norm about C, so that C only scales the learning rate.

    Args:
        bound: C >= 0; may be traced.
        gamma: stability constant > 0, by which smaller gradients stay smaller than larger ones; may be traced.

    Raises:
        ValueError: C negative, or gamma not positive, if known.

    Reference: Bu, Z., Wang, Y.-X., Zha, S. & Karypis, G. (2023). Automatic clipping: differentially private deep
        learning made easier and stronger, equation 1.3 (AUTO-S).

    Example:
        >>> automatic(1.0, 1.0)(jnp.array([0.0, 1.0, 3.0]))
        Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    require_between("automatic", "bound", bound, 0, math.inf)
    require_positive("automatic", "gamma", gamma)
    return lambda norms: jnp.asarray(bound, norms.dtype) / (norms + jnp.asarray(gamma, norms.dtype))


def psac(bound: Scalar = 1.0, r: Scalar = 0.1) -> Clip:
    """C / (n + r / (n + r)): as `automatic`, but a gradient near 0 is not amplified: its factor is about C.

    Args:
        bound: C >= 0; may be traced.
        r: > 0, at most 1; may be traced.

    Raises:
        ValueError: C negative or r outside (0, 1], if known.

    Reference: Xia, T., Shen, S., Yao, S., Fu, X., Xu, K., Xu, X. & Fu, X. (2023). Differentially private learning with
        per-sample adaptive clipping, section 4.

    Example:
        >>> psac(1.0, 1.0)(jnp.array([0.0, 1.0]))
        Array([1.       , 0.6666667], dtype=float32)
    """
    require_between("psac", "bound", bound, 0, math.inf)
    require_positive("psac", "r", r)
    require_between("psac", "r", r, 0, 1)

    def factors(norms: Array) -> Array:
        small = jnp.asarray(r, norms.dtype)
        return jnp.asarray(bound, norms.dtype) / (norms + safe_divide(small, norms + small))

    return factors
