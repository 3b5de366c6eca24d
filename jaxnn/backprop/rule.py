"""Backward rules, and the registry of the rule of each kind of layer.

A layer computes y from x and its parameters w; J_x and J_w are the Jacobians of y, C the loss. From dy = dC/dy, the
cotangent of its output, its rule computes

    dC/dx = J_x' dy     `input_grad`, the output cotangent of the layer below
    dC/dw = J_w' dy     `param_grad`, the sum over examples and positions of `uses`: the factors of this product
                        (`jaxnn.tape`)

In textbook notation dy is delta for a linear layer (x = a, y = z) and dC/da for an activation (x = z, y = a). Each
module of rules derives these two lines.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.layers.base import Kind, Layer, pair_of
from jaxnn.layers.sequences import Sequences, only, values_of
from jaxnn.tape import STATIC, Placed, Use, Whole, errors, wide_total
from jaxnn.types import Array, Key, Params, PyTree, State

Cache: TypeAlias = Any
"""The residuals that the forward pass stores for the backward pass: any pytree."""

Collect: TypeAlias = Callable[["Rule"], Callable[[Layer, Params, Cache, Array], PyTree]]
"""What the backward pass computes at each leaf layer, from its rule: `GRADIENT` or `USES`."""

GRADIENT: Collect = operator.attrgetter("param_grad")
"""Asks each leaf layer for the gradient of its parameters."""

USES: Collect = operator.attrgetter("checked_uses")
"""Asks each leaf layer for the uses of its parameters."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AtLogits:
    """A cotangent of the last leaf layer's INPUT, dC/dz, where loss and layer are fused, and what is collected there:
    the gradient of the layer's parameters, or their uses."""

    delta: Array
    params: PyTree = ()


def computed_once(x: PyTree) -> PyTree:
    """x, a cotangent that several products read: a barrier keeps XLA from computing it again in each of them.

    Not on a TPU, where computing again costs less than writing and reading: without barriers a decoder's gradient of
    16 x 1,024 tokens of 32,768 takes 0.93 of the estimated time and 0.73 of the memory.
    """
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)):
        return x
    return lax.platform_dependent(x, tpu=lambda x: x, default=lax.optimization_barrier)


def _no_parameters(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    return ()


def _independent(layer: Layer, train: bool) -> bool:
    return False


def _by_hand(layer: Layer) -> bool:
    return True


def keep_input(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    """The `forward` of a rule whose cache is x: (y, state, x).

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

    dy is the cotangent of the layer's output, dx that of its input.

    Attributes:
        forward: `(layer, params, state, x, *, key, train) -> (y, state, cache)`.
        input_grad: `(layer, params, cache, dy) -> dx`.
        uses: `(layer, params, cache, dy) -> ` a pytree like `params` with a tuple of `jaxnn.tape` uses for each array,
            from which gradients of the mean loss and of each example are formed. An array used twice has two uses.
        couples: `(layer, train) -> bool`, whether the layer couples the examples.
        by_hand: `(layer) -> bool`, whether nothing falls back to `jax.vjp` with this layer's settings; for `coverage`.

    A layer of your own, y = s x with a scalar parameter s, and its rule:

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
        """dC/dw, a pytree like `params` in their dtypes: the uses of each, summed over examples and positions."""
        leaves, structure = jax.tree.flatten(params)
        found = _leaves_of_uses(self.uses(layer, params, cache, dy), params, where=layer.kind.name)
        pairs = zip(found, leaves, strict=True)
        return jax.tree.unflatten(structure, [wide_total(uses, p).astype(p.dtype) for uses, p in pairs])

    def checked_uses(self, layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
        """`uses`; ValueError unless they are a pytree like the parameters, of uses of their shapes."""
        uses = self.uses(layer, params, cache, dy)
        _leaves_of_uses(uses, params, where=layer.kind.name)
        return uses

    def backward(
        self, layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
    ) -> tuple[Array, PyTree]:
        """(dx, what `collect` computes: of a combinator, a tuple with one entry per part)."""
        if isinstance(dy, AtLogits):  # this activation is fused with the loss: what it would compute is there already
            return dy.delta, dy.params
        dx = self.input_grad(layer, params, cache, dy)
        if self.forward is keep_input and jnp.shape(values_of(dx)) != jnp.shape(values_of(cache)):
            raise ValueError(
                f"{layer.kind.name}: the rule's input_grad must return dx of the shape of x, "
                f"{jnp.shape(values_of(cache))}, got {jnp.shape(values_of(dx))}."
            )
        return dx, collect(self)(layer, params, cache, dy)


def _leaves_of_uses(uses: PyTree, params: Params, *, where: str) -> list[tuple[Use, ...]]:
    """The tuple of uses of each parameter, in the order of `jax.tree.leaves(params)`; ValueError if they mismatch."""
    structure: Any
    places, structure = jax.tree.flatten_with_path(params)
    try:
        found = structure.flatten_up_to(uses)
    except ValueError:
        found = [None]
    if not all(isinstance(u, tuple) and all(isinstance(use, Use) for use in u) for u in found):
        kinds = jax.tree.map(lambda x: type(x).__name__, uses, is_leaf=lambda x: isinstance(x, Use))
        raise ValueError(
            f"{where}: the rule's uses must be a pytree like the parameters, {structure}, with a tuple of jaxnn.tape "
            f"uses for each array, got {kinds}. Pass a function that returns one: Rule(forward, input_grad, uses)."
        )
    for (path, param), of_one in zip(places, found, strict=True):
        for use in of_one:
            inner = use.use if isinstance(use, Placed) else use
            flat = not isinstance(inner, Whole) and errors(inner).ndim < 3
            if flat or math.prod(use.shape) != math.prod(jnp.shape(param)):
                raise ValueError(
                    f"{where}: a use of {jax.tree_util.keystr(path)} has delta of shape {errors(inner).shape} and "
                    f"gradients of shape {use.shape}, the parameter has shape {jnp.shape(param)}. Uses have axes "
                    "(N, T, ...): examples, positions, entries; jaxnn.tape.positions makes T."
                )
    return found


RULES: dict[Kind, Rule] = {}


def register(kind: Kind, rule: Rule) -> Rule:
    """Registers the backward rule of a kind of layer, yours included, in place of any earlier one, and returns it.

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
    """The registered rule of a layer's kind; `AUTOMATIC`, the `jax.vjp` of its apply, if there is none.

    Example:
        >>> from jaxnn.layers import Dense
        >>> rule_of(Dense(2)) is AUTOMATIC
        False
    """
    return RULES.get(layer.kind, AUTOMATIC)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Pulled:
    """The `jax.vjp` of a layer's apply, and its arguments; `keyed`: whether random numbers were drawn for the batch."""

    pull: Any
    state: State
    x: Any
    train: bool = dataclasses.field(metadata=STATIC)
    keyed: bool = dataclasses.field(metadata=STATIC)


def _automatic_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Cache]:
    def apply(params: Params, x: Any) -> tuple[Any, State]:
        return pair_of(layer, layer.apply(params, state, x, key=key, train=train))

    y, pull, new_state = jax.vjp(apply, params, x, has_aux=True)
    return y, new_state, _Pulled(pull, state, x, train, key is not None)


def _automatic_input_grad(layer: Layer, params: Params, cache: _Pulled, dy: Any) -> Any:
    return _with_masks(cache.pull(_without_masks(dy))[1], cache.x)


def _automatic_uses(layer: Layer, params: Params, cache: _Pulled, dy: Any) -> PyTree:
    examples = jax.tree.leaves(dy)[0].shape[0]

    def one_batch(x: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], x)

    def of_one(x: Any, dy: Any) -> Params:
        def apply(p: Params) -> Any:
            return layer.apply(p, cache.state, one_batch(x), key=None, train=cache.train)[0]

        return jax.vjp(apply, params)[1](_without_masks(one_batch(dy)))[0]

    def of_its_error(i: Array) -> Params:
        def chosen(leaf: Array) -> Array:
            here = (jnp.arange(examples) == i).reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(here, leaf, jnp.zeros((), leaf.dtype))

        return cache.pull(_without_masks(jax.tree.map(chosen, dy)))[0]

    # With a key, apply to one example would draw other random numbers than apply to the batch did: keep the batch.
    each = jax.vmap(of_its_error)(jnp.arange(examples)) if cache.keyed else jax.vmap(of_one)(cache.x, dy)
    return jax.tree.map(lambda g: (Whole(g),), each)


def _without_masks(dy: Any) -> Any:
    """A cotangent as `jax.vjp` takes it: that of a mask is float0."""
    if not isinstance(dy, Sequences):
        return dy
    mask: Any = None if dy.mask is None else np.zeros(dy.mask.shape, jax.dtypes.float0)
    return Sequences(only(dy.mask, dy.values), mask, _without_masks(dy.context))


def _with_masks(dx: Any, x: Any) -> Any:
    """A cotangent as rules take it: with the mask."""
    if not isinstance(x, Sequences):
        return dx
    return Sequences(only(x.mask, dx.values), x.mask, _with_masks(dx.context, x.context))


@dataclasses.dataclass(frozen=True)
class _Automatic(Rule):
    def param_grad(self, layer: Layer, params: Params, cache: Cache, dy: Array) -> Params:
        return cache.pull(_without_masks(dy))[0]


AUTOMATIC = _Automatic(_automatic_forward, _automatic_input_grad, _automatic_uses, by_hand=lambda layer: False)
"""The rule of a layer without one: `jax.vjp` of its `apply`, exact for any layer that JAX can differentiate.

`coverage` lists the layers that fall back to it. Its uses are materialized per-example gradients, by a vmap over
examples (with a key, over the rows of the batch's cotangent). They are right as long as the layer does not couple the
examples; register a rule with `couples` for one that does.
"""
