"""Shampoo: gradients multiplied along every axis by an inverse root of that axis's second moments."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_positive_int
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.axes import by_axis, by_leaf
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, widened
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.matrix.kronecker import multiply, second_moments, squeezed, unless_none, zero_factor
from jaxnn.optim.matrix.spectral import positive_power, power
from jaxnn.optim.norms import norm
from jaxnn.optim.scalars import cast_like, increment, is_zero, one_minus_power, zero_count
from jaxnn.optim.spec import specified
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule

Graft = Literal["adam", "sgd"] | None


class ShampooState(NamedTuple):
    """`count`: int32 steps taken; `mu`: mean of gradients (None if b1 is a Python 0); `nu`: mean or sum of squares
    (None unless grafted to Adam); `statistics`, `preconditioners`: second moments and their inverse roots, tuples of
    pytrees: entry i has the matrix, or for a very long axis its diagonal, of the i-th axis longer than 1 of every
    array, None where an array has no such axis.
    """

    count: Array  # type: ignore[assignment] # optax's name for it; it hides tuple.count
    mu: PyTree
    nu: PyTree
    statistics: PyTree
    preconditioners: PyTree


@specified
def scale_by_shampoo(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    *,
    graft: Graft = "adam",
    update_every: int = 10,
    max_dim: int = 1024,
    relative_eps: Scalar = 1e-6,
    graft_eps: Scalar = 1e-8,
) -> Optimizer:
    """Shampoo's direction, which `shampoo` multiplies by -learning_rate.

    For each of the k axes i of g that are longer than 1, with G_i the matrix whose rows are the slices along i:
    H_i <- b2 H_i + (1 - b2) G_i G_i'   (if b2 = 1: H_i + G_i G_i', as published);   t = 1, 2, ...
    H_i_hat = H_i / (1 - b2^t)   (if b2 = 1: H_i)
    P_i = (H_i_hat + (eps + relative_eps largest eigenvalue of H_i_hat) I)^(-1/(2k)),   where (t - 1) % update_every = 0
    mu <- b1 mu + (1 - b1) g;   m = mu / (1 - b1^t)
    direction = m multiplied along every axis i by P_i;   for a matrix P_1 m P_2

    With grafting, each array keeps this direction and takes the norm of another rule's: of m for "sgd", of
    m / (sqrt(nu_hat) + graft_eps) for "adam", with nu <- b2 nu + (1 - b2) g^2 and nu_hat as for H.

    A vector has k = 1: full-matrix Adagrad. Where an axis is longer than `max_dim`, the diagonal of H_i replaces it,
    without relative_eps. Axes of length 1 are left out; a scalar is a vector of one entry.

    Roots are taken of eigenvalues (eigh, in the accumulation dtype), after these are raised to at least the rounding
    error of the largest one; 0^(-1/(2k)) := 0, so zero gradients give zero directions.

    Published form: b1=0.0, b2=1.0, graft=None, update_every=1, relative_eps=0.0, and eps for its epsilon.

    Args:
        b1: decay of the mean of gradients, in [0, 1). A Python 0.0 keeps no mu.
        b2: decay of the second moments, in [0, 1]. 1 means sums.
        eps: added to the eigenvalues, >= 0, in units of squared gradients, inside the root.
        graft: "adam", "sgd" or None; without it steps are unbounded and, for b2 = 1, shrink as 1 / sqrt(t).
        update_every: steps between computations of the roots, >= 1; none is computed in between.
        max_dim: longest axis with a full matrix, >= 1; memory grows as its square, the time of a root as its cube.
        relative_eps: added to the eigenvalues as a fraction of the largest, >= 0.
        graft_eps: added to the root of nu, outside it, >= 0.

    Reference: Gupta, V., Koren, T. & Singer, Y. (2018). Shampoo: preconditioned stochastic tensor optimization,
        algorithms 1 and 2. Grafting, stale roots and the relative ridge: Anil, R., Gupta, V., Koren, T., Regan, K. &
        Singer, Y. (2020). Scalable second order optimization for deep learning. Means instead of sums, of the gradient
        too: Shi, H.-J. M. et al. (2023). A distributed data-parallel PyTorch implementation of the distributed Shampoo
        optimizer for training neural networks at-scale.

    Example:
        >>> opt = scale_by_shampoo(b1=0.0, b2=1.0, graft=None, relative_eps=0.0)
        >>> jax.jit(opt.update)(jnp.array([[3.0, 0.0], [0.0, -4.0]]), opt.init(jnp.zeros((2, 2))))[0].round(3)
        Array([[ 1.,  0.],
               [ 0., -1.]], dtype=float32)
    """
    require_decay("shampoo", b1=b1)
    require_between("shampoo", "b2", b2, 0, 1)
    require_nonnegative("shampoo", eps=eps, relative_eps=relative_eps, graft_eps=graft_eps)
    every = require_positive_int("shampoo", "update_every", update_every)
    longest = require_positive_int("shampoo", "max_dim", max_dim)
    if graft not in ("adam", "sgd", None):
        raise ValueError(f'shampoo: graft must be "adam", "sgd" or None, got {graft!r}.')

    def init(params: Params) -> ShampooState:
        whole = initial_moment(require_real("shampoo", params))

        def factors(x: Array) -> tuple[Array, ...]:
            x = x.reshape(squeezed(x.shape))
            return tuple(zero_factor(x, axis, longest) for axis in range(x.ndim))

        statistics, preconditioners = (by_axis(jax.tree.map(factors, whole), params) for _ in range(2))
        mu = None if is_zero(b1) else whole
        nu = initial_moment(params) if graft == "adam" else None  # not mu's arrays: a state may be donated
        return ShampooState(zero_count(), mu, nu, statistics, preconditioners)

    @widened
    def update(
        updates: PyTree, state: ShampooState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ShampooState]:
        count = increment(state.count)
        d2 = jnp.asarray(b2, float)
        c1, c2 = one_minus_power(b1, count), jnp.where(d2 == 1, 1.0, one_minus_power(b2, count))
        fresh = jnp.where(d2 == 1, 1.0, 1 - d2)
        kept, kept_roots = (by_leaf(trees, updates) for trees in (state.statistics, state.preconditioners))
        wide = map_leaves(lambda g, factors: g.astype(factors[0].dtype), updates, kept)

        def accumulated(g: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            g = g.reshape(squeezed(g.shape))
            return tuple(
                cast_like(b2, h) * h + cast_like(fresh, h) * second_moments(g, axis, h) for axis, h in enumerate(sums)
            )

        def roots(g: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            exponent = -0.5 / len(sums)
            return tuple(_power(h / cast_like(c2, h), exponent, eps, relative_eps) for h in sums)

        statistics = unless_none(map_leaves(accumulated, wide, kept), kept)
        preconditioners = jax.lax.cond(
            state.count % every == 0,
            lambda: unless_none(map_leaves(roots, wide, statistics), kept_roots),
            lambda: kept_roots,
        )
        mu, means = None, wide
        if state.mu is not None:
            mu = map_leaves(lambda g, m: cast_like(b1, g) * m + (1 - cast_like(b1, g)) * g, wide, state.mu)
            means = jax.tree.map(lambda m: m / cast_like(c1, m), mu)
            mu = unless_none(mu, state.mu)

        def preconditioned(m: Array, factors: tuple[Array, ...]) -> Array:
            direction = m.reshape(squeezed(m.shape))
            for axis, factor in enumerate(factors):
                direction = multiply(direction, axis, factor)
            return direction.reshape(m.shape)

        nu, sizes = None, means
        if state.nu is not None:
            nu = map_leaves(lambda g, n: cast_like(b2, g) * n + cast_like(fresh, g) * g * g, wide, state.nu)

            def adam(m: Array, n: Array) -> Array:
                # graft_eps outside the root: the grafted norm is Adam's, with Adam's eps.
                return safe_divide(m, safe_sqrt(n / cast_like(c2, n)) + cast_like(graft_eps, n))

            sizes = map_leaves(adam, means, nu)
            nu = unless_none(nu, state.nu)
        steps = map_leaves(preconditioned, means, preconditioners)
        if graft is not None:
            steps = jax.tree.map(lambda u, s: safe_divide(norm(s), norm(u)) * u, steps, sizes)
        return steps, ShampooState(count, mu, nu, by_axis(statistics, updates), by_axis(preconditioners, updates))

    return Optimizer(init, update)


@specified
def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    graft: Graft = "adam",
    update_every: int = 10,
    max_dim: int = 1024,
    relative_eps: Scalar = 1e-6,
    graft_eps: Scalar = 1e-8,
) -> Optimizer:
    """Shampoo: update = -learning_rate (shampoo's direction + weight_decay params).

    The direction and its arguments are in `scale_by_shampoo`. By default every array moves as far as with Adam, so
    Adam's learning rates suit. The decay is decoupled and multiplied by the learning rate.

    Reference: Gupta, V., Koren, T. & Singer, Y. (2018). Shampoo: preconditioned stochastic tensor optimization,
        algorithms 1 and 2.

    Example:
        >>> opt, params = shampoo(0.5), jnp.ones((2, 2))
        >>> updates, state = jax.jit(opt.update)(jnp.array([[3.0, 0.0], [0.0, -3.0]]), opt.init(params), params)
        >>> print((params + updates).round(2))
        [[0.5 1. ]
         [1.  1.5]]
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        eps,
        graft=graft,
        update_every=update_every,
        max_dim=max_dim,
        relative_eps=relative_eps,
        graft_eps=graft_eps,
    )
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="shampoo")


def _power(h: Array, exponent: float, eps: Scalar, relative_eps: Scalar) -> Array:
    """`power` of a symmetric matrix; of a vector (its diagonal) (h + eps)^exponent, with 0^exponent := 0."""
    if h.ndim == 1:
        # eps beside the diagonal, inside the root, as the published eps I of the full matrix.
        return positive_power(h + cast_like(eps, h), exponent)
    return compiler_sharded(lambda *a: power(a[0], exponent, *a[1:]), h, h, eps, relative_eps)
