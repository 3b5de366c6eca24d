"""What the losses under optax's names share: checks, `axis` and `where`, and optax's calls of our own names."""

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
    """A decorator: calls that fit the signature of `theirs` and not that of the decorated function go to `theirs`.

    For names that optax has too, with another convention: `log_cosh(outputs, targets)` is ours, one number for each
    example, and `log_cosh(predictions=y, targets=d)` or `log_cosh(errors)` can only mean optax's, one for each entry.

    Args:
        theirs: the loss with optax's arguments.

    Returns:
        The decorator; what it returns has name, docstring and signature of the decorated function.

    Example:
        >>> @also_takes_calls_of(lambda predictions, *, axis: f"theirs over {axis}")
        ... def ours(outputs):
        ...     return "ours"
        >>> ours(1), ours(1, axis=2), ours(predictions=1, axis=0)
        ('ours', 'theirs over 2', 'theirs over 0')
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
    """A floating argument in the dtype of the arithmetic: float64 stays, all else becomes float32.

    Args:
        where, name: what the message names.
        value: (...), floating.

    Returns:
        (...), float32 or float64.

    Raises:
        TypeError: integers, bools, complex numbers.

    Example:
        >>> floating("ntxent", "embeddings", jnp.ones(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    array = checks.as_array(where, name, value)
    checks.require_floating(where, name, array.dtype, "Convert: x.astype(jnp.float32).")
    return array.astype(accumulation_dtype(array.dtype))


def fitted(where: str, predictions: Array, name: str, targets: ArrayLike) -> Array:
    """Targets in dtype and shape of the predictions: of the same shape, a number, or with axes of size 1 to repeat.

    The number of axes must be the same: (4,) beside (4, 1) would make (4, 4).

    Args:
        where: name of the loss.
        predictions: (...), float32 or float64.
        name: what the message calls the targets.
        targets: real, convertible.

    Returns:
        Shape and dtype of the predictions.

    Raises:
        ValueError: another shape.
        TypeError: complex targets.

    Example:
        >>> fitted("huber_loss", jnp.zeros((4, 1)), "targets", jnp.zeros(4))
        Traceback (most recent call last):
        ValueError: huber_loss: targets must have shape (4, 1), or axes of size 1 in it, got (4,). Reshape them ...
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
    """`axis` as a tuple of axes counted from the front, all for None.

    Args:
        where: name of the loss.
        axis: int, tuple of ints, or None.
        ndim: number of axes of the array.

    Returns:
        Axes in [0, ndim), in the order given.

    Raises:
        TypeError: no int.
        ValueError: out of range, or named twice.

    Example:
        >>> axes_of("kl_divergence", (-1, 0), 3)
        (2, 0)
    """
    if axis is None:
        return tuple(range(ndim))
    try:
        given = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    except TypeError:
        raise TypeError(f"{where}: axis must be an int, a tuple of ints or None, got {axis!r}.") from None
    found = tuple(a % ndim if -ndim <= a < ndim else -1 for a in given)
    if -1 in found or len(set(found)) != len(found):
        raise ValueError(f"{where}: axis must name different axes of {ndim}, got {axis}.")
    return found


def included(where: str, mask: ArrayLike | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array | None:
    """optax's argument `where` as a mask of the full shape: given so, or without `axes` for whole vectors.

    Args:
        where: name of the loss.
        mask: bools of shape `shape` (axes of size 1 repeat), or of `shape` without `axes`; None for all.
        shape: that of the predictions.
        axes: those that are reduced.

    Returns:
        Bools of shape `shape`, or None.

    Raises:
        ValueError: another shape.

    Example:
        >>> included("kl_divergence", jnp.array([True, False]), (2, 2), (1,))
        Array([[ True,  True],
               [False, False]], dtype=bool)
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
    """`x` where the mask includes it, else 0: an excluded NaN neither counts nor reaches the gradient.

    Args:
        x: (...).
        mask: bools of its shape, or None.

    Returns:
        (...), dtype of `x`.

    Example:
        >>> counted(jnp.array([1.0, jnp.nan]), jnp.array([True, False]))
        Array([1., 0.], dtype=float32)
    """
    return x if mask is None else jnp.where(beside(mask, x), x, jnp.zeros_like(x))


def weighed(weight: Array, x: Array) -> Array:
    """weight * x, 0 where a weight 0 meets an infinite x; derivatives there are 0 in both.

    Args:
        weight, x: (...), one shape and dtype.

    Returns:
        (...).

    Example:
        >>> weighed(jnp.array([0.0, 2.0]), jnp.array([jnp.inf, 1.0]))
        Array([0., 2.], dtype=float32)
    """
    void = (weight == 0) & jnp.isinf(x)
    # The inner `where` keeps 0 * inf out of the derivative, too.
    return weight * jnp.where(void, jnp.zeros_like(x), x)


def distributions(
    name: str, kind: str, predictions: ArrayLike, targets: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[Array, Array, tuple[int, ...], Array | None]:
    """Predictions and targets with 0 in place of what `where` excludes, the axes, and the mask.

    Args:
        name: name of the loss.
        kind: "logits" or "log_predictions".
        predictions: floating.
        targets: real, fitting.
        axis, where: optax's arguments.

    Returns:
        Both in the shape and dtype of the arithmetic, axes counted from the front, mask of the full shape or None.

    Example:
        >>> distributions("kl_divergence", "log_predictions", jnp.zeros((2, 3)), jnp.ones((2, 1)), -1, None)[2]
        (1,)
    """
    z = floating(name, kind, predictions)
    axes = axes_of(name, axis, z.ndim)
    mask = included(name, where, z.shape, axes)
    d = fitted(name, z, "labels" if kind == "logits" else "targets", targets)
    return counted(z, mask), counted(d, mask), axes, mask
