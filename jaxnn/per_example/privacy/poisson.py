"""Poisson batches of a fixed shape: each example is drawn on its own, the batch is padded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.checks import concrete_number, require_between, require_key, require_positive, require_positive_int
from jaxnn.types import Array, Key

BITS = 32
"""Random bits that decide on an example."""


def poisson_batch(key: Key, examples: int, probability: float, size: int) -> tuple[Array, Array]:
    """Each of n examples with probability q, independently, laid into `size` places.

    q is rounded DOWN to a multiple of 2^-32, which can only make an account of q too careful. Where more than `size`
    examples are drawn, a uniformly random subset of `size` of them stays. That is no longer Poisson sampling: either
    give `dp_event` the size too, or take `poisson_size`, which makes it as improbable as you like. Meant to be called
    inside jit; indices and weights say who was drawn, and are not private.

    Args:
        key: typed random key, a new one for each step, and not the one of the noise.
        examples: n >= 1.
        probability: q in (0, 1], at least 2^-32; a known number.
        size: places, >= 1.

    Returns:
        indices (size,) int32, in rising order unless some were cut; weights (size,) float32, 1 for an example and 0
        for padding (whose index is 0). `private_grad` and `dp_sgd` take the weights.

    Raises:
        TypeError: examples or size not whole numbers, q not known while tracing, a key that is not typed.
        ValueError: out of range.

    Reference:
        Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep learning
        with differential privacy, section 3.1 (lots).
        Chua, L., Ghazi, B., Kamath, P., Kumar, R., Manurangsi, P., Sinha, A. & Zhang, C. (2024). Scalable DP-SGD:
        shuffling vs. Poisson subsampling (truncation and padding).

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
    # Integers, since uniform float32 numbers are multiples of 2^-23: too coarse for a probability of 1e-6.
    bits = jax.random.bits(key, (examples,), jnp.uint32)
    drawn = bits <= np.uint32(last)
    count = jnp.sum(drawn, dtype=jnp.int32)

    def in_order() -> Array:
        return jnp.nonzero(drawn, size=size, fill_value=0)[0].astype(jnp.int32)

    def subset() -> Array:
        # Given that they are below the threshold, the bits of the drawn are uniform: the least make a uniform subset.
        return lax.sort((bits, jnp.arange(examples, dtype=jnp.int32)), num_keys=1)[1][:size]

    indices = in_order() if size >= examples else lax.cond(count <= size, in_order, subset)
    return indices, (jnp.arange(size, dtype=jnp.int32) < count).astype(jnp.float32)


def poisson_size(examples: int, probability: float, steps: int, failure: float) -> int:
    """The least size for which a run in which any draw overflows has at most this probability.

        steps P(Binomial(n, q) > size) <= failure

    A run with truncated draws is then as private as with Poisson draws, with delta + (1 + e^epsilon) failure instead of
    delta: take a failure far below delta.

    Args:
        examples: n >= 1, the larger one where data sets of n and n + 1 examples are neighbours.
        probability: q in (0, 1].
        steps: of the whole run, >= 1.
        failure: in (0, 1).

    Returns:
        The size, 1 to n.

    Raises:
        TypeError: examples or steps not whole numbers; q or failure not known numbers.
        ValueError: out of range.

    Reference:
        Chua, L., Ghazi, B., Kamath, P., Kumar, R., Manurangsi, P., Sinha, A. & Zhang, C. (2024). Scalable DP-SGD:
        shuffling vs. Poisson subsampling.

    Example:
        >>> poisson_size(60_000, 256 / 60_000, 10_000, 1e-10)
        387
    """
    where = "poisson_size"
    examples, probability = _drawn(where, examples, probability)
    steps = require_positive_int(where, "steps", steps)
    require_positive(where, "failure", failure)
    require_between(where, "failure", failure, 0, 1, open_high=True)
    # Imported here since scipy.stats takes a second, which others of this package need not wait.
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
        raise TypeError(f"{where}: probability must be known while tracing, since an account depends on it.")
    return examples, known
