"""The studies of sequences: their numbers against NumPy, on small networks and short sequences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, layers
from jaxnn.studies import induction, sequences, tasks, vanishing
from tests.helpers import float64, random, strict

T, H = 5, 3
X = random(0, 4, T, 2)
W = random(1, H, 1)


def relative(cell: Any) -> tuple[Any, np.ndarray]:
    """Parameters of a layer by NumPy, and what the study measures, in float64."""
    layer = cell(H)
    with float64():
        shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), (T, 2))[0])
        params = {name: random(i, *p.shape) for i, (name, p) in enumerate(sorted(shapes.items()))}
        with strict():
            run = jax.jit(lambda params, x: vanishing.relative(layer, (params, (), {"w": jnp.asarray(W)}), x))
            return params, np.asarray(run(params, X))


def test_gradients_through_an_rnn_are_products_of_jacobians() -> None:
    p, found = relative(layers.RNN)
    for n, x in enumerate(X):
        h, jacobians = np.zeros(H), []
        for t in range(T):
            h = np.tanh(x[t] @ p["w"] + h @ p["u"] + p["b"])
            jacobians.append((1 - h**2)[:, None] * p["u"].T)  # d h_t / d h_(t-1)
        row, norms = W[:, 0], [np.linalg.norm(W)]
        for jacobian in reversed(jacobians[1:]):
            row = row @ jacobian
            norms.append(np.linalg.norm(row))
        np.testing.assert_allclose(found[n], np.array(norms) / norms[0], rtol=1e-10)


def test_gradients_through_a_linear_recurrence_are_products_of_gates() -> None:
    p, found = relative(layers.LinearRecurrence)
    gates = 1 / (1 + np.exp(-(X @ p["w"] + p["b"])[..., :H]))
    for k in range(T):
        through = W[:, 0] * gates[:, T - k :].prod(axis=1)
        np.testing.assert_allclose(found[:, k], np.linalg.norm(through, axis=1) / np.linalg.norm(W), rtol=1e-10)
    wrong = W[:, 0] * gates[:, : T - 1].prod(axis=1)
    assert not np.allclose(found[:, T - 1], np.linalg.norm(wrong, axis=1) / np.linalg.norm(W), rtol=1e-3)


@pytest.mark.slow
def test_gradients_of_an_lstm_are_in_both_its_states() -> None:
    p, found = relative(layers.LSTM)

    def last(carry: Any, x: Any, start: int) -> Any:
        return layers.lstm.apply(p, x[None, start:], carry=carry)[0][0, -1] @ jnp.asarray(W)[:, 0]

    with float64():
        for n, x in enumerate(jnp.asarray(X)):
            for k in (1, 4):
                before = layers.lstm.apply(p, x[None, : T - k])[1]
                grads = jax.grad(last)(before, x, T - k)
                norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in grads.values()))
                np.testing.assert_allclose(found[n, k], norm / np.linalg.norm(W), rtol=1e-10)


def test_accuracy_counts_positions_with_a_target() -> None:
    outputs, labels = random(0, 6, 7, 4, dtype=np.float32), np.random.default_rng(1).integers(-1, 4, (6, 7))
    right = outputs.argmax(axis=2) == labels
    expected = [np.mean([r for r, y in zip(*row, strict=True) if y >= 0]) for row in zip(right, labels, strict=True)]
    np.testing.assert_allclose(sequences.ACCURACY(jnp.asarray(outputs), jnp.asarray(labels)), expected, rtol=1e-6)


@pytest.mark.slow
def test_training_on_the_adding_problem_keeps_the_gradient() -> None:
    found = vanishing.run(length=20, hidden=16, epochs=4)
    gru = found.cells.index("GRU")
    assert found.gradients.shape == (2, 4, 20)
    np.testing.assert_allclose(found.gradients[..., 0], 1)
    assert found.errors[gru, -1] < 0.05 < 0.1 < found.errors[gru, 0]
    assert found.gradients[0, gru, 10] < 0.1 < found.gradients[1, gru, 10]
    assert "GRU" in found.describe()


@pytest.mark.slow
def test_attention_maps_are_those_of_the_layers() -> None:
    net = induction.network(7, 8, 2, depth=2)
    tokens = np.random.default_rng(0).integers(0, 7, (3, 6)).astype(np.int32)
    params, state = jax.jit(lambda key: net.init(key, tokens[0]))(jax.random.key(0))
    maps = np.asarray(jax.jit(lambda params: induction.attention_maps(net, params, jnp.asarray(tokens)))(params))
    assert maps.shape == (2, 3, 2, 6, 6)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-5)
    assert (maps[..., ~np.tril(np.ones((6, 6), bool))] == 0).all()
    # With its probabilities each layer gives the outputs of the network.
    x = np.asarray(params[0]["w"])[tokens]
    for (block, _), p in zip(params[1:3], maps, strict=True):
        normed = x / np.sqrt((x**2).mean(axis=2, keepdims=True) + 1e-6) * np.asarray(block[0]["scale"])
        v = (normed @ np.asarray(block[1]["wv"])).reshape(3, 6, 2, 4)
        x = x + np.einsum("nhts,nshd->nthd", p, v).reshape(3, 6, 8) @ np.asarray(block[1]["wo"])
    normed = x / np.sqrt((x**2).mean(axis=2, keepdims=True) + 1e-6) * np.asarray(params[3]["scale"])
    logits = normed @ np.asarray(params[4]["w"]) + np.asarray(params[4]["b"])
    np.testing.assert_allclose(net.predict(params, state, jnp.asarray(tokens)), logits, rtol=1e-3, atol=1e-4)


def test_scores_sum_the_attention_where_it_belongs() -> None:
    tokens = np.array([[3, 1, 3, 1, 3, 1], [0, 1, 2, 0, 1, 2]])
    maps = np.random.default_rng(0).random((2, 2, 3, 6, 6))
    matching, previous = induction.scores(jnp.asarray(maps), jnp.asarray(tokens))
    for i in range(2):
        for h in range(3):
            found = [
                sum(maps[i, n, h, t, s] for s in range(1, t + 1) if tokens[n, s - 1] == tokens[n, t])
                for n in range(2)
                for t in range(3, 6)
            ]
            np.testing.assert_allclose(matching[i, h], np.mean(found), rtol=1e-5)
            before = [maps[i, n, h, t, t - 1] for n in range(2) for t in range(3, 6)]
            np.testing.assert_allclose(previous[i, h], np.mean(before), rtol=1e-5)


@pytest.mark.slow
def test_induction_heads_form_in_the_second_of_two_layers() -> None:
    found = induction.run(symbols=16, length=8, width=32, heads=2, epochs=20, steps=20)
    assert found.accuracies[1, -1] > 0.95 > 0.7 > found.accuracies[0, -1]
    assert found.matching[-1, 1].max() > 0.5 > 0.3 > found.matching[0].max()
    assert found.matching[-1, 0].max() < 0.3
    assert found.previous[-1, 0].max() > 2 * found.previous[0, 0].max()


@pytest.mark.slow
def test_guesses_of_each_task() -> None:
    guesses = {name: tasks.guess(make(1)) for name, make in tasks.TASKS.items()}
    assert guesses["adding"] == 0
    for name, chance in (("copying", 1 / 8), ("parity", 1 / 2), ("induction", 1 / 16), ("dyck", 1 / 4)):
        assert guesses[name] == pytest.approx(chance, rel=0.2), name


@pytest.mark.slow
def test_every_network_fits_every_task() -> None:
    for make in tasks.TASKS.values():
        stream = make(1)
        x, y = jax.eval_shape(lambda key, stream=stream: stream.batch(key, 2), jax.random.key(0))
        for name in tasks.NETWORKS:
            net = tasks.network(name, stream, 4)
            of_one = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
            found = jax.eval_shape(net.predict, *of_one, x)
            assert found.shape == (y.shape if x.ndim == 3 else (*y.shape, data.tasks.vocabulary(stream)))


@pytest.mark.slow
def test_an_rnn_learns_parity_in_which_a_linear_recurrence_fails() -> None:
    found = tasks.run(tasks=["parity"], networks=["RNN", "LinearRecurrence"], epochs=3, width=16)
    rnn, linear = found.scores[:, 0, -1]
    assert rnn > 0.99 > 0.85 > linear
    assert found.numbers()["parity"]["RNN"][-1] == pytest.approx(rnn, abs=1e-4)
    assert "RNN" in found.describe()
