"""Adam with other second moments: AdaBelief, ACProp (squared deviations from the mean) and Yogi (additive)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.scalars import abs_sq, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class BeliefState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients; `nu`: mean of squared differences from that mean."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


class YogiState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients; `nu`: an additive mean of their squares."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree


@specified
def scale_by_belief(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16, *, nesterov: bool = False
) -> Optimizer:
    """AdaBelief's direction: steps are large where the gradient is close to its running mean.

    mu <- b1 mu + (1 - b1) g;   nu <- b2 nu + (1 - b2) |g - mu|^2 + eps_root;   t = 1, 2, ...
    direction = mu_hat / (sqrt(nu_hat) + eps);   mu_hat, nu_hat as in `scale_by_adam`

    eps is outside the root; eps_root is added to nu in every step, so it accumulates, as in the paper. 0/0 := 0.

    Args:
        b1, b2: decays of the moments, in [0, 1).
        eps, eps_root: added to the root, and to nu.
        nesterov: whether to use Nesterov's momentum.

    Reference: Zhuang, J. et al. (2020). AdaBelief optimizer: adapting stepsizes by the belief in observed gradients,
        algorithm 2.

    Example:
        >>> opt = scale_by_belief()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([1.1111112], dtype=float32)
    """
    require_decay("adabelief", b1=b1, b2=b2)
    require_nonnegative("adabelief", eps=eps, eps_root=eps_root)

    def update(
        updates: PyTree, state: BeliefState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, BeliefState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1, d2, t = cast_like(b1, nu), cast_like(b2, nu), count.astype(nu.dtype)
            mu = d1 * mu + (1 - d1) * g
            # eps_root joins nu itself, as in the paper's algorithm: where g = mu for long, nu_hat stays above it.
            nu = d2 * nu + (1 - d2) * abs_sq(g - mu) + cast_like(eps_root, nu)
            mu_hat = mu / (1 - d1**t)
            if nesterov:
                mu_hat = d1 * mu / (1 - d1 ** (t + 1)) + (1 - d1) * g / (1 - d1**t)
            # eps outside the root, as in Adam; nu is at least eps_root, so 1e-16 matters only for eps_root = 0.
            return safe_divide(mu_hat, safe_sqrt(nu / (1 - d2**t)) + cast_like(eps, nu)), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, BeliefState(count, mu, nu)

    return Optimizer(_init, update)


@specified
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> Optimizer:
    """AdaBelief: update = -learning_rate (mu_hat / (sqrt(nu_hat) + eps) + weight_decay params).

    The equation of the moments, and the other arguments, are in `scale_by_belief`. eps is outside the root; eps_root
    accumulates in nu. The decay is decoupled from the moments and multiplied by the learning rate.

    Reference: Zhuang, J. et al. (2020). AdaBelief optimizer: adapting stepsizes by the belief in observed gradients.

    Example:
        >>> opt = adabelief(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.11111...], dtype=float32)
    """
    direction = scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=weight_decay_mask, where="adabelief")


@specified
def scale_by_acprop(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16) -> Optimizer:
    """ACProp's direction: the gradient divided by the root of the PREVIOUS step's second moment, AdaBelief's.

    direction = g / (sqrt(nu / (1 - b2^(t-1))) + eps), g / (1 + eps) at t = 1;   t = 1, 2, ...
    then, with the mu of the step before,   nu <- b2 nu + (1 - b2) |g - mu|^2 + eps_root;   mu <- b1 mu + (1 - b1) g

    eps is outside the root; eps_root accumulates in nu; 0/0 := 0. As in optax, nu takes deviations from the mean BEFORE
    this gradient. The authors take them from the new mean, which makes nu b1^2 times as large: their rule is this one
    with learning rate / b1 (except at the first step), eps / b1 and eps_root / b1^2.

    Args:
        b1, b2: decays of the moments, in [0, 1).
        eps, eps_root: added to the root, and to nu.

    Reference: Zhuang, J. et al. (2021). Momentum centering and asynchronous update for adaptive gradient methods,
        algorithm 2.

    Example:
        >>> opt = scale_by_acprop()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([3.], dtype=float32)
    """
    require_decay("acprop", b1=b1, b2=b2)
    require_nonnegative("acprop", eps=eps, eps_root=eps_root)

    def update(
        updates: PyTree, state: BeliefState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, BeliefState]:
        first = state.count == 0

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1, d2, t = cast_like(b1, nu), cast_like(b2, nu), jnp.maximum(state.count, 1).astype(nu.dtype)
            nu_hat = jnp.where(first, jnp.ones_like(nu), nu / (1 - d2**t))
            # eps and eps_root where AdaBelief has them, as in optax.
            direction = safe_divide(g, safe_sqrt(nu_hat) + cast_like(eps, nu))
            nu = d2 * nu + (1 - d2) * abs_sq(g - mu) + cast_like(eps_root, nu)
            return direction, d1 * mu + (1 - d1) * g, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, BeliefState(increment(state.count), mu, nu)

    return Optimizer(_init, update)


@specified
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """ACProp with decoupled weight decay, multiplied by the learning rate.

    The equation, b1, b2, eps (outside the root) and eps_root (which accumulates in nu) are in `scale_by_acprop`.

    Reference: Zhuang, J. et al. (2021). Momentum centering and asynchronous update for adaptive gradient methods.

    Example:
        >>> opt = acprop(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.3], dtype=float32)
    """
    direction = scale_by_acprop(b1, b2, eps, eps_root)
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="acprop")


@specified
def scale_by_yogi(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: Scalar = 1e-6,
) -> Optimizer:
    """Yogi's direction: Adam whose second moment moves towards |g|^2 by (1 - b2) |g|^2, whatever the distance.

    mu <- b1 mu + (1 - b1) g;   nu <- nu - (1 - b2) sign(nu - |g|^2) |g|^2;   t = 1, 2, ...
    direction = mu_hat / (sqrt(nu_hat + eps_root) + eps);   mu_hat = mu / (1 - b1^t), nu_hat = nu / (1 - b2^t)

    eps is outside the root, eps_root inside; 0/0 := 0. mu, too, starts at initial_accumulator_value, as in optax, so a
    parameter whose gradients are all 0 drifts at first; the paper starts mu at 0.

    Args:
        b1, b2: decays of the moments, in [0, 1).
        eps, eps_root: added to the root, and under it.
        initial_accumulator_value: initial mu and nu.

    Reference: Zaheer, M., Reddi, S., Sachan, D., Kale, S. & Kumar, S. (2018). Adaptive methods for nonconvex
        optimization, algorithm 2 (which corrects no bias).

    Example:
        >>> opt = scale_by_yogi()
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([0.9996...], dtype=float32)
    """
    require_decay("yogi", b1=b1, b2=b2)
    require_nonnegative("yogi", eps=eps, eps_root=eps_root, initial_accumulator_value=initial_accumulator_value)

    def init(params: Params) -> YogiState:
        mu = initial_moment(params, fill=initial_accumulator_value)
        return YogiState(zero_count(), mu, initial_moment(params, fill=initial_accumulator_value, real=True))

    def update(
        updates: PyTree, state: YogiState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, YogiState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            d1, d2, t = cast_like(b1, nu), cast_like(b2, nu), count.astype(nu.dtype)
            mu = d1 * mu + (1 - d1) * g
            nu = nu - (1 - d2) * jnp.sign(nu - abs_sq(g)) * abs_sq(g)
            # eps outside the root, as published, and its 1e-3 too: entries with smaller roots step as with momentum.
            root = safe_sqrt(nu / (1 - d2**t) + cast_like(eps_root, nu))
            return safe_divide(mu / (1 - d1**t), root + cast_like(eps, nu)), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, YogiState(count, mu, nu)

    return Optimizer(init, update)


@specified
def yogi(learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3) -> Optimizer:
    """Yogi: update = -learning_rate mu_hat / (sqrt(nu_hat) + eps).

    The equation of the moments, b1, b2 and eps (outside the root) are in `scale_by_yogi`.

    Reference: Zaheer, M., Reddi, S., Sachan, D., Kale, S. & Kumar, S. (2018). Adaptive methods for nonconvex
        optimization.

    Example:
        >>> opt = yogi(0.1)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.0999...], dtype=float32)
    """
    return descent(scale_by_yogi(b1, b2, eps), learning_rate, where="yogi")


def _init(params: Params) -> BeliefState:
    """Moments of 0."""
    return BeliefState(zero_count(), initial_moment(params), initial_moment(params, real=True))
