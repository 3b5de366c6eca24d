"""Recorded tapes under jit, vmap, scan, export and rematerialisation: one trace, the user's loss, no hidden cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import per_example
from tests.helpers import float64
from tests.per_example.cases import flat, gap
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import Drawn, make


def test_the_losses_are_those_of_the_loss_to_the_last_bit() -> None:
    """Taps are no numbers that are added: not even the sign of a zero is lost."""

    def signs(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.copysign(1.0, x * p["s"] + p["b"]) * (1.0 + jnp.tanh(x * p["s"])))

    params = {"s": np.array([1.0, -1.0, 0.0, -0.0], np.float32), "b": -np.zeros(4, np.float32)}
    x = np.array([[0.0, 0, 3, 3], [-0.0, -0.0, -2, -2]], np.float32)
    tape = jax.jit(per_example.record(signs))(params, x)
    np.testing.assert_array_equal(tape.losses, jax.jit(jax.vmap(signs, (None, 0)))(params, x))


@pytest.mark.slow
def test_over_seeds_at_once_and_over_batches_in_a_scan() -> None:
    """vmap over parameters, scan over batches: each as alone."""
    with float64():
        made = make("mlp", 8)
        record = per_example.record(made.loss)
        seeds = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), made.params)
        batches = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), made.data)

        def of_seed(params: Any) -> Any:
            return lax.scan(lambda c, b: (c, per_example.clipped_grad(record(params, *b), 0.5)), (), batches)[1]

        sums, norms = jax.jit(jax.vmap(of_seed))(seeds)
        for s in range(2):
            params = jax.tree.map(lambda p, s=s: p[s], seeds)
            g = flat(jax.jit(jax.vmap(jax.grad(made.loss), (None, 0, 0)))(params, *made.data))
            sizes = np.linalg.norm(g, axis=1)
            assert gap(norms[s].ravel(), sizes) <= EXACT
            clipped = (np.minimum(1, 0.5 / sizes)[:, None] * g).reshape(2, 4, -1).sum(1)
            assert gap(np.concatenate([np.reshape(x[s], (2, -1)) for x in jax.tree.leaves(sums)], 1), clipped) <= EXACT


def test_the_loss_is_traced_once_for_each_shape() -> None:
    traces = []

    def loss(p: Any, x: Any) -> Any:
        traces.append(1)
        return jnp.sum(jnp.tanh(x @ p))

    record = jax.jit(per_example.record(loss))
    for n in (3, 3, 5, 5):
        record.lower(np.ones((2, 2), np.float32), np.ones((n, 2), np.float32)).out_info  # noqa: B018
    assert len(traces) == 2


def test_a_shared_argument_may_be_traced_or_closed_over() -> None:
    @jax.jit
    def norms(w: Any, shift: Any, x: Any) -> Any:
        return per_example.norms(per_example.record(lambda w, x: jnp.sum((x + shift) @ w))(w, x))

    found = norms(*(np.ones(shape, np.float32) for shape in ((2, 1), (2,), (3, 2))))
    np.testing.assert_allclose(found, [8**0.5] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cnn", "attention", "rnn"))]
)
def test_programs_are_exported_for_cuda_and_tpu_and_run_again(name: str) -> None:
    with float64():
        made = make(name)
        record = per_example.record(made.loss)

        @jax.jit
        def statistics(params: Any, *data: Any) -> Any:
            tape = record(params, *data)
            return per_example.clipped_grad(tape, 1.0), per_example.variance(tape)

        exported = jax.export.export(statistics, platforms=["cpu", "cuda", "tpu"])(made.params, *made.data)
        found, want = exported.call(made.params, *made.data), statistics(made.params, *made.data)
        assert gap(flat_vector(found), flat_vector(want)) <= EXACT


def flat_vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_a_tape_crosses_jit() -> None:
    """Views and reasons are part of a tape's structure, and equal from one call to the next."""
    with float64():
        made = make("views")
        tape = jax.jit(per_example.record(made.loss))(made.params, *made.data)
        traces = []

        @jax.jit
        def norms(tape: Any) -> Any:
            traces.append(1)
            return per_example.norms(tape)

        first = norms(tape)
        other = jax.jit(per_example.record(made.loss))(made.params, *make("views", seed=1).data)
        assert not np.array_equal(first, norms(other))
        assert len(traces) == 1


def _operations(text: str) -> int:
    return sum(" = " in line for line in text.splitlines())


def test_programs_do_not_grow_with_the_batch() -> None:
    r = Drawn(0)
    params = {"w": r(3, 4), "v": r(4, 4), "b": r(4)}

    def loss(p: Any, x: Any) -> Any:
        h = lax.scan(lambda h, x: (jnp.tanh(x @ p["w"] + h @ p["v"]) + p["b"], None), jnp.zeros(4), x)[0]
        return jnp.sum(h)

    def size(n: int) -> int:
        f = jax.jit(lambda p, x: per_example.norms(per_example.record(loss)(p, x)))
        return _operations(f.lower(params, jax.ShapeDtypeStruct((n, 6, 3), jnp.float32)).as_text())

    assert size(32) == size(2048)


def test_no_gradient_of_a_parameter_is_formed() -> None:
    """An MLP's tape is two products forward, one backward; vmap(grad) has two more with the weights' shapes."""
    params = {"w": np.ones((30, 40), np.float32), "v": np.ones((40, 50), np.float32)}

    def loss(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ p["w"]) @ p["v"]) ** 2

    text = jax.jit(per_example.record(loss)).lower(params, np.ones((8, 30), np.float32)).as_text()
    assert text.count("stablehlo.dot_general") == 3
    assert "30x40" not in text.split("dot_general", 1)[1].split("return")[0].replace("tensor<30x40xf32>)", "")


def test_rematerialisation_is_kept() -> None:
    """What a checkpoint region makes inside is made again on the way back, behind a barrier, and not kept."""

    def text(wrap: Any) -> str:
        block = wrap(lambda h, w: jnp.sin(h @ w) * jnp.exp(h))
        record = per_example.record(lambda p, x: jnp.sum(block(block(x, p), p)))
        return jax.jit(record).lower(np.ones((8, 8), np.float32), np.ones((4, 8), np.float32)).as_text()

    kept, plain = text(lambda f: f), text(jax.checkpoint)
    assert plain.count("optimization_barrier") == 2
    assert "optimization_barrier" not in kept
    assert plain.count("stablehlo.exponential") > kept.count("stablehlo.exponential")
