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
from tests.helpers import slow
from tests.optim.running import along, optax_still


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
    np.testing.assert_allclose(ours, [1 - 0.999**1000, (1 - 0.999**1000) * 0.999**2000], rtol=1e-3)
    assert abs(ours[1] - 0.0856) < 0.01 * 0.0856
    optax_still(abs(theirs[1] - 0.5) < 0.01, "a bfloat16 nu that never decays")


def test_float16_adam_stays_finite() -> None:
    params, grads = np.ones(2, np.float16), np.float16([[0, 1e-5]])
    ours, theirs = (along(library.adam(1e-3), params, grads)[0][0] for library in (optim, optax))
    np.testing.assert_allclose(ours, np.float16([0, -1e-3]), rtol=2e-3)
    optax_still(np.isnan(theirs[0]) and np.isinf(theirs[1]), "an eps that underflows in float16")


IN_FLOAT16 = (
    "adamax", "nadam", "amsgrad", "adabelief", "rmsprop", "adan", "novograd", "fromage", "adafactor",
    "optimistic_adam_v2", "ademamix", "acprop", "simplified_ademamix", "cocob", "prodigy", "dadapt_adamw", "dog",
    "momo_adam", "muon", "galore", "schedule_free_adamw",
)  # fmt: skip
"""Rules whose eps, or whose squares, become 0 in optax in float16."""


def float16_steps(library: Any, name: str) -> np.ndarray:
    """Three updates of a rule with its defaults and a learning rate of 0.001, for gradients of 0 and of 1e-5."""
    factory = getattr(library, name, None) or getattr(library.contrib, name)
    needs_rate = inspect.signature(factory).parameters["learning_rate"].default is inspect.Parameter.empty
    opt = factory(1e-3) if needs_rate else factory()
    extra = {"value": jnp.ones((), jnp.float16)} if name == "momo_adam" else {}

    def three(grads: Any) -> Any:
        params, found = jnp.ones(2, jnp.float16), []
        state = opt.init(params)
        for _ in range(3):  # no scan, in which optax's states change their dtypes
            updates, state = opt.update(grads, state, params, **extra)
            params = optim.apply_updates(params, updates)
            found.append(updates)
        return jnp.stack(found)

    return np.asarray(jax.jit(jax.vmap(three))(np.full((2, 2), [[0.0], [1e-5]], np.float16)))


QUICK_IN_FLOAT16 = ("rmsprop", "adafactor")


@pytest.mark.parametrize("name", [*QUICK_IN_FLOAT16, *slow(*(n for n in IN_FLOAT16 if n not in QUICK_IN_FLOAT16))])
def test_float16_rules_stay_finite(name: str) -> None:
    zero, small = float16_steps(optim, name)
    assert np.isfinite(zero).all()
    assert np.isfinite(small).all()
    assert (small[-1] < 0).all()
    zero, small = float16_steps(optax, name)
    optax_still(np.isnan(zero).any(), f"{name}, NaN for a gradient of 0 in float16")
    if name != "adamax":  # its eps, added to the gradient, matters at 0 only
        optax_still(not np.isfinite(small).all(), f"{name}, infinite for a small gradient in float16")


SIXTEEN = (
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "adamax", "nadam", "radam", "yogi", "adabelief", "amsgrad",
    "lamb", "lars", "adadelta", "novograd",
)  # fmt: skip


def rule(library: Any, name: str) -> Any:
    """A rule with its defaults; gradient descent with the momentum that gives it a state."""
    return library.sgd(0.1, momentum=0.9) if name == "sgd" else getattr(library, name)(0.1)


def scan_mixed(opt: Any) -> Any:
    """Three steps of bfloat16 parameters with float32 gradients under scan, traced only."""
    params = {"w": np.ones((3, 2), jnp.bfloat16)}
    grads = {"w": np.ones((3, 2), np.float32)}

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = opt.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None

    return jax.eval_shape(lambda: jax.lax.scan(body, (params, opt.init(params)), None, length=3))


QUICK_MIXED = ("sgd", "adam", "lamb")


@pytest.mark.parametrize("name", [*QUICK_MIXED, *slow(*(name for name in SIXTEEN if name not in QUICK_MIXED))])
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
    ones = np.ones((100, weights), jnp.bfloat16)
    _, params, _ = along(wrap(library.adam(1e-3)), ones[0], ones)
    return float(np.mean(params[-1].astype(np.float32)))


@pytest.mark.slow
def test_bfloat16_weights_move_with_one_of_three_remedies() -> None:
    assert abs(stalled_weight(optim, optim.master_weights) - 0.9) <= 0.005
    assert abs(stalled_weight(optim, optim.kahan) - 0.9) <= 0.005
    rounded = stalled_weight(optim, lambda opt: optim.stochastic_rounding(opt, jax.random.key(0)), 10_000)
    assert abs(rounded - 0.9) <= 0.005
    optax_still(stalled_weight(optax) == 1.0, "bfloat16 weights that stall")


def test_adadelta_descends_by_default() -> None:
    def after(library: Any) -> float:
        return float(along(library.adadelta(), np.float32(1), np.ones(5, np.float32))[1][-1])

    assert after(optim) < 1
    optax_still(after(optax) > 1, "adadelta() that ascends")


def test_adafactor_with_an_offset_is_finite() -> None:
    def first(library: Any) -> np.ndarray:
        x = np.ones((1, 4, 4), np.float32)
        return along(library.adafactor(1e-2, decay_offset=1), x[0], x)[0]

    assert np.isfinite(first(optim)).all()
    optax_still(np.isnan(first(optax)).any(), "adafactor(decay_offset=1) that is NaN")


def test_centralize_averages_over_the_inputs_of_a_kernel() -> None:
    g = np.arange(6, dtype=np.float32).reshape(1, 3, 2)  # (in, out)
    ours, theirs = (along(library.centralize(), g[0], g)[0][0] for library in (optim, optax))
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-6)
    optax_still(np.abs(theirs.mean(axis=0)).max() > 0.1, "centralize over the wrong axes")


def test_the_inner_update_runs_only_every_kth_step() -> None:
    """Counted by a callback from inside the inner update."""

    def runs(gather: Any) -> int:
        calls: list[int] = []

        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            jax.debug.callback(lambda: calls.append(1))
            return grads, state

        opt = gather(optax.GradientTransformationExtraArgs(lambda p: (), update), 4)
        along(opt, np.ones(2, np.float32), np.ones((8, 2), np.float32))
        jax.effects_barrier()
        return len(calls)

    assert runs(optim.accumulate) == runs(optim.MultiSteps) == 2
    optax_still(runs(optax.MultiSteps) == 8, "MultiSteps that runs the inner update on every micro-step")


def test_adam_without_b1_keeps_no_mu() -> None:
    params = np.ones(3, np.float32)
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

    def directions(library: Any, **kwargs: Any) -> np.ndarray:
        return -along(library.adan(1.0, eps=0.0, eps_root=0.0, **kwargs), np.float32(1), np.float32(grads))[0]

    np.testing.assert_allclose(directions(optim), adan_directions(0.92, grads), rtol=1e-5)
    optaxs = adan_directions(0.08, grads)
    np.testing.assert_allclose(directions(optim, difference_weight=0.08), optaxs, rtol=1e-5)
    optax_still(np.allclose(directions(optax), optaxs, rtol=1e-5), "Adan's weight 1 - b2 in place of b2")


def test_radam_waits_in_float32_as_it_does_in_float64() -> None:
    """With b2 = 0.9999 rho passes 5 at step 6; until then a step of gradient 1 is the learning rate."""

    def plain_steps(library: Any) -> int:
        ones = np.ones(20, jax.dtypes.canonicalize_dtype(float))
        steps = along(library.radam(1.0, b2=0.9999), ones[0], ones)[0]
        return int(np.argmax(np.abs(steps) < 0.5))

    assert plain_steps(optim) == 5
    with jax.enable_x64(True):
        assert plain_steps(optim) == 5
    optax_still(plain_steps(optax) < 5, "radam's rho, lost to cancellation in float32")


def test_rprop_steps_along_the_gradient_it_is_given() -> None:
    """optax's first update is 0, and each later one is along the gradient before."""

    def first(library: Any) -> float:
        return float(along(library.rprop(0.1), np.float32(1), np.float32([2]))[0][0])

    np.testing.assert_allclose(first(optim), -0.1, rtol=1e-6)
    optax_still(first(optax) == 0.0, "rprop along the gradient of the step before")
