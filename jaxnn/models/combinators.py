"""Combinators of layers: serial, residual, parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.layers.base import Kind, Layer, output_example, pair_of
from jaxnn.layers.sequences import Sequences, values_of, with_values
from jaxnn.layers.tying import TIED, UNEMBEDDING
from jaxnn.models.ties import fill, find_ties, shapes_of_tied
from jaxnn.types import Array, Key, Params, State

SERIAL = Kind("serial")
RESIDUAL = Kind("residual")
PARALLEL = Kind("parallel")


def serial(*parts: Layer) -> Layer:
    """The composition of layers, first to last: y = part_n(... part_2(part_1(x))).

    Params are a tuple with one entry per part (`()` for one without parameters, or tied to another part by
    `layers.tied`). The state is `()` if no part has state (running statistics), else such a tuple too. Each part gets
    its own key, folded from `key`.

    Args:
        parts: layers or networks; `serial()` is the identity.

    Returns:
        A Layer whose `init` passes each part the output shape and dtype of the part before it.

    Raises:
        TypeError: a part is not a Layer (e.g. a factory such as `Dense` that was not called).
        ValueError: a part is tied to a later one.
        ValueError, TypeError: raised by a part, with a note that names the part and its position.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> net = serial(Dense(4), Relu, Dense(2))
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> net.predict(params, state, jnp.ones((5, 3))).shape
        (5, 2)
    """
    _require_layers("serial", parts)
    ties = find_ties(parts)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        shape = example
        params: tuple[Params, ...] = ()
        states = []
        for i, part in enumerate(parts):
            try:
                p, s = part.init(jax.random.fold_in(key, i), shape)
                params = (*params, p)
                known = fill([tie for tie in ties if tie[0][0] <= i], params)[i]
                if part.kind in (TIED, UNEMBEDDING) and known == ():
                    known = shapes_of_tied(part, shape)
                shape = output_example(part, known, s, shape)
            except (TypeError, ValueError) as error:
                raise located(error, i, part, f"one example of shape {values_of(shape).shape}") from None
            states.append(s)
        return params, join(states)

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        require_params("serial", params, parts)
        states = []
        for i, (part, p, s) in enumerate(zip(parts, fill(ties, params), spread(state, parts), strict=True)):
            try:
                x, s = pair_of(part, part.apply(p, s, x, key=fold(key, i), train=train))
            except (TypeError, ValueError) as error:
                raise located(error, i, part, f"x of shape {jnp.shape(values_of(x))}") from None
            states.append(s)
        return x, join(states)

    return Layer(init, apply, SERIAL, MappingProxyType({"ties": ties} if ties else {}), parts, sequences=True)


def residual(*parts: Layer, shortcut: Layer | None = None) -> Layer:
    """y = f(x) + shortcut(x), f the composition of `parts`; the shortcut is the identity by default.

    Params are the pair (f's, shortcut's). The state is `()` if neither has state, else such a pair too.

    Raises:
        ValueError: when applied: f(x) and the shortcut differ in shape (nothing is broadcast).

    Reference: He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep residual learning for image recognition, equations 1
        and 2.

    Example:
        >>> from jaxnn.layers import Dense
        >>> net = residual(Dense(3))
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> net.predict(params, state, jnp.ones((5, 3))).shape
        (5, 3)
    """
    return _branches(RESIDUAL, (serial(*parts), serial() if shortcut is None else shortcut), add)


def parallel(*parts: Layer, combine: Callable[[Sequence[Array]], Array] | None = None) -> Layer:
    """All parts applied to the same x, their outputs combined, by default concatenated along the last axis.

    Args:
        parts: at least one layer; params and state are tuples as for `serial`.
        combine: a function of the list of outputs, each (N, ...); None concatenates them along the last axis.

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
    """A layer that applies every part to x and combines their outputs."""
    _require_layers(kind.name, parts)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        made = [part.init(jax.random.fold_in(key, i), example) for i, part in enumerate(parts)]
        return tuple(p for p, _ in made), join([s for _, s in made])

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        require_params(kind.name, params, parts)
        made = [
            part.apply(p, s, x, key=fold(key, i), train=train)
            for i, (part, p, s) in enumerate(zip(parts, params, spread(state, parts), strict=True))
        ]
        return combined(combine, [y for y, _ in made]), join([s for _, s in made])

    return Layer(init, apply, kind, MappingProxyType({"combine": combine}), parts, sequences=True)


def combined(combine: Callable[[Sequence[Array]], Array], outputs: Sequence[Any]) -> Any:
    """The combination of the branches' values; with the mask and context of the first, if it is `Sequences`."""
    if any(isinstance(y, Sequences) != isinstance(outputs[0], Sequences) for y in outputs):
        raise ValueError(
            "residual and parallel: some branches return Sequences, others arrays. Take LastPosition, Values or "
            "MeanPosition in all of them or in none."
        )
    return with_values(outputs[0], combine([values_of(y) for y in outputs]))


def add(outputs: Sequence[Array]) -> Array:
    """The sum of a residual block's two branches."""
    y, skip = outputs
    if y.shape != skip.shape:
        raise ValueError(
            f"residual: the block outputs {y.shape} but the shortcut {skip.shape}. Keep the shape inside the block "
            '(padding="SAME", stride 1), or pass a shortcut that changes it, such as shortcut=Conv(features, 1).'
        )
    return y + skip


def concatenate(outputs: Sequence[Array]) -> Array:
    """The outputs concatenated along the last axis."""
    if len({y.shape[:-1] for y in outputs}) > 1:
        raise ValueError(
            f"parallel: outputs must agree on all but the last axis, got {[y.shape for y in outputs]}. "
            "Pass `combine` to combine them otherwise."
        )
    return jnp.concatenate(list(outputs), axis=-1)


def fold(key: Key | None, i: int) -> Key | None:
    """The key of part i; None without a key."""
    return None if key is None else jax.random.fold_in(key, i)


def join(states: Sequence[State]) -> State:
    """The states of the parts as one tuple; () if none has an array."""
    return tuple(states) if jax.tree.leaves(states) else ()


def spread(state: State, parts: tuple[Layer, ...]) -> tuple[State, ...]:
    """The inverse of `join`: one state per part."""
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
    """Raise ValueError unless params has one entry per part."""
    if not isinstance(params, tuple | list) or len(params) != len(parts):
        got = f"{type(params).__name__} of {len(params)}" if hasattr(params, "__len__") else repr(params)
        raise ValueError(
            f"{where}: params must be a tuple with one entry for each of {len(parts)} parts, got a {got}. "
            "init returns the pair (params, state): pass them separately, in that order, and those of this network."
        )


def located(error: TypeError | ValueError, i: int, part: Layer, given: str) -> TypeError | ValueError:
    """The same error with a note that names the part that raised it, and its input."""
    error.add_note(f"in part {i} of serial ({part.kind.name}), given {given}")
    return error
