"""MoMo: momentum and Adam with a step size from a truncated model of the loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_extra, require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, dtypes_of, initial_moment, map_leaves, per_leaf, widen
from jaxnn.optim.norms import inner_product, scalar_dtype, sum_of_squares
from jaxnn.optim.rules.polyak import FLAT
from jaxnn.optim.scalars import at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class MomoState(NamedTuple):
    """State of MoMo.

    `exp_avg`: mean of gradients; `barf`: mean of losses; `gamma`: mean of <g, p>; `lb`: the lower bound of the loss;
    `count`: int32 steps taken.
    """

    exp_avg: PyTree
    barf: Array
    gamma: Array
    lb: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


class MomoAdamState(NamedTuple):
    """State of MoMo-Adam: `exp_avg_sq`, the mean of squared gradients, and what `MomoState` has."""

    exp_avg: PyTree
    exp_avg_sq: PyTree
    barf: Array
    gamma: Array
    lb: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


@specified
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Optimizer:
    """Momentum with the step, at most learning_rate, to where a linear model of the loss meets its lower bound.

    d <- beta d + (1 - beta) g; f and gamma: the same means of losses and of <g, p>; each starts at its first value
    tau = min(a, max(c (f - lb - gamma) + <d, p>, 0) / |d|^2),  a = learning_rate,  c = 1 + a weight_decay
    p <- (p - tau d) / c;   tau = 0 where |d|^2 <= 2^-52;   lb = lower_bound at the start

    With `adapt_lower_bound`, before tau: lb <- max(s / (2 c), lower_bound) if s < c lb, s = c (f - gamma) + <d, p>; and
    after it: lb <- max(f + <d, p> - gamma - tau |d|^2 / 2, lower_bound).

    p are the parameters; products and norms are over all arrays together. The decay is proximal and multiplied by the
    learning rate. optax divides p by c but not the step tau d, so its tau belongs to another point. `update` needs the
    extra argument `value`, the loss.

    Args:
        learning_rate: largest step, number or schedule.
        beta: decay of the means, in [0, 1).
        lower_bound: of the loss.
        adapt_lower_bound: whether to estimate the bound.

    Reference: Schaipp, F., Ohana, R., Eickenberg, M., Defazio, A. & Gower, R. M. (2024). MoMo: momentum models for
        adaptive learning rates.

    Example:
        >>> opt = momo()
        >>> params = jnp.array([2.0])
        >>> opt.update(2 * params, opt.init(params), params, value=jnp.sum(params**2))[0]
        Array([-1.], dtype=float32)
    """
    require_decay("momo", beta=beta)
    _require("momo", learning_rate, lower_bound, weight_decay)

    def init(params: Params) -> MomoState:
        zero, lb = _numbers("momo", params, lower_bound)
        return MomoState(initial_moment(params), zero, jnp.copy(zero), lb, zero_count())

    def update(
        updates: PyTree, state: MomoState, params: Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, MomoState]:
        params = require_params("momo", params)
        value = cast_like(require_extra("momo", "value", value), state.barf)
        decay = jnp.where(state.count == 0, jnp.zeros_like(value), cast_like(beta, value))
        d = _mean(updates, state.exp_avg, decay)
        moved = map_leaves(lambda g, mean: mean, updates, d)  # None where the gradient is
        f, gamma = _model(updates, params, value, state, decay)
        tau, decays, lb = _step(
            f - gamma,
            inner_product(moved, params),
            sum_of_squares(moved),
            at_count(learning_rate, state.count),
            weight_decay,
            jnp.ones_like(f),
            state.lb,
            lower_bound if adapt_lower_bound else None,
        )
        updates = _proximal(params, moved, tau, decays)
        return updates, MomoState(dtypes_of(d, state.exp_avg), f, gamma, lb, increment(state.count))

    return Optimizer(init, update)


@specified
def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_lower_bound: bool = False,
) -> Optimizer:
    """Adam with the step, at most learning_rate, to where a linear model of the loss meets its lower bound.

    d <- b1 d + (1 - b1) g; f and gamma: the same means of losses and of <g, p>;   v <- b2 v + (1 - b2) g^2; all from 0
    D = sqrt(v / (1 - b2^t)) + eps;   rho = 1 - b1^t;   t = 1, 2, ...
    tau = min(a / rho, max(c (f - rho lb - gamma) + <d, p>, 0) / <d, d / D>),  a = learning_rate, c = 1 + a weight_decay
    p <- (p - tau d / D) / c;   tau = 0 where <d, d / D> <= 2^-52;   lb = lower_bound at the start

    With `adapt_lower_bound`, before tau: lb <- max(s / (2 c rho), lower_bound) if s < c rho lb, with
    s = c (f - gamma) + <d, p>; and after it: lb <- max((f + <d, p> - gamma - tau <d, d / D> / 2) / rho, lower_bound).

    p are the parameters; products are over all arrays together. eps is outside the root. The decay is proximal and
    multiplied by the learning rate. optax divides p by c but not the step, so its tau belongs to another point.
    `update` needs the extra argument `value`, the loss.

    Args:
        learning_rate: largest step, number or schedule.
        b1, b2: decays of the means, in [0, 1).
        lower_bound: of the loss.
        adapt_lower_bound: whether to estimate the bound.

    Reference: Schaipp, F., Ohana, R., Eickenberg, M., Defazio, A. & Gower, R. M. (2024). MoMo: momentum models for
        adaptive learning rates.

    Example:
        >>> opt = momo_adam(0.1)
        >>> params = jnp.array([2.0])
        >>> opt.update(2 * params, opt.init(params), params, value=jnp.sum(params**2))[0]
        Array([-0.1], dtype=float32)
    """
    require_decay("momo_adam", b1=b1, b2=b2)
    require_nonnegative("momo_adam", eps=eps)
    _require("momo_adam", learning_rate, lower_bound, weight_decay)

    def init(params: Params) -> MomoAdamState:
        zero, lb = _numbers("momo_adam", params, lower_bound)
        return MomoAdamState(initial_moment(params), initial_moment(params), zero, jnp.copy(zero), lb, zero_count())

    def update(
        updates: PyTree, state: MomoAdamState, params: Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, MomoAdamState]:
        params = require_params("momo_adam", params)
        count = increment(state.count)
        value = cast_like(require_extra("momo_adam", "value", value), state.barf)

        def rule(g: Array, d: Array, v: Array) -> tuple[Array, Array, Array]:
            d = cast_like(b1, d) * d + (1 - cast_like(b1, d)) * g
            v = cast_like(b2, v) * v + (1 - cast_like(b2, v)) * g * g
            root = safe_sqrt(v / (1 - cast_like(b2, v) ** count.astype(v.dtype)))
            # eps outside the root, as in Adam and in the paper's preconditioner.
            return safe_divide(d, root + cast_like(eps, v)), d, v

        scaled, d, v = per_leaf(rule, widen(updates), (state.exp_avg, state.exp_avg_sq), None)
        f, gamma = _model(updates, params, value, state, cast_like(b1, value))
        tau, decays, lb = _step(
            f - gamma,
            inner_product(map_leaves(lambda s, mean: mean, scaled, d), params),
            inner_product(scaled, d),
            at_count(learning_rate, state.count),
            weight_decay,
            1 - cast_like(b1, f) ** count.astype(f.dtype),
            state.lb,
            lower_bound if adapt_lower_bound else None,
        )
        return _proximal(params, scaled, tau, decays), MomoAdamState(d, v, f, gamma, lb, count)

    return Optimizer(init, update)


def _require(where: str, learning_rate: ScalarOrSchedule, lower_bound: Scalar, weight_decay: Scalar) -> None:
    require_nonnegative(where, learning_rate=learning_rate, weight_decay=weight_decay)
    require_between(where, "lower_bound", lower_bound, -float("inf"), float("inf"), open_high=True)


def _numbers(where: str, params: Params, lower_bound: Scalar) -> tuple[Array, Array]:
    """(0, the lower bound) in the dtype of the state's numbers."""
    zero = jnp.zeros((), scalar_dtype(require_real(where, params)))
    return zero, cast_like(lower_bound, zero)


def _mean(grads: PyTree, means: PyTree, decay: Array) -> PyTree:
    """decay means + (1 - decay) grads, in the accumulation dtype."""

    def rule(g: Array, m: Array) -> tuple[Array, Array]:
        m = cast_like(decay, m) * m + (1 - cast_like(decay, m)) * g
        return m, m

    return per_leaf(rule, widen(grads), (means,), None)[1]


def _model(grads: PyTree, params: Params, value: Array, state: Any, decay: Array) -> tuple[Array, Array]:
    """The means of losses and of <g, p>."""
    product = inner_product(grads, params).astype(value.dtype)
    return decay * state.barf + (1 - decay) * value, decay * state.gamma + (1 - decay) * product


def _step(
    f: Array, product: Array, squares: Array, rate: Scalar, weight_decay: Scalar, rho: Array, lb: Array, least: Any
) -> tuple[Array, Array, Array]:
    """(tau, c, lb) from f - gamma, <d, p> and |d|^2 (Adam: <d, d / D>); `least`: lower_bound, None for a fixed lb."""
    product, squares, rate = product.astype(f.dtype), squares.astype(f.dtype), cast_like(rate, f)
    c = 1 + rate * cast_like(weight_decay, f)
    if least is not None:
        s = c * f + product
        lb = jnp.where(s < c * rho * lb, jnp.maximum(s / (2 * c * rho), cast_like(least, f)), lb)
    # Divided by infinity where flat; a `where` afterwards would be slow to compile: see `norms.nonzero`.
    meets = jax.nn.relu(c * (f - rho * lb) + product) / jnp.where(squares <= FLAT, jnp.inf, squares)
    tau = jnp.minimum(rate / rho, meets)
    if least is not None:
        lb = jnp.maximum((f + product - tau * squares / 2) / rho, cast_like(least, f))
    return tau, c, lb


def _proximal(params: Params, direction: PyTree, tau: Array, c: Array) -> PyTree:
    """The updates to (p - tau direction) / c."""

    def leaf(d: Array, p: Array) -> Array:
        return ((1 - cast_like(c, d)) * p.astype(d.dtype) - cast_like(tau, d) * d) / cast_like(c, d)

    return dtypes_of(map_leaves(leaf, direction, params), params)
