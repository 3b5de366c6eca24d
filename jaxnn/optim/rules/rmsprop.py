"""RMSprop: steps divided by a running root mean square of the gradient, plain or centered, with or without momentum."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf, widened
from jaxnn.optim.descent import descent
from jaxnn.optim.rules.sgd import TraceState, trace
from jaxnn.optim.scalars import abs_sq, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule


class RMSpropState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients (None unless centered); `nu`: mean of their squares, real;
    `trace`: decayed sum of -learning_rate direction (None without momentum)."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree
    trace: PyTree


@specified
def scale_by_rms(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer:
    """The gradient divided by its running root mean square.

    nu <- decay nu + (1 - decay) |g|^2, from nu = initial_scale;   t = 1, 2, ...
    nu_hat = nu / (1 - decay^t) with `bias_correction`, else nu
    direction = g / sqrt(nu_hat + eps) with `eps_in_sqrt`, else g / (sqrt(nu_hat) + eps);   0/0 := 0

    Args:
        decay: of the mean, in [0, 1).
        eps: against division by zero, >= 0.
        initial_scale: of nu, >= 0. PyTorch starts at 0, the first TensorFlow did at 1.
        eps_in_sqrt: whether eps is inside the root. PyTorch's is outside.
        bias_correction: whether to correct the bias of nu, as Adam does.

    Reference: Tieleman, T. & Hinton, G. (2012). Lecture 6.5, RMSprop: divide the gradient by a running average of its
        recent magnitude. COURSERA: Neural networks for machine learning (eps = 0).

    Example:
        >>> opt = scale_by_rms(decay=0.75)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    return _scale("scale_by_rms", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=False)


@specified
def scale_by_stddev(
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer:
    """The gradient divided by its running standard deviation.

    mu <- decay mu + (1 - decay) g;   nu <- decay nu + (1 - decay) |g|^2, from mu = 0, nu = initial_scale
    mu_hat, nu_hat = mu, nu, with `bias_correction` both divided by 1 - decay^t;   t = 1, 2, ...
    direction = g / sqrt(nu_hat - |mu_hat|^2 + eps) with `eps_in_sqrt`, else g / (sqrt(nu_hat - |mu_hat|^2) + eps)

    Where rounding makes the variance negative, as with a large steady gradient, it is clipped at 0 (optax: NaN).
    0/0 := 0.

    Args:
        decay, eps, initial_scale, eps_in_sqrt, bias_correction: see `scale_by_rms`.

    Reference: Graves, A. (2013). Generating sequences with recurrent neural networks, equations 38 to 40.

    Example:
        >>> opt = scale_by_stddev(decay=0.5)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([2.], dtype=float32)
    """
    return _scale("scale_by_stddev", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=True)


@specified
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Optimizer:
    """RMSprop, plain or centered, with or without momentum.

    Plain:     update = -learning_rate direction
    Momentum:  trace <- -learning_rate direction + momentum trace;  update = trace
    Nesterov:  the same trace;  update = -learning_rate direction + momentum trace

    Unlike in `sgd`, the learning rate is inside the trace, so a schedule acts on new steps only.

    Args:
        decay, eps, initial_scale, eps_in_sqrt, bias_correction: see `scale_by_rms`, which has the whole equation. Pass
            eps_in_sqrt=False for PyTorch's rule.
        centered: whether to divide by the standard deviation, see `scale_by_stddev`.
        momentum: decay of the trace; None or a Python 0 keeps none.
        nesterov: whether to use Nesterov's momentum; needs momentum.

    Raises:
        ValueError: `nesterov` without momentum.

    Reference: Tieleman, T. & Hinton, G. (2012). Lecture 6.5, RMSprop. COURSERA: Neural networks for machine learning.
        Graves, A. (2013). Generating sequences with recurrent neural networks, equations 38 to 41 (centered, with
        momentum).

    Example:
        >>> opt = rmsprop(0.1, decay=0.75)
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0]
        Array([-0.2], dtype=float32)
    """
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov=True needs a momentum, got momentum=None. Pass momentum=0.9, for instance.")
    require_nonnegative("rmsprop", momentum=momentum)
    direction = _scale("rmsprop", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centered=centered)
    plain = descent(direction, learning_rate, where="rmsprop")
    if momentum is None or is_zero(momentum):
        return plain
    sums = trace(momentum, nesterov)

    def init(params: Params) -> RMSpropState:
        return plain.init(params)._replace(trace=sums.init(params).trace)

    @widened
    def update(
        updates: PyTree, state: RMSpropState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, RMSpropState]:
        steps, new = plain.update(updates, state, params)
        steps, kept = sums.update(steps, TraceState(state.trace, state.count), params)
        return steps, new._replace(trace=kept.trace)

    return Optimizer(init, update)


def _scale(
    where: str,
    decay: Scalar,
    eps: Scalar,
    initial_scale: Scalar,
    eps_in_sqrt: bool,
    bias_correction: bool,
    *,
    centered: bool,
) -> Optimizer:
    """`scale_by_rms`, or `scale_by_stddev` if centered."""
    require_decay(where, decay=decay)
    require_nonnegative(where, eps=eps, initial_scale=initial_scale)

    def init(params: Params) -> RMSpropState:
        nu = initial_moment(params, fill=initial_scale, real=True)
        return RMSpropState(zero_count(), initial_moment(params) if centered else None, nu, None)

    def update(
        updates: PyTree, state: RMSpropState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, RMSpropState]:
        count = increment(state.count)

        def rule(g: Array, mu: Array | None, nu: Array) -> tuple[Array, Array | None, Array]:
            d, e = cast_like(decay, nu), cast_like(eps, nu)
            weight = 1 - d ** count.astype(nu.dtype) if bias_correction else 1.0
            nu = d * nu + (1 - d) * abs_sq(g)
            power = nu / weight
            if mu is not None:
                mu = d * mu + (1 - d) * g
                power = jnp.maximum(power - abs_sq(mu / weight), 0.0)
            # Inside is optax's default, outside PyTorch's place. Inside, 1e-8 bounds the root as 1e-4 does outside.
            root = safe_sqrt(power + e) if eps_in_sqrt else safe_sqrt(power) + e
            return safe_divide(g, root), mu, nu

        updates, mu, nu = per_leaf(rule, updates, (state.mu, state.nu), params)
        return updates, state._replace(count=count, mu=mu, nu=nu)

    return Optimizer(init, update)
