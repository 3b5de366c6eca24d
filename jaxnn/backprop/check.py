"""Checks of gradients and of backward rules, your own included, against finite differences.

Differences only evaluate the function: they check a rule, `jax.grad` and a `jax.custom_vjp` alike. At a kink, such as 0
for ReLU or a tie for max-pooling, the derivative is a convention that no difference can decide; of a layer, the
`jax.vjp` of its forward code states it.

Without `jax.jit` most of the time goes into compiling one operation after another; a `Check` may be made inside it:

    check = jax.jit(lambda x: backprop.check_rule(layer, x, key=jax.random.key(0)))(x)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.backprop.differences import Estimate, derivative, eps_of, require_same_structure
from jaxnn.backprop.rule import GRADIENT, USES, Cache, Rule, rule_of
from jaxnn.backprop.verdicts import OF_EACH, Check, Compared
from jaxnn.checks import (
    as_array,
    as_arrays,
    require_floating,
    require_function,
    require_key,
    require_positive,
    require_positive_int,
    require_scalar_function,
)
from jaxnn.layers.base import Layer, pair_of, require_net
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.tape import wide_total
from jaxnn.types import Array, Key, Params, PyTree, Scalar, State

MOST_ENTRIES = 256
"""Of larger arrays, a sample of this many entries is compared."""

MOST_EXAMPLES = 8
"""The number of examples, at most, whose own gradients are compared."""


def check_gradient(
    f: Callable[[PyTree], Array],
    x: PyTree,
    gradient: PyTree = None,
    *,
    tolerance: Scalar | None = None,
    entries: int = MOST_ENTRIES,
) -> Check:
    """Compares the gradient of a function with finite differences, entry by entry.

    For an entry g_j of the gradient, |g_j - df/dx_j| <= tolerance max_k |g_k| + error, where df/dx_j and its error come
    from `differences.derivative`. At a kink g_j may be anything between the derivatives from the left and the right.

    Args:
        f: from a pytree like `x` to a floating scalar.
        x: pytree of floating arrays, float64 for a sharp check; half precision is compared with differences in float32.
        gradient: the gradient that is checked, a pytree like `x`; None for `jax.grad(f)(x)`, which checks a
            `jax.custom_vjp` inside f.
        tolerance: relative; None for eps^0.4 of the coarsest dtype: 5e-7 in float64, .002 in float32, .14 in bfloat16.
        entries: of larger arrays, this many entries are compared, a fixed random sample.

    Returns:
        A `Check`: print it, or test `check.passed`. A row is undecided where rounding hides the derivative, or f jumps.

    Raises:
        TypeError: f is not a function, or x or f(x) is not floating.
        ValueError: x holds no array, f does not return a scalar, the gradient is not like x, tolerance <= 0, or
            entries < 1.

    Reference: Ridders, C. J. F. (1982). Accurate computation of F'(x) and F'(x) F''(x).

    Example:
        >>> def f(x):
        ...     return jnp.sum(x**3)
        >>> x = jnp.array([1.0, -2.0])
        >>> check_gradient(f, x).passed
        True
        >>> print(check_gradient(f, x, gradient=2 * x**2))
        array entries at kinks relative error verdict
        x     2       0        0.33           WRONG at (1,): 8, expected 12
    """
    require_function("check_gradient", "f", f, "landscapes.rosenbrock()", optional=False)
    x = as_arrays("check_gradient", "x", x)
    for leaf in jax.tree.leaves(x):
        require_floating("check_gradient", "x", leaf.dtype, "Convert it: x.astype(jnp.float32).")
    if not jax.tree.leaves(x):
        raise ValueError(f"check_gradient: x must hold at least one array, got {x!r}.")
    require_scalar_function("check_gradient", "f", f, x, "Sum it.")
    gradient = jax.grad(f)(x) if gradient is None else as_arrays("check_gradient", "gradient", gradient)
    _require_like("check_gradient: gradient must be a pytree like x", gradient, x)
    chosen = _chosen("check_gradient", x, entries)
    found = _differences(f, x, None, chosen)
    tolerance = _tolerance("check_gradient", tolerance, x)
    return Check(tuple(_gradients(_names(x, "x"), gradient, chosen, found, None)), tolerance)


def check_rule(
    layer: Layer,
    x: Array,
    *,
    key: Key,
    params: Params = None,
    state: State = None,
    train: bool = True,
    tolerance: Scalar | None = None,
    entries: int = MOST_ENTRIES,
) -> Check:
    """Compares the registered backward rule of a layer or network with finite differences of its forward code.

    For a random cotangent dy, the rule's dC/dx and dC/dw are compared with the derivatives of C = <dy, apply(w, x)>,
    entry by entry, as by `check_gradient`; entries that differences cannot decide must equal `jax.vjp` of the layer.
    Further, output and state of the rule's forward function must equal those of `layer.apply`, and, unless the layer
    couples the examples, the gradient of each example by the rule's `uses` must equal its gradient for the cotangent of
    this example alone.

    Args:
        layer: a layer or network; without a registered rule it is `AUTOMATIC` that is checked.
        x: inputs (N, ...), a small batch of at least 2 examples; float64 for a sharp check. Of integers there is no
            dC/dx.
        key: for the parameters, the state, dy, and the layer's own randomness.
        params, state: None for random numbers in the shapes of `layer.init`, so that no term of a derivative vanishes,
            as it may at a bias of 0 or a scale of 1; those of the state are positive, like variances.
        train: training or evaluation mode.
        tolerance, entries: as for `check_gradient`.

    Returns:
        A `Check`: print it, or test `check.passed`.

    Raises:
        TypeError: layer is not a Layer, key not a typed key, or the rule returns a dx of another dtype.
        ValueError: the rule returns a dx of another shape or uses that do not match the parameters, tolerance <= 0, or
            entries < 1.

    Reference: Ridders, C. J. F. (1982). Accurate computation of F'(x) and F'(x) F''(x).

    Example:
        >>> from jaxnn.backprop import Rule, keep_input, register
        >>> from jaxnn.layers import Kind, stateless
        >>> cube = stateless(Kind("cube"), lambda params, x: x**3)
        >>> wrong = register(cube.kind, Rule(keep_input, lambda layer, params, x, dy: 2 * x**2 * dy))
        >>> check = check_rule(cube, jnp.array([[1.0], [2.0]]), key=jax.random.key(0))
        >>> [(row.name, row.verdict) for row in check.rows]
        [('output', 'right'), ('input', 'WRONG')]
    """
    reference = _reference("check_rule", layer, x, key, params, state, train, entries)
    arrays = (reference.variables, reference.x, reference.y)
    return Check(tuple(_held_against(reference)), _tolerance("check_rule", tolerance, arrays))


class Reference(NamedTuple):
    """A layer at one point, and what its rule is held against, found without the rule.

    `variables` and `by_vjp` are {"params": ..., "input": x}, without x where it holds integers; `found` are the
    derivatives of <dy, y> by differences at the entries `chosen` of each array of them.
    """

    layer: Layer
    variables: dict[str, PyTree]
    state: State
    x: Array
    key: Key
    train: bool
    y: Array
    new_state: State
    dy: Array
    by_vjp: dict[str, PyTree]
    chosen: list[np.ndarray]
    found: list[Estimate]


def _reference(
    where: str, layer: Layer, x: Array, key: Key, params: Params, state: State, train: bool, entries: int
) -> Reference:
    """Parameters, state and cotangent at random; output, `jax.vjp` and differences there."""
    require_net(where, layer)
    require_key(where, key)
    x = as_array(where, "x", x)
    of_params, of_state, of_dy, own = jax.random.split(key, 4)
    first = layer.init(of_params, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    params = _normal(of_params, first[0]) if params is None else as_arrays(where, "params", params)
    state = _positive(of_state, first[1]) if state is None else as_arrays(where, "state", state)
    variables = {"params": params} | ({"input": x} if jnp.issubdtype(x.dtype, jnp.floating) else {})

    def output(variables: dict[str, PyTree]) -> tuple[Array, State]:
        inputs = variables.get("input", x)
        return pair_of(layer, layer.apply(variables["params"], state, inputs, key=own, train=train))

    y, pull, new_state = jax.vjp(output, variables, has_aux=True)
    dy = jax.random.normal(of_dy, y.shape, y.dtype)
    chosen = _chosen(where, variables, entries)
    found = _differences(lambda moved: output(moved)[0], variables, dy, chosen)
    return Reference(layer, variables, state, x, own, train, y, new_state, dy, pull(dy)[0], chosen, found)


def _held_against(reference: Reference) -> list[Compared]:
    """What the layer's rule claims, beside the reference."""
    layer, params, state, x, dy = (
        reference.layer,
        reference.variables["params"],
        reference.state,
        reference.x,
        reference.dy,
    )
    rule = rule_of(layer)
    y, new_state, cache = rule.forward(layer, params, state, x, key=reference.key, train=reference.train)
    dx, grads = rule.backward(layer, params, cache, dy, GRADIENT)
    claims = {"params": grads} | ({"input": dx} if "input" in reference.variables else {})
    _require_like(
        f"check_rule: dx and gradients of {layer.kind.name} must be like its input and parameters",
        claims,
        reference.variables,
    )
    names = [name.removeprefix("['params']") or "params" for name in _names(reference.variables, "")]
    names = ["input" if name == "['input']" else name for name in names]
    rows = _equal("output", y, reference.y) + _equal("state", new_state, reference.new_state)
    rows += _gradients(names, claims, reference.chosen, reference.found, reference.by_vjp)
    if jax.tree.leaves(params) and len(x) > 1 and not rule.couples(layer, reference.train):
        rows += _each_example(rule, layer, params, cache, dy)
    return rows


def _differences(f: Callable[[PyTree], PyTree], x: PyTree, dy: PyTree, chosen: list[np.ndarray]) -> list[Estimate]:
    """The derivatives of <dy, f> for the chosen entries of each array of x."""
    leaves, structure = jax.tree.flatten(jax.tree.map(accumulate, x))
    if not leaves:
        return []
    starts = np.cumsum([0, *(a.size for a in leaves)])
    dy = None if dy is None else jax.tree.map(accumulate, dy)

    def along(j: Array) -> Estimate:
        v = [
            (jnp.arange(start, start + a.size) == j).astype(a.dtype).reshape(a.shape)
            for a, start in zip(leaves, starts, strict=False)
        ]
        return derivative(f, jax.tree.unflatten(structure, leaves), jax.tree.unflatten(structure, v), dy)

    at = np.concatenate([start + of_one for start, of_one in zip(starts, chosen, strict=False)])
    found = jax.lax.map(along, jnp.asarray(at))
    ends = np.cumsum([len(of_one) for of_one in chosen])
    return [jax.tree.map(lambda a, s=s, e=e: a[s:e], found) for s, e in zip([0, *ends], ends, strict=False)]


def _gradients(
    names: list[str], claims: PyTree, chosen: list[np.ndarray], found: list[Estimate], by_vjp: PyTree
) -> list[Compared]:
    """The chosen entries of each gradient beside differences; `by_vjp` may be None."""
    rows = []
    known: list[Any] = [None] * len(names) if by_vjp is None else jax.tree.leaves(by_vjp)
    for name, claim, at, one, convention in zip(names, jax.tree.leaves(claims), chosen, found, known, strict=True):
        picked = None if convention is None else convention.reshape(-1)[at]
        rows.append(Compared(jnp.asarray(at), claim.reshape(-1)[at], one, picked, name, claim.shape))
    return rows


def _each_example(rule: Rule, layer: Layer, params: Params, cache: Cache, dy: Array) -> list[Compared]:
    """The gradients that the uses give of single examples, beside those for the cotangent of that example alone."""
    n = min(len(dy), MOST_EXAMPLES)
    structure: Any
    leaves, structure = jax.tree.flatten(params)
    uses = structure.flatten_up_to(rule.backward(layer, params, cache, dy, USES)[1])

    def by_uses(i: Array) -> list[Array]:
        weights = (jnp.arange(len(dy)) == i).astype(accumulation_dtype(dy.dtype))
        return [wide_total(use, p, weights) for use, p in zip(uses, leaves, strict=True)]

    def alone(i: Array) -> list[Array]:
        mine = (jnp.arange(len(dy)) == i).reshape(-1, *(1,) * (dy.ndim - 1))
        grads = rule.backward(layer, params, cache, jnp.where(mine, dy, jnp.zeros_like(dy)), GRADIENT)[1]
        return [accumulate(g) for g in jax.tree.leaves(grads)]

    names = [f"{name}{OF_EACH}" for name in _names(params, "params")]
    pairs = zip(names, *(jax.vmap(made)(jnp.arange(n)) for made in (by_uses, alone)), strict=True)
    return [row for name, got, expected in pairs for row in _equal(name, got, expected)]


def _equal(name: str, claims: PyTree, expected: PyTree) -> list[Compared]:
    """Values that must be equal up to rounding, all of their entries."""
    _require_like(f"check_rule: the rule's {name} must be like the layer's", claims, expected)
    return [
        Compared(jnp.arange(right.size), got.reshape(-1), None, right.reshape(-1), name, right.shape)
        for got, right in zip(jax.tree.leaves(claims), jax.tree.leaves(expected), strict=True)
    ]


def _chosen(where: str, x: PyTree, entries: int) -> list[np.ndarray]:
    """Flat indices of the entries to compare of each array: all, or a fixed random sample, ascending."""
    entries = require_positive_int(where, "entries", entries)
    rng = np.random.default_rng(0)
    sizes = [int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(x)]
    return [np.sort(rng.choice(n, entries, replace=False)) if n > entries else np.arange(n) for n in sizes]


def _tolerance(where: str, tolerance: Scalar | None, arrays: PyTree) -> Scalar:
    if tolerance is not None:
        require_positive(where, "tolerance", tolerance)
        return tolerance
    floating = [a.dtype for a in jax.tree.leaves(arrays) if jnp.issubdtype(a.dtype, jnp.floating)]
    return max(eps_of(dtype) ** 0.4 for dtype in floating)


def _normal(key: Key, tree: PyTree) -> PyTree:
    """The tree with its floating leaves drawn from a standard normal distribution."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        jax.random.normal(k, jnp.shape(leaf), leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(structure, drawn)


def _positive(key: Key, tree: PyTree) -> PyTree:
    """Like `_normal`, with numbers 1/2 + n^2."""
    floating = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating), tree)
    return jax.tree.map(lambda a, f: 0.5 + jnp.square(a) if f else a, _normal(key, tree), floating)


def _names(tree: PyTree, alone: str) -> list[str]:
    """The path of each leaf; `alone` for a tree that is one array."""
    return [jax.tree_util.keystr(path) or alone for path, _ in jax.tree.leaves_with_path(tree)]


def _require_like(message: str, got: PyTree, expected: PyTree) -> None:
    """Raise unless both have one structure, and leaves of one shape and dtype."""
    require_same_structure(message, got, expected)
    dtypes = [[jnp.result_type(a).name for a in jax.tree.leaves(t)] for t in (got, expected)]
    if dtypes[0] != dtypes[1]:
        raise TypeError(f"{message}, of dtypes {', '.join(dtypes[1])}, got {', '.join(dtypes[0])}.")
