"""Every schedule of optax, at every step, and the settings for which we differ on purpose."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import schedules
from tests.helpers import slow, strict
from tests.schedules.cases import CASES, COSINE, LAST_COUNT, signature

NOT_SCHEDULES = {
    "inject_hyperparams": "wraps an optimizer: belongs to optim",
    "inject_stateful_hyperparams": "wraps an optimizer: belongs to optim",
    "InjectHyperparamsState": "state of an optimizer",
    "InjectStatefulHyperparamsState": "state of an optimizer",
    "StatefulSchedule": "a schedule with a state, used only by inject_stateful_hyperparams",
    "WrappedSchedule": "makes a StatefulSchedule of a schedule",
}
COUNTS = np.arange(LAST_COUNT)


def one_by_one(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The values at many counts under vmap: optax's interpolation takes no arrays of counts."""
    return jax.vmap(lambda count: jnp.asarray(schedule(count)))


@functools.cache
def all_values(of: str, x64: bool) -> list[np.ndarray]:
    """The values of all cases at steps 0 .. 59, compiled at once: by "optax" or by "ours"."""
    module = optax.schedules if of == "optax" else schedules
    with jax.enable_x64(x64), strict() if of != "optax" else contextlib.nullcontext():
        made = [getattr(module, name)(**settings) for name, settings in CASES]
        made = [one_by_one(schedule) for schedule in made] if of == "optax" else made
        return jax.device_get(jax.jit(lambda counts: [s(counts) for s in made])(COUNTS))


def assert_equals_optax(i: int, got: np.ndarray, *, x64: bool) -> None:
    """Values of case i are optax's at every step, to rtol, or to atol times the largest (where a cosine cancels)."""
    rtol, atol = (1e-12, 1e-15) if x64 else (1e-6, 1e-7)
    expected = all_values("optax", x64)[i]
    assert got.shape == COUNTS.shape
    assert got.dtype == (np.float64 if x64 else np.float32)
    np.testing.assert_allclose(got, expected, rtol, atol * np.max(np.abs(expected)), err_msg=str(CASES[i]))


@pytest.mark.parametrize("x64", [True, *slow(False)])
def test_equal_at_every_step(x64: bool) -> None:
    for i, got in enumerate(all_values("ours", x64)):
        assert_equals_optax(i, got, x64=x64)


def test_every_schedule_of_optax_is_here_with_its_signature_and_is_tested() -> None:
    public = {name for name in dir(optax.schedules) if not name.startswith("_")}
    assert public - set(NOT_SCHEDULES) <= set(schedules.__all__)
    assert set(NOT_SCHEDULES).isdisjoint(schedules.__all__)
    functions = public - set(NOT_SCHEDULES) - {"Schedule"}
    for name in functions:
        assert signature(getattr(schedules, name)) == signature(getattr(optax.schedules, name)), name
    assert functions - {name for name, _ in CASES} == {"join_schedules"}  # it takes schedules: tested below
    top_level = {
        name for name in dir(optax) if name.endswith(("_schedule", "_schedules")) or name == "exponential_decay"
    }
    assert top_level - {"scale_by_schedule"} <= set(schedules.__all__)


def test_join_equals_optax() -> None:
    def joined(module: Any) -> list[Any]:
        pieces = [
            module.linear_schedule(1.0, 0.5, 6),
            module.exponential_decay(0.5, 2, 0.5),
            module.constant_schedule(0.1),
        ]
        return [module.join_schedules(pieces, boundaries) for boundaries in ([4, 9], [0, 9], [4, 4])]

    expected = jax.jit(lambda counts: [one_by_one(s)(counts) for s in joined(optax)])(COUNTS)
    with strict():
        got = jax.jit(lambda counts: [s(counts) for s in joined(schedules)])(COUNTS)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_broken_schedule_is_found() -> None:
    last_case = {name: i for i, (name, _) in enumerate(CASES) if name != "constant_schedule"}
    assert len(last_case) == 12

    @jax.jit
    def broken(counts: Any) -> Any:
        made = {i: getattr(schedules, name)(**CASES[i][1]) for name, i in last_case.items()}
        return {i: {"late": s(jnp.maximum(counts - 1, 0)), "large": s(counts) * 1.00001} for i, s in made.items()}

    with jax.enable_x64(True):
        found = jax.device_get(broken(COUNTS))
    for i, values in found.items():
        for got in values.values():
            with pytest.raises(AssertionError, match="Not equal to tolerance"):
                assert_equals_optax(i, got, x64=True)


MUTANTS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "cosine without the half": (
        "cosine_decay_schedule",
        {"init_value": 0.3, "decay_steps": 10},
        lambda init_value, decay_steps: (
            lambda t: init_value * (1 + jnp.cos(jnp.pi * jnp.minimum(t, decay_steps) / decay_steps))
        ),
    ),
    "decay_steps counted from the end of the warm-up": (
        "warmup_cosine_decay_schedule",
        COSINE,
        lambda **kw: schedules.warmup_cosine_decay_schedule(
            **{**kw, "decay_steps": kw["decay_steps"] + kw["warmup_steps"]}
        ),
    ),
    "no delay": (
        "exponential_decay",
        {"init_value": 0.5, "transition_steps": 4, "decay_rate": 0.7, "transition_begin": 5},
        lambda **kw: schedules.exponential_decay(**{**kw, "transition_begin": 0}),
    ),
    "a jump one step late": (
        "piecewise_constant_schedule",
        {"init_value": 0.3, "boundaries_and_scales": {3: 0.5}},
        lambda init_value, boundaries_and_scales: schedules.piecewise_constant_schedule(init_value, {4: 0.5}),
    ),
    "restarts that count from step 0": (
        "sgdr_schedule",
        {"cosine_kwargs": [COSINE, COSINE]},
        lambda cosine_kwargs: lambda t: schedules.warmup_cosine_decay_schedule(**COSINE)(t),
    ),
}


def test_mutants_are_found() -> None:
    @jax.jit
    def both(counts: Any) -> Any:
        return {
            mutant: (broken(**settings)(counts), one_by_one(getattr(optax.schedules, name)(**settings))(counts))
            for mutant, (name, settings, broken) in MUTANTS.items()
        }

    for mutant, (got, expected) in jax.device_get(both(COUNTS)).items():
        assert not np.allclose(got, expected, rtol=1e-6, atol=1e-7 * np.max(np.abs(expected))), mutant


def test_where_we_differ_a_warmup_of_no_steps() -> None:
    theirs, ours = (jax.jit(module.warmup_constant_schedule(0.0, 0.1, 0)) for module in (optax, schedules))
    assert theirs(5) == 0
    assert ours(5) == ours(0) == np.float32(0.1)


def test_where_we_differ_a_transition_of_no_steps() -> None:
    assert float(optax.linear_schedule(1.0, 0.0, 0)(5)) == 1.0
    with pytest.raises(
        ValueError, match=r"linear_schedule: transition_steps must be finite and > 0, got 0\. .*constant"
    ):
        schedules.linear_schedule(1.0, 0.0, 0)


def test_where_we_differ_join_with_a_missing_boundary() -> None:
    pieces = [optax.constant_schedule(v) for v in (1.0, 2.0, 3.0)]
    assert float(optax.join_schedules(pieces, [2])(50)) == 2.0
    with pytest.raises(ValueError, match="3 schedules and 1 boundaries"):
        schedules.join_schedules(pieces, [2])


@pytest.mark.slow
def test_where_we_differ_one_cycle_phases_that_end_together() -> None:
    # The phases are peak/4 -> peak -> peak/4 -> peak/20; with pct_final = 1 the last is a jump.
    settings = {"div_factor": 4.0, "final_div_factor": 5.0, "pct_final": 1.0}
    assert float(optax.linear_onecycle_schedule(10, 1.0, **settings)(10)) == pytest.approx(1 / 5)
    ours = schedules.linear_onecycle_schedule(10, 1.0, **settings)
    np.testing.assert_allclose(ours(jnp.array([0, 3, 9, 10, 20])), [0.25, 1.0, 0.25 + 0.75 / 7, 0.05, 0.05], rtol=1e-6)
    settings = {"div_factor": 4.0, "final_div_factor": 5.0, "pct_start": 1.0}
    assert float(optax.cosine_onecycle_schedule(10, 1.0, **settings)(10)) == pytest.approx(0.25 / 20)
    ours = schedules.cosine_onecycle_schedule(10, 1.0, **settings)
    np.testing.assert_allclose(ours(jnp.array([0, 5, 10])), [0.25, 0.625, 0.05], rtol=1e-6)


def test_where_we_differ_staircase_is_exact() -> None:
    count, steps = (
        np.int32(16 * 5592407 - 1),
        5592407,
    )  # one step before the 16th jump; the quotient rounds up to 16 in float32
    decays = [module.exponential_decay(1.0, steps, 0.5, staircase=True) for module in (optax, schedules)]
    theirs, ours = jax.jit(lambda count: [decay(count) for decay in decays])(count)
    assert (float(theirs), float(ours)) == (2.0**-16, 2.0**-15)


def test_a_fractional_power_is_exact_at_its_end_when_compiled() -> None:
    """With XLA's optimizations, which these tests leave out, optax's own is NaN there for some lengths."""
    settings = {"init_value": 0.5, "end_value": 0.02, "power": 1.7, "transition_steps": 9}
    got = jax.jit(schedules.polynomial_schedule(**settings))(COUNTS)
    np.testing.assert_allclose(got[9:], 0.02, rtol=1e-6)
