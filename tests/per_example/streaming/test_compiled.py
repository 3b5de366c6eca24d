"""The streamed pass under jit, vmap, scan, checkpoint and its own derivative, and in the precision that users run."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import per_example
from jaxnn.per_example import Directional, Margin, SecondMoment, SqNorms, Variance
from jaxnn.per_example.streaming import dense
from tests.helpers import float64, random, slow
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import EXACT, SINGLE
from tests.per_example.recording.losses import Drawn, Made, make
from tests.per_example.streaming.losses import N, hard
from tests.per_example.streaming.oracles import gaps, worst

SUMS = {"squares": SqNorms(), "moment": SecondMoment(), "variance": Variance()}


def _each(made: Made, params: Any) -> Any:
    return jax.vmap(jax.grad(made.loss), (None, *(0 for _ in made.data)))(params, *made.data)


def meta_gap(name: str) -> float:
    """How far the derivative of a function of the norms, moments, slopes and the gradient is from that of the same by
    vmap(grad)."""
    made = make(name)
    direction = jax.tree.map(lambda p: random(np.size(p), *np.shape(p)), made.params)

    def of(found: Any, slopes: Any, total: Any) -> Any:
        parts = [jnp.sum(x**2) for x in jax.tree.leaves((found["moment"], found["variance"], total))]
        return (
            jnp.sum(jnp.sqrt(found["squares"]) * jnp.arange(1.0, N + 1)) + jnp.sum(jnp.sin(slopes)) + 0.3 * sum(parts)
        )

    def ours(params: Any) -> Any:
        vg = per_example.value_and_grad(made.loss, SUMS | {"slopes": Directional(direction)})
        (_, found), total = vg(params, *made.data)
        return of(found, found["slopes"], total)

    def explicit(params: Any) -> Any:
        g = _each(made, params)
        rows = jnp.concatenate([x.reshape(N, -1) for x in jax.tree.leaves(g)], axis=1)
        along = jnp.concatenate([x.ravel() for x in jax.tree.leaves(direction)])
        found = {"squares": (rows**2).sum(1), "moment": (rows**2).mean(0), "variance": rows.var(0)}
        return of(found, rows @ along, rows.sum(0))

    a, b = jax.jit(lambda params: (jax.grad(ours)(params), jax.grad(explicit)(params)))(made.params)
    return gap(vector(a), vector(b))


@pytest.mark.parametrize("name", ["mlp", *slow("scanned_blocks", "fallbacks")])
def test_the_derivative_of_a_pass(name: str) -> None:
    with float64():
        assert meta_gap(name) <= EXACT


@pytest.mark.proof
@pytest.mark.parametrize("name", ["tied", "lookups", "attention", "cnn", "joined"])
def test_the_derivative_of_a_pass_of_more_kinds(name: str) -> None:
    with float64():
        assert meta_gap(name) <= EXACT


@pytest.mark.slow
def test_derivatives_with_respect_to_data_and_weights() -> None:
    with float64():
        made = make("mlp")
        weights = np.array([1.0, 2.0, 0.5, -3.0, 1.0])

        def ours(x: Any, w: Any) -> Any:
            return jnp.sum(
                jnp.sqrt(per_example.value_and_grad(made.loss)(made.params, x, made.data[1], weights=w)[0][1])
            )

        def explicit(x: Any, w: Any) -> Any:
            g = _each(made._replace(data=(x, made.data[1])), made.params)
            return jnp.sum(
                jnp.abs(w) * jnp.sqrt(sum(jnp.sum(leaf.reshape(N, -1) ** 2, 1) for leaf in jax.tree.leaves(g)))
            )

        a, b = (jax.jit(jax.grad(f, (0, 1)))(made.data[0], weights) for f in (ours, explicit))
        assert gap(vector(a), vector(b)) <= EXACT


def test_forward_mode_says_that_it_cannot() -> None:
    """JAX has no forward-mode derivative of a custom_vjp's backward pass; reverse over reverse does it."""
    made = hard("loops in loops")
    vg = per_example.value_and_grad(made.loss)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda p: vg(p, *made.data)[0][1], (made.params,), (made.params,))


@pytest.mark.parametrize("name", ["mlp", *slow("scanned_blocks")])
def test_under_every_transformation(name: str) -> None:
    """Eager, jit in jit, over parameter sets, in a scan over batches, rematerialized: each as alone."""
    with float64():
        made = make(name)
        vg = per_example.value_and_grad(made.loss, SUMS)
        sets = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), made.params)
        batches = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), made.data)

        @jax.jit
        def every(params: Any) -> Any:
            alone = vg(params, *made.data)
            over = jax.vmap(lambda p: vg(p, *made.data))(sets)
            scanned = lax.scan(lambda c, b: (c, vg(c, *b)), params, batches)[1]
            again = jax.checkpoint(jax.jit(vg))(params, *made.data)
            mapped = jax.vmap(lambda *b: vg(params, *b))(*batches)
            double = vg(jax.tree.map(lambda p: 2 * p, params), *made.data)
            return alone, double, over, scanned, mapped, again

        alone, double, over, scanned, mapped, again = every(made.params)

        def part(tree: Any, i: int) -> np.ndarray:
            return vector(jax.tree.map(lambda x: x[i], tree))

        assert gap(vector(again), vector(alone)) <= EXACT
        assert gap(part(over, 0), vector(alone)) <= EXACT
        assert gap(part(over, 1), vector(double)) <= EXACT
        for both in (scanned, mapped):
            assert gap(part(both, 0), vector(alone)) <= EXACT
            assert gap(np.asarray(both[0][1]["squares"])[1], np.asarray(alone[0][1]["squares"])[::-1]) <= EXACT
            assert gap(vector(jax.tree.map(lambda x: x[1], both[1])), vector(alone[1])) <= EXACT
        if name == "mlp":
            assert gap(vector(vg(made.params, *made.data)), vector(alone)) <= EXACT


@pytest.mark.parametrize("name", ["mlp", *slow("scanned_blocks", "attention")])
def test_in_float32(name: str) -> None:
    """Against vmap(grad) in float64, of the same numbers."""
    with float64():
        wide = make(name)
        narrow = jax.tree.map(lambda x: np.asarray(x, np.float32) if x.dtype == np.float64 else x, wide[1:])
        wide = Made(
            wide.loss, *jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, narrow)
        )
        g = flat(jax.jit(lambda p: _each(wide, p))(wide.params))
    (losses, found), total = jax.jit(per_example.value_and_grad(wide.loss, SUMS))(narrow[0], *narrow[1])
    assert {x.dtype.name for x in jax.tree.leaves((losses, found, total))} == {"float32"}
    assert gap(found["squares"], (g**2).sum(1)) <= SINGLE
    assert gap(vector(found["moment"]), (g**2).mean(0)) <= SINGLE
    assert gap(vector(found["variance"]), g.var(0)) <= SINGLE
    assert gap(vector(total), g.sum(0)) <= SINGLE


def _scanned_half(p: Any, x: Any) -> Any:
    """Parameters are cast ahead of a loop over their slices, as flax does with dtype=bfloat16."""

    @jax.checkpoint
    def block(h: Any, w: Any) -> Any:
        return jnp.tanh(h @ w[0] + w[1]), None

    layers = jax.tree.map(lambda w: w.astype(jnp.bfloat16), (p["w"], p["b"]))
    return jnp.mean(lax.scan(block, x.astype(jnp.bfloat16), layers)[0].astype(jnp.float32) ** 2)


@pytest.mark.parametrize("stored", ["float32", *slow("bfloat16")])
def test_in_bfloat16(stored: str) -> None:
    """Statistics are float32 with the rounding of bfloat16; gradients are those of jax.grad, in its dtypes."""
    r = Drawn(0)
    params = jax.tree.map(lambda x: jnp.asarray(x, stored), {"w": r(3, 8, 8), "b": r(3, 8)})
    x = np.asarray(r(6, 5, 8), np.float32)
    direction = jax.tree.map(jnp.ones_like, params)
    vg = per_example.value_and_grad(_scanned_half, SUMS | {"slope": Directional(direction), "margin": Margin()})

    @jax.jit
    def both(params: Any) -> Any:
        plain = jax.grad(lambda p: jnp.sum(jax.vmap(_scanned_half, (None, 0))(p, x)))(params)
        return vg(params, x), plain, jax.vmap(jax.grad(_scanned_half), (None, 0))(params, x)

    ((_, found), total), plain, g = both(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(total)} == {stored}
    rows = flat(g)
    assert gap(found["squares"], (rows**2).sum(1)) < 0.02
    assert gap(vector(found["moment"]), (rows**2).mean(0)) < 0.02
    assert gap(found["slope"], rows.sum(1)) < 0.02
    assert gap(vector(total), vector(plain)) < 0.02


def test_casts_ahead_of_a_loop_in_float64() -> None:
    """The sums over examples are in the accumulation dtype of the parameter, not of the slice."""
    with float64():
        r = Drawn(0)
        params, x = {"w": r(3, 4, 4), "n": np.asarray(r(2, 4, 4), np.float32)}, r(N, 4)

        def loss(p: Any, x: Any) -> Any:
            h = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x.astype(jnp.float32), p["w"].astype(jnp.float32))[0]
            return jnp.sum(
                lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h.astype(jnp.float64), p["n"].astype(jnp.float64))[0]
            )

        (_, found), total = jax.jit(per_example.value_and_grad(loss, SUMS))(params, x)
        for tree in (found["moment"], found["variance"]):
            assert {path: leaf.dtype.name for path, leaf in tree.items()} == {"w": "float64", "n": "float32"}
        assert {path: leaf.dtype.name for path, leaf in total.items()} == {"w": "float64", "n": "float32"}
        found = gaps(Made(loss, params, (x,)), ["sq_norms", "second_moment", "directional"])
        assert worst(found) < 2e-6


@pytest.mark.parametrize("densely", [True, *slow(False)])
def test_both_ways_of_a_matrix(densely: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients formed in chunks for all statistics at once, as where T is large, and without."""
    monkeypatch.setattr(dense, "pays", lambda form, operations: densely)
    monkeypatch.setattr(dense, "CPU_BYTES", 300)
    with float64():
        for weights in (None, np.array([1.0, 0.0, 2.0, -1.0, 0.5])):
            found = gaps(make("attention"), ["sq_norms", "second_moment"], weights)
            assert worst(found) <= EXACT, found
        assert worst(gaps(make("attention"), ["sq_norms"])) <= EXACT


@pytest.mark.slow
def test_long_sequences_choose_by_shape() -> None:
    """T = 256 positions of 4 x 4 matrices: the norm by the gradients, and no (T, T) matrix."""
    made = Made(lambda p, x: jnp.sum(jnp.tanh(x @ p["w"])), {"w": random(0, 4, 4)}, (random(1, N, 256, 4),))
    with float64():
        assert worst(gaps(made, ["sq_norms"])) <= EXACT
        text = jax.jit(per_example.value_and_grad(made.loss)).lower(made.params, *made.data).compile().as_text()
    assert "256,256" not in text


def test_exported_for_cuda_and_tpu_and_run_again() -> None:
    with float64():
        made = hard("loops in loops")
        f = jax.jit(per_example.value_and_grad(made.loss, {"squares": SqNorms(), "moment": SecondMoment()}))
        exported = jax.export.export(f, platforms=["cpu", "cuda", "tpu"])(made.params, *made.data)
        assert gap(vector(exported.call(made.params, *made.data)), vector(f(made.params, *made.data))) <= EXACT


def test_the_losses_are_those_of_the_loss_to_the_last_bit() -> None:
    """Not even the sign of a zero is lost."""

    def signs(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.copysign(1.0, x * p["s"] + p["b"]) * (1.0 + jnp.tanh(x * p["s"])))

    params = {"s": np.array([1.0, -1.0, 0.0, -0.0], np.float32), "b": -np.zeros(4, np.float32)}
    x = np.array([[0.0, 0, 3, 3], [-0.0, -0.0, -2, -2]], np.float32)
    (losses, _), _ = jax.jit(per_example.value_and_grad(signs))(params, x)
    np.testing.assert_array_equal(losses, jax.jit(jax.vmap(signs, (None, 0)))(params, x))


def test_the_loss_is_traced_once_for_each_shape() -> None:
    traces = []

    def loss(p: Any, x: Any) -> Any:
        traces.append(1)
        return jnp.sum(jnp.tanh(x @ p))

    vg = jax.jit(per_example.value_and_grad(loss))
    for n in (3, 3, 5, 5):
        vg.lower(np.ones((2, 2), np.float32), np.ones((n, 2), np.float32)).out_info  # noqa: B018
    assert len(traces) == 2
