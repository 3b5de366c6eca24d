"""The protocol of optimizers, and `per_leaf`, which lifts a rule for arrays to pytrees."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.numerics import accumulation_dtype
from jaxnn.placement import full_like
from jaxnn.types import Array, ArrayTree, DType, DTypeLike, Params, PyTree, Scalar

OptState: TypeAlias = PyTree
"""The state of a transformation."""

Updates: TypeAlias = PyTree
"""Gradients or transformed gradients: a pytree like the parameters."""

TransformInitFn: TypeAlias = Callable[[Params], OptState]
"""params -> state."""


class TransformUpdateFn(Protocol):
    """(updates, state, params=None) -> (updates, state). Your own may accept a narrower type, e.g. a dict alone."""

    def __call__(self, updates: Any, state: Any, /, params: Any = None) -> tuple[Updates, OptState]: ...


class OptimizerInitFn(Protocol):
    """params -> state, for every pytree of parameters."""

    def __call__(self, params: ArrayTree) -> OptState: ...


class TransformUpdateExtraArgsFn(Protocol):
    """(updates, state, params=None, **extra) -> (updates, state), for every pytree."""

    def __call__(
        self, updates: ArrayTree, state: ArrayTree, params: ArrayTree = None, **extra: Any
    ) -> tuple[Updates, OptState]: ...


class Transformation(Protocol):
    """A transformation of this library or of optax, or any object with `init` and `update`.

    For annotations; `GradientTransformation` is the class to make one of your own.

    Example:
        >>> from jaxnn import optim
        >>> def run(opt: optim.Transformation, params: dict[str, jax.Array]) -> None: ...
    """

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def update(self) -> Callable[..., Any]: ...


class EmptyState(NamedTuple):
    """The state of a transformation that keeps none; equal to `()`.

    Example:
        >>> from jaxnn import optim
        >>> optim.scale(2.0).init(jnp.ones(1))
        EmptyState()
    """


class GradientTransformation(NamedTuple):
    """A pair of pure functions, optax's protocol; for annotations and for your own transformations.

    Every `Optimizer` is one. optax's transformations are accepted too, but are not instances of this class.

    Attributes:
        init: `init(params) -> state`.
        update: `update(updates, state, params=None) -> (updates, state)`.

    Example:
        >>> from jaxnn import optim
        >>> isinstance(optim.adam(0.1), optim.GradientTransformation)
        True
        >>> halve = optim.GradientTransformation(optim.init_empty_state, lambda u, state, params=None: (u / 2, state))
        >>> opt = optim.chain(halve, optim.sgd(1.0))
        >>> opt.update(jnp.ones(1), opt.init(jnp.ones(1)))[0]
        Array([-0.5], dtype=float32)
    """

    init: TransformInitFn
    update: TransformUpdateFn


class GradientTransformationExtraArgs(GradientTransformation):
    """A `GradientTransformation` whose update takes extra keyword arguments: `update(updates, state, params, **extra)`.

    Example:
        >>> from jaxnn import optim
        >>> isinstance(optim.adam(0.1), optim.GradientTransformationExtraArgs)
        True
    """

    __slots__ = ()

    update: TransformUpdateExtraArgsFn


class Optimizer(GradientTransformationExtraArgs):
    """What every factory of this library returns: a pair of pure functions, optax's protocol with extra arguments.

    Attributes:
        init: `init(params) -> state`.
        update: `update(updates, state, params=None, **extra) -> (updates, state)`. It takes gradients or another
            transformation's updates; `apply_updates` ADDS the updates that a whole optimizer returns. Extra arguments
            that a rule does not use (`value`, `grad`, `value_fn`, ...) are ignored.

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(0.5)
        >>> updates, state = opt.update(jnp.array([1.0, -2.0]), opt.init(jnp.zeros(2)))
        >>> updates
        Array([-0.5,  1. ], dtype=float32)
    """

    __slots__ = ()

    # Annotations alone: what type checkers ask of a caller. The fields of the base class say what may be an argument.
    init: OptimizerInitFn


def apply_updates(params: ArrayTree, updates: ArrayTree) -> Params:
    """params + updates, added in the accumulation dtype (integers as such) and stored in each parameter's own.

    A parameter whose update is None, or of dtype float0 as from `jax.grad(..., allow_int=True)`, is unchanged. A
    parameter None stays None. A real parameter drops the imaginary part of its update.

    Raises:
        ValueError: updates of another structure, or of other shapes than the parameters.
        TypeError: a floating update of an integer parameter, which would be truncated.

    Example:
        >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, -0.5)})
        {'w': Array([0.5, 0.5], dtype=float32)}
    """

    def leaf(p: Array | None, u: Array | None) -> Array | None:
        if p is None or u is None or is_float0(u):
            return p
        if jnp.shape(u) != jnp.shape(p):
            raise ValueError(f"apply_updates: an update has shape {jnp.shape(u)} but its parameter {jnp.shape(p)}.")
        if not jnp.issubdtype(jnp.result_type(p), jnp.inexact):
            if jnp.issubdtype(jnp.result_type(u), jnp.inexact):
                raise TypeError(_not_floating("apply_updates: an update", jnp.result_type(u), jnp.result_type(p)))
            return (jnp.asarray(p) + jnp.asarray(u)).astype(jnp.result_type(p))
        dtype = accumulation_dtype(jnp.result_type(p), jnp.result_type(u))
        return (jnp.asarray(p).astype(dtype) + jnp.asarray(u).astype(dtype)).astype(jnp.result_type(p))

    structure: Any
    leaves, structure = jax.tree.flatten(params, is_leaf=_is_none)
    try:
        pairs = zip(leaves, structure.flatten_up_to(updates), strict=True)
    except (ValueError, TypeError):
        raise ValueError(
            f"apply_updates: the updates must have the structure of the parameters, got updates "
            f"{jax.tree.structure(updates)} for parameters {structure}."
        ) from None
    return jax.tree.unflatten(structure, [leaf(p, u) for p, u in pairs])


def initial_moment(params: Params, dtype: DTypeLike | None = None, *, fill: Scalar = 0.0, real: bool = False) -> PyTree:
    """The initial running moment: a pytree like `params`, filled with a number, sharded as the parameters are.

    TypeError unless every leaf is real or complex floating.

    Args:
        params: pytree of real or complex floating arrays; None leaves stay None.
        dtype: precision of the moment; None means the accumulation dtype (float32 for bfloat16 and float16).
        fill: the value at the start.
        real: whether the moment of a complex parameter is real, as those of squared magnitudes are, else complex.
    """

    def leaf(path: Any, p: Array) -> Array:
        if callable(p) or isinstance(p, str):
            raise TypeError(
                f"optimizer: parameter {jax.tree_util.keystr(path)} must be an array, got {p!r}. Parameters are "
                "pytrees of arrays: those of an equinox module are equinox.filter(model, equinox.is_inexact_array)."
            )
        kind = jnp.result_type(p)
        if not jnp.issubdtype(kind, jnp.inexact):
            raise TypeError(
                f"optimizer: parameter {jax.tree_util.keystr(path)} must have a floating dtype, got {kind}. "
                "Keep integers and strings out of params, or mask them with None."
            )
        kept = accumulation_dtype(kind) if dtype is None else jnp.dtype(dtype)
        if jnp.issubdtype(kind, jnp.complexfloating):
            kept = real_dtype(kept) if real else complex_dtype(kept)
        return full_like(p, fill, kept)

    return jax.tree_util.tree_map_with_path(leaf, params)


def per_leaf(
    rule: Callable[..., tuple[Any, ...]], grads: PyTree, states: tuple[PyTree, ...], params: Params | None
) -> tuple[PyTree, ...]:
    """Lift `rule(g, *state_leaves) -> (update, *new_state_leaves)` from arrays to pytrees.

    The rule computes in the accumulation dtype: g and the state leaves are widened before it. The update is stored in
    the dtype of the parameter (of the gradient if no params are given) and each state leaf in the dtype that it had,
    so that a state never changes its dtype under `scan`. A rule that needs the parameters takes them as a state and
    returns them unchanged.

    Args:
        rule: the equation for one array; a state leaf is None where its pytree is None.
        grads: pytree of gradients; where a leaf is None, the update is None and the state stays.
        states: pytrees like the parameters, or None for a state that is not kept.
        params: pytree like the gradients, or None.

    Returns:
        (updates, *new states).

    Raises:
        ValueError: the pytrees differ in structure, or a gradient in shape from its parameter; the rule changes a
            shape, as it does where the state was made for another shape.
        TypeError: the update would be stored in an integer dtype, which truncates it; a gradient of dtype float0.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(grads, is_leaf=_is_none)
    columns = [_leaves_like(structure, tree, "the state that init made") for tree in states]
    targets = leaves if params is None else _leaves_like(structure, params, "params")
    results = []
    for g, target, *kept in zip(leaves, targets, *columns, strict=True):
        if g is None:
            results.append((None, *kept))
            continue
        stored = jnp.result_type(g if target is None else target)
        if is_float0(g) or not jnp.issubdtype(stored, jnp.inexact):
            raise TypeError(_not_floating("optimizer: a gradient", getattr(g, "dtype", stored), stored))
        g = jnp.asarray(g)
        where = functools.partial(_gradient_at, grads, len(results))
        if target is not None and jnp.shape(target) != g.shape:
            raise ValueError(
                f"{where()} but its parameter {jnp.shape(target)}. Gradients are taken with "
                "respect to the parameters that are passed."
            )
        precision = accumulation_dtype(g.dtype, *(k.dtype for k in kept if k is not None))
        wide = [None if k is None else _widen(k, precision) for k in kept]
        update, *new = _in_shape(where, rule, _widen(g, precision), wide)
        update = update.astype(stored)
        results.append((update, *(None if k is None else n.astype(k.dtype) for n, k in zip(new, kept, strict=True))))
    rows = list(zip(*results, strict=True)) or [()] * (1 + len(states))
    updates, *rest = (jax.tree.unflatten(structure, row) for row in rows)
    return updates, *(None if tree is None else new for tree, new in zip(states, rest, strict=True))


def _gradient_at(grads: PyTree, index: int) -> str:
    """The first words of a message about leaf number `index`, None leaves counted."""
    path, g = jax.tree_util.tree_flatten_with_path(grads, is_leaf=_is_none)[0][index]
    return f"optimizer: the gradient at {jax.tree_util.keystr(path) or 'the top'} has shape {jnp.shape(g)}"


def _in_shape(
    where: Callable[[], str], rule: Callable[..., tuple[Any, ...]], g: Array, kept: list[Array | None]
) -> tuple[Any, ...]:
    """`rule(g, *kept)`, which must keep all shapes: a state of shape (2,) makes (2, 2) of a gradient (2, 1)."""
    cause = None
    try:
        update, *new = rule(g, *kept)
        pairs = [(update, g), *zip(new, kept, strict=True)]
        if all(k is None or n.shape == k.shape for n, k in pairs):
            return update, *new
    except (TypeError, ValueError) as error:
        if "incompatible shapes" not in str(error).lower():
            raise
        cause = error
    states = " and ".join(str(k.shape) for k in kept if k is not None)
    raise ValueError(
        f"{where()} but its state {states}. Call opt.update with the state that opt.init made of parameters of these "
        "shapes."
    ) from cause


def _is_none(x: Any) -> bool:
    return x is None


def is_float0(x: Any) -> bool:
    """Whether x has dtype float0, that of gradients of integer parameters."""
    return getattr(x, "dtype", None) == jax.dtypes.float0


def _not_floating(what: str, got: DType, stored: DType) -> str:
    """The message about an update that would be truncated."""
    return (
        f"{what} must have a floating dtype, and its parameter too, got {got} for {stored}: the update of an integer "
        "would be truncated. Convert it, keep integers out of the parameters, or leave them out with optim.masked."
    )


def _leaves_like(structure: Any, tree: PyTree, name: str) -> list[Any]:
    """The leaves of `tree` where the gradients have theirs; Nones if `tree` is None."""
    if tree is None:
        return [None] * structure.num_leaves
    try:
        return structure.flatten_up_to(tree)
    except (ValueError, TypeError):
        raise ValueError(
            f"optimizer: the gradients must have the structure of {name}, got gradients {structure} but {name} "
            f"{jax.tree.structure(tree)}. Call opt.update(grads, state, params) with the state that init made of these "
            "parameters."
        ) from None


def _widen(x: Array, precision: DType) -> Array:
    """x in this precision, real or complex as before."""
    return x.astype(complex_dtype(precision) if jnp.iscomplexobj(x) else real_dtype(precision))


def real_dtype(dtype: DType) -> DType:
    """The real dtype of the same precision."""
    return jnp.zeros((), dtype).real.dtype


def complex_dtype(dtype: DType) -> DType:
    """The complex dtype of the same precision (complex64 for half precision)."""
    return accumulation_dtype(dtype, jnp.complex64)


def widen(tree: PyTree) -> PyTree:
    """Every number or bool in its accumulation dtype; other leaves (float0, keys, functions) are unchanged."""
    return jax.tree.map(lambda x: _wide(x) if _is_a(jnp.number, x) or _is_a(np.bool_, x) else x, tree)


def widen_floats(tree: PyTree) -> PyTree:
    """`widen` of the (real or complex) floating leaves only."""
    return jax.tree.map(lambda x: _wide(x) if _is_a(jnp.inexact, x) else x, tree)


def _wide(x: Any) -> Array:
    return jnp.asarray(x).astype(accumulation_dtype(jnp.result_type(x)))


def _is_a(kind: Any, x: Any) -> bool:
    """Whether a leaf is an array, or Python number, of this kind of dtype."""
    arrays = jax.Array | np.ndarray | np.generic | int | float | complex
    return isinstance(x, arrays) and not is_float0(x) and jnp.issubdtype(jnp.result_type(x), kind)


def map_leaves(function: Callable[..., Any], updates: PyTree, *others: PyTree) -> PyTree:
    """`function(update, *others' leaves)` at every leaf of the updates; where an update is None, None.

    Unlike with `jax.tree.map`, the other pytrees may hold arrays, masks or states where an update is None.
    """
    leaves, structure = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
    columns = [_leaves_like(structure, tree, "the parameters") for tree in others]
    rows = zip(leaves, *columns, strict=True)
    return jax.tree.unflatten(structure, [None if row[0] is None else function(*row) for row in rows])


def dtypes_of(tree: PyTree, like: PyTree) -> PyTree:
    """The pytree with every number in the floating dtype of the leaf of `like` in its place.

    The leaf of `tree` is unchanged where it is not a number, or where the leaf of `like` is not a floating array. Use
    it for updates and for this library's own states, not for the state of a foreign transformation, whose dtypes may
    carry meaning.
    """

    def leaf(x: Any, kept: Any) -> Any:
        dtype, kind = getattr(kept, "dtype", None), getattr(x, "dtype", type(x))
        if dtype is None or kind == dtype or not jnp.issubdtype(dtype, jnp.inexact):
            return x
        return jnp.asarray(x).astype(dtype) if jnp.issubdtype(kind, jnp.number) else x

    return map_leaves(leaf, tree, like)


def widened(update: Callable[..., tuple[PyTree, Any]]) -> Callable[..., tuple[PyTree, Any]]:
    """Decorator of an `update` that then computes in the accumulation dtype: the dtype boundary of a rule over trees.

    It receives updates and parameters widened; the updates that it returns are stored in the dtypes of the parameters
    (without params, of the incoming updates), rounded once. `per_leaf` is this boundary for rules over single arrays.
    """

    @functools.wraps(update)
    def stored(updates: PyTree, state: OptState, params: Params | None = None, **extra: Any) -> tuple[PyTree, OptState]:
        found, new = update(widen(updates), state, widen(params), **extra)
        return dtypes_of(found, updates if params is None else params), new

    return stored


def call_update(
    opt: Any, grads: PyTree, state: Any, params: Params | None, extra: dict[str, Any]
) -> tuple[PyTree, Any]:
    """`opt.update`, with the extra arguments if it takes `**extra`; a plain optax transformation does not."""
    takes = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(opt.update).parameters.values())
    return opt.update(grads, state, params, **(extra if takes else {}))
