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
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import optim
from tests.helpers import assert_close, float64, random, strict

pytestmark = pytest.mark.sampled

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
    return {"w": jnp.asarray(random(seed, 3, 2), dtype), "parts": (jnp.asarray(random(seed + 1, 4), dtype), None)}


def run(opt: Any, dtype: Any, steps: int = STEPS) -> tuple[Any, Any]:
    """Parameters and state after some steps on a noisy quadratic, under jit and scan."""
    params = tree_of(0, dtype)
    noise = jnp.asarray(random(7, steps), dtype)

    def body(carry: Any, xi: Any) -> Any:
        params, state = carry
        grads = jax.tree.map(lambda p: 2 * p + xi * jnp.ones_like(p), params)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), noise)[0])(params)


def state_field(state: Any, name: str) -> Any:
    """A field of an optax chain's state, wherever it stands."""
    for part in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "_fields") and name in s._fields):
        if hasattr(part, "_fields") and name in part._fields:
            return getattr(part, name)
    raise AssertionError(f"no {name} in {state}")


@pytest.mark.parametrize("name", CASES)
def test_equals_optax_in_parameters_and_state(name: str) -> None:
    make, fields = CASES[name]
    with float64():
        ours, our_state = run(make(optim), jnp.float64)
        theirs, their_state = run(make(optax), jnp.float64)
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        for field in fields:
            assert_close(getattr(our_state, field), state_field(their_state, field), rtol=1e-12, atol=1e-14)
    ours, _ = run(make(optim), jnp.float32)
    theirs, _ = run(make(optax), jnp.float32)
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


def check_paper(opt: Any, transcription: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    with float64():
        params, _ = run(opt, jnp.float64)
        assert_close(params["w"], transcription(random(0, 3, 2), random(7, STEPS)), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", PAPERS)
def test_equals_the_paper(name: str) -> None:
    check_paper(*PAPERS[name])


def mutant_adam(*, correction: bool = True, inside: bool = False, sign: float = -1.0, square: bool = True) -> Any:
    """Adam, broken on request."""

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        t, mu, nu = state
        t = t + 1
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * (g * g if square else jnp.abs(g)), nu, grads)
        c1, c2 = (1 - 0.9**t, 1 - 0.999**t) if correction else (1.0, 1.0)
        eps = 1e-8

        def step(m: Any, v: Any) -> Any:
            root = jnp.sqrt(v / c2 + eps) if inside else jnp.sqrt(v / c2) + eps
            return sign * 0.1 * (m / c1) / root

        return jax.tree.map(step, mu, nu), (t, mu, nu)

    zeros = lambda p: jax.tree.map(jnp.zeros_like, p)  # noqa: E731
    return optim.Optimizer(lambda p: (0.0, zeros(p), zeros(p)), update)


def test_the_right_transcription_passes_the_mutants_check() -> None:
    check_paper(mutant_adam(), PAPERS["adam"][1])


@pytest.mark.parametrize("broken", [{"correction": False}, {"inside": True}, {"sign": 1.0}, {"square": False}], ids=str)
def test_a_broken_adam_fails(broken: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_paper(mutant_adam(**broken), PAPERS["adam"][1])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_float32_moments_and_its_own_updates(name: str, dtype: Any) -> None:
    opt = CASES[name][0](optim)
    params, state = run(opt, dtype, steps=5)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    wide, _ = opt.update(jax.tree.map(lambda p: p.astype(jnp.float32), params), state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype(dtype)}


def test_bfloat16_second_moment_decays_where_optax_does_not() -> None:
    opt, params = optim.adam(1e-3), jnp.zeros(1, jnp.bfloat16)

    @jax.jit
    def nu_after(gradients: Any) -> Any:
        return jax.lax.scan(lambda s, g: (opt.update(g[None], s, params)[1], None), opt.init(params), gradients)[0].nu

    ones, zeros = jnp.ones(1000, jnp.bfloat16), jnp.zeros(2000, jnp.bfloat16)
    np.testing.assert_allclose(nu_after(ones), 1 - 0.999**1000, rtol=1e-3)
    np.testing.assert_allclose(nu_after(jnp.concatenate([ones, zeros])), (1 - 0.999**1000) * 0.999**2000, rtol=1e-3)


def test_float16_gradients_of_zero_and_of_1e_5_give_finite_updates() -> None:
    opt, params = optim.adam(1e-3), jnp.ones(2, jnp.float16)
    updates, _ = opt.update(jnp.array([0.0, 1e-5], jnp.float16), opt.init(params), params)
    assert_close(updates, jnp.array([0.0, -1e-3], jnp.float16), rtol=2e-3)


def test_a_python_zero_keeps_no_moment() -> None:
    params = {"w": jnp.ones(2)}
    assert optim.adam(0.1, b1=0.0).init(params).mu is None
    assert optim.sgd(0.1).init(params).trace is None
    assert optim.sgd(0.1, momentum=0.0).init(params).trace is None
    with float64():
        ours, _ = run(optim.adam(0.1, b1=0.0), jnp.float64)
        theirs, _ = run(optax.adam(0.1, b1=0.0), jnp.float64)
        assert_close(ours, theirs, rtol=1e-12)


def test_moment_dtypes_can_be_chosen() -> None:
    params = {"w": jnp.ones(2)}
    assert optim.adam(0.1, mu_dtype=jnp.bfloat16).init(params).mu["w"].dtype == jnp.bfloat16
    assert optim.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16).init(params).trace["w"].dtype == jnp.bfloat16
    _, state = run(optim.adam(0.1, mu_dtype=jnp.bfloat16), jnp.float32)
    assert state.mu["w"].dtype == jnp.bfloat16


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


@pytest.mark.parametrize("name", CASES)
def test_runs_under_strict_promotion_and_ignores_unknown_extras(name: str) -> None:
    opt = CASES[name][0](optim)
    params = tree_of(0, jnp.float32)
    with strict():
        updates, state = opt.update(params, opt.init(params), params, value=jnp.ones(()), grad=params, unheard_of=3)
        optim.apply_updates(params, updates)
    chex.assert_trees_all_equal_structs(updates, params)
    chex.assert_trees_all_equal_structs(state, opt.init(params))


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
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    opt = optim.adam(0.1)
    state = opt.init(params)
    updates, state = opt.update({"a": jnp.ones(2), "b": None}, state, params)
    assert updates["b"] is None
    assert_close(state.nu["b"], jnp.zeros(2), rtol=0)
    assert_close(optim.apply_updates(params, updates)["b"], jnp.ones(2), rtol=0)


@given(
    st.recursive(st.sampled_from([(), (2,), (2, 3)]), lambda s: st.dictionaries(st.sampled_from("abc"), s, max_size=2))
)
def test_any_pytree(shapes: Any) -> None:
    params = jax.tree.map(lambda s: jnp.full(s, 2.0), shapes, is_leaf=lambda s: isinstance(s, tuple))
    for opt in (optim.sgd(0.5), optim.adam(0.5)):
        updates, _ = opt.update(params, opt.init(params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        scale = -1.0 if opt.init(params).__class__ is optim.TraceState else -0.5
        for leaf in jax.tree.leaves(updates):
            np.testing.assert_allclose(leaf, scale, rtol=1e-6)


def test_count_stays_at_the_largest_int32() -> None:
    last = jnp.iinfo(jnp.int32).max
    opt, params = optim.adam(0.1), jnp.ones(1)
    state = opt.init(params)._replace(count=jnp.array(last, jnp.int32))
    updates, state = opt.update(params, state, params)
    assert state.count == last
    assert jnp.isfinite(updates).all()


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
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
