"""Support for losses under optax's names: checks, `axis` and `where`, and optax's signatures for shared names."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import as_targets
from jaxnn.numerics import accumulation_dtype
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike

Axis: TypeAlias = int | tuple[int, ...] | None
"""One axis, several, or None for all."""


def also_takes_calls_of(theirs: Callable[..., Array]) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Decorator: calls that fit the signature of `theirs` but not that of the decorated function go to `theirs`.

    For names that optax has too, with another convention: `log_cosh(outputs, targets)` is ours, one number per example;
    `log_cosh(predictions=y, targets=d)` or `log_cosh(errors)` can only mean optax's, one per element.
    """
    other = inspect.signature(theirs)

    def decorate(ours: Callable[..., Array]) -> Callable[..., Array]:
        own = inspect.signature(ours)

        @functools.wraps(ours)
        def either(*args: Any, **settings: Any) -> Array:
            call = theirs if _fits(other, args, settings) and not _fits(own, args, settings) else ours
            return call(*args, **settings)

        return either

    return decorate


def _fits(signature: inspect.Signature, args: tuple[Any, ...], settings: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **settings)
    except TypeError:
        return False
    return True


def floating(where: str, name: str, value: ArrayLike) -> Array:
    """A floating argument in the dtype of the arithmetic, float32 or float64; TypeError for any other."""
    array = checks.as_array(where, name, value)
    checks.require_floating(where, name, array.dtype, "Convert: x.astype(jnp.float32).")
    return array.astype(accumulation_dtype(array.dtype))


def fitted(where: str, predictions: Array, name: str, targets: ArrayLike) -> Array:
    """Targets in the dtype and shape of the predictions: of that shape, a scalar, or with axes of size 1 to broadcast.

    The number of axes must be equal: (4,) against (4, 1) would give (4, 4). `name` is the targets' in the message.

    ValueError: another shape; TypeError: complex targets.
    """
    array = as_targets(where, beside(targets, predictions), predictions.dtype)
    if array.ndim == 0:
        return jnp.broadcast_to(array, predictions.shape)
    same_rank = array.ndim == predictions.ndim
    if not same_rank or any(d not in (1, n) for d, n in zip(array.shape, predictions.shape, strict=True)):
        raise ValueError(
            f"{where}: {name} must have shape {predictions.shape}, or axes of size 1 in it, got {array.shape}. "
            "Reshape them (x[:, None] adds an axis, x.squeeze(-1) removes one)."
        )
    return jnp.broadcast_to(array, predictions.shape)


def axes_of(where: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of axes in [0, ndim), in the order passed; all for None.

    TypeError: not ints; ValueError: out of range, or repeated.
    """
    if axis is None:
        return tuple(range(ndim))
    try:
        axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    except TypeError:
        raise TypeError(f"{where}: axis must be an int, a tuple of ints or None, got {axis!r}.") from None
    found = tuple(a % ndim if -ndim <= a < ndim else -1 for a in axes)
    if -1 in found or len(set(found)) != len(found):
        raise ValueError(f"{where}: axis must name distinct axes of {ndim}, got {axis}.")
    return found


def included(where: str, mask: ArrayLike | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array | None:
    """optax's `where` as bools of the full shape, from that shape (axes of size 1 broadcast) or that without `axes`.

    None for None. ValueError: another shape.
    """
    if mask is None:
        return None
    array = checks.as_array(where, "where", mask).astype(bool)
    rest = tuple(n for a, n in enumerate(shape) if a not in axes)
    if array.shape == rest and array.ndim != len(shape):
        array = jnp.expand_dims(array, axes)
    if array.ndim != len(shape) or any(d not in (1, n) for d, n in zip(array.shape, shape, strict=True)):
        raise ValueError(f"{where}: where must have shape {shape} or {rest}, got {array.shape}.")
    return jnp.broadcast_to(array, shape)


def counted(x: Array, mask: Array | None) -> Array:
    """`x` where the mask includes it, else 0: an excluded NaN reaches neither value nor gradient."""
    return x if mask is None else jnp.where(beside(mask, x), x, jnp.zeros_like(x))


def weighed(weight: Array, x: Array) -> Array:
    """weight * x, with 0 * inf := 0; derivatives there are 0 in both."""
    void = (weight == 0) & jnp.isinf(x)
    # The inner `where` keeps 0 * inf out of the derivative too.
    return weight * jnp.where(void, jnp.zeros_like(x), x)


def distributions(
    name: str, kind: str, predictions: ArrayLike, targets: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[Array, Array, tuple[int, ...], Array | None]:
    """Predictions and targets, 0 where excluded by `where`, the axes, and the mask of the full shape or None.

    `name` is the loss, `kind` "logits" or "log_predictions", for messages.
    """
    z = floating(name, kind, predictions)
    axes = axes_of(name, axis, z.ndim)
    mask = included(name, where, z.shape, axes)
    d = fitted(name, z, "labels" if kind == "logits" else "targets", targets)
    return counted(z, mask), counted(d, mask), axes, mask
