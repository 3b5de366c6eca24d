"""Layers of flax modules, linen and nnx."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key
from jaxnn.layers import Layer
from jaxnn.optim.base import dtypes_of
from jaxnn.train.foreign.base import FLAX, Settings, arguments_of, mode, package
from jaxnn.train.foreign.nnx import from_nnx
from jaxnn.types import Array, Key, Params, State

Call: TypeAlias = Callable[[Any, Array, bool], Array]
"""(module, x (N, ...), train) -> outputs (N, ...)."""

WHERE = "from_flax"
REMEDY = "call=lambda module, x, train: module(x, ...)"


def from_flax(module: Any, *, call: Call | None = None, rngs: Sequence[str] = ("dropout",)) -> Layer:
    """A `Layer` of a flax module, for everything here that takes a network.

    | module | parameters of `init(key, example)` | state |
    |---|---|---|
    | linen | those of `module.init`, for zeros (1, ...) in evaluation mode | the other collections |
    | nnx, an instance | those that it holds, whatever the key | variables but `nnx.Param` and `nnx.RngState` |
    | nnx, a function `rngs -> module` | those of the module that it makes of `nnx.Rngs(key)` | the same |

    Parameters are nested dicts. The state is updated in training alone, and () if there is none. In training, dropout
    is a function of the key of `apply`: one name in `rngs` gets the key itself, several the keys of
    `jax.random.split(key, len(rngs))`; nnx's streams get those of `jax.random.split(key, n)`, in the order of their
    paths, and count from 0 at every call. Without a call of your own `__call__` gets the mode by each of its arguments
    named train, training, is_training (True in training), deterministic or use_running_average (False in training); nnx
    modules are also switched by `module.train()` and `module.eval()`; one that draws in evaluation mode without a key
    draws the same numbers at every call.

    Make the layer once: programs are compiled for each one anew.

    Args:
        module: a linen or nnx module, or a function from `nnx.Rngs` to an nnx module.
        call: `(module, x, train) -> outputs`, where `__call__` needs other arguments or takes the mode otherwise:
            `lambda module, x, train: module(x, mask=None, eval=not train)`.
        rngs: the names of a linen module's random streams; of nnx all are known.

    Raises:
        ImportError: flax is not installed.
        TypeError: not a module; a class or function that needs other arguments; a `__call__` that does, and no `call`.
        ValueError: in training, a random module without a key; a random stream that is not in `rngs`; a collection that
            grows, such as sown values.

    Example:
        >>> import flax.linen as nn  # doctest: +SKIP
        >>> from jaxnn import losses, optim, train  # doctest: +SKIP
        >>> net = train.from_flax(nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)]))  # doctest: +SKIP
        >>> ts = train.init(net, optim.adam(1e-3), jax.random.key(0), (3,))  # doctest: +SKIP
        >>> ts.params["layers_0"]["kernel"].shape  # doctest: +SKIP
        (3, 8)
    """
    linen, nnx = (package(WHERE, "flax", name) for name in ("flax.linen", "flax.nnx"))
    if isinstance(module, linen.Module):
        return _from_linen(module, call, tuple(rngs))
    if isinstance(module, type) and issubclass(module, linen.Module):
        raise TypeError(f"{WHERE}: module must be an instance, got the class {module.__name__}. Call it first.")
    if isinstance(module, nnx.Module) or callable(module):
        return from_nnx(nnx, module, call)
    raise TypeError(f"{WHERE}: module must be a flax module, or a function from nnx.Rngs to one, got {module!r}.")


def _from_linen(module: Any, call: Call | None, rngs: tuple[str, ...]) -> Layer:
    name = type(module).__name__
    where = f"{WHERE}: {name}"
    errors, meta, unfreeze = (
        package(WHERE, "flax", "flax.errors"),
        package(WHERE, "flax", "flax.core.meta"),
        package(WHERE, "flax", "flax.core").unfreeze,
    )
    named = () if call else arguments_of(where, module.__call__, (), REMEDY)

    def called(module: Any, x: Array, train: bool) -> Array:
        return call(module, x, train) if call else module(x, **mode(named, train))

    def method(train: bool) -> Callable[[Any, Array], Array]:
        return lambda module, x: called(module, x, train)

    def streams(key: Key) -> dict[str, Key]:
        return dict(zip(rngs, [key] if len(rngs) == 1 else jax.random.split(key, len(rngs)), strict=True))

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        x = jnp.zeros((1, *example.shape), example.dtype)
        found = module.init({**streams(key), "params": key}, x, method=method(False))
        variables = meta.unbox(unfreeze(found))
        params = variables.pop("params", {})
        return params, variables or ()

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        collections = state or {}
        keys = {} if key is None else streams(key)
        changing = list(collections) if train and collections else False
        try:
            found = module.apply(
                {"params": params, **collections}, x, rngs=keys, mutable=changing, method=method(train)
            )
        except errors.InvalidRngError as error:
            _require_streams(where, str(error), rngs, key, train)
            raise
        if changing is False:
            return found, state
        y, new = found
        new = meta.unbox(unfreeze(new))
        before: Any = jax.tree.structure(state)
        after: Any = jax.tree.structure(new)
        if after != before:
            raise ValueError(
                f"{where}: the collections {list(collections)} must keep their structure, {before}, got {after}. "
                "Values that are sown grow at every call: sow them into the collection 'intermediates', or not in "
                "training."
            )
        return y, dtypes_of(new, state)  # flax's statistics take the dtypes of inputs in float64

    settings = Settings((_fields(module), call, rngs))
    return Layer(init, apply, FLAX, MappingProxyType({"form": name, "settings": settings}))


def _fields(value: Any) -> Any:
    """The fields of a module, and of modules in it, as nested dicts; of flax's own only those that are not defaults."""
    if not hasattr(value, "__dataclass_fields__") or not hasattr(value, "scope"):
        if jax.tree_util.all_leaves([value]):
            return value
        return jax.tree.map(_fields, value, is_leaf=lambda part: part is not value)
    named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    own = type(value).__module__.startswith("flax.")
    defaults = {field.name: field.default for field in dataclasses.fields(value) if own}
    kept = {
        name: _fields(each)
        for name, each in named.items()
        if name not in ("parent", "name") and not (name in defaults and each is defaults[name])
    }
    return {"module": type(value).__qualname__} | kept


def _require_streams(where: str, told: str, rngs: tuple[str, ...], key: Key | None, train: bool) -> None:
    """Raise ValueError with the remedy for flax's error about a random stream that it was not given."""
    match = re.search(r'needs PRNG for "([^"]*)"', told)
    stream = match[1] if match else ""
    if train:
        require_key(where, key)
    elif key is None:
        raise ValueError(
            f"{where}: needs the random stream {stream!r} in evaluation mode, got no key. Pass one, or let it draw in "
            "training alone: __call__ may take train, or deterministic."
        )
    if stream and stream not in rngs:
        raise ValueError(
            f"{where}: needs the random stream {stream!r}, got rngs={rngs}. Pass from_flax(module, "
            f"rngs={(*rngs, stream)})."
        )
