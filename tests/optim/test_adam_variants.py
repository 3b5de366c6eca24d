"""Rules with Adam-like moments against transcriptions of their papers' algorithms, and at awkward gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, slow
from tests.optim.running import STEPS, along, descend, noise, start, traced

SHAPE = (4, 3)
MUTANTS: list[tuple[str, str, str, str]] = [
    ("adam", "adam", "nu_hat = nu / cast_like(c2, nu)", "nu_hat = nu"),
    ("adam", "adam: eps_root", "safe_sqrt(nu_hat + cast_like(eps_root, nu))",
     "(safe_sqrt(nu_hat) + cast_like(eps_root, nu))"),
    ("adam", "adam: schedule", "mu = d1 * mu + (1 - d1) * g", "mu = d2 * mu + (1 - d2) * g"),
    ("adam", "nadam", "d1 * mu / cast_like(next_c1, nu)", "d1 * mu / cast_like(c1, nu)"),
    ("adam", "adam", "count = increment(state.count)", "count = increment(increment(state.count))"),
    ("adam_variants", "adamax: eps", "cast_like(b2, nu) * nu, jnp.abs(g)", "nu, jnp.abs(g)"),
    ("adam_variants", "adamax: eps", "jnp.abs(g) + cast_like(eps, nu)", "jnp.abs(g)"),
    ("adam_variants", "adamax", "safe_divide(mu / (1 - d1 ** count.astype(nu.dtype)), nu)", "safe_divide(mu, nu)"),
    ("adam_variants", "amsgrad", "jnp.maximum(nu_max, nu / (1 - d2**t) if", "(nu / (1 - d2**t) if"),
    ("adam_variants", "amsgrad: eps_root", "safe_sqrt(nu_max + cast_like(eps_root, nu))", "jnp.sqrt(nu_max)"),
    ("adam_variants", "adamaxw", "weight_decay=weight_decay", "weight_decay=0.0"),
    ("belief", "adabelief", "abs_sq(g - mu) + cast_like(eps_root, nu)\n            mu_hat",
     "abs_sq(g)\n            mu_hat"),
    ("belief", "adabelief: eps", "safe_sqrt(nu / (1 - d2**t)) + cast_like(eps, nu)",
     "jnp.sqrt(nu / (1 - d2**t) + eps)"),
    ("belief", "acprop", "jnp.maximum(state.count, 1)", "increment(state.count)"),
    ("belief", "yogi", "nu - (1 - d2) * jnp.sign(nu - abs_sq(g))", "nu + (1 - d2) * jnp.sign(nu - abs_sq(g))"),
    ("belief", "scale_by_yogi", "mu = initial_moment(params, fill=initial_accumulator_value)",
     "mu = initial_moment(params)"),
    ("radam", "radam: early", "2 * t / jnp.expm1(-t * jnp.log1p(d2 - 1))", "2 * t * d2**t"),
    ("radam", "radam: early", "rho >= jnp.maximum(cast_like(threshold, nu), 4)", "rho >= 4"),
    ("radam", "radam: early", "(rho - 4) * (rho - 2) * rho_inf", "(rho - 4) * rho * rho_inf"),
    ("radam", "radam: nesterov", "if nesterov:", "if False:"),
    ("adan", "adan: decay", "abs_sq(g + w * difference)", "abs_sq(g + (1 - w) * difference)"),
    ("adan", "adan", "jnp.where(state.count == 0, jnp.zeros_like(g), g - before)", "g - before"),
    ("adan", "adan", "n_hat = m / (1 - d1**t), v", "n_hat = m, v"),
    ("adan", "adan: decay", "m_hat + w * v_hat", "m_hat + v_hat"),
    ("novograd", "novograd", "jnp.where(first, size, d2 * nu + (1 - d2) * size)", "d2 * nu + (1 - d2) * size"),
    ("novograd", "novograd: decay", "step = step + cast_like(weight_decay, nu) * p", "step = step"),
    ("novograd", "novograd", "jnp.sum(abs_sq(g))", "jnp.mean(abs_sq(g))"),
    ("novograd", "novograd: decay", "* mu + step", "* mu + (1 - cast_like(b1, nu)) * step"),
    ("ademamix", "ademamix", "m2 = d3 * m2 + (1 - d3) * g", "m2 = d1 * m2 + (1 - d1) * g"),
    ("ademamix", "ademamix: schedules", "at_count(alpha, state.count)\n\n        def rule(g: Array, m1",
     "at_count(alpha, state.count + 1)\n\n        def rule(g: Array, m1"),
    ("ademamix", "ademamix", "m1 / (1 - d1**t) +", "m1 +"),
    ("ademamix", "simplified_ademamix: alpha", "m = cast_like(b1, n) * m + g",
     "m = cast_like(b1, n) * m + (1 - b1) * g"),
    ("adopt", "adopt: nesterov", "jnp.maximum(safe_sqrt(nu), cast_like(eps, nu))",
     "(jnp.sqrt(nu) + cast_like(eps, nu))"),
    ("adopt", "adopt", "h = jnp.clip(h, -bound, bound)", "h = jnp.clip(h, -1.0, 1.0)"),
    ("adopt", "adopt: nesterov", "if nesterov else mu", "if False else mu"),
    ("adopt", "adopt: unclipped", "jnp.where(first, abs_sq(g), d2", "jnp.where(first, 0 * g, d2"),
    ("descent", "adamw", "-cast_like(rate, step) * step", "cast_like(rate, step) * step"),
]  # fmt: skip


def adamax(alpha: float, b1: float, b2: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Kingma and Ba."""
    theta, m, u = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g))
        theta = theta - alpha / (1 - b1**t) * m / u
    return theta, m, u


def amsgrad(alpha: float, b1: float, b2: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Reddi, Kale and Kumar: no bias is corrected, and there is no eps."""
    x, m, v, v_hat = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for xi in noise(*SHAPE):
        g = x + xi
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_hat = np.maximum(v_hat, v)
        x = x - alpha * m / np.sqrt(v_hat)
    return x, m, v_hat


def adabelief(alpha: float, b1: float, b2: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Zhuang et al. (2020)."""
    theta, m, s = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        theta = theta - alpha * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
    return theta, m, s


def acprop(alpha: float, b1: float, b2: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Zhuang et al. (2021): the update uses s of the step before; s measures from the new m."""
    theta, m, s = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        s_hat = s / (1 - b2 ** (t - 1)) if t > 1 else np.ones(SHAPE)
        theta = theta - alpha * g / (np.sqrt(s_hat) + eps)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
    return theta, m, s


def yogi(alpha: float, b1: float, b2: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Zaheer et al., with the bias corrections of Adam that optax has and the paper has not."""
    x, m, v = start(*SHAPE), np.full(SHAPE, 1e-6), np.full(SHAPE, 1e-6)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = x + xi
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        x = x - alpha * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return x, m, v


def radam(alpha: float, b1: float, b2: float, threshold: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Liu et al., with the threshold as an argument and no eps."""
    theta, m, v = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    rho_inf = 2 / (1 - b2) - 1
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        v = b2 * v + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g
        m_hat = m / (1 - b1**t)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho > threshold:
            length = np.sqrt((1 - b2**t) / v)
            r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            theta = theta - alpha * r * m_hat * length
        else:
            theta = theta - alpha * m_hat
    return theta, m, v


def adan(eta: float, beta1: float, beta2: float, beta3: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 1 of Xie et al. in the paper's betas (1 minus the decays), with the bias corrections of its code."""
    theta, m, v, n = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    before = None
    for k, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        difference = np.zeros(SHAPE) if before is None else g - before
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * difference
        n = (1 - beta3) * n + beta3 * (g + (1 - beta2) * difference) ** 2
        corrected = (m / (1 - (1 - beta1) ** k), v / (1 - (1 - beta2) ** k), n / (1 - (1 - beta3) ** k))
        theta = theta - eta / (np.sqrt(corrected[2]) + eps) * (corrected[0] + (1 - beta2) * corrected[1])
        before = g
    return theta, m, v, n


def novograd(alpha: float, b1: float, b2: float, eps: float, d: float) -> tuple[np.ndarray, ...]:
    """Algorithm 1 of Ginsburg et al. for one layer."""
    w = start(*SHAPE)
    v, m = 0.0, np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = w + xi
        v = np.sum(g**2) if t == 1 else b2 * v + (1 - b2) * np.sum(g**2)
        m = b1 * m + (g / (np.sqrt(v) + eps) + d * w)
        w = w - alpha * m
    return w, m, np.asarray(v)


def ademamix(eta: float, b1: float, b2: float, b3: float, alpha: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 1 of Pagliardini, Ablin and Grangier without warm-up schedules."""
    theta, m1, m2, nu = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3 * m2 + (1 - b3) * g
        nu = b2 * nu + (1 - b2) * g**2
        theta = theta - eta * (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(nu / (1 - b2**t)) + eps)
    return theta, m1, m2, nu


def simplified_ademamix(eta: float, b1: float, b2: float, alpha: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 1 of Morwani et al."""
    theta, m, n = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE), start=1):
        g = theta + xi
        m = b1 * m + g
        n = b2 * n + (1 - b2) * g**2
        theta = theta - eta * (m + alpha * g) / (np.sqrt(n / (1 - b2**t)) + eps)
    return theta, m, n


def adopt(alpha: float, b1: float, b2: float, eps: float) -> tuple[np.ndarray, ...]:
    """Algorithm 2 of Taniguchi et al. with c_t = t^(1/4); v_0 is the square of the first gradient."""
    theta, m, v = start(*SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for t, xi in enumerate(noise(*SHAPE)):
        g = theta + xi
        if t == 0:
            v = g * g
            continue
        m = b1 * m + (1 - b1) * np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        theta = theta - alpha * m
        v = b2 * v + (1 - b2) * g * g
    return theta, m, v


PAPERS = {
    "adamax": (optim.adamax(0.1, eps=0.0), adamax(0.1, 0.9, 0.999), ("mu", "nu")),
    "amsgrad": (
        optim.amsgrad(0.01, b2=0.9, eps=0.0, bias_correction_mu=False, bias_correction_nu=False),
        amsgrad(0.01, 0.9, 0.9), ("mu", "nu_max"),
    ),
    "adabelief": (optim.adabelief(0.02, eps=1e-4, eps_root=1e-4), adabelief(0.02, 0.9, 0.999, 1e-4), ("mu", "nu")),
    "yogi": (optim.yogi(0.05), yogi(0.05, 0.9, 0.999, 1e-3), ("mu", "nu")),
    "radam": (optim.radam(0.05, b2=0.95, eps=0.0, threshold=4.0), radam(0.05, 0.9, 0.95, 4.0), ("mu", "nu")),
    "adan": (optim.adan(0.05, eps_root=0.0), adan(0.05, 0.02, 0.08, 0.01, 1e-8), ("m", "v", "n")),
    "novograd": (optim.novograd(0.05, weight_decay=0.1), novograd(0.05, 0.9, 0.25, 1e-6, 0.1), ("mu", "nu")),
    "ademamix": (optim.ademamix(0.02), ademamix(0.02, 0.9, 0.999, 0.9999, 5.0, 1e-8), ("m1", "m2", "nu")),
    "simplified_ademamix": (
        optim.simplified_ademamix(1e-3, alpha=2.0), simplified_ademamix(1e-3, 0.99, 0.95, 2.0, 1e-8), ("m", "n"),
    ),
    "adopt": (optim.adopt(0.05), adopt(0.05, 0.9, 0.9999, 1e-6), ("mu", "nu")),
}  # fmt: skip


QUICK = ("adabelief", "radam", "adan", "novograd", "adopt")


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in PAPERS if name not in QUICK))])
def test_equals_the_paper_in_parameters_and_state(name: str) -> None:
    opt, (theta, *moments), fields = PAPERS[name]
    params, state = descend(opt, *SHAPE)
    assert_close(params, theta, rtol=1e-12, atol=1e-13)
    for field, expected in zip(fields, moments, strict=True):
        assert_close(getattr(state, field), expected, rtol=1e-11, atol=1e-13)
    assert state.count == STEPS


def test_acprop_is_the_published_rule_up_to_a_factor_in_the_learning_rate() -> None:
    """The papers' s measures from the new mean: b1^2 times ours, which is optax's."""
    rate, b1, eps = 0.02, 0.9, 1e-4
    theta, m, s = acprop(rate, b1, 0.999, eps)
    opt = optim.acprop(
        lambda count: jnp.where(count == 0, rate * (1 + eps / b1) / (1 + eps), rate / b1),
        b1,
        eps=eps / b1,
        eps_root=eps / b1**2,
    )
    params, state = descend(opt, *SHAPE)
    assert_close(params, theta, rtol=1e-12, atol=1e-13)
    assert_close(state.mu, m, rtol=1e-11, atol=1e-13)
    assert_close(np.asarray(state.nu) * b1**2, s, rtol=1e-11)


NO_EPS: dict[str, dict[str, float]] = {
    "acprop": {"eps": 0.0, "eps_root": 0.0},
    "adabelief": {"eps": 0.0, "eps_root": 0.0},
    "adan": {"eps": 0.0, "eps_root": 0.0},
    "adamaxw": {"eps": 0.0, "weight_decay": 0.0},
}


@pytest.mark.parametrize("dtype", [np.float16, *slow(np.float32)])
def test_gradients_of_zero_never_give_nan(dtype: Any) -> None:
    """With the default eps and without any; a parameter that has had no gradient then stays (Yogi's may drift)."""
    opts = {}
    for name in (*PAPERS, "acprop", "adamaxw"):
        opts[name] = getattr(optim, name)(0.1)
        opts[f"{name} without eps"] = getattr(optim, name)(0.1, **NO_EPS.get(name, {"eps": 0.0}))

    def body(carry: Any, g: Any) -> Any:
        updates, states = {}, {}
        for name, opt in opts.items():
            updates[name], states[name] = opt.update(g, carry[name], jnp.ones_like(g))
        return states, updates

    run = jax.jit(lambda g: jax.lax.scan(body, {name: opt.init(g[0]) for name, opt in opts.items()}, g)[1])
    for name, updates in run(np.zeros((8, 3), dtype)).items():
        assert np.isfinite(updates).all(), name
        if name.endswith("without eps") and not name.startswith("yogi"):
            assert not np.any(updates), name


def test_adopt_does_not_move_at_its_first_step() -> None:
    updates, _, state = along(optim.adopt(0.1), np.float32(1), np.float32([2]))
    assert updates == 0
    assert state.nu == 4


def radam_directions(gradient: float, steps: int, b2: Any = 0.999, threshold: Any = 5.0) -> Any:
    """Of rectified Adam, for a gradient that stays the same."""
    opt, g = optim.scale_by_radam(b2=b2, threshold=threshold), jnp.float32(gradient)
    return jax.lax.scan(lambda state, _: opt.update(g, state)[::-1], opt.init(g), length=steps)[1]


def test_radam_starts_as_momentum_and_ends_rectified() -> None:
    """The first steps have the direction mu_hat, of the size of the gradient; later ones the size of Adam's."""
    sizes = np.asarray(jax.jit(lambda: radam_directions(1000.0, 8))())
    np.testing.assert_allclose(sizes[:5], 1000.0, rtol=1e-5)
    assert max(sizes[5:]) < 1


def test_radam_rectifies_in_float32_as_in_float64() -> None:
    """rho = rho_inf - 2 t b2^t / (1 - b2^t) cancels: evaluated as written in float32 it begins too soon."""
    decays, t = np.array([[0.99], [0.999], [0.9999]]), np.arange(1, 13)
    rho_inf, powers = 2 / (1 - decays) - 1, decays**t
    rho = rho_inf - 2 * t * powers / (1 - powers)
    r_sq = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    expected = np.where(rho >= 5, np.sqrt(np.maximum(r_sq, 0)), 100.0)
    found = jax.jit(lambda: [radam_directions(100.0, 12, b2) for b2 in decays[:, 0].tolist()])()
    np.testing.assert_allclose(np.stack(found), expected, rtol=5e-3)


def test_radam_is_momentum_where_r_is_not_real() -> None:
    """Below rho = 4 whatever the threshold; b2 = 0.5 never gets above it."""
    both = jax.jit(lambda: [radam_directions(10.0, *s, threshold=0.0) for s in ((4, 0.999), (50, 0.5))])()
    for found in both:
        np.testing.assert_allclose(found, 10.0, rtol=1e-5)


def test_the_threshold_of_radam_may_be_traced() -> None:
    run = jax.jit(jax.vmap(lambda threshold: radam_directions(100.0, 8, threshold=threshold)))
    momentum = np.asarray(run(np.float32([4.5, 6.5]))) > 50
    np.testing.assert_array_equal(momentum.sum(axis=1), [4, 6])


def test_adan_weighs_differences_as_published_unless_told() -> None:
    """Second step from gradients 0 then 1: m_hat = 1 / (1 + b1), v_hat = 1 / (1 + b2), n_hat = (1 + w)^2 / (1 + b3)."""
    for weight, w in ((None, 0.92), (0.08, 0.08)):
        opt = optim.scale_by_adan(eps=0.0, difference_weight=weight)
        updates, _, _ = along(opt, np.zeros((), np.float32), np.float32([0, 1]))
        expected = (1 / 1.98 + w / 1.92) / ((1 + w) / np.sqrt(1.99))
        np.testing.assert_allclose(updates[1], expected, rtol=1e-5)


@traced
def test_mu_dtype_holds_for_means_of_gradients_alone() -> None:
    for name, means in (
        ("amsgrad", ["mu"]),
        ("scale_by_novograd", ["mu"]),
        ("ademamix", ["m1", "m2"]),
        ("adopt", ["mu"]),
    ):
        rate = () if name.startswith("scale") else (0.1,)
        opt = getattr(optim, name)(*rate, mu_dtype=jnp.bfloat16)
        _, state = opt.update(jnp.ones(2), opt.init(jnp.ones(2)), jnp.ones(2))
        assert {getattr(state, field).dtype for field in means} == {jnp.dtype(jnp.bfloat16)}
        assert state.nu.dtype == jnp.float32


@pytest.mark.parametrize("decay", [0.0, 0.1])
@traced
def test_novograd_needs_parameters_only_to_decay_them(decay: float) -> None:
    opt = optim.novograd(0.1, weight_decay=decay)
    state = opt.init(jnp.ones(2))
    if decay:
        with pytest.raises(ValueError, match="novograd: update needs the parameters"):
            opt.update(jnp.ones(2), state)
    else:
        assert opt.update(jnp.ones(2), state)[0].shape == (2,)


@pytest.mark.parametrize("name", ["adopt", "simplified_ademamix"])
@traced
def test_rules_for_real_parameters_say_so(name: str) -> None:
    with pytest.raises(TypeError, match=rf"split_real_and_imaginary\({name}"):
        getattr(optim, name)(0.1).init(jnp.ones(2, jnp.complex64))


def test_adabelief_decays_what_the_mask_names() -> None:
    """As optax's newer versions do: between the direction and the learning rate."""
    params, mask = {"w": np.float32([[2, -1]]), "b": np.float32([0.5])}, {"w": True, "b": False}
    ours = optim.adabelief(0.1, b2=0.9, weight_decay=0.3, weight_decay_mask=mask)
    theirs = optax.chain(
        optax.scale_by_belief(b2=0.9, eps=1e-16, eps_root=1e-16),
        optax.add_decayed_weights(0.3, mask),
        optax.scale_by_learning_rate(0.1),
    )
    grads = jax.tree.map(lambda p: np.cos(p + np.arange(3, dtype=np.float32).reshape(3, *[1] * p.ndim)), params)
    (updates, _, state), (expected, _, _) = (along(opt, params, grads) for opt in (ours, theirs))
    assert_close(updates, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="adabelief: update needs the parameters"):
        jax.eval_shape(ours.update, params, state)
    assert jax.eval_shape(optim.adabelief(0.1).update, params, state)[0]["w"].shape == (1, 2)
