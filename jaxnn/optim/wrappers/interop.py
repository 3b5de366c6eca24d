"""Wrappers that change the layout of parameters, and adapters between optimizers of different libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype
from jaxnn.optim.base import EmptyState, Optimizer, Transformation, call_update, dtypes_of
from jaxnn.optim.inner import init_inner, require_inner, update_inner
from jaxnn.optim.scalars import cast_like
from jaxnn.optim.scale import stateless
from jaxnn.optim.spec import specified
from jaxnn.placement import end_to_end, taken_apart
from jaxnn.types import Array, Params, PyTree, Scalar

FUNCTIONS_OF_PARAMS = ("value_fn", "obj_fn", "grad_fn")


class SplitRealAndImaginaryArrays(NamedTuple):
    """`real` and `imaginary` parts of a complex array."""

    real: Array
    imaginary: Array


class SplitRealAndImaginaryState(NamedTuple):
    """`inner_state`: of the wrapped transformation, on real arrays."""

    inner_state: Any


@specified
def flatten(inner: Transformation) -> Optimizer:
    """The inner transformation on one vector of all parameters: fewer, larger operations.

    Rules that take norms of single arrays then see one array. The vector, and with it the inner state, is in the widest
    accumulation dtype of the parameters; updates come back in each parameter's dtype. Extra arguments are passed
    unchanged: `value` works, functions of the parameters do not.

    Raises:
        ValueError: gradients and parameters differ in structure, None leaves included.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = flatten(optim.adam(0.1)), {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
        >>> opt.init(params).mu.shape
        (6,)
    """
    require_inner("flatten", inner)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        structure: Any
        leaves, structure = jax.tree.flatten(updates)
        if params is not None and jax.tree.structure(params) != structure:
            raise ValueError(
                f"flatten: gradients and parameters must have the same structure, got {structure} and "
                f"{jax.tree.structure(params)}."
            )
        long, new = update_inner(inner, _vector(updates), state, None if params is None else _vector(params), extra)
        places = [jax.typeof(leaf).sharding for leaf in leaves]
        parts = [
            part if jnp.iscomplexobj(leaf) else jnp.real(part)
            for leaf, part in zip(leaves, taken_apart(long, [leaf.shape for leaf in leaves], places), strict=True)
        ]
        return dtypes_of(jax.tree.unflatten(structure, parts), updates if params is None else params), new

    return Optimizer(lambda params: inner.init(_vector(params)), update)


@specified
def split_real_and_imaginary(inner: Transformation) -> Optimizer:
    """The inner transformation on the real and imaginary parts of complex parameters, as on two real arrays each.

    `jax.grad` of a real loss returns the conjugate of the ascent direction: pass the conjugate of its result, which is
    df/dx + i df/dy. The extra arguments `value_fn`, `obj_fn` and `grad_fn` receive the complex parameters; `grad`, and
    what `grad_fn` returns, are split as the gradients are.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = split_real_and_imaginary(optim.sign_sgd(0.5)), jnp.array([1 + 1j])
        >>> opt.update(jnp.array([3 - 4j]), opt.init(params), params)[0]
        Array([-0.5+0.5j], dtype=complex64)
    """
    require_inner("split_real_and_imaginary", inner)

    def whole(function: Any, results_are_trees: bool) -> Any:
        def called(params: Params, *args: Any, **kwargs: Any) -> Any:
            result = function(_merge(params), *args, **kwargs)
            return _split(result) if results_are_trees else result

        return called

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(init_inner(inner, _split(params)))

    def update(
        updates: PyTree, state: SplitRealAndImaginaryState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SplitRealAndImaginaryState]:
        functions = {k: whole(f, k == "grad_fn") for k, f in extra.items() if k in FUNCTIONS_OF_PARAMS and callable(f)}
        extra = extra | functions | ({"grad": _split(extra["grad"])} if "grad" in extra else {})
        updates, new = update_inner(inner, _split(updates), state.inner_state, _split(params), extra)
        return _merge(updates), SplitRealAndImaginaryState(new)

    return Optimizer(init, update)


@specified
def stateless_with_tree_map(f: Callable[[Any, Any], Any]) -> Optimizer:
    """A transformation without state that works array by array: update = f(update, parameter or None).

    Example:
        >>> opt = stateless_with_tree_map(lambda u, p: -0.5 * u)
        >>> opt.update({"w": jnp.ones(1)}, opt.init({"w": jnp.ones(1)}))[0]
        {'w': Array([-0.5], dtype=float32)}
    """

    def mapped(updates: PyTree, params: Params | None) -> PyTree:
        if params is None:
            return jax.tree.map(lambda u: f(u, None), updates)
        return jax.tree.map(f, updates, params)

    return stateless(mapped)


@specified
def with_extra_args_support(tx: Transformation) -> Optimizer:
    """The transformation as an Optimizer that accepts extra arguments and passes them on if the inner one takes any.
    For optax's plain transformations; ours take extra arguments already.

    Example:
        >>> from jaxnn import optim
        >>> opt = with_extra_args_support(optim.sgd(0.5))
        >>> opt.update(jnp.ones(1), opt.init(jnp.ones(1)), value=0.0)[0]
        Array([-0.5], dtype=float32)
    """
    require_inner("with_extra_args_support", tx)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        return call_update(tx, updates, state, params, extra)

    return Optimizer(tx.init, update)


def init_empty_state(params: Params) -> EmptyState:
    """The state of a transformation that keeps none.

    Example:
        >>> init_empty_state(jnp.ones(1))
        EmptyState()
    """
    return EmptyState()


def scale_gradient(inputs: PyTree, scale: Scalar) -> PyTree:
    """The (finite) inputs unchanged; cotangents are multiplied by `scale` (may be traced) in the backward pass.

    Example:
        >>> jax.grad(lambda x: scale_gradient(x, -1.0) ** 2)(3.0)
        Array(-6., dtype=float32, weak_type=True)
    """

    def leaf(x: Array) -> Array:
        x = jnp.asarray(x)
        # x + s (x - x): the difference is exactly 0, so the value is x for every scale.
        stopped = jax.lax.stop_gradient(x)
        return stopped + cast_like(scale, x) * (x - stopped)

    return jax.tree.map(leaf, inputs)


@jax.tree_util.register_pytree_node_class
class _Placeholder:
    """Placeholder of all parameters: a node without leaves, which `init` puts in the place of pytrees like them."""

    def tree_flatten(self) -> tuple[tuple[()], None]:
        return (), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[()]) -> _Placeholder:
        return cls()


def tree_map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: PyTree,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """`f(leaf, *leaves of rest)` over every part of a state that is a pytree like the parameters.

    E.g. to give each moment its parameter's sharding.

    Args:
        initable: the optimizer, or its `init`. `init` is called on a placeholder of the parameters, so parts of the
            state that depend on single arrays (factored moments) are found only if `init` maps over pytrees.
        f: of a leaf of the state, and the leaves in its place in `rest`.
        state: of that optimizer.
        rest: pytrees like the parameters.
        transform_non_params: for all other leaves; None leaves them unchanged.
        is_leaf: for the maps; after `masked`, `lambda x: isinstance(x, MaskedNode)` lets `rest` be unmasked pytrees.

    Example:
        >>> from jaxnn import optim
        >>> opt, params = optim.adam(0.1), {"w": jnp.ones(2)}
        >>> names = tree_map_params(opt, lambda _, name: name, opt.init(params), {"w": "rows"})
        >>> names.mu, names.count
        ({'w': 'rows'}, Array(0, dtype=int32))
    """
    init = initable if callable(initable) else initable.init
    pattern = init(_Placeholder())

    def mapped(place: Any, value: Any) -> Any:
        if isinstance(place, _Placeholder):
            return jax.tree.map(f, value, *rest, is_leaf=is_leaf)
        return value if transform_non_params is None else jax.tree.map(transform_non_params, value)

    def is_part(x: Any) -> bool:  # an empty tuple too: one tree for each axis (`by_axis`), and a stand-in has no axes
        return isinstance(x, _Placeholder) or (isinstance(x, tuple) and not x)

    return jax.tree.map(mapped, pattern, state, is_leaf=is_part)


def _vector(tree: PyTree) -> Array:
    """All entries of a pytree as one vector, in the widest accumulation dtype."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = accumulation_dtype(*(leaf.dtype for leaf in leaves))
    return end_to_end([leaf.astype(dtype) for leaf in leaves]) if leaves else jnp.zeros(0, dtype)


def _split(tree: PyTree) -> PyTree:
    """The pytree with pairs of real arrays in place of complex ones."""
    return jax.tree.map(
        lambda x: SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x, tree
    )


def _merge(tree: PyTree) -> PyTree:
    """The inverse of `_split`."""
    return jax.tree.map(
        lambda x: jax.lax.complex(x.real, x.imaginary) if isinstance(x, SplitRealAndImaginaryArrays) else x,
        tree,
        is_leaf=lambda x: isinstance(x, SplitRealAndImaginaryArrays),
    )
