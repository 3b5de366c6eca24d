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
from tests.helpers import strict
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


def optax_values(schedule: Callable[[Any], Any]) -> np.ndarray:
    """optax's values at steps 0 .. 59, one at a time under vmap: its interpolation takes no arrays of counts."""
    return np.asarray(jax.jit(jax.vmap(lambda count: jnp.asarray(schedule(count))))(jnp.asarray(COUNTS)))


@functools.cache
def all_values(of: str, x64: bool) -> list[np.ndarray]:
    """The values of all cases, compiled at once: by "optax", by "ours", or by a broken version of ours."""

    def schedule(name: str, settings: dict[str, Any]) -> Callable[[Any], Any]:
        made = getattr(optax.schedules if of == "optax" else schedules, name)(**settings)
        if of == "one step late":
            return lambda count: made(jnp.maximum(count - 1, 0))
        if of == "too large":
            return lambda count: made(count) * 1.00001
        if of == "ours":
            return made
        return jax.vmap(lambda count: jnp.asarray(made(count)))

    with jax.enable_x64(x64), strict() if of != "optax" else contextlib.nullcontext():
        counts = jnp.asarray(COUNTS)
        made = [schedule(name, settings) for name, settings in CASES]
        return [np.asarray(v) for v in jax.jit(lambda counts: [s(counts) for s in made])(counts)]


def assert_case_equals(i: int, of: str, *, x64: bool) -> None:
    """Ours and optax's agree at every step, to rtol, or to atol times the largest value (where a cosine cancels)."""
    rtol, atol = (1e-12, 1e-15) if x64 else (1e-6, 1e-7)
    expected, got = all_values("optax", x64)[i], all_values(of, x64)[i]
    assert got.shape == COUNTS.shape
    assert got.dtype == (np.float64 if x64 else np.float32)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol * np.max(np.abs(expected)))


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("i", range(len(CASES)), ids=[name for name, _ in CASES])
def test_equal_at_every_step(i: int, x64: bool) -> None:
    assert_case_equals(i, "ours", x64=x64)


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


@pytest.mark.parametrize("boundaries", [[4, 9], [0, 9], [4, 4]])
def test_join_equals_optax(boundaries: list[int]) -> None:
    def pieces(module: Any) -> list[Any]:
        return [
            module.linear_schedule(1.0, 0.5, 6),
            module.exponential_decay(0.5, 2, 0.5),
            module.constant_schedule(0.1),
        ]

    expected = optax_values(optax.join_schedules(pieces(optax), boundaries))
    with strict():
        got = schedules.join_schedules(pieces(schedules), boundaries)(jnp.asarray(COUNTS))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("of", ["one step late", "too large"])
def test_a_broken_schedule_is_found(of: str) -> None:
    last_case = {name: i for i, (name, _) in enumerate(CASES) if name != "constant_schedule"}
    assert len(last_case) == 12
    for i in last_case.values():
        with pytest.raises(AssertionError):
            assert_case_equals(i, of, x64=False)


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


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_found(mutant: str) -> None:
    name, settings, broken = MUTANTS[mutant]
    expected = optax_values(getattr(optax.schedules, name)(**settings))
    got = np.asarray(jax.jit(broken(**settings))(jnp.asarray(COUNTS)))
    assert not np.allclose(got, expected, rtol=1e-6, atol=1e-7 * np.max(np.abs(expected)))


def test_where_we_differ_a_warmup_of_no_steps() -> None:
    assert float(optax.warmup_constant_schedule(0.0, 0.1, 0)(5)) == 0.0
    assert float(schedules.warmup_constant_schedule(0.0, 0.1, 0)(5)) == np.float32(0.1)
    assert float(schedules.warmup_constant_schedule(0.0, 0.1, 0)(0)) == np.float32(0.1)


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
    count, steps = 16 * 5592407 - 1, 5592407  # one step before the 16th jump; the quotient rounds up to 16 in float32
    assert float(optax.exponential_decay(1.0, steps, 0.5, staircase=True)(jnp.asarray(count))) == 2.0**-16
    assert float(schedules.exponential_decay(1.0, steps, 0.5, staircase=True)(count)) == 2.0**-15


def test_a_fractional_power_is_exact_at_its_end_when_compiled() -> None:
    """With XLA's optimizations, which these tests leave out, optax's own is NaN there for some lengths."""
    settings = {"init_value": 0.5, "end_value": 0.02, "power": 1.7, "transition_steps": 9}
    got = jax.jit(schedules.polynomial_schedule(**settings))(jnp.asarray(COUNTS))
    np.testing.assert_allclose(got[9:], 0.02, rtol=1e-6)
