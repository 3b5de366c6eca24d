"""Recurrent networks on tokens: gradients by hand, generation, padding, sizes, errors."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, models, optim, tree
from jaxnn.layers import GRU, LSTM, RNN, LastPosition, LinearRecurrence
from tests.backprop.checking import EXACT, gradient_error, relative
from tests.helpers import assert_close, float64, slow

V, N, T = 7, 4, 6
RNG = np.random.default_rng(0)
X, Y = (RNG.integers(1, V, (N, T)).astype(np.int32) for _ in range(2))
PADDED = np.where(np.arange(T) < np.array([[6], [2], [4], [0]]), X, 0).astype(np.int32)
WORD = jax.ShapeDtypeStruct((T,), jnp.int32)
CE = functools.partial(losses.softmax_cross_entropy, ignore_index=0)

NETS = {
    "lstm": models.recurrent(V, 3, pad=0, dropout=0.3),
    "two gru, tied": models.recurrent(V, 3, depth=2, cell=GRU, tied=True, pad=0),
    "rnn in both directions, tied": models.recurrent(V, 2, cell=RNN, bidirectional=True, tied=True),
    "linear recurrence": models.recurrent(V, 3, cell=LinearRecurrence, features=2, outputs=V, bidirectional=True),
}


@pytest.mark.parametrize("name", ["lstm", *slow(*list(NETS)[1:])])
@pytest.mark.parametrize("remat_every", [None, 2])
def test_gradients_by_hand(name: str, remat_every: int | None) -> None:
    net = NETS[name]
    assert backprop.coverage(net, losses.softmax_cross_entropy).complete
    call = {"key": jax.random.key(1)}
    assert gradient_error(net, CE, PADDED, Y, remat_every=remat_every, call=call) <= EXACT


def test_parameter_counts() -> None:
    def count(net: Any) -> int:
        return tree.size(jax.eval_shape(lambda: net.init(jax.random.key(0), WORD)[0]))

    lstm, gru = 4 * (3 * 3 + 3 * 3 + 3), 3 * (3 * 3 + 3 * 3 + 3) + 3
    assert count(models.recurrent(V, 3)) == V * 3 + lstm + 3 * V + V
    assert count(models.recurrent(V, 3, depth=2, cell=GRU, tied=True)) == V * 3 + 2 * gru
    assert count(models.recurrent(V, 3, bidirectional=True, outputs=2)) == V * 3 + 2 * lstm + 6 * 2 + 2
    assert models.summary(models.recurrent(V, 3), WORD) == V * 3 + lstm + 3 * V + V


def test_a_language_model_learns_and_generates_token_by_token() -> None:
    """The cycle 1, 2, ..., 6, 1, ... is learned; from one token, with the carry as state, it goes on."""
    net = models.recurrent(V, 16, pad=0)
    cycle = 1 + np.arange(13) % 6
    x, y = cycle[None, :-1].astype(np.int32), cycle[None, 1:].astype(np.int32)
    params, _ = jax.jit(lambda key: net.init(key, WORD))(jax.random.key(0))
    opt = optim.adam(0.03)
    vg = backprop.value_and_grad(net, CE)

    @jax.jit
    def trained(params: Any) -> Any:
        def step(carried: Any, _: Any) -> Any:
            params, state = carried
            (value, _), grads = vg(params, (), x, y)
            updates, state = opt.update(grads, state, params)
            return (optim.apply_updates(params, updates), state), value

        (params, _), values = jax.lax.scan(step, (params, opt.init(params)), length=80)
        return params, values

    @jax.jit
    def generated(params: Any) -> Any:
        def step(now: Any, _: Any) -> Any:
            state, token = now
            logits, state = net.apply(params, state, token)
            token = jnp.argmax(logits, -1).astype(jnp.int32)
            return (state, token), token[0, 0]

        return jax.lax.scan(step, (models.begin(net, params, (), 1), jnp.ones((1, 1), jnp.int32)), length=12)[1]

    params, values = trained(params)
    assert values[0] > 1.5
    assert values[-1] < 0.1
    np.testing.assert_array_equal(generated(params), cycle[1:])


@pytest.mark.slow
def test_padding_changes_nothing() -> None:
    """A classifier of whole sequences gives a padded one the outputs that it has alone."""
    net = models.recurrent(V, 3, bidirectional=True, pad=0, pool=LastPosition, outputs=2)
    with float64():
        params, state = net.init(jax.random.key(0), WORD)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        predict = jax.jit(net.predict)
        together = predict(params, state, PADDED)
        assert together.shape == (N, 2)
        for n, length in enumerate((6, 2, 4)):
            assert_close(together[n : n + 1], predict(params, state, PADDED[n : n + 1, :length]), rtol=1e-13)
        longer = predict(params, state, np.pad(PADDED, ((0, 0), (0, 3))))
        assert relative(longer, together) <= EXACT


def test_the_two_directions() -> None:
    net = models.bidirectional(LSTM(3), GRU(2))
    x = RNG.standard_normal((N, T, 4)).astype(np.float32)
    params, state = net.init(jax.random.key(0), (T, 4))
    y = net.predict(params, state, x)
    forwards, (backwards,) = params
    assert_close(y[..., :3], LSTM(3).predict(forwards, (), x), rtol=1e-6)
    assert_close(y[..., 3:], GRU(2).predict(backwards, (), x[:, ::-1])[:, ::-1], rtol=1e-6)
    same, _ = models.bidirectional(LSTM(3)).init(jax.random.key(0), (T, 4))
    assert np.any(same[0]["w"] != same[1][0]["w"])


def test_messages() -> None:
    for raised, words, call in [
        (ValueError, "features must be 6", lambda: models.recurrent(V, 3, bidirectional=True, tied=True, features=3)),
        (ValueError, "outputs None", lambda: models.recurrent(V, 3, tied=True, outputs=2)),
        (ValueError, "depth", lambda: models.recurrent(V, 3, depth=0)),
        (TypeError, "cell must be a factory", lambda: models.recurrent(V, 3, cell=LSTM(3))),  # type: ignore[arg-type]
        (TypeError, "must be a Layer", lambda: models.bidirectional(LSTM)),  # type: ignore[arg-type]
    ]:
        with pytest.raises(raised, match=words):
            call()
