"""SOAP against a transcription of its paper's algorithms 3 and 4, its bases, and what is not rotated."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, float64, random, slow, strict
from tests.optim.mutants import CAUGHT, mutated
from tests.optim.running import STEPS, along, descend, noise, start, traced

ETA, B1, B2 = 0.05, 0.9, 0.95


@dataclasses.dataclass(frozen=True)
class Setting:
    """A shape, the axes that are rotated, and arguments."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    every: int = 7
    beta: float | None = None
    eps: float = 1e-8
    sort: bool = True
    longest: int = 10000
    vectors: bool = False

    def rule(self, library: Any = optim) -> optim.Optimizer:
        """SOAP with these arguments."""
        arguments = (B1, B2, self.beta, self.eps, 0.0, None, self.every, self.longest, self.vectors)
        return library.soap(ETA, *arguments, sort=self.sort)


SETTINGS = {
    "paper": Setting((4, 4), (0, 1), sort=False),
    "sorted": Setting((4, 4), (0, 1), every=3, beta=0.8, eps=1e-2),
    "kernel": Setting((3, 3, 2, 4), (0, 1, 2, 3), every=10),
    "long axis": Setting((3, 5), (0,), longest=4),
    "vector": Setting((3,), (), every=2),
    "rotated vector": Setting((2,), (0,), every=2, vectors=True),  # of more entries one gradient leaves a basis open
}

BROKEN = [
    ("paper", "transpose=into", "transpose=not into"),
    ("paper", "orthonormal(product)", "orthonormal(q)"),
    ("paper", "(h)[1][:, ::-1]", "(h)[1]"),
    ("paper", "kept(b1, m, g)", "kept(b2, m, g)"),
    ("paper", "jnp.maximum(state.count, 1)", "state.count + 1"),
    ("paper", "state.count % every == 0, 2", "(state.count + 1) % every == 0, 2"),
    ("paper", "jnp.where(first, n, kept", "jnp.where(first, n + g * g, kept"),
    ("sorted", "jnp.take(y, order, axis), product[:, order]", "y, product[:, order]"),
    ("sorted", "argsort(-jnp", "argsort(jnp"),
    ("sorted", "beta = b2 if shampoo_beta is None else shampoo_beta", "beta = b2"),
    (
        "sorted",
        "safe_sqrt(n / cast_like(c2, n)) + cast_like(eps, n)",
        "jnp.sqrt(n / cast_like(c2, n) + cast_like(eps, n))",
    ),
    ("sorted", "into=True) / cast_like(c1, m)", "into=True)"),
    ("long axis", 'longest = require_positive_int("soap", "max_precond_dim", max_precond_dim)', "longest = 100"),
    ("vector", "and not precondition_1d", "and precondition_1d"),
    ("rotated vector", "(len(shape) == 1 and not precondition_1d)", "len(shape) == 1"),
]
"""(setting that must catch it, text of soap.py, broken text)."""


def turn(x: np.ndarray, q: np.ndarray, axis: int) -> np.ndarray:
    """Every fibre v along the axis becomes q v."""
    return np.moveaxis(np.tensordot(q, x, (1, axis)), 0, axis)


def eigenvectors(h: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Algorithm 4: one step of power iteration."""
    return np.linalg.qr(h @ q)[0]


def algorithm_3(s: Setting) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """SOAP for every axis in `axes`: (W, V, the factors H). The first gradient is only measured, as the authors do."""
    w, beta = start(*s.shape), B2 if s.beta is None else s.beta
    m = v = np.zeros(s.shape)
    h, q = {i: np.zeros(()) for i in s.axes}, {}
    for t, xi in enumerate(noise(*s.shape)):
        g = w + xi
        if t > 0:
            g_turned = g
            for i in s.axes:
                g_turned = turn(g_turned, q[i].T, i)
            m = B1 * m + (1 - B1) * g
            m_turned = m
            for i in s.axes:
                m_turned = turn(m_turned, q[i].T, i)
            v = B2 * v + (1 - B2) * g_turned * g_turned
            n = m_turned / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + s.eps)
            for i in s.axes:
                n = turn(n, q[i], i)
            w = w - ETA * n
        for i in s.axes:
            unfolded = np.moveaxis(g, i, 0).reshape(s.shape[i], -1)
            h[i] = beta * h[i] + (1 - beta) * unfolded @ unfolded.T
            if t == 0:
                q[i] = np.flip(np.asarray(jnp.linalg.eigh(h[i])[1]), 1)  # one choice where eigenvalues are equal
            elif t % s.every == 0:
                if s.sort:
                    order = np.argsort(-np.diag(q[i].T @ h[i] @ q[i]))
                    q[i], v = q[i][:, order], np.take(v, order, i)
                q[i] = eigenvectors(h[i], q[i])
    return w, v, list(h.values())


def difference(name: str, library: Any = optim) -> float:
    """The largest relative difference of parameters and nu from the transcription (bases are unique but for signs)."""
    setting = SETTINGS[name]
    with float64():
        params, state = descend(setting.rule(library), *setting.shape)
        w, v, _ = algorithm_3(setting)
        gaps = [np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)) for a, b in ((params, w), (state.nu, v))]
    return float(max(gaps)) if np.isfinite(gaps).all() else float("inf")


@pytest.mark.parametrize("name", ["paper", "long axis", *slow("sorted", "kernel", "vector", "rotated vector")])
def test_is_the_paper(name: str) -> None:
    assert difference(name) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("name", "old", "new"), BROKEN)
def test_broken_rules_are_caught(name: str, old: str, new: str) -> None:
    assert difference(name, mutated("soap", old, new)) > CAUGHT


@pytest.mark.slow
def test_the_statistics_are_the_papers_and_the_bases_orthogonal() -> None:
    with float64():
        setting = SETTINGS["kernel"]
        _, state = descend(setting.rule(), *setting.shape)
        assert_close(state.statistics, tuple(algorithm_3(setting)[2]), rtol=1e-11, atol=1e-12)
        for q in state.bases:
            assert_close(q.T @ q, np.eye(len(q)), rtol=0, atol=1e-13)
    assert state.count == STEPS


@pytest.mark.slow
def test_bases_tend_to_eigenvectors_largest_first() -> None:
    """With one gradient distribution, power steps make Q' H Q diagonal."""
    scales = np.array([[8.0], [4.0], [2.0], [1.0]])
    opt = optim.scale_by_soap(shampoo_beta=0.99, precondition_frequency=1)
    with float64():

        def body(state: Any, g: Any) -> tuple[Any, None]:
            return opt.update(g, state)[1], None

        draws = random(0, 1000, 4, 50) * scales
        state = jax.jit(lambda g: jax.lax.scan(body, opt.init(g[0]), g)[0])(draws)
        q, h = np.asarray(state.bases[0]), np.asarray(state.statistics[0])
        turned = q.T @ h @ q
        assert_close(turned - np.diag(np.diag(turned)), np.zeros((4, 4)), rtol=0, atol=0.02 * turned[0, 0])
        assert (np.diff(np.diag(turned)) < 0).all()


@pytest.mark.slow
def test_is_adam_but_one_step_later_where_nothing_is_rotated() -> None:
    """The first gradient only measures, so Adam from the second one on."""
    draws = random(0, 20, 5)
    with float64():
        updates, x, s = along(optim.soap(0.1, b1=0.9, b2=0.99), np.zeros(5), draws)
        _, y, a = along(optim.adam(0.1, b1=0.9, b2=0.99), np.zeros(5), draws[1:])
    assert_close(updates[0], np.zeros(5), rtol=0)
    assert_close((x[-1], s.mu, s.nu), (y[-1], a.mu, a.nu), rtol=1e-12)
    assert s.statistics == ()


def test_what_is_not_rotated_has_no_bases() -> None:
    opt = optim.scale_by_soap()

    def twice(x: Any) -> Any:
        state = opt.init(x)
        assert state.bases == ()
        _, state = opt.update(x, state)
        return opt.update(x, state)[0]

    arrays = [np.ones(shape, np.float32) for shape in ((), (1, 1), (4,), (1, 4), (0, 3))]
    assert_close(jax.jit(lambda arrays: [twice(x) for x in arrays])(arrays), arrays, rtol=1e-6)


def test_the_bias_correction_may_be_left_out() -> None:
    opt = optim.scale_by_soap(0.5, 0.75, correct_bias=False, eps=0.0)
    grads = np.float32([[2, -2], [2, -2]])
    updates, _, _ = along(opt, grads[0], grads)
    assert_close(updates[1], np.float32([1, -1]), rtol=1e-6)  # 0.5 g / sqrt(0.25 g^2)


@pytest.mark.parametrize("shape", [(3, 4), *slow(((3, 3, 2, 4),))])
def test_zero_gradients_and_rank_one_gradients_are_safe(shape: tuple[int, ...]) -> None:
    opt = optim.scale_by_soap(eps=0.0, precondition_frequency=1)
    grads = np.stack([np.full(shape, size, np.float32) for size in (0, 0, 1, -1, 0, 0)])

    def body(state: Any, g: Any) -> Any:
        updates, state = opt.update(g, state)
        return state, (updates, state)

    updates, states = jax.jit(lambda g: jax.lax.scan(body, opt.init(g[0]), g)[1])(grads)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, states)))
    assert all(np.linalg.norm(update) < 100 for update in updates)
    assert not np.any(updates[:2])


def test_dtypes_none_leaves_and_missing_gradients() -> None:
    params = {"kernel": np.ones((3, 3, 2, 4), jnp.bfloat16), "bias": np.ones(4, jnp.bfloat16), "nothing": None}
    opt = optim.soap(0.1, weight_decay=0.1, mask={"kernel": True, "bias": False, "nothing": False})
    grads = {"kernel": np.ones((3, 3, 2, 4), np.float32), "bias": None, "nothing": None}

    @jax.jit
    def first(params: Any) -> Any:
        state = opt.init(params)
        return state, *opt.update(grads, state, params)

    state, updates, new = first(params)
    assert updates["kernel"].dtype == jnp.bfloat16
    assert updates["bias"] is None
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert_close((new.mu["bias"], new.nu["bias"]), (state.mu["bias"], state.nu["bias"]), rtol=0)
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
    opt = optim.soap(0.1, weight_decay=0.1)

    def body(carry: Any, _: Any) -> tuple[Any, Any]:
        params, state = carry
        grads = jax.tree.map(lambda p: p.astype(grads_dtype), params)
        updates, state = opt.update(grads, state, params)
        assert [u.dtype for u in jax.tree.leaves(updates)] == [params_dtype] * 3
        without, _ = optim.scale_by_soap().update(grads, state)
        assert [u.dtype for u in jax.tree.leaves(without)] == [grads_dtype] * 3
        return (optim.apply_updates(params, updates), state), None

    with strict():
        jax.eval_shape(lambda p: jax.lax.scan(body, (p, opt.init(p)), length=3), params)


@pytest.mark.slow
def test_the_decay_is_decoupled_and_times_the_learning_rate() -> None:
    with float64():
        x = random(0, 1, 3, 4)
        updates, _, _ = along(optim.soap(0.5, weight_decay=0.1), x[0], x)
        assert_close(updates, -0.05 * x, rtol=1e-12)  # the first direction is 0


@traced
def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="soap: precondition_frequency must be at least 1, got 0"):
        optim.soap(0.1, precondition_frequency=0)
    with pytest.raises(ValueError, match="soap: max_precond_dim must be at least 1, got 0"):
        optim.soap(0.1, max_precond_dim=0)
    with pytest.raises(ValueError, match=r"soap: shampoo_beta must lie in \[0, 1\), got -1"):
        optim.soap(0.1, shampoo_beta=-1.0)
    with pytest.raises(ValueError, match=r"soap: eps must lie in \[0, inf\), got -1"):
        optim.soap(0.1, eps=-1.0)
    with pytest.raises(TypeError, match=r"is complex .* split_real_and_imaginary\(soap"):
        optim.soap(0.1).init(jnp.ones((2, 2), complex))
