"""Adafactor: second moments of matrices kept as a row and a column, steps relative to the size of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, initial_moment, per_leaf, widened
from jaxnn.optim.descent import Mask, add_decay, called_on_stored
from jaxnn.optim.norms import bounded
from jaxnn.optim.scalars import abs_sq, at_count, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule, Shape


class FactoredState(NamedTuple):
    """`count`: int32 steps taken; `v_row`, `v_col`: moving averages of the mean squared gradient over the largest axis
    (v_row) and over the second largest (v_col); `v`: moving average of the squared gradient of an array that is not
    factored; `ema`: moving average of updates (None without momentum).

    Of v_row, v_col and v, those that an array does not use are zeros of shape (1,), as in optax: states can be
    exchanged.
    """

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    v_row: PyTree
    v_col: PyTree
    v: PyTree
    ema: PyTree


def power_decay(count: Array, exponent: Scalar = 0.8) -> Array:
    """Adafactor's decay at a step count: 1 - (count + 1)^-exponent, so 0 at the first step and 1 in the limit."""
    t = (count + 1).astype(float)
    return 1 - t ** -cast_like(exponent, t)


@specified
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Scalar = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Scalar = 1e-30,
    decay_rate_fn: Callable[[Array, Scalar], Scalar] = power_decay,
) -> Optimizer:
    """The gradient divided by its running root mean square; of its squares a matrix keeps only row and column means.

    d = decay_rate_fn(t, decay_rate), by default 1 - (t + 1)^-decay_rate;   t = max(count - step_offset, 0)
    Factored:  v_row <- d v_row + (1 - d) mean over columns of (|g|^2 + epsilon);   v_col: the same over rows
               v = v_row v_col / mean(v_row), an outer product
    Else:      v <- d v + (1 - d) (|g|^2 + epsilon)
    direction = g / sqrt(v), 0/0 := 0

    epsilon is added to the squares, so inside the root. "Columns" are the largest axis and "rows" the second largest;
    the other axes are batch axes. Where count < step_offset, optax's decay is NaN, infinite or above 1; here it is that
    of the first step.

    Args:
        factored: whether to factor at all.
        decay_rate: exponent of the decay, >= 0.
        step_offset: count at which the decay restarts, for fine-tuning from a trained state.
        min_dim_size_to_factor: arrays are factored if two axes are at least this long.
        epsilon: added to the squares, >= 0.
        decay_rate_fn: (t, decay_rate) -> decay. A bound below 1 lets old gradients be forgotten.

    Reference: Shazeer, N. & Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost, section
        3 and algorithm 4 (sums there, means here: the same v). Zhai, X., Kolesnikov, A., Houlsby, N. & Beyer, L.
        (2022). Scaling vision transformers (the bounded decay).

    Example:
        >>> opt = scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> jax.jit(opt.update)(jnp.array([[1.0, 2.0], [2.0, 4.0]]), opt.init(jnp.zeros((2, 2))))[0]
        Array([[1., 1.],
               [1., 1.]], dtype=float32)
    """
    require_nonnegative("scale_by_factored_rms", decay_rate=decay_rate, epsilon=epsilon)

    def axes_of(shape: Shape) -> tuple[int, int] | None:
        return _largest_axes(shape, min_dim_size_to_factor) if factored else None

    def init(params: Params) -> FactoredState:
        v = initial_moment(params, real=True)

        def without(which: int) -> PyTree:
            """The zeros of v without its largest axis (1) or its second largest (0)."""

            def leaf(x: Array) -> Array:
                axes = axes_of(x.shape)
                return jnp.zeros(1, x.dtype) if axes is None else jnp.sum(x, axes[which])

            return jax.tree.map(leaf, v)

        whole = jax.tree.map(lambda x: x if axes_of(x.shape) is None else jnp.zeros(1, x.dtype), v)
        return FactoredState(zero_count(), without(1), without(0), whole, None)

    def update(
        updates: PyTree, state: FactoredState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, FactoredState]:
        offset = jnp.asarray(step_offset).astype(state.count.dtype)
        decay = decay_rate_fn(jnp.maximum(state.count - offset, 0), decay_rate)

        def rule(g: Array, v_row: Array, v_col: Array, v: Array) -> tuple[Array, Array, Array, Array]:
            d = cast_like(decay, v)
            # epsilon in the squares, as published: v divides by a mean of them, which would be 0 without gradients.
            square = abs_sq(g) + cast_like(epsilon, v)
            axes = axes_of(g.shape)
            if axes is None:
                v = d * v + (1 - d) * square
                return safe_divide(g, safe_sqrt(v)), v_row, v_col, v
            rows, columns = axes
            v_row = d * v_row + (1 - d) * jnp.mean(square, columns)
            v_col = d * v_col + (1 - d) * jnp.mean(square, rows)
            row, col = jnp.expand_dims(v_row, columns), jnp.expand_dims(v_col, rows)
            row = _quotient(row, jnp.mean(row, rows, keepdims=True))
            # Two divisions: the product of row and col may underflow in float32.
            return _quotient(_quotient(g, safe_sqrt(row)), safe_sqrt(col)), v_row, v_col, v

        updates, v_row, v_col, v = per_leaf(rule, updates, (state.v_row, state.v_col, state.v), params)
        return updates, FactoredState(increment(state.count), v_row, v_col, v, state.ema)

    return Optimizer(init, update)


@specified
@called_on_stored("weight_decay_mask")
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: DTypeLike | None = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
) -> Optimizer:
    """Adafactor: clipped steps relative to the size of each array, with a factored second moment.

    u = scale_by_factored_rms's direction
    u <- u / max(1, rms(u) / clipping_threshold)
    u <- learning_rate max(rms(params), 0.001) u
    ema <- momentum ema + (1 - momentum) u;   u <- ema
    update = -(u + weight_decay_rate params)

    rms is over one array. The decay is NOT multiplied by the learning rate. eps is inside the root.

    Args:
        learning_rate: number or schedule. None means 1. The published one is min(0.01, 1 / sqrt(count + 1)).
        min_dim_size_to_factor, decay_rate, factored: see `scale_by_factored_rms`.
        decay_offset: step_offset of `scale_by_factored_rms`. With 1 or more on a fresh state optax gives NaN.
        multiply_by_parameter_scale: whether steps are relative to rms(params); then `update` needs params.
        clipping_threshold: largest rms of u, >= 0; with 0 only the decay acts. None clips nothing.
        momentum: decay of the mean of updates, in [0, 1). None or a Python 0 keeps none.
        dtype_momentum: of that mean; None means float32 for half-precision parameters, else the parameter's.
        weight_decay_rate: number or schedule. None and a Python 0 leave the term out.
        eps: added to the squared gradients.

    Reference: Shazeer, N. & Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost, algorithms
        4 and 5.

    Example:
        >>> opt = adafactor(0.01)
        >>> params = jnp.array([2.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params)[0]
        Array([-0.02], dtype=float32)
    """
    require_nonnegative("adafactor", learning_rate=learning_rate, clipping_threshold=clipping_threshold)
    require_nonnegative("adafactor", weight_decay_rate=weight_decay_rate)
    require_decay("adafactor", momentum=momentum)
    scaled = scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)
    keeps_ema = momentum is not None and not is_zero(momentum)

    def init(params: Params) -> FactoredState:
        return scaled.init(params)._replace(ema=initial_moment(params, dtype_momentum) if keeps_ema else None)

    @widened
    def update(
        updates: PyTree, state: FactoredState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, FactoredState]:
        sizes = require_params("adafactor", params) if multiply_by_parameter_scale else None
        rate = at_count(1.0 if learning_rate is None else learning_rate, state.count)

        def rule(u: Array, ema: Array | None, p: Array | None) -> tuple[Array, Array | None, Array | None]:
            if clipping_threshold is not None:
                u = bounded(u, _rms(u), clipping_threshold)
            u = cast_like(rate, u) * u
            if p is not None:
                # eps_2 of the paper: a parameter that starts at 0 still moves.
                u = jnp.maximum(_rms(p), 1e-3) * u
            if ema is not None and momentum is not None:
                b = cast_like(momentum, u)
                u = ema = b * ema + (1 - b) * u
            return u, ema, p

        steps, new = scaled.update(updates, state, params)
        steps, ema, _ = per_leaf(rule, steps, (state.ema, sizes), params)
        if weight_decay_rate is not None and not is_zero(weight_decay_rate):
            decay, params = at_count(weight_decay_rate, state.count), require_params("adafactor", params)
            steps = add_decay(steps, params, decay, weight_decay_mask, where="adafactor")
        return jax.tree.map(jnp.negative, steps), new._replace(ema=ema)

    return Optimizer(init, update)


def _largest_axes(shape: Shape, least: int) -> tuple[int, int] | None:
    """(second largest axis, largest axis), of equal ones the later; None if one is shorter than `least`."""
    axes = sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:]
    return (axes[0], axes[1]) if len(axes) == 2 and shape[axes[0]] >= least else None


def _quotient(x: Array, y: Array) -> Array:
    """x / y for y >= 0, equal to `safe_divide` to the bit, with derivatives that do not suffer underflow of y^2.

    Without gradients, means near epsilon = 1e-30 are divided by one another. In float32 y^2 is then 0, and the
    derivative -x / y^2 is infinite or NaN; at roots near 1e-15 so is the second derivative. So x and y are first
    divided by the largest power of two <= y: nothing is rounded, and 1 <= y < 2.
    """
    y_fixed = jax.lax.stop_gradient(y)
    power = jnp.ldexp(jnp.ones_like(y), jnp.frexp(y_fixed)[1] - 1)
    # Processors may flush subnormal numbers to 0; frexp does not.
    power = jnp.where(y_fixed >= np.finfo(y.dtype).tiny, power, jnp.ones_like(y))
    return safe_divide(x / power, y / power)


def _rms(x: Array) -> Array:
    """sqrt(mean |x|^2), with derivative 0 at 0."""
    return safe_sqrt(jnp.mean(abs_sq(x)))
