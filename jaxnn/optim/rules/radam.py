"""RAdam: Adam that uses its second moment only once its variance is small enough."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import descent
from jaxnn.optim.rules.adam import AdamState
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


@specified
def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """RAdam's direction: momentum at first, then Adam times the rectification r.

    mu, nu, mu_hat, nu_hat as in `scale_by_adam`;   rho_inf = 2 / (1 - b2) - 1;   rho = rho_inf - 2 t b2^t / (1 - b2^t)
    r^2 = (rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho)
    direction = r mu_hat / (sqrt(nu_hat + eps_root) + eps) if rho >= max(threshold, 4), else mu_hat

    eps is outside the root, eps_root inside; 0/0 := 0. For 2 < rho < 4, r is not real: optax, with a threshold below 4,
    gives NaN there. In float32 optax's rho suffers cancellation: with b2 = 0.9999 it rectifies from step 2, not 6.

    Args:
        b1, b2: decays of the moments, in [0, 1).
        eps, eps_root: added to the root, and under it.
        threshold: of rho; the paper has 4 (rho > 4), its authors' code 5.
        nesterov: whether to use Nesterov's momentum.

    Reference: Liu, L. et al. (2020). On the variance of the adaptive learning rate and beyond, algorithm 2.

    Example:
        >>> opt = scale_by_radam()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([3.], dtype=float32)
    """
    require_decay("radam", b1=b1, b2=b2)
    require_nonnegative("radam", eps=eps, eps_root=eps_root, threshold=threshold)

    def init(params: Params) -> AdamState:
        return AdamState(zero_count(), initial_moment(params), initial_moment(params, real=True))

    def update(
        updates: PyTree, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, AdamState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1, d2, t = cast_like(b1, nu), cast_like(b2, nu), count.astype(nu.dtype)
            mu = d1 * mu + (1 - d1) * g
            nu = d2 * nu + (1 - d2) * abs_sq(g)
            mu_hat, nu_hat = mu / (1 - d1**t), nu / (1 - d2**t)
            if nesterov:
                mu_hat = d1 * mu / (1 - d1 ** (t + 1)) + (1 - d1) * g / (1 - d1**t)
            rho_inf = 2 / (1 - d2) - 1
            # t b2^t / (1 - b2^t) by expm1: the rounding error of 1 - b2^t would dominate once rho_inf is subtracted.
            rho = rho_inf - 2 * t / jnp.expm1(-t * jnp.log1p(d2 - 1))
            r_sq = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            r = safe_sqrt(jnp.maximum(r_sq, 0))
            # eps and eps_root where Adam has them, as in the authors' code; the paper's adaptive rate has none.
            adaptive = safe_divide(r * mu_hat, safe_sqrt(nu_hat + cast_like(eps_root, nu)) + cast_like(eps, nu))
            return jnp.where(rho >= jnp.maximum(cast_like(threshold, nu), 4), adaptive, mu_hat), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, AdamState(count, mu, nu)

    return Optimizer(init, update)


@specified
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """RAdam: -learning_rate times the direction of `scale_by_radam`, which has the equation and the arguments.

    eps is outside the root, eps_root inside.

    Reference: Liu, L. et al. (2020). On the variance of the adaptive learning rate and beyond, algorithm 2.

    Example:
        >>> opt = radam(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.3], dtype=float32)
    """
    return descent(scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), learning_rate, where="radam")
