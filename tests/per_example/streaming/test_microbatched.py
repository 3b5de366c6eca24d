"""Microbatches give the losses, statistics and gradient of the batch in one piece."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn.per_example import (
    Directional,
    Margin,
    Projection,
    SecondMoment,
    SqNorms,
    Statistic,
    Variance,
    microbatched_value_and_grad,
    value_and_grad,
)
from jaxnn.per_example.forms import explicit
from jaxnn.per_example.streaming.statistic import Part
from tests.helpers import assert_close, float64, random

N, T, D = 11, 3, 4


def problem() -> tuple[Any, Any, Any]:
    """A scanned stack, a table used twice, a bias; batches of indices and of arrays with examples on the last axis."""
    params = {"stack": random(0, 2, D, D), "table": random(1, 5, D), "b": random(2, D)}
    return (
        jax.tree.map(jnp.asarray, params),
        jnp.asarray(np.arange(N * T).reshape(N, T) % 5),
        jnp.asarray(random(3, D, N)),
    )


def loss(params: Any, tokens: Any, y: Any) -> Any:
    h = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), params["table"][tokens] + params["b"][None], params["stack"])[0]
    return jnp.sum((h @ params["table"].T) ** 2) + jnp.vdot(h[-1], y), h


class EntrySum(Statistic):
    """A user's own: the sum of the entries of each example's gradient."""

    def prepare(self, param: Any, params: Any) -> Part:
        return Part(param.path)

    def of_use(self, gradients: Any, part: Any) -> Any:
        return explicit(gradients.form).sum(axis=1)

    def combine(self, found: Any, batch: Any) -> Any:
        return sum(found.values())


def statistics(params: Any) -> Any:
    return {
        "whole": SqNorms(),
        "each": SqNorms(by="parameter"),
        "rest": (Margin(), Directional(params), Projection(jax.random.key(0), 6), SecondMoment()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 10, 11, 20])
@pytest.mark.parametrize("weighted", [True, False])
def test_microbatches_are_the_batch(size: int, weighted: bool) -> None:
    with float64(), jax.numpy_dtype_promotion("strict"):
        params, tokens, y = problem()
        weights = jnp.asarray([1.0, 0, 0, 0, 0, 2, 1, 1, 0, 1, 1]) if weighted else None
        if weighted:  # the examples of weight 0, a whole microbatch of them, have no finite loss
            y = y.at[:, 1:5].set(jnp.nan)
        how: dict[str, Any] = {"in_axes": (None, 0, -1), "has_aux": True}

        @jax.jit
        def both(params: Any, *batch: Any) -> Any:
            asked = statistics(params)
            whole, parts = (
                value_and_grad(loss, asked, **how),
                microbatched_value_and_grad(loss, asked, size=size, **how),
            )
            return whole(params, *batch, weights=weights), parts(params, *batch, weights=weights)

        expected, got = both(params, tokens, y)
        assert_close(got, expected, rtol=1e-11, atol=1e-12)
        for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
            assert a.dtype == b.dtype


@pytest.mark.slow
def test_in_so_many_bytes_and_with_a_statistic_of_ones_own() -> None:
    params, tokens, y = problem()
    without_aux = lambda *args: loss(*args)[0]  # noqa: E731
    how: dict[str, Any] = {"in_axes": (None, 0, 1)}
    expected = value_and_grad(without_aux, EntrySum(), **how)(params, tokens, y)
    vg = microbatched_value_and_grad(without_aux, EntrySum(), memory=20_000, **how)
    assert_close(jax.jit(vg)(params, tokens, y), expected, rtol=1e-4, atol=1e-5)
    assert "scan" in str(jax.make_jaxpr(vg)(params, tokens, y))


def test_a_mean_of_the_microbatches_means_would_be_another() -> None:
    """The mutant: equal weight for each microbatch, the smaller last one too."""
    x = jnp.asarray([[1.0], [2.0], [3.0]])
    first, last = (value_and_grad(jnp.vdot, SecondMoment())(jnp.ones(1), part)[0][1] for part in (x[:2], x[2:]))
    (_, found), _ = microbatched_value_and_grad(jnp.vdot, SecondMoment(), size=2)(jnp.ones(1), x)
    assert float(found[0]) == pytest.approx(14 / 3)
    assert float((first + last)[0] / 2) != pytest.approx(14 / 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: microbatched_value_and_grad(jnp.vdot, Variance(), size=2), ValueError, "Use SecondMoment"),
        (lambda: microbatched_value_and_grad(jnp.vdot, size=2, memory=8)(1.0, np.ones(3)), ValueError, "one of size"),
        (lambda: microbatched_value_and_grad(jnp.vdot)(1.0, np.ones(3)), ValueError, "one of size and memory"),
        (lambda: microbatched_value_and_grad(jnp.vdot, size=0)(1.0, np.ones(3)), ValueError, "size must be at least 1"),
        (lambda: microbatched_value_and_grad(jnp.vdot, SqNorms, size=1), TypeError, "statistics must be a statistic"),
        (
            lambda: microbatched_value_and_grad(jnp.vdot, size=1)(1.0, np.ones(3), weights=np.ones(2)),
            ValueError,
            "microbatched_value_and_grad: expected one weight for each of 3 examples",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
