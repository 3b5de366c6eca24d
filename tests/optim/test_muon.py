"""Muon against transcriptions of its papers, its Newton-Schulz steps on small Gram matrices, and its roles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.running import STEPS, along, descend, noise, start, traced

JORDAN = (3.4445, -4.7750, 2.0315)
MUTANTS: list[tuple[str, str, str, str]] = [
    ("muon", "muon", "JORDAN = (3.4445, -4.7750, 2.0315)", "JORDAN = (3.4445, -4.7750, 2.0317)"),
    ("muon", "muon: dion", "(2.8366, -3.0525, 1.2012)", "(2.8366, -3.0525, 1.2112)"),
    ("muon", "muon", "one_minus_power(beta, count + 1)", "one_minus_power(beta, count)"),
    ("muon", "muon", "(1 - d) * g / cast_like(c, mu) if nesterov", "(1 - d) * g if nesterov"),
    ("muon", "scale_by_muon: settings", "else mu / cast_like(c, mu)", "else mu"),
    ("muon", "scale_by_muon: adaptive", "jnp.sum(jnp.conj(mu_hat) * o) * o if adaptive", "o if adaptive"),
    ("muon", "muon: convolution", "max(1.0, columns / max(rows, 1)) ** 0.5", "max(1.0, rows / columns) ** 0.5"),
    ("muon", "muon: consistent rms", "max(rows, columns) ** 0.5", "min(rows, columns) ** 0.5"),
    ("muon", "muon: mask", "mask=weight_decay_mask", "mask=None"),
    ("muon", "muon: adam", "eps, adam_eps_root, mu_dtype, weight", "eps, 0.0, mu_dtype, weight"),
    ("newton_schulz", "orthogonalize_via_newton_schulz", "+ cast_like(b, gram) * gram", "- cast_like(b, gram) * gram"),
    ("newton_schulz", "orthogonalize_via_newton_schulz", "factor @ (factor @ gram)", "factor @ gram"),
    ("newton_schulz", "orthogonalize_via_newton_schulz", "factor @ product", "product"),
    ("newton_schulz", "orthogonalize_via_newton_schulz: aol", "gram * (row * row.mT)", "gram * row"),
    ("newton_schulz", "orthogonalize_via_newton_schulz: schatten", "scale * scale, gram", "scale, gram"),
    ("newton_schulz", "orthogonalize_via_newton_schulz: spectral", "eigvalsh(gram)[..., -1]", "eigvalsh(gram)[..., 0]"),
    ("muon_roles", "muon_with_roles", "4: MuonDimensionNumbers((0, 1, 2), 3)", "4: MuonDimensionNumbers((0, 1), 2)"),
    ("muon_roles", "muon_with_roles", '"head": head_learning_rate', '"head": adam_learning_rate'),
    ("muon_roles", "muon_with_roles: settings", "weight_decay=weight_decay", "weight_decay=0.0"),
]


def newton_schulz(g: np.ndarray, steps: int = 5, eps: float = 0.0) -> np.ndarray:
    """Jordan et al. (2024), `newtonschulz5`, line by line."""
    a, b, c = JORDAN
    x = g / (np.linalg.norm(g) + eps)
    if g.shape[0] > g.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


@pytest.mark.parametrize("shape", [(3, 8), *slow(((4, 3),), ((9, 2),))])
def test_muon_is_the_authors_algorithm(shape: tuple[int, int]) -> None:
    """B <- beta B + G; O = NewtonSchulz5(B); W <- W - eta sqrt(max(1, columns / rows)) O; W is x W here, W x there.

    Ours divides B by a number (1 - beta, and the bias correction), which the normalization takes away if eps = 0.
    """
    eta, beta = 0.01, 0.8
    w, b = start(*shape), np.zeros(shape)
    for xi in noise(*shape):
        b = beta * b + w + xi
        w = w - eta * max(1, shape[1] / shape[0]) ** 0.5 * newton_schulz(b)
    params, state = descend(optim.muon(eta, beta=beta, eps=0.0, nesterov=False), *shape)
    kept = state.inner_states["muon"].inner_state
    assert_close(params, w, rtol=1e-12, atol=1e-13)
    assert_close(kept.mu, (1 - beta) * b, rtol=1e-12, atol=1e-13)
    assert kept.count == STEPS


def test_nesterov_looks_ahead_with_corrected_means() -> None:
    """The authors take G + beta B; ours (and optax's) corrects both means, which differs in the first steps only."""
    eta, beta, eps = 0.01, 0.8, 1e-3
    w, m = start(4, 3), np.zeros((4, 3))
    for t, xi in enumerate(noise(4, 3), start=1):
        g = w + xi
        m = beta * m + (1 - beta) * g
        ahead = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        w = w - eta * newton_schulz(ahead, eps=eps)
    params, _ = descend(optim.muon(eta, beta=beta, eps=eps), 4, 3)
    assert_close(params, w, rtol=1e-12, atol=1e-13)


def test_consistent_rms_is_moonlights_update() -> None:
    """Liu et al. (2025), equation 4: W <- W - eta (0.2 sqrt(max(A, B)) O + lambda W)."""
    eta, beta, decay = 0.01, 0.9, 0.1
    w, m = start(3, 8), np.zeros((3, 8))
    for xi in noise(3, 8):
        m = beta * m + w + xi
        w = w - eta * (0.2 * np.sqrt(8) * newton_schulz(m) + decay * w)
    opt = optim.muon(eta, beta=beta, eps=0.0, weight_decay=decay, nesterov=False, consistent_rms=0.2)
    assert_close(descend(opt, 3, 8)[0], w, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_a_full_rank_direction_has_the_consistent_rms() -> None:
    for shape in ((64, 16), (16, 64), (32, 32)):
        opt = optim.muon(1.0, (2.0, -1.5, 0.5), 30, consistent_rms=0.2)
        x = random(0, 1, *shape, dtype=np.float32)
        update, _, _ = along(opt, x[0], x)
        assert abs(np.sqrt(np.mean(update**2)) - 0.2) < 1e-4


KINDS: Any = ("frobenius", "spectral", "aol", "schatten")


@pytest.mark.parametrize(("shape", "steps"), [((4, 40), 15), *slow(((5, 5), 40), ((40, 4), 40))])
def test_orthogonalize_reaches_the_polar_factor(shape: tuple[int, int], steps: int) -> None:
    """With coefficients that converge: U V', but of the rescaled rows where "aol" has rescaled them."""
    x = random(1, *shape)
    u, _, v = np.linalg.svd(x, full_matrices=False)

    @jax.jit
    def orthogonalized(x: Any) -> Any:
        return {kind: optim.orthogonalize_via_newton_schulz(x, (2.0, -1.5, 0.5), steps, kind) for kind in KINDS}

    with float64(), strict():
        found = jax.device_get(orthogonalized(x))
    for kind, o in found.items():
        small = o.T @ o if shape[0] > shape[1] else o @ o.T
        np.testing.assert_allclose(small, np.eye(min(shape)), rtol=0, atol=1e-12, err_msg=kind)
        if kind != "aol":
            np.testing.assert_allclose(o, u @ v, rtol=0, atol=1e-12, err_msg=kind)


SPECTRA = {
    "even": np.linspace(1, 1e-3, 32),
    "wide": np.logspace(0, -8, 32),
    "one large": np.r_[1, np.full(31, 1e-3)],
    "low rank": np.r_[np.ones(4), np.zeros(28)],
}


@pytest.mark.parametrize("tall", [False, *slow(True)])
def test_small_gram_matrices_keep_four_digits_in_float32(tall: bool) -> None:
    """Against the plain iteration in float64. With one Gram matrix for all steps, 5 steps would be 2e-3 off."""
    u, v = np.linalg.qr(random(0, 32, 32))[0], np.linalg.qr(random(1, 128, 32))[0]
    sides = np.stack([(u * spectrum) @ v.T for spectrum in SPECTRA.values()])
    sides = np.swapaxes(sides, 1, 2) if tall else sides

    @jax.jit
    @jax.vmap
    def after(x: Any) -> Any:
        return optim.orthogonalize_via_newton_schulz(x, JORDAN), optim.orthogonalize_via_newton_schulz(x, JORDAN, 20)

    for name, side, few, many in zip(SPECTRA, sides, *after(sides.astype(np.float32)), strict=True):
        expected = newton_schulz(side)
        assert np.linalg.norm(few - expected, 2) <= 1e-4 * np.linalg.norm(expected, 2), name
        # Steps enough to make rounding errors large by themselves; the result must stay bounded all the same.
        assert np.linalg.norm(many, 2) < 1.3, name


def test_zero_and_none_gradients() -> None:
    params = {"w": np.ones((3, 7), np.float32), "b": np.ones(3, np.float32), "none": None}
    zeros = jax.tree.map(np.zeros_like, params)

    @jax.jit
    def of_zeros(zeros: Any) -> Any:
        found = []
        for eps in (0.0, 1e-8):
            opt = optim.muon(0.1, eps=eps)
            updates, state = opt.update(zeros, opt.init(params), params)
            missing, _ = opt.update(zeros | {"w": None}, state, params)
            assert missing["w"] is None
            found.append(updates)
        return found, [optim.orthogonalize_via_newton_schulz(zeros["w"], JORDAN, 5, kind, 0.0) for kind in KINDS]

    updates, orthogonalized = of_zeros(zeros)
    assert_close(updates, [zeros, zeros], rtol=0)
    assert not np.any(orthogonalized)


@pytest.mark.slow
def test_stacked_layers_and_kernels_are_their_matrices() -> None:
    """A stack of 3 is 3 matrices; a kernel is the matrix whose rows are all inputs of an output."""
    grads = {
        "stack": random(0, 3, 4, 9, dtype=np.float32),
        "kernel": random(1, 3, 3, 2, 5, dtype=np.float32),
        "line": random(2, 5, 2, 4, dtype=np.float32),
    }
    roles = {"stack": "hidden", "kernel": "hidden", "line": optim.MuonDimensionNumbers((0, 1), 2)}
    opt = optim.muon_with_roles(0.1, roles)
    updates = jax.jit(lambda g: opt.update(g, opt.init(g), g)[0])(grads)
    alone = optim.muon(0.1)

    def matrix_update(g: np.ndarray) -> np.ndarray:
        return along(alone, g, g[None])[0][0]

    stack = np.stack([matrix_update(g) for g in grads["stack"]])
    kernel = matrix_update(grads["kernel"].reshape(18, 5)).reshape(3, 3, 2, 5)
    line = matrix_update(grads["line"].reshape(10, 4)).reshape(5, 2, 4)
    assert_close(updates, {"stack": stack, "kernel": kernel, "line": line}, rtol=1e-4, atol=1e-6)


def test_each_role_has_its_rate() -> None:
    params = {name: np.ones((4, 4), np.float32) for name in ("hidden", "embedding", "head", "vector")}
    opt = optim.muon_with_roles(
        0.1,
        {name: name for name in params},
        adam_learning_rate=0.001,
        embedding_learning_rate=0.3,
        head_learning_rate=0.02,
    )
    prefix = optim.muon_with_roles(0.1, lambda p: "head", head_learning_rate=0.5)
    updates, heads = jax.jit(lambda p: [o.update(p, o.init(p), p)[0] for o in (opt, prefix)])(params)
    for name, rate in (("embedding", 0.3), ("head", 0.02), ("vector", 0.001)):
        np.testing.assert_allclose(updates[name], -rate, rtol=1e-5)
    np.testing.assert_allclose(heads["hidden"], -0.5, rtol=1e-5)


@traced
def test_complaints() -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"hidden parameter must have 2 axes.* got \['b'\] of shape \(3,\).*'vector'"):
        optim.muon_with_roles(0.1, "hidden").init(params)
    with pytest.raises(ValueError, match=r"role of parameter \['b'\] must be one of 'hidden'.* got 'bias'"):
        optim.muon_with_roles(0.1, {"w": "hidden", "b": "bias"}).init(params)
    with pytest.raises(ValueError, match="roles must be a pytree like the parameters"):
        optim.muon_with_roles(0.1, {"w": "hidden"}).init(params)
    with pytest.raises(ValueError, match=r"shape \(3,\) must be a matrix of some of its axes"):
        optim.muon(0.1, muon_weight_dimension_numbers=optim.MuonDimensionNumbers()).init(params)
    with pytest.raises(ValueError, match="dimension numbers must be a pytree like the parameters"):
        optim.muon(0.1, muon_weight_dimension_numbers={"w": None}).init(params)
    with pytest.raises(TypeError, match=r"must be MuonDimensionNumbers, got \(0, 1\)"):
        optim.orthogonalize_via_newton_schulz(params["w"], JORDAN, dimension_numbers=(0, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be a matrix, got shape \(3,\)"):
        optim.scale_by_muon().init(params)
    with pytest.raises(ValueError, match="one of standard, dion, got 'jordan'"):
        optim.muon(0.1, "jordan")
    with pytest.raises(ValueError, match=r"ns_coeffs must be \(a, b, c\)"):
        optim.muon(0.1, (1.0, 2.0))
    with pytest.raises(ValueError, match="preconditioning must be one of"):
        optim.muon(0.1, preconditioning="ruiz")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ns_steps must be at least 1, got 0"):
        optim.muon(0.1, ns_steps=0)
    with pytest.raises(ValueError, match=r"consistent_rms must lie in \[0, inf\)"):
        optim.muon(0.1, consistent_rms=-1.0)
    with pytest.raises(ValueError, match=r"adam_learning_rate must lie in \[0, inf\)"):
        optim.muon(0.1, adam_learning_rate=-1.0)
