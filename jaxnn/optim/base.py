"""The protocol of an optimizer, and the one helper that lifts a rule for arrays to pytrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype
from jaxnn.types import Array, DType, Params, PyTree, Scalar, ScalarOrSchedule

LAST_COUNT = 2**31 - 1


class Optimizer(NamedTuple):
    """A pair of pure functions: optax's protocol, with extra keyword arguments.

    Attributes:
        init: `init(params) -> state`.
        update: `update(grads, state, params=None, **extra) -> (updates, state)`; `updates` are ADDED to the parameters
            (`apply_updates`). Extra arguments that a rule does not know (`value`, `grad`, `value_fn`, ...) are ignored.

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(0.5)
        >>> updates, state = opt.update(jnp.array([1.0, -2.0]), opt.init(jnp.zeros(2)))
        >>> updates
        Array([-0.5,  1. ], dtype=float32)
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]


def apply_updates(params: Params, updates: PyTree) -> Params:
    """params + updates, added in the accumulation dtype and stored in each parameter's own; None passes through.

    Example:
        >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, -0.5)})
        {'w': Array([0.5, 0.5], dtype=float32)}
    """

    def leaf(p: Array | None, u: Array | None) -> Array | None:
        if p is None or u is None:
            return p
        dtype = accumulation_dtype(p.dtype, jnp.result_type(u))
        return (p.astype(dtype) + jnp.asarray(u).astype(dtype)).astype(p.dtype)

    return jax.tree.map(leaf, params, updates, is_leaf=lambda x: x is None)


def moment(params: Params, dtype: DType | None = None) -> PyTree:
    """Zeros like the parameters, in `dtype` or else their accumulation dtype (float32 for bfloat16 and float16).

    Raises:
        TypeError: a leaf is not real floating: its moments would be meaningless.

    Example:
        >>> moment({"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype
        dtype('float32')
    """

    def leaf(path: Any, p: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(p), jnp.floating):
            raise TypeError(
                f"optimizer: parameter {jax.tree_util.keystr(path)} must have a real floating dtype, got "
                f"{jnp.result_type(p)}. Keep integers and strings out of params, or mask them with None."
            )
        return jnp.zeros(jnp.shape(p), accumulation_dtype(jnp.result_type(p)) if dtype is None else dtype)

    return jax.tree_util.tree_map_with_path(leaf, params)


def per_leaf(
    rule: Callable[..., tuple[Any, ...]], grads: PyTree, states: tuple[PyTree, ...], params: Params | None
) -> tuple[PyTree, ...]:
    """Lift `rule(g, *state_leaves) -> (update, *new_state_leaves)` from arrays to pytrees.

    The rule computes in the accumulation dtype: g and the state leaves are widened before it. The update is stored in
    the dtype of the parameter (of the gradient if no params are given) and each state leaf in the dtype that it had,
    so that a state never changes its dtype under `scan`.

    Args:
        rule: the mathematics on one array; a state leaf is None where its tree is None.
        grads: pytree of gradients; where a leaf is None, the update is None and the state stays.
        states: pytrees like the parameters, or None for a state that is not kept.
        params: pytree like the gradients, or None.

    Returns:
        (updates, *new states).

    Raises:
        ValueError: the trees differ in structure, or a gradient in shape.

    Example:
        >>> per_leaf(lambda g, t: (-g, t + g), {"w": jnp.ones(1)}, ({"w": jnp.zeros(1)},), None)
        ({'w': Array([-1.], dtype=float32)}, {'w': Array([1.], dtype=float32)})
    """
    structure: Any
    leaves, structure = jax.tree.flatten(grads, is_leaf=lambda x: x is None)
    columns = [_leaves_like(structure, tree, "the state that init made") for tree in states]
    targets = leaves if params is None else _leaves_like(structure, params, "params")
    results = []
    for g, target, *kept in zip(leaves, targets, *columns, strict=True):
        if g is None:
            results.append((None, *kept))
            continue
        g = jnp.asarray(g)
        if target is not None and jnp.shape(target) != g.shape:
            raise ValueError(f"optimizer: a gradient has shape {g.shape} but its parameter {jnp.shape(target)}.")
        dtype = accumulation_dtype(g.dtype, *(k.dtype for k in kept if k is not None))
        update, *new = rule(g.astype(dtype), *(None if k is None else k.astype(dtype) for k in kept))
        update = update.astype(g.dtype if target is None else jnp.result_type(target))
        results.append((update, *(None if k is None else n.astype(k.dtype) for n, k in zip(new, kept, strict=True))))
    rows = list(zip(*results, strict=True)) or [()] * (1 + len(states))
    updates, *rest = (structure.unflatten(row) for row in rows)
    return updates, *(None if tree is None else new for tree, new in zip(states, rest, strict=True))


def _leaves_like(structure: Any, tree: PyTree, name: str) -> list[Any]:
    """The leaves of `tree` where the gradients have theirs; Nones if the tree is None."""
    if tree is None:
        return [None] * structure.num_leaves
    try:
        return structure.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: the gradients must have the structure of {name}. {error}") from None


def increment(count: Array) -> Array:
    """count + 1, held at the largest int32 instead of wrapping round.

    Example:
        >>> increment(jnp.array(3, jnp.int32))
        Array(4, dtype=int32)
    """
    return jnp.where(count < LAST_COUNT, count + 1, LAST_COUNT)


def at_count(value: ScalarOrSchedule, count: Array) -> Scalar:
    """The value of a schedule at a step count (0 at the first update); a number is itself.

    Example:
        >>> at_count(lambda count: 0.1 * count, 2)
        0.2
    """
    return value(count) if callable(value) else value


def like(value: Scalar, x: Array) -> Array:
    """A hyperparameter, traced or not, as a scalar in the dtype of x, so that it never promotes the arithmetic.

    Example:
        >>> like(0.5, jnp.ones(2, jnp.bfloat16)).dtype
        dtype(bfloat16)
    """
    return jnp.asarray(value).astype(x.dtype)


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the Python number 0, known while tracing (a traced 0 is not).

    Example:
        >>> is_zero(0.0), is_zero(jnp.zeros(()))
        (True, False)
    """
    return isinstance(value, int | float) and value == 0
