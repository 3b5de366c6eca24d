"""Smoothed functions: optax's samples and numbers, and the expectations that are known."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import perturbations
from jaxnn.perturbations import Gumbel, Normal, make_perturbed_fun
from tests.helpers import assert_close, float64, slow


def step(x: Any) -> Any:
    return {"top": jax.nn.one_hot(jnp.argmax(x["w"]), 3), "sign": jnp.sign(x["w"][0] + x["b"])}


@pytest.mark.parametrize(("noise", "baseline"), [("Gumbel", True), *slow(("Normal", False))])
def test_values_and_derivatives_are_optaxs(noise: str, baseline: bool) -> None:
    def everything(m: Any, key: Any, x: Any) -> Any:
        smooth = m.make_perturbed_fun(step, 20, 0.3, getattr(m, noise)(), baseline)

        def scalar(x: Any) -> Any:
            return sum(jnp.sum(v * jnp.arange(v.size)) for v in jax.tree.leaves(smooth(key, x)))

        return smooth(key, x), jax.grad(scalar)(x)

    def both(key: Any, x: Any) -> list[Any]:
        return [everything(m, key, x) for m in (perturbations, optax.perturbations)]

    with float64():
        got, expected = jax.jit(both)(jax.random.key(3), {"w": np.array([0.3, -0.2, 0.1]), "b": np.array(0.5)})
    assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_expectations() -> None:
    """The argmax under Gumbel noise is the softmax; the second derivative of a smoothed square is 2."""
    x = np.float32([0.3, -0.2, 0.1])
    smooth = make_perturbed_fun(lambda x: jax.nn.one_hot(jnp.argmax(x), 3), 20_000, 1.0)
    curved = make_perturbed_fun(lambda x: x**2, 20_000, 1.0, Normal())

    def run(key: Any, x: Any) -> Any:
        slope = jax.jvp(lambda x: smooth(key, x), (x,), (np.float32([1, 0, 0]),))[1]
        return smooth(key, x), slope, jax.hessian(lambda v: curved(key, v))(x[0])

    value, slope, second = jax.jit(run)(jax.random.key(0), x)
    p = np.exp(x) / np.exp(x).sum()
    assert_close(value, p, rtol=0, atol=0.015)
    assert_close(slope, p[0] * (np.array([1.0, 0.0, 0.0]) - p), rtol=0, atol=0.03)
    assert_close(second, 2.0, rtol=0, atol=0.15)


def test_arguments_are_optaxs() -> None:
    ours, optaxs = (inspect.signature(m.make_perturbed_fun).parameters for m in (perturbations, optax.perturbations))
    assert list(ours) == list(optaxs)
    assert all(ours[n].default == optaxs[n].default for n in ours if n not in ("noise", "fun"))
    assert isinstance(ours["noise"].default, Gumbel)


def test_errors() -> None:
    with pytest.raises(TypeError, match="fun must be a function"):
        make_perturbed_fun(3.0)
    with pytest.raises(ValueError, match="sigma must be a finite number > 0, got 0"):
        make_perturbed_fun(jnp.sign, sigma=0.0)
    with pytest.raises(ValueError, match="num_samples"):
        make_perturbed_fun(jnp.sign, num_samples=0)
