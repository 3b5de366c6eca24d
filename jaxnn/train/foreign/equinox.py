"""Layers of equinox models."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key
from jaxnn.layers import Layer
from jaxnn.train.foreign.base import EQUINOX, Settings, arguments_of, mode, package, require_maker
from jaxnn.types import Array, Key, Params, PyTree, State

Call: TypeAlias = Callable[..., Any]
"""(model, x, key, train) -> y of ONE example, or (model, x, state, key, train) -> (y, state)."""

WHERE = "from_equinox"
REMEDY = "call=lambda model, x, key, train: model(x, ...)"


def from_equinox(model: Any, state: Any = None, *, call: Call | None = None, axis_name: str = "batch") -> Layer:
    """A `Layer` of an equinox model of ONE example, for everything here that takes a network.

    The model is mapped over the batch by `jax.vmap(..., axis_name=axis_name)`. Its parameters are its floating arrays,
    as a pytree of its own type with None elsewhere; they are optimized as any other. The state is the pair (running
    statistics, an `eqx.nn.State`; its other arrays, such as integers, which stay as they are), with None for what it
    has not, or () if it has neither. Statistics are updated in training alone.

    | model | parameters of `init(key, example)` |
    |---|---|
    | a module | those that it holds, whatever the key |
    | a function of a key that makes a module, `lambda key: Model(key=key)` | those of the module for this key |

    Both may come with their `eqx.nn.State`: `from_equinox(model, state)`, a function that returns the pair, such as
    `eqx.nn.make_with_state(Model)`, or without, a module that still has its initial state.

    Evaluation mode is `eqx.nn.inference_mode(model)`. Without a call of your own `__call__` gets `key`, if it takes
    one, and the mode by each of its arguments named train, training, is_training (True in training) or deterministic.
    Example i of the batch has the key `jax.random.split(key, N)[i]`.

    Make the layer once: programs are compiled for each one anew.

    Args:
        model: a module, or a function of a key.
        state: the state of a stateful module.
        call: `(model, x, key, train) -> y`, of a stateful one `(model, x, state, key, train) -> (y, state)`, where
            `__call__` needs other arguments.
        axis_name: of the batch, the `axis_name` of the model's batch normalization.

    Raises:
        ImportError: equinox is not installed.
        TypeError: not a module; a class or function that needs other arguments; a `__call__` that does, and no `call`.
        ValueError: a stateful module without its state; in training, a random module without a key.

    Example:
        >>> import equinox as eqx  # doctest: +SKIP
        >>> from jaxnn import losses, optim, train  # doctest: +SKIP
        >>> net = train.from_equinox(lambda key: eqx.nn.MLP(3, 2, width_size=8, depth=1, key=key))  # doctest: +SKIP
        >>> ts = train.init(net, optim.adam(1e-3), jax.random.key(0), (3,))  # doctest: +SKIP
        >>> ts.params.layers[0].weight.shape  # doctest: +SKIP
        (8, 3)
    """
    eqx = package(WHERE, "equinox", "equinox")
    given = isinstance(model, eqx.Module)
    if not given and not callable(model):
        raise TypeError(f"{WHERE}: model must be an equinox module, or a function from a key to one, got {model!r}.")
    if not given and state is not None:
        raise TypeError(f"{WHERE}: a function that makes a module returns the pair (module, state) itself.")
    if not given:
        require_maker(WHERE, model, "a key", "an instance, or lambda key: Model(..., key=key)")

    def made(key: Key) -> tuple[Any, Any]:
        """The module and its state."""
        return _with_state(eqx, (model, state) if state is not None else model if given else model(key))

    known, known_state = made(jax.random.key(0)) if given else eqx.filter_eval_shape(made, jax.random.key(0))
    name = type(known).__name__
    where, stateful = f"{WHERE}: {name}", bool(jax.tree.leaves(known_state))
    takes = () if call else arguments_of(where, known.__call__, ("key", "state") if stateful else ("key",), REMEDY)
    fixed = eqx.partition(known, _is_array)[1]
    held = _parted(eqx, known, known_state) if given else None

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        # The module's arrays are the caller's, and what a step gets is donated.
        return _parted(eqx, *made(key)) if held is None else jax.tree.map(jnp.copy, held)

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        statistics, buffers = state or (None, None)

        def one(params: Params, statistics: Any, buffers: PyTree, x: Array, key: Key | None) -> Any:
            parts = (params, fixed) if buffers is None else (params, buffers, fixed)
            module = eqx.nn.inference_mode(eqx.combine(*parts), not train)
            carried = (statistics,) if stateful else ()
            if call:
                found = call(module, x, *carried, key, train)
            else:
                found = module(x, *carried, **({"key": key} if "key" in takes else {}), **mode(takes, train))
            y, new = found if stateful else (found, None)
            return y, new if train else None

        keys = None if key is None else jax.random.split(key, x.shape[0])
        axes = (None, None, None, 0, None if key is None else 0)
        try:
            y, new = jax.vmap(one, axes, (0, None), axis_name=axis_name)(params, statistics, buffers, x, keys)
        except RuntimeError:  # of equinox's random layers without a key
            if train:
                require_key(where, key)
            raise
        return y, (new, buffers) if train and stateful else state

    # Their shapes in place of the arrays, which training changes.
    settings = Settings((jax.tree.map(_abstract, known), call, axis_name))
    return Layer(init, apply, EQUINOX, MappingProxyType({"form": name, "settings": settings}))


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if _is_array(leaf) else leaf


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _is_parameter(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _with_state(eqx: Any, made: Any) -> tuple[Any, Any]:
    """A module, alone or with its state, as a pair; a module that has its initial state is parted from it."""
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], eqx.nn.State):
        return made
    if not isinstance(made, eqx.Module):
        raise TypeError(f"{WHERE}: the function must return an equinox module, or it and its state, got {made!r:.60}.")
    try:
        return eqx.nn.make_with_state(lambda: made)()
    except ValueError as error:
        raise ValueError(
            f"{WHERE}: {type(made).__name__} is stateful: pass its state too, from_equinox(model, state)."
        ) from error


def _parted(eqx: Any, module: Any, statistics: Any) -> tuple[Params, State]:
    """Parameters and state of a module."""
    params, others = eqx.partition(module, _is_parameter)
    buffers = eqx.filter(others, _is_array)
    found = tuple(part if jax.tree.leaves(part) else None for part in (statistics, buffers))
    return params, () if found == (None, None) else found
