"""Calls of a wrapped transformation, ours or optax's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxnn.optim.base import Optimizer, call_update, dtypes_of, is_float0, widen_floats
from jaxnn.optim.chain import require_transformation
from jaxnn.types import Params, PyTree, Scalar


def seen_by(inner: Any, tree: PyTree) -> PyTree:
    """The parameters or gradients in the dtypes that a wrapped transformation receives.

    Ours receive them unchanged and widen them themselves. Others receive accumulation dtypes, in `init` and `update`:
    where parameters and gradients differ in dtype, optax's states change their dtypes, which `lax.scan` rejects as a
    carry.
    """
    return tree if isinstance(inner, Optimizer) else widen_floats(tree)


def init_inner(inner: Any, params: Params) -> Any:
    """`inner.init` of the parameters in the dtypes that `update_inner` passes."""
    return inner.init(seen_by(inner, params))


def update_inner(
    inner: Any, grads: PyTree, state: Any, params: Params | None, extra: dict[str, Any]
) -> tuple[PyTree, Any]:
    """`inner.update`, its updates in the dtypes of the parameters (without params, of the gradients)."""
    updates, new = call_update(inner, seen_by(inner, grads), state, seen_by(inner, params), extra)
    return dtypes_of(updates, grads if params is None else params), new


def require_dtypes(where: str, new: PyTree, kept: PyTree) -> PyTree:
    """The new state of a wrapped transformation; TypeError if an array has another dtype than in `kept`.

    Call it before selecting one of the two states: `lax.cond` would raise, `jnp.where` would silently promote.
    """
    before = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(kept)}
    for path, x in jax.tree_util.tree_leaves_with_path(new):
        place = jax.tree_util.keystr(path)
        old = getattr(before.get(place), "dtype", None)
        if old is not None and old != getattr(x, "dtype", old):
            raise TypeError(
                f"{where}: the wrapped transformation's state at {place or 'the top'} was {old} "
                f"and is {x.dtype} after its update. A step that may be skipped needs one dtype for both: let its init "
                f"make {x.dtype}."
            )
    return new


def update_if(
    condition: Scalar,
    otherwise: Callable[[PyTree], PyTree],
    inner: Any,
    grads: PyTree,
    state: Any,
    params: Params | None,
    extra: dict[str, Any],
) -> tuple[PyTree, Any]:
    """`update_inner` where the condition holds, computed only there; else other updates and the unchanged state.

    Where `vmap` maps the condition, both branches are computed. `otherwise(grads)` returns the other updates. In
    both branches gradients of dtype float0, which `lax.cond` rejects, are None. Updates of both branches are stored
    in the dtypes of the parameters (without params, of the gradients). TypeError if the inner state changes a
    dtype.
    """
    grads = jax.tree.map(lambda g: None if is_float0(g) else g, grads)
    like = grads if params is None else params

    def updated() -> tuple[PyTree, Any]:
        updates, new = update_inner(inner, grads, state, params, extra)
        return updates, require_dtypes("optimizer", new, state)

    return jax.lax.cond(condition, updated, lambda: (dtypes_of(otherwise(grads), like), state))


def require_inner(where: str, inner: Any) -> Any:
    """The inner transformation; TypeError unless it has `init` and `update`."""
    return require_transformation(where, "the wrapped value", inner)
