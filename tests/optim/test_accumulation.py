"""Gradients gathered into one update."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.running import along, optax_still, traced

MUTANTS = [
    ("accumulation", "MultiSteps", "acc + (g - acc) / n", "acc + (g - acc) / (n + 1)"),
    ("accumulation", "MultiSteps: sum", "if use_grad_mean else acc + g", "if use_grad_mean else acc + 2 * g"),
    ("accumulation", "MultiSteps: schedule", "n >= at_count(", "n > at_count("),
    ("accumulation", "MultiSteps: skip", "emits = ~skip & ", "emits = "),
    ("accumulation", "apply_every", "state.count == 0, g, acc + g", "state.count == 0, g, acc"),
    ("accumulation", "apply_every", "emits = n >= k", "emits = n > k"),
]


@pytest.mark.parametrize(("library", "mean"), [(optim, True), (optim, False), *slow((optax, True), (optax, False))])
def test_an_update_is_that_of_the_mean_or_sum(library: Any, mean: bool) -> None:
    params, grads = {"w": random(0, 3), "none": None}, random(1, 3, 4, 3)
    with float64(), strict() if library is optim else float64():
        opt = optim.accumulate(library.adam(0.1), 4, use_grad_mean=mean)
        updates, found, state = along(opt, params, {"w": grads.reshape(12, 3), "none": None})
        whole = grads.mean(1) if mean else grads.sum(1)
        _, expected, _ = along(optim.adam(0.1), params, {"w": whole, "none": None})
    assert (np.abs(updates["w"]).max(1) > 0).tolist() == [False, False, False, True] * 3
    assert_close(found["w"][3::4], expected["w"], rtol=1e-12)
    assert (state.gradient_step, state.mini_step) == (3, 0)


@pytest.mark.slow
def test_a_nan_spoils_one_update_and_in_optax_all() -> None:
    def sizes(library: Any) -> list[float]:
        grads = np.array([np.nan, 1.0, 1.0, 1.0], np.float32)
        return along(library.MultiSteps(library.sgd(1.0), 2), np.float32(1), grads)[0].tolist()

    np.testing.assert_equal(sizes(optim), [0.0, np.nan, 0.0, -1.0])
    optax_still(np.isnan(sizes(optax)[-1]), "a NaN that stays in MultiSteps")


def test_float64_gradients_keep_their_precision() -> None:
    with float64():
        g = random(0, 1, 5)
        updates, _, _ = along(optim.MultiSteps(optim.sgd(1.0), 1), g[0], g)
        assert updates.tolist() == (-g).tolist()
        theirs = optax.MultiSteps(optax.sgd(1.0), 1, accumulator_dtype=jnp.float32)
        assert jax.eval_shape(theirs.init, g[0]).acc_grads.dtype == jnp.float32


def test_gradients_are_skipped_and_reported() -> None:
    opt = optim.MultiSteps(optim.sgd(1.0), 2, should_skip_update_fn=optim.skip_not_finite)
    params, grads = np.zeros(2, np.float32), np.float32([[1, 1], [np.nan, np.inf], [3, 3]])

    def body(state: Any, g: Any) -> tuple[Any, Any]:
        updates, state = opt.update(g, state, params)
        return state, (updates, state.skip_state["num_not_finite"], opt.has_updated(state))

    updates, bad, emitted = jax.jit(lambda g: jax.lax.scan(body, opt.init(params), g)[1])(grads)
    assert (updates.tolist(), bad.tolist()) == ([[0, 0], [0, 0], [-2, -2]], [0, 2, 0])
    assert emitted.tolist() == [False, False, True]


def test_half_precision_gradients_are_gathered_in_float32() -> None:
    opt = optim.accumulate(optim.sgd(1.0), 512, use_grad_mean=False)
    updates, _, state = along(opt, np.zeros(1, jnp.bfloat16), np.ones((512, 1), jnp.bfloat16))
    assert state.acc_grads.dtype == np.float32
    assert updates[-1, 0] == -512
    grads = jnp.ones(1, jnp.bfloat16)
    assert opt.update(grads, opt.init(grads))[0].dtype == jnp.bfloat16  # without params too


@traced
def test_complaints() -> None:
    for make in (lambda: optim.accumulate(optim.sgd(0.1), 0), lambda: optim.MultiSteps(optim.sgd(0.1), 0)):
        with pytest.raises(ValueError, match="every_k must be at least 1, got 0"):
            make()
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        optim.apply_every(0)
    opt = optim.accumulate(optim.sgd(0.1), 2, should_skip_update_fn=lambda g, n, p: (g > 0, ()))
    with pytest.raises(ValueError, match=r"must return \(bool of shape \(\), pytree\), got bool of shape \(3,\)"):
        opt.update(jnp.ones(3), opt.init(jnp.ones(3)))
