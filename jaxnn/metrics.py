"""Metrics: per example where the mean over examples is the metric, else for a whole set.

| function | returns | over several batches |
|---|---|---|
| `accuracy`, `error_rate`, `top_k_accuracy`, `binary_accuracy` | per example, (N,) | mean over all examples |
| `confusion_matrix` | counts, (K, K) | sum |
| `rmse`, `r_squared` | one number for the whole set | none: the mean over batches is a different number |

For a root mean squared error over batches, average the squared errors and take the root at the end.

Classes are 0 .. K-1. Ties go to the first class, as in `jnp.argmax`. Rows of outputs with a NaN, and labels outside
0 .. K-1, count as wrong; `confusion_matrix` omits both. Positions labelled `ignore_index` do not count: an example's
value is the mean over its others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxnn import missing
from jaxnn.checks import as_array, require_floating, require_integer, require_positive_int, require_same_shape
from jaxnn.numerics import accumulate, accumulation_dtype, safe_divide, safe_sqrt
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, ArrayLike, Scalar


def accuracy(outputs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> Array:
    """1 where the largest output is at the label, else 0: [argmax_k outputs_k = label].

    Args:
        outputs: (N, ..., K) float, K >= 2: logits, probabilities or any scores.
        labels: (N, ...) int, or (N, ..., K) distributions or one-hot rows, whose (first) largest entry is the label.
        ignore_index: label of positions that do not count, as in `losses.softmax_cross_entropy`; None if all do.

    Returns:
        (N,) in [0, 1], float32 (float64 for float64 outputs): 0 or 1, or the mean over the middle axes, of the
        positions that count; 0 without any. Ties go to the first class; a row with a NaN or a label outside 0 .. K-1
        gives 0.

    Raises:
        ValueError: shapes do not match; K < 2.
        TypeError: outputs that are not floating; labels (N, ...) that are not integers.

    Example:
        >>> accuracy(jnp.array([[0.1, 2.0], [3.0, 1.0]]), jnp.array([1, 1]))
        Array([1., 0.], dtype=float32)
    """
    outputs, label = _labels("accuracy", outputs, labels)
    predicted = predicted_class(outputs)
    return _mean_per_example((predicted == label) & (predicted >= 0), outputs, _counted(label, ignore_index))


def error_rate(outputs: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> Array:
    """1 where the largest output is not at the label, else 0: 1 - accuracy, but 0 without a position that counts.

    Arguments, dtypes, ties and errors as for `accuracy`; a row with a NaN or a label outside 0 .. K-1 gives 1.

    Example:
        >>> error_rate(jnp.array([[0.1, 2.0], [3.0, 1.0]]), jnp.array([1, 1]))
        Array([0., 1.], dtype=float32)
    """
    outputs, label = _labels("error_rate", outputs, labels)
    predicted = predicted_class(outputs)
    return _mean_per_example((predicted != label) | (predicted < 0), outputs, _counted(label, ignore_index))


def top_k_accuracy(outputs: ArrayLike, labels: ArrayLike, *, k: int) -> Array:
    """1 where the label is among the k classes of largest output, else 0.

    The rank of the label is the number of classes before it: #{j : o_j > o_label} + #{j < label : o_j = o_label};
    1 where rank < k. So k = 1 is `accuracy`, and ties go to the first classes, as in `jax.lax.top_k`.

    Args:
        outputs: (N, ..., K) float, K >= 2.
        labels: (N, ...) int, or (N, ..., K) distributions or one-hot rows, whose (first) largest entry is the label.
        k: number of classes, 1 <= k <= K; static.

    Returns:
        (N,) in [0, 1], float32 (float64 for float64 outputs): 0 or 1, or the mean over the middle axes.
        A row with a NaN or a label outside 0 .. K-1 gives 0.

    Raises:
        ValueError: shapes do not match; K < 2; k outside 1 .. K.
        TypeError: outputs that are not floating; labels (N, ...) or k that are not integers.

    Example:
        >>> top_k_accuracy(jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2]), k=2)
        Array([1., 0.], dtype=float32)
    """
    where = "top_k_accuracy"
    outputs, label = _labels(where, outputs, labels)
    label = label[..., None]
    classes = outputs.shape[-1]
    k = require_positive_int(where, "k", k)
    if k > classes:
        raise ValueError(f"{where}: k must be at most the number of classes K = {classes}, got {k}.")
    inside = (label >= 0) & (label < classes)
    at_label = jnp.take_along_axis(outputs, jnp.where(inside, label, 0), axis=-1)
    index = jnp.arange(classes, dtype=label.dtype).reshape((1,) * (outputs.ndim - 1) + (classes,))
    before = (outputs > at_label) | ((outputs == at_label) & (index < label))
    rank = jnp.sum(before, axis=-1)
    valid = inside[..., 0] & ~jnp.any(jnp.isnan(outputs), axis=-1)
    return _mean_per_example(valid & (rank < k), outputs)


def binary_accuracy(outputs: ArrayLike, labels: ArrayLike, *, threshold: Scalar = 0.0) -> Array:
    """1 where output and label are on the same side, else 0: [(output > threshold) = (label > 0)].

    Args:
        outputs: (N, ...) float: logits with threshold 0, probabilities with threshold 1/2.
        labels: (N, ...) of the outputs' shape: 0 / 1, -1 / +1 or bool; positive means > 0.
        threshold: outputs above it predict the positive class; an output equal to it predicts the negative one.

    Returns:
        (N,) in [0, 1], float32 (float64 for float64 outputs): 0 or 1, or the mean over further axes. A NaN output
        gives 0.

    Raises:
        ValueError: outputs and labels differ in shape, e.g. (N, 1) and (N,); outputs are a scalar.
        TypeError: outputs that are not floating.

    Example:
        >>> binary_accuracy(jnp.array([2.0, -1.0, 0.5]), jnp.array([1, 0, 0]))
        Array([1., 1., 0.], dtype=float32)
    """
    where = "binary_accuracy"
    outputs, labels = as_array(where, "outputs", outputs), as_array(where, "labels", labels)
    require_floating(where, "outputs", outputs.dtype)
    require_same_shape(where, outputs=outputs, labels=labels)
    _require_examples(where, outputs)
    values = accumulate(outputs)
    positive = values > jnp.asarray(threshold).astype(values.dtype)
    return _mean_per_example((positive == (labels > jnp.zeros_like(labels))) & ~jnp.isnan(values), outputs)


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike, *, classes: int) -> Array:
    """The confusion matrix: C_ij = #{n : label_n = i, prediction_n = j}.

    Args:
        predictions: (N, ...) int classes, or (N, ..., K) float outputs, of which the (first) largest is the prediction.
        labels: (N, ...) int: the true classes.
        classes: K; static.

    Returns:
        (K, K) int32: rows are true classes, columns predictions, the diagonal correct predictions. A pair with a class
        outside 0 .. K-1, or a row of outputs with a NaN, is not counted.

    Raises:
        ValueError: shapes do not match; K < 1, or not the outputs' K.
        TypeError: labels that are not integers; predictions that are neither integers nor floating.

    Example:
        >>> confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 0, 1]), classes=2)
        Array([[1, 1],
               [0, 1]], dtype=int32)
    """
    where = "confusion_matrix"
    predictions, labels = as_array(where, "predictions", predictions), as_array(where, "labels", labels)
    k = require_positive_int(where, "classes", classes)
    require_integer(where, "labels", labels.dtype, "For distributions pass their argmax.")
    if jnp.issubdtype(predictions.dtype, jnp.floating):
        if predictions.shape != (*labels.shape, k):
            raise ValueError(
                f"{where}: outputs must have the labels' shape and one more axis of length classes = {k}, got outputs "
                f"{predictions.shape}, labels {labels.shape}. Pass integer predictions of the labels' shape otherwise."
            )
        predictions = predicted_class(predictions)
    else:
        require_integer(where, "predictions", predictions.dtype)
        require_same_shape(where, predictions=predictions, labels=labels)

    def counts(true: Array, guess: Array) -> Array:
        inside = (true >= 0) & (true < k) & (guess >= 0) & (guess < k)
        # Pairs that do not count go to an extra cell, which is dropped.
        cell = jnp.where(inside, true * k + guess, k * k).reshape(-1)
        return jnp.zeros(k * k + 1, jnp.int32).at[cell].add(1)[:-1].reshape(k, k)

    # With Explicit axes, sharded examples cannot be scattered into one array.
    return compiler_sharded(counts, None, labels.astype(jnp.int32), predictions.astype(jnp.int32))


def rmse(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Root mean squared error over all elements: sqrt(mean((outputs - targets)^2)).

    Args:
        outputs: (N, ...) float.
        targets: (N, ...) float, of the same shape.

    Returns:
        (), in the units of the targets; float32 (float64 if either is float64). Without any error the derivative is 0.

    Raises:
        ValueError: different shapes; no examples.
        TypeError: outputs or targets that are not floating.

    Example:
        >>> rmse(jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0]))
        Array(3.535534, dtype=float32)
    """
    y, d = _pair("rmse", outputs, targets)
    return safe_sqrt(jnp.mean((y - d) ** 2))


def r_squared(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """The coefficient of determination: R^2 = 1 - sum (d - y)^2 / sum (d - mean d)^2, averaged over output components.

    1 is perfect, 0 as good as predicting the mean of the targets; there is no lower bound.

    Args:
        outputs: (N, ...) float: y.
        targets: (N, ...) float, of the same shape: d.

    Returns:
        (), float32 (float64 if either is float64): the unweighted mean over all components (the axes after the first).
        A component with equal targets (e.g. N = 1) counts 1 if its outputs are exactly right, else 0.

    Raises:
        ValueError: different shapes; no examples.
        TypeError: outputs or targets that are not floating.

    Example:
        >>> r_squared(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0]))
        Array(0.5, dtype=float32)

    Reference: Wright 1921, "Correlation and causation" (the coefficient of determination).
    """
    y, d = _pair("r_squared", outputs, targets)
    residual = jnp.sum((d - y) ** 2, axis=0)
    # Compared, not subtracted: the rounded mean of equal targets may differ from them.
    constant = jnp.min(d, axis=0) == jnp.max(d, axis=0)
    total = jnp.where(constant, 0, jnp.sum((d - jnp.mean(d, axis=0, keepdims=True)) ** 2, axis=0))
    of_constant = (residual == 0).astype(d.dtype)
    return jnp.mean(jnp.where(constant, of_constant, 1 - safe_divide(residual, total)))


def predicted_class(outputs: ArrayLike) -> Array:
    """argmax of the outputs (..., K), as int32 (...): ties go to the first class; -1 for a row with a NaN.

    Example:
        >>> predicted_class(jnp.array([[1.0, 3.0, 3.0], [0.0, jnp.nan, 1.0]]))
        Array([ 1, -1], dtype=int32)
    """
    outputs = as_array("predicted_class", "outputs", outputs)
    largest = jnp.argmax(outputs, axis=-1).astype(jnp.int32)
    return jnp.where(jnp.any(jnp.isnan(outputs), axis=-1), -1, largest)


def _labels(where: str, outputs: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Outputs (N, ..., K) and integer labels (N, ...), after the checks shared by classification metrics."""
    outputs, labels = as_array(where, "outputs", outputs), as_array(where, "labels", labels)
    require_floating(where, "outputs", outputs.dtype, "Outputs are scores for each class, not predicted classes.")
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise ValueError(
            f"{where}: outputs must be (N, ..., K) with K >= 2 classes, got {outputs.shape}. "
            "For one output per example use binary_accuracy."
        )
    if labels.shape == outputs.shape:
        return outputs, jnp.argmax(labels, axis=-1).astype(jnp.int32)
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(
            f"{where}: labels must be ints of shape {outputs.shape[:-1]} or distributions of shape {outputs.shape}, "
            f"got {labels.shape} for outputs {outputs.shape}. Nothing is broadcast here: reshape one of them."
        )
    require_integer(where, "labels", labels.dtype, "Convert them: labels.astype(jnp.int32).")
    return outputs, labels.astype(jnp.int32)


def _counted(label: Array, ignore_index: int | None) -> Array | None:
    """The positions that count; None for all."""
    return None if ignore_index is None else label != ignore_index


def _mean_per_example(correct: Array, outputs: Array, counted: Array | None = None) -> Array:
    """(N, ...) bool -> (N,) float: the mean over all axes but the first, of the positions that count."""
    values, axes = correct.astype(accumulation_dtype(outputs.dtype)), tuple(range(1, correct.ndim))
    if counted is None:
        return values if values.ndim == 1 else jnp.mean(values, axis=axes)
    numbers = counted.astype(values.dtype)
    return safe_divide(jnp.sum(values * numbers, axis=axes), jnp.sum(numbers, axis=axes))


def _require_examples(where: str, x: Array) -> None:
    if x.ndim == 0:
        raise ValueError(f"{where}: expected shape (N, ...), got a scalar. Add the axis of examples: x[None].")


def _pair(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Outputs and targets of one shape in one accumulation dtype, at least one example."""
    outputs, targets = as_array(where, "outputs", outputs), as_array(where, "targets", targets)
    require_floating(where, "outputs", outputs.dtype)
    require_floating(where, "targets", targets.dtype, "Convert them: targets.astype(jnp.float32).")
    require_same_shape(where, outputs=outputs, targets=targets)
    _require_examples(where, outputs)
    if outputs.size == 0:
        raise ValueError(f"{where}: needs at least one example, got shape {outputs.shape}.")
    dtype = accumulation_dtype(outputs.dtype, targets.dtype)
    return outputs.astype(dtype), targets.astype(dtype)


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
