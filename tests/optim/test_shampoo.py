"""Shampoo against transcriptions of its paper's algorithms and of the practice since, and where roots are unsafe."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.mutants import CAUGHT, mutated
from tests.optim.running import STEPS, along, descend, noise, start, traced

ETA = 0.1
PUBLISHED = {"b1": 0.0, "b2": 1.0, "graft": None, "update_every": 1, "relative_eps": 0.0}
"""The settings of the paper; `eps` is its epsilon."""

BROKEN = [
    ("matrices", "-0.5 / len(sums)", "-1.0 / len(sums)"),
    ("matrices", "h, h, eps, relative_eps)", "h, h, 0.5 * eps, relative_eps)"),
    ("tensors", "second_moments(g, axis, h)", "second_moments(abs(g), axis, h)"),
    ("tensors", "exponent = -0.5 / len(sums)", "exponent = -0.25"),
    ("tensors", "multiply(direction, axis, factor)", "multiply(direction, axis, abs(factor))"),
    ("practice", "state.count % every == 0", "(state.count + 1) % every == 0"),
    ("practice", "h, h, eps, relative_eps)", "h, h, eps, 0.5 * relative_eps)"),
    ("practice", "_power(h / cast_like(c2, h),", "_power(h,"),
    ("practice", "jnp.where(d2 == 1, 1.0, 1 - d2)", "1.0 + 0 * d2"),
    ("practice", "m / cast_like(c1, m)", "m"),
    ("practice", "norm(s), norm(u)", "norm(u), norm(s)"),
    ("practice", "map_leaves(preconditioned, means,", "map_leaves(preconditioned, wide,"),
    ("practice", "safe_sqrt(n / cast_like(c2, n)) + cast_like(graft_eps, n)", "jnp.sqrt(n / cast_like(c2, n)) + 1"),
]
"""(comparison that must catch it, text of shampoo.py, broken text)."""


def power(h: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(h)
    return vectors @ np.diag(values**exponent) @ vectors.T


def algorithm_1(m: int, n: int, epsilon: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Shampoo, matrix case."""
    w, left, right = start(m, n), epsilon * np.eye(m), epsilon * np.eye(n)
    for xi in noise(m, n):
        g = w + xi
        left = left + g @ g.T
        right = right + g.T @ g
        w = w - ETA * power(left, -1 / 4) @ g @ power(right, -1 / 4)
    return w, [left, right]


def algorithm_2(shape: tuple[int, ...], epsilon: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Shampoo, general tensor case of order k."""
    k, w = len(shape), start(*shape)
    h = [epsilon * np.eye(n) for n in shape]
    for xi in noise(*shape):
        g = preconditioned = w + xi
        for i in range(k):
            unfolded = np.moveaxis(g, i, 0).reshape(shape[i], -1)
            h[i] = h[i] + unfolded @ unfolded.T
            preconditioned = np.moveaxis(np.tensordot(power(h[i], -1 / (2 * k)), preconditioned, (1, i)), 0, i)
        w = w - ETA * preconditioned
    return w, h


def in_practice(m: int, n: int, b1: float, b2: float, ridge: float, every: int, eps: float) -> np.ndarray:
    """Means instead of sums, roots that are computed at times, a relative ridge, and the norm of Adam's step."""
    w, left, right, mean, square = start(m, n), 0.0, 0.0, 0.0, 0.0
    for t, xi in enumerate(noise(m, n), start=1):
        g = w + xi
        mean = b1 * mean + (1 - b1) * g
        square = b2 * square + (1 - b2) * g**2
        left = b2 * left + (1 - b2) * g @ g.T
        right = b2 * right + (1 - b2) * g.T @ g
        if t % every == 1 % every:
            hats = [h / (1 - b2**t) for h in (left, right)]
            p, q = (power(h + (eps + ridge * np.linalg.norm(h, 2)) * np.eye(len(h)), -1 / 4) for h in hats)
        m_hat = mean / (1 - b1**t)
        adam = m_hat / (np.sqrt(square / (1 - b2**t)) + eps)
        direction = p @ m_hat @ q
        w = w - ETA * np.linalg.norm(adam) / np.linalg.norm(direction) * direction
    return w


def difference(comparison: str, library: Any = optim) -> float:
    """The largest relative difference of parameters from a transcription."""
    if comparison == "matrices":
        got = descend(library.shampoo(ETA, eps=1e-2, **PUBLISHED), 4, 3)[0]
        expected = algorithm_1(4, 3, 1e-2)[0]
    elif comparison == "tensors":
        got = descend(library.shampoo(ETA, eps=1e-2, **PUBLISHED), 3, 2, 4)[0]
        expected = algorithm_2((3, 2, 4), 1e-2)[0]
    else:
        settings = {"b1": 0.8, "b2": 0.95, "relative_eps": 1e-3, "update_every": 7, "graft_eps": 0.1}
        got = descend(library.shampoo(ETA, eps=0.1, **settings), 4, 3)[0]
        expected = in_practice(4, 3, 0.8, 0.95, 1e-3, 7, 0.1)
    found = float(np.max(np.abs(np.asarray(got) - expected)) / np.max(np.abs(expected)))
    return found if found == found else float("inf")


@pytest.mark.parametrize("comparison", ["practice", *slow("matrices", "tensors")])
def test_is_the_paper_and_the_practice(comparison: str) -> None:
    assert difference(comparison) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("comparison", "old", "new"), BROKEN)
def test_broken_rules_are_caught(comparison: str, old: str, new: str) -> None:
    assert difference(comparison, mutated("shampoo", old, new)) > CAUGHT


@pytest.mark.parametrize("shape", [(3, 4), *slow(((5,),), ((2, 3, 2),), ((3, 3, 2, 4),))])
def test_the_statistics_are_the_papers(shape: tuple[int, ...]) -> None:
    """The paper's begin with epsilon on the diagonal; here it is added when the root is taken."""
    params, state = descend(optim.shampoo(ETA, eps=1e-2, **PUBLISHED), *shape)
    w, h = algorithm_2(shape, 1e-2)
    assert_close(params, w, rtol=1e-12, atol=1e-13)
    expected = tuple(moments - 1e-2 * np.eye(len(moments)) for moments in h)
    assert_close(state.statistics, expected, rtol=1e-11, atol=1e-11)
    roots = tuple(power(moments, -1 / (2 * len(shape))) for moments in h)
    assert_close(state.preconditioners, roots, rtol=1e-11, atol=1e-12)
    assert state.count == STEPS
    assert state.mu is None
    assert state.nu is None


def test_axes_of_length_one_are_left_out_and_a_number_is_adagrads() -> None:
    flat, padded = (descend(optim.shampoo(ETA, **PUBLISHED, eps=1e-3), *shape)[0] for shape in ((3, 4), (1, 3, 1, 4)))
    assert_close(padded.reshape(3, 4), flat, rtol=1e-12)
    number, x, total = descend(optim.shampoo(ETA, **PUBLISHED, eps=0.0))[0], float(start()), 0.0
    for xi in noise():
        g = x + float(xi)
        total += g**2
        x -= ETA * g / np.sqrt(total)
    assert_close(number, np.asarray(x), rtol=1e-12)


def test_a_long_axis_keeps_the_diagonal() -> None:
    params, state = descend(optim.shampoo(ETA, eps=1e-2, max_dim=3, **PUBLISHED), 3, 5)
    w, left, right = start(3, 5), 1e-2 * np.eye(3), 1e-2 * np.ones(5)
    for xi in noise(3, 5):
        g = w + xi
        left, right = left + g @ g.T, right + np.sum(g**2, 0)
        w = w - ETA * power(left, -1 / 4) @ g * right ** (-1 / 4)
    assert_close(params, w, rtol=1e-12, atol=1e-13)
    assert [h.shape for h in state.statistics] == [(3, 3), (5,)]


def test_grafted_to_sgd_the_step_has_the_length_of_the_gradient() -> None:
    g = random(0, 1, 3, 4, dtype=np.float32)
    updates, _, state = along(optim.scale_by_shampoo(b1=0.0, graft="sgd"), g[0], g)
    assert_close(np.linalg.norm(updates), np.linalg.norm(g), rtol=1e-6)
    assert state.nu is None
    assert np.vdot(updates, g) > 0  # a direction of ascent, since the preconditioners are positive


@pytest.mark.slow
def test_roots_are_computed_at_every_kth_step_only() -> None:
    opt = optim.scale_by_shampoo(update_every=3)

    def body(state: Any, g: Any) -> Any:
        _, state = opt.update(g, state)
        return state, state.preconditioners[0][0, 0]

    seen = jax.jit(lambda g: jax.lax.scan(body, opt.init(g[0]), g)[1])(random(0, 7, 3, 4, dtype=np.float32)).tolist()
    assert [a == b for a, b in itertools.pairwise(seen)] == [True, True, False, True, True, False]


SHAPES, GRAFTS = [(), (4,), (3, 4), (3, 3, 2, 4), (1, 1), (0, 3)], ["adam", "sgd", None]
CASES = list(itertools.product(SHAPES, GRAFTS))


@pytest.mark.parametrize(("shape", "graft"), [((3, 4), "adam"), *slow(*(c for c in CASES if c != ((3, 4), "adam")))])
def test_zero_gradients_and_rank_one_gradients_are_safe(shape: tuple[int, ...], graft: Any) -> None:
    opt = optim.scale_by_shampoo(eps=0.0, relative_eps=0.0, graft=graft, graft_eps=0.0, update_every=1)
    grads = np.stack([np.full(shape, size, np.float32) for size in (0, 1, -1, 0)])
    updates, _, _ = along(opt, grads[0], grads)
    assert np.isfinite(updates).all()
    assert np.abs(updates).max(initial=0.0) < 10
    assert not np.any(updates[0])


def test_a_rank_one_gradient_in_float32_gives_its_unit_direction() -> None:
    """L^(-1/4) u v' R^(-1/4) is u v' over |u||v|, though L and R have rank one."""
    u, v = random(0, 30), random(1, 20)
    g = np.outer(u, v).astype(np.float32)
    updates, _, _ = along(optim.scale_by_shampoo(b1=0.0, graft=None), g, g[None])
    expected = np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
    assert_close(updates[0], expected, rtol=0, atol=1e-4)


def test_dtypes_none_leaves_and_missing_gradients() -> None:
    params = {"kernel": np.ones((3, 3, 2, 4), jnp.bfloat16), "bias": np.ones(4, jnp.bfloat16), "nothing": None}
    opt = optim.shampoo(0.1, weight_decay=0.1, mask={"kernel": True, "bias": False, "nothing": False})
    grads = {"kernel": np.ones((3, 3, 2, 4), np.float32), "bias": None, "nothing": None}

    @jax.jit
    def first(params: Any) -> Any:
        state = opt.init(params)
        return state, *opt.update(grads, state, params)

    state, updates, new = first(params)
    assert updates["kernel"].dtype == jnp.bfloat16
    assert updates["bias"] is None
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert_close([t["bias"] for t in new.statistics], [t["bias"] for t in state.statistics], rtol=0)
    assert [t["kernel"].shape for t in new.statistics] == [(3, 3), (3, 3), (2, 2), (4, 4)]
    assert jax.tree.structure(new) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("params_dtype", "grads_dtype"),
    [
        (jnp.bfloat16, jnp.float32),
        *slow((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.bfloat16), (jnp.float32, jnp.float32)),
    ],
)
@traced
def test_keeps_its_dtypes_under_scan_and_promotes_nothing(params_dtype: Any, grads_dtype: Any) -> None:
    params = {"w": np.ones((4, 3), params_dtype), "parts": (np.ones(4, params_dtype), np.ones((), params_dtype))}
    opt = optim.shampoo(0.1, weight_decay=0.1)

    def body(carry: Any, _: Any) -> tuple[Any, Any]:
        params, state = carry
        grads = jax.tree.map(lambda p: p.astype(grads_dtype), params)
        updates, state = opt.update(grads, state, params)
        assert [u.dtype for u in jax.tree.leaves(updates)] == [params_dtype] * 3
        without, _ = optim.scale_by_shampoo().update(grads, state)
        assert [u.dtype for u in jax.tree.leaves(without)] == [grads_dtype] * 3
        return (optim.apply_updates(params, updates), state), None

    with strict():
        jax.eval_shape(lambda p: jax.lax.scan(body, (p, opt.init(p)), length=3), params)


@pytest.mark.slow
def test_the_decay_is_decoupled_and_times_the_learning_rate() -> None:
    with float64():
        x = random(0, 1, 3, 4)
        plain, decayed = (along(optim.shampoo(0.5, weight_decay=decay), x[0], x + 1)[0] for decay in (0.0, 0.1))
        assert_close(decayed, plain - 0.05 * x, rtol=1e-12)


@traced
def test_bad_calls() -> None:
    with pytest.raises(ValueError, match=r'shampoo: graft must be "adam", "sgd" or None, got \'rms\''):
        optim.shampoo(0.1, graft="rms")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shampoo: update_every must be at least 1, got 0"):
        optim.shampoo(0.1, update_every=0)
    with pytest.raises(ValueError, match="shampoo: max_dim must be at least 1, got 0"):
        optim.shampoo(0.1, max_dim=0)
    with pytest.raises(ValueError, match=r"shampoo: b2 must lie in \[0, 1\], got 1.5"):
        optim.shampoo(0.1, b2=1.5)
    with pytest.raises(ValueError, match=r"shampoo: relative_eps must lie in \[0, inf\), got -1"):
        optim.shampoo(0.1, relative_eps=-1.0)
    with pytest.raises(TypeError, match=r"is complex .* split_real_and_imaginary\(shampoo"):
        optim.shampoo(0.1).init(jnp.ones((2, 2), complex))
