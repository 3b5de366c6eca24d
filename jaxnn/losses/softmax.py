"""Softmax cross-entropy: of logits with class labels or distributions, with label smoothing and ignored positions."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import (
    as_labels,
    as_outputs,
    as_targets,
    class_mask,
    mean_per_example,
    require_within_unit,
    sum_per_example,
)
from jaxnn.losses.optax_form import also_takes_calls_of
from jaxnn.losses.softmax_along import softmax_cross_entropy_along
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike, DType, Scalar


@also_takes_calls_of(softmax_cross_entropy_along)
def softmax_cross_entropy(
    outputs: ArrayLike, targets: ArrayLike, *, label_smoothing: Scalar = 0.0, ignore_index: int | None = None
) -> Array:
    """Cross-entropy of the softmax of logits: -sum_k q_k log softmax(z)_k, the mean over positions that count.

    q is (1 - a) d + a / K, with smoothing a and d the target distribution (1 at the label). A position is one vector
    of K logits; those whose label is `ignore_index` are excluded from the mean. An example without other positions
    has loss 0 and gradient 0, whatever its logits. A class with q_k = 0 may have the logit -inf.

    For the mean over all positions of a batch (not of each example first) use the weights `example_weights`.

    Args:
        outputs: logits z (N, ..., K), floating; K classes on the last axis.
        targets: labels (N, ...), integers in [0, K); or distributions d (N, ..., K), floating, each normally summing
            to 1 (not checked).
        label_smoothing: a in [0, 1); may be traced.
        ignore_index: a label, of any sign, whose positions do not count; None: all positions count.

    Returns:
        (N,), in nats, float32 (float64 for float64 logits). NaN for an example with a traced label out of range (-1
        and K alike; no label wraps or clips) or a traced distribution outside [0, 1].

    Raises:
        ValueError: shapes do not match, a concrete label is out of range, label_smoothing outside [0, 1), or
            ignore_index with distributions.
        TypeError: logits are not floating, the dtype of the targets does not match their shape, or ignore_index is
            not an int.

    Example:
        >>> softmax_cross_entropy(jnp.array([[0.0, 0.0], [1e4, 0.0]]), jnp.array([1, 1]))
        Array([6.931472e-01, 1.000000e+04], dtype=float32)
        >>> softmax_cross_entropy(jnp.zeros((1, 2, 4)), jnp.array([[3, -1]]), ignore_index=-1)
        Array([1.3862944], dtype=float32)

    Reference: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs"; label
    smoothing: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7.
    """
    z, q, counted, _ = _prepare("softmax_cross_entropy", outputs, targets, label_smoothing, ignore_index)
    log_p = jax.nn.log_softmax(z, axis=-1)
    each = -jnp.sum(jnp.where(q == 0, jnp.zeros_like(q), q * log_p), axis=-1)
    if counted is None:
        return mean_per_example(each)
    return sum_per_example(jnp.where(counted, each, jnp.zeros_like(each))) / count_positions(counted, z.dtype)


def softmax_cross_entropy_grad(
    outputs: ArrayLike, targets: ArrayLike, *, label_smoothing: Scalar = 0.0, ignore_index: int | None = None
) -> Array:
    """Derivative of `softmax_cross_entropy` in the logits: (softmax(z) - q) / number of positions that count.

    Where q does not sum to 1, softmax(z) is multiplied by sum_k q_k; 0 at ignored positions. Arguments and errors as
    for the loss; returns the shape and dtype of the logits.

    Example:
        >>> softmax_cross_entropy_grad(jnp.zeros((1, 2)), jnp.array([1]))
        Array([[ 0.5, -0.5]], dtype=float32)
    """
    where = "softmax_cross_entropy_grad"
    z, q, counted, dtype = _prepare(where, outputs, targets, label_smoothing, ignore_index)
    grad = jax.nn.softmax(z, axis=-1) * jnp.sum(q, axis=-1, keepdims=True) - q
    if counted is None:
        return (grad / math.prod(z.shape[1:-1])).astype(dtype)
    count = count_positions(counted, z.dtype).reshape(-1, *(1,) * (z.ndim - 1))
    return (jnp.where(counted[..., None], grad, jnp.zeros_like(grad)) / count).astype(dtype)


def probabilities(
    outputs: ArrayLike, targets: ArrayLike, *, label_smoothing: Scalar = 0.0, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """softmax(z) (N, T, K), and the weight of each position (N, T): sum_k q_k / n; 0 if ignored.

    n is the number of positions of the example that count, T the product of the axes between the first and the last.
    Arguments, q and errors as for `softmax_cross_entropy`; results are float32 (float64 for float64 outputs).
    """
    z, q, counted, _ = _prepare("softmax_cross_entropy", outputs, targets, label_smoothing, ignore_index)
    n, classes = z.shape[0], z.shape[-1]
    share = jnp.sum(q, axis=-1).reshape(n, -1)
    if counted is None:
        share = share / share.shape[1]
    else:
        counts = counted.reshape(n, -1)
        share = jnp.where(counts, share, jnp.zeros_like(share)) / count_positions(counts, z.dtype)[:, None]
    return jax.nn.softmax(z, axis=-1).reshape(n, -1, classes), share


def example_weights(loss: Any, targets: ArrayLike) -> Array | None:
    """The weight w_i of each example in a mean over examples: the number of its positions that count in `loss`.

    With them sum_i w_i loss_i / sum_i w_i is the mean over all positions of the batch that count.

    Args:
        loss: a per-example loss. Only `softmax_cross_entropy` with `ignore_index` bound by `functools.partial` (nested
            or not) is recognized, not a lambda around it.
        targets: labels (N, ...), integers.

    Returns:
        (N,), float32; None for any other loss: equal weights.

    Example:
        >>> loss = functools.partial(softmax_cross_entropy, ignore_index=-1)
        >>> example_weights(loss, jnp.array([[3, -1, 2], [-1, -1, -1]]))
        Array([2., 0.], dtype=float32)
    """
    keywords: dict[str, Any] = {}
    while isinstance(loss, functools.partial):
        keywords = {**loss.keywords, **keywords}
        loss = loss.func
    index = keywords.get("ignore_index")
    if loss is not softmax_cross_entropy or index is None:
        return None
    labels = checks.as_array("example_weights", "targets", targets)
    return sum_per_example(is_counted(labels.astype(_wide(labels)), index).astype(jnp.float32))


def _prepare(
    where: str, outputs: ArrayLike, targets: ArrayLike, label_smoothing: Scalar, ignore_index: int | None
) -> tuple[Array, Array, Array | None, DType]:
    """Logits (N, ..., K) and smoothed distributions q, which positions count (None for all), dtype of the logits."""
    raw, dtype = as_outputs(where, outputs)
    if raw.ndim < 2:
        raise ValueError(f"{where}: logits must have shape (N, ..., K), classes on the last axis, got {raw.shape}.")
    checks.require_between(where, "label_smoothing", label_smoothing, 0, 1, open_high=True)
    z, classes, counted = raw.astype(dtype), raw.shape[-1], None
    given = beside(checks.as_array(where, "targets", targets), raw)
    if given.shape == raw.shape:
        d = _distribution(where, given, raw.shape, dtype, ignore_index)
    elif given.shape == raw.shape[:-1]:
        index = None if ignore_index is None else require_index(where, ignore_index)
        labels, valid = as_labels(where, given, raw.shape[:-1], classes, index)
        one_hot = class_mask(labels, classes).astype(dtype)
        d = jnp.where(valid[..., None], one_hot, jnp.full_like(one_hot, jnp.nan))
        if index is not None:
            counted = is_counted(labels, index)
            # Logits that do not count must not matter, even if infinite or NaN.
            z = jnp.where(counted[..., None], z, jnp.zeros_like(z))
    else:
        raise ValueError(
            f"{where}: for logits {raw.shape} targets must be integer labels {raw.shape[:-1]} or distributions "
            f"{raw.shape}, got {given.shape}. labels.squeeze(-1) removes a last axis of size 1."
        )
    smoothing = jnp.asarray(label_smoothing, dtype)
    return z, (1 - smoothing) * d + smoothing / classes, counted, raw.dtype


def _distribution(
    where: str, targets: ArrayLike, shape: tuple[int, ...], dtype: DType, ignore_index: int | None
) -> Array:
    remedy = f"Convert labels with jax.nn.one_hot, or pass the labels themselves, shape {shape[:-1]}."
    checks.require_floating(where, "targets of the shape of the logits", jnp.asarray(targets).dtype, remedy)
    if ignore_index is not None:
        raise ValueError(f"{where}: ignore_index={ignore_index} needs integer labels, got distributions {shape}.")
    d = as_targets(where, targets, dtype)
    return require_within_unit(where, "targets", targets, d, "They are probabilities of the classes.")


def require_index(where: str, value: Any) -> int:
    """An `ignore_index` as an int; TypeError if it is not one."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{where}: ignore_index must be an int or None, got {value!r} ({type(value).__name__}).")
    return int(value.__index__())


def is_counted(labels: Array, ignore_index: int) -> Array:
    """Which positions count."""
    return labels != ignore_index


def count_positions(counted: Array, dtype: DType) -> Array:
    """The number of positions that count per example, at least 1: (N,)."""
    return jnp.maximum(sum_per_example(counted.astype(dtype)), jnp.ones((), dtype))


def _wide(labels: Array) -> DType:
    return jnp.dtype(jnp.int64 if labels.dtype.itemsize == 8 else jnp.int32)
