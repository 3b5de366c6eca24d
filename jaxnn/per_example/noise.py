"""The gradient noise scale: the batch size at which a gradient's noise is as large as the gradient."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp

from jaxnn.numerics import accumulation_dtype, safe_divide
from jaxnn.per_example.norms import sq_norms
from jaxnn.per_example.placing import TOTAL, returns
from jaxnn.per_example.select import require_independent
from jaxnn.per_example.sums import wide_means
from jaxnn.tape import Tape
from jaxnn.types import Array


class NoiseScale(NamedTuple):
    """Sums over batches of two unbiased estimates, to be averaged before they are divided.

    Attributes:
        trace: sum of the estimates of tr(Sigma), the variance of an example's gradient summed over parameters.
        sq_norm: sum of the estimates of |G|^2, the squared norm of the expected gradient; one may be negative.
        batches: number of batches summed.
    """

    trace: Array
    sq_norm: Array
    batches: Array

    @classmethod
    def zero(cls, tape: Tape | None = None) -> NoiseScale:
        """The sums over no batch, the initial carry of a scan, in the tape's accumulation dtype (default float32)."""
        dtype = jnp.float32 if tape is None else accumulation_dtype(tape.losses.dtype)
        # Three arrays: a donated state must not hold one twice.
        return cls(*(jnp.zeros((), dtype) for _ in range(3)))

    @property
    def scale(self) -> Array:
        """B = tr(Sigma) / |G|^2 of the averages, in examples; 0 for |G|^2 = 0.

        May be negative if there are too few batches to tell |G|^2 from 0.
        """
        return safe_divide(self.trace, self.sq_norm)

    @property
    def means(self) -> tuple[Array, Array]:
        """(tr(Sigma), |G|^2), averaged over batches."""
        return safe_divide(self.trace, self.batches), safe_divide(self.sq_norm, self.batches)


@returns(TOTAL)
def noise_scale(tape: Tape, before: NoiseScale | None = None) -> NoiseScale:
    """Unbiased estimates of tr(Sigma) and |G|^2 from one batch, scalars, added to those of previous batches.

    With m = mean |g_i|^2 and M = |mean g|^2 of N examples:

        tr(Sigma) = (m - M) N / (N - 1),   |G|^2 = (N M - m) / (N - 1),   B = tr(Sigma) / |G|^2

    The ratio of one batch is biased and noisy: add up batches, at fixed parameters or along a run, and read `.scale` at
    the end. The sums may be the carry of a `lax.scan` that starts from `NoiseScale.zero()`. In float32 tr(Sigma) loses
    digits where it is less than 1e-4 of m: sum the leaves of `variance(tape, 1)` there.

    Args:
        tape: of N >= 2 examples.
        before: the result for the previous batches; None for the first.

    Raises:
        TypeError: before is not a NoiseScale.
        ValueError: N < 2.

    Reference: McCandlish, S., Kaplan, J., Amodei, D. & the OpenAI Dota team (2018). An empirical model of large-batch
        training, appendix A.1.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> found = noise_scale(sample_tape())  # m = 23, M = 15.5
        >>> found.trace, found.sq_norm
        (Array(15., dtype=float32), Array(8., dtype=float32))
        >>> noise_scale(sample_tape(), found).scale
        Array(1.875, dtype=float32)
    """
    require_independent("noise_scale", tape, 2)
    if not isinstance(before, NoiseScale | None):
        raise TypeError(
            f"noise_scale: before must be the NoiseScale of the batches before, got {type(before).__name__}."
        )
    n = tape.examples
    m = jnp.mean(sq_norms(tape))
    squares = [jnp.sum(jnp.square(g)) for g in wide_means("noise_scale", tape)]
    big = functools.reduce(jnp.add, squares) if squares else jnp.zeros_like(m)
    found = NoiseScale((m - big) * (n / (n - 1)), (n * big - m) / (n - 1), jnp.ones_like(m))
    return found if before is None else NoiseScale(*(x + y for x, y in zip(before, found, strict=True)))
