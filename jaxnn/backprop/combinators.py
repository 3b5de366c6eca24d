"""Rules of combinators: the backward pass visits their parts in reverse order.

**Serial**, y = f_n(... f_1(x)): dC/dx = J_1' ... J_n' dC/dy, J_i the Jacobian of f_i; the input cotangent of
each part is the output cotangent of the part before it.

**Branches**, y = combine(f_1(x), ..., f_n(x)): `combine` is pulled back to the output of each branch, and dC/dx is the
sum over the branches. Residual blocks add, y = f(x) + shortcut(x): both get dC/dy. `parallel` concatenates: each gets
its slice. Any other `combine` is differentiated by `jax.vjp`.

**Tied parts**: a parameter w used at two places has dC/dw = dC/dw_1 + dC/dw_2, at w_1 = w_2 = w. The uses of both
places are concatenated, at the place that holds w.

**Padded sequences**: a layer on each position is applied to the values of `Sequences`, and the values of the cotangent,
itself a `Sequences`, are set to 0 where masked.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.rule import USES, Cache, Collect, Rule, register, rule_of
from jaxnn.layers.base import Layer
from jaxnn.layers.sequences import Sequences, added, no_context, only, values_of, with_values
from jaxnn.models.combinators import (
    PARALLEL,
    RESIDUAL,
    SERIAL,
    add,
    combined,
    concatenate,
    fold,
    join,
    located,
    require_params,
    spread,
)
from jaxnn.models.ties import STACK, at, filled, put
from jaxnn.tape import STATIC
from jaxnn.types import Array, Key, Params, PyTree, State


def forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
) -> tuple[Any, State, Cache]:
    """(y, state, cache): `layer.apply`, and the cache of its backward pass.

    Example:
        >>> from jaxnn.layers import Relu
        >>> forward(Relu, (), (), jnp.array([[-1.0, 2.0]]))[0]
        Array([[0., 2.]], dtype=float32)
    """
    if isinstance(x, Sequences) and not layer.sequences:
        y, state, cache = forward(layer, params, state, x.counted, key=key, train=train)
        return x.with_outputs(y), state, cache
    made = rule_of(layer).forward(layer, params, state, x, key=key, train=train)
    if not isinstance(made, tuple) or len(made) != 3:
        raise TypeError(
            f"{layer.kind.name}: a rule's forward must return (y, state, cache), got {type(made).__name__}."
        )
    return made


def backward(layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
    """(dx, what `collect` computes) by the layer's rule, from the cache of `forward`.

    Example:
        >>> from jaxnn.layers import Relu
        >>> backward(Relu, (), jnp.array([[-1.0, 2.0]]), jnp.ones((1, 2)), USES)[0]
        Array([[0., 1.]], dtype=float32)
    """
    dx, found = rule_of(layer).backward(layer, params, cache, _taken(layer, dy), collect)
    return _given(layer, dy, dx), found


def _taken(layer: Layer, dy: Any) -> Any:
    """The cotangent as the layer's rule takes it: of a layer on each position that of the values, 0 where masked."""
    return only(dy.mask, dy.values) if isinstance(dy, Sequences) and not layer.sequences else dy


def _given(layer: Layer, dy: Any, dx: Any) -> Any:
    """The cotangent of the layer's input, with mask and context if dy has them."""
    return dy.with_values(dx) if isinstance(dy, Sequences) and not layer.sequences else dx


def place_of(layer: Layer, place: str, i: int) -> str:
    """The path among the parameters of part i of a layer at `place`; the one block of a stack has the stack's own."""
    return place if layer.kind is STACK else f"{place}[{i}]"


Part: TypeAlias = tuple[Layer, Params, State, Key | None]
"""(layer, params, state, key) of one part of a serial."""


def parts_of(layer: Layer, params: Params, state: State, key: Key | None) -> list[Part]:
    """Each part of a serial with its own parameters (a tied part with those of the other), state and key.

    Example:
        >>> from jaxnn.layers import Relu
        >>> from jaxnn.models import serial
        >>> parts_of(serial(Relu), ((),), (), None)
        [(activation(function=relu), (), (), None)]
    """
    require_params(layer.kind.name, params, layer.parts)
    states = spread(state, layer.parts)
    keys = [fold(key, i) for i in range(len(layer.parts))]
    return list(zip(layer.parts, filled(layer, params), states, keys, strict=True))


def run(parts: Iterable[Part], x: Any, *, train: bool, first: int = 0) -> tuple[Any, list[State], list[Cache]]:
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
            raise located(error, i, part, f"x of shape {jnp.shape(values_of(x))}") from None
        x = y
        states.append(s)
        caches.append(cache)
    return x, states, caches


def run_back(
    parts: Sequence[tuple[Layer, Params, Cache]], dy: Any, collect: Collect, *, first: int = 0
) -> tuple[Any, list[PyTree]]:
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
            below, found = rule_of(part).backward(part, p, cache, _taken(part, error), collect)
        except (TypeError, ValueError) as raised:
            shape = jnp.shape(values_of(getattr(error, "delta", error)))
            raise located(raised, i, part, f"dy of shape {shape}") from None
        error = _given(part, error, below)
        collected.append(found)
    return error, collected[::-1]


def settled(layer: Layer, params: Params, found: PyTree) -> PyTree:
    """What was collected at tied parts, added to what was at the parts they are tied to; uses are concatenated.

    Example:
        >>> from jaxnn.layers import Dense, tied
        >>> from jaxnn.models import serial
        >>> dense = Dense(1, b_init=None)
        >>> w = {"w": jnp.array([[3.0]])}
        >>> settled(serial(dense, tied(dense)), (w, ()), ({"w": jnp.array([[1.0]])}, {"w": jnp.array([[2.0]])}))
        ({'w': Array([[3.]], dtype=float32)}, ())
    """
    for to, source in reversed(layer.options.get("ties", ())):
        here, there = at(found, to), at(found, source)
        if isinstance(here, tuple) and not here:
            continue  # nothing is collected
        structure: Any = jax.tree.structure(at(params, source))
        pairs = zip(structure.flatten_up_to(there), structure.flatten_up_to(here), strict=True)
        total = jax.tree.unflatten(structure, [one + other for one, other in pairs])
        found = put(put(found, to, ()), source, total)
    return found


def _serial_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    x, states, caches = run(parts_of(layer, params, state, key), x, train=train)
    return x, join(states), caches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Combined:
    """The adjoint of the branches' combination: `pull` is that of any other function than these two."""

    outputs: tuple[jax.ShapeDtypeStruct, ...] = dataclasses.field(metadata=STATIC)
    combine: Callable[[Sequence[Array]], Array] = dataclasses.field(metadata=STATIC)
    pull: Any = None

    def __call__(self, dy: Array) -> Sequence[Array]:
        """The cotangent of each branch's output."""
        if self.combine is add:
            return [dy] * len(self.outputs)
        if self.combine is concatenate:
            return _slices(self.outputs, dy)
        return self.pull(dy)[0]


def _branches_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    made = [forward(part, p, s, x, key=k, train=train) for part, p, s, k in parts_of(layer, params, state, key)]
    outputs, combine = [y for y, _, _ in made], layer.options["combine"]
    shapes = tuple(jax.ShapeDtypeStruct(values_of(y).shape, values_of(y).dtype) for y in outputs)
    if combine in (add, concatenate):
        y, pull = combined(combine, outputs), _Combined(shapes, combine)
    else:
        value, of_combine = jax.vjp(combine, [values_of(y) for y in outputs])
        y, pull = combined(lambda _: value, outputs), _Combined(shapes, combine, of_combine)
    return y, join([s for _, s, _ in made]), (pull, [cache for _, _, cache in made])


def _slices(outputs: Sequence[jax.ShapeDtypeStruct], dy: Array) -> list[Array]:
    """The adjoint of a concatenation along the last axis."""
    errors, start = [], 0
    for y in outputs:
        stop = start + y.shape[-1]
        errors.append(lax.slice_in_dim(dy, start, stop, axis=dy.ndim - 1).astype(y.dtype))
        start = stop
    return errors


def _combined_by_hand(layer: Layer) -> bool:
    return layer.options["combine"] in (add, concatenate)


@dataclasses.dataclass(frozen=True)
class _Serial(Rule):
    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        error, found = run_back(list(zip(layer.parts, filled(layer, params), cache, strict=True)), dy, collect)
        return error, settled(layer, params, tuple(found))


@dataclasses.dataclass(frozen=True)
class _Branches(Rule):
    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        pull, caches = cache
        # The cotangent of a context goes down one branch; the others start from zeros, and the sum has it once.
        errors = [
            with_values(dy if i == 0 else no_context(dy), error)
            for i, error in enumerate(pull(values_of(with_values(dy, values_of(dy)))))
        ]
        made = [
            backward(part, p, c, error, collect)
            for part, p, c, error in zip(layer.parts, params, caches, errors, strict=True)
        ]
        return functools.reduce(added, [dx for dx, _ in made]), tuple(found for _, found in made)


def through_parts(layer: Layer, params: Params, cache: Cache, dy: Any) -> Any:
    """The `input_grad` of a layer made of parts: its `backward`, collecting nothing."""
    return rule_of(layer).backward(layer, params, cache, dy, _nothing)[0]


def _nothing(rule: Rule) -> Callable[..., PyTree]:
    return lambda *leaf: ()


def uses_of_parts(layer: Layer, params: Params, cache: Cache, dy: Any) -> PyTree:
    """The `uses` of a layer made of parts: its `backward`, collecting theirs."""
    return rule_of(layer).backward(layer, params, cache, dy, USES)[1]


def parts_couple(layer: Layer, train: bool) -> bool:
    """Whether a part couples the examples."""
    return any(rule_of(part).couples(part, train) for part in layer.parts)


SERIAL_RULE = register(SERIAL, _Serial(_serial_forward, through_parts, uses_of_parts, parts_couple))
BRANCHES_RULE = _Branches(_branches_forward, through_parts, uses_of_parts, parts_couple, _combined_by_hand)
register(RESIDUAL, BRANCHES_RULE)
register(PARALLEL, BRANCHES_RULE)
