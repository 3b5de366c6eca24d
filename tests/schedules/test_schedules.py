"""Traced settings, dtypes, gradients, exact counts, the batch-size rule, and errors that say what to do."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import schedules
from tests.helpers import float64, slow, strict
from tests.schedules.cases import CASES, COSINE

COUNTS = np.arange(25, dtype=np.int32)

TRACED: list[tuple[str, dict[str, tuple[Any, ...]], dict[str, Any]]] = [
    ("constant_schedule", {"value": (0.1, 0.2)}, {}),
    (
        "linear_schedule",
        {"init_value": (1.0, 0.2), "end_value": (0.1, 0.9), "transition_steps": (5, 9), "transition_begin": (0, 3)},
        {},
    ),
    (
        "polynomial_schedule",
        {"init_value": (1.0, 0.2), "power": (1.0, 2.5), "transition_steps": (5, 9), "transition_begin": (0, 3)},
        {"end_value": 0.1},
    ),
    (
        "exponential_decay",
        {
            "init_value": (1.0, 0.2),
            "transition_steps": (5, 3),
            "decay_rate": (0.5, 1.5),
            "transition_begin": (0, 3),
            "end_value": (0.3, 0.4),
        },
        {"staircase": True},
    ),
    ("exponential_decay", {"transition_steps": (5.0, 3.0), "decay_rate": (0.5, 0.9)}, {"init_value": 1.0}),
    (
        "cosine_decay_schedule",
        {"init_value": (1.0, 0.2), "decay_steps": (5, 9), "alpha": (0.0, 0.1), "exponent": (1.0, 2.0)},
        {},
    ),
    ("piecewise_constant_schedule", {"init_value": (1.0, 0.2)}, {"boundaries_and_scales": {3: 0.5, 9: 0.1}}),
    (
        "piecewise_interpolate_schedule",
        {"init_value": (1.0, 0.2)},
        {"interpolate_type": "cosine", "boundaries_and_scales": {3: 0.5}},
    ),
    (
        "linear_onecycle_schedule",
        {"transition_steps": (20, 12), "peak_value": (1.0, 2.0), "pct_start": (0.26, 0.26), "div_factor": (4.0, 10.0)},
        {},
    ),
    (
        "cosine_onecycle_schedule",
        {"transition_steps": (20, 12), "peak_value": (1.0, 2.0), "final_div_factor": (4.0, 10.0)},
        {"pct_start": 0.26},
    ),
    ("warmup_constant_schedule", {"peak_value": (1.0, 0.2), "warmup_steps": (4, 0)}, {"init_value": 0.0}),
    (
        "warmup_cosine_decay_schedule",
        {"peak_value": (1.0, 0.0), "warmup_steps": (4, 0), "decay_steps": (9, 6), "end_value": (0.1, 0.2)},
        {"init_value": 0.0},
    ),
    (
        "warmup_exponential_decay_schedule",
        {"peak_value": (1.0, 0.2), "warmup_steps": (4, 0), "transition_steps": (3, 2), "decay_rate": (0.5, 0.9)},
        {"init_value": 0.0},
    ),
]


def test_vmap_over_settings_equals_a_loop() -> None:
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def sweep(traced: list[dict[str, jax.Array]]) -> list[jax.Array]:
        return [
            jax.vmap(lambda one, name=name, fixed=fixed: getattr(schedules, name)(**one, **fixed)(COUNTS))(each)
            for (name, _, fixed), each in zip(TRACED, traced, strict=True)
        ]

    @jax.jit
    def loop(counts: jax.Array) -> list[list[jax.Array]]:
        return [
            [getattr(schedules, name)(**{k: v[i] for k, v in settings.items()}, **fixed)(counts) for i in range(2)]
            for name, settings, fixed in TRACED
        ]

    def column(values: tuple[Any, ...]) -> np.ndarray:
        return np.array(values, np.float32 if isinstance(values[0], float) else np.int32)

    def columns(order: int) -> list[dict[str, np.ndarray]]:
        return [{k: column(v[::order]) for k, v in settings.items()} for _, settings, _ in TRACED]

    with strict():
        got = sweep(columns(1))
        sweep(columns(-1))
    for (name, _, _), found, expected in zip(TRACED, got, loop(COUNTS), strict=True):
        np.testing.assert_allclose(found, np.stack(expected), rtol=2e-6, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_restarts_and_joins_take_traced_lengths() -> None:
    def values(steps: Any) -> Any:
        cycle = {**COSINE, "decay_steps": steps}
        return schedules.sgdr_schedule([cycle, cycle])(COUNTS)

    with strict():
        got = jax.jit(jax.vmap(values))(jnp.array([7, 9]))
    np.testing.assert_allclose(got, jax.jit(lambda: jnp.stack([values(7), values(9)]))(), rtol=2e-6, atol=1e-8)


def test_traced_factors() -> None:
    with strict():
        got = jax.jit(lambda s: schedules.piecewise_constant_schedule(1.0, {2: s, 4: s})(COUNTS[:6]))(np.float32(0.5))
    np.testing.assert_allclose(got, [1, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.slow
def test_gradients_are_finite_and_right() -> None:
    @jax.jit
    def value(peak: jax.Array, warmup: jax.Array, rate: jax.Array) -> jax.Array:
        pieces = [
            schedules.warmup_cosine_decay_schedule(0.0, peak, warmup, 9, end_value=0.1 * peak),
            schedules.warmup_exponential_decay_schedule(0.0, peak, warmup, 3, rate, end_value=0.01),
        ]
        return jnp.sum(pieces[0](COUNTS)) + jnp.sum(pieces[1](COUNTS))

    gradient = jax.jit(jax.grad(value, argnums=(0, 1, 2)))
    for warmup in (0.0, 4.0):
        at = (jnp.asarray(0.5), jnp.asarray(warmup), jnp.asarray(0.7))
        grads = gradient(*at)
        assert all(bool(jnp.isfinite(g)) for g in grads)
    with float64():
        at = np.array([0.5, 4.0, 0.7])
        exact = gradient(*at)
        for i in (0, 2):
            step = np.eye(3)[i] * 1e-6
            numeric = (value(*(at + step)) - value(*(at - step))) / 2e-6
            np.testing.assert_allclose(exact[i], numeric, rtol=1e-7)


def test_values_are_float32_by_default_for_any_count() -> None:
    made = [getattr(schedules, name)(**settings) for name, settings in CASES]
    with strict():
        numbers, grids = jax.eval_shape(
            lambda grid: ([s(3) for s in made], [s(grid) for s in made]), jax.ShapeDtypeStruct((2, 2), jnp.uint8)
        )
    for (name, _), one, many in zip(CASES, numbers, grids, strict=True):
        assert (one.dtype, one.shape, one.weak_type) == (jnp.float32, (), False), name
        assert (many.dtype, many.shape) == (jnp.float32, (2, 2)), name


@pytest.mark.parametrize("name", ["linear_schedule", *slow("cosine_decay_schedule", "warmup_cosine_decay_schedule")])
def test_dtype_follows_the_parameters(name: str) -> None:
    for settings in (settings for n, settings in CASES if n == name):

        def made(dtype: Any, settings: Any = settings) -> Any:
            arrays = {k: jnp.asarray(v, dtype) if isinstance(v, float) else v for k, v in settings.items()}
            return getattr(schedules, name)(**arrays)

        with strict():
            assert jax.eval_shape(made(jnp.bfloat16), jnp.int32(2)).dtype == jnp.float32
            assert jax.eval_shape(made(jnp.float16), 2).dtype == jnp.float32
            with float64():
                assert jax.eval_shape(made(jnp.float64), jnp.int32(2)).dtype == jnp.float64
                assert jax.eval_shape(made(jnp.float32), 2).dtype == jnp.float32
                assert jax.eval_shape(getattr(schedules, name)(**settings), 2).dtype == jnp.float64


@pytest.mark.slow
def test_mixed_dtypes_take_the_widest() -> None:
    with float64(), strict():
        schedule = schedules.linear_schedule(jnp.float64(1.0), jnp.float32(0.5), jnp.int32(4))
        assert schedule(jnp.int64(1)).dtype == jnp.float64
        onecycle = schedules.cosine_onecycle_schedule(8, jnp.float32(1.0), div_factor=jnp.float64(4.0))
        assert onecycle(jnp.int32(0)).dtype == jnp.float64
        np.testing.assert_allclose(onecycle(0), 0.25)


@pytest.mark.slow
def test_counts_are_exact_beyond_2_to_the_24() -> None:
    begin = 2**24
    got = schedules.linear_schedule(8.0, 0.0, 8, begin)(begin + jnp.arange(9))
    np.testing.assert_array_equal(got, np.arange(8, -1, -1))
    joined = schedules.join_schedules([lambda t: 0.0, lambda t: t * 1.0], [begin])
    np.testing.assert_array_equal(joined(begin + jnp.arange(-1, 3)), [0, 0, 1, 2])
    path = schedules.piecewise_interpolate_schedule("linear", 1.0, {begin: 8.0, begin + 8: 0.0})
    np.testing.assert_array_equal(path(begin + jnp.arange(9)), np.arange(8, -1, -1))


def test_join_gives_no_piece_a_negative_count_and_takes_plain_functions() -> None:
    def inverse_sqrt(count: Any) -> Any:
        return jnp.where(jnp.min(count) < 0, jnp.nan, 1.0 / jnp.sqrt(count + 1.0))

    joined = schedules.join_schedules([lambda count: 2.0, inverse_sqrt], [3])
    np.testing.assert_allclose(jax.jit(joined)(np.arange(5)), [2, 2, 2, 1, 2**-0.5], rtol=1e-6)
    assert jax.eval_shape(joined, 0).dtype == jnp.float32


def test_a_fractional_boundary_counts_from_itself() -> None:
    schedule = schedules.warmup_constant_schedule(0.0, 1.0, 2.5)
    joined = schedules.join_schedules([lambda t: 0.0 * t, lambda t: 1.0 * t], [2.5])
    warm, found = jax.jit(lambda counts: (schedule(counts[:4]), joined(counts)))(np.arange(5))
    np.testing.assert_allclose(warm, [0, 0.4, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 1.5], rtol=1e-6)


@jax.jit
def linear_values(first: Any, last: Any, steps: Any, begin: Any) -> Any:
    return schedules.linear_schedule(first, last, steps, begin)(np.arange(0, 1100, 25, dtype=np.int32))


@given(
    steps=st.integers(1, 1000),
    begin=st.integers(0, 50),
    first=st.floats(-10, 10, width=32, allow_subnormal=False),
    last=st.floats(-10, 10, width=32, allow_subnormal=False),
)
def test_linear_stays_between_its_ends(steps: int, begin: int, first: float, last: float) -> None:
    values = np.asarray(linear_values(first, last, steps, begin))
    slack = 1e-6 * (abs(first) + abs(last)) + 1e-37  # the smallest numbers may be flushed to 0
    assert values.min() >= min(first, last) - slack
    assert values.max() <= max(first, last) + slack
    np.testing.assert_allclose(values[[0, -1]], [first, last], rtol=1e-6, atol=slack)


@pytest.mark.slow
def test_sqrt_batch_size_rule() -> None:
    with strict():
        rate = schedules.sqrt_batch_size_rule(0.1, batch_size=32 * 9, reference_batch_size=32)
        np.testing.assert_allclose(rate, 0.3, rtol=1e-6)
        base = schedules.cosine_decay_schedule(0.1, 10)
        scaled = schedules.sqrt_batch_size_rule(base, batch_size=8, reference_batch_size=32)
        np.testing.assert_allclose(scaled(COUNTS), base(COUNTS) / 2, rtol=1e-6)
        traced = jax.vmap(lambda b: schedules.sqrt_batch_size_rule(0.1, batch_size=b, reference_batch_size=4))(
            jnp.array([4, 16])
        )
        np.testing.assert_allclose(traced, [0.1, 0.2], rtol=1e-6)
        with float64():
            assert (
                schedules.sqrt_batch_size_rule(jnp.float64(1), batch_size=2, reference_batch_size=1).dtype
                == jnp.float64
            )


def test_the_rule_keeps_the_noise_of_a_step() -> None:
    gradients = np.random.default_rng(0).standard_normal((4000, 64))
    rates = [float(schedules.sqrt_batch_size_rule(0.1, batch_size=b, reference_batch_size=4)) for b in (4, 64)]
    spread = [np.std(rate * gradients[:, :b].mean(axis=1)) for rate, b in zip(rates, (4, 64), strict=True)]
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("linear_schedule", {"init_value": 1, "end_value": 0, "transition_steps": -3}, r"transition_steps .* > 0, got -3"),
    (
        "linear_schedule",
        {"init_value": 1, "end_value": 0, "transition_steps": 3, "transition_begin": -1},
        r"transition_begin .* >= 0, got -1",
    ),
    ("linear_schedule", {"init_value": 1, "end_value": 0, "transition_steps": float("nan")}, "got nan"),
    (
        "polynomial_schedule",
        {"init_value": 1, "end_value": 0, "power": -1, "transition_steps": 3},
        r"power must be finite and >= 0, got -1",
    ),
    (
        "polynomial_schedule",
        {"init_value": 1, "end_value": 0, "power": 1, "transition_steps": 0},
        "Use|use constant_schedule",
    ),
    ("exponential_decay", {"init_value": 1, "transition_steps": 0, "decay_rate": 0.5}, "transition_steps .* got 0"),
    ("exponential_decay", {"init_value": 1, "transition_steps": 4, "decay_rate": 0.0}, "decay_rate .* > 0, got 0"),
    ("exponential_decay", {"init_value": 1, "transition_steps": 4, "decay_rate": -0.5}, "decay_rate .* got -0.5"),
    ("cosine_decay_schedule", {"init_value": 1, "decay_steps": 0}, "decay_steps must be finite and > 0, got 0"),
    ("cosine_decay_schedule", {"init_value": 1, "decay_steps": 3, "exponent": -2}, "exponent .* got -2"),
    (
        "piecewise_constant_schedule",
        {"init_value": 1, "boundaries_and_scales": {3: -0.1}},
        "factor at step 3 .* got -0.1",
    ),
    ("piecewise_constant_schedule", {"init_value": 1, "boundaries_and_scales": {-3: 0.1}}, "a boundary .* got -3"),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cubic", "init_value": 1},
        "'linear' or 'cosine', got 'cubic'",
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 1, "boundaries_and_scales": {3: -1.0}},
        "factor at step 3",
    ),
    ("linear_onecycle_schedule", {"transition_steps": 0, "peak_value": 1}, "transition_steps .* got 0"),
    (
        "linear_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 1, "pct_start": 0.9, "pct_final": 0.5},
        "pct_final .* >= 0.9, got 0.5",
    ),
    (
        "linear_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 1, "pct_final": 1.5},
        r"pct_final is a fraction .* \[0, 1\], got 1.5",
    ),
    (
        "linear_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 1, "div_factor": 0.0},
        "div_factor .* > 0, got 0",
    ),
    (
        "cosine_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 1, "pct_start": 30},
        r"pct_start is a fraction .* got 30",
    ),
    (
        "cosine_onecycle_schedule",
        {"transition_steps": 9, "peak_value": 1, "final_div_factor": -1},
        "final_div_factor .* got -1",
    ),
    (
        "warmup_constant_schedule",
        {"init_value": 0, "peak_value": 1, "warmup_steps": -1},
        r"warmup_steps .* got -1\. Use 0 for no warm-up",
    ),
    ("warmup_cosine_decay_schedule", {**COSINE, "decay_steps": 3}, "decay_steps .* > 3, got 3. .* warm-up included"),
    ("warmup_cosine_decay_schedule", {**COSINE, "warmup_steps": -1}, "warmup_steps .* got -1"),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0, "peak_value": 1, "warmup_steps": 2, "transition_steps": 0, "decay_rate": 0.5},
        "transition_steps .* got 0",
    ),
    ("sgdr_schedule", {"cosine_kwargs": []}, "at least one cycle"),
    ("join_schedules", {"schedules": [], "boundaries": []}, "0 schedules and 0 boundaries"),
    ("join_schedules", {"schedules": [abs, abs], "boundaries": []}, "2 schedules and 0 boundaries"),
    ("join_schedules", {"schedules": [abs, abs, abs], "boundaries": [5, 3]}, r"must ascend, got \[5\.0, 3\.0\]"),
    ("join_schedules", {"schedules": [abs, abs], "boundaries": [-3]}, "a boundary .* got -3"),
    ("sqrt_batch_size_rule", {"learning_rate": 1, "batch_size": 0, "reference_batch_size": 1}, "batch_size .* got 0"),
    (
        "sqrt_batch_size_rule",
        {"learning_rate": 1, "batch_size": 1, "reference_batch_size": -1},
        "reference_batch_size .* got -1",
    ),
]


@pytest.mark.parametrize(("name", "settings", "message"), BAD)
def test_bad_settings_raise(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        getattr(schedules, name)(**settings)
    where = "exponential_decay" if name == "warmup_exponential_decay_schedule" else name
    assert str(error.value).startswith(where)
