"""Rules of combinators: the backward pass visits their parts in reverse order.

**Serial**, y = f_n(... f_1(x)): dC/dx = J_1' ... J_n' dC/dy, J_i the Jacobian of f_i; the input cotangent of
each part is the output cotangent of the part before it.

**Branches**, y = combine(f_1(x), ..., f_n(x)): `combine` is pulled back to the output of each branch, and dC/dx is the
sum over the branches. Residual blocks add, y = f(x) + shortcut(x): both get dC/dy. `parallel` concatenates: each gets
its slice. Any other `combine` is differentiated by `jax.vjp`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.rule import USES, AtLogits, Cache, Collect, Rule, register, rule_of
from jaxnn.layers.base import Layer
from jaxnn.models.combinators import (
    PARALLEL,
    RESIDUAL,
    SERIAL,
    add,
    concatenate,
    fold,
    join,
    located,
    require_params,
    spread,
)
from jaxnn.types import Array, Key, Params, PyTree, State


def forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
) -> tuple[Array, State, Cache]:
    """(y, state, cache): `layer.apply`, and the cache of its backward pass.

    Example:
        >>> from jaxnn.layers import Relu
        >>> forward(Relu, (), (), jnp.array([[-1.0, 2.0]]))[0]
        Array([[0., 2.]], dtype=float32)
    """
    made = rule_of(layer).forward(layer, params, state, x, key=key, train=train)
    if not isinstance(made, tuple) or len(made) != 3:
        raise TypeError(
            f"{layer.kind.name}: a rule's forward must return (y, state, cache), got {type(made).__name__}."
        )
    return made


Part: TypeAlias = tuple[Layer, Params, State, Key | None]
"""(layer, params, state, key) of one part of a serial."""


def parts_of(layer: Layer, params: Params, state: State, key: Key | None) -> list[Part]:
    """Each part of a serial with its own parameters, state and key.

    Example:
        >>> from jaxnn.layers import Relu
        >>> from jaxnn.models import serial
        >>> parts_of(serial(Relu), ((),), (), None)
        [(activation(function=relu), (), (), None)]
    """
    require_params(layer.kind.name, params, layer.parts)
    states = spread(state, layer.parts)
    keys = [fold(key, i) for i in range(len(layer.parts))]
    return list(zip(layer.parts, params, states, keys, strict=True))


def run(parts: Iterable[Part], x: Array, *, train: bool, first: int = 0) -> tuple[Array, list[State], list[Cache]]:
    """The parts in order: (output of the last, states, caches). `first` is the index of parts[0], for messages.

    Example:
        >>> from jaxnn.layers import Relu
        >>> run([(Relu, (), (), None)], jnp.array([[-1.0, 2.0]]), train=True)[0]
        Array([[0., 2.]], dtype=float32)
    """
    states, caches = [], []
    for i, (part, p, s, key) in enumerate(parts, first):
        try:
            y, s, cache = forward(part, p, s, x, key=key, train=train)
        except (TypeError, ValueError) as error:
            raise located(error, i, part, f"x of shape {jnp.shape(x)}") from None
        x = y
        states.append(s)
        caches.append(cache)
    return x, states, caches


def run_back(
    parts: Sequence[tuple[Layer, Params, Cache]], dy: Array | AtLogits, collect: Collect, *, first: int = 0
) -> tuple[Array, list[PyTree]]:
    """The backward passes of the parts, last to first: (dx of parts[0], a list of what `collect` computes).

    Args:
        parts: (layer, params, cache) of each, in forward order; caches from `run`.
        dy: cotangent of the last part's output, or `AtLogits`.
        collect: `GRADIENT` or `USES`; the list has one entry per part, in the order of `parts`.
        first: as for `run`.

    Example:
        >>> from jaxnn.layers import Relu
        >>> run_back([(Relu, (), jnp.array([[-1.0, 2.0]]))], jnp.ones((1, 2)), USES)[0]
        Array([[0., 1.]], dtype=float32)
    """
    collected: list[PyTree] = []
    error: Any = dy
    for i, (part, p, cache) in reversed(list(enumerate(parts, first))):
        try:
            below, found = rule_of(part).backward(part, p, cache, error, collect)
        except (TypeError, ValueError) as raised:
            raise located(raised, i, part, f"dy of shape {jnp.shape(getattr(error, 'delta', error))}") from None
        error = below
        collected.append(found)
    return error, collected[::-1]


def _serial_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    x, states, caches = run(parts_of(layer, params, state, key), x, train=train)
    return x, join(states), caches


def _branches_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    made = [forward(part, p, s, x, key=k, train=train) for part, p, s, k in parts_of(layer, params, state, key)]
    outputs, combine = [y for y, _, _ in made], layer.options["combine"]
    pull: Callable[[Array], Sequence[Array]]
    if combine is add:
        y, pull = combine(outputs), _copies
    elif combine is concatenate:
        y, pull = combine(outputs), _slices([jax.ShapeDtypeStruct(y.shape, y.dtype) for y in outputs])
    else:
        y, of_combine = jax.vjp(combine, outputs)
        pull = functools.partial(_only, of_combine)
    return y, join([s for _, s, _ in made]), (pull, [cache for _, _, cache in made])


def _copies(dy: Array) -> list[Array]:
    """The adjoint of f(x) + shortcut(x): the cotangent goes to both."""
    return [dy, dy]


def _only(pull: Callable[[Array], tuple[Sequence[Array]]], dy: Array) -> Sequence[Array]:
    """The cotangent of the one argument of a `jax.vjp`."""
    return pull(dy)[0]


def _slices(outputs: Sequence[jax.ShapeDtypeStruct]) -> Callable[[Array], list[Array]]:
    """The adjoint of a concatenation along the last axis."""

    def pull(dy: Array) -> list[Array]:
        errors, start = [], 0
        for y in outputs:
            stop = start + y.shape[-1]
            errors.append(lax.slice_in_dim(dy, start, stop, axis=dy.ndim - 1).astype(y.dtype))
            start = stop
        return errors

    return pull


def _combined_by_hand(layer: Layer) -> bool:
    return layer.options["combine"] in (add, concatenate)


def _sum(errors: Sequence[Array]) -> Array:
    """The cotangent of an x that several branches share; float0, that of integers, cannot be added."""
    return errors[0] if errors[0].dtype == jax.dtypes.float0 else functools.reduce(jnp.add, errors)


@dataclasses.dataclass(frozen=True)
class _Serial(Rule):
    def backward(
        self, layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
    ) -> tuple[Array, PyTree]:
        error, found = run_back(list(zip(layer.parts, params, cache, strict=True)), dy, collect)
        return error, tuple(found)


@dataclasses.dataclass(frozen=True)
class _Branches(Rule):
    def backward(
        self, layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
    ) -> tuple[Array, PyTree]:
        pull, caches = cache
        made = [
            rule_of(part).backward(part, p, c, error, collect)
            for part, p, c, error in zip(layer.parts, params, caches, pull(dy), strict=True)
        ]
        return _sum([dx for dx, _ in made]), tuple(found for _, found in made)


def _through_the_parts(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    return rule_of(layer).backward(layer, params, cache, dy, _nothing)[0]


def _nothing(rule: Rule) -> Callable[..., PyTree]:
    return lambda *leaf: ()


def _uses_of_parts(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    return rule_of(layer).backward(layer, params, cache, dy, USES)[1]


def _couples(layer: Layer, train: bool) -> bool:
    return any(rule_of(part).couples(part, train) for part in layer.parts)


SERIAL_RULE = register(SERIAL, _Serial(_serial_forward, _through_the_parts, _uses_of_parts, _couples))
BRANCHES_RULE = _Branches(_branches_forward, _through_the_parts, _uses_of_parts, _couples, _combined_by_hand)
register(RESIDUAL, BRANCHES_RULE)
register(PARALLEL, BRANCHES_RULE)
