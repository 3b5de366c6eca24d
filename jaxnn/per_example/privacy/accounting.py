"""Privacy accounting: a run of `dp_sgd` as an event of the package `dp_accounting`."""

from __future__ import annotations

import math
from typing import Any

from jaxnn.checks import require_between, require_positive, require_positive_int


def dp_event(
    *, noise_multiplier: float, probability: float, steps: int, examples: int | None = None, size: int | None = None
) -> Any:
    """A run of `dp_sgd` on batches of `poisson_batch`, as a `dp_accounting.DpEvent`.

    The T-fold composition of a Gaussian mechanism of noise multiplier sigma on a Poisson subsample of probability q;
    with `examples` and `size`, on one truncated to `size` uniformly at random. For `jax_privacy`'s accounting and the
    accountants of `dp_accounting`: `RdpAccountant` (Renyi divergences; without truncation), or the tighter
    `PLDAccountant` (privacy loss distributions). Neighbouring data sets differ by one example added or removed
    (ADD_OR_REMOVE_ONE) or zeroed out (REPLACE_SPECIAL); with truncation only the latter.

    For epochs of shuffled batches of fixed size use probability=1.0 and steps=epochs, under REPLACE_SPECIAL only.

    Args:
        noise_multiplier: sigma >= 0 of `dp_sgd`.
        probability: q in (0, 1] of `poisson_batch`; batch_size is then q n.
        steps: T >= 1.
        examples, size: n and size of `poisson_batch`, both or neither. Neither if subsamples never overflow, up to the
            failure probability of `poisson_size`.

    Returns:
        A `dp_accounting.DpEvent`.

    Raises:
        ImportError: `dp_accounting` is not installed.
        TypeError: not numbers.
        ValueError: out of range, or only one of examples and size.

    Reference: Mironov, I., Talwar, K. & Zhang, L. (2019). Renyi differential privacy of the sampled Gaussian mechanism.
        Balle, B. & Wang, Y.-X. (2018). Improving the Gaussian mechanism for differential privacy, theorem 8 (the exact
        delta of one step without sampling). Koskela, A., Jälkö, J. & Honkela, A. (2020). Computing tight differential
        privacy guarantees using FFT.

    Example:
        >>> import dp_accounting  # doctest: +SKIP
        >>> pld = dp_accounting.pld.PLDAccountant  # doctest: +SKIP
        >>> event = lambda sigma: dp_event(noise_multiplier=sigma, probability=256 / 60_000, steps=10_000)
        >>> round(pld().compose(event(1.1)).get_epsilon(1e-5), 2)  # doctest: +SKIP
        1.98
        >>> round(dp_accounting.calibrate_dp_mechanism(pld, event, 1.0, 1e-5), 2)  # for epsilon = 1  # doctest: +SKIP
        1.75
    """
    where = "dp_event"
    require_between(where, "noise_multiplier", noise_multiplier, 0, math.inf, open_high=True)
    require_positive(where, "probability", probability)
    require_between(where, "probability", probability, 0, 1)
    steps = require_positive_int(where, "steps", steps)
    if (examples is None) != (size is None):
        raise ValueError(f"{where}: a truncated subsample needs examples and size, got {examples=}, {size=}.")
    try:
        import dp_accounting as accounting
    except ImportError as error:
        raise ImportError(
            f"{where}: needs the package dp_accounting. Install it: pip install 'jaxnn[privacy]'."
        ) from error
    if examples is None or size is None:
        gaussian = accounting.GaussianDpEvent(float(noise_multiplier))
        return accounting.SelfComposedDpEvent(accounting.PoissonSampledDpEvent(float(probability), gaussian), steps)
    cut = accounting.TruncatedSubsampledGaussianDpEvent(
        dataset_size=require_positive_int(where, "examples", examples),
        sampling_probability=float(probability),
        truncated_batch_size=require_positive_int(where, "size", size),
        noise_multiplier=float(noise_multiplier),
    )
    return accounting.SelfComposedDpEvent(cut, steps)
