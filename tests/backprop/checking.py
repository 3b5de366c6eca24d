"""A rule against `jax.vjp` of the layer's own forward function, in float64 under strict promotion."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop
from jaxnn.layers import Layer
from tests.helpers import float64, random, strict

EXACT = 1e-12
"""The largest relative difference allowed between a rule and `jax.vjp`."""


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


def spread_out(params: Any, seed: int = 7) -> Any:
    """Parameters with random numbers in the place of zeros and ones, so that no term of a gradient vanishes."""
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [jnp.asarray(random(seed + i, *p.shape)) for i, p in enumerate(leaves)])


def positive_variances(state: Any) -> Any:
    return jax.tree.map(lambda s: 0.5 + jnp.asarray(random(3, *s.shape)) ** 2, state)


def rule_error(
    layer: Layer, x: np.ndarray, *, key: Any = None, train: bool = True, seed: int = 0, library: Any = backprop
) -> float:
    """How far value, state, input and parameter gradients of a layer's rule are from `jax.vjp`'s."""
    with float64(), strict():
        x = jnp.asarray(x)
        params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        params, state = spread_out(params), positive_variances(state)

        def both(params: Any, state: Any, x: Any) -> Any:
            rule = library.rule_of(layer)
            y, pull, new_state = jax.vjp(
                lambda p, x: layer.apply(p, state, x, key=key, train=train), params, x, has_aux=True
            )
            dy = jnp.asarray(random(seed + 99, *y.shape))
            grads, dx = pull(dy)
            own_y, own_state, cache = rule.forward(layer, params, state, x, key=key, train=train)
            own = (
                own_y,
                own_state,
                rule.input_grad(layer, params, cache, dy),
                rule.param_grad(layer, params, cache, dy),
            )
            expected = (y, new_state, dx, grads)
            if not jnp.issubdtype(x.dtype, jnp.floating):  # there is no derivative with respect to integers
                return (*own[:2], own[3]), (*expected[:2], expected[3])
            return own, expected

        return relative(*jax.jit(both)(params, state, x))


def assert_exact(layer: Layer, x: np.ndarray, **settings: Any) -> None:
    assert rule_error(layer, x, **settings) <= EXACT


def gradient_error(net: Layer, loss: Any, x: Any, y: Any, *, library: Any = backprop, **settings: Any) -> float:
    """How far `value_and_grad` is from `jax.value_and_grad` of the training loss, in float64."""
    from jaxnn import train

    regularizer, call = settings.pop("regularizer", None), settings.pop("call", {})
    with float64(), strict():
        x, y, call = jnp.asarray(x), jnp.asarray(y), jax.tree.map(jnp.asarray, call)
        params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        params = spread_out(params)
        own = library.value_and_grad(net, loss, regularizer, **settings)
        oracle = jax.value_and_grad(train.mean_loss(net, loss, regularizer), has_aux=True)

        def both(params: Any, state: Any, x: Any, y: Any, call: Any) -> Any:
            return own(params, state, x, y, **call), oracle(params, state, x, y, **call)

        return relative(*jax.jit(both)(params, state, x, y, call))
