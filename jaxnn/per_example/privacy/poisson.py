"""Poisson subsampling into batches of a fixed shape, by padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.checks import concrete_number, require_between, require_key, require_positive, require_positive_int
from jaxnn.types import Array, Key

BITS = 32
"""Random bits per example that decide whether it is sampled."""


def poisson_batch(key: Key, examples: int, probability: float, size: int) -> tuple[Array, Array]:
    """Poisson subsampling: each of n examples independently with probability q, padded to `size` rows.

    q is rounded DOWN to a multiple of 2^-32, so accounting for q is conservative. If more than `size` examples are
    sampled, a uniformly random subset of `size` stays. That is no longer Poisson subsampling: either pass the size to
    `dp_event`, or choose it by `poisson_size`, for an overflow probability as small as you like. For use inside jit;
    indices and weights reveal who was sampled, and are NOT private.

    Args:
        key: typed random key, a new one for each step, and not that of the noise.
        examples: n >= 1.
        probability: q in (0, 1], at least 2^-32; static.
        size: rows of the batch, >= 1.

    Returns:
        indices (size,) int32, ascending unless truncated; weights (size,) float32, 1 for an example and 0 for padding
        (whose index is 0). `private_grad` and `dp_sgd` take the weights.

    Raises:
        TypeError: examples or size not ints, q traced, a key that is not typed.
        ValueError: out of range; no key, or an array of keys.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, section 3.1 (lots). Chua, L., Ghazi, B., Kamath, P., Kumar, R., Manurangsi,
        P., Sinha, A. & Zhang, C. (2024). Scalable DP-SGD: shuffling vs. Poisson subsampling (truncation and padding).

    Example:
        >>> indices, weights = poisson_batch(jax.random.key(0), 3, 1.0, 5)
        >>> indices, weights
        (Array([0, 1, 2, 0, 0], dtype=int32), Array([1., 1., 1., 0., 0.], dtype=float32))
    """
    where = "poisson_batch"
    require_key(where, key)
    examples, probability = _drawn(where, examples, probability)
    size = require_positive_int(where, "size", size)
    last = int(probability * 2**BITS) - 1
    if last < 0:
        raise ValueError(f"{where}: probability must be at least 2^-{BITS}, got {probability}.")
    # Integers, since uniform float32 samples are multiples of 2^-23: too coarse for a probability of 1e-6.
    bits = jax.random.bits(key, (examples,), jnp.uint32)
    drawn = bits <= np.uint32(last)
    count = jnp.sum(drawn, dtype=jnp.int32)

    def in_order() -> Array:
        return jnp.nonzero(drawn, size=size, fill_value=0)[0].astype(jnp.int32)

    def subset() -> Array:
        # Conditioned on being below the threshold, bits are uniform: the smallest ones select a uniform subset.
        return lax.sort((bits, jnp.arange(examples, dtype=jnp.int32)), num_keys=1)[1][:size]

    indices = in_order() if size >= examples else lax.cond(count <= size, in_order, subset)
    return indices, (jnp.arange(size, dtype=jnp.int32) < count).astype(jnp.float32)


def poisson_size(examples: int, probability: float, steps: int, failure: float) -> int:
    """The smallest size at which the probability that any step of a run overflows is at most `failure`.

        steps P(Binomial(n, q) > size) <= failure

    A run with truncation is then as private as one with Poisson subsampling, with delta + (1 + e^epsilon) failure
    instead of delta: choose failure far below delta.

    Args:
        examples: n >= 1, the larger one where data sets of n and n + 1 examples are neighbours.
        probability: q in (0, 1].
        steps: of the whole run, >= 1.
        failure: in (0, 1).

    Returns:
        The size, 1 to n.

    Raises:
        TypeError: examples or steps not ints; q or failure traced or not numbers.
        ValueError: out of range.

    Reference: Chua, L., Ghazi, B., Kamath, P., Kumar, R., Manurangsi, P., Sinha, A. & Zhang, C. (2024). Scalable
        DP-SGD: shuffling vs. Poisson subsampling.

    Example:
        >>> poisson_size(60_000, 256 / 60_000, 10_000, 1e-10)
        387
    """
    where = "poisson_size"
    examples, probability = _drawn(where, examples, probability)
    steps = require_positive_int(where, "steps", steps)
    require_positive(where, "failure", failure)
    require_between(where, "failure", failure, 0, 1, open_high=True)
    # Imported here, since importing scipy.stats takes a second.
    from scipy.stats import binom  # type: ignore[import-untyped]

    tail = binom(examples, probability)
    size = int(tail.isf(failure / steps))
    while size > 1 and steps * tail.sf(size - 1) <= failure:
        size -= 1
    while steps * tail.sf(size) > failure:
        size += 1
    return max(size, 1)


def _drawn(where: str, examples: int, probability: float) -> tuple[int, float]:
    """n and q, checked."""
    examples = require_positive_int(where, "examples", examples)
    require_positive(where, "probability", probability)
    require_between(where, "probability", probability, 0, 1)
    known = concrete_number(probability)
    if known is None:
        raise TypeError(
            f"{where}: probability must be known while tracing, since the privacy accounting depends on it."
        )
    return examples, known
