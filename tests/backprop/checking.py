"""A rule against `jax.vjp` of the layer's own forward function, in float64 under strict promotion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop
from jaxnn.backprop.combinators import backward, forward
from jaxnn.backprop.rule import GRADIENT, USES
from jaxnn.layers import Layer, Sequences
from jaxnn.layers.sequences import only
from jaxnn.tape.uses import total
from jaxnn.train import mean_loss
from tests.helpers import float64, random, strict

EXACT = 1e-12
"""The largest relative difference allowed between a rule and `jax.vjp`."""


@pytest.fixture(autouse=True)
def compiled_quickly() -> Iterator[None]:
    """Compile without XLA's optimizations: each test compiles much and runs it once."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def relative(got: Any, expected: Any) -> float:
    """The largest difference between two trees, each leaf relative to its largest entry; NaN counts as infinite.

    Leaves that are small beside the others (the gradient of a bias before batch normalization is 0, but for rounding)
    are measured by a hundredth of the largest entry of all.
    """
    got_leaves, got_tree = jax.tree.flatten(got)
    expected_leaves, expected_tree = jax.tree.flatten(expected)
    assert got_tree == expected_tree, f"structures differ: {got_tree} and {expected_tree}"
    for g, e in zip(got_leaves, expected_leaves, strict=True):
        assert g.shape == e.shape, f"shapes differ: {g.shape} and {e.shape}"
        assert g.dtype == e.dtype, f"dtypes differ: {g.dtype} and {e.dtype}"
    pairs = [
        (np.asarray(g, np.float64), np.asarray(e, np.float64)) for g, e in zip(got_leaves, expected_leaves, strict=True)
    ]
    pairs = [(g, e) for g, e in pairs if e.size]
    least = max([float(np.max(np.abs(e))) for _, e in pairs], default=0.0) / 100 + 1e-300
    offs = [float(np.max(np.abs(g - e)) / max(np.max(np.abs(e)), least)) for g, e in pairs]
    return max([off if off == off else np.inf for off in offs], default=0.0)


def spread_out(params: Any, seed: int) -> Any:
    """Random numbers in the place of parameters, so that no term of a gradient vanishes."""
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [np.asarray(random(seed + i, *p.shape)) for i, p in enumerate(leaves)])


def drawn(net: Layer, x: Any, seed: int = 7) -> tuple[Any, Any]:
    """(params, state) for inputs like x, both by NumPy: no entry is 0 or 1 and variances are positive."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), example))
    return spread_out(params, seed), positive_variances(state)


def positive_variances(state: Any) -> Any:
    return jax.tree.map(lambda s: np.asarray(0.5 + random(3, *s.shape) ** 2), state)


def opened(x: Any) -> list[Any]:
    """The arrays of numbers in a batch or its cotangent: of `Sequences`, the values, and those of the context."""
    if not isinstance(x, Sequences):
        return [x]
    return [x.values, *([] if x.context is None else opened(x.context))]


def closed(x: Any, arrays: list[Any]) -> Any:
    """The inverse of `opened`: the masks of x with these arrays."""
    if not isinstance(x, Sequences):
        return arrays[0]
    return Sequences(arrays[0], x.mask, None if x.context is None else closed(x.context, arrays[1:]))


def cotangents(y: Any, seed: int) -> list[Any]:
    """Random numbers for `opened(y)`; 0 at masked positions of a context, which only what reads it would drop."""
    dys = [jnp.asarray(random(seed + i, *a.shape)) for i, a in enumerate(opened(y))]
    for i, context in enumerate(contexts(y), 1):
        dys[i] = only(context.mask, dys[i])
    return dys


def contexts(y: Any) -> list[Sequences]:
    context = y.context if isinstance(y, Sequences) else None
    return [] if context is None else [context, *contexts(context)]


def of_sequences(layer: Layer, params: Any, state: Any, x: Any, *, key: Any, train: bool, seed: int) -> Any:
    """(ours, expected): value, state, gradients of parameters and of every floating array in the inputs.

    The oracle differentiates with respect to the arrays alone; masks are constants.
    """

    def apply(params: Any, arrays: list[Any]) -> Any:
        y, new_state = layer.apply(params, state, closed(x, arrays), key=key, train=train)
        return opened(y), (new_state, y)

    values, pull, (new_state, y) = jax.vjp(apply, params, opened(x), has_aux=True)
    dys = cotangents(y, seed)
    grads, dxs = pull(dys)
    own_y, own_state, cache = forward(layer, params, state, x, key=key, train=train)
    dx, own_grads = backward(layer, params, cache, closed(own_y, dys), GRADIENT)
    summed = backward(layer, params, cache, closed(own_y, dys), USES)[1]
    floating = [i for i, a in enumerate(opened(x)) if jnp.issubdtype(a.dtype, jnp.floating)]
    return (
        (opened(own_y), own_state, own_grads, totals(summed, params), [opened(dx)[i] for i in floating]),
        (values, new_state, grads, grads, [dxs[i] for i in floating]),
    )


def totals(uses: Any, params: Any) -> Any:
    """The uses of each parameter summed over examples and positions."""
    leaves, structure = jax.tree.flatten(params)
    found = [total(each, p) for each, p in zip(structure.flatten_up_to(uses), leaves, strict=True)]
    return jax.tree.unflatten(structure, found)


def rule_errors(
    cases: Mapping[str, tuple[Layer, Any]], *, key: Any = None, train: bool = True, seed: int = 0
) -> dict[str, float]:
    """How far value, state, input and parameter gradients by the rules of layers are from those by `jax.vjp`.

    All of them are one program: compiling it costs less than compiling one for each layer.
    """

    def both(layer: Layer, params: Any, state: Any, x: Any) -> Any:
        if layer.sequences:  # takes `Sequences`, or returns them
            return of_sequences(layer, params, state, x, key=key, train=train, seed=seed + 99)
        rule = backprop.rule_of(layer)
        y, pull, new_state = jax.vjp(
            lambda p, x: layer.apply(p, state, x, key=key, train=train), params, x, has_aux=True
        )
        dy = jnp.asarray(random(seed + 99, *y.shape))
        grads, dx = pull(dy)
        own_y, own_state, cache = rule.forward(layer, params, state, x, key=key, train=train)
        own = own_y, own_state, rule.param_grad(layer, params, cache, dy), rule.input_grad(layer, params, cache, dy)
        # There is no derivative with respect to integers.
        several = 4 if jnp.issubdtype(x.dtype, jnp.floating) else 3
        return own[:several], (y, new_state, grads, dx)[:several]

    def all_of_them(arguments: Any) -> Any:
        return {name: both(layer, *arguments[name]) for name, (layer, _) in cases.items()}

    with float64(), strict():
        arguments = {name: (*drawn(layer, x), x) for name, (layer, x) in cases.items()}
        return {name: relative(*pair) for name, pair in jax.jit(all_of_them)(arguments).items()}


def rule_error(layer: Layer, x: Any, **settings: Any) -> float:
    """`rule_errors` of one layer."""
    return rule_errors({"": (layer, x)}, **settings)[""]


def assert_exact(layer: Layer, x: Any, **settings: Any) -> None:
    assert rule_error(layer, x, **settings) <= EXACT


def assert_all_exact(cases: Mapping[str, tuple[Layer, Any]], **settings: Any) -> None:
    wrong = {name: error for name, error in rule_errors(cases, **settings).items() if not error <= EXACT}
    assert not wrong


def gradient_error(net: Layer, loss: Any, x: Any, y: Any, **settings: Any) -> float:
    """How far `value_and_grad` is from `jax.value_and_grad` of the training loss, in float64."""
    regularizer, call = settings.pop("regularizer", None), settings.pop("call", {})
    own = backprop.value_and_grad(net, loss, regularizer, **settings)
    oracle = jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)

    def both(params: Any, state: Any, x: Any, y: Any, call: Any) -> Any:
        return own(params, state, x, y, **call), oracle(params, state, x, y, **call)

    with float64(), strict():
        return relative(*jax.jit(both)(*drawn(net, x), x, y, call))
