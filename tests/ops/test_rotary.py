"""Rotary position encodings against complex numbers, and what makes them encodings of differences of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops.rotary import angles, rotate
from tests.helpers import assert_close, float64, random, strict

X = random(0, 2, 7, 3, 8)
BASE = 100.0


def by_complex_numbers(x: np.ndarray, base: float, first: int = 0) -> np.ndarray:
    """(x_i + j x_(i + D/2)) e^(j t base^(-2i/D)): a plane is a complex number, a rotation its product with e^(j a)."""
    half = x.shape[-1] // 2
    t = first + np.arange(x.shape[1])
    turn = np.exp(1j * t[:, None] * base ** (-2 * np.arange(half) / x.shape[-1]))
    y = (x[..., :half] + 1j * x[..., half:]) * turn[None, :, None]
    return np.concatenate([y.real, y.imag], -1)


def rotated(x: Any, base: Any = BASE, first: Any = 0) -> Any:
    return rotate(x, angles(x.shape[1], x.shape[3], base, first, dtype=x.dtype))


def error(of: Callable[..., Any]) -> float:
    with float64(), strict():
        found = jax.jit(of)(X, np.float64(BASE), np.int32(3))
        return float(np.abs(found - by_complex_numbers(X, BASE, 3)).max())


def test_it_is_a_product_of_complex_numbers() -> None:
    assert error(rotated) <= 1e-14


MUTANTS: dict[str, Callable[..., Any]] = {
    "other sign": lambda x, base, first: rotate(x, -angles(7, 8, base, first, dtype=x.dtype)),
    "one position off": lambda x, base, first: rotated(x, base, first + 1),
    "first forgotten": lambda x, base, first: rotated(x, base),
    "neighbours for halves": lambda x, base, first: rotated(x[..., [0, 2, 4, 6, 1, 3, 5, 7]], base, first),
    "frequencies of half as many features": lambda x, base, first: rotate(
        x, angles(7, 8, base**2, first, dtype=x.dtype)
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_ones_are_caught(name: str) -> None:
    assert error(MUTANTS[name]) > 1e-2


def test_the_adjoint_is_the_inverse_and_the_rotation_back() -> None:
    with float64(), strict():

        @jax.jit
        def run(x: Any, dy: Any) -> Any:
            by = angles(7, 8, BASE, dtype=x.dtype)
            y, pull = jax.vjp(lambda x: rotate(x, by), x)
            return y, rotate(y, -by), pull(dy)[0], rotate(dy, -by)

        y, back, adjoint, turned = run(X, random(1, *X.shape))
    assert_close(back, X, rtol=1e-13, atol=1e-14)
    assert_close(adjoint, turned, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(X, axis=-1), rtol=1e-13)


def test_scores_depend_on_the_difference_of_positions_only() -> None:
    """And are those of the queries as they are with keys rotated by the difference."""
    q, k = random(0, 1, 1, 1, 8), random(1, 1, 1, 1, 8)

    def scores(first: Any, second: Any) -> Any:
        return jnp.sum(rotated(q, first=first) * rotated(k, first=second))

    with float64():
        run = jax.jit(jax.vmap(scores))
        pairs = np.array([(0, 3), (5, 8), (100, 103), (3, 0), (10, 7)])
        ahead3, later, far, behind3, before = run(*pairs.T)
        alone = jax.jit(lambda: jnp.sum(q * rotated(k, first=3)))()
    np.testing.assert_allclose([later, far, alone], ahead3, rtol=1e-12)
    np.testing.assert_allclose(before, behind3, rtol=1e-12)
    assert abs(float(ahead3) - float(behind3)) > 1e-2


def test_it_is_the_formula_of_common_models() -> None:
    """x cos + rotate_half(x) sin with cos and sin of the angles repeated for both halves, in torch."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    frequencies = 1.0 / (BASE ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8))
    by = torch.outer(torch.arange(7, dtype=torch.float64), frequencies)
    both = torch.cat((by, by), -1)[None, :, None]
    half = torch.cat((-x[..., 4:], x[..., :4]), -1)
    with float64():
        np.testing.assert_allclose(rotated(jnp.asarray(X)), (x * both.cos() + half * both.sin()).numpy(), atol=1e-14)


def test_half_precision_is_rotated_in_float32() -> None:
    """Also far from the first position, where a bfloat16 angle would be wrong by turns."""
    x = jnp.asarray(X, jnp.bfloat16)
    with strict():
        y = jax.jit(lambda x: rotate(x, angles(7, 8, 10_000.0, 3000)))(x)
    assert y.dtype == jnp.bfloat16
    expected = by_complex_numbers(np.asarray(x, np.float64), 10_000.0, 3000)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=2e-3)


def test_odd_features_raise() -> None:
    with pytest.raises(ValueError, match="the features of a head must be even, got 3: they are rotated in pairs"):
        angles(2, 3, 100.0)
