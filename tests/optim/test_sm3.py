"""SM3 against a transcription of its paper's second algorithm, on arrays of every rank."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import assert_close, random, slow
from tests.optim.running import STEPS, along, descend, noise, start, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("sm3", "sm3", "jnp.minimum, [", "jnp.maximum, ["),
    ("sm3", "sm3", "functools.reduce(largest, reversed(axes), total)", "jnp.sum(total, tuple(axes))"),
    ("sm3", "sm3", "* g * g + d2 * least", "* jnp.abs(g) + d2 * least"),
    ("sm3", "sm3", "nu = d1 * nu + (1 - d1) * direction", "nu = d1 * nu + direction"),
    ("sm3", "scale_by_sm3: b2 and eps", "jnp.where(d2 == 1, jnp.ones_like(d2), 1 - d2) * g", "g"),
    (
        "sm3",
        "scale_by_sm3: b2 and eps",
        "safe_sqrt(total + cast_like(eps, total))",
        "(safe_sqrt(total) + cast_like(eps, total))",
    ),
    ("sm3", "sm3: no momentum", "0.0 if momentum is None", "0.9 if momentum is None"),
]


def sm3_ii(eta: float, beta: float, *shape: int) -> tuple[np.ndarray, dict[tuple[int, int], float], np.ndarray]:
    """Algorithm SM3-II, entry by entry; the sets S_r are the slices (axis, index). With momentum beta on the steps."""
    w, m = start(*shape), np.zeros(shape)
    entries = list(np.ndindex(*shape))
    sets = [(axis, index) for axis, size in enumerate(shape) for index in range(size)] or [(0, 0)]

    def holding(i: tuple[int, ...]) -> list[tuple[int, int]]:
        return list(enumerate(i)) or [(0, 0)]

    mu = dict.fromkeys(sets, 0.0)
    for xi in noise(*shape):
        g = w + xi
        new = dict.fromkeys(sets, 0.0)
        nu = np.zeros(shape)
        for i in entries:
            nu[i] = min(mu[r] for r in holding(i)) + g[i] ** 2
            for r in holding(i):
                new[r] = max(new[r], nu[i])
        mu = new
        m = beta * m + (1 - beta) * g / np.sqrt(nu)
        w = w - eta * m
    return w, mu, m


@pytest.mark.parametrize("shape", [(3, 4), *slow(((),), ((5,),), ((2, 3, 2),))])
def test_is_the_paper(shape: tuple[int, ...]) -> None:
    opt = optim.chain(optim.scale_by_sm3(b1=0.9, eps=0.0), optim.scale(-0.2))
    params, (state, _) = descend(opt, *shape)
    w, mu, m = sm3_ii(0.2, 0.9, *shape)
    assert_close(params, np.asarray(w), rtol=1e-12, atol=1e-13)
    assert_close(state.nu, m, rtol=1e-11, atol=1e-13)
    ours = list(itertools.chain.from_iterable(np.ravel(vector) for vector in state.mu))
    np.testing.assert_allclose(ours, list(mu.values()), rtol=1e-12)
    assert state.count == STEPS


def test_the_sums_are_optaxs_by_axis_instead_of_by_array() -> None:
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    grads = {"w": random(0, 3, 2, 3, dtype=np.float32), "b": random(1, 3, 3, dtype=np.float32)}
    states = [along(library.sm3(0.1), params, grads)[2] for library in (optim, optax)]
    ours, theirs = states[0].mu, states[1][0].mu
    assert_close(
        ({k: ours[0][k] for k in params}, {"w": ours[1]["w"]}),
        ({k: theirs[k][0] for k in params}, {"w": theirs["w"][1]}),
        rtol=1e-6,
    )
    assert ours[1]["b"] is None


def test_a_vector_is_adagrad() -> None:
    sm3, state = descend(optim.sm3(0.3, momentum=None), 5)
    adagrad, expected = descend(optim.adagrad(0.3, 0.0, 1e-8), 5)
    assert_close(sm3, adagrad, rtol=1e-12, atol=1e-14)
    assert_close(state.mu[0], expected.sum_of_squares, rtol=1e-12)
    assert state.nu is None


def test_a_scalar_parameter_moves_where_optax_raises() -> None:
    x = np.ones(1, np.float32)
    assert_close(along(optim.sm3(0.1, momentum=0.0), x[0], x)[0], np.float32([-0.1]), rtol=1e-6)
    theirs = optax.sm3(0.1)
    try:
        jax.eval_shape(lambda x: theirs.update(x, theirs.init(x), x), x[0])
    except IndexError:
        return
    pytest.skip(f"optax {optax.__version__} mended this: scalars in sm3")


def test_a_missing_gradient_keeps_its_sums_and_zero_over_zero_is_zero() -> None:
    params = {"a": np.ones((2, 2), np.float32), "b": np.ones((2, 3), np.float32), "none": None}
    opt, zeros = optim.scale_by_sm3(eps=0.0), np.zeros((2, 2), np.float32)

    @jax.jit
    def two(params: Any) -> Any:
        _, state = opt.update(params, opt.init(params), params)
        return state, *opt.update({"a": zeros, "b": None, "none": None}, state, params)

    state, updates, new = two(params)
    assert updates["b"] is None
    assert_close([t["b"] for t in new.mu], [t["b"] for t in state.mu], rtol=0)
    assert_close(new.nu["b"], state.nu["b"], rtol=0)
    assert_close(along(opt, zeros, zeros[None])[0], zeros[None], rtol=0)


@traced
def test_bad_calls() -> None:
    with pytest.raises(ValueError, match=r"sm3: b1 must lie in \[0, 1\), got 1"):
        optim.sm3(0.1, momentum=1.0)
    with pytest.raises(ValueError, match=r"sm3: b2 must lie in \[0, 1\], got 1.5"):
        optim.scale_by_sm3(b2=1.5)
    with pytest.raises(TypeError, match=r"sm3: parameter .* is complex .* split_real_and_imaginary"):
        optim.sm3(0.1).init(jnp.ones(2, jnp.complex64))
