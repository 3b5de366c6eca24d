"""From a direction to a step: the learning rate, weight decay and the sign, the same for every rule."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.optim.arguments import require_nonnegative, require_params
from jaxnn.optim.base import Optimizer, map_leaves, widened
from jaxnn.optim.scalars import at_count, cast_like, is_zero
from jaxnn.optim.spec import specified
from jaxnn.tree import called
from jaxnn.types import Array, Params, PyTree, ScalarOrSchedule

P = ParamSpec("P")

Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None
"""A pytree of bools like the parameters, a prefix of one, a function of the parameters to either, or None: all."""


def called_on_stored(*names: str) -> Callable[[Callable[P, Optimizer]], Callable[P, Optimizer]]:
    """Decorator of factories: the named arguments, where they are functions, are called on the parameters as stored.

    Behind `widened` bfloat16 parameters are float32, but a mask may go by dtype. So `update` first calls such
    functions, then makes the optimizer again with what they return.
    """

    def decorate(factory: Callable[P, Optimizer]) -> Callable[P, Optimizer]:
        signature = inspect.signature(factory)

        @functools.wraps(factory)
        def make(*args: P.args, **kwargs: P.kwargs) -> Optimizer:
            opt, bound = factory(*args, **kwargs), signature.bind(*args, **kwargs)
            functions = {name: f for name, f in bound.arguments.items() if name in names and callable(f)}

            def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
                if params is None:
                    return opt.update(updates, state, None, **extra)
                known = {name: _always(called(f, params)) for name, f in functions.items()}
                again = inspect.BoundArguments(signature, OrderedDict(bound.arguments | known))
                return factory(*again.args, **again.kwargs).update(updates, state, params, **extra)

            return Optimizer(opt.init, update) if functions else opt

        return make

    return decorate


def _always(found: PyTree) -> Callable[[Params], PyTree]:
    """A function again: as an argument, None would mean the default."""
    return lambda params: found


@specified
@called_on_stored("mask")
def descent(
    direction: Optimizer,
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    where: str = "optimizer",
) -> Optimizer:
    """Descend along a direction: update = -learning_rate (direction + weight_decay params).

    The decay is decoupled from the gradient's moments and multiplied by the learning rate. All arithmetic is in the
    accumulation dtype and rounded once, at the end, to the dtype of the parameters. The direction is a `scale_by_...`
    transformation whose state has a field `count`. `where` names the rule in messages.

    Reference: Loshchilov, I. & Hutter, F. (2019). Decoupled weight decay regularization, algorithm 2 (whose schedule
        multiplier alone scales the decay; here, as in optax and PyTorch, the whole learning rate does).
    """
    require_nonnegative(where, learning_rate=learning_rate, weight_decay=weight_decay)

    @widened
    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        steps, new_state = direction.update(updates, state, params, **extra)
        if not is_zero(weight_decay):
            params, decay = require_params(where, params), at_count(weight_decay, state.count)
            steps = add_decay(steps, params, decay, mask, where=where)
        rate = at_count(learning_rate, state.count)
        return jax.tree.map(lambda step: -cast_like(rate, step) * step, steps), new_state

    return Optimizer(direction.init, update)


def add_decay(
    updates: PyTree, params: Params, weight_decay: Any, mask: Mask = None, *, where: str = "weight decay"
) -> PyTree:
    """updates + weight_decay params where the mask is True, in the dtypes of the updates."""

    def leaf(u: Array, decays: bool, p: Array) -> Array:
        return u + cast_like(weight_decay, u) * p.astype(u.dtype) if decays else u

    return map_leaves(leaf, updates, mask_tree(where, mask, updates, params), params)


def mask_tree(where: str, mask: Mask, updates: PyTree, params: Params | None = None) -> PyTree:
    """A pytree of bools like the updates, from a mask, a function that returns one, or a prefix. A callable pytree of
    bools, such as an `equinox.Module`, does not count as a function; see `jaxnn.tree.called`.

    Raises:
        ValueError: the mask is not a prefix of the updates' pytree; the message shows both.
        TypeError: a leaf of the mask is not a bool, Python's or NumPy's or a concrete bool array of shape ().
    """
    if mask is None:
        return jax.tree.map(lambda _: True, updates)
    found = jax.tree.map(known_bool, called(mask, updates if params is None else params))
    for leaf in jax.tree.leaves(found):
        if not isinstance(leaf, bool | np.bool_):
            raise TypeError(
                f"{where}: the mask must hold bools that are known while tracing, got {leaf!r} "
                f"({type(leaf).__name__}). Choose by path or shape, or scale the updates instead."
            )
    try:
        return jax.tree.map(lambda m, part: jax.tree.map(lambda _: bool(m), part), found, updates)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{where}: the mask must be a pytree of bools like the parameters, or a prefix of it, got mask "
            f"{jax.tree.structure(found)} for parameters {jax.tree.structure(updates)}. {error}"
        ) from None


def known_bool(value: Any) -> Any:
    """A concrete array of shape () as a Python scalar; anything else unchanged."""
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, jax.core.Tracer) and jnp.ndim(value) == 0:
        return value.item()
    return value
