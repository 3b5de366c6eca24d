"""Hand-written rules against optax and against float64 NumPy transcriptions of the papers, over 100 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.running import along, traced

STEPS = 100


def schedule(count: Any) -> Any:
    return 0.1 / (1.0 + 0.05 * jnp.asarray(count).astype(jnp.float32))


CASES: dict[str, tuple[Callable[[Any], Any], dict[str, str]]] = {
    "sgd": (lambda lib: lib.sgd(0.1), {}),
    "sgd_schedule": (lambda lib: lib.sgd(schedule, momentum=0.5), {"trace": "trace"}),
    "momentum": (lambda lib: lib.sgd(0.05, momentum=0.9), {"trace": "trace"}),
    "nesterov": (lambda lib: lib.sgd(0.05, momentum=0.9, nesterov=True), {"trace": "trace"}),
    "adam": (lambda lib: lib.adam(0.1), {"mu": "mu", "nu": "nu", "count": "count"}),
    "adam_schedule": (lambda lib: lib.adam(schedule, b1=0.8, b2=0.95, eps=1e-3), {"mu": "mu", "nu": "nu"}),
    "adam_eps_root": (lambda lib: lib.adam(0.1, eps_root=1e-2), {"mu": "mu", "nu": "nu"}),
    "nadam": (lambda lib: lib.adam(0.1, nesterov=True), {"mu": "mu", "nu": "nu"}),
}


def tree_of(seed: int, dtype: Any) -> Any:
    return {"w": random(seed, 3, 2, dtype=dtype), "parts": (random(seed + 1, 4, dtype=dtype), None)}


def descent(opt: Any, steps: int = STEPS) -> Callable[[Any], tuple[Any, Any]]:
    """From parameters to those and the state after some steps on a noisy quadratic, under scan."""

    def body(carry: Any, xi: Any) -> Any:
        params, state = carry
        grads = jax.tree.map(lambda p: 2 * p + xi * jnp.ones_like(p), params)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def descended(params: Any) -> tuple[Any, Any]:
        noise = jnp.asarray(random(7, steps), params["w"].dtype)
        return jax.lax.scan(body, (params, opt.init(params)), noise)[0]

    return descended


def run(opt: Any, dtype: Any) -> tuple[Any, Any]:
    return jax.jit(descent(opt))(tree_of(0, dtype))


def state_field(state: Any, name: str) -> Any:
    """A field of an optax chain's state, wherever it stands."""
    for part in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "_fields") and name in s._fields):
        if hasattr(part, "_fields") and name in part._fields:
            return getattr(part, name)
    raise AssertionError(f"no {name} in {state}")


QUICK = ("nesterov", "adam_schedule")


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in CASES if name not in QUICK))])
def test_equals_optax_in_parameters_and_state(name: str) -> None:
    make, fields = CASES[name]
    both = jax.jit(lambda p: [descent(make(library))(p) for library in (optim, optax)])
    with float64():
        (ours, our_state), (theirs, their_state) = both(tree_of(0, np.float64))
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        for field in fields:
            assert_close(getattr(our_state, field), state_field(their_state, field), rtol=1e-12, atol=1e-14)
    (ours, _), (theirs, _) = both(tree_of(0, np.float32))
    assert_close(ours, theirs, rtol=2e-4, atol=1e-5)


def adam_paper(theta: np.ndarray, noise: np.ndarray, a: float, b1: float, b2: float, eps: float) -> np.ndarray:
    """Algorithm 1 of Kingma and Ba, line by line, in float64."""
    m = v = np.zeros_like(theta)
    for t, xi in enumerate(noise, start=1):
        g = 2 * theta + xi
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        theta = theta - a * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta


def nadam_rearranged(theta: np.ndarray, noise: np.ndarray, a: float) -> np.ndarray:
    b1, b2, eps = 0.9, 0.999, 1e-8
    m = v = np.zeros_like(theta)
    for t, xi in enumerate(noise, start=1):
        g = 2 * theta + xi
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        theta = theta - a * m_hat / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta


def momentum_polyak(theta: np.ndarray, noise: np.ndarray, a: float, gamma: float) -> np.ndarray:
    v = np.zeros_like(theta)
    for xi in noise:
        v = gamma * v + a * (2 * theta + xi)
        theta = theta - v
    return theta


def nesterov_lookahead(theta: np.ndarray, noise: np.ndarray, a: float, gamma: float) -> np.ndarray:
    """Nesterov's own form: the gradient at the point looked ahead to; returns that point, which ours tracks."""
    v = np.zeros_like(theta)
    for xi in noise:
        v = gamma * v + a * (2 * (theta - gamma * v) + xi)
        theta = theta - v
    return theta - gamma * v


PAPERS: dict[str, tuple[Any, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "adam": (optim.adam(0.1), lambda t, n: adam_paper(t, n, 0.1, 0.9, 0.999, 1e-8)),
    "nadam": (optim.adam(0.1, nesterov=True), lambda t, n: nadam_rearranged(t, n, 0.1)),
    "momentum": (optim.sgd(0.05, momentum=0.9), lambda t, n: momentum_polyak(t, n, 0.05, 0.9)),
    "nesterov": (optim.sgd(0.05, momentum=0.9, nesterov=True), lambda t, n: nesterov_lookahead(t, n, 0.05, 0.9)),
}


def is_the_paper(name: str, found: Any) -> bool:
    return np.allclose(found, PAPERS[name][1](random(0, 3, 2), random(7, STEPS)), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["adam", "nesterov", *slow("nadam", "momentum")])
def test_equals_the_paper(name: str) -> None:
    with float64():
        assert is_the_paper(name, run(PAPERS[name][0], np.float64)[0]["w"])


def mutant_adam(correction: Any, inside: Any, sign: Any, square: Any) -> Any:
    """Adam, broken by traced numbers; 1, 0, -1 and 1 are right."""

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        g, (t, mu, nu) = grads["w"], state
        t = t + 1
        mu = 0.9 * mu + 0.1 * g
        nu = 0.999 * nu + 0.001 * jnp.where(square, g * g, jnp.abs(g))
        c1, c2, eps = 1 - correction * 0.9**t, 1 - correction * 0.999**t, 1e-8
        root = jnp.where(inside, jnp.sqrt(nu / c2 + eps), jnp.sqrt(nu / c2) + eps)
        return {"w": sign * 0.1 * (mu / c1) / root}, (t, mu, nu)

    return optim.Optimizer(lambda p: (0.0, jnp.zeros_like(p["w"]), jnp.zeros_like(p["w"])), update)


def test_a_broken_adam_fails_the_papers_check_and_a_right_one_passes_it() -> None:
    right = {"correction": 1.0, "inside": 0.0, "sign": -1.0, "square": 1.0}
    broken = {"correction": 0.0, "inside": 1.0, "sign": 1.0, "square": 0.0}
    settings = [right, *(right | {name: value} for name, value in broken.items())]
    columns = {name: np.array([setting[name] for setting in settings]) for name in right}

    @jax.jit
    @jax.vmap
    def reached(setting: Any) -> Any:
        return descent(mutant_adam(**setting))({"w": jnp.asarray(random(0, 3, 2))})[0]["w"]

    with float64():
        first, *others = np.asarray(reached(columns))
    assert is_the_paper("adam", first)
    missed = [name for name, found in zip(broken, others, strict=True) if is_the_paper("adam", found)]
    assert not missed


HALVES = [(name, dtype) for name in CASES for dtype in (jnp.bfloat16, jnp.float16)]
QUICK_HALVES = [("nesterov", jnp.bfloat16), ("adam", jnp.float16)]


@pytest.mark.parametrize(("name", "dtype"), [*QUICK_HALVES, *slow(*(h for h in HALVES if h not in QUICK_HALVES))])
def test_half_precision_keeps_float32_moments_and_its_own_updates(name: str, dtype: Any) -> None:
    opt = CASES[name][0](optim)

    def run(params: Any) -> Any:
        params, state = descent(opt, 5)(params)
        wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        return params, state, opt.update(wide, state, params)[0]

    params, state, updates = jax.eval_shape(run, tree_of(0, dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, updates))} == {jnp.dtype(dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_a_python_zero_keeps_no_moment() -> None:
    params = {"w": np.ones(2, np.float32)}
    assert optim.adam(0.1, b1=0.0).init(params).mu is None
    assert optim.sgd(0.1).init(params).trace is None
    assert optim.sgd(0.1, momentum=0.0).init(params).trace is None
    both = jax.jit(lambda p: [descent(library.adam(0.1, b1=0.0))(p)[0] for library in (optim, optax)])
    with float64():
        assert_close(*both(tree_of(0, np.float64)), rtol=1e-12)


def test_moment_dtypes_can_be_chosen() -> None:
    params = tree_of(0, np.float32)
    assert optim.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16).init(params).trace["w"].dtype == jnp.bfloat16
    opt = optim.adam(0.1, mu_dtype=jnp.bfloat16)
    assert opt.init(params).mu["w"].dtype == jnp.bfloat16
    assert jax.eval_shape(descent(opt), params)[1].mu["w"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_hyperparameters_may_be_traced_and_one_compile_serves_all() -> None:
    settings = {"learning_rate": jnp.linspace(0.01, 0.2, 4), "b1": jnp.linspace(0.0, 0.9, 4)}
    params = tree_of(0, jnp.float32)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(setting: Any) -> Any:
        opt = optim.adam(b2=0.99, **setting)
        return opt.update(params, opt.init(params), params)[0]

    together = jax.vmap(step)(settings)
    for i in range(4):
        alone = optim.adam(float(settings["learning_rate"][i]), float(settings["b1"][i]), 0.99)
        assert_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], together),
            alone.update(params, alone.init(params), params)[0],
            rtol=1e-5,
        )


def test_runs_under_strict_promotion_and_ignores_unknown_extras() -> None:
    for make, _ in CASES.values():
        opt = make(optim)

        def run(params: Any, opt: Any = opt) -> Any:
            before = opt.init(params)
            updates, state = opt.update(params, before, params, value=jnp.ones(()), grad=params, unheard_of=3)
            return optim.apply_updates(params, updates), updates, before, state

        params = tree_of(0, np.float32)
        with strict():
            moved, updates, before, state = jax.eval_shape(run, params)
        assert jax.tree.structure(moved) == jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(state) == jax.tree.structure(before)


@pytest.mark.slow
def test_works_inside_optax_chain_and_with_optax_apply_updates() -> None:
    params = tree_of(0, jnp.float32)
    chained = optax.chain(optax.clip_by_global_norm(1.0), optim.adam(0.1))
    expected = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    for opt in (chained, expected):
        assert jax.tree.leaves(opt.init(params))
    ours = chained.update(params, chained.init(params), params)[0]
    theirs = expected.update(params, expected.init(params), params)[0]
    assert_close(optax.apply_updates(params, ours), optax.apply_updates(params, theirs), rtol=1e-5, atol=1e-5)


def test_a_missing_gradient_leaves_its_parameter_and_its_state() -> None:
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    updates, moved, state = along(optim.adam(0.1), params, {"a": np.ones((1, 2), np.float32), "b": None})
    assert updates["b"] is None
    np.testing.assert_array_equal(state.nu["b"], 0)
    np.testing.assert_array_equal(moved["b"], 1)


PYTREES: dict[str, Any] = {
    "a number": (),
    "nothing": {},
    "nested": {"a": (2, 3), "b": {"a": (), "c": {}}, "c": (2,)},
}
"""Shapes of parameters."""


def test_any_pytree() -> None:
    rules = {-1.0: optim.sgd(0.5), -0.5: optim.adam(0.5)}

    def filled(value: float) -> Any:
        return jax.tree.map(lambda s: np.full(s, value, np.float32), PYTREES, is_leaf=lambda s: isinstance(s, tuple))

    @jax.jit
    def updates(trees: Any) -> Any:
        return {step: {n: opt.update(p, opt.init(p), p)[0] for n, p in trees.items()} for step, opt in rules.items()}

    for step, found in updates(filled(2.0)).items():
        assert_close(found, filled(step), rtol=1e-6)


def test_count_stays_at_the_largest_int32() -> None:
    last = np.iinfo(np.int32).max
    opt, params = optim.adam(0.1), np.ones(1, np.float32)
    updates, state = jax.jit(opt.update)(params, opt.init(params)._replace(count=np.int32(last)), params)
    assert state.count == last
    assert np.isfinite(updates).all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: optim.sgd(0.1, nesterov=True), ValueError, "needs a momentum, got momentum=None"),
        (
            lambda: optim.adam(0.1).init({"n": jnp.arange(3)}),
            TypeError,
            r"\['n'\] must have a floating dtype, got int32",
        ),
        (
            lambda: optim.sgd(0.1).update(
                {"w": jnp.ones(3)}, optim.sgd(0.1).init({"w": jnp.ones(2)}), {"w": jnp.ones(2)}
            ),
            ValueError,
            r"the gradient at .* has shape \(3,\) but its parameter \(2,\)",
        ),
        (
            lambda: optim.adam(0.1).update({"v": jnp.ones(2)}, optim.adam(0.1).init({"w": jnp.ones(2)})),
            ValueError,
            "must have the structure of the state that init made",
        ),
        (
            lambda: optim.sgd(0.1).update((jnp.ones(2),), optim.sgd(0.1).init(()), {"w": jnp.ones(2)}),
            ValueError,
            "must have the structure of params",
        ),
    ],
)
@traced
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
