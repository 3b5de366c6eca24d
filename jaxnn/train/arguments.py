"""Argument checks of `fit` and its parts, which raise before anything is compiled."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import as_array, as_arrays, require_floating, require_function, require_leading_axis
from jaxnn.data import Draws
from jaxnn.layers import Layer
from jaxnn.layers.base import require_net
from jaxnn.layers.sequences import require_array
from jaxnn.placement import addressable_rows, compiler_sharded
from jaxnn.types import Loss, Params, PyTree, State

__all__ = [
    "CHUNK_ENTRIES",
    "as_inputs",
    "as_pair",
    "as_training",
    "require_floating_leaves",
    "require_function",
    "require_metrics",
    "require_net",
    "require_opt_state",
    "require_optimizer",
    "require_rules",
    "require_start",
    "require_targets",
    "taking",
]

CHUNK_ENTRIES = 2**22
"""Entries of the dummy outputs that `require_targets` passes to the loss at a time."""


def require_optimizer(where: str, opt: Any, name: str = "opt") -> None:
    """Raise TypeError unless `opt` has init and update."""
    if not (hasattr(opt, "init") and hasattr(opt, "update")):
        raise TypeError(f"{where}: {name} must be an optimizer, such as optim.adam(1e-3), got {opt!r}.")


def require_start(where: str, name: str, net: Layer, opt: Any, ts: Any, example: Any) -> None:
    """Raise unless `ts` is a `TrainState` of this network and this optimizer."""
    if not (isinstance(ts, tuple) and getattr(ts, "_fields", None) == ("params", "state", "opt_state")):
        raise TypeError(f"{where}: {name} must be a TrainState, as train.init makes it, got {type(ts).__name__}.")
    start: Any = ts
    params, state = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    shapes = jax.tree.map(lambda one: tuple(one.shape), example)
    remedy = f"Make it by train.init(net, opt, key, {shapes}), or pass the network that it belongs to."
    # Parameters may have been cast to bfloat16.
    _require_alike(f"{where}: {name}.params", "the network's parameters", start.params, params, remedy, dtypes=False)
    what = "the network's running statistics"
    _require_alike(f"{where}: {name}.state", what, start.state, state, remedy, dtypes=False)
    require_opt_state(where, f"{name}.opt_state", opt, start.opt_state, start.params)


def require_same_state(where: str, name: str, new: Any, old: Any) -> None:
    """Raise ValueError unless two `TrainState`s have the same leaves, of the same shapes and dtypes."""
    remedy = "Keep structure, shapes and dtypes, e.g. ts._replace(opt_state=...); another network is another run."
    _require_alike(f"{where}: {name}", "that of the run", new, old, remedy)


def require_opt_state(where: str, name: str, opt: Any, opt_state: Any, params: Params) -> None:
    """Raise unless `opt_state` has the structure, shapes and dtypes of `opt.init(params)`."""
    expected = jax.eval_shape(opt.init, params)
    remedy = "Make it by opt.init(params), or pass the optimizer that it belongs to."
    _require_alike(f"{where}: {name}", "this optimizer's state", opt_state, expected, remedy)


def _require_alike(where: str, what: str, got: PyTree, expected: PyTree, remedy: str, *, dtypes: bool = True) -> None:
    """Raise ValueError at the first leaf in which two pytrees differ: presence, shape or dtype."""

    def leaves(tree: PyTree) -> dict[str, str]:
        found = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): _kind_of(leaf, dtypes) for path, leaf in found}

    given, wanted = leaves(got), leaves(expected)
    for path in [*wanted, *given]:
        if given.get(path) != wanted.get(path):
            raise ValueError(
                f"{where}{path} is {given.get(path, 'missing')}, {what} ({type(expected).__name__}) has "
                f"{wanted.get(path, 'nothing')} there. {remedy}"
            )
    found: Any = jax.tree.structure(got)
    needed: Any = jax.tree.structure(expected)
    if found != needed:
        raise ValueError(f"{where} must have the structure of {what}, {needed}, got {found}. {remedy}")


def _kind_of(leaf: Any, dtype: bool) -> str:
    """The leaf's dtype and shape as text; without `dtype`, "floating" for any floating dtype."""
    kind = jnp.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype
    name = str(kind) if dtype else "floating" if jnp.issubdtype(kind, jnp.floating) else str(kind)
    return f"{name}{list(jnp.shape(leaf))}"


def require_floating_leaves(where: str, name: str, values: PyTree) -> None:
    """Raise TypeError unless every leaf is floating: integers have no gradient."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        remedy = "Write 1.0 instead of 1, or convert it: x.astype(jnp.float32)."
        require_floating(where, name + jax.tree_util.keystr(path), leaf.dtype, remedy)


def require_metrics(where: str, metrics: Any) -> None:
    """Raise TypeError unless `metrics` maps names to functions."""
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise TypeError(
            f'{where}: metrics must be a dict of functions, such as {{"error": metrics.error_rate}}, got {metrics!r}.'
        )


def require_rules(where: str, stopping: Any) -> None:
    """Raise TypeError unless `stopping` is a sequence of functions."""
    if not isinstance(stopping, Sequence) or not all(callable(rule) for rule in stopping):
        raise TypeError(f"{where}: stopping must be a list of rules, such as [EarlyStopping()], got {stopping!r}.")


def as_inputs(where: str, name: str, value: Any) -> PyTree:
    """An array, or a pytree of arrays; nested lists and tuples of numbers are one array."""
    if isinstance(value, list) or not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)):
        return as_array(where, name, value)
    return as_arrays(where, name, value)


def as_pair(where: str, name: str, data: Any, *, trees: bool = False) -> tuple[PyTree, PyTree]:
    """(x, y) on the device, from a pair or a Dataset; raises unless both hold the same number N >= 1 of examples.

    With `trees` each may be a pytree of arrays (N, ...).
    """
    pair = (data.x, data.y) if hasattr(data, "x") and hasattr(data, "y") else data
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        remedy = " Draw fixed examples once: draws.batch(key, n)." if isinstance(data, Draws) else ""
        raise TypeError(f"{where}: {name} must be a pair (x, y) or a Dataset, got {type(data).__name__}.{remedy}")
    convert = as_inputs if trees else as_array
    x, y = convert(where, f"{name} x", pair[0]), convert(where, f"{name} y", pair[1])
    require_leading_axis(where, f"{name} x and y", (x, y), "Give one target for each example.")
    return x, y


def as_training(where: str, data: Any) -> tuple[PyTree, PyTree]:
    """(x, y) as `as_pair` makes it with `trees`, or (draws, ()) of a `Draws`, its arrays on the device."""
    drawn = data[0] if isinstance(data, tuple) and data else data
    if isinstance(drawn, Draws):
        return as_arrays(where, "train", drawn), ()
    return as_pair(where, "train", data, trees=True)


@contextlib.contextmanager
def taking(where: str, name: str, x: PyTree) -> Iterator[None]:
    """Inside, the error of a network that does not take this pytree as its inputs says so; x may be shapes."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if isinstance(x, jax.Array | jax.ShapeDtypeStruct):
            raise
        raise TypeError(
            f"{where}: {name} must be an array of numbers, got {type(x).__name__}: this network takes no such pytree "
            f"({error}). Pass the array that it contains, or a network for {jax.tree.structure(x)}."
        ) from error


def require_targets(
    where: str, name: str, net: Layer, params: Params, state: State, data: tuple[PyTree, PyTree], loss: Loss
) -> None:
    """Evaluate the loss on all concrete targets, with zeros as outputs, so that a label out of range raises.

    Inside the compiled epoch the targets are traced: there a bad label could only make the loss NaN.
    """
    x, y = data
    y = jax.tree.map(addressable_rows, y)
    first = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), x)
    with taking(where, f"{name} x", x):
        one = jax.eval_shape(functools.partial(compiler_sharded, net.predict, None), params, state, first)
    if not isinstance(one, jax.ShapeDtypeStruct):
        require_array(where, one)
        raise TypeError(
            f"{where}: the network must return one array (N, ...), got {type(one).__name__} for {name} x. Return one: "
            "of a model of flax by from_flax(..., call=lambda module, x, train: module(x)[0]), of equinox alike."
        )
    chunk = max(CHUNK_ENTRIES // max(math.prod(one.shape), 1), 1)
    n = require_leading_axis(where, f"{name} y", y)
    for start in range(0, n, chunk):
        count = min(chunk, n - start)
        targets = jax.tree.map(lambda a, start=start, count=count: a[start : start + count], y)
        try:
            loss(jnp.zeros((count, *one.shape[1:]), one.dtype), targets)
        except (TypeError, ValueError) as error:
            error.add_note(f"{where}: raised by the {name} targets")
            raise
