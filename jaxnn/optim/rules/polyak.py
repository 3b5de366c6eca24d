"""Gradient descent with Polyak's step size: from the loss, its lower bound and the norm of the gradient."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.arguments import require_extra, require_nonnegative
from jaxnn.optim.base import Optimizer, widened
from jaxnn.optim.descent import descent
from jaxnn.optim.norms import scalar_dtype, sum_of_squares, times
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.scale import CountState
from jaxnn.optim.spec import specified
from jaxnn.types import Params, PyTree, Scalar, ScalarOrSchedule

FLAT = 2.0**-52
"""No step is taken where the squared norm is at most this: optax's threshold, the same in every dtype."""


@specified
def scale_by_polyak(
    f_min: Scalar = 0.0, max_learning_rate: Scalar = 1.0, eps: Scalar = 0.0, variant: Literal["sps", "sps+"] = "sps"
) -> Optimizer:
    """Updates times Polyak's step size, which `polyak_sgd` multiplies by -scaling.

    step = min((value - f_min) / (|g|^2 + eps), max_learning_rate), |g| over all arrays together;   direction = step g
    "sps+" has max(value - f_min, 0) for value - f_min, so that it never ascends where the loss is below f_min.

    step = 0 where |g|^2 + eps <= 2^-52.

    `update` needs the extra argument `value`, the loss.

    Args:
        f_min: lower bound of the loss.
        max_learning_rate: largest step, >= 0; may be infinite.
        eps: added to the squared norm; >= 0.
        variant: "sps" or "sps+".

    Reference: Polyak, B. T. (1987). Introduction to optimization. Loizou, N., Vaswani, S., Laradji, I. &
        Lacoste-Julien, S. (2021). Stochastic Polyak step-size for SGD, SPS_max. Garrigos, G., Gower, R. M. & Schaipp,
        F. (2023). Function value learning, SPS+.

    Example:
        >>> opt = scale_by_polyak()
        >>> opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)), value=jnp.array(4.0))[0]
        Array([1.], dtype=float32)
    """
    if variant not in ("sps", "sps+"):
        raise ValueError(f"scale_by_polyak: variant must be 'sps' or 'sps+', got {variant!r}.")
    require_nonnegative("scale_by_polyak", eps=eps)
    require_between("scale_by_polyak", "max_learning_rate", max_learning_rate, 0, math.inf)
    require_between("scale_by_polyak", "f_min", f_min, -math.inf, math.inf, open_high=True)

    def init(params: Params) -> CountState:
        scalar_dtype(params)  # rejects integers
        return CountState(zero_count())

    @widened
    def update(
        updates: PyTree, state: CountState, params: Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, CountState]:
        require_extra("scale_by_polyak", "value", value)
        squares = sum_of_squares(updates)
        # eps beside |g|^2, as in optax: it bounds the step near a minimum that lies above f_min. Published: 0.
        squares = squares + cast_like(eps, squares)
        gap = cast_like(value, squares) - cast_like(f_min, squares)
        if variant == "sps+":
            gap = jax.nn.relu(gap)
        flat = squares <= FLAT
        step = jnp.where(flat, 0, gap) / jnp.where(flat, 1, squares)
        step = jnp.minimum(step, cast_like(max_learning_rate, squares))
        return times(step, updates), CountState(increment(state.count))

    return Optimizer(init, update)


@specified
def polyak_sgd(
    max_learning_rate: Scalar = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Scalar = 0.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Optimizer:
    """Gradient descent with Polyak's step size: update = -scaling min((value - f_min) / (|g|^2 + eps), cap) g.

    cap is max_learning_rate, and |g| is over all arrays together. This is what optax documents; its code has |scaling
    g|^2 for |g|^2, so a scaling of 1/2 doubles the step; `chain(sgd(scaling), scale_by_polyak(...))` gives that.
    `update` needs the extra argument `value`, the loss.

    Args:
        max_learning_rate: largest step before scaling, >= 0; may be infinite.
        scaling: number or schedule. It is 1/c of the paper.
        f_min, eps, variant: see `scale_by_polyak`.

    Reference: Loizou, N., Vaswani, S., Laradji, I. & Lacoste-Julien, S. (2021). Stochastic Polyak step-size for SGD: an
        adaptive learning rate for fast convergence, SPS_max.

    Example:
        >>> opt = polyak_sgd()
        >>> params = jnp.array([2.0])
        >>> opt.update(2 * params, opt.init(params), params, value=jnp.sum(params**2))[0]
        Array([-1.], dtype=float32)
    """
    require_nonnegative("polyak_sgd", scaling=scaling)
    return descent(scale_by_polyak(f_min, max_learning_rate, eps, variant), scaling, where="polyak_sgd")
