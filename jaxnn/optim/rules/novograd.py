"""NovoGrad: momentum of gradients divided by the running norm of their layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class NovogradState(NamedTuple):
    """`count`: int32 steps; `mu`: decayed sum of normalized gradients; `nu`: mean of |g|^2, one for each array."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


@specified
def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """NovoGrad's direction; every array of the parameters counts as a layer.

    nu <- b2 nu + (1 - b2) |g|^2, at the first step |g|^2, with |g| the norm of the whole array
    mu <- b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay params;   direction = mu

    eps is outside the root, eps_root inside; 0/0 := 0. The decay goes through the momentum and is multiplied by the
    learning rate.

    Args:
        b1, b2: decays, in [0, 1).
        eps, eps_root: added to the root, and under it.
        weight_decay: may be traced; a Python 0 leaves the term out, and then params are not needed.
        mu_dtype: of mu; None means the accumulation dtype.

    Reference: Ginsburg, B. et al. (2019). Stochastic gradient methods with layer-wise adaptive moments for training of
        deep networks, algorithm 1.

    Example:
        >>> opt = scale_by_novograd()
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[0]
        Array([0.6, 0.8], dtype=float32)
    """
    require_decay("novograd", b1=b1, b2=b2)
    require_nonnegative("novograd", eps=eps, eps_root=eps_root, weight_decay=weight_decay)

    def init(params: Params) -> NovogradState:
        nu = jax.tree.map(jnp.sum, initial_moment(params, real=True))
        return NovogradState(zero_count(), initial_moment(params, mu_dtype), nu)

    def update(
        updates: PyTree, state: NovogradState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, NovogradState]:
        decays = not is_zero(weight_decay)
        first = state.count == 0

        def rule(g: Array, mu: Array, nu: Array, p: Array | None) -> tuple[Any, ...]:
            d2, size = cast_like(b2, nu), jnp.sum(abs_sq(g))
            nu = jnp.where(first, size, d2 * nu + (1 - d2) * size)
            # eps outside the root, as published; eps_root is optax's. One nu per array: they act on all entries alike.
            step = safe_divide(g, safe_sqrt(nu + cast_like(eps_root, nu)) + cast_like(eps, nu))
            if p is not None:
                step = step + cast_like(weight_decay, nu) * p
            mu = cast_like(b1, nu) * mu + step
            return mu, mu, nu, p

        kept = require_params("novograd", params) if decays else None
        updates, mu, nu, _ = per_leaf(rule, updates, (state.mu, state.nu, kept), params)
        return updates, NovogradState(increment(state.count), mu, nu)

    return Optimizer(init, update)


@specified
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Optimizer:
    """NovoGrad: update = -learning_rate mu; the equation and the arguments are in `scale_by_novograd`.

    eps is outside the root, eps_root inside. The decay goes through the momentum and is multiplied by the
    learning rate.

    Reference: Ginsburg, B. et al. (2019). Stochastic gradient methods with layer-wise adaptive moments for training of
        deep networks.

    Example:
        >>> opt = novograd(0.1)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[0]
        Array([-0.0599..., -0.0799...], dtype=float32)
    """
    return descent(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), learning_rate, where="novograd")
