"""Softmax cross-entropy of an output layer with many classes, without its logits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxnn import checks
from jaxnn.losses.base import as_labels, mean_per_example, poison, sum_per_example
from jaxnn.losses.logits import CHUNK, Logits, chunk_size, log_sums, targets_of
from jaxnn.losses.softmax import count_positions, is_counted, require_index
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.placement import beside, compiler_sharded, rows_spec
from jaxnn.types import Array, ArrayLike, Scalar


def chunked_softmax_cross_entropy(
    a: ArrayLike,
    w: ArrayLike,
    targets: ArrayLike,
    *,
    b: ArrayLike | None = None,
    class_axis: int = 1,
    chunk: int | None = None,
    label_smoothing: Scalar = 0.0,
    ignore_index: int | None = None,
) -> Array:
    """`softmax_cross_entropy(a w + b, targets)`, the logits formed a chunk of classes at a time, never all of them.

    With V classes the logits (N, T, V) of a language model, and as many cotangents, take more memory than the rest of
    it. Here the forward pass keeps the log-sum-exp of each position, and the backward pass forms each chunk of logits
    again: four products in place of three, and memory for one chunk beside the gradients.

    A function like any other of JAX: under `jit`, `vmap`, `scan`, `checkpoint`, in forward and reverse mode, of any
    order. `per_example.record`, `value_and_grad` and the statistics know it: they form no logits either.

    Args:
        a: inputs of the output layer, (N, ..., D), floating.
        w: its matrix, (D, V); or a table (V, D) with class_axis=0, such as the embedding it is tied to.
        targets: labels (N, ...), integers in [0, V).
        b: its bias (V,), or None.
        class_axis: the axis of w that counts classes, 0 or 1. A transposed table, `table.T`, would be copied.
        chunk: the most classes in a chunk; None for 2,048: 8 KiB of logits for each position. Classes sharded over
            devices are gathered, but for chunk=V.
        label_smoothing, ignore_index: as for `softmax_cross_entropy`. Inputs at ignored positions do not matter, even
            if they are infinite or NaN.

    Returns:
        (N,), in nats, the mean over positions that count, float32 (float64 if a or w is). Logits are not rounded to
        half precision. NaN for an example with a traced label out of range.

    Raises:
        ValueError: shapes do not match, a concrete label is out of range, chunk < 1, class_axis is not 0 or 1, or
            label_smoothing is outside [0, 1).
        TypeError: a, w or b is not floating, targets are not integers, chunk or ignore_index is not an int.

    Reference: Wijmans, E., Huval, B., Hertzberg, A., Koltun, V. & Krähenbühl, P. (2025). Cut your losses in
        large-vocabulary language models, section 4 (the log-sum-exp kept, the logits formed again).

    Example:
        >>> a, w = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1e4, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
        >>> chunked_softmax_cross_entropy(a, w, jnp.array([2]), chunk=2)
        Array([10000.], dtype=float32)
        >>> jax.grad(lambda w: chunked_softmax_cross_entropy(a, w, jnp.array([2])).sum())(0 * w)[0]
        Array([ 0.25,  0.25, -0.75,  0.25], dtype=float32)
    """
    where = "chunked_softmax_cross_entropy"
    head = prepare(where, a, w, targets, b, class_axis, chunk, label_smoothing, ignore_index)

    def of_batch(head: Head) -> Array:
        a, w, b = head.logits.a, head.logits.w, head.logits.b
        columns = jnp.arange(head.logits.size, dtype=jnp.int32)
        flat, labels = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]), head.labels.reshape(-1)
        rows = _ROWS[class_axis](flat, w, labels, columns, b, head.smoothing)[0]
        return mean_over_positions(head, rows.reshape(head.labels.shape))

    # On an Explicit mesh axes of a sharded batch cannot be merged, nor sharded classes cut.
    return compiler_sharded(of_batch, rows_spec(head.logits.a), head)


class Head(NamedTuple):
    """An output layer and its targets: logits of a (N, ..., D); labels (N, ...), which of these are valid, and which
    positions count, None for all; the smoothing, None for 0."""

    logits: Logits
    labels: Array
    valid: Array
    counted: Array | None
    smoothing: Array | None


def prepare(
    where: str,
    a: ArrayLike,
    w: ArrayLike,
    targets: ArrayLike,
    b: ArrayLike | None,
    class_axis: int,
    chunk: int | None,
    label_smoothing: Scalar,
    ignore_index: int | None,
) -> Head:
    """The checked arguments of `chunked_softmax_cross_entropy`, inputs at ignored positions replaced by 0."""
    inputs, matrix, bias = _operands(where, a, w, b, class_axis)
    checks.require_between(where, "label_smoothing", label_smoothing, 0, 1, open_high=True)
    classes = matrix.shape[class_axis]
    index = None if ignore_index is None else require_index(where, ignore_index)
    given = beside(checks.as_array(where, "targets", targets), inputs)
    labels, valid = as_labels(where, given, inputs.shape[:-1], classes, index)
    size = chunk_size(classes, checks.require_positive_int(where, "chunk", CHUNK if chunk is None else chunk))
    none = checks.concrete_number(label_smoothing) == 0
    smoothing = None if none else jnp.asarray(label_smoothing, accumulation_dtype(inputs.dtype))
    counted = None if index is None else is_counted(labels, index)
    if counted is not None:
        inputs = jnp.where(counted[..., None], inputs, jnp.zeros_like(inputs))
    return Head(Logits(inputs, matrix, bias, class_axis, size), labels, valid, counted, smoothing)


def mean_over_positions(head: Head, each: Array) -> Array:
    """The losses of the examples, (N,), from those of the positions (N, ...)."""
    each = poison(each, head.valid)
    if head.counted is None:
        return mean_per_example(each)
    total = sum_per_example(jnp.where(head.counted, each, jnp.zeros_like(each)))
    return total / count_positions(head.counted, each.dtype)


def position_shares(head: Head) -> Array:
    """The derivative of `mean_over_positions` in the losses of the positions, (N, ...)."""
    dtype = head.logits.dtype
    ones = jnp.ones(head.labels.shape, dtype) if head.counted is None else head.counted.astype(dtype)
    count = count_positions(ones, dtype).reshape(-1, *(1,) * (ones.ndim - 1))
    return jnp.where(head.valid, ones / count, jnp.asarray(jnp.nan, dtype))


def _operands(
    where: str, a: ArrayLike, w: ArrayLike, b: ArrayLike | None, class_axis: int
) -> tuple[Array, Array, Array | None]:
    """a (N, ..., D), w and b as arrays of matching shapes."""
    given = {"a": a, "w": w} | ({} if b is None else {"b": b})
    arrays = {name: checks.as_array(where, name, x) for name, x in given.items()}
    for name, x in arrays.items():
        checks.require_floating(where, name, x.dtype, f"Convert it: {name}.astype(jnp.float32).")
    inputs, matrix, bias = arrays["a"], arrays["w"], arrays.get("b")
    if class_axis not in (0, 1):
        raise ValueError(f"{where}: class_axis must be 0 or 1, the axis of w that counts classes, got {class_axis!r}.")
    if inputs.ndim < 2 or math.prod(inputs.shape[1:]) == 0:
        raise ValueError(
            f"{where}: a must have shape (N, ..., D), no axis but the first empty, got {inputs.shape}. For one "
            "example: a[None], targets[None]."
        )
    if matrix.ndim != 2 or matrix.shape[1 - class_axis] != inputs.shape[-1] or not matrix.size:
        raise ValueError(
            f"{where}: w must have shape {('(V, D)', '(D, V)')[class_axis]} with D = {inputs.shape[-1]} for a "
            f"{inputs.shape}, got {matrix.shape}. class_axis={1 - class_axis} takes the transpose."
        )
    if bias is not None and bias.shape != (matrix.shape[class_axis],):
        raise ValueError(
            f"{where}: b must have shape ({matrix.shape[class_axis]},) for w {matrix.shape}, got {bias.shape}."
        )
    return inputs, matrix, bias


FUNCTIONS = ("jaxnn_table_cross_entropy", "jaxnn_matrix_cross_entropy")
"""The names of the functions that `per_example` finds in a jaxpr, by class_axis; see `rows_of`."""


def rows_of(class_axis: int) -> Callable[..., tuple[Array, Array]]:
    """(C, l) of positions: (a (R, D), w, labels (R,), columns, b, smoothing) -> losses and log-sum-exps, each (R,).

    `columns` are 0, 1, ..., as many as a chunk has classes; smoothing is a number or None. The derivative of l is taken
    to be 0: what follows must not depend on it.
    """

    # One primitive in the jaxpr: `per_example.recording` finds it by its name, and reads the chunk from its operands.
    def of_rows(a: Array, w: Array, labels: Array, columns: Array, b: Any, smoothing: Any) -> tuple[Array, Array]:
        return log_sums(Logits(a, w, b, class_axis, columns.size), labels, smoothing)

    of_rows.__name__ = of_rows.__qualname__ = FUNCTIONS[class_axis]
    function = jax.custom_jvp(of_rows)

    # Linear in the tangents by products that JAX can batch and transpose: under `vmap` the gradient of w is one product
    # over all examples. A `custom_vjp` would form that of each example, and add them up.
    def derivative(primals: Any, tangents: Any) -> Any:
        a, w, labels, columns, b, smoothing = primals
        da, dw, _, _, db, ds = (None if isinstance(t, SymbolicZero) else t for t in tangents)
        logits = Logits(a, w, b, class_axis, columns.size)
        each, sums = log_sums(logits, labels, smoothing)
        zeros = jnp.zeros_like(each)
        if da is None and dw is None and db is None and ds is None:
            return (each, sums), (zeros, zeros)
        wide = None if da is None else accumulate(da)  # so that its cotangents are added up in float32

        def add(total: Array, c: Array) -> tuple[Array, None]:
            z = logits.at(c)
            if da is not None or dw is not None or db is not None:
                q = targets_of(logits, labels, smoothing, c, z)
                change = _tangent(logits, wide, dw, db, c)
                total = total + jnp.sum((jnp.exp(z - sums[..., None]) - q) * change, axis=-1)
            if ds is not None:
                uniform, at_label = (targets_of(logits, labels, s, c, z) for s in (jnp.ones_like(smoothing), None))
                slope = at_label - uniform
                total = total + ds * jnp.sum(jnp.where(slope == 0, jnp.zeros_like(z), slope * z), axis=-1)
            return total, None

        change, _ = logits.scan(jax.checkpoint(add, prevent_cse=False), zeros)
        return (each, sums), (change, zeros)

    function.defjvp(derivative, symbolic_zeros=True)
    return function


def _tangent(logits: Logits, da: Array | None, dw: Array | None, db: Array | None, c: Array) -> Array:
    """The change of the logits of chunk c."""
    parts = []
    if da is not None:
        parts.append(logits.tangent(da, logits.w, c))
    if dw is not None:
        parts.append(logits.tangent(logits.a, dw, c))
    if db is not None:
        part = logits.of_chunk(db, c, -1).astype(logits.dtype)
        parts.append(lax.broadcast_in_dim(part, (logits.a.shape[0], logits.size), (1,)))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


_ROWS = (rows_of(0), rows_of(1))
