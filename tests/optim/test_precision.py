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
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.mutants import mutated
from tests.optim.running import along, traced

HALVES = (jnp.bfloat16, jnp.float16)
KEY = 3
WRAPS: dict[str, Callable[[Any, Any], optim.Optimizer]] = {
    "master_weights": lambda library, opt: library.master_weights(opt),
    "stochastic_rounding": lambda library, opt: library.stochastic_rounding(opt, KEY),
    "kahan": lambda library, opt: library.kahan(opt),
    "kahan: float32": lambda library, opt: library.kahan(opt, jnp.float32),
}


def run(opt: optim.Optimizer, params: Any, grads: Any) -> tuple[Any, Any]:
    """The parameters and state after a step for each row of gradients, scanned in one compiled program."""
    _, found, state = along(opt, params, grads)
    return jax.tree.map(lambda p: p[-1], found), state


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
def test_weights_take_a_hundred_small_steps(dtype: Any) -> None:
    """They start at 1, gradient 1; alone the rule leaves them there, which is what the wrappers are for.

    Each randomly rounded step adds variance (w - a) (b - w) <= (2^-8)^2 / 4 below 1: the mean of 10,000 is good to 5
    sigma.
    """
    adam = optim.adam(1e-3)
    opts = {"alone": adam, **{name: wrap(optim, adam) for name, wrap in WRAPS.items()}}

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        moved = {}
        for name, opt in opts.items():
            params, state = carry[name]
            updates, state = opt.update(jnp.ones_like(params), state, params)
            moved[name] = optim.apply_updates(params, updates), state
        return moved, None

    ones = {name: np.ones(10_000 if name == "stochastic_rounding" else 1, dtype) for name in opts}

    @jax.jit
    def run(params: Any) -> Any:
        start = {name: (params[name], opt.init(params[name])) for name, opt in opts.items()}
        return jax.lax.scan(body, start, length=100)[0]

    weights = {name: np.asarray(params, np.float64) for name, (params, _) in run(ones).items()}
    means = {name: found.mean() for name, found in weights.items() if name != "alone"}
    assert all(abs(mean - 0.9) <= 0.005 for mean in means.values()), means
    if dtype != jnp.bfloat16:
        return
    assert (weights["alone"] == 1).all()
    found = weights["stochastic_rounding"]
    sigma = math.sqrt(100 * (2**-8) ** 2 / 4 / 10_000)
    assert abs(found.mean() - 0.9) <= 5 * sigma
    assert 0.2 * sigma < found.std() / 100 <= sigma  # spread out: independent draws


@pytest.mark.slow
@pytest.mark.parametrize("grads_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("params_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("name", WRAPS)
def test_runs_under_scan_for_half_and_single_precision(name: str, params_dtype: Any, grads_dtype: Any) -> None:
    params = {"w": np.ones((3, 2), params_dtype), "b": np.ones((), params_dtype), "none": None}
    params["mixed"] = np.ones(2, np.float32)
    grads = jax.tree.map(lambda p: np.ones((100, *p.shape), grads_dtype), params)
    opt = WRAPS[name](optim, optim.adamw(1e-3, weight_decay=0.0))
    with strict():
        params, state = run(opt, params, grads)
    assert {str(p.dtype) for p in jax.tree.leaves(params)} == {str(jnp.dtype(params_dtype)), "float32"}
    assert state.inner_state.mu["w"].dtype == jnp.float32
    spread = 0.05 if name == "stochastic_rounding" else 0.005
    assert_close(params, jax.tree.map(lambda p: np.full(p.shape, 0.9), params), rtol=0, atol=spread)


@pytest.mark.parametrize("name", ["kahan", *slow("master_weights", "stochastic_rounding", "kahan: float32")])
def test_the_second_moment_of_a_half_precision_parameter_decays(name: str) -> None:
    grads = np.where(np.arange(3000) < 1000, 1, 0).astype(jnp.bfloat16)
    _, state = run(WRAPS[name](optim, optim.adam(1e-3)), np.ones((), jnp.bfloat16), grads)
    assert abs(state.inner_state.nu - 0.0856) <= 0.01 * 0.0856


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
def test_params_and_update_are_the_rounded_master(dtype: Any) -> None:
    grads, start = random(0, 200, 100, dtype=np.float32), random(1, 100, dtype=dtype)
    opt = optim.master_weights(optim.adam(1e-2))

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = opt.update(g, state, params)
        assert updates.dtype == jnp.float32
        params = optim.apply_updates(params, updates)
        return (params, state), (params, state.master)

    params, master = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), grads)[1])(start)
    np.testing.assert_array_equal(params, np.asarray(master).astype(dtype))
    exact, _ = run(optim.adam(1e-2), start.astype(np.float32), grads)
    assert_close(master[-1], exact, rtol=1e-5, atol=1e-6)  # what float32 training gives


def test_parameters_changed_from_outside_return_to_the_master() -> None:
    opt, params = optim.master_weights(optim.sgd(0.5)), np.array([1.0, -2.0, 300.0], jnp.bfloat16)
    zeros = np.zeros(3, jnp.bfloat16)
    updates, _ = jax.jit(lambda p: opt.update(np.zeros(3, np.float32), opt.init(p), zeros))(params)
    np.testing.assert_array_equal(optim.apply_updates(zeros, updates), params)


def test_a_weight_that_collapses_lands_on_the_master_within_two_steps() -> None:
    """From 1 to 2^-30 no float32 update leads exactly; the next step does."""
    opt = optim.master_weights(optim.stateless(lambda updates, params: updates))
    params: Any = np.ones((), jnp.bfloat16)
    state, update = opt.init(params)._replace(master=np.float32(2.0**-30)), jax.jit(opt.update)
    for expected in (0.0, 2.0**-30):
        updates, state = update(np.float32(0), state, params)
        params = optim.apply_updates(params, updates)
        assert float(params) == expected


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
def test_stochastic_rounding_lands_on_a_neighbour_exactly(dtype: Any) -> None:
    """apply_updates adds the float32 update and must find the drawn value, with nothing left to round."""
    params = random(2, 5000, dtype=dtype)
    grads = (random(3, 5000) * 10.0 ** np.random.default_rng(4).integers(-8, 3, 5000)).astype(np.float32)
    updates, _, _ = along(optim.stochastic_rounding(optim.sgd(1.0), KEY), params, grads[None])
    total = params.astype(np.float32) + updates[0]
    np.testing.assert_array_equal(total.astype(dtype).astype(np.float32), total)
    exact = params.astype(np.float32) - grads
    spacing = np.spacing(np.abs(exact)) * 2.0 ** (23 - jnp.finfo(dtype).nmant)
    assert (np.abs(total - exact) < np.maximum(spacing, float(jnp.finfo(dtype).smallest_subnormal))).all()


VALUES = np.float32([1.001, -1.003, 0.9999, 3.14159, 7e-6, 1000.3, -0.007, 1e-7])


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_at_random_is_unbiased(dtype: Any) -> None:
    """The mean of n draws between neighbours a and b has deviation at most (b - a) / 2 / sqrt(n)."""
    n = 100_000
    drawn = jax.jit(jax.vmap(lambda x: rounded_at_random(jax.random.key(0), jnp.full(n, x), dtype)))(VALUES)
    for x, draws in zip(VALUES, np.asarray(drawn, np.float64), strict=True):
        levels = np.unique(draws)
        assert len(levels) == 2, x
        assert levels[0] < x < levels[1]
        np.testing.assert_array_equal(levels.astype(dtype).astype(np.float64), levels)
        gap = levels[1] - levels[0]
        assert abs(draws.mean() - x) <= 5 * gap / 2 / math.sqrt(n), x
        assert abs(np.diff(levels.astype(dtype).view(np.int16))) == 1, x


@pytest.mark.slow
def test_rounding_at_random_keeps_what_needs_no_rounding() -> None:
    x = np.float32([0.0, 1.0, -2.5, 2.0**100, np.inf, -np.inf, np.nan])
    found = jax.jit(lambda x: rounded_at_random(jax.random.key(KEY), x, jnp.bfloat16))(x)
    np.testing.assert_array_equal(np.asarray(found, np.float32), x)


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_to_the_nearest_is_a_cast_there_and_back(dtype: Any) -> None:
    """Float16's subnormal numbers, ties and overflow too; NumPy's cast is never dropped."""
    x = random(5, 20_000) * 10.0 ** np.random.default_rng(6).uniform(-12, 6, 20_000)
    x = np.float32([*x, 0.0, 1.00390625, 1.01171875, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 3e-8])
    with np.errstate(over="ignore", under="ignore"):
        expected = x.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(rounded, static_argnums=1)(x, dtype), expected)


@pytest.mark.parametrize("kept", [None, *slow(jnp.float32)])
def test_kahan_follows_the_sum_in_float64(kept: Any) -> None:
    """p + c is the sum of all steps. A bfloat16 c is rounded by at most 2^-16 a step for |p| < 4: 5 sigma are 8e-4."""
    grads = random(7, 300, 200, dtype=np.float32) * np.float32(1e-3)
    start = random(8, 200, dtype=jnp.bfloat16)
    params, state = run(optim.kahan(optim.sgd(1.0), kept), start, grads)
    exact = np.asarray(start, np.float64) - grads.astype(np.float64).sum(0)
    reached = np.asarray(params, np.float64) + np.asarray(state.compensation, np.float64)
    assert np.abs(reached - exact).max() <= (1e-6 if kept else 8e-4)
    assert (np.abs(np.asarray(params, np.float64) - reached) <= 2**-8 * np.abs(reached)).all()


def test_kahan_in_float32_adds_what_float32_loses() -> None:
    """10,000 steps of 1e-8 from 1: each is below half the spacing of float32 and vanishes alone."""
    for opt, expected in ((optim.sgd(1e-8), 1.0), (optim.kahan(optim.sgd(1e-8)), 1 - 1e-4)):
        params, _ = run(opt, np.float32(1), np.ones(10_000, np.float32))
        assert abs(float(params) - expected) <= 6e-8


def test_kahan_loses_no_bit_of_a_sum_of_any_sizes() -> None:
    """p' + c' = p + step exactly, whichever is larger, where c starts at 0 and is float32 (Knuth's theorem B)."""
    with float64():
        p = (random(9, 4000) * 10.0 ** np.random.default_rng(1).integers(-6, 6, 4000)).astype(jnp.bfloat16)
        g = (random(10, 4000) * 10.0 ** np.random.default_rng(2).integers(-6, 6, 4000)).astype(np.float32)
        new, state = run(optim.kahan(optim.sgd(1.0), jnp.float32), p, g[None])
        found = np.asarray(new, np.float64) + np.asarray(state.compensation, np.float64)
        exact = np.asarray(p, np.float64) - np.asarray(g, np.float64)
        # (total - landed) and the error of the sum are each exact; their own sum is rounded to float32.
        assert (np.abs(found - exact) <= 2.0**-24 * np.abs(np.asarray(state.compensation, np.float64))).all()


@pytest.mark.parametrize("name", ["master_weights", "kahan", *slow("stochastic_rounding", "kahan: float32")])
def test_full_precision_parameters_take_the_plain_update(name: str) -> None:
    """In float64 too, where a compensation changes no more than the last place."""
    with float64():
        params, grads = random(11, 6), random(12, 50, 6)
        found, _ = run(WRAPS[name](optim, optim.adam(0.01)), params, grads)
        expected, _ = run(optim.adam(0.01), params, grads)
        assert found.dtype == jnp.float64
        assert_close(found, expected, rtol=1e-7 if name == "kahan: float32" else 1e-14, atol=1e-16)


@traced
def test_state_holds_copies_and_compensations_of_the_right_kind() -> None:
    params = {"h": np.ones(2, jnp.bfloat16), "f": np.ones(2, np.float32), "none": None}
    master = optim.master_weights(optim.sgd(0.1)).init(params).master
    assert master["h"].dtype == jnp.float32
    assert (master["f"], master["none"]) == (None, None)
    own = optim.kahan(optim.sgd(0.1)).init(params).compensation
    assert (own["h"].dtype, own["f"].dtype, own["none"]) == (jnp.bfloat16, jnp.float32, None)
    wide = optim.kahan(optim.sgd(0.1), jnp.float32).init(params).compensation
    assert wide["h"].dtype == wide["f"].dtype == jnp.float32


def test_a_missing_gradient_leaves_its_parameter_and_what_is_kept_of_it() -> None:
    ones = np.ones(2, np.float32)

    @jax.jit
    def both(params: Any) -> Any:
        found = {}
        for name, wrap in WRAPS.items():
            opt = wrap(optim, optim.sgd(0.5))
            start = opt.init(params)
            updates, state = opt.update({"w": ones, "b": None, "none": None}, start, params)
            assert (updates["b"], updates["none"]) == (None, None)
            assert jax.tree.structure(state) == jax.tree.structure(start)
            after, _ = opt.update({"w": ones, "b": ones, "none": None}, state, params)
            found[name] = optim.apply_updates(params, updates)["w"], optim.apply_updates(params, after)["b"]
        return found

    found = both({"w": np.ones(2, jnp.bfloat16), "b": np.ones(2, jnp.bfloat16), "none": None})
    for name, moved in found.items():
        np.testing.assert_array_equal(np.asarray(moved, np.float32), 0.5, err_msg=name)


def test_extra_arguments_and_an_empty_tree() -> None:
    opts = {name: wrap(optim, optim.nesterov_lookahead(0.1)) for name, wrap in WRAPS.items()}

    @jax.jit
    def updates(params: Any) -> Any:
        return {n: o.update(params, o.init(params), params, grad_fn=lambda p: 2 * p)[0] for n, o in opts.items()}

    for name, found in updates(np.ones(1, jnp.bfloat16)).items():
        np.testing.assert_allclose(np.asarray(found, np.float32), [-0.2], atol=4e-3, err_msg=name)
        assert opts[name].update({}, opts[name].init({}), {}, grad_fn=lambda p: p)[0] == {}


@pytest.mark.slow
def test_each_step_draws_anew_and_each_leaf_for_itself() -> None:
    params = {"a": np.ones(64, jnp.bfloat16), "b": np.ones(64, jnp.bfloat16)}
    grads = jax.tree.map(lambda p: np.full(64, 0.002, np.float32), params)
    opt = optim.stochastic_rounding(optim.sgd(1.0), KEY)
    update = jax.jit(opt.update)
    first, state = jax.device_get(update(grads, opt.init(params), params))
    second, again = (jax.device_get(update(grads, s, params)[0]) for s in (state, opt.init(params)))
    assert (first["a"] != first["b"]).any()
    assert (first["a"] != second["a"]).any()
    np.testing.assert_array_equal(first["a"], again["a"])


@pytest.mark.slow
def test_steps_unrolled_in_one_program_equal_steps_one_by_one() -> None:
    """XLA may keep float32 where a program rounds to bfloat16 and back; what is kept of a sum must not count twice."""
    for name in ("master_weights", "kahan"):
        opt = WRAPS[name](optim, optim.sgd(0.25))
        grads = random(13, 8, 100, dtype=np.float32) * np.float32(0.01)
        start = random(14, 100, dtype=jnp.bfloat16)

        def unrolled(params: Any, grads: Any, opt: Any = opt) -> Any:
            state = opt.init(params)
            for g in grads:
                updates, state = opt.update(g, state, params)
                params = optim.apply_updates(params, updates)
            return params

        np.testing.assert_array_equal(jax.jit(unrolled)(start, grads), unrolled(start, grads))


@pytest.mark.parametrize("name", WRAPS)
@traced
def test_what_is_missing_is_named(name: str) -> None:
    rule = name.split(":")[0]
    opt = WRAPS[name](optim, optim.sgd(0.1))
    params = np.ones(1, jnp.bfloat16)
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
    """How far 200 small steps end from their sum in float64, in the mean of many weights, as a share of the way."""
    weights = 2000 if name == "stochastic_rounding" else 400
    grads = np.full((200, weights), 1e-3, np.float32)
    start = (random(15, weights) * 0.3 + 1.0).astype(jnp.bfloat16)
    params, _ = run(WRAPS[name](library, optim.sgd(1.0)), start, grads)
    exact = np.asarray(start, np.float64) - 0.2
    return float(abs((np.asarray(params, np.float64) - exact).mean())) / 0.2


BROKEN = [
    ("master_weights", "precision", "m = m + step", "m = accumulate(p) + step"),
    ("kahan", "precision", "y = step + c.astype(step.dtype)", "y = step"),
    ("stochastic_rounding", "precision", "rounded_at_random(key, wide + step, p.dtype) - wide", "step"),
    ("master_weights", "precision", "m = m + step", "m = m - step"),
    ("master_weights", "precision", "return rounded(m, p.dtype) - accumulate(p), m", "return step, m"),
    ("kahan", "precision", "y = step + c.astype(step.dtype)", "y = step - c.astype(step.dtype)"),
    ("kahan", "precision", "(total - landed) + lost", "(landed - total) + lost"),
    ("kahan", "precision", "landed = rounded(wide + change, p.dtype)", "landed = total"),
    ("kahan", "precision", "(wide - (total - back)) + (y - back)", "y"),
]
"""(wrapper, module, text in its source, text that breaks it); the short run takes the first two."""


@pytest.mark.parametrize("name", ["master_weights", "kahan", *slow("stochastic_rounding", "kahan: float32")])
def test_many_small_steps_arrive(name: str) -> None:
    assert error_of(optim, name) <= 0.005


@pytest.mark.parametrize(("name", "module", "old", "new"), [*BROKEN[:2], *slow(*BROKEN[2:])])
def test_a_broken_wrapper_does_not_arrive(name: str, module: str, old: str, new: str) -> None:
    assert error_of(mutated(module, old, new), name) > 0.01
