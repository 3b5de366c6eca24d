"""What a backward rule is, and where the rule of each kind of layer is kept.

A layer makes y of x and of its parameters. Given dy = dC/dy, the derivative of the loss with respect to what it put
out, its rule answers two questions by the chain rule:

    dC/dx = (dy/dx)' dC/dy          `input_grad`, the error of the layer below
    dC/dw = (dy/dw)' dC/dy          `uses`, summed over examples and positions by `param_grad`

In the notation of the field dy is delta where the layer is linear (y is called z, x is called a) and dC/da where it is
an activation (y = a, x = z). Each rule's docstring derives its own two lines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.layers.base import Kind, Layer, pair_of
from jaxnn.tape import Use, Whole, total
from jaxnn.types import Array, Key, Params, PyTree, State

Cache: TypeAlias = Any
"""What the forward pass keeps for the backward pass: any pytree."""

Collect: TypeAlias = Callable[["Rule", Layer, Params, Cache, Array], PyTree]
"""What is made of each leaf layer on the way back: its gradient, or its uses."""


def _no_parameters(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    return ()


def _independent(layer: Layer, train: bool) -> bool:
    return False


def _by_hand(layer: Layer) -> bool:
    return True


def keep_input(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    """The `forward` of a rule that needs nothing but x on the way back: (y, state, x).

    Example:
        >>> from jaxnn.layers import Relu
        >>> keep_input(Relu, (), (), jnp.array([[-1.0, 2.0]]), key=None, train=True)[2]
        Array([[-1.,  2.]], dtype=float32)
    """
    y, state = layer.apply(params, state, x, key=key, train=train)
    return y, state, x


@dataclasses.dataclass(frozen=True)
class Rule:
    """The hand-derived backward pass of one kind of layer.

    In the notation of the field: the forward pass makes z from a; delta is the derivative of the loss with respect to
    what the layer put out (dy here), and comes back as the derivative with respect to what it was given (dx).

    Attributes:
        forward: `(layer, params, state, x, *, key, train) -> (y, state, cache)`.
        input_grad: `(layer, params, cache, dy) -> dx`: what moves the error down.
        uses: `(layer, params, cache, dy) -> ` a tree like params with a tuple of `jaxnn.tape` uses for each array: what
            makes a gradient, of the mean loss or of each example's. An array that is used twice has two uses in its
            tuple.
        couples: `(layer, train) -> bool`, whether examples see each other.
        by_hand: `(layer) -> bool`, whether nothing is left to `jax.vjp` with this layer's settings; for `coverage`.

    A layer of your own, y = s x with one number s for all, and its rule:

        >>> from jaxnn.layers import Kind, stateless
        >>> from jaxnn.tape import Scaling, positions
        >>> def apply(params, x):
        ...     return x * params["s"]
        >>> gain = stateless(Kind("gain"), apply, lambda key, example: {"s": jnp.ones(())})
        >>> def input_grad(layer, params, x, dy):
        ...     return dy * params["s"]
        >>> def uses(layer, params, x, dy):  # s is used at every entry: T positions of one number
        ...     a, delta = x.reshape(x.shape[0], -1, 1), dy.reshape(x.shape[0], -1, 1)
        ...     return {"s": (Scaling(a, delta),)}
        >>> rule = register(gain.kind, Rule(keep_input, input_grad, uses))
        >>> rule.param_grad(gain, {"s": jnp.ones(())}, jnp.array([[1.0, 2.0]]), jnp.array([[10.0, 1.0]]))
        {'s': Array(12., dtype=float32)}
    """

    forward: Callable[..., tuple[Array, State, Cache]]
    input_grad: Callable[[Layer, Params, Cache, Array], Array]
    uses: Callable[[Layer, Params, Cache, Array], PyTree] = _no_parameters
    couples: Callable[[Layer, bool], bool] = _independent
    by_hand: Callable[[Layer], bool] = _by_hand

    def param_grad(self, layer: Layer, params: Params, cache: Cache, dy: Array) -> Params:
        """The derivative with respect to the parameters: the uses of each, summed over examples and positions."""
        return gradient_of(self.uses(layer, params, cache, dy), params, where=layer.kind.name)

    def backward(self, layer: Layer, params: Params, cache: Cache, dy: Array, collect: Collect) -> tuple[Array, PyTree]:
        """(dx, what `collect` makes of this layer)."""
        return self.input_grad(layer, params, cache, dy), collect(self, layer, params, cache, dy)


def gradient_of(uses: PyTree, params: Params, weights: Array | None = None, *, where: str = "rule") -> Params:
    """sum_i w_i g_i for each parameter, from a tree of its uses.

    Raises:
        ValueError: the tree of uses is not that of the parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    found = leaves_of_uses(uses, params, where=where)
    return jax.tree.unflatten(structure, [total(u, p, weights) for u, p in zip(found, leaves, strict=True)])


def leaves_of_uses(uses: PyTree, params: Params, *, where: str) -> list[tuple[Use, ...]]:
    """The tuple of uses of each parameter, in the order of `jax.tree.leaves(params)`, checked.

    Raises:
        ValueError: the tree of uses is not that of the parameters, or a use has another shape than its parameter.
    """
    structure: Any
    places, structure = jax.tree.flatten_with_path(params)
    try:
        found = structure.flatten_up_to(uses)
    except ValueError:
        found = [None]
    if not all(isinstance(u, tuple) and all(isinstance(use, Use) for use in u) for u in found):
        kinds = jax.tree.map(lambda x: type(x).__name__, uses, is_leaf=lambda x: isinstance(x, Use))
        raise ValueError(
            f"{where}: the rule's uses must be a tree like the parameters, {structure}, with a tuple of jaxnn.tape "
            f"uses for each array, got {kinds}. Give Rule(forward, input_grad, uses) the function that makes it."
        )
    for (path, param), of_one in zip(places, found, strict=True):
        for use in of_one:
            if math.prod(use.shape) != math.prod(jnp.shape(param)):
                raise ValueError(
                    f"{where}: a use of {jax.tree_util.keystr(path)} gives gradients of shape {use.shape}, the "
                    f"parameter has shape {jnp.shape(param)}. Uses have axes (N, T, ...): examples, positions, entries."
                )
    return found


RULES: dict[Kind, Rule] = {}


def register(kind: Kind, rule: Rule) -> Rule:
    """Give a kind of layer its backward rule; one of your own layers too.

    Example:
        >>> from jaxnn.layers import Kind
        >>> rule = Rule(lambda *args, **kw: None, lambda layer, params, cache, dy: 2 * dy)
        >>> register(Kind("double"), rule) is rule
        True
    """
    if not isinstance(kind, Kind):
        raise TypeError(f'register: kind must be a Kind, such as Kind("mine"), got {kind!r}.')
    if not isinstance(rule, Rule):
        raise TypeError(f"register: rule must be a Rule, such as Rule(keep_input, input_grad, uses), got {rule!r}.")
    RULES[kind] = rule
    return rule


def rule_of(layer: Layer) -> Rule:
    """The rule of a layer's kind; without one, `jax.vjp` of its apply.

    Example:
        >>> from jaxnn.layers import Dense
        >>> rule_of(Dense(2)) is AUTOMATIC
        False
    """
    return RULES.get(layer.kind, AUTOMATIC)


def _automatic_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    def apply(params: Params, x: Array) -> tuple[Array, State]:
        return pair_of(layer, layer.apply(params, state, x, key=key, train=train))

    y, pull, new_state = jax.vjp(apply, params, x, has_aux=True)
    # Random numbers drawn for a batch are not those drawn for one example: with a key, examples stay in their batch.
    alone = None if key is not None else apply
    return y, new_state, (alone, pull, x)


def _automatic_input_grad(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    return cache[1](dy)[1]


def _automatic_uses(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    apply, pull, x = cache

    def of_one(x: Array, dy: Array) -> Params:
        return jax.vjp(lambda p: apply(p, x[None])[0], params)[1](dy[None])[0]

    def of_its_error(i: Array) -> Params:
        chosen = (jnp.arange(dy.shape[0]) == i).reshape(-1, *(1,) * (dy.ndim - 1))
        return pull(jnp.where(chosen, dy, jnp.zeros((), dy.dtype)))[0]

    each = jax.vmap(of_its_error)(jnp.arange(dy.shape[0])) if apply is None else jax.vmap(of_one)(x, dy)
    return jax.tree.map(lambda g: (Whole(g),), each)


@dataclasses.dataclass(frozen=True)
class _Automatic(Rule):
    def param_grad(self, layer: Layer, params: Params, cache: Cache, dy: Array) -> Params:
        return cache[1](dy)[0]


AUTOMATIC = _Automatic(_automatic_forward, _automatic_input_grad, _automatic_uses, by_hand=lambda layer: False)
"""The rule of a layer that has none: `jax.vjp` of its `apply`, exact for any layer that JAX can differentiate.

`coverage` shows which layers it serves. Its uses are whole gradients of single examples, found one example at a time
(with a key, one error of the batch at a time), which is right as long as the layer's examples do not see each other;
a layer whose examples do should register a rule that says so (`couples`).
"""
