"""Sophia: momentum divided by a running mean of the Hessian's diagonal, and clipped."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.optim.arguments import require_decay, require_extra, require_nonnegative, require_params, require_real
from jaxnn.optim.base import Optimizer, call_update, dtypes_of, initial_moment, per_leaf
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.inner import init_inner, require_dtypes, seen_by
from jaxnn.optim.keys import given_key, raw_key, typed_key
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Key, Params, PyTree, Scalar, ScalarOrSchedule


class HutchinsonState(NamedTuple):
    """`key`: raw data of the random key of the next estimate, uint32."""

    key: Array


class SophiaState(NamedTuple):
    """`count`: int32 steps; `mu`, `nu`: means of gradients, Hessian diagonals; `hessian_fn_state`: the estimator's."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    mu: PyTree
    nu: PyTree
    hessian_fn_state: Any


@specified
def hutchinson_estimator_diag_hessian(random_seed: Key | int | None = None) -> Optimizer:
    """An unbiased estimate of the diagonal of the Hessian H: r * (H r), with r random signs.

    The variance of entry i is sum_{j != i} H_ij^2, so that a diagonal Hessian is found exactly. `update` needs the
    extra argument `obj_fn` (params -> loss); the gradients are not used.

    Args:
        random_seed: random key, typed or raw, or an int to make one from; None means 0.

    Reference: Hutchinson, M. F. (1989). A stochastic estimator of the trace of the influence matrix; for the diagonal:
        Bekas, C., Kokiopoulou, E. & Saad, Y. (2007). An estimator for the diagonal of a matrix, equation 2.

    Example:
        >>> opt = hutchinson_estimator_diag_hessian()
        >>> params = jnp.array([1.0, 2.0])
        >>> opt.update(params, opt.init(params), params, obj_fn=lambda p: jnp.sum(p**3))[0]
        Array([ 6., 12.], dtype=float32)
    """
    first = given_key("hutchinson_estimator_diag_hessian", 0 if random_seed is None else random_seed)

    def init(params: Params) -> HutchinsonState:
        require_real("hutchinson_estimator_diag_hessian", params)
        return HutchinsonState(raw_key(first))

    def update(
        updates: PyTree, state: HutchinsonState, params: Params | None = None, *, obj_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, HutchinsonState]:
        params = require_params("hutchinson_estimator_diag_hessian", params)
        require_extra("hutchinson_estimator_diag_hessian", "obj_fn", obj_fn)
        key, draw = jax.random.split(typed_key(state.key, first))
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(draw, max(len(leaves), 1))[: len(leaves)]
        drawn = [jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
        signs = jax.tree.unflatten(structure, drawn)
        _, products = jax.jvp(jax.grad(obj_fn), (params,), (signs,))
        return jax.tree.map(lambda r, h: r * h, signs, products), HutchinsonState(jax.random.key_data(key))

    return Optimizer(init, update)


@specified
def scale_by_sophia(
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = None,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> Optimizer:
    """Sophia's direction, which `sophia` multiplies by -learning_rate.

    mu <- b1 mu + (1 - b1) g;   mu_hat = mu / (1 - b1^t);   t = 1, 2, ...
    direction = clip(mu_hat / max(gamma nu, eps), -clip_threshold, clip_threshold)
    then, where t - 1 is a multiple of update_interval:  nu <- b2 nu + (1 - b2) (estimate of the Hessian's diagonal)

    As in optax, nu is the previous step's and mu is bias-corrected; the paper uses the new nu and the uncorrected mu.
    Where nu <= 0, as at the first step and at negative curvature, the denominator is eps, and all but tiny entries step
    by clip_threshold sign(mu). 0/0 := 0. `update` needs the extra arguments of the estimator: Hutchinson's needs
    `obj_fn` (params -> loss).

    Args:
        b1, b2: decays of the means, in [0, 1). nu changes only once in update_interval steps.
        eps: least denominator.
        gamma: weight of the curvature: the larger, the fewer entries are clipped.
        clip_threshold: the largest step of an entry; None clips nothing.
        update_interval: steps from one estimate to the next; static.
        hessian_diagonal_fn: a transformation whose updates are the diagonal (averaged over devices by that
            transformation, if there are several); extra arguments go to it. None means
            `hutchinson_estimator_diag_hessian()`.
        mu_dtype: of mu; None means float32 for half-precision parameters, else the parameter's. nu always has this
            default.
        verbose: whether to print the win rate, the fraction of entries that are not clipped (0.1 to 0.5 is good).
        print_win_rate_every_n_steps: steps between prints; 0 means never, and so does clip_threshold=None.

    Reference: Liu, H., Li, Z., Hall, D., Liang, P. & Ma, T. (2024). Sophia: a scalable stochastic second-order
        optimizer for language model pre-training, algorithms 1 and 3.

    Example:
        >>> opt = scale_by_sophia()
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params, obj_fn=lambda p: jnp.sum(p**3))[0]
        Array([1.], dtype=float32)
    """
    require_decay("sophia", b1=b1, b2=b2)
    require_nonnegative("sophia", eps=eps, gamma=gamma, clip_threshold=clip_threshold)
    interval = require_positive_int("sophia", "update_interval", update_interval)
    every = require_positive_int("sophia", "print_win_rate_every_n_steps", print_win_rate_every_n_steps, minimum=0)
    estimator = hutchinson_estimator_diag_hessian() if hessian_diagonal_fn is None else hessian_diagonal_fn

    def init(params: Params) -> SophiaState:
        require_real("sophia", params)
        return SophiaState(
            zero_count(), initial_moment(params, mu_dtype), initial_moment(params), init_inner(estimator, params)
        )

    def update(
        updates: PyTree, state: SophiaState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SophiaState]:
        params = require_params("sophia", params)
        count = increment(state.count)

        def rule(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = cast_like(b1, g) * mu + (1 - cast_like(b1, g)) * g
            mu_hat = mu / (1 - cast_like(b1, g) ** count.astype(g.dtype))
            # eps is the least denominator, as published: where nu <= 0 the quotient is huge, and clipped to the sign.
            direction = jnp.where(mu_hat == 0, 0, mu_hat / jnp.maximum(cast_like(gamma, g) * nu, cast_like(eps, g)))
            if clip_threshold is not None:
                direction = jnp.clip(direction, -cast_like(clip_threshold, g), cast_like(clip_threshold, g))
            return direction, mu, nu

        def mean(h: Array, nu: Array) -> tuple[Array, Array]:
            return h, cast_like(b2, h) * nu + (1 - cast_like(b2, h)) * h

        def estimate(nu: PyTree, kept: Any) -> tuple[PyTree, Any]:
            seen = seen_by(estimator, params)
            diagonal, new = call_update(estimator, seen_by(estimator, updates), kept, seen, extra)
            return per_leaf(mean, diagonal, (nu,), None)[1], require_dtypes("sophia", new, kept)

        directions, mu, _ = per_leaf(rule, updates, (state.mu, state.nu), params)
        if verbose and every and clip_threshold is not None:
            _print_win_rate(directions, clip_threshold, count, every)
        due = state.count % interval == 0
        nu, kept = jax.lax.cond(due, estimate, lambda nu, kept: (nu, kept), state.nu, state.hessian_fn_state)
        return directions, SophiaState(count, mu, nu, kept)

    return Optimizer(init, update)


@specified
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = None,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> Optimizer:
    """Sophia: update = -learning_rate (clip(mu_hat / max(gamma nu, eps), +-clip_threshold) + weight_decay params).

    mu_hat and nu are running means of the gradient and of the Hessian's diagonal, which is estimated once in
    update_interval steps. The decay is decoupled and multiplied by the learning rate. `update` needs the extra argument
    `obj_fn` (params -> loss of this step's batch), or what `hessian_diagonal_fn` needs instead. The other arguments are
    those of `scale_by_sophia`.

    Reference: Liu, H., Li, Z., Hall, D., Liang, P. & Ma, T. (2024). Sophia: a scalable stochastic second-order
        optimizer for language model pre-training, algorithm 3.

    Example:
        >>> opt = sophia(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0])
        >>> opt.update(jnp.array([3.0]), opt.init(params), params, obj_fn=lambda p: jnp.sum(p**3))[0]
        Array([-0.15], dtype=float32)
    """
    direction = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        verbose,
        print_win_rate_every_n_steps,
    )
    inner = descent(direction, learning_rate, weight_decay=weight_decay, mask=weight_decay_mask, where="sophia")

    def update(
        updates: PyTree, state: SophiaState, params: Params | None = None, *, obj_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, SophiaState]:
        if obj_fn is not None:
            # `descent` widens the parameters, but the loss may need their own dtypes.
            extra["obj_fn"] = lambda wide: obj_fn(dtypes_of(wide, params))
        return inner.update(updates, state, params, **extra)

    return Optimizer(inner.init, update)


def _print_win_rate(directions: PyTree, clip_threshold: Scalar, count: Array, every: int) -> None:
    """Print, every so many steps, the fraction of entries that are not clipped."""
    leaves = jax.tree.leaves(directions)
    free = sum(jnp.sum(jnp.abs(u) < cast_like(clip_threshold, u)) for u in leaves)
    rate = free / sum(u.size for u in leaves)
    jax.lax.cond(count % every == 0, lambda: jax.debug.print("sophia: win rate {}", rate), lambda: None)
