"""Argument checks, dtypes and reductions shared by the losses.

Invalid values of concrete arguments raise ValueError. Traced labels and probabilities cannot be inspected: invalid ones
make loss and gradient of their example NaN, at which `train.fit` raises, and are never reinterpreted (a label -1 as the
last class). Traced hyperparameters are not checked.
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
"""`jnp.finfo`, which has no type annotations."""


def concrete_array(value: ArrayLike) -> np.ndarray[Any, Any] | None:
    """The value as a NumPy array, or None if it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def as_outputs(where: str, outputs: ArrayLike) -> tuple[Array, DType]:
    """Outputs (N, ...) as an array, and the dtype that the loss is computed and returned in.

    ValueError: no example axis, or empty examples; TypeError: not floating.
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
    """Outputs and targets (N, ...) in the dtype of the arithmetic, and the dtype of the outputs, for the gradient.

    ValueError: shapes differ; TypeError: complex targets; otherwise as `as_outputs`.
    """
    o, dtype = as_outputs(where, outputs)
    d = checks.as_array(where, "targets", targets)
    checks.require_same_shape(where, outputs=o, targets=d)
    return o.astype(dtype), as_targets(where, beside(d, o), dtype), o.dtype


def as_targets(where: str, targets: ArrayLike, dtype: DType) -> Array:
    """Real targets in the dtype of the arithmetic; TypeError for complex ones."""
    array = checks.as_array(where, "targets", targets)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: targets must be real, got {array.dtype.name}. Split them into real and imaginary.")
    return array.astype(dtype)


def positive(where: str, name: str, value: Scalar, dtype: DType) -> Array:
    """A hyperparameter in the dtype of the arithmetic; ValueError unless it is one number, and > 0 if concrete.

    TypeError: not a real number.
    """
    checks.require_number(where, name, value)
    number = checks.concrete_number(value)
    if number is not None and not number > 0:
        raise ValueError(f"{where}: {name} must be a number > 0, got {value}.")
    return jnp.asarray(value, dtype)


def require_within_unit(where: str, name: str, raw: ArrayLike, values: Array, remedy: str) -> Array:
    """Probabilities: ValueError for concrete ones outside [0, 1], NaN in place of traced ones outside.

    `raw` is the argument as passed, `values` the same in the dtype of the arithmetic, `remedy` the last sentence of the
    message. Rounding may carry a probability slightly over the edge: up to four eps of its dtype pass.
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
    """`values` where `valid`, else NaN, in the derivative too: that of a `where` alone would be 0.

    Not for values converted from bools: XLA turns their product with NaN into a select, which may be 0.
    """
    return values * jnp.where(valid, jnp.ones_like(values), jnp.full_like(values, jnp.nan))


def as_labels(
    where: str, labels: ArrayLike, shape: tuple[int, ...], classes: int, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """Integer labels of this shape (int32 or int64), and a mask of the valid ones: in [0, classes), or `ignore_index`.

    ValueError: another shape, or an invalid concrete label; TypeError: labels are not integers.
    """
    array = checks.as_array(where, "labels", labels)
    checks.require_integer(where, "labels", array.dtype, "Convert class indices: labels.astype(jnp.int32).")
    if array.shape != shape:
        raise ValueError(f"{where}: labels must have shape {shape}, one for each vector of outputs, got {array.shape}.")
    # Widen first: 8-bit labels cannot be compared with K = 1000. Labels over 2^31 become negative, so invalid.
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


def refuse_labels(where: str, outputs: ArrayLike, targets: ArrayLike) -> None:
    """Raise ValueError for integer labels (N, ...) or (N, ..., 1) in place of distributions (N, ..., K)."""
    o, d = (checks.as_array(where, name, each) for name, each in (("outputs", outputs), ("targets", targets)))
    column = d.shape == (*o.shape[:-1], 1) and o.shape != d.shape
    if o.ndim > 1 and jnp.issubdtype(d.dtype, jnp.integer) and (d.shape == o.shape[:-1] or column):
        raise ValueError(
            f"{where}: targets must be distributions {o.shape}, got integer labels {d.shape}. Convert labels (N, ...) "
            f"by jax.nn.one_hot(labels, {o.shape[-1]}), or use softmax_cross_entropy(logits, labels), which takes them."
        )


def class_mask(labels: Array, classes: int) -> Array:
    """One-hot bools (..., K) of labels (...); all False for a label out of range."""
    positions = jax.lax.broadcasted_iota(labels.dtype, (*labels.shape, classes), labels.ndim)
    return labels[..., None] == positions


def absolute(x: Array) -> Array:
    """|x| with derivative sign(x): 0 at 0, where that of `jnp.abs` is 1."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def sum_per_example(x: Array) -> Array:
    """The sum over all axes but the first: (N, ...) -> (N,)."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def mean_per_example(x: Array) -> Array:
    """The mean over all axes but the first: (N, ...) -> (N,)."""
    return sum_per_example(x) / entries_per_example(x)


def entries_per_example(x: Array) -> int:
    """The number of elements per example: the product of all sizes but the first."""
    return math.prod(x.shape[1:])
