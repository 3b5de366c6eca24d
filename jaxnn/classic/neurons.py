"""The McCulloch-Pitts neuron, and what all single units share: the constant feature, and checks of examples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_array, require_number
from jaxnn.losses.base import concrete_array, poison
from jaxnn.numerics import accumulate
from jaxnn.types import Array, ArrayLike, Scalar


def mcculloch_pitts(
    x: ArrayLike, weights: ArrayLike, threshold: Scalar, *, inhibitory: ArrayLike | None = None
) -> Array:
    """The McCulloch-Pitts unit: it fires if its excitation reaches the threshold and no inhibitory input is active.

    y = 1 if sum_j weights_j x_j >= threshold and every inhibitory input is 0, else 0

    Inhibition is absolute: one active inhibitory input forbids firing, whatever the excitation.

    Args:
        x: excitatory inputs (..., D), each 0 or 1.
        weights: (D,), the number of synapses of each excitatory input, or any real numbers >= 0.
        threshold: theta; with 0 or less the unit fires unless it is inhibited. May be traced.
        inhibitory: inhibitory inputs (..., I), each 0 or 1; None if there are none.

    Returns:
        (...), 0.0 or 1.0, float32 (float64 for float64 x).

    Raises:
        ValueError: shapes do not match, concrete inputs are neither 0 nor 1, or concrete weights are negative.

    Reference: McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity.

    Example:
        >>> table = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> mcculloch_pitts(table, [1, 1], 2).tolist(), mcculloch_pitts(table, [1, 1], 1).tolist()  # AND, OR
        ([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0])
        >>> mcculloch_pitts(table[:, :1], [1], 1, inhibitory=table[:, 1:]).tolist()  # x_1 and not x_2
        [0.0, 0.0, 1.0, 0.0]
    """
    require_number("mcculloch_pitts", "threshold", threshold)
    bits = _bits("x", x)
    synapses = jnp.asarray(weights, bits.dtype)
    if bits.ndim == 0 or synapses.shape != bits.shape[-1:]:
        raise ValueError(
            "mcculloch_pitts: weights must hold one number per entry of the last axis of x, got weights "
            f"{synapses.shape} and x {bits.shape}."
        )
    known = concrete_array(weights)
    if known is not None and (known < 0).any():
        raise ValueError(
            f"mcculloch_pitts: weights must be >= 0, got {known.min()}. Pass inhibitory inputs in `inhibitory`."
        )
    fires = jnp.matmul(bits, synapses, precision="highest") >= threshold
    if inhibitory is not None:
        brakes = _bits("inhibitory", inhibitory)
        if brakes.shape[:-1] != bits.shape[:-1]:
            raise ValueError(
                "mcculloch_pitts: x and inhibitory must have the same shape except for the last axis, got x "
                f"{bits.shape} and inhibitory {brakes.shape}."
            )
        fires &= ~jnp.any(brakes > 0, axis=-1)
    return fires.astype(bits.dtype)


def with_bias(x: ArrayLike) -> Array:
    """The inputs with a constant feature in front, so that w_0 + w.x is one product: (1, x_1, .., x_D).

    Args:
        x: (..., D), real.

    Returns:
        (..., D + 1), float32 (float64 for float64 x).

    Reference: Minsky & Papert (1969), Perceptrons (the threshold as the weight of a constant input).

    Example:
        >>> with_bias([[2, 3], [4, 5]])
        Array([[1., 2., 3.],
               [1., 4., 5.]], dtype=float32)
    """
    features = accumulate(jnp.asarray(x))
    return jnp.concatenate([jnp.ones_like(features[..., :1]), features], axis=-1)


def as_examples(where: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Features (N, D) and targets (N,) as arrays, checked; the features in float32 (float64 for float64 x).

    Args:
        x: (N, D), real, N and D at least 1.
        y: (N,).

    Raises:
        TypeError: complex numbers, text or objects.
        ValueError: other shapes, or concrete features that are not finite.

    Example:
        >>> as_examples("adaline", [[1, 2]], [3])[0].dtype
        dtype('float32')
    """
    for name, values in (("x", x), ("y", y)):
        dtype = values.dtype if isinstance(values, jax.Array) else np.asarray(values).dtype
        if dtype.kind in "cOSU":  # complex, objects such as None, text
            raise TypeError(f"{where}: {name} must hold real numbers, got dtype {dtype}.")
    features, targets = accumulate(jnp.asarray(x)), jnp.asarray(y)
    if features.ndim != 2 or 0 in features.shape or targets.shape != features.shape[:1]:
        rows = "" if features.ndim == 2 else " Flatten images by x.reshape(len(x), -1)."
        column = " Convert a column y (N, 1) by y[:, 0], one-hot labels by y.argmax(1)." * (targets.ndim == 2)
        raise ValueError(
            f"{where}: expected features x (N, D) and targets y (N,), with N and D at least 1; got x "
            f"{features.shape} and y {targets.shape}.{rows}{column}"
        )
    require_finite(where, "x", features)
    return features, targets


def as_rows(where: str, name: str, rows: ArrayLike, *, values: tuple[int, int] | None = None) -> Array:
    """Examples without targets, (N, D), as floats, checked; float32 (float64 for float64 rows).

    Args:
        rows: (N, D), real, N and D at least 1.
        values: (-1, 1) or (0, 1): the two values that entries may have; others that are traced become NaN. None: any.

    Raises:
        TypeError: complex numbers, text or objects.
        ValueError: another shape, or concrete entries that are not finite or not among `values`.

    Example:
        >>> as_rows("hopfield.hebb", "patterns", [[1, -1], [0, 1]], values=(-1, 1))
        Traceback (most recent call last):
        ValueError: hopfield.hebb: patterns must be -1 or 1, got 0. Convert bits by 2 * patterns - 1.
    """
    array = as_array(where, name, rows)
    if jnp.iscomplexobj(array):
        raise TypeError(f"{where}: {name} must hold real numbers, got dtype {array.dtype}.")
    floats = accumulate(array)
    if floats.ndim != 2 or 0 in floats.shape:
        raise ValueError(
            f"{where}: {name} must have shape (N, D), with N and D at least 1, got {floats.shape}. Flatten images by "
            "x.reshape(len(x), -1); pass one example as x[None], and one number per example as x[:, None]."
        )
    require_finite(where, name, floats)
    if values is None:
        return floats
    low, high = values
    known = concrete_array(floats)
    if known is None:
        return poison(floats, (floats == low) | (floats == high))
    if (wrong := known[(known != low) & (known != high)]).size:
        remedy = f"Convert bits by 2 * {name} - 1." if low else f"Convert grey levels by {name} > 0.5."
        raise ValueError(f"{where}: {name} must be {low} or {high}, got {wrong[0]:g}. {remedy}")
    return floats


def require_finite(where: str, name: str, rows: Array) -> None:
    """Raise ValueError for a concrete row of `rows` (N, D) that is not finite."""
    known = concrete_array(rows)
    if known is not None and not np.isfinite(known).all():
        row = int(np.argmin(np.isfinite(known).all(axis=1)))
        raise ValueError(f"{where}: {name} must be finite, but row {row} is not. Remove such rows, or fill them in.")


def as_signs(where: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Features (N, D) and labels -1 / +1 (N,), both in the features' dtype; other traced labels become NaN.

    Args:
        x: (N, D), real.
        y: (N,), each -1 or +1.

    Raises:
        TypeError, ValueError: as for `as_examples`; ValueError also for a concrete label that is neither -1 nor +1.

    Example:
        >>> as_signs("perceptron", [[1, 2], [3, 4]], [0, 1])
        Traceback (most recent call last):
        ValueError: perceptron: labels must be -1 or +1, got 0. Convert labels 0 and 1 by 2 * y - 1.
    """
    features, targets = as_examples(where, x, y)
    known, signs = concrete_array(targets), targets.astype(features.dtype)
    if known is None:
        return features, poison(signs, jnp.abs(signs) == 1)
    if (wrong := known[np.abs(known.astype(np.float64)) != 1]).size:
        raise ValueError(f"{where}: labels must be -1 or +1, got {wrong[0]}. Convert labels 0 and 1 by 2 * y - 1.")
    return features, signs


def as_binary(where: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Features (N, D) and labels -1 / +1 (N,), from labels -1 and +1 or 0 and 1.

    Of traced labels 0 and -1 both mean the negative class; any other than these and 1 becomes NaN.

    Args:
        x: (N, D), real.
        y: (N,), each -1 or +1, or each 0 or 1.

    Raises:
        TypeError, ValueError: as for `as_examples`; ValueError also for a concrete label of neither kind, and for
            labels 0 and -1 together.

    Example:
        >>> as_binary("logistic", [[1, 2], [3, 4]], [0, 1])[1]
        Array([-1.,  1.], dtype=float32)
    """
    features, targets = as_examples(where, x, y)
    known, numbers = concrete_array(targets), targets.astype(features.dtype)
    signs = jnp.where(numbers == 0, -jnp.ones_like(numbers), numbers)
    if known is None:
        return features, poison(signs, jnp.abs(signs) == 1)
    known = known.astype(np.float64)
    if (wrong := known[(known != 0) & (np.abs(known) != 1)]).size:
        raise ValueError(f"{where}: labels must be -1 or +1, or 0 or 1, got {wrong[0]:g}.")
    if (known == 0).any() and (known == -1).any():
        raise ValueError(f"{where}: labels must be -1 or +1, or 0 or 1, got 0 and -1 among the same labels.")
    return features, signs


def outputs(where: str, w: ArrayLike, x: ArrayLike) -> Array:
    """w.x of each example, with matrix products at the highest precision.

    Args:
        w: weights (D,), or (D, K) for K units; cast to the dtype of the result.
        x: features (..., D).

    Returns:
        (...), or (..., K), float32 (float64 for float64 x).

    Raises:
        ValueError: the number of weights differs from the number of features.

    Example:
        >>> outputs("predict", [1.0, 2.0], [[3.0, 4.0]])
        Array([11.], dtype=float32)
    """
    features = accumulate(jnp.asarray(x))
    weights = jnp.asarray(w, features.dtype)
    if features.ndim == 0 or weights.ndim not in (1, 2) or weights.shape[0] != features.shape[-1]:
        raise ValueError(
            f"{where}: w must hold one weight per feature, the last axis of x; got w {weights.shape} and x "
            f"{features.shape}. Weights fitted to with_bias(x) need with_bias(x)."
        )
    return jnp.matmul(features, weights, precision="highest")


def _bits(name: str, values: ArrayLike) -> Array:
    """Inputs of 0 and 1 as floats; ValueError for any other concrete value."""
    known = concrete_array(values)
    if known is not None and (wrong := known[~np.isin(known, (0, 1))]).size:
        raise ValueError(f"mcculloch_pitts: each of {name} must be 0 or 1, got {wrong[0]}.")
    return accumulate(jnp.asarray(values))
