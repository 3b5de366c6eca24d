"""Distance over gradients: step sizes from the distance to the start, without a learning rate to tune."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, map_leaves, per_leaf, widen
from jaxnn.optim.descent import Mask, add_decay, called_on_stored, descent
from jaxnn.optim.norms import norm, scalar_dtype, sum_of_squares, times
from jaxnn.optim.scalars import abs_sq, cast_like, increment, is_zero, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule


class DoGState(NamedTuple):
    """State of distance over gradients.

    `is_init_step`: whether no step was taken yet; `init_params`: the parameters at the start; `max_dist`: the largest
    distance from them so far; `sum_sq_norm_grads`: the sum of squared norms of gradients; `count`: int32 steps taken.
    """

    is_init_step: Array
    init_params: Params
    max_dist: Array
    sum_sq_norm_grads: Array
    count: Array  # type: ignore[assignment] # the name that every rule uses; it hides tuple.count


class DoWGState(NamedTuple):
    """State of distance over weighted gradients.

    `init_params`: the parameters at the start; `weighted_sq_norm_grads`: the sum of squared norms of gradients, each
    times the `estim_sq_dist` of its step; `estim_sq_dist`: the largest squared distance so far; `count`: int32 steps
    taken.
    """

    init_params: Params
    weighted_sq_norm_grads: Array
    estim_sq_dist: Array
    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count


class DistanceOverGradientsState(NamedTuple):
    """State of the layer-wise form, one number for each array.

    `count`: int32 steps taken; `max_dist`: largest distance from the start so far; `grad_sum_of_squares`: the sum of
    squared norms of gradients; `init_params`: the parameters at the start.
    """

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    max_dist: PyTree
    grad_sum_of_squares: PyTree
    init_params: Params


@specified
@called_on_stored("mask")
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[Literal["distance", "learning_rate", "heuristic"], Scalar] = ("heuristic", 1e-6),
    eps: Scalar = 1e-8,
    weight_decay: Scalar | None = None,
    mask: Mask = None,
) -> Optimizer:
    """Gradient descent with step size (largest distance from the start) / sqrt(sum of squared gradient norms).

    g = gradient + weight_decay p;   r <- max(r, |p - p_0|);   G <- G + |g|^2
    update = -learning_rate r / sqrt(G + eps) g

    eps is inside the root. The decay is a penalty: part of the gradient, and so of G. The norms are over all arrays
    together. The authors evaluate the average of the iterates. p are the parameters, p_0 those that `init` received,
    which must be the start of training.

    Args:
        learning_rate: number or schedule, 1 as published.
        init_step: (kind, number) that sets the first step: "distance": r starts at the number; "heuristic": at the
            number times 1 + |p_0|, where 1e-6 is advised, or 1e-4 with batch normalization; "learning_rate": r starts
            at 0 and the number replaces r / sqrt(G + eps) in the first step.
        eps: added under the root, >= 0. Where it is 0 and so is G, the update is 0.
        weight_decay: >= 0. None leaves the term out.

    Reference: Ivgi, M., Hinder, O. & Carmon, Y. (2023). DoG is SGD's best friend: a parameter-free dynamic step size
        schedule.

    Example:
        >>> opt = dog(init_step=("distance", 0.5), eps=0.0)
        >>> params = jnp.zeros(2)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(params), params)[0]
        Array([-0.3, -0.4], dtype=float32)
    """
    kind, first = init_step
    if kind not in ("distance", "learning_rate", "heuristic"):
        raise ValueError(f"dog: init_step must begin with 'distance', 'learning_rate' or 'heuristic', got {kind!r}.")
    require_nonnegative("dog", init_step=first, eps=eps, weight_decay=weight_decay)

    def init(params: Params) -> DoGState:
        zero = jnp.zeros((), scalar_dtype(params))
        r = zero if kind == "learning_rate" else cast_like(first, zero)
        if kind == "heuristic":
            r = r * (1 + safe_sqrt(sum_of_squares(params)))
        # Copies, so that parameters and state may both be donated.
        return DoGState(jnp.ones((), bool), jax.tree.map(jnp.copy, params), r, jnp.copy(zero), zero_count())

    def update(updates: PyTree, state: DoGState, params: Params | None = None, **extra: Any) -> tuple[PyTree, DoGState]:
        params = require_params("dog", params)
        grads = _penalized("dog", updates, params, weight_decay, mask)
        r = jnp.maximum(state.max_dist, safe_sqrt(_moved(params, state.init_params)))
        total = state.sum_sq_norm_grads + sum_of_squares(grads).astype(r.dtype)
        # eps inside the root, as published: it bounds the first step where the first gradients are tiny.
        step = safe_divide(r, safe_sqrt(total + cast_like(eps, r)))
        if kind == "learning_rate":
            step = jnp.where(state.is_init_step, cast_like(first, r), step)
        new = DoGState(jnp.zeros((), bool), state.init_params, r, total, increment(state.count))
        return times(step, grads), new

    return descent(Optimizer(init, update), learning_rate, where="dog")


@specified
@called_on_stored("mask")
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: Scalar | None = None,
    mask: Mask = None,
) -> Optimizer:
    """`dog` with gradients weighted by the distance from the start, later ones more.

    g = gradient + weight_decay p;   r2 <- max(r2, |p - p_0|^2);   V <- V + r2 |g|^2
    update = -learning_rate r2 / (sqrt(V) + eps) g

    eps is outside the root. The decay is a penalty: part of the gradient, and so of V. p, p_0 and the norms are as in
    `dog`.

    Args:
        learning_rate: number or schedule, 1 as published.
        init_estim_sq_dist: r2 at the start, >= 0. None means eps.
        eps: added to the root, >= 0. Where it is 0 and so is V, the update is 0.
        weight_decay: >= 0. None leaves the term out.

    Reference: Khaled, A., Mishchenko, K. & Jin, C. (2023). DoWG unleashed: an efficient universal parameter-free
        gradient descent method, algorithm 1.

    Example:
        >>> opt = dowg(init_estim_sq_dist=0.25, eps=0.0)
        >>> params = jnp.zeros(2)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(params), params)[0]
        Array([-0.3, -0.4], dtype=float32)
    """
    require_nonnegative("dowg", init_estim_sq_dist=init_estim_sq_dist, eps=eps, weight_decay=weight_decay)

    def init(params: Params) -> DoWGState:
        zero = jnp.zeros((), scalar_dtype(params))
        # With r2 = 0 nothing would ever move: eps, as in optax, is the first squared distance too.
        r2 = cast_like(eps if init_estim_sq_dist is None else init_estim_sq_dist, zero)
        return DoWGState(jax.tree.map(jnp.copy, params), zero, r2, zero_count())

    def update(
        updates: PyTree, state: DoWGState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, DoWGState]:
        params = require_params("dowg", params)
        grads = _penalized("dowg", updates, params, weight_decay, mask)
        r2 = jnp.maximum(state.estim_sq_dist, _moved(params, state.init_params))
        total = state.weighted_sq_norm_grads + r2 * sum_of_squares(grads).astype(r2.dtype)
        # eps outside the root, as in optax; the paper's algorithm has none. It bounds steps while V is tiny.
        step = safe_divide(r2, safe_sqrt(total) + cast_like(eps, r2))
        return times(step, grads), DoWGState(state.init_params, total, r2, increment(state.count))

    return descent(Optimizer(init, update), learning_rate, where="dowg")


@specified
def scale_by_distance_over_gradients(
    reps_rel: Scalar = 1e-6, eps: Scalar = 1e-8, param_dtype: DTypeLike = jnp.float32, global_scale: Scalar = 1.0
) -> Optimizer:
    """The direction of `dog` for each array separately (layer-wise DoG), which a learning rate has yet to negate.

    r <- max(r, |p - p_0|), from r = reps_rel (1 + |p_0|);   G <- G + |g|^2
    direction = global_scale r / sqrt(G + eps) g

    eps is inside the root.

    Args:
        reps_rel: of the first distance, >= 0: 1e-6 is advised, or 1e-4 with batch normalization.
        eps: added under the root, >= 0. Where it is 0 and so is G, the update is 0.
        param_dtype: of the stored initial parameters.
        global_scale: factor of the direction, of any sign; -1 descends without another link.

    Reference: Ivgi, M., Hinder, O. & Carmon, Y. (2023). DoG is SGD's best friend: a parameter-free dynamic step size
        schedule (its layer-wise form, L-DoG).

    Example:
        >>> opt = scale_by_distance_over_gradients(reps_rel=0.5, eps=0.0, global_scale=-1.0)
        >>> params = jnp.zeros(2)
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(params), params)[0]
        Array([-0.3, -0.4], dtype=float32)
    """
    require_nonnegative("scale_by_distance_over_gradients", reps_rel=reps_rel, eps=eps)

    def init(params: Params) -> DistanceOverGradientsState:
        wide = widen(require_real("scale_by_distance_over_gradients", params))
        r = jax.tree.map(lambda p: cast_like(reps_rel, p) * (1 + norm(p)), wide)
        kept = jax.tree.map(lambda p: jnp.array(p, param_dtype), params)
        return DistanceOverGradientsState(zero_count(), r, jax.tree.map(jnp.zeros_like, r), kept)

    def update(
        updates: PyTree, state: DistanceOverGradientsState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, DistanceOverGradientsState]:
        params = require_params("scale_by_distance_over_gradients", params)

        def rule(g: Array, r: Array, total: Array, p: Array, start: Array) -> tuple[Array, ...]:
            r = jnp.maximum(r, norm(p - start))
            total = total + jnp.sum(abs_sq(g))
            # eps inside the root, as in `dog`.
            step = safe_divide(r, safe_sqrt(total + cast_like(eps, r)))
            return cast_like(global_scale, r) * step * g, r, total, p, start

        kept = (state.max_dist, state.grad_sum_of_squares, params, state.init_params)
        updates, r, total, _, start = per_leaf(rule, updates, kept, params)
        return updates, DistanceOverGradientsState(increment(state.count), r, total, start)

    return Optimizer(init, update)


def _penalized(where: str, grads: PyTree, params: Params, weight_decay: Scalar | None, mask: Mask) -> PyTree:
    """The gradients of the loss with the penalty weight_decay |p|^2 / 2."""
    if weight_decay is None or is_zero(weight_decay):
        return grads
    return add_decay(grads, params, weight_decay, mask, where=where)


def _moved(params: Params, start: Params) -> Array:
    """The squared distance from the start, over all arrays together."""
    return sum_of_squares(map_leaves(lambda p, s: p - s.astype(p.dtype), params, start))
