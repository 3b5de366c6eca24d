"""Gradient descent, with momentum and with Nesterov's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.optim.base import Optimizer, at_count, increment, is_zero, like, moment, per_leaf
from jaxnn.types import Array, DType, Params, PyTree, Scalar, ScalarOrSchedule


class SgdState(NamedTuple):
    """`count`: int32 steps taken; `trace`: the decayed sum of gradients, None without momentum."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    trace: PyTree


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
) -> Optimizer:
    """Gradient descent; stochastic if the gradient is of a minibatch.

    Plain:     update = -learning_rate g
    Momentum:  trace <- g + momentum trace;  update = -learning_rate trace
    Nesterov:  trace <- g + momentum trace;  update = -learning_rate (g + momentum trace)

    In this form the learning rate multiplies the whole trace, so that a schedule acts at once (with a constant rate it
    is Polyak's v <- momentum v + learning_rate g). Nesterov's is the rearranged form, the gradient taken at the
    parameters themselves.

    Args:
        learning_rate: number or schedule of the step count (0 at the first update); may be traced.
        momentum: decay of the trace; None keeps none, and so does a Python 0.
        nesterov: whether to look ahead; needs momentum.
        accumulator_dtype: of the trace; None means float32 for half-precision parameters, else the parameter's.

    Returns:
        Optimizer with state `SgdState(count, trace)`.

    Raises:
        ValueError: `nesterov` without momentum, or a negative momentum known while tracing.

    Reference:
        Robbins, H. & Monro, S. (1951). A stochastic approximation method.
        Polyak, B. T. (1964). Some methods of speeding up the convergence of iteration methods.
        Nesterov, Y. (1983); in the form of Sutskever, I., Martens, J., Dahl, G. & Hinton, G. (2013). On the importance
        of initialization and momentum in deep learning.

    Example:
        >>> opt = sgd(0.1, momentum=0.9)
        >>> params = jnp.array([1.0])
        >>> updates, state = opt.update(jnp.array([1.0]), opt.init(params), params)
        >>> updates, state = opt.update(jnp.array([1.0]), state, params)
        >>> updates
        Array([-0.19], dtype=float32)
    """
    keeps_trace = momentum is not None and not is_zero(momentum)
    if nesterov and momentum is None:
        raise ValueError("sgd: nesterov=True needs a momentum, got momentum=None. Pass momentum=0.9, for instance.")

    if momentum is not None:
        require_between("sgd", "momentum", momentum, 0, math.inf)

    def init(params: Params) -> SgdState:
        trace = moment(params, accumulator_dtype) if keeps_trace else None
        return SgdState(jnp.zeros((), jnp.int32), trace)

    def update(grads: PyTree, state: SgdState, params: Params | None = None, **extra: Any) -> tuple[PyTree, SgdState]:
        rate = at_count(learning_rate, state.count)

        def rule(g: Array, trace: Array | None) -> tuple[Array, Array | None]:
            if trace is None:
                return -like(rate, g) * g, None
            decay = like(momentum, g)
            trace = g + decay * trace
            return -like(rate, g) * (g + decay * trace if nesterov else trace), trace

        updates, trace = per_leaf(rule, grads, (state.trace,), params)
        return updates, SgdState(increment(state.count), trace)

    return Optimizer(init, update)
