"""Cross-entropy of independent Bernoulli outputs, from logits and from probabilities.

Losses are (N,), in nats, float32 (float64 for float64 outputs). ValueError: shapes differ, there is no example axis, or
concrete probabilities lie outside [0, 1] (traced ones give NaN); TypeError: outputs are not floating. A derivative
takes the arguments of its loss, and returns the shape and dtype of the outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.losses.base import as_pair, float_info, require_within_unit, sum_per_example
from jaxnn.losses.elementwise import sigmoid_binary_cross_entropy_each
from jaxnn.losses.optax_form import also_takes_calls_of
from jaxnn.types import Array, ArrayLike, DType

TARGET_REMEDY = "Labels -1 and +1 become 0 and 1 by (y + 1) / 2."
OUTPUT_REMEDY = "For logits use the loss that takes them: sigmoid_binary_cross_entropy or softmax_cross_entropy."


@also_takes_calls_of(sigmoid_binary_cross_entropy_each)
def sigmoid_binary_cross_entropy(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Binary cross-entropy of logits: sum_j d_j log(1 + e^(-z_j)) + (1 - d_j) log(1 + e^(z_j)).

    Equal to `binary_cross_entropy` of sigmoid(z), but accurate where the sigmoid rounds to 0 or 1. j runs over the
    outputs of an example: (N,).

    Args:
        outputs: logits z (N, ...), floating, finite.
        targets: d (N, ...), probabilities in [0, 1], same shape.

    Example:
        >>> sigmoid_binary_cross_entropy(jnp.array([0.0, 1e4, 1e4]), jnp.array([1.0, 1.0, 0.0]))
        Array([6.931472e-01, 0.000000e+00, 1.000000e+04], dtype=float32)

    Reference: Cox 1958, "The regression analysis of binary sequences".
    """
    z, d, _ = _logits("sigmoid_binary_cross_entropy", outputs, targets)
    return sum_per_example(d * jax.nn.softplus(-z) + (1 - d) * jax.nn.softplus(z))


def sigmoid_binary_cross_entropy_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `sigmoid_binary_cross_entropy` with respect to the logits z (targets d): sigmoid(z) - d.

    Example:
        >>> sigmoid_binary_cross_entropy_grad(jnp.array([0.0]), jnp.array([1.0]))
        Array([-0.5], dtype=float32)
    """
    z, d, dtype = _logits("sigmoid_binary_cross_entropy_grad", outputs, targets)
    # Equals sigmoid(z) - d, which would cancel where the sigmoid rounds to 1.
    return ((1 - d) * jax.nn.sigmoid(z) - d * jax.nn.sigmoid(-z)).astype(dtype)


def binary_cross_entropy(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Binary cross-entropy of probabilities: sum_j -d_j log y_j - (1 - d_j) log(1 - y_j), (N, ...) -> (N,).

    Inside the logarithms y and 1 - y are at least `tiny`, the smallest normal number of the dtype of the outputs
    (1.2e-38 in float32 and bfloat16, 6.1e-5 in float16), and the derivative of the logarithm is 1 / tiny there: value
    and derivative are finite at 0 and 1, keep their sign, and are exact elsewhere. `sigmoid_binary_cross_entropy`, of
    logits, needs no floor.

    Args:
        outputs: probabilities y (N, ...) in [0, 1], floating.
        targets: d (N, ...) in [0, 1], same shape.

    Example:
        >>> binary_cross_entropy(jnp.array([0.5, 0.0, 0.0]), jnp.array([1.0, 0.0, 1.0]))
        Array([ 0.6931472,  0.       , 87.33655  ], dtype=float32)

    Reference: Cox 1958, "The regression analysis of binary sequences".
    """
    y, d, dtype = _probabilities("binary_cross_entropy", outputs, targets)
    return sum_per_example(-d * jnp.log(floored(y, dtype)) - (1 - d) * jnp.log(floored(1 - y, dtype)))


def binary_cross_entropy_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `binary_cross_entropy` with respect to the probabilities y: -d / y + (1 - d) / (1 - y).

    Floor as for the loss.

    Example:
        >>> binary_cross_entropy_grad(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0]))
        Array([-2., -1.], dtype=float32)
    """
    y, d, dtype = _probabilities("binary_cross_entropy_grad", outputs, targets)
    return (-d / floored(y, dtype) + (1 - d) / floored(1 - y, dtype)).astype(dtype)


def floored(p: Array, dtype: DType) -> Array:
    """max(p, smallest normal number of `dtype`), with derivative 1 below it too, so that no gradient is cut off."""
    least = jnp.asarray(float_info(dtype).tiny, p.dtype)
    return jnp.where(p < least, least + (p - jax.lax.stop_gradient(p)), p)


def _logits(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    z, d, dtype = as_pair(where, outputs, targets)
    return z, require_within_unit(where, "targets", targets, d, TARGET_REMEDY), dtype


def _probabilities(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, DType]:
    y, d, dtype = _logits(where, outputs, targets)
    return require_within_unit(where, "outputs", outputs, y, OUTPUT_REMEDY), d, dtype
