"""Gradient descent, with momentum and with Nesterov's in both of its forms."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxnn.optim.arguments import require_extra, require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, dtypes_of, initial_moment, per_leaf, widen
from jaxnn.optim.descent import descent
from jaxnn.optim.scalars import at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class TraceState(NamedTuple):
    """`trace`: the decayed sum of gradients, None without momentum; `count`: int32 steps taken."""

    trace: PyTree
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


@specified
def trace(decay: Scalar | None, nesterov: bool = False, accumulator_dtype: DTypeLike | None = None) -> Optimizer:
    """The decayed sum of gradients.

    Momentum:  trace <- g + decay trace;  direction = trace
    Nesterov:  trace <- g + decay trace;  direction = g + decay trace

    Args:
        decay: of the trace, >= 0. None or a Python 0 keeps none.
        nesterov: whether to use Nesterov's momentum.
        accumulator_dtype: of the trace; None means the accumulation dtype.

    Reference: Polyak, B. T. (1964). Some methods of speeding up the convergence of iteration methods. Sutskever, I.,
        Martens, J., Dahl, G. & Hinton, G. (2013). On the importance of initialization and momentum in deep learning,
        equations 3 and 4 (rearranged).

    Example:
        >>> import jax.numpy as jnp
        >>> opt = trace(0.9)
        >>> _, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
        >>> opt.update(jnp.array([1.0]), state)[0]
        Array([1.9], dtype=float32)
    """
    require_nonnegative("trace", decay=decay)
    keeps_trace = decay is not None and not is_zero(decay)

    def init(params: Params) -> TraceState:
        kept = initial_moment(params, accumulator_dtype)
        return TraceState(kept if keeps_trace else None, zero_count())

    def update(
        updates: PyTree, state: TraceState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, TraceState]:
        def rule(g: Array, kept: Array | None) -> tuple[Array, Array | None]:
            if kept is None or decay is None:
                return g, None
            kept = g + cast_like(decay, g) * kept
            return (g + cast_like(decay, g) * kept if nesterov else kept), kept

        updates, kept = per_leaf(rule, updates, (state.trace,), params)
        return updates, TraceState(kept, increment(state.count))

    return Optimizer(init, update)


@specified
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Gradient descent; stochastic if the gradient is of a minibatch.

    Plain:     update = -learning_rate g
    Momentum:  trace <- g + momentum trace;  update = -learning_rate trace
    Nesterov:  trace <- g + momentum trace;  update = -learning_rate (g + momentum trace)

    Some texts print theta <- theta + v with v <- momentum v + learning_rate g, which ascends. The signs must agree:
    that v is subtracted; v <- momentum v - learning_rate g is added.

    The learning rate multiplies the whole trace, so a schedule acts at once (with a constant rate this is Polyak's
    v <- momentum v + learning_rate g). Nesterov's is the rearranged form, with the gradient at the parameters;
    `nesterov_lookahead` is the original.

    Args:
        momentum: decay of the trace; None or a Python 0 keeps none.
        nesterov: whether to use Nesterov's momentum; needs momentum.
        accumulator_dtype: of the trace; None means the accumulation dtype.

    Raises:
        ValueError: `nesterov` without momentum.

    Reference: Robbins, H. & Monro, S. (1951). A stochastic approximation method. Polyak, B. T. (1964). Some methods of
        speeding up the convergence of iteration methods. Nesterov, Y. (1983); in the form of Sutskever, I., Martens,
        J., Dahl, G. & Hinton, G. (2013). On the importance of initialization and momentum in deep learning.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = sgd(0.1, momentum=0.9)
        >>> params = jnp.array([1.0])
        >>> updates, state = opt.update(jnp.array([1.0]), opt.init(params), params)
        >>> updates, state = opt.update(jnp.array([1.0]), state, params)
        >>> updates
        Array([-0.19], dtype=float32)
    """
    if nesterov and momentum is None:
        raise ValueError("sgd: nesterov=True needs a momentum, got momentum=None. Pass momentum=0.9, for instance.")
    require_nonnegative("sgd", momentum=momentum)
    return descent(trace(momentum, nesterov, accumulator_dtype), learning_rate, where="sgd")


@specified
def nesterov_lookahead(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9) -> Optimizer:
    """Nesterov's momentum in its original form, with the gradient at the look-ahead point.

    v <- momentum v + learning_rate grad J(theta - momentum v);   theta <- theta - v

    `update` ignores the gradient that it receives and evaluates the extra argument `grad_fn` (params -> gradient),
    which `train.make_step` passes, at the look-ahead point phi = theta - momentum v. With a constant learning rate
    `sgd(learning_rate, momentum, nesterov=True)` from the same start visits these points. The state's `trace` is v.

    Args:
        momentum: decay of v, >= 0.

    Reference: Nesterov, Y. (1983). A method for solving the convex programming problem with convergence rate O(1/k^2).
        Sutskever, I., Martens, J., Dahl, G. & Hinton, G. (2013). On the importance of initialization and momentum in
        deep learning, equations 3 and 4.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = nesterov_lookahead(0.1)
        >>> params = jnp.array([1.0])
        >>> updates, state = opt.update(None, opt.init(params), params, grad_fn=lambda p: 2 * p)
        >>> updates
        Array([-0.2], dtype=float32)
    """
    require_nonnegative("nesterov_lookahead", learning_rate=learning_rate, momentum=momentum)

    def init(params: Params) -> TraceState:
        return TraceState(initial_moment(params), zero_count())

    def update(
        updates: PyTree, state: TraceState, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, TraceState]:
        params = require_params("nesterov_lookahead", params)
        require_extra("nesterov_lookahead", "grad_fn", grad_fn)
        ahead = jax.tree.map(lambda p, v: p - cast_like(momentum, v) * v, widen(params), widen(state.trace))
        rate = at_count(learning_rate, state.count)

        def rule(g: Array, v: Array) -> tuple[Array, Array]:
            v = cast_like(momentum, v) * v + cast_like(rate, v) * g
            return -v, v

        updates, kept = per_leaf(rule, grad_fn(dtypes_of(ahead, params)), (state.trace,), params)
        return updates, TraceState(kept, increment(state.count))

    return Optimizer(init, update)
