"""Adam with an estimated learning rate: D-Adaptation and Prodigy."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import concrete_number
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, per_leaf, widen
from jaxnn.optim.descent import Mask, mask_tree
from jaxnn.optim.norms import inner_product, scalar_dtype, total
from jaxnn.optim.scalars import at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class DAdaptAdamWState(NamedTuple):
    """State of D-adapted Adam.

    `exp_avg`, `exp_avg_sq`, `grad_sum`, `estim_lr`, `numerator_weighted`: m, v, s, d and r of `dadapt_adamw`; `count`:
    int32 steps taken.
    """

    exp_avg: PyTree
    exp_avg_sq: PyTree
    grad_sum: PyTree
    estim_lr: Array
    numerator_weighted: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


class ProdigyState(NamedTuple):
    """State of Prodigy.

    `exp_avg`, `exp_avg_sq`, `grad_sum`, `estim_lr`, `numerator_weighted`: m, v, s, d and r of `prodigy`; `params0`: the
    parameters at the start; `count`: int32 steps taken.
    """

    exp_avg: PyTree
    exp_avg_sq: PyTree
    grad_sum: PyTree
    params0: Params
    estim_lr: Array
    numerator_weighted: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


@specified
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> Optimizer:
    """Adam with its learning rate multiplied by d, a non-decreasing estimate of the distance to the solution.

    (b1, b2) = betas;   q = sqrt(b2);   t = 1, 2, ...;   lr = learning_rate d sqrt(1 - b2^t) / (1 - b1^t)
    r <- q r + (1 - q) lr <g, s / (sqrt(v) + eps)>, with s and v of the step before
    m <- b1 m + (1 - b1) lr g;   v <- b2 v + (1 - b2) g^2;   s <- q s + (1 - q) lr g
    update = -m / (sqrt(v) + eps) - weight_decay lr p;   then d <- max(d, r / ((1 - q) |s|_1)), 0/0 := 0

    p are the parameters. |s|_1 is over all arrays together. eps is outside the root. The decay is multiplied by lr.
    Until a step with a nonzero gradient and rate, the quotient is 0/0: d stays (optax: NaN from then on).

    Args:
        learning_rate: multiplies the estimate: number or schedule, 1 as published.
        betas: decays of the means, each in [0, 1).
        estim_lr0: initial d, > 0; choose it too small rather than too large.

    Reference: Defazio, A. & Mishchenko, K. (2023). Learning-rate-free learning by D-adaptation, the version of Adam,
        with its correction of bias in the rate.

    Example:
        >>> opt = dadapt_adamw(estim_lr0=0.1)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.0999...], dtype=float32)
    """
    b1, b2 = betas
    _require("dadapt_adamw", learning_rate, betas, eps, estim_lr0, weight_decay)

    def init(params: Params) -> DAdaptAdamWState:
        zero = jnp.zeros((), scalar_dtype(require_real("dadapt_adamw", params)))
        d = cast_like(estim_lr0, zero)
        return DAdaptAdamWState(
            initial_moment(params), initial_moment(params), initial_moment(params), d, zero, zero_count()
        )

    def update(
        updates: PyTree, state: DAdaptAdamWState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, DAdaptAdamWState]:
        params = require_params("dadapt_adamw", params)
        count, d = increment(state.count), state.estim_lr
        lr = d * cast_like(at_count(learning_rate, state.count), d) * _correction(betas, count, d)
        q = safe_sqrt(cast_like(b2, d))

        def rule(g: Array, m: Array, v: Array, s: Array, p: Array) -> tuple[Array, ...]:
            rate, root, small = cast_like(lr, g), cast_like(q, g), cast_like(eps, g)
            m = cast_like(b1, g) * m + (1 - cast_like(b1, g)) * rate * g
            v = cast_like(b2, g) * v + (1 - cast_like(b2, g)) * g * g
            s = root * s + (1 - root) * rate * g
            # eps outside the root, as in Adam: v is of plain gradients, without d, so eps needs no factor.
            return -safe_divide(m, safe_sqrt(v) + small) - cast_like(weight_decay, g) * rate * p, m, v, s, p

        def before(s: Array, v: Array) -> Array:
            # The norm of the step before: the same denominator, with its v.
            return safe_divide(s, safe_sqrt(v) + cast_like(eps, v))

        product = inner_product(updates, map_leaves(before, state.grad_sum, state.exp_avg_sq)).astype(d.dtype)
        r = q * state.numerator_weighted + (1 - q) * lr * product
        kept = (state.exp_avg, state.exp_avg_sq, state.grad_sum, params)
        updates, m, v, s, _ = per_leaf(rule, updates, kept, params)
        d = jnp.maximum(d, safe_divide(r, (1 - q) * _sum_of_magnitudes(s).astype(d.dtype)))
        return updates, DAdaptAdamWState(m, v, s, d, r, count)

    return Optimizer(init, update)


@specified
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    safeguard_warmup: bool = False,
    *,
    weight_decay_mask: Mask = None,
) -> Optimizer:
    """D-adapted Adam that weights later gradients more and so finds its learning rate sooner.

    (b1, b2) = betas;   t = 1, 2, ...;   lr = learning_rate d sqrt(1 - b2^t) / (1 - b1^t)
    m <- b1 m + (1 - b1) d g;   v <- b2 v + (1 - b2) (d g)^2
    r <- beta3 r + (d / d_0) lr <g, p_0 - p>;   s <- beta3 s + (d / d_0) lr g (d for lr with `safeguard_warmup`)
    d <- max(d, estim_lr_coef r / |s|_1), 0/0 := 0
    update = -lr (m / (sqrt(v) + d eps) + weight_decay p), lr with the old d, eps times the new d

    p are the parameters, p_0 those that `init` received, which must be the start of training. |s|_1 is over all arrays
    together. eps is outside the root. The decay is multiplied by lr. Until a step with a nonzero gradient and rate, the
    quotient is 0/0: d stays (optax: NaN from then on).

    Args:
        learning_rate: multiplies the estimate: number or schedule, 1 as published.
        betas: decays of the means, each in [0, 1).
        beta3: decay of r and s, in [0, 1). None means sqrt(b2).
        estim_lr0: d_0, the initial estimate, > 0; choose it too small rather than too large.
        estim_lr_coef: multiplies the estimate, >= 0.
        safeguard_warmup: whether to leave the learning rate out of s, which keeps estimates small after a warm-up.

    Reference: Mishchenko, K. & Defazio, A. (2024). Prodigy: an expeditiously adaptive parameter-free learner, the
        version of Adam, with its correction of bias in the rate.

    Example:
        >>> opt = prodigy(estim_lr0=0.1)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.0999...], dtype=float32)
    """
    b1, b2 = betas
    _require("prodigy", learning_rate, betas, eps, estim_lr0, weight_decay)
    require_decay("prodigy", beta3=beta3)
    require_nonnegative("prodigy", estim_lr_coef=estim_lr_coef)

    def init(params: Params) -> ProdigyState:
        zero = jnp.zeros((), scalar_dtype(require_real("prodigy", params)))
        # A copy, so that parameters and state may both be donated.
        start = jax.tree.map(jnp.copy, params)
        d = cast_like(estim_lr0, zero)
        return ProdigyState(
            initial_moment(params), initial_moment(params), initial_moment(params), start, d, zero, zero_count()
        )

    def update(
        updates: PyTree, state: ProdigyState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ProdigyState]:
        params = require_params("prodigy", params)
        count, old = increment(state.count), state.estim_lr
        lr = old * cast_like(at_count(learning_rate, state.count), old) * _correction(betas, count, old)
        b3 = safe_sqrt(cast_like(b2, old)) if beta3 is None else cast_like(beta3, old)
        relative = old / cast_like(estim_lr0, old)
        weight = relative * (old if safeguard_warmup else lr)

        def moments(g: Array, m: Array, v: Array, s: Array) -> tuple[Array, ...]:
            dg = cast_like(old, g) * g
            m = cast_like(b1, g) * m + (1 - cast_like(b1, g)) * dg
            v = cast_like(b2, g) * v + (1 - cast_like(b2, g)) * dg * dg
            return g, m, v, cast_like(b3, g) * s + cast_like(weight, g) * g

        kept = (state.exp_avg, state.exp_avg_sq, state.grad_sum)
        _, m, v, s = per_leaf(moments, widen(updates), kept, None)
        away = map_leaves(lambda p, p0: p0 - p, widen(params), widen(state.params0))
        product = inner_product(updates, away).astype(old.dtype)
        r = b3 * state.numerator_weighted + relative * lr * product
        d = jnp.maximum(old, cast_like(estim_lr_coef, r) * safe_divide(r, _sum_of_magnitudes(s).astype(r.dtype)))

        def step(g: Array, m: Array, v: Array, p: Array) -> tuple[Array, ...]:
            # d eps, as published: sqrt(v) is of d g, so eps keeps its size relative to the gradients as d grows.
            direction = safe_divide(m, safe_sqrt(v) + cast_like(d, v) * cast_like(eps, v))
            return -cast_like(lr, v) * (direction + cast_like(weight_decay, v) * p), m, v, p

        decayed = params
        if weight_decay_mask is not None:
            chosen = mask_tree("prodigy", weight_decay_mask, params)
            decayed = map_leaves(lambda p, decays: p if decays else jnp.zeros_like(p), params, chosen)
        updates, *_ = per_leaf(step, updates, (m, v, decayed), params)
        return updates, ProdigyState(m, v, s, state.params0, d, r, count)

    return Optimizer(init, update)


def _require(where: str, learning_rate: Any, betas: tuple[Any, Any], eps: Any, estim_lr0: Any, decay: Any) -> None:
    require_nonnegative(where, learning_rate=learning_rate, eps=eps, estim_lr0=estim_lr0, weight_decay=decay)
    require_decay(where, **{"betas[0]": betas[0], "betas[1]": betas[1]})
    if concrete_number(estim_lr0) == 0:
        raise ValueError(f"{where}: estim_lr0 must be greater than 0, or the estimate never grows, got 0.")


def _correction(betas: tuple[Scalar, Scalar], count: Array, x: Array) -> Array:
    """Adam's correction of bias as a factor of the learning rate: sqrt(1 - b2^t) / (1 - b1^t)."""
    b1, b2, t = cast_like(betas[0], x), cast_like(betas[1], x), count.astype(x.dtype)
    return jnp.sqrt(1 - b2**t) / (1 - b1**t)


def _sum_of_magnitudes(tree: PyTree) -> Array:
    """The sum of |x| over all entries of a pytree."""
    return total(jax.tree.map(lambda x: jnp.sum(jnp.abs(x)), tree))
