"""Factories of penalties on the weights, functions of the parameters that are added to a loss.

`l1` and `elastic` return and raise what `l2` does. A `..._grad` takes the arguments of its penalty, and returns a
function params -> pytree with the structure, shapes and dtypes of the parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import checks, tree
from jaxnn.losses.base import absolute
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array, Params, PyTree, Scalar

Regularizer: TypeAlias = Callable[[Params], Array]
"""params -> scalar."""

Slopes: TypeAlias = Callable[[Params], Params]
"""params -> pytree with the same structure."""

Mask: TypeAlias = Any
"""A function params -> pytree of bools, such a pytree, or None for all leaves."""


def l2(strength: Scalar, *, mask: Mask = tree.is_weight) -> Regularizer:
    """Squared penalty: strength * sum of w^2 over the weights. There is no 1/2: the gradient is 2 strength w.

    Args:
        strength: lambda >= 0; may be traced.
        mask: which leaves are penalized: a function params -> pytree of bools (by default `tree.is_weight`, which
            excludes biases and normalization scales), such a pytree, or None for all. None leaves of the
            parameters are skipped.

    Returns:
        params -> scalar, float32 (float64 if a penalized leaf is float64); 0 if nothing is penalized.

    Raises:
        ValueError: strength < 0, or an array with axes; on the call, a mask whose structure is not that of the
            parameters.
        TypeError: strength is not a real number; on the call, a mask with leaves other than bools of Python or NumPy.

    Example:
        >>> l2(0.1)({"w": jnp.array([1.0, 2.0]), "b": jnp.array([9.0])})
        Array(0.5, dtype=float32)

    Reference: Hoerl & Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    return _penalty("l2", [(strength, jnp.square)], mask, _l2_slopes(strength))


def l2_grad(strength: Scalar, *, mask: Mask = tree.is_weight) -> Callable[[Params], Params]:
    """Gradient of `l2`: params -> 2 strength w at penalized leaves, 0 at the others.

    Example:
        >>> l2_grad(0.5)({"w": jnp.array([1.0, 2.0]), "b": jnp.array([9.0])})
        {'b': Array([0.], dtype=float32), 'w': Array([1., 2.], dtype=float32)}
    """
    return _penalty_grad("l2_grad", _l2_slopes(strength), mask)


def l1(strength: Scalar, *, mask: Mask = tree.is_weight) -> Regularizer:
    """Absolute penalty: strength * sum of |w| over the weights. (The L1 error of outputs is `absolute_error`.)

    Args:
        strength: lambda >= 0; may be traced.
        mask: as for `l2`, as are result and errors.

    Example:
        >>> l1(0.5)({"w": jnp.array([1.0, -2.0]), "b": jnp.array([9.0])})
        Array(1.5, dtype=float32)

    Reference: Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalty("l1", [(strength, absolute)], mask, _l1_slopes(strength))


def l1_grad(strength: Scalar, *, mask: Mask = tree.is_weight) -> Callable[[Params], Params]:
    """Gradient of `l1`: params -> strength sign(w) at penalized leaves (0 at w = 0), 0 at the others.

    Example:
        >>> l1_grad(0.5)({"w": jnp.array([3.0, 0.0]), "b": jnp.array([9.0])})
        {'b': Array([0.], dtype=float32), 'w': Array([0.5, 0. ], dtype=float32)}
    """
    return _penalty_grad("l1_grad", _l1_slopes(strength), mask)


def elastic(l1_strength: Scalar, l2_strength: Scalar, *, mask: Mask = tree.is_weight) -> Regularizer:
    """Elastic net: l1_strength * sum of |w| + l2_strength * sum of w^2 over the weights.

    Args:
        l1_strength, l2_strength: >= 0; may be traced.
        mask: as for `l2`, as are result and errors.

    Example:
        >>> elastic(0.5, 0.1)({"w": jnp.array([1.0, -2.0]), "b": jnp.array([9.0])})
        Array(2., dtype=float32)

    Reference: Zou & Hastie 2005, "Regularization and variable selection via the elastic net".
    """
    terms: Terms = [(l1_strength, absolute), (l2_strength, jnp.square)]
    return _penalty("elastic", terms, mask, _l1_slopes(l1_strength) + _l2_slopes(l2_strength))


def elastic_grad(
    l1_strength: Scalar, l2_strength: Scalar, *, mask: Mask = tree.is_weight
) -> Callable[[Params], Params]:
    """Gradient of `elastic`: params -> l1_strength sign(w) + 2 l2_strength w at penalized leaves, 0 at the others.

    Example:
        >>> elastic_grad(0.5, 0.25)({"w": jnp.array([1.0, 0.0])})
        {'w': Array([1., 0.], dtype=float32)}
    """
    return _penalty_grad("elastic_grad", _l1_slopes(l1_strength) + _l2_slopes(l2_strength), mask)


Terms: TypeAlias = list[tuple[Scalar, Callable[[Array], Array]]]
"""Strengths, each with the element-wise function of a leaf that it multiplies."""


def _l1_slopes(strength: Scalar) -> Terms:
    return [(strength, jnp.sign)]


def _l2_slopes(strength: Scalar) -> Terms:
    return [(strength, lambda w: 2 * w)]


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """A regularizer that knows its derivative: its call returns the value, `grad` the gradient."""

    value: Regularizer
    grad: Slopes

    def __call__(self, params: Params) -> Array:
        return self.value(params)


def regularizer_derivative_of(regularizer: Regularizer) -> Slopes:
    """The gradient of a penalty, as a function of the parameters; by `jax.grad` for a user-defined penalty.

    Example:
        >>> regularizer_derivative_of(l1(0.5))({"w": jnp.array([3.0, 0.0])})
        {'w': Array([0.5, 0. ], dtype=float32)}
    """
    return regularizer.grad if isinstance(regularizer, Penalty) else jax.grad(regularizer)


def _penalty(where: str, terms: Terms, mask: Mask, slopes: Terms) -> Penalty:
    _require_strengths(where, terms)

    def penalty(params: Params) -> Array:
        chosen = [
            jnp.asarray(w)
            for w, keep in zip(jax.tree.leaves(params), _mask_leaves(where, mask, params), strict=True)
            if keep
        ]
        dtype = accumulation_dtype(*(w.dtype for w in chosen))
        total = jnp.zeros((), dtype)
        for strength, term in terms:
            sums = [jnp.sum(term(accumulate(w))).astype(dtype) for w in chosen]
            total = total + jnp.asarray(strength, dtype) * sum(sums, start=jnp.zeros((), dtype))
        return total

    return Penalty(penalty, _penalty_grad(where, slopes, mask))


def _penalty_grad(where: str, terms: Terms, mask: Mask) -> Callable[[Params], Params]:
    _require_strengths(where, terms)

    def penalty_grad(params: Params) -> Params:
        def leaf_grad(leaf: Array, keep: bool) -> Array:
            if not keep:
                return jnp.zeros_like(leaf)
            w = accumulate(jnp.asarray(leaf))
            parts = [jnp.asarray(strength, w.dtype) * derivative(w) for strength, derivative in terms]
            return sum(parts[1:], start=parts[0]).astype(jnp.asarray(leaf).dtype)

        leaves, structure = jax.tree.flatten(params)
        keeps = _mask_leaves(where, mask, params)
        return jax.tree.unflatten(structure, [leaf_grad(w, k) for w, k in zip(leaves, keeps, strict=True)])

    return penalty_grad


def _require_strengths(where: str, terms: Terms) -> None:
    for strength, _ in terms:
        checks.require_number(where, "strength", strength)
        number = checks.concrete_number(strength)
        if number is not None and not number >= 0:
            raise ValueError(f"{where}: strength must be a number >= 0, got {strength}.")


def _mask_leaves(where: str, mask: Mask, params: PyTree) -> list[bool]:
    """One bool for each leaf of the parameters."""
    structure: Any = jax.tree.structure(params)
    if mask is None:
        return [True] * structure.num_leaves
    chosen = tree.called(mask, params)
    leaves, got = jax.tree.flatten(chosen)
    if got != structure:
        raise ValueError(f"{where}: the mask must have the structure of the parameters, {structure}, got {got}.")
    for leaf in leaves:
        if not isinstance(leaf, bool | np.bool_):
            raise TypeError(f"{where}: leaves of the mask must be bools, got {leaf!r} ({type(leaf).__name__}).")
    return [bool(leaf) for leaf in leaves]
