"""The Mackey-Glass series against its closed form on the first interval, and SciPy on the next ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxnn.data import series
from tests.helpers import float64, strict


def gain(x: Any) -> Any:
    return 0.2 * x / (1 + x**10)


def by_intervals(delay: int, intervals: int) -> np.ndarray:
    """x at t = 1, 2, ..: on each interval an ordinary equation, driven by the solution on the one before."""
    before, at, values = lambda t: 1.2, 1.2, []
    for i in range(intervals):
        span = (i * delay, (i + 1) * delay)
        found = integrate.solve_ivp(
            lambda t, x, before=before: gain(before(t - delay)) - 0.1 * x,
            span,
            [at],
            dense_output=True,
            rtol=1e-10,
            atol=1e-12,
        )
        at = found.y[0, -1]
        before = lambda t, found=found: found.sol(t)[0]  # noqa: E731
        values += [float(found.sol(t)[0]) for t in range(span[0] + 1, span[1] + 1)]
    return np.array(values)


def test_the_first_interval_in_closed_form() -> None:
    with float64(), strict():
        found = series.mackey_glass(17)
        limit = gain(1.2) / 0.1
        np.testing.assert_allclose(found, limit + (1.2 - limit) * np.exp(-0.1 * np.arange(1, 18)), rtol=1e-8)


def test_the_next_intervals_are_scipys_and_the_error_is_of_second_order() -> None:
    exact = by_intervals(17, 4)
    with float64():
        errors = [np.abs(series.mackey_glass(68, substeps=n) - exact).max() for n in (5, 10, 20)]
    assert errors[1] < 1e-3
    np.testing.assert_allclose(errors[:2], [4 * errors[1], 4 * errors[2]], rtol=0.2)


def test_it_is_bounded_chaotic_and_may_be_mapped() -> None:
    both = jax.jit(jax.vmap(lambda start: series.mackey_glass(2500, start=start)))(jnp.array([1.2, 1.201]))
    assert both.dtype == jnp.float32
    assert 0.2 < both.min() < both.max() < 1.4
    apart = np.abs(both[0] - both[1])
    assert apart[:100].max() < 0.02
    assert apart[1500:].max() > 0.3


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="delay must be at least 1, got 0"):
        series.mackey_glass(5, delay=0)
    with pytest.raises(TypeError, match="start must be a real number"):
        series.mackey_glass(5, start="1")  # type: ignore[arg-type]
