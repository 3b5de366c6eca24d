"""Argument checks of `fit` and its parts, which raise before anything is compiled."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import as_array, require_floating, require_function, require_leading_axis
from jaxnn.layers import Layer
from jaxnn.layers.base import require_net
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, Loss, Params, PyTree, State

__all__ = [
    "CHUNK_ENTRIES",
    "as_pair",
    "require_floating_leaves",
    "require_function",
    "require_metrics",
    "require_net",
    "require_opt_state",
    "require_optimizer",
    "require_rules",
    "require_start",
    "require_targets",
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
    remedy = f"Make it by train.init(net, opt, key, {tuple(example.shape)}), or pass the network that it belongs to."
    # Parameters may have been cast to bfloat16.
    _require_alike(f"{where}: {name}.params", "the network's parameters", start.params, params, remedy, dtypes=False)
    what = "the network's running statistics"
    _require_alike(f"{where}: {name}.state", what, start.state, state, remedy, dtypes=False)
    require_opt_state(where, f"{name}.opt_state", opt, start.opt_state, start.params)


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


def as_pair(where: str, name: str, data: Any) -> tuple[Array, Array]:
    """(x, y) on the device, from a pair or a Dataset; raises unless both hold the same number N >= 1 of examples."""
    pair = (data.x, data.y) if hasattr(data, "x") and hasattr(data, "y") else data
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{where}: {name} must be a pair (x, y) or a Dataset, got {type(data).__name__}.")
    x, y = as_array(where, f"{name} x", pair[0]), as_array(where, f"{name} y", pair[1])
    require_leading_axis(where, f"{name} x and y", (x, y), "Give one target for each example.")
    return x, y


def require_targets(
    where: str, name: str, net: Layer, params: Params, state: State, data: tuple[Array, Array], loss: Loss
) -> None:
    """Evaluate the loss on all concrete targets, with zeros as outputs, so that a label out of range raises.

    Inside the compiled epoch the targets are traced: there a bad label could only make the loss NaN.
    """
    x, y = data
    one = jax.eval_shape(
        functools.partial(compiler_sharded, net.predict, None),
        params,
        state,
        jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype),
    )
    chunk = max(CHUNK_ENTRIES // max(math.prod(one.shape), 1), 1)
    for start in range(0, y.shape[0], chunk):
        targets = y[start : start + chunk]
        try:
            loss(jnp.zeros((targets.shape[0], *one.shape[1:]), one.dtype), targets)
        except (TypeError, ValueError) as error:
            error.add_note(f"{where}: raised by the {name} targets")
            raise
