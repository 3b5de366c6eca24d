"""A function in pieces gives what it gives at once; examples keep their order."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import microbatching
from jaxnn.microbatching import AccumulationType, Accumulator, micro_grad, micro_vmap, microbatch
from tests.helpers import assert_close, float64, slow

SUM, MEAN, CONCAT, RUNNING = (
    AccumulationType.SUM, AccumulationType.MEAN, AccumulationType.CONCAT, AccumulationType.RUNNING_MEAN,
)  # fmt: skip
NAMES = sorted(n for n in dir(optax.microbatching) if not n.startswith("_") and n != "annotations")


def statistics(w: Any, x: Any, *, y: Any) -> dict[str, Any]:
    error = x @ w - y["t"].T
    return {"sum": jnp.sum(error**2), "parts": (jnp.mean(error, axis=0), jnp.max(error)), "each": error}


@pytest.mark.parametrize("size", [2, *slow(1, 3, 6)])
def test_pieces_give_what_the_batch_gives(size: int) -> None:
    rng = np.random.default_rng(0)
    largest = Accumulator(
        lambda s: jnp.full(s.shape, -jnp.inf, s.dtype), lambda c, x, _: jnp.maximum(c, x), lambda c: c, jnp.max
    )
    how = {"sum": SUM, "parts": (MEAN, largest), "each": CONCAT}
    f = microbatch(statistics, 1, size, how, argnames="y", in_axes=(0, 1))
    with float64():
        w, x, y = (rng.standard_normal(s) for s in ((3, 2), (6, 3), (2, 6)))
        got, expected = jax.jit(lambda w, x, y: [g(w, x, y={"t": y}) for g in (f, statistics)])(w, x, y)
        assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_values_are_optaxs() -> None:
    """Pieces of the same examples, early stopping, gradients of examples."""

    def loss(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ w))

    def everything(m: Any, w: Any, x: Any) -> list[Any]:
        kind = m.AccumulationType
        grads, each = m.micro_grad(
            loss,
            microbatch_size=2,
            accumulator=(kind.SUM, kind.MEAN),
            transform_fn=lambda g: (g, g**2),
            metrics_fn=jnp.linalg.norm,
        )(w, x)
        return [
            m.reshape_batch_axis({"x": x}, 2),
            m.reshape_batch_axis(x.T, 3, 1),
            m.microbatch(jnp.sum, 0, 2, num_real_microbatches=2)(x),
            m.microbatch(lambda v: v.mean(), 0, 2, kind.RUNNING_MEAN, num_real_microbatches=2)(x),
            m.microbatch(lambda v: 2 * v, 0, 3, kind.CONCAT)(x),
            m.micro_vmap(loss, (None, 0), microbatch_size=3)(w, x),
            m.micro_vmap(loss, (None, 0), microbatch_size=3, accumulator=kind.SUM)(w, x),
            m.micro_vmap(lambda v, scale: v.sum() * scale, microbatch_size=3)(x, scale=x[:, 0]),
            (grads, tuple(each)),
        ]

    rng = np.random.default_rng(1)
    with float64():
        w, x = rng.standard_normal(3), rng.standard_normal((6, 3))
        got, expected = (
            jax.jit(lambda w, x, m=m: everything(m, w, x))(w, x) for m in (microbatching, optax.microbatching)
        )
    assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"Accumulator", "AccumulationType"}))
def test_arguments_are_optaxs(name: str) -> None:
    ours, optaxs = (
        [(p.name, p.kind) for p in inspect.signature(getattr(m, name)).parameters.values()]
        for m in (microbatching, optax.microbatching)
    )
    assert ours == optaxs


def test_every_name_is_here() -> None:
    assert all(hasattr(microbatching, name) for name in NAMES)
    assert [k.name for k in AccumulationType] == [k.name for k in optax.microbatching.AccumulationType]


def test_no_size_is_the_function_itself_and_the_derivative_passes() -> None:
    assert microbatch(jnp.sum, 0, None) is jnp.sum
    f = microbatch(lambda w, x: jnp.sum(jnp.sin(w * x)), -1, 2)
    x = np.arange(4, dtype=np.float32)
    assert_close(jax.jit(jax.grad(f))(0.5, x), np.sum(x * np.cos(0.5 * x)), rtol=1e-6)


def test_a_batch_axis_counts_from_the_end_too() -> None:
    x = jnp.arange(18.0).reshape(3, 6)
    found = microbatch(lambda x: jnp.sum(x, 1), 0, 2, in_axes=-1)(x)
    np.testing.assert_array_equal(found, jnp.sum(x, 1))


def test_half_precision_single_examples_without_a_batch_axis() -> None:
    grad = micro_grad(lambda w, x: (w * x).astype(jnp.float32), keep_batch_dim=False, accumulator=MEAN)
    total, each = jax.jit(grad)(np.asarray(1.0, jnp.bfloat16), np.arange(4, dtype=np.float32).astype(jnp.bfloat16))
    assert total.dtype == jnp.bfloat16
    assert float(total) == 1.5
    assert each.values.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_errors() -> None:
    x = np.arange(6, dtype=np.float32)
    with pytest.raises(ValueError, match="microbatch_size=4 must divide the batch, got 6 examples"):
        microbatch(jnp.sum, 0, 4)(x)
    with pytest.raises(ValueError, match=r"batch axes must have one size, got \[3, 6\]"):
        microbatch(jnp.dot, (0, 1), 3)(x, x[:3])
    with pytest.raises(ValueError, match="need floating results, got int32"):
        microbatch(lambda v: v.sum().astype(jnp.int32), 0, 3, MEAN)(x)
    with pytest.raises(TypeError, match="accumulator must be an AccumulationType"):
        microbatch(jnp.sum, 0, 3, "sum")(x)
    for call in (lambda: microbatch(jnp.sum, 0, 3)(a=x), lambda: microbatch(jnp.dot, 1, 3)(x, b=x)):
        with pytest.raises(TypeError, match=r"got [01] positional and the keywords \['[ab]'\] for \[[01]\]"):
            call()
    with pytest.raises(TypeError, match=r"for \['a'\]. Name each as it is passed"):
        microbatch(jnp.sum, (), 3, argnames="a")(x)
    with pytest.raises(ValueError, match="in_axes must name one axis"):
        microbatch(jnp.dot, (0, 1), 3, in_axes=(0,))
    with pytest.raises(ValueError, match="out_axes must be 0, got 1"):
        micro_vmap(jnp.sum, out_axes=1)
