"""L-BFGS: quasi-Newton directions from the last few steps, with a line search."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between, require_positive_int
from jaxnn.optim.arguments import require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, dtypes_of, initial_moment, map_leaves, widen
from jaxnn.optim.chain import chain
from jaxnn.optim.linesearch.linesearch import filled_like
from jaxnn.optim.linesearch.zoom import scale_by_zoom_linesearch
from jaxnn.optim.norms import inner_product, scalar_dtype, sum_of_squares, times
from jaxnn.optim.scalars import cast_like, increment, zero_count
from jaxnn.optim.scale import identity, scale, scale_by_learning_rate
from jaxnn.optim.spec import specified
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule

WOLFE = scale_by_zoom_linesearch(20, initial_guess_strategy="one")
"""The search of `lbfgs`; it tries step 1 first, the quasi-Newton step, right near a minimum."""


class ScaleByLBFGSState(NamedTuple):
    """`count`: int32 steps taken; the last `params` and `updates` (gradients); their last memory_size differences,
    stacked on axis 0: `diff_params_memory` s_j, `diff_updates_memory` y_j; and `weights_memory` 1 / s_j'y_j, 0 for a
    pair that is skipped."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    params: PyTree
    updates: PyTree
    diff_params_memory: PyTree
    diff_updates_memory: PyTree
    weights_memory: Array


@specified
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True, *, min_curvature: Scalar = 0.0) -> Optimizer:
    """H g, with H the approximate inverse Hessian of the last m steps s_j = w_(j+1) - w_j, y_j = g_(j+1) - g_j.

    H <- (I - rho_j s_j y_j') H (I - rho_j y_j s_j') + rho_j s_j s_j',   rho_j = 1 / s_j'y_j,   oldest pair first,
    from H = gamma I:  gamma = s'y / y'y of the newest pair that counts; min(1, 1 / |g|) if none does

    computed by two loops over the pairs, without a matrix. A pair counts only if s'y > min_curvature (and 1 / s'y does
    not overflow), so H is positive definite and -H g is a descent direction; optax skips only s'y = 0, and its -H g may
    ascend after a step over a saddle (`min_curvature=-math.inf` restores that). A skipped pair still takes a place in
    the memory, so a search that keeps failing falls back to gradient descent.

    w are the parameters and g the gradients, which must be free of noise (full batches).

    Args:
        memory_size: m >= 1.
        scale_init_precond: whether gamma is estimated; else it is 1.
        min_curvature: threshold of s'y for a pair to count.

    Reference: Liu, D. C. & Nocedal, J. (1989). On the limited memory BFGS method for large scale optimization. Nocedal,
        J. & Wright, S. J. (2006). Numerical optimization, algorithm 7.4 and equations 7.16 and 7.20.

    Example:
        >>> opt, params = scale_by_lbfgs(), jnp.array([3.0, 4.0])
        >>> jax.jit(opt.update)(params, opt.init(params), params)[0]
        Array([0.6, 0.8], dtype=float32)
    """
    m = require_positive_int("scale_by_lbfgs", "memory_size", memory_size)
    require_between("scale_by_lbfgs", "min_curvature", min_curvature, -math.inf, math.inf)

    def init(params: Params) -> ScaleByLBFGSState:
        def memory() -> PyTree:
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (m, *x.shape)), initial_moment(params))

        weights = jnp.zeros(m, scalar_dtype(params))
        return ScaleByLBFGSState(
            zero_count(), initial_moment(params), initial_moment(params), memory(), memory(), weights
        )

    def update(
        updates: PyTree, state: ScaleByLBFGSState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ScaleByLBFGSState]:
        w, dtype = require_params("scale_by_lbfgs", params), state.weights_memory.dtype
        g, wide = filled_like(state.updates, updates), dtypes_of(widen(w), state.params)
        s, y = map_leaves(jnp.subtract, wide, state.params), map_leaves(jnp.subtract, g, state.updates)
        curvature = inner_product(y, s).astype(dtype)
        weight = _inverse(curvature)
        counts = (state.count > 0) & (curvature > cast_like(min_curvature, curvature)) & (weight != 0)
        place = (state.count - 1) % m

        def remember(memory: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_index_in_dim(memory, jnp.where(counts, new, 0), place, 0)

        new_state = ScaleByLBFGSState(
            increment(state.count),
            wide,
            g,
            jax.tree.map(remember, state.diff_params_memory, s),
            jax.tree.map(remember, state.diff_updates_memory, y),
            jnp.where(jnp.arange(m) == place, jnp.where(counts, weight, 0), state.weights_memory),
        )
        order = (state.count + jnp.arange(m, dtype=jnp.int32)) % m  # oldest first
        gamma = _scale(new_state, g, order) if scale_init_precond else jnp.ones((), dtype)
        direction = map_leaves(lambda _, d: d, updates, _times_inverse_hessian(g, new_state, gamma, order))
        return dtypes_of(direction, w), new_state

    return Optimizer(init, update)


@specified
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = WOLFE,
    *,
    min_curvature: Scalar = 0.0,
) -> Optimizer:
    """L-BFGS: update = -learning_rate s H g, with H of `scale_by_lbfgs` and the step s found by a line search.

    For losses with little noise and moderately many parameters: the state holds 2 memory_size + 3 copies of them. The
    search needs the extra arguments `value`, `grad` and `value_fn`, which `train.make_step` passes; for a fixed loss,
    `value_and_grad_from_state` saves the evaluation at the start of each step.

    Args:
        learning_rate: number, schedule or None for 1; multiplies H g before the search for s.
        memory_size, scale_init_precond, min_curvature: see `scale_by_lbfgs`.
        linesearch: the last link, a transformation that scales the updates by s; None means s = 1.

    Returns:
        Optimizer whose state is the tuple (`ScaleByLBFGSState`, state of the learning rate, state of the search).

    Reference: Liu, D. C. & Nocedal, J. (1989). On the limited memory BFGS method for large scale optimization.

    Example:
        >>> opt, f = lbfgs(), lambda p: ((p - 3) ** 2).sum()
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grad = jax.value_and_grad(f)(params)
        ...     updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=f)
        ...     return params + updates, state
        >>> params = jnp.array([0.0, 5.0])
        >>> state = opt.init(params)
        >>> for _ in range(4):
        ...     params, state = step(params, state)
        >>> params
        Array([3., 3.], dtype=float32)
    """
    require_nonnegative("lbfgs", learning_rate=learning_rate)
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond, min_curvature=min_curvature),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )


def _inverse(x: Array) -> Array:
    """1 / x; 0 where that is not finite."""
    inverse = 1 / x
    return jnp.where(jnp.isfinite(inverse), inverse, 0)


def _pair(state: ScaleByLBFGSState, i: Array) -> tuple[PyTree, PyTree, Array]:
    """s_i, y_i and rho_i."""
    s, y = (jax.tree.map(lambda x: x[i], tree) for tree in (state.diff_params_memory, state.diff_updates_memory))
    return s, y, state.weights_memory[i]


def _scale(state: ScaleByLBFGSState, g: PyTree, order: Array) -> Array:
    """gamma = 1 / (rho y'y) of the newest pair that counts; min(1, 1 / |g|) if none does."""
    newest = order[::-1][jnp.argmax(state.weights_memory[order[::-1]] != 0)]
    _, y, rho = _pair(state, newest)
    of_pair = _inverse(rho * sum_of_squares(y).astype(rho.dtype))
    first = jnp.minimum(1, 1 / jnp.sqrt(sum_of_squares(g)).astype(rho.dtype))
    return jnp.where(of_pair != 0, of_pair, first)


def _times_inverse_hessian(g: PyTree, state: ScaleByLBFGSState, gamma: Array, order: Array) -> PyTree:
    """H g by algorithm 7.4: newest pair to oldest, gamma, oldest to newest."""

    def plus(tree: PyTree, factor: Array, other: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: a + cast_like(factor, a) * b, tree, other)

    def first(q: PyTree, i: Array) -> tuple[PyTree, Array]:
        s, y, rho = _pair(state, i)
        alpha = rho * inner_product(s, q).astype(rho.dtype)
        return plus(q, -alpha, y), alpha

    def second(r: PyTree, at: tuple[Array, Array]) -> tuple[PyTree, None]:
        i, alpha = at
        s, y, rho = _pair(state, i)
        beta = rho * inner_product(y, r).astype(rho.dtype)
        return plus(r, alpha - beta, s), None

    q, alphas = jax.lax.scan(first, g, order, reverse=True)
    return jax.lax.scan(second, times(gamma, q), (order, alphas))[0]
