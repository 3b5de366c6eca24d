"""Master weights, stochastic rounding and compensated sums: half-precision weights that take small steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.optim.precision.rounding import rounded, rounded_at_random
from tests.helpers import assert_close, float64, random, strict
from tests.optim.mutants import mutated

pytestmark = pytest.mark.sampled

HALVES = (jnp.bfloat16, jnp.float16)
KEY = jax.random.key(3)
WRAPS: dict[str, Callable[[Any, Any], optim.Optimizer]] = {
    "master_weights": lambda library, opt: library.master_weights(opt),
    "stochastic_rounding": lambda library, opt: library.stochastic_rounding(opt, KEY),
    "kahan": lambda library, opt: library.kahan(opt),
    "kahan: float32": lambda library, opt: library.kahan(opt, jnp.float32),
}


def run(opt: optim.Optimizer, params: Any, grads: Any) -> tuple[Any, Any]:
    """The parameters and state after a step for each row of gradients, scanned in one compiled program."""

    def body(carry: Any, g: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = opt.update(g, state, params)
        return (optim.apply_updates(params, updates), state), None

    return jax.jit(lambda p, g: jax.lax.scan(body, (p, opt.init(p)), g)[0])(params, grads)


def stalled(opt: optim.Optimizer, dtype: Any = jnp.bfloat16, weights: int = 1, steps: int = 100) -> np.ndarray:
    """Weights that start at 1, after some steps with gradient 1."""
    params, _ = run(opt, jnp.ones(weights, dtype), jnp.ones((steps, weights), dtype))
    return np.asarray(params, np.float64)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", WRAPS)
def test_a_weight_takes_a_hundred_small_steps(name: str, dtype: Any) -> None:
    found = stalled(WRAPS[name](optim, optim.adam(1e-3)), dtype, 10_000 if name == "stochastic_rounding" else 1)
    assert abs(found.mean() - 0.9) <= 0.005
    if dtype == jnp.bfloat16:
        assert stalled(optim.adam(1e-3))[0] == 1.0  # which is what the wrappers are for


def test_stochastic_rounding_keeps_ten_thousand_weights_right_in_the_mean() -> None:
    """Each step adds variance (w - a) (b - w) <= (2^-8)^2 / 4 below 1; the mean of 10,000 is good to 5 sigma."""
    found = stalled(optim.stochastic_rounding(optim.adam(1e-3), KEY), weights=10_000)
    sigma = math.sqrt(100 * (2**-8) ** 2 / 4 / 10_000)
    assert abs(found.mean() - 0.9) <= 5 * sigma
    assert 0.2 * sigma < found.std() / 100 <= sigma  # spread out: independent draws


@pytest.mark.slow
@pytest.mark.parametrize("grads_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("params_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("name", WRAPS)
def test_runs_under_scan_for_half_and_single_precision(name: str, params_dtype: Any, grads_dtype: Any) -> None:
    params = {"w": jnp.ones((3, 2), params_dtype), "b": jnp.ones((), params_dtype), "none": None, "mixed": jnp.ones(2)}
    grads = jax.tree.map(lambda p: jnp.ones((100, *p.shape), grads_dtype), params)
    opt = WRAPS[name](optim, optim.adamw(1e-3, weight_decay=0.0))
    with strict():
        params, state = run(opt, params, grads)
    assert {str(p.dtype) for p in jax.tree.leaves(params)} == {str(jnp.dtype(params_dtype)), "float32"}
    assert state.inner_state.mu["w"].dtype == jnp.float32
    spread = 0.05 if name == "stochastic_rounding" else 0.005
    assert_close(params, jax.tree.map(lambda p: np.full(p.shape, 0.9), params), rtol=0, atol=spread)


@pytest.mark.parametrize("wrap", [lambda opt: opt, *(lambda opt, name=name: WRAPS[name](optim, opt) for name in WRAPS)])
def test_the_second_moment_of_a_half_precision_parameter_decays(wrap: Any) -> None:
    grads = jnp.where(jnp.arange(3000) < 1000, 1, 0).astype(jnp.bfloat16)
    _, state = run(wrap(optim.adam(1e-3)), jnp.ones((), jnp.bfloat16), grads)
    nu = getattr(state, "inner_state", state).nu
    assert abs(nu - 0.0856) <= 0.01 * 0.0856


@pytest.mark.parametrize("dtype", HALVES)
def test_params_and_update_are_the_rounded_master(dtype: Any) -> None:
    grads = jnp.asarray(random(0, 200, 1000), jnp.float32)
    opt = optim.master_weights(optim.adam(1e-2))
    params = jnp.asarray(random(1, 1000), dtype)
    reference = jnp.asarray(params, jnp.float32)
    state, exact, inner = opt.init(params), reference, optim.adam(1e-2)
    inner_state = inner.init(exact)
    step, plain = jax.jit(opt.update), jax.jit(inner.update)
    for g in grads:
        updates, state = step(g, state, params)
        assert updates.dtype == jnp.float32
        params = optim.apply_updates(params, updates)
        moved, inner_state = plain(g, inner_state, exact)
        exact = exact + moved
        np.testing.assert_array_equal(params, state.master.astype(dtype))
    assert_close(state.master, exact, rtol=1e-5, atol=1e-6)  # what float32 training gives


def test_parameters_changed_from_outside_return_to_the_master() -> None:
    opt = optim.master_weights(optim.sgd(0.5))
    params = jnp.asarray([1.0, -2.0, 300.0], jnp.bfloat16)
    state = opt.init(params)
    updates, state = opt.update(jnp.zeros(3), state, jnp.zeros_like(params))
    np.testing.assert_array_equal(optim.apply_updates(jnp.zeros_like(params), updates), params)


def test_a_weight_that_collapses_lands_on_the_master_within_two_steps() -> None:
    """From 1 to 2^-30 no float32 update leads exactly; the next step does."""
    collapse = optim.stateless(lambda updates, params: jax.tree.map(lambda u: u, updates))
    opt = optim.master_weights(collapse)
    params = jnp.ones((), jnp.bfloat16)
    state = opt.init(params)._replace(master=jnp.float32(2.0**-30))
    for expected in (0.0, 2.0**-30):
        updates, state = opt.update(jnp.zeros(()), state, params)
        params = optim.apply_updates(params, updates)
        assert float(params) == expected


@pytest.mark.parametrize("dtype", HALVES)
def test_stochastic_rounding_lands_on_a_neighbour_exactly(dtype: Any) -> None:
    """apply_updates adds the float32 update and must find the drawn value, with nothing left to round."""
    params = jnp.asarray(random(2, 5000), dtype)
    grads = jnp.asarray(random(3, 5000) * 10.0 ** np.random.default_rng(4).integers(-8, 3, 5000), jnp.float32)
    updates, _ = jax.jit(optim.stochastic_rounding(optim.sgd(1.0), KEY).update)(
        grads, optim.stochastic_rounding(optim.sgd(1.0), KEY).init(params), params
    )
    total = params.astype(jnp.float32) + updates
    np.testing.assert_array_equal(total.astype(dtype).astype(jnp.float32), total)
    exact = params.astype(jnp.float32) - grads
    spacing = np.spacing(np.abs(np.asarray(exact)).astype(np.float32)) * 2.0 ** (23 - jnp.finfo(dtype).nmant)
    assert (np.abs(total - exact) < np.maximum(spacing, float(jnp.finfo(dtype).smallest_subnormal))).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("value", [1.001, -1.003, 0.9999, 3.14159, 7e-6, 1000.3, -0.007, 1e-7])
def test_rounding_at_random_is_unbiased(value: float, dtype: Any) -> None:
    """The mean of n draws between neighbours a and b has deviation at most (b - a) / 2 / sqrt(n)."""
    n, x = 100_000, np.float32(value)
    draws = np.asarray(rounded_at_random(jax.random.key(0), jnp.full(n, x), dtype), np.float64)
    levels = np.unique(draws)
    assert len(levels) == 2
    assert levels[0] < x < levels[1]
    np.testing.assert_array_equal(np.asarray(jnp.asarray(levels, dtype), np.float64), levels)
    gap = levels[1] - levels[0]
    assert abs(draws.mean() - x) <= 5 * gap / 2 / math.sqrt(n)
    assert jnp.nextafter(jnp.asarray(levels[0], dtype), jnp.asarray(math.inf, dtype)) == levels[1]


@pytest.mark.slow
def test_rounding_at_random_keeps_what_needs_no_rounding() -> None:
    x = jnp.asarray([0.0, 1.0, -2.5, 2.0**100, jnp.inf, -jnp.inf], jnp.float32)
    np.testing.assert_array_equal(rounded_at_random(KEY, x, jnp.bfloat16), x)
    assert jnp.isnan(rounded_at_random(KEY, jnp.full(1, jnp.nan), jnp.bfloat16)).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_to_the_nearest_is_a_cast_there_and_back(dtype: Any) -> None:
    """Float16's subnormal numbers, ties and overflow too; a cast outside jit is never dropped."""
    x = jnp.asarray(random(5, 20_000) * 10.0 ** np.random.default_rng(6).uniform(-12, 6, 20_000), jnp.float32)
    x = jnp.concatenate([x, jnp.asarray([0.0, 1.00390625, 1.01171875, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 3e-8])])
    np.testing.assert_array_equal(jax.jit(rounded, static_argnums=1)(x, dtype), x.astype(dtype).astype(jnp.float32))


@pytest.mark.parametrize("kept", [None, jnp.float32])
def test_kahan_follows_the_sum_in_float64(kept: Any) -> None:
    """p + c is the sum of all steps. A bfloat16 c is rounded by at most 2^-16 a step for |p| < 4: 5 sigma are 8e-4."""
    grads = random(7, 300, 500, dtype=np.float32) * np.float32(1e-3)
    start = jnp.asarray(random(8, 500), jnp.bfloat16)
    params, state = run(optim.kahan(optim.sgd(1.0), kept), start, jnp.asarray(grads))
    exact = np.asarray(start, np.float64) - grads.astype(np.float64).sum(0)
    reached = np.asarray(params, np.float64) + np.asarray(state.compensation, np.float64)
    assert np.abs(reached - exact).max() <= (1e-6 if kept else 8e-4)
    assert (np.abs(np.asarray(params, np.float64) - reached) <= 2**-8 * np.abs(reached)).all()


def test_kahan_in_float32_adds_what_float32_loses() -> None:
    """10,000 steps of 1e-8 from 1: each is below half the spacing of float32 and vanishes alone."""
    for opt, expected in ((optim.sgd(1e-8), 1.0), (optim.kahan(optim.sgd(1e-8)), 1 - 1e-4)):
        params, _ = run(opt, jnp.ones(()), jnp.ones(10_000))
        assert abs(float(params) - expected) <= 6e-8


def test_kahan_loses_no_bit_of_a_sum_of_any_sizes() -> None:
    """p' + c' = p + step exactly, whichever is larger, where c starts at 0 and is float32 (Knuth's theorem B)."""
    with float64():
        p = jnp.asarray(random(9, 4000) * 10.0 ** np.random.default_rng(1).integers(-6, 6, 4000), jnp.bfloat16)
        g = jnp.asarray(random(10, 4000) * 10.0 ** np.random.default_rng(2).integers(-6, 6, 4000), jnp.float32)
        opt = optim.kahan(optim.sgd(1.0), jnp.float32)
        updates, state = jax.jit(opt.update)(g, opt.init(p), p)
        new = optim.apply_updates(p, updates)
        found = np.asarray(new, np.float64) + np.asarray(state.compensation, np.float64)
        exact = np.asarray(p, np.float64) - np.asarray(g, np.float64)
        # (total - landed) and the error of the sum are each exact; their own sum is rounded to float32.
        assert (np.abs(found - exact) <= 2.0**-24 * np.abs(np.asarray(state.compensation, np.float64))).all()


@pytest.mark.parametrize("name", WRAPS)
def test_full_precision_parameters_take_the_plain_update(name: str) -> None:
    """In float64 too, where a compensation changes no more than the last place."""
    with float64():
        params, grads = jnp.asarray(random(11, 6)), jnp.asarray(random(12, 50, 6))
        found, _ = run(WRAPS[name](optim, optim.adam(0.01)), params, grads)
        expected, _ = run(optim.adam(0.01), params, grads)
        assert found.dtype == jnp.float64
        assert_close(found, expected, rtol=1e-7 if name == "kahan: float32" else 1e-14, atol=1e-16)


def test_state_holds_copies_and_compensations_of_the_right_kind() -> None:
    params = {"h": jnp.ones(2, jnp.bfloat16), "f": jnp.ones(2), "none": None}
    master = optim.master_weights(optim.sgd(0.1)).init(params).master
    assert master["h"].dtype == jnp.float32
    assert (master["f"], master["none"]) == (None, None)
    own = optim.kahan(optim.sgd(0.1)).init(params).compensation
    assert (own["h"].dtype, own["f"].dtype, own["none"]) == (jnp.bfloat16, jnp.float32, None)
    wide = optim.kahan(optim.sgd(0.1), jnp.float32).init(params).compensation
    assert wide["h"].dtype == wide["f"].dtype == jnp.float32


@pytest.mark.parametrize("name", WRAPS)
def test_a_missing_gradient_leaves_its_parameter_and_what_is_kept_of_it(name: str) -> None:
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16), "none": None}
    opt = WRAPS[name](optim, optim.sgd(0.5))
    start = opt.init(params)
    updates, state = opt.update({"w": jnp.ones(2), "b": None, "none": None}, start, params)
    assert (updates["b"], updates["none"]) == (None, None)
    assert_close(optim.apply_updates(params, updates)["w"], np.full(2, 0.5), rtol=0)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    updates, state = opt.update({"w": jnp.ones(2), "b": jnp.ones(2), "none": None}, state, params)
    assert optim.apply_updates(params, updates)["b"][0] == 0.5


@pytest.mark.parametrize("name", WRAPS)
def test_extra_arguments_and_an_empty_tree(name: str) -> None:
    opt = WRAPS[name](optim, optim.nesterov_lookahead(0.1))
    params = jnp.ones(1, jnp.bfloat16)
    updates, _ = opt.update(params, opt.init(params), params, grad_fn=lambda p: 2 * p)
    np.testing.assert_allclose(updates, [-0.2], atol=4e-3)
    assert opt.update({}, opt.init({}), {}, grad_fn=lambda p: p)[0] == {}


@pytest.mark.slow
def test_each_step_draws_anew_and_each_leaf_for_itself() -> None:
    params = {"a": jnp.full(64, 1.0, jnp.bfloat16), "b": jnp.full(64, 1.0, jnp.bfloat16)}
    grads = jax.tree.map(lambda p: jnp.full(64, 0.002), params)
    opt = optim.stochastic_rounding(optim.sgd(1.0), KEY)
    first, state = opt.update(grads, opt.init(params), params)
    second, _ = opt.update(grads, state, params)
    again, _ = opt.update(grads, opt.init(params), params)
    assert (first["a"] != first["b"]).any()
    assert (first["a"] != second["a"]).any()
    np.testing.assert_array_equal(first["a"], again["a"])


@pytest.mark.slow
def test_steps_unrolled_in_one_program_equal_steps_one_by_one() -> None:
    """XLA may keep float32 where a program rounds to bfloat16 and back; what is kept of a sum must not count twice."""
    for name in ("master_weights", "kahan"):
        opt = WRAPS[name](optim, optim.sgd(0.25))
        grads = jnp.asarray(random(13, 8, 100), jnp.float32) * 0.01
        start = jnp.asarray(random(14, 100), jnp.bfloat16)

        def unrolled(params: Any, grads: Any, opt: Any = opt) -> Any:
            state = opt.init(params)
            for g in grads:
                updates, state = opt.update(g, state, params)
                params = optim.apply_updates(params, updates)
            return params

        np.testing.assert_array_equal(jax.jit(unrolled)(start, grads), unrolled(start, grads))


@pytest.mark.parametrize("name", WRAPS)
def test_what_is_missing_is_named(name: str) -> None:
    rule = name.split(":")[0]
    opt = WRAPS[name](optim, optim.sgd(0.1))
    params = jnp.ones(1, jnp.bfloat16)
    with pytest.raises(ValueError, match=rf"{rule}: update needs the parameters"):
        opt.update(params, opt.init(params))
    with pytest.raises(TypeError, match=rf"{rule}: opt must be an optimizer with init and update, got 0.1"):
        WRAPS[name](optim, 0.1)
    with pytest.raises(ValueError, match="must have the structure"):
        opt.update({"w": params}, opt.init(params), params)


def test_a_key_may_be_raw_and_must_be_one() -> None:
    raw = optim.stochastic_rounding(optim.sgd(0.1), jax.random.PRNGKey(3)).init(jnp.ones(1)).key
    assert raw.tolist() == optim.stochastic_rounding(optim.sgd(0.1), 3).init(jnp.ones(1)).key.tolist() == [0, 3]
    with pytest.raises(TypeError, match="stochastic_rounding: key must be"):
        optim.stochastic_rounding(optim.sgd(0.1), jnp.zeros(2))


def error_of(library: Any, name: str) -> float:
    """How far 200 small steps end from their sum in float64, in the mean of 2,000 weights, as a share of the way."""
    grads = np.full((200, 2000), 1e-3, np.float32)
    start = jnp.asarray(random(15, 2000) * 0.3 + 1.0, jnp.bfloat16)
    params, _ = run(WRAPS[name](library, optim.sgd(1.0)), start, jnp.asarray(grads))
    exact = np.asarray(start, np.float64) - 0.2
    return float(abs((np.asarray(params, np.float64) - exact).mean())) / 0.2


BROKEN = [
    ("master_weights", "precision", "m = m + step", "m = accumulate(p) + step"),
    ("master_weights", "precision", "m = m + step", "m = m - step"),
    ("master_weights", "precision", "return rounded(m, p.dtype) - accumulate(p), m", "return step, m"),
    ("stochastic_rounding", "precision", "rounded_at_random(key, wide + step, p.dtype) - wide", "step"),
    ("kahan", "precision", "y = step + c.astype(step.dtype)", "y = step"),
    ("kahan", "precision", "y = step + c.astype(step.dtype)", "y = step - c.astype(step.dtype)"),
    ("kahan", "precision", "(total - landed) + lost", "(landed - total) + lost"),
    ("kahan", "precision", "landed = rounded(wide + change, p.dtype)", "landed = total"),
    ("kahan", "precision", "(wide - (total - back)) + (y - back)", "y"),
]
"""(wrapper, module, text in its source, text that breaks it)."""


@pytest.mark.parametrize("name", WRAPS)
def test_many_small_steps_arrive(name: str) -> None:
    assert error_of(optim, name) <= 0.005


@pytest.mark.parametrize(("name", "module", "old", "new"), BROKEN)
def test_a_broken_wrapper_does_not_arrive(name: str, module: str, old: str, new: str) -> None:
    assert error_of(mutated(module, old, new), name) > 0.01
