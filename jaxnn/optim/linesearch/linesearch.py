"""Shared parts of line searches: the loss along a direction, and reuse of the last value and gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.optim.base import dtypes_of
from jaxnn.optim.norms import inner_product, times
from jaxnn.types import Array, DType, Params, PyTree


class Point(NamedTuple):
    """A trial on a line: the `step` along it, and the loss there: `value`, derivative `slope`, gradient `grad`."""

    step: Array
    value: Array
    slope: Array
    grad: PyTree


def take_from(extra: dict[str, Any], value_fn: Callable[..., Any]) -> dict[str, Any]:
    """The extra arguments of `update` that `value_fn` names after the parameters; the others are for other rules.

    optax raises on these, so its searches cannot be chained with rules that take arguments.
    """
    names = list(inspect.signature(value_fn).parameters)[1:]
    return {name: value for name, value in extra.items() if name in names}


def step_along(step: Array, direction: PyTree) -> PyTree:
    """step direction; 0 where the step is 0, even if the direction is NaN or infinite."""
    return jax.tree.map(lambda u: jnp.where(step == 0, 0, u), times(step, direction))


def slope_along(direction: PyTree, grad: PyTree, dtype: DType) -> Array:
    """The derivative of the loss along a direction: Re(sum_i grad_i direction_i), grad from `jax.grad`.

    For complex parameters `jax.grad` returns the conjugate of the ascent direction, so nothing is conjugated here.
    """
    return inner_product(direction, jax.tree.map(jnp.conj, grad)).astype(dtype)


def filled_like(kept: PyTree, grads: PyTree) -> PyTree:
    """The gradients in the dtypes of those in a state; 0 where a gradient is None but its parameter is not."""
    cast = dtypes_of(grads, kept)
    return jax.tree.map(lambda k, g: jnp.zeros_like(k) if g is None else g, kept, cast)


def value_and_grad_from_state(value_fn: Callable[..., Array]) -> Callable[..., tuple[Array, PyTree]]:
    """`jax.value_and_grad(value_fn)` that reuses the value and gradient in a line search's state.

    The search ends where the next step begins, so this saves one evaluation a step. Only for a loss that does not
    change between steps: not for minibatches.

    Args:
        value_fn: (params, *args, **kwargs) -> scalar.

    Returns:
        `f(params, *args, state=state, **kwargs) -> (value, grad)`: those in the state if its value is finite (it is
        infinite at the start), else computed.

    Raises:
        ValueError: the state holds no line search's state that stores a gradient, or several states of line searches.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = optim.lbfgs(), jnp.array([1.0, 2.0])
        >>> value, grad = value_and_grad_from_state(lambda p: (p**2).sum())(params, state=opt.init(params))
        >>> value
        Array(5., dtype=float32)
    """

    def value_and_grad(params: Params, *args: Any, state: Any, **kwargs: Any) -> tuple[Array, PyTree]:
        found = [node for node in jax.tree.leaves(state, is_leaf=_keeps_both) if _keeps_both(node)]
        if len(found) != 1 or found[0].grad is None:
            got = "one without gradient" if len(found) == 1 else f"{len(found)} of them"
            raise ValueError(
                "value_and_grad_from_state: the state must hold one state with fields `value` and `grad`, got "
                f"{got}. Use lbfgs, scale_by_zoom_linesearch, or scale_by_backtracking_linesearch(..., "
                "store_grad=True), once in a chain."
            )
        value, grad = found[0].value, found[0].grad

        def computed() -> tuple[Array, PyTree]:
            anew, grads = jax.value_and_grad(value_fn)(params, *args, **kwargs)
            return jnp.asarray(anew).astype(value.dtype), dtypes_of(grads, grad)

        return jax.lax.cond(jnp.isfinite(value), lambda: (value, grad), computed)

    return value_and_grad


def _keeps_both(node: Any) -> bool:
    """Whether it is the state of a line search; parameters of these names do not count."""
    return {"value", "grad"} <= set(getattr(node, "_fields", ()))
