"""Updates scaled by the norm of each parameter, or divided by their global norm; without state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxnn.numerics import safe_sqrt
from jaxnn.optim.arguments import require_nonnegative, require_params
from jaxnn.optim.base import EmptyState, Optimizer, per_leaf, widened
from jaxnn.optim.norms import nonzero, norm, sum_of_squares, times
from jaxnn.optim.scalars import abs_sq, cast_like
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar


@specified
def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> Optimizer:
    """Each array of the updates times the norm of its parameter: update = u max(|p|, min_scale).

    Args:
        min_scale: lower bound of the factor, >= 0.

    Reference: Shazeer, N. & Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost, section 8
        (for the relative step; there the factor is the root mean square).

    Example:
        >>> opt, params = scale_by_param_block_norm(), jnp.array([3.0, 4.0])
        >>> opt.update(jnp.ones(2), opt.init(params), params)[0]
        Array([5., 5.], dtype=float32)
    """
    return _scale_by_size("scale_by_param_block_norm", norm, min_scale)


@specified
def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> Optimizer:
    """Each array of the updates times the root mean square of its parameter: update = u max(rms(p), min_scale).

    Args:
        min_scale: lower bound of the factor, >= 0.

    Reference: Shazeer, N. & Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost, algorithm
        4 (alpha_t = max(eps_2, rms(X)) rho_t).

    Example:
        >>> opt, params = scale_by_param_block_rms(), jnp.array([2.0, -2.0])
        >>> opt.update(jnp.ones(2), opt.init(params), params)[0]
        Array([2., 2.], dtype=float32)
    """
    return _scale_by_size(
        "scale_by_param_block_rms", lambda p: safe_sqrt(jnp.sum(abs_sq(p)) / max(p.size, 1)), min_scale
    )


@specified
def normalize_by_update_norm(scale_factor: Scalar = 1.0, eps: Scalar = 1e-6) -> Optimizer:
    """Updates divided by their global norm: update = scale_factor u / (|u| + eps), 0/0 := 0.

    |u| is over all arrays together.

    Args:
        scale_factor: of any sign (-1 descends).
        eps: added to the norm, outside its root; >= 0.

    Reference: Hazan, E., Levy, K. Y. & Shalev-Shwartz, S. (2015). Beyond convexity: stochastic quasi-convex
        optimization, algorithm 1.

    Example:
        >>> opt = normalize_by_update_norm(-1.0, 0.0)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[0]
        Array([-0.6, -0.8], dtype=float32)
    """
    require_nonnegative("normalize_by_update_norm", eps=eps)

    @widened
    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        size = safe_sqrt(sum_of_squares(updates))
        # eps beside the norm, as in optax: near a minimum steps shrink like |u| / eps. The paper divides by |u| alone.
        factor = cast_like(scale_factor, size) / nonzero(size + cast_like(eps, size))
        return times(factor, updates), state

    return Optimizer(lambda params: EmptyState(), update)


def _scale_by_size(where: str, size: Callable[[Array], Array], min_scale: Scalar) -> Optimizer:
    """Each array of the updates times max(size(its parameter), min_scale)."""
    require_nonnegative(where, min_scale=min_scale)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        params = require_params(where, params)

        def rule(u: Array, p: Array) -> tuple[Array, Array]:
            return jnp.maximum(size(p), cast_like(min_scale, u)) * u, p

        return per_leaf(rule, updates, (params,), params)[0], state

    return Optimizer(lambda params: EmptyState(), update)
