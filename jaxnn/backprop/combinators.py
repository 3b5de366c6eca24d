"""Rules of layers made of layers: the sweep goes through their parts in reverse order.

**Serial**, y = f_n(... f_1(x)): dC/dx = (df_1)' ... (df_n)' dC/dy, multiplied from the right: each part hands its error
to the part before it.

**Branches**, y = combine(f_1(x), ..., f_n(x)): each branch gets its error from `combine`, and x, which all of them see,
the sum of what they hand back. Residual blocks add, y = f(x) + shortcut(x): both get dC/dy whole. `parallel`
concatenates: each gets its own slice. Another `combine` is differentiated by `jax.vjp`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.rule import Cache, Collect, Rule, register, rule_of
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


@dataclasses.dataclass(frozen=True)
class AtLogits:
    """An error that has passed the last leaf layer already: dC/dz of its input, where loss and layer are fused.

    Example:
        >>> from jaxnn.layers import Softmax
        >>> backward(Softmax, (), None, AtLogits(jnp.ones((1, 2))), lambda *leaf: ())[0]
        Array([[1., 1.]], dtype=float32)
    """

    delta: Array


def forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
) -> tuple[Array, State, Cache]:
    """`layer.apply`, and what its backward pass will need.

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


def backward(
    layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
) -> tuple[Array, PyTree]:
    """(dx, what `collect` makes of each leaf layer, in a tree like params).

    Example:
        >>> from jaxnn.layers import Relu
        >>> backward(Relu, (), jnp.array([[-1.0, 2.0]]), jnp.ones((1, 2)), lambda *leaf: ())[0]
        Array([[0., 1.]], dtype=float32)
    """
    if isinstance(dy, AtLogits) and not layer.parts:
        return dy.delta, ()
    return rule_of(layer).backward(layer, params, cache, dy, collect)  # type: ignore[arg-type]


Part: TypeAlias = tuple[Layer, Params, State, Key | None]
"""A layer of a serial with its parameters, its state and its key."""


def parts_of(layer: Layer, params: Params, state: State, key: Key | None) -> list[Part]:
    """Each part of a serial with what is its own.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> from jaxnn.models import serial
        >>> net = serial(Dense(2), Relu)
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> [part[0].kind.name for part in parts_of(net, params, state, None)]
        ['dense', 'activation']
    """
    require_params(layer.kind.name, params, layer.parts)
    states = spread(state, layer.parts)
    keys = [fold(key, i) for i in range(len(layer.parts))]
    return list(zip(layer.parts, params, states, keys, strict=True))


def run(parts: Iterable[Part], x: Array, *, train: bool, first: int = 0) -> tuple[Array, list[State], list[Cache]]:
    """Parts one after another: what the last puts out, and each one's state and cache; `first` counts for errors.

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
    parts: Sequence[tuple[Layer, Params, Cache]], dy: Array | AtLogits, collect: Collect
) -> tuple[Array, list[PyTree]]:
    """Parts in reverse order: the error of the first one's input, and what `collect` makes of each.

    Example:
        >>> from jaxnn.layers import Relu
        >>> run_back([(Relu, (), jnp.array([[-1.0, 2.0]]))], jnp.ones((1, 2)), lambda *leaf: ())[0]
        Array([[0., 1.]], dtype=float32)
    """
    collected: list[PyTree] = []
    error: Any = dy
    for part, p, cache in reversed(parts):
        error, found = backward(part, p, cache, error, collect)
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
    """The adjoint of y + skip."""
    return [dy, dy]


def _only(pull: Callable[[Array], tuple[Sequence[Array]]], dy: Array) -> Sequence[Array]:
    """The one argument's error, from a `jax.vjp` of one argument."""
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
    """The error of an x that several branches saw; integers have none (float0), which cannot be added."""
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
    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Array, collect: Collect) -> tuple[Array, PyTree]:
        pull, caches = cache
        made = [
            backward(part, p, c, error, collect)
            for part, p, c, error in zip(layer.parts, params, caches, pull(dy), strict=True)
        ]
        return _sum([dx for dx, _ in made]), tuple(found for _, found in made)


def _through_the_parts(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    return backward(layer, params, cache, dy, lambda *leaf: ())[0]


def _uses_of_parts(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    return backward(layer, params, cache, dy, lambda rule, *leaf: rule.uses(*leaf))[1]


def _couples(layer: Layer, train: bool) -> bool:
    return any(rule_of(part).couples(part, train) for part in layer.parts)


SERIAL_RULE = register(SERIAL, _Serial(_serial_forward, _through_the_parts, _uses_of_parts, _couples))
"""Each part hands its error to the part before it."""

BRANCHES_RULE = _Branches(_branches_forward, _through_the_parts, _uses_of_parts, _couples, _combined_by_hand)
"""Each branch gets its share of the error; x gets the sum of what they hand back."""
register(RESIDUAL, BRANCHES_RULE)
register(PARALLEL, BRANCHES_RULE)
