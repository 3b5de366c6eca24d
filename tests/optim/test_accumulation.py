"""Gradients gathered into one update."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, strict

pytestmark = pytest.mark.sampled

MUTANTS = [
    ("accumulation", "MultiSteps", "acc + (g - acc) / n", "acc + (g - acc) / (n + 1)"),
    ("accumulation", "MultiSteps: sum", "if use_grad_mean else acc + g", "if use_grad_mean else acc + 2 * g"),
    ("accumulation", "MultiSteps: schedule", "n >= at_count(", "n > at_count("),
    ("accumulation", "MultiSteps: skip", "emits = ~skip & ", "emits = "),
    ("accumulation", "apply_every", "state.count == 0, g, acc + g", "state.count == 0, g, acc"),
    ("accumulation", "apply_every", "emits = n >= k", "emits = n > k"),
]


@pytest.mark.parametrize("library", [optim, optax])
@pytest.mark.parametrize("mean", [True, False])
def test_an_update_is_that_of_the_mean_or_sum(library: Any, mean: bool) -> None:
    with float64(), strict() if library is optim else float64():
        params = {"w": jnp.asarray(random(0, 3)), "none": None}
        opt = optim.accumulate(library.adam(0.1), 4, use_grad_mean=mean)
        alone = optim.adam(0.1)
        state, kept, reference = opt.init(params), alone.init(params), params
        for step in range(3):
            grads = random(step + 1, 4, 3)
            for i in range(4):
                updates, state = opt.update({"w": jnp.asarray(grads[i]), "none": None}, state, params)
                assert (float(jnp.abs(updates["w"]).max()) > 0) == (i == 3)
                params = optim.apply_updates(params, updates)
            whole = {"w": jnp.asarray(grads.mean(0) if mean else grads.sum(0)), "none": None}
            updates, kept = alone.update(whole, kept, reference)
            reference = optim.apply_updates(reference, updates)
            assert_close(params, reference, rtol=1e-12)
        assert int(state.gradient_step) == 3
        assert int(state.mini_step) == 0


def test_the_inner_update_is_computed_at_every_kth_gradient_only_and_at_each_in_optax() -> None:
    def counted(library: Any) -> int:
        calls: list[int] = []

        def update(grads: Any, state: Any, params: Any = None) -> Any:
            jax.debug.callback(lambda: calls.append(1))
            return grads, state

        opt = library.MultiSteps(optax.GradientTransformation(lambda params: (), update), every_k_schedule=5)
        state, step = opt.init(jnp.ones(1)), jax.jit(opt.update)
        for _ in range(20):
            _, state = step(jnp.ones(1), state)
        jax.effects_barrier()
        return len(calls)

    assert counted(optim) == 4
    if counted(optax) == 4:
        pytest.skip(f"optax {optax.__version__} mended this: MultiSteps runs the inner update each time")


@pytest.mark.slow
def test_a_nan_spoils_one_update_and_in_optax_all() -> None:
    def sizes(library: Any) -> list[float]:
        opt = library.MultiSteps(library.sgd(1.0), 2)
        state, found = opt.init(jnp.ones(1)), []
        for g in (jnp.nan, 1.0, 1.0, 1.0):
            updates, state = opt.update(jnp.array([g]), state, jnp.ones(1))
            found.append(float(updates[0]))
        return found

    np.testing.assert_equal(sizes(optim), [0.0, np.nan, 0.0, -1.0])
    if not np.isnan(sizes(optax)[-1]):
        pytest.skip(f"optax {optax.__version__} mended this: a NaN stays in MultiSteps")


def test_float64_gradients_keep_their_precision() -> None:
    with float64():
        g = jnp.asarray(random(0, 5))
        opt = optim.MultiSteps(optim.sgd(1.0), 1)
        updates, _ = opt.update(g, opt.init(g), g)
        assert updates.tolist() == (-g).tolist()
        theirs = optax.MultiSteps(optax.sgd(1.0), 1, accumulator_dtype=jnp.float32)
        assert theirs.init(g).acc_grads.dtype == jnp.float32


def test_gradients_are_skipped_and_reported() -> None:
    opt = optim.MultiSteps(optim.sgd(1.0), 2, should_skip_update_fn=optim.skip_not_finite)
    params = jnp.zeros(2)
    state = opt.init(params)
    seen = []
    for g in ([1.0, 1.0], [jnp.nan, jnp.inf], [3.0, 3.0]):
        updates, state = opt.update(jnp.array(g), state, params)
        seen.append((updates.tolist(), int(state.skip_state["num_not_finite"]), bool(opt.has_updated(state))))
    assert seen == [([0.0, 0.0], 0, False), ([0.0, 0.0], 2, False), ([-2.0, -2.0], 0, True)]


def test_half_precision_gradients_are_gathered_in_float32() -> None:
    params = jnp.zeros(1, jnp.bfloat16)
    opt = optim.accumulate(optim.sgd(1.0), 512, use_grad_mean=False)
    state = opt.init(params)
    assert state.acc_grads.dtype == jnp.float32

    def body(state: Any, _: Any) -> Any:
        updates, state = opt.update(jnp.ones(1, jnp.bfloat16), state, params)
        return state, updates

    updates = jax.lax.scan(body, state, None, length=512)[1]
    assert updates[-1, 0] == -512


def test_complaints() -> None:
    for make in (lambda: optim.accumulate(optim.sgd(0.1), 0), lambda: optim.MultiSteps(optim.sgd(0.1), 0)):
        with pytest.raises(ValueError, match="every_k must be at least 1, got 0"):
            make()
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        optim.apply_every(0)
    opt = optim.accumulate(optim.sgd(0.1), 2, should_skip_update_fn=lambda g, n, p: (g > 0, ()))
    with pytest.raises(ValueError, match=r"must return \(bool of shape \(\), pytree\), got bool of shape \(3,\)"):
        opt.update(jnp.ones(3), opt.init(jnp.ones(3)))
