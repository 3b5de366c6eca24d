"""Where optax 0.2.8 falls short: what it does, shown first, and what the same call does here.

A newer optax may mend a line; its test then skips with a note.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim

pytestmark = pytest.mark.sampled


def optax_still(shows: Any, what: str) -> None:
    """Skip where optax no longer shows the behaviour."""
    if not bool(shows):
        pytest.skip(f"optax {optax.__version__} mended this: {what}")


def second_moment(library: Any) -> list[float]:
    """nu of a bfloat16 parameter after gradient 1 for 1,000 steps, and after gradient 0 for 2,000 more."""
    opt = library.adam(1e-3)
    params = jnp.ones((), jnp.bfloat16)

    def body(state: Any, t: Any) -> tuple[Any, Any]:
        _, state = opt.update(jnp.where(t < 1000, 1, 0).astype(jnp.bfloat16), state, params)
        return state, optax.tree.get(state, "nu").astype(jnp.float32)

    return np.asarray(jax.jit(lambda: jax.lax.scan(body, opt.init(params), jnp.arange(3000))[1])())[
        [999, 2999]
    ].tolist()


def test_a_bfloat16_second_moment_decays() -> None:
    theirs = second_moment(optax)
    ours = second_moment(optim)
    np.testing.assert_allclose(ours, [1 - 0.999**1000, (1 - 0.999**1000) * 0.999**2000], rtol=0.01)
    assert abs(ours[1] - 0.0856) < 0.01 * 0.0856
    optax_still(abs(theirs[1] - 0.5) < 0.01, "a bfloat16 nu that never decays")


@pytest.mark.parametrize(("gradient", "broken"), [(0.0, np.isnan), (1e-5, np.isinf)])
def test_float16_adam_stays_finite(gradient: float, broken: Any) -> None:
    params, grads = jnp.ones((), jnp.float16), jnp.asarray(gradient, jnp.float16)
    ours, _ = optim.adam(1e-3).update(grads, optim.adam(1e-3).init(params), params)
    assert np.isfinite(ours)
    np.testing.assert_allclose(ours, -1e-3 * (gradient > 0), rtol=2e-3)
    theirs, _ = optax.adam(1e-3).update(grads, optax.adam(1e-3).init(params), params)
    optax_still(broken(theirs), "an eps that underflows in float16")


IN_FLOAT16 = (
    "adamax", "nadam", "amsgrad", "adabelief", "rmsprop", "adan", "novograd", "fromage", "adafactor",
    "optimistic_adam_v2", "ademamix", "acprop", "simplified_ademamix", "cocob", "prodigy", "dadapt_adamw", "dog",
    "momo_adam", "muon", "galore", "schedule_free_adamw",
)  # fmt: skip
"""Rules whose eps, or whose squares, become 0 in optax in float16."""


def float16_steps(library: Any, name: str, gradient: float) -> np.ndarray:
    """Three updates of a rule with its defaults and a learning rate of 0.001 in float16, one under the other."""
    factory = getattr(library, name, None) or getattr(library.contrib, name)
    needs_rate = inspect.signature(factory).parameters["learning_rate"].default is inspect.Parameter.empty
    opt = factory(1e-3) if needs_rate else factory()
    params, grads = jnp.ones(2, jnp.float16), jnp.full(2, gradient, jnp.float16)
    extra = {"value": jnp.ones((), jnp.float16)} if name == "momo_adam" else {}

    def body(carry: Any) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = opt.update(grads, state, params, **extra)
        return (optim.apply_updates(params, updates), state), updates

    carry, found = (params, opt.init(params)), []
    for _ in range(3):  # no scan, in which optax's states change their dtypes
        carry, updates = body(carry)
        found.append(np.asarray(updates, np.float32))
    return np.stack(found)


@pytest.mark.parametrize("name", IN_FLOAT16)
def test_float16_rules_stay_finite(name: str) -> None:
    assert np.isfinite(float16_steps(optim, name, 0.0)).all()
    small = float16_steps(optim, name, 1e-5)
    assert np.isfinite(small).all()
    assert (small[-1] < 0).all()
    optax_still(np.isnan(float16_steps(optax, name, 0.0)).any(), f"{name}, NaN for a gradient of 0 in float16")
    if name != "adamax":  # its eps, added to the gradient, matters at 0 only
        still = not np.isfinite(float16_steps(optax, name, 1e-5)).all()
        optax_still(still, f"{name}, infinite for a small gradient in float16")


SIXTEEN = (
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "adamax", "nadam", "radam", "yogi", "adabelief", "amsgrad",
    "lamb", "lars", "adadelta", "novograd",
)  # fmt: skip


def rule(library: Any, name: str) -> Any:
    """A rule with its defaults; gradient descent with the momentum that gives it a state."""
    return library.sgd(0.1, momentum=0.9) if name == "sgd" else getattr(library, name)(0.1)


def scan_mixed(opt: Any) -> Any:
    """Three steps of bfloat16 parameters with float32 gradients under scan, traced only."""
    params = {"w": jnp.ones((3, 2), jnp.bfloat16)}
    grads = {"w": jnp.ones((3, 2), jnp.float32)}

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = opt.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None

    return jax.eval_shape(lambda: jax.lax.scan(body, (params, opt.init(params)), None, length=3))


@pytest.mark.parametrize("name", SIXTEEN)
def test_bfloat16_parameters_take_float32_gradients_under_scan(name: str) -> None:
    scan_mixed(rule(optim, name))
    optax_still(optax_fails(name), f"{name}, which changes its state dtype")


def optax_fails(name: str) -> bool:
    try:
        scan_mixed(rule(optax, name))
    except (TypeError, ValueError):
        return True
    return False


def stalled_weight(library: Any, wrap: Any = lambda opt: opt, weights: int = 1) -> float:
    """The mean of bfloat16 weights that start at 1, after 100 Adam steps at 1e-3 with gradient 1."""
    opt = wrap(library.adam(1e-3))
    params = jnp.ones(weights, jnp.bfloat16)

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = opt.update(jnp.ones_like(params), state, params)
        return (optim.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda: jax.lax.scan(body, (params, opt.init(params)), None, length=100))()
    return float(jnp.mean(params.astype(jnp.float32)))


@pytest.mark.slow
def test_bfloat16_weights_move_with_one_of_three_remedies() -> None:
    assert abs(stalled_weight(optim, optim.master_weights) - 0.9) <= 0.005
    assert abs(stalled_weight(optim, optim.kahan) - 0.9) <= 0.005
    rounded = stalled_weight(optim, lambda opt: optim.stochastic_rounding(opt, jax.random.key(0)), 10_000)
    assert abs(rounded - 0.9) <= 0.005
    optax_still(stalled_weight(optax) == 1.0, "bfloat16 weights that stall")


def test_adadelta_descends_by_default() -> None:
    def after(library: Any) -> float:
        opt, x = library.adadelta(), jnp.ones(())
        state = opt.init(x)
        for _ in range(5):
            updates, state = opt.update(2 * x, state, x)
            x = x + updates
        return float(x)

    assert after(optim) < 1
    optax_still(after(optax) > 1, "adadelta() that ascends")


def test_adafactor_with_an_offset_is_finite() -> None:
    def first(library: Any) -> jax.Array:
        opt, x = library.adafactor(1e-2, decay_offset=1), jnp.ones((4, 4))
        return opt.update(x, opt.init(x), x)[0]

    assert jnp.all(jnp.isfinite(first(optim)))
    optax_still(jnp.any(jnp.isnan(first(optax))), "adafactor(decay_offset=1) that is NaN")


def test_centralize_averages_over_the_inputs_of_a_kernel() -> None:
    g = jnp.arange(6.0).reshape(3, 2)  # (in, out)
    ours, _ = optim.centralize().update(g, optim.centralize().init(g))
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-6)
    theirs, _ = optax.centralize().update(g, optax.centralize().init(g))
    optax_still(np.abs(theirs.mean(axis=0)).max() > 0.1, "centralize over the wrong axes")


def test_the_inner_update_runs_only_every_kth_step() -> None:
    """Counted by a callback from inside the inner update."""

    def runs(library: Any) -> int:
        calls: list[int] = []

        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            jax.debug.callback(lambda: calls.append(1))
            return grads, state

        if library is optax:
            opt = optax.MultiSteps(optax.GradientTransformationExtraArgs(lambda p: (), update), 4)
        else:
            opt = optim.accumulate(optim.Optimizer(lambda p: (), update), 4)
        params = jnp.ones(2)

        def body(state: Any, _: Any) -> tuple[Any, None]:
            return opt.update(params, state, params)[1], None

        jax.block_until_ready(jax.jit(lambda: jax.lax.scan(body, opt.init(params), None, length=8)[0])())
        jax.effects_barrier()
        return len(calls)

    assert runs(optim) == 2
    optax_still(runs(optax) == 8, "MultiSteps that runs the inner update on every micro-step")


def test_adam_without_b1_keeps_no_mu() -> None:
    params = jnp.ones(3)
    assert optim.adam(1e-3, b1=0.0).init(params).mu is None
    optax_still(optax.tree.get(optax.adam(1e-3, b1=0.0).init(params), "mu") is not None, "a mu that is never needed")


def adan_directions(weight: float, grads: list[float]) -> list[float]:
    """Algorithm 1 of Xie et al. with a weight of the differences, b = 1 - beta, on one number."""
    m = v = n = 0.0
    before, found = grads[0], []
    for t, g in enumerate(grads, 1):
        d, before = g - before, g
        m, v, n = 0.98 * m + 0.02 * g, 0.92 * v + 0.08 * d, 0.99 * n + 0.01 * (g + weight * d) ** 2
        m_hat, v_hat, n_hat = m / (1 - 0.98**t), v / (1 - 0.92**t), n / (1 - 0.99**t)
        found.append((m_hat + weight * v_hat) / np.sqrt(n_hat))
    return found


def test_adan_weighs_differences_as_published() -> None:
    """By 1 - beta2 = 0.92 for beta2 = 0.08; optax, whose b2 is 0.92 too, by 1 - b2 = 0.08."""
    grads = [1.0, 3.0, 2.0]

    def directions(library: Any, **kwargs: Any) -> list[float]:
        opt = library.adan(1.0, eps=0.0, eps_root=0.0, **kwargs)
        state, found = opt.init(jnp.ones(())), []
        for g in grads:
            updates, state = opt.update(jnp.asarray(g), state, jnp.ones(()))
            found.append(-float(updates))
        return found

    np.testing.assert_allclose(directions(optim), adan_directions(0.92, grads), rtol=1e-5)
    optaxs = adan_directions(0.08, grads)
    np.testing.assert_allclose(directions(optim, difference_weight=0.08), optaxs, rtol=1e-5)
    optax_still(np.allclose(directions(optax), optaxs, rtol=1e-5), "Adan's weight 1 - b2 in place of b2")


def test_radam_waits_in_float32_as_it_does_in_float64() -> None:
    """With b2 = 0.9999 rho passes 5 at step 6; until then a step of gradient 1 is the learning rate."""

    def plain_steps(library: Any) -> int:
        opt, params = library.radam(1.0, b2=0.9999), jnp.ones(())
        state = opt.init(params)
        for taken in range(20):
            updates, state = opt.update(params, state, params)
            if abs(float(updates)) < 0.5:
                return taken
        return 20

    assert plain_steps(optim) == 5
    with jax.enable_x64(True):
        assert plain_steps(optim) == 5
    optax_still(plain_steps(optax) < 5, "radam's rho, lost to cancellation in float32")


def test_rprop_steps_along_the_gradient_it_is_given() -> None:
    """optax's first update is 0, and each later one is along the gradient before."""

    def first(library: Any) -> float:
        opt, params = library.rprop(0.1), jnp.ones(())
        return float(opt.update(jnp.asarray(2.0), opt.init(params), params)[0])

    np.testing.assert_allclose(first(optim), -0.1, rtol=1e-6)
    optax_still(first(optax) == 0.0, "rprop along the gradient of the step before")
