"""Rules under conditions, and Lookahead against its paper and optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.running import along, traced

MUTANTS = [
    ("wrappers", "conditionally_mask", "update_if(condition, _zeros", "update_if(condition, lambda grads: grads"),
    ("wrappers", "conditionally_mask", "increment(state.step), new)", "increment(state.step) + 1, new)"),
    ("wrappers", "conditionally_transform", "ConditionallyTransformState(new, inc", "ConditionallyTransformState(new, "
     "2 * inc"),
    ("wrappers", "apply_if_finite", "finite | (in_a_row", "~finite | (in_a_row"),
]  # fmt: skip


def test_gradients_that_are_not_finite_are_rejected_up_to_a_number_in_a_row() -> None:
    values = [1.0, np.nan, np.inf, 2.0, np.nan, np.nan, np.nan]
    params, grads = (
        {"w": np.ones(2, np.float32), "none": None},
        {"w": np.float32([[v, 1] for v in values]), "none": None},
    )

    def followed(library: Any) -> Any:
        opt = library.apply_if_finite(library.sgd(1.0, 0.9), 2)

        def body(state: Any, g: Any) -> Any:
            updates, state = opt.update(g, state, params)
            return state, (updates, state.notfinite_count, state.total_notfinite, state.last_finite)

        return jax.lax.scan(body, opt.init(params), grads)

    (state, ours), (_, theirs) = jax.jit(lambda: [followed(library) for library in (optim, optax)])()
    assert_close(ours, theirs, rtol=1e-6)
    assert int(state.inner_state.count) == 3
    assert np.isnan(ours[0]["w"][-1, 0])


def test_the_inner_update_is_computed_only_where_the_condition_holds() -> None:
    calls = []

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return grads, state

    inner = optim.Optimizer(lambda params: (), update)
    for make in (optim.conditionally_mask, optim.conditionally_transform):
        calls.clear()
        along(make(inner, lambda step: step % 3 == 2), np.ones(1, np.float32), np.ones((7, 1), np.float32))
        jax.effects_barrier()
        assert len(calls) == 2


def test_a_wrapped_optax_rule_keeps_its_dtypes_under_scan() -> None:
    params, grads = np.ones(2, jnp.bfloat16), np.ones(2, np.float32)
    rule = optax.adam(0.1)
    for opt in (
        optim.apply_if_finite(rule, 1),
        optim.conditionally_mask(rule, lambda step: step > 0),
        optim.conditionally_transform(rule, lambda step: step > 0),
        optim.accumulate(rule, 2),
        optim.masked(rule, True),
        optim.average_params(rule),
        optim.inject_hyperparams(optax.adam)(0.1),
        optim.flatten(rule),
        optim.chain(rule, optax.scale(1.0)),
    ):

        def body(carry: Any, _: Any, opt: Any = opt) -> Any:
            updates, state = opt.update(grads, carry[1], carry[0])
            return (optim.apply_updates(carry[0], updates), state), updates

        def run(params: Any, opt: Any = opt, body: Any = body) -> Any:
            return jax.lax.scan(body, (params, opt.init(params)), length=3)

        _, updates = jax.eval_shape(run, params)
        assert updates.dtype == jnp.bfloat16


def lookahead_as_published(grad: Any, phi: Any, rate: float, k: int, alpha: float, outer: int) -> Any:
    """Algorithm 1 of Zhang et al.: phi the slow weights, theta the fast, SGD as the inner optimizer."""
    for _ in range(outer):
        theta = phi
        for _ in range(k):
            theta = theta - rate * grad(theta)
        phi = phi + alpha * (theta - phi)
    return phi


@pytest.mark.slow
def test_lookahead_is_the_paper_and_optax() -> None:
    with float64(), strict():
        target = random(0, 4)
        start = random(1, 4)

        def grad(theta: Any) -> Any:
            return np.sin(theta - target) + 0.3 * (theta - target)

        expected = lookahead_as_published(grad, start, 0.1, 5, 0.6, 20)
        opt = optim.lookahead(optim.sgd(0.1), 5, 0.6)
        params = optim.LookaheadParams.init_synced(jnp.asarray(start))
        state = opt.init(params)
        for _ in range(100):
            updates, state = opt.update(jnp.asarray(grad(np.asarray(params.fast))), state, params)
            params = optim.apply_updates(params, updates)
    np.testing.assert_allclose(params.slow, expected, rtol=1e-12)
    np.testing.assert_allclose(params.fast, expected, rtol=1e-12)


@pytest.mark.parametrize("reset", [True, *slow(False)])
def test_lookahead_equals_optax_with_either_librarys_parameters(reset: bool) -> None:
    start, noise = {"w": random(0, 3), "none": None}, random(1, 11, 3)

    def run(library: Any, pair: Any) -> Any:
        opt, params = (
            library.lookahead(library.adam(0.1), 4, 0.5, reset_state=reset),
            pair.LookaheadParams(start, start),
        )

        def body(carry: Any, xi: Any) -> Any:
            params, state = carry
            updates, state = opt.update({"w": params.fast["w"] + xi, "none": None}, state, params)
            params = optax.apply_updates(params, updates)
            assert type(params) is pair.LookaheadParams
            return (params, state), None

        params, state = jax.lax.scan(body, (params, opt.init(params)), noise)[0]
        return params.fast, params.slow, jax.tree.leaves(state)

    with float64():
        ours, mixed, theirs = jax.jit(lambda: [run(optim, optim), run(optim, optax), run(optax, optax)])()
    assert_close(ours, theirs, rtol=1e-12)
    assert_close(mixed, theirs, rtol=1e-12)


def test_lookahead_resets_a_state_that_holds_nan() -> None:
    opt = optim.lookahead(optim.adam(0.1), 1, 0.5, reset_state=True)
    params = optim.LookaheadParams.init_synced(np.ones(1, np.float32))
    _, state = jax.jit(lambda p: opt.update(np.float32([np.nan]), opt.init(p), p))(params)
    assert state.fast_state.mu.tolist() == [0.0]


@traced
def test_complaints() -> None:
    with pytest.raises(ValueError, match="sync_period must be at least 1"):
        optim.lookahead(optim.sgd(0.1), 0, 0.5)
    opt = optim.lookahead(optim.sgd(0.1), 1, 0.5)
    with pytest.raises(ValueError, match=r"must be a LookaheadParams, got dict\. Start with"):
        opt.update({"w": jnp.ones(1)}, opt.init({"w": jnp.ones(1)}), {"w": jnp.ones(1)})
    for make in (lambda inner: optim.apply_if_finite(inner, 1), lambda inner: optim.accumulate(inner, 2)):
        with pytest.raises(TypeError, match=r"must be an optimizer with init and update, got 0\.1"):
            make(0.1)
    with pytest.raises(ValueError, match="max_consecutive_errors must lie in"):
        optim.apply_if_finite(optim.sgd(0.1), -1)
