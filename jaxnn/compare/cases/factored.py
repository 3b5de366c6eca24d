"""Adafactor and its factored second moments, against optax."""

from __future__ import annotations

from typing import Any

import optax

from jaxnn.compare.cases.adam import decaying
from jaxnn.compare.parity import Case, same
from jaxnn.optim.rules.factored import power_decay


def precise_factored_rms(**settings: Any) -> Any:
    """optax's scale_by_factored_rms, its decay computed in the precision of the run.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = precise_factored_rms()
        >>> opt.update(jnp.full(1, 2.0), opt.init(jnp.ones(1)), jnp.ones(1))[0]
        Array([1.], dtype=float32)
    """
    return optax.scale_by_factored_rms(**({"decay_rate_fn": power_decay} | settings))


def precise_adafactor(
    learning_rate: Any = None,
    *,
    parameter_scale: bool = True,
    threshold: float | None = 1.0,
    momentum: float | None = None,
    weight_decay_rate: Any = None,
    mask: Any = None,
    **settings: Any,
) -> Any:
    """optax's adafactor, put together from optax's parts around `precise_factored_rms`.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = precise_adafactor(0.1)
        >>> opt.update(jnp.full(1, 2.0), opt.init(jnp.ones(1)), jnp.ones(1))[0]
        Array([-0.1], dtype=float32)
    """
    return optax.chain(
        precise_factored_rms(**settings),
        optax.identity() if threshold is None else optax.clip_by_block_rms(threshold),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_param_block_rms() if parameter_scale else optax.identity(),
        optax.identity() if momentum is None else optax.ema(momentum, debias=False),
        optax.identity() if weight_decay_rate is None else optax.add_decayed_weights(weight_decay_rate, mask=mask),
        optax.scale(-1),
    )


SINGLE = (
    "optax computes the decay in float32 even where all else is float64; the comparison gives it the same decay in "
    "the precision of the run"
)
MASK = {"w": True, "parts": False, "nothing": None}

CASES: dict[str, Case] = {
    "scale_by_factored_rms": Case(
        lambda library: library.scale_by_factored_rms(), lambda: precise_factored_rms(), SINGLE
    ),
    "scale_by_factored_rms: matrices": Case(
        lambda library: library.scale_by_factored_rms(decay_rate=0.6, min_dim_size_to_factor=2, epsilon=1e-3),
        lambda: precise_factored_rms(decay_rate=0.6, min_dim_size_to_factor=2, epsilon=1e-3),
        SINGLE,
    ),
    "scale_by_factored_rms: decay_rate_fn": same(
        "scale_by_factored_rms", min_dim_size_to_factor=3, decay_rate_fn=lambda count, rate: 0.9 * rate
    ),
    "adafactor": Case(lambda library: library.adafactor(0.1), lambda: precise_adafactor(0.1), SINGLE),
    "adafactor: optax's own": Case(
        lambda library: library.adafactor(0.1, 2),
        lambda: optax.adafactor(0.1, 2),
        "optax computes the decay in float32 even where all else is float64: equal to single precision",
        steps=20,
        tolerance=1e-6,
    ),
    "adafactor: matrices": Case(
        lambda library: library.adafactor(decaying, 2, decay_rate=0.7, decay_offset=-5, eps=1e-3),
        lambda: precise_adafactor(decaying, min_dim_size_to_factor=2, decay_rate=0.7, step_offset=-5, epsilon=1e-3),
        SINGLE,
    ),
    "adafactor: no learning rate": Case(
        lambda library: library.adafactor(clipping_threshold=0.05, factored=False),
        lambda: precise_adafactor(threshold=0.05, factored=False),
        SINGLE,
    ),
    "adafactor: plain": Case(
        lambda library: library.adafactor(0.05, 2, multiply_by_parameter_scale=False, clipping_threshold=None),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, parameter_scale=False, threshold=None),
        SINGLE,
    ),
    "adafactor: momentum": Case(
        lambda library: library.adafactor(0.05, 2, momentum=0.8, dtype_momentum=None),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, momentum=0.8),
        SINGLE,
    ),
    "adafactor: decay": Case(
        lambda library: library.adafactor(0.05, 2, weight_decay_rate=0.01),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, weight_decay_rate=0.01),
        SINGLE,
    ),
    "adafactor: mask": Case(
        lambda library: library.adafactor(0.05, 2, weight_decay_rate=decaying, weight_decay_mask=MASK),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, weight_decay_rate=decaying, mask=MASK),
        SINGLE,
    ),
}
