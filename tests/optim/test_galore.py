"""GaLore against a transcription of its paper's algorithm, what it keeps and projects, and what it rejects."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxnn import optim
from tests.helpers import assert_close, random, slow
from tests.optim.running import STEPS, along, descend, noise, start, traced

LOW, KERNELS = "galore: low rank", "galore: kernels"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("galore", LOW, "state.count % gap == 0", "(state.count + 1) % gap == 0"),
    ("galore", LOW, "cast_like(scale, full) * full", "full"),
    ("galore", LOW, "[:, : p.shape[1]]", "[:, -p.shape[1] :]"),
    ("galore", LOW, "p @ u if left", "jnp.abs(p) @ u if left"),
    ("galore", KERNELS, "rows, columns = _axes(x.shape, numbers)", "columns, rows = _axes(x.shape, numbers)"),
    ("galore", "galore: decay", "weight_decay=weight_decay, mask=mask, where", "weight_decay=0.0, mask=mask, where"),
    ("galore", "galore: matrices", "g if svd_dtype is None else g.astype(svd_dtype)", "jnp.sign(g)"),
]


def algorithm_2(
    m: int, n: int, r: int, period: int, eta: float, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Adam with GaLore: (W, M, V, P). The paper writes it for m <= n and projects the other side where m > n."""
    w, b1, b2, eps = start(m, n), 0.9, 0.999, 1e-8
    first = second = p = np.zeros(())
    for t, xi in enumerate(noise(m, n)):
        g = w + xi
        if t % period == 0:
            u, _, vh = np.linalg.svd(g, full_matrices=False)
            p = u[:, :r] if m <= n else vh[:r].T
        low = p.T @ g if m <= n else g @ p
        first = b1 * first + (1 - b1) * low
        second = b2 * second + (1 - b2) * low**2
        scaled = (first / (1 - b1 ** (t + 1))) / (np.sqrt(second / (1 - b2 ** (t + 1))) + eps)
        w = w - eta * alpha * (p @ scaled if m <= n else scaled @ p.T)
    return w, first, second, p


@pytest.mark.parametrize(("shape", "period"), [((6, 3), 7), *slow(((3, 5), 100), ((4, 4), 30))])
def test_is_the_paper(shape: tuple[int, int], period: int) -> None:
    """Singular vectors are unique up to a sign, which turns the sign of a row of M, and of nothing else."""
    opt = optim.galore(0.05, 2, period, scale=0.5, shorter_side=True)
    params, state = jax.device_get(descend(opt, *shape))
    w, mu, nu, p = algorithm_2(*shape, 2, period, 0.05, 0.5)
    assert_close((params, state.base_optimizer_state.nu), (w, nu), rtol=1e-12, atol=1e-14)
    assert_close(np.abs(state.base_optimizer_state.mu), np.abs(mu), rtol=1e-10, atol=1e-13)
    assert_close(state.projector @ state.projector.T, p @ p.T, rtol=1e-11, atol=1e-13)
    assert state.count == STEPS


def test_a_full_rank_projection_is_the_base_rule_in_turned_coordinates() -> None:
    """A rule that is linear in the gradient does not see a basis that spans everything."""
    plain = optim.chain(optim.trace(0.9), optim.scale(-0.1))
    turned = optim.galore(0.1, 4, STEPS, base_optimizer=optim.trace(0.9))
    assert_close(descend(turned, 4, 4)[0], descend(plain, 4, 4)[0], rtol=1e-11, atol=1e-13)


def test_moments_and_projectors_are_small_and_wide() -> None:
    sizes = {"tall": (9, 4), "wide": (4, 9), "kernel": (3, 3, 2, 5), "bias": (4,)}
    params = {name: np.ones(size, jnp.bfloat16 if name == "tall" else np.float32) for name, size in sizes.items()}
    params["nothing"] = None
    state = jax.eval_shape(optim.galore(0.1, rank=2).init, params)
    shapes = {"tall": (9, 2), "wide": (9, 2), "kernel": (0, 0), "bias": (0, 0), "nothing": None}
    assert jax.tree.map(jnp.shape, state.projector) == shapes
    shapes = {"tall": (2, 4), "wide": (4, 2), "kernel": (3, 3, 2, 5), "bias": (4,), "nothing": None}
    assert jax.tree.map(jnp.shape, state.base_optimizer_state.mu) == shapes
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    shorter = jax.eval_shape(optim.galore(0.1, rank=2, shorter_side=True).init, params)
    assert shorter.projector["tall"].shape == shorter.projector["wide"].shape == (4, 2)
    assert shorter.base_optimizer_state.mu["tall"].shape == (9, 2)


@pytest.mark.slow
def test_an_hwio_kernel_is_projected_as_the_matrix_of_its_axes() -> None:
    kernel = random(0, 3, 3, 2, 5, dtype=np.float32)
    matrix = kernel.reshape(18, 5)
    numbers = optim.GaLoreDimensionNumbers((0, 1, 2), 3)
    given, flat = optim.scale_by_galore(3, weight_dimension_numbers=numbers), optim.scale_by_galore(3)
    updates, expected = (along(opt, x, x[None])[0] for opt, x in ((given, kernel), (flat, matrix)))
    assert_close(updates[0], expected.reshape(kernel.shape), rtol=1e-6)


def test_dimension_numbers_by_a_function_of_the_parameters_and_missing_gradients() -> None:
    def numbers(params: Any) -> Any:
        return {"a": None, "b": optim.GaLoreDimensionNumbers()}

    opt = optim.galore(0.1, 1, weight_dimension_numbers=numbers)
    params = {"a": np.ones((3, 2), np.float32), "b": np.ones((3, 2), np.float32)}

    @jax.jit
    def first(params: Any) -> Any:
        state = opt.init(params)
        return state, *opt.update({"a": params["a"], "b": None}, state, params)

    state, updates, new = first(params)
    assert updates["b"] is None
    assert_close(new.projector, state.projector, rtol=0)
    assert_close(updates["a"], np.full((3, 2), -0.1), rtol=1e-6)


def test_zero_gradients_and_ranks_above_the_gradients_are_safe() -> None:
    grads = np.stack([np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)])
    updates, _, state = along(optim.galore(0.1, 4, 1), grads[1], grads)
    assert not updates[0].any()
    assert np.isfinite(updates).all()
    assert_close(state.projector.T @ state.projector, np.eye(4), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_optaxs_own_shortfalls() -> None:
    """It fails on None leaves, and its bfloat16 projector is orthonormal to two digits; ours to seven."""
    with pytest.raises(AttributeError):
        optax.contrib.galore(0.1).init({"w": jnp.ones((2, 2)), "nothing": None})
    g = random(0, 40, 30, dtype=jnp.bfloat16)

    def off(opt: Any) -> float:
        p = np.asarray(jax.jit(lambda g: opt.update(g, opt.init(g))[1].projector)(g)).astype(np.float32)
        return float(np.abs(p.T @ p - np.eye(8)).max())

    assert off(optim.scale_by_galore(8)) < 1e-5
    assert off(optax.contrib.scale_by_galore(8)) > 1e-3


@traced
def test_bad_calls() -> None:
    for name in ("rank", "update_proj_gap"):
        with pytest.raises(ValueError, match=f"galore: {name} must be at least 1, got 0"):
            optim.galore(0.1, **{name: 0})
        with pytest.raises(TypeError, match=f"galore: {name} must be an int, got 1.5"):
            optim.galore(0.1, **{name: 1.5})
    with pytest.raises(TypeError, match=r"is complex .* split_real_and_imaginary\(galore"):
        optim.galore(0.1).init(jnp.ones((2, 2), complex))
    with pytest.raises(TypeError, match="galore: the wrapped value must be an optimizer"):
        optim.galore(0.1, base_optimizer=optim.adam)
    for numbers, shape in (((0, 0), (2, 2)), ((0, 1), (2, 2, 2)), ((0, 1), (2,)), ((0, (1, 2)), (2, 2))):
        opt = optim.galore(0.1, weight_dimension_numbers=[optim.GaLoreDimensionNumbers(*numbers)])
        with pytest.raises(ValueError, match="must together name every axis once"):
            opt.init([jnp.ones(shape)])
    opt = optim.galore(0.1, base_optimizer=optim.scale_by_trust_ratio())
    with pytest.raises(ValueError, match="update needs the parameters"):
        opt.update(jnp.ones((2, 2)), opt.init(jnp.ones((2, 2))), jnp.ones((2, 2)))
