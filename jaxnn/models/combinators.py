"""Layers made of layers: one after another, around a shortcut, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.layers.base import Kind, Layer, output_example, pair_of
from jaxnn.types import Array, Key, Params, State

SERIAL = Kind("serial")
RESIDUAL = Kind("residual")
PARALLEL = Kind("parallel")


def serial(*parts: Layer) -> Layer:
    """The composition of layers, first to last: y = part_n(... part_2(part_1(x))).

    Params are a tuple with one entry for each part (`()` for one without parameters). The state is `()` if no part has
    running statistics, else such a tuple too. A key is split among the parts.

    Args:
        parts: layers or networks; none at all is the identity.

    Returns:
        A Layer whose `init` hands each part the shape and dtype that the part before it puts out.

    Raises:
        TypeError: a part is not a Layer (a factory such as `Dense` that was not called, for instance).
        ValueError, TypeError: what a part raises, with a note that names the part and its position.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> net = serial(Dense(4), Relu, Dense(2))
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> net.predict(params, state, jnp.ones((5, 3))).shape
        (5, 2)
    """
    _require_layers("serial", parts)

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        shape = example
        params, states = [], []
        for i, part in enumerate(parts):
            try:
                p, s = part.init(jax.random.fold_in(key, i), shape)
                shape = output_example(part, p, s, shape)
            except (TypeError, ValueError) as error:
                raise located(error, i, part, f"one example of shape {shape.shape}") from None
            params.append(p)
            states.append(s)
        return tuple(params), join(states)

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        require_params("serial", params, parts)
        states = []
        for i, (part, p, s) in enumerate(zip(parts, params, spread(state, parts), strict=True)):
            try:
                x, s = pair_of(part, part.apply(p, s, x, key=fold(key, i), train=train))
            except (TypeError, ValueError) as error:
                raise located(error, i, part, f"x of shape {jnp.shape(x)}") from None
            states.append(s)
        return x, join(states)

    return Layer(init, apply, SERIAL, MappingProxyType({}), parts)


def residual(*parts: Layer, shortcut: Layer | None = None) -> Layer:
    """y = f(x) + shortcut(x), f the composition of `parts`; the shortcut is the identity unless given.

    Params and state are pairs, (f's, shortcut's).

    Raises:
        ValueError: f(x) and the shortcut differ in shape (nothing is broadcast).

    Reference:
        He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep residual learning for image recognition, equations 1 and 2.

    Example:
        >>> from jaxnn.layers import Dense
        >>> net = residual(Dense(3))
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> net.predict(params, state, jnp.ones((5, 3))).shape
        (5, 3)
    """
    return _branches(RESIDUAL, (serial(*parts), serial() if shortcut is None else shortcut), add)


def parallel(*parts: Layer, combine: Callable[[Sequence[Array]], Array] | None = None) -> Layer:
    """Every part sees the same x; their outputs are joined, by default along the last axis.

    Args:
        parts: at least one layer.
        combine: a function of the list of outputs, each (N, ...); None concatenates the last axes.

    Example:
        >>> from jaxnn.layers import Dense
        >>> net = parallel(Dense(3), Dense(4))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> net.predict(params, state, jnp.ones((5, 2))).shape
        (5, 7)
    """
    if not parts:
        raise ValueError("parallel: expected at least one layer, got none.")
    return _branches(PARALLEL, parts, concatenate if combine is None else combine)


def _branches(kind: Kind, parts: tuple[Layer, ...], combine: Callable[[Sequence[Array]], Array]) -> Layer:
    """A layer that hands x to every part and combines what they put out."""
    _require_layers(kind.name, parts)

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        made = [part.init(jax.random.fold_in(key, i), example) for i, part in enumerate(parts)]
        return tuple(p for p, _ in made), join([s for _, s in made])

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        require_params(kind.name, params, parts)
        made = [
            part.apply(p, s, x, key=fold(key, i), train=train)
            for i, (part, p, s) in enumerate(zip(parts, params, spread(state, parts), strict=True))
        ]
        return combine([y for y, _ in made]), join([s for _, s in made])

    return Layer(init, apply, kind, MappingProxyType({"combine": combine}), parts)


def add(outputs: Sequence[Array]) -> Array:
    """The sum of a residual block's two branches.

    Example:
        >>> add([jnp.ones((1, 2)), jnp.ones((1, 2))])
        Array([[2., 2.]], dtype=float32)
    """
    y, skip = outputs
    if y.shape != skip.shape:
        raise ValueError(
            f"residual: the block puts out {y.shape} but the shortcut {skip.shape}. Keep the shape inside the block "
            '(padding="SAME", stride 1), or give a shortcut that changes it, such as shortcut=Conv(features, 1).'
        )
    return y + skip


def concatenate(outputs: Sequence[Array]) -> Array:
    """The outputs side by side along the last axis.

    Example:
        >>> concatenate([jnp.ones((1, 1)), jnp.zeros((1, 2))])
        Array([[1., 0., 0.]], dtype=float32)
    """
    if len({y.shape[:-1] for y in outputs}) > 1:
        raise ValueError(
            f"parallel: outputs must agree on all but the last axis, got {[y.shape for y in outputs]}. "
            "Give `combine` to join them otherwise."
        )
    return jnp.concatenate(list(outputs), axis=-1)


def fold(key: Key | None, i: int) -> Key | None:
    """The key of part i; None without a key.

    Example:
        >>> fold(None, 3) is None
        True
    """
    return None if key is None else jax.random.fold_in(key, i)


def join(states: Sequence[State]) -> State:
    """The states of the parts as one: () if none holds an array.

    Example:
        >>> join([(), ()])
        ()
    """
    return tuple(states) if jax.tree.leaves(states) else ()


def spread(state: State, parts: tuple[Layer, ...]) -> tuple[State, ...]:
    """The inverse of `join`: one state for each part.

    Example:
        >>> from jaxnn.layers import Relu
        >>> spread((), (Relu, Relu))
        ((), ())
    """
    if isinstance(state, tuple) and len(state) == len(parts):
        return state
    if isinstance(state, tuple) and not state:
        return ((),) * len(parts)
    raise ValueError(
        f"expected the state that init returned for these {len(parts)} parts, got {jax.tree.structure(state)}."
    )


def _require_layers(where: str, parts: Sequence[Any]) -> None:
    for i, part in enumerate(parts):
        if not isinstance(part, Layer):
            hint = ""
            if isinstance(part, list | tuple):
                hint = f" Unpack it: {where}(*parts)."
            elif callable(part):
                hint = " Call a factory first, as in Dense(10); wrap a function, as in Activation(jnp.sin)."
            raise TypeError(f"{where}: part {i} must be a Layer, got {part!r}.{hint}")


def require_params(where: str, params: Params, parts: tuple[Layer, ...]) -> None:
    """Raise ValueError unless params has one entry for each part.

    Example:
        >>> require_params("serial", (), ())
    """
    if not isinstance(params, tuple | list) or len(params) != len(parts):
        got = f"{type(params).__name__} of {len(params)}" if hasattr(params, "__len__") else repr(params)
        raise ValueError(
            f"{where}: params must be a tuple with one entry for each of {len(parts)} parts, got a {got}. "
            "init returns the pair (params, state): pass both apart, in that order, and those of this very network."
        )


def located(error: TypeError | ValueError, i: int, part: Layer, given: str) -> TypeError | ValueError:
    """The same error with a note that says which part raised it, given what.

    Example:
        >>> from jaxnn.layers import Relu
        >>> located(ValueError("too large"), 3, Relu, "x of shape (2,)").__notes__
        ['in part 3 of serial (activation), given x of shape (2,)']
    """
    error.add_note(f"in part {i} of serial ({part.kind.name}), given {given}")
    return error
