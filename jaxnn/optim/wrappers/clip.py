"""Gradient clipping, NaN removal and centralization, without moments."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_nonnegative, require_params, require_real
from jaxnn.optim.base import EmptyState, Optimizer, per_leaf
from jaxnn.optim.norms import bounded, sum_of_squares
from jaxnn.optim.scalars import abs_sq, cast_like
from jaxnn.optim.spec import specified
from jaxnn.placement import full_like
from jaxnn.types import Array, Params, PyTree, Scalar


class ZeroNansState(NamedTuple):
    """`found_nan`: for each parameter, whether its last gradient held a NaN."""

    found_nan: PyTree


def global_norm(updates: PyTree) -> Array:
    """The Euclidean norm of all entries of a pytree together: sqrt(sum |u|^2), in the accumulation dtype.

    The derivative at 0 is 0. An empty pytree has norm 0.

    Example:
        >>> global_norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])})
        Array(5., dtype=float32)
    """
    return safe_sqrt(sum_of_squares(updates))


@specified
def clip(max_delta: Scalar) -> Optimizer:
    """Each entry clipped to [-max_delta, max_delta]; NaN stays NaN.

    Args:
        max_delta: >= 0.

    Example:
        >>> opt = clip(1.0)
        >>> opt.update(jnp.array([-3.0, 0.5]), opt.init(jnp.zeros(2)))[0]
        Array([-1. ,  0.5], dtype=float32)
    """
    require_nonnegative("clip", max_delta=max_delta)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        require_real("clip", updates)

        def rule(g: Array) -> tuple[Array]:
            bound = cast_like(max_delta, g)
            return (jnp.clip(g, -bound, bound),)

        return per_leaf(rule, updates, (), params)[0], state

    return Optimizer(lambda params: _no_state(require_real("clip", params)), update)


@specified
def clip_by_global_norm(max_norm: Scalar) -> Optimizer:
    """All gradients scaled by one factor so that their global norm is at most max_norm.

    update = g min(1, max_norm / |g|),   |g| = sqrt(sum over all entries of |g|^2)

    Zero gradients stay 0, also for max_norm = 0 (0/0 in optax). An infinite or NaN entry turns others into 0 or NaN:
    put `zero_nans` before it, or wrap the chain in `apply_if_finite`.

    Args:
        max_norm: >= 0.

    Reference: Pascanu, R., Mikolov, T. & Bengio, Y. (2013). On the difficulty of training recurrent neural networks,
        algorithm 1.

    Example:
        >>> opt = clip_by_global_norm(1.0)
        >>> opt.update({"w": jnp.array([3.0]), "b": jnp.array([4.0])}, ())[0]
        {'b': Array([0.8], dtype=float32), 'w': Array([0.6], dtype=float32)}
    """
    require_nonnegative("clip_by_global_norm", max_norm=max_norm)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        norm = global_norm(updates)
        bound = cast_like(max_norm, norm)
        within = norm <= bound
        factor = jnp.where(within, 1, bound) / jnp.where(within, 1, norm)
        return per_leaf(lambda g: (cast_like(factor, g) * g,), updates, (), params)[0], state

    return Optimizer(_no_state, update)


@specified
def clip_by_block_rms(threshold: Scalar) -> Optimizer:
    """Each array scaled down so that its root mean square is at most the threshold: u / max(1, rms(u) / threshold).

    With a threshold of 0 all updates are 0 (optax: NaN for a zero gradient).

    Args:
        threshold: >= 0.

    Reference: Shazeer, N. & Stern, M. (2018). Adafactor: adaptive learning rates with sublinear memory cost, section 6.

    Example:
        >>> clip_by_block_rms(1.0).update(jnp.array([3.0, 4.0]), ())[0] * jnp.sqrt(12.5)
        Array([3., 4.], dtype=float32)
    """
    require_nonnegative("clip_by_block_rms", threshold=threshold)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        def rule(g: Array) -> tuple[Array]:
            rms = safe_sqrt(jnp.sum(abs_sq(g)) / max(g.size, 1))
            return (bounded(g, rms, threshold),)

        return per_leaf(rule, updates, (), params)[0], state

    return Optimizer(_no_state, update)


@specified
def adaptive_grad_clip(clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | None = None) -> Optimizer:
    """Each unit's gradient scaled down to at most `clipping` max(norm of the unit's weights, eps).

    update_i = g_i min(1, clipping max(|w_i|, eps) / |g_i|)   for each unit i

    Args:
        clipping: largest ratio of the norms, >= 0.
        eps: lower bound on the norm of the weights, so that zero weights can move.
        axis: axes over which one unit's norm is taken. None means: all of a scalar or vector (or an array with at most
            one axis longer than 1); axis 0 of (in, out) and of arrays with three axes, read as several heads; all but
            the last of (height, width, in, out) and (depth, height, width, in, out). For (width, in, out) kernels pass
            (0, 1).

    Raises:
        ValueError: more than five axes without `axis`.

    Reference: Brock, A., De, S., Smith, S. & Simonyan, K. (2021). High-performance large-scale image recognition
        without normalization, equation 3.

    Example:
        >>> opt, params = adaptive_grad_clip(0.5), jnp.array([3.0, 4.0])
        >>> opt.update(jnp.array([6.0, 8.0]), opt.init(params), params)[0]
        Array([1.5, 2. ], dtype=float32)
    """
    require_nonnegative("adaptive_grad_clip", clipping=clipping, eps=eps)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        params = require_params("adaptive_grad_clip", params)

        def rule(g: Array, p: Array) -> tuple[Array, Array]:
            axes = _unit_axes(p.shape) if axis is None else axis
            norm = safe_sqrt(jnp.sum(abs_sq(g), axis=axes, keepdims=True))
            size = safe_sqrt(jnp.sum(abs_sq(p), axis=axes, keepdims=True))
            bound = cast_like(clipping, g) * jnp.maximum(size, cast_like(eps, g))
            factor = jnp.where(norm <= bound, cast_like(1, g), safe_divide(bound, norm))
            return g * factor, p

        return per_leaf(rule, updates, (params,), params)[0], state

    return Optimizer(_no_state, update)


@specified
def zero_nans() -> Optimizer:
    """NaN entries become 0; the state records which arrays had any. Infinite entries are kept.

    Example:
        >>> opt = zero_nans()
        >>> opt.update(jnp.array([1.0, jnp.nan]), opt.init(jnp.zeros(2)))
        (Array([1., 0.], dtype=float32), ZeroNansState(found_nan=Array(True, dtype=bool)))
    """

    def init(params: Params) -> ZeroNansState:
        return ZeroNansState(jax.tree.map(lambda p: jnp.any(full_like(p, 0, bool)), params))

    def update(
        updates: PyTree, state: ZeroNansState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ZeroNansState]:
        grads = updates

        def rule(g: Array) -> tuple[Array]:
            return (jnp.where(jnp.isnan(g), jnp.zeros_like(g), g),)

        def found(g: Array | None, before: Array) -> Array:
            return before if g is None else jnp.any(jnp.isnan(g))

        updates = per_leaf(rule, grads, (), params)[0]
        return updates, ZeroNansState(jax.tree.map(found, grads, state.found_nan, is_leaf=lambda x: x is None))

    return Optimizer(init, update)


@specified
def keep_params_nonnegative() -> Optimizer:
    """Updates that keep parameters >= 0: update = max(u, -p). Put it last in a chain.

    A negative parameter is moved at least to 0.

    Example:
        >>> opt, params = keep_params_nonnegative(), jnp.array([1.0, 1.0])
        >>> opt.update(jnp.array([-3.0, -0.5]), opt.init(params), params)[0]
        Array([-1. , -0.5], dtype=float32)
    """

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        params = require_real("keep_params_nonnegative", require_params("keep_params_nonnegative", params))

        def rule(u: Array, p: Array) -> tuple[Array, Array]:
            return jnp.where(p + u < 0, -p, u), p

        return per_leaf(rule, updates, (params,), params)[0], state

    return Optimizer(lambda params: _no_state(require_real("keep_params_nonnegative", params)), update)


@specified
def centralize(*, keep_axis: int = -1) -> Optimizer:
    """Gradient centralization: subtract the mean of each output unit's gradient; vectors and scalars are unchanged.

    update = g - mean of g over all axes but `keep_axis`

    The kernels here and in flax have the outputs on their last axis, (in, out) or (height, width, in, out), so the
    mean is over all others. optax takes it over all but the FIRST, which centres each input instead.

    Args:
        keep_axis: the axis of the output units; 0 for (out, in) kernels and for optax's behaviour.

    Reference: Yong, H., Huang, J., Hua, X. & Zhang, L. (2020). Gradient centralization: a new optimization technique
        for deep neural networks, equation 1.

    Example:
        >>> centralize().update(jnp.array([[1.0, 2.0], [3.0, 6.0]]), ())[0]
        Array([[-1., -2.], [ 1.,  2.]], dtype=float32)
    """

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        def rule(g: Array) -> tuple[Array]:
            if g.ndim < 2:
                return (g,)
            axes = tuple(i for i in range(g.ndim) if i != keep_axis % g.ndim)
            return (g - jnp.mean(g, axis=axes, keepdims=True),)

        return per_leaf(rule, updates, (), params)[0], state

    return Optimizer(_no_state, update)


def _no_state(params: Params) -> EmptyState:
    return EmptyState()


def _unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that belong to one unit, in arrays of the usual layouts."""
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    if len(shape) <= 3:
        return (0,)
    if len(shape) <= 5:
        return tuple(range(len(shape) - 1))
    raise ValueError(
        f"adaptive_grad_clip: the axes of one unit are unknown for a parameter of shape {shape}. Pass axis=..."
    )
