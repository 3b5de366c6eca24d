"""What the losses share: checks of their arguments, the dtype of their arithmetic, sums over all but the example axis.

Values that a concrete argument must not have raise ValueError. A traced argument cannot be looked at, so there the
same values turn the loss and its gradient of that example into NaN, which stops a training loop: they are never read
as something else (a label -1 as the last class).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import checks
from jaxnn.numerics import accumulation_dtype
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike, DType, Scalar

float_info: Any = jnp.finfo
"""Limits of a floating dtype; `jnp.finfo` has no types."""


def concrete_array(value: ArrayLike) -> np.ndarray[Any, Any] | None:
    """The value as a NumPy array where it is known while tracing, else None.

    Args:
        value: any array or number.

    Returns:
        The same values, or None for a tracer.

    Example:
        >>> concrete_array([1, 2])
        array([1, 2])
    """
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def as_outputs(where: str, outputs: ArrayLike) -> tuple[Array, DType]:
    """Outputs as an array, and the dtype that the loss is computed and returned in.

    Args:
        where: name of the loss.
        outputs: (N, ...), real floating.

    Returns:
        The array, and float64 if it is float64, else float32.

    Raises:
        ValueError: no example axis, or examples without entries.
        TypeError: not floating.

    Example:
        >>> as_outputs("mse", jnp.ones(3, jnp.bfloat16))[1]
        dtype('float32')
    """
    array = checks.as_array(where, "outputs", outputs)
    checks.require_floating(where, "outputs", array.dtype, "Convert them: outputs.astype(jnp.float32).")
    if array.ndim == 0:
        raise ValueError(
            f"{where}: outputs must have an example axis, (N, ...), got a scalar. For one example: outputs[None]."
        )
    if math.prod(array.shape[1:]) == 0:
        raise ValueError(f"{where}: every example needs at least one output, got outputs of shape {array.shape}.")
    return array, accumulation_dtype(array.dtype)


def as_pair(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    """Outputs and targets of one shape in the dtype of the arithmetic, and the dtype of the outputs.

    Args:
        where: name of the loss.
        outputs: (N, ...), real floating.
        targets: (N, ...), real; integers and other floats are converted.

    Returns:
        outputs (N, ...), targets (N, ...), both float32 or float64, and the dtype that a gradient is returned in.

    Raises:
        ValueError: shapes differ, no example axis, or examples without entries.
        TypeError: outputs not floating, or complex targets.

    Example:
        >>> as_pair("mse", jnp.ones(2, jnp.float16), jnp.ones(2, jnp.int32))[1]
        Array([1., 1.], dtype=float32)
    """
    o, dtype = as_outputs(where, outputs)
    d = checks.as_array(where, "targets", targets)
    checks.require_same_shape(where, outputs=o, targets=d)
    return o.astype(dtype), as_targets(where, beside(d, o), dtype), o.dtype


def as_targets(where: str, targets: ArrayLike, dtype: DType) -> Array:
    """Real targets in the dtype of the arithmetic.

    Args:
        where: name of the loss.
        targets: (...), real.
        dtype: floating.

    Returns:
        (...), `dtype`.

    Raises:
        TypeError: complex targets.

    Example:
        >>> as_targets("mse", jnp.array([1, 2]), jnp.float32)
        Array([1., 2.], dtype=float32)
    """
    array = checks.as_array(where, "targets", targets)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: targets must be real, got {array.dtype.name}. Split them into real and imaginary.")
    return array.astype(dtype)


def positive(where: str, name: str, value: Scalar, dtype: DType) -> Array:
    """A hyperparameter > 0 in the dtype of the arithmetic; a traced one passes unchecked.

    Args:
        where, name: what the message names.
        value: real, shape ().
        dtype: floating.

    Returns:
        Scalar of that dtype.

    Raises:
        ValueError: a concrete value <= 0, or not a scalar.

    Example:
        >>> positive("huber", "delta", 0.0, jnp.float32)
        Traceback (most recent call last):
        ValueError: huber: delta must be a number > 0, got 0.0.
    """
    number = checks.concrete_number(value)
    if jnp.ndim(value) != 0 or (number is not None and not number > 0):
        raise ValueError(f"{where}: {name} must be a number > 0, got {value}.")
    return jnp.asarray(value, dtype)


def require_within_unit(where: str, name: str, raw: ArrayLike, values: Array, remedy: str) -> Array:
    """Probabilities: ValueError for concrete ones outside [0, 1], NaN in place of traced ones outside.

    Rounding may carry a probability a little over the edge: four units in the last place of its dtype pass.

    Args:
        where, name: what the message names.
        raw: the argument as it was passed, (...).
        values: the same in the dtype of the arithmetic, (...).
        remedy: the last sentence of the message.

    Returns:
        `values`, NaN where it lies outside.

    Raises:
        ValueError: a concrete value outside [0, 1], NaN included.

    Example:
        >>> require_within_unit("bce", "targets", -1.0, jnp.array(-1.0), "Map them: (y + 1) / 2.")
        Traceback (most recent call last):
        ValueError: bce: targets must lie in [0, 1], got -1. Map them: (y + 1) / 2.
    """
    dtype = checks.as_array(where, name, raw).dtype
    slack = 4 * float(float_info(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0
    known = concrete_array(raw)
    if known is None:
        return poison(values, (values >= -slack) & (values <= 1 + slack))
    known = known.astype(np.float64)
    outside = known[~((known >= -slack) & (known <= 1 + slack))]
    if outside.size:
        raise ValueError(f"{where}: {name} must lie in [0, 1], got {outside[0]:g}. {remedy}")
    return values


def poison(values: Array, valid: Array) -> Array:
    """`values` where `valid`, else NaN; the derivative is NaN there too, which a `where` alone would make 0.

    Not for values converted from bools: XLA turns their product with NaN into a selection, which may be 0.

    Args:
        values: (...), floating.
        valid: (...), bool.

    Returns:
        (...), dtype of `values`.

    Example:
        >>> poison(jnp.ones(2), jnp.array([True, False]))
        Array([ 1., nan], dtype=float32)
    """
    return values * jnp.where(valid, jnp.ones_like(values), jnp.full_like(values, jnp.nan))


def as_labels(
    where: str, labels: ArrayLike, shape: tuple[int, ...], classes: int, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """Integer class labels, and which of them are valid: in [0, classes), or equal to `ignore_index`.

    Args:
        where: name of the loss.
        labels: any integer dtype, of shape `shape`.
        shape: what the outputs ask for.
        classes: K.
        ignore_index: a label that also counts as valid.

    Returns:
        labels, int32 or int64, and a bool for each; all True for concrete labels.

    Raises:
        ValueError: another shape, or a concrete label that is not valid.
        TypeError: labels are not integers.

    Example:
        >>> as_labels("hinge", jnp.array([0, 3]), (2,), 3)
        Traceback (most recent call last):
        ValueError: hinge: labels must lie in [0, 3), got 3 at index (1,). Labels count from 0: subtract 1 ...
    """
    array = checks.as_array(where, "labels", labels)
    checks.require_integer(where, "labels", array.dtype, "Convert class indices: labels.astype(jnp.int32).")
    if array.shape != shape:
        raise ValueError(f"{where}: labels must have shape {shape}, one for each vector of outputs, got {array.shape}.")
    # A wide type first: 8-bit labels cannot be compared with K = 1000. Labels over 2^31 become negative: not valid.
    array = array.astype(jnp.int64 if array.dtype.itemsize == 8 else jnp.int32)
    known = concrete_array(labels)
    if known is not None:
        bad = (known < 0) | (known >= classes)
        if ignore_index is not None:
            bad &= known != ignore_index
        if bad.any():
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            value = int(known[index])
            remedy = (
                f"To leave such positions out of a softmax cross-entropy pass ignore_index={value}."
                if value < 0
                else "Labels count from 0: subtract 1 if yours count from 1, or give the network more outputs."
            )
            raise ValueError(f"{where}: labels must lie in [0, {classes}), got {value} at index {index}. {remedy}")
    valid = (array >= 0) & (array < classes)
    return array, valid if ignore_index is None else valid | (array == ignore_index)


def class_mask(labels: Array, classes: int) -> Array:
    """Which entry of a vector over classes the label names; no entry for a label out of range.

    Args:
        labels: (...), int.
        classes: K.

    Returns:
        (..., K), bool.

    Example:
        >>> class_mask(jnp.array([1, -1]), 2)
        Array([[False,  True],
               [False, False]], dtype=bool)
    """
    positions = jax.lax.broadcasted_iota(labels.dtype, (*labels.shape, classes), labels.ndim)
    return labels[..., None] == positions


def absolute(x: Array) -> Array:
    """|x| with derivative sign(x): 0 at 0, where that of `jnp.abs` is 1.

    Args:
        x: (...), floating.

    Returns:
        (...), dtype of `x`.

    Example:
        >>> jax.grad(absolute)(0.0)
        Array(0., dtype=float32, weak_type=True)
    """
    return x * jax.lax.stop_gradient(jnp.sign(x))


def sum_per_example(x: Array) -> Array:
    """The sum over all axes but the first.

    Args:
        x: (N, ...).

    Returns:
        (N,).

    Example:
        >>> sum_per_example(jnp.ones((2, 3)))
        Array([3., 3.], dtype=float32)
    """
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def mean_per_example(x: Array) -> Array:
    """The mean over all axes but the first.

    Args:
        x: (N, ...).

    Returns:
        (N,).

    Example:
        >>> mean_per_example(jnp.ones((2, 3)))
        Array([1., 1.], dtype=float32)
    """
    return sum_per_example(x) / entries_per_example(x)


def entries_per_example(x: Array) -> int:
    """How many entries each example has.

    Args:
        x: (N, ...).

    Returns:
        The product of all sizes but the first; 1 for (N,).

    Example:
        >>> entries_per_example(jnp.ones((2, 3, 4)))
        12
    """
    return math.prod(x.shape[1:])
