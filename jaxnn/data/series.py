"""Time series on which networks with memory are tested."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_number, require_positive_int
from jaxnn.types import Array, Scalar


def mackey_glass(steps: int, *, delay: int = 17, start: Scalar = 1.2, substeps: int = 10) -> Array:
    """The Mackey-Glass series, x at t = 1, 2, .., steps: a delay equation, chaotic for a delay of 17.

    dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t)

    By the classical Runge-Kutta method, with the delayed value between two substeps interpolated linearly: the error is
    of order 1 / substeps^2.

    Args:
        steps: length of the series.
        delay: in units of time, >= 1.
        start: x(t) for t <= 0, >= 0; may be traced.
        substeps: Runge-Kutta steps per unit of time.

    Returns:
        (steps,), float32 (float64 if `jax.enable_x64` is on).

    Reference: Mackey, M. C. & Glass, L. (1977). Oscillation and chaos in physiological control systems.

    Example:
        >>> mackey_glass(3, start=1.0).round(3)  # a fixed point, unstable
        Array([1., 1., 1.], dtype=float32)
    """
    require_number("mackey_glass", "start", start)
    steps = require_positive_int("mackey_glass", "steps", steps)
    delay = require_positive_int("mackey_glass", "delay", delay)
    h = 1 / require_positive_int("mackey_glass", "substeps", substeps)

    def substep(past: Array, _: None) -> tuple[Array, Array]:
        """One Runge-Kutta step; `past` holds x at the substeps from t - delay to t."""
        begin, middle, end = (0.2 * x / (1 + x**10) for x in (past[0], (past[0] + past[1]) / 2, past[1]))
        x = past[-1]
        k1 = begin - 0.1 * x
        k2 = middle - 0.1 * (x + h / 2 * k1)
        k3 = middle - 0.1 * (x + h / 2 * k2)
        k4 = end - 0.1 * (x + h * k3)
        after = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return jnp.append(past[1:], after), after

    past = jnp.full(delay * substeps + 1, jnp.asarray(start, float))
    return lax.scan(substep, past, length=steps * substeps)[1][substeps - 1 :: substeps]
