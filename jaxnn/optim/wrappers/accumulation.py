"""Gradient accumulation over several minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.optim.base import Optimizer, Transformation, dtypes_of, initial_moment, map_leaves, per_leaf, widen
from jaxnn.optim.inner import init_inner, require_inner, update_if
from jaxnn.optim.scalars import abs_sq, at_count, cast_like, increment, zero_count
from jaxnn.optim.spec import specified
from jaxnn.types import Array, DTypeLike, Params, PyTree, Scalar

ShouldSkipUpdateFunction: TypeAlias = Callable[..., tuple[Any, PyTree]]
"""(gradients, number of updates so far, params) -> (whether to skip these gradients, a report to keep)."""


class MultiStepsState(NamedTuple):
    """State of `accumulate` and `MultiSteps`.

    `mini_step`: int32 gradients accumulated since the last update; `gradient_step`: int32 updates so far;
    `inner_opt_state`: of the wrapped optimizer; `acc_grads`: the mean or sum of the accumulated gradients;
    `skip_state`: the last report of the function that skips gradients.
    """

    mini_step: Array
    gradient_step: Array
    inner_opt_state: Any
    acc_grads: PyTree
    skip_state: PyTree = ()


class ApplyEvery(NamedTuple):
    """`count`: int32 updates in the sum, 0 once k are in it; `grad_acc`: the sum."""

    count: Array  # type: ignore[assignment] # optax's name; it hides tuple.count
    grad_acc: PyTree


@specified
def accumulate(
    opt: Transformation,
    every_k: int | Callable[[Array], Scalar],
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> Optimizer:
    """One update from the mean of every k gradients; the other k - 1 updates are 0.

    mean <- mean + (g - mean) / n,   n = 1 ... k;   at n = k: update = opt(mean), mean <- 0

    The inner update is computed at every k-th gradient only (optax computes and discards the others), except where
    `vmap` maps the state. A NaN gradient spoils the mean of its own k gradients, not the later means.

    Args:
        opt: Optimizer, or an optax transformation. It receives the extra arguments of the last gradient.
        every_k: gradients for each update, >= 1, or a function of the number of updates so far.
        use_grad_mean: the mean of the gradients; their sum if False.
        should_skip_update_fn: (gradients, updates so far, params) -> (whether to skip this gradient, a pytree to
            report), such as `skip_not_finite`.
        accumulator_dtype: of the accumulated gradients; None means the accumulation dtype.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = accumulate(optim.sgd(1.0), 2), jnp.zeros(1)
        >>> first, state = opt.update(jnp.array([1.0]), opt.init(params), params)
        >>> second, state = opt.update(jnp.array([3.0]), state, params)
        >>> first, second
        (Array([0.], dtype=float32), Array([-2.], dtype=float32))
    """
    require_inner("accumulate", opt)
    if not callable(every_k) and not isinstance(every_k, jax.Array):
        require_positive_int("accumulate", "every_k", every_k)
    should_skip = should_skip_update_fn or (lambda grads, step, params: (jnp.zeros((), bool), ()))

    def init(params: Params) -> MultiStepsState:
        nothing = jax.tree.map(jnp.zeros_like, params)
        return MultiStepsState(
            zero_count(),
            zero_count(),
            init_inner(opt, params),
            initial_moment(params, accumulator_dtype),
            should_skip(nothing, zero_count(), params)[1],
        )

    def update(
        updates: PyTree, state: MultiStepsState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MultiStepsState]:
        given = updates
        skip, report = should_skip(updates, state.gradient_step, params)
        skip = jnp.asarray(skip)
        if skip.shape != () or skip.dtype != bool:
            raise ValueError(
                "accumulate: should_skip_update_fn must return (bool of shape (), pytree), got "
                f"{skip.dtype} of shape {skip.shape}. Reduce it with jnp.any or jnp.all."
            )
        n = state.mini_step + 1

        def gather(g: Array, acc: Array) -> tuple[Array, Array]:
            return g, acc + (g - acc) / n.astype(jnp.real(acc).dtype) if use_grad_mean else acc + g

        _, gathered = per_leaf(gather, updates, (state.acc_grads,), None)
        emits = ~skip & (n >= at_count(every_k, state.gradient_step))
        updates, inner_state = update_if(
            emits,
            lambda grads: jax.tree.map(jnp.zeros_like, grads),
            opt,
            map_leaves(lambda g, acc: acc, updates, gathered),
            state.inner_opt_state,
            params,
            extra,
        )
        acc_grads = jax.tree.map(
            lambda new, old: jnp.where(skip, old, jnp.where(emits, jnp.zeros_like(new), new)), gathered, state.acc_grads
        )
        # Without params the inner rule returns the dtype of the accumulated gradients.
        return dtypes_of(updates, given if params is None else params), MultiStepsState(
            jnp.where(skip, state.mini_step, jnp.where(emits, 0, n)),
            jnp.where(emits, increment(state.gradient_step), state.gradient_step),
            inner_state,
            acc_grads,
            dtypes_of(report, state.skip_state),
        )

    return Optimizer(init, update)


class MultiSteps:
    """`accumulate` with optax's name, arguments and methods.

    `accumulator_dtype` is None by default; optax rounds float64 gradients to float32.

    Example:
        >>> from jaxnn import optim
        >>> opt = MultiSteps(optim.sgd(1.0), every_k_schedule=2)
        >>> updates, state = opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
        >>> opt.has_updated(state)
        Array(False, dtype=bool)
    """

    def __init__(
        self,
        opt: Transformation,
        every_k_schedule: int | Callable[[Array], Scalar],
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DTypeLike | None = None,
    ) -> None:
        self.inner_opt = opt
        self._outer = accumulate(
            opt,
            every_k_schedule,
            use_grad_mean=use_grad_mean,
            should_skip_update_fn=should_skip_update_fn,
            accumulator_dtype=accumulator_dtype,
        )

    def init(self, params: Params) -> MultiStepsState:
        """The state before the first gradient."""
        return self._outer.init(params)

    def update(
        self, updates: PyTree, state: MultiStepsState, params: Params | None = None, **extra_args: Any
    ) -> tuple[PyTree, MultiStepsState]:
        """Accumulate one gradient; the updates are 0 unless it is the last of k."""
        return self._outer.update(updates, state, params, **extra_args)

    def has_updated(self, state: MultiStepsState) -> Array:
        """Whether the last gradient completed an update (still True if the one after it was skipped)."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> Optimizer:
        """The pair of functions."""
        return self._outer


@specified
def apply_every(k: Scalar = 1) -> Optimizer:
    """The sum of every k updates, at every k-th step; 0 at the others.

    Unlike `accumulate` it is a link of a chain: the links before it run at every step.

    Args:
        k: >= 1.

    Example:
        >>> opt = apply_every(2)
        >>> first, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
        >>> first, opt.update(jnp.array([3.0]), state)[0]
        (Array([0.], dtype=float32), Array([4.], dtype=float32))
    """
    if not isinstance(k, jax.Array):
        require_positive_int("apply_every", "k", k)

    def init(params: Params) -> ApplyEvery:
        return ApplyEvery(zero_count(), initial_moment(params))

    def update(
        updates: PyTree, state: ApplyEvery, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, ApplyEvery]:
        n = state.count + 1
        emits = n >= k

        def rule(g: Array, acc: Array) -> tuple[Array, Array]:
            acc = jnp.where(state.count == 0, g, acc + g)
            return jnp.where(emits, acc, jnp.zeros_like(acc)), acc

        updates, grad_acc = per_leaf(rule, updates, (state.grad_acc,), params)
        return updates, ApplyEvery(jnp.where(emits, 0, n), grad_acc)

    return Optimizer(init, update)


def skip_not_finite(updates: PyTree, gradient_step: Scalar, params: Params | None) -> tuple[Array, dict[str, Array]]:
    """For `MultiSteps`: skip gradients with an infinity or NaN, and report the number of such entries.

    It returns (skip, {"should_skip": skip, "num_not_finite": their number}).

    Example:
        >>> skip_not_finite(jnp.array([1.0, jnp.nan]), 0, None)[1]["num_not_finite"]
        Array(1, dtype=int32)
    """
    counts = [jnp.sum(~jnp.isfinite(u), dtype=jnp.int32) for u in jax.tree.leaves(updates)]
    total = sum(counts, zero_count())
    return total > 0, {"should_skip": total > 0, "num_not_finite": total}


def skip_large_updates(
    updates: PyTree, gradient_step: Scalar, params: Params | None, max_squared_norm: Scalar
) -> tuple[Array, dict[str, Array]]:
    """For `MultiSteps`: skip gradients of squared norm >= max_squared_norm, or NaN, and report that squared norm.

    It returns (skip, {"should_skip": skip, "norm_squared": the squared norm of all entries together}). Bind it with
    `functools.partial(skip_large_updates, max_squared_norm=...)`.

    Example:
        >>> skip_large_updates(jnp.array([3.0, 4.0]), 0, None, 16.0)[0]
        Array(True, dtype=bool)
    """
    squares = [jnp.sum(abs_sq(u)) for u in jax.tree.leaves(widen(updates))]
    total = sum(squares[1:], squares[0]) if squares else jnp.zeros(())
    skip = ~(total < cast_like(max_squared_norm, total))
    return skip, {"should_skip": skip, "norm_squared": total}
