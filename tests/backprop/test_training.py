"""`backprop.value_and_grad` in the place of jax.value_and_grad: step, epoch, fit, ensemble; vmap, scan, one compile."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, data, losses, models, optim, train
from jaxnn.layers import Dense, Dropout, Embedding, Tanh
from tests.backprop.checking import drawn
from tests.helpers import float64
from tests.train.problems import LOSS, NET, OPT, VG, classification

# A net over words with dropout, labels to be ignored, and a penalty: each of them enters the gradient.
WORD_NET = models.serial(Embedding(9, 6), Tanh, Dropout(0.3), Dense(4))
IGNORING = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)
PENALTY = losses.elastic(1e-2, 1e-3)
WORD_VGS = (
    backprop.value_and_grad(WORD_NET, IGNORING, PENALTY),
    jax.value_and_grad(train.mean_loss(WORD_NET, IGNORING, PENALTY), has_aux=True),
)


def words(n: int = 22) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 9, (n, 3)), jnp.int32), jnp.asarray(rng.integers(-1, 4, (n, 3)), jnp.int32)


def assert_same(results: Any) -> None:
    """Parameters, statistics, optimizer states and reports of both, in float32."""
    ours, oracle = results
    chex.assert_trees_all_close(ours, oracle, rtol=1e-5, atol=1e-6)


def word_start() -> train.TrainState:
    x, _ = words()
    return jax.jit(lambda: train.init(WORD_NET, OPT, jax.random.key(0), jax.ShapeDtypeStruct((3,), x.dtype)))()


@pytest.mark.slow
def test_step_with_penalty_weights_key_and_ignored_labels() -> None:
    x, y = words(6)
    call = {"key": jax.random.key(2), "weights": jnp.array([1.0, 0.0, 2.0, 0.5, 1.0, 1.0])}
    steps = [train.make_step(vg, OPT, measure=train.grad_norm) for vg in WORD_VGS]
    assert_same([step(word_start(), x, y, **call) for step in steps])


@pytest.mark.parametrize("partial", [pytest.param(data.Partial.DROP, marks=pytest.mark.slow), data.Partial.WEIGHT])
def test_epoch_with_a_partial_batch(partial: Any) -> None:
    epochs = [train.make_epoch(vg, OPT, batch_size=8, partial=partial) for vg in WORD_VGS]
    assert_same([epoch(word_start(), *words(), jax.random.key(1)) for epoch in epochs])


@pytest.mark.slow
def test_fit_and_ensemble() -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 8, "partial": data.Partial.WEIGHT}

    def fitted(vg: Any) -> Any:
        run = train.fit(WORD_NET, IGNORING, OPT, words(), key=keys[1], value_and_grad=vg, progress=False, **settings)
        return run.params, run.state, run.opt_state

    def members(vg: Any) -> Any:
        return train.ensemble(WORD_NET, IGNORING, OPT, words(), keys=keys, value_and_grad=vg, **settings)

    runs, many = [fitted(vg) for vg in WORD_VGS], [members(vg) for vg in WORD_VGS]
    assert_same(runs)
    assert_same(many)
    second = jax.tree.map(lambda p: p[1], many[0][0].params)
    chex.assert_trees_all_close(second, runs[0][0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_ensemble_of_the_hand_written_gradient() -> None:
    keys = jax.random.split(jax.random.key(3), 2)
    settings: dict[str, Any] = {"keys": keys, "epochs": 2, "batch_size": 10}
    runs = [
        train.ensemble(NET, LOSS, OPT, classification(n=20), value_and_grad=vg, **settings)
        for vg in (backprop.value_and_grad(NET, LOSS), VG)
    ]
    assert_same(runs)


@pytest.mark.slow
def test_fit_learns_with_the_hand_written_gradient() -> None:
    vg, opt = backprop.value_and_grad(NET, LOSS), optim.adam(0.05)
    result = train.fit(
        NET, LOSS, opt, classification(n=120), key=jax.random.key(0), epochs=15, batch_size=20, value_and_grad=vg,
        progress=False,
    )  # fmt: skip
    means = [record["loss"] for record in result.history]
    assert means[-1] < 0.3 * means[0]


@pytest.mark.slow
def test_under_vmap_over_seeds_and_scan_with_one_compile() -> None:
    """Four steps of three seeds at once, against four steps of one seed by `jax.grad`; float64, 1e-12."""
    own = backprop.value_and_grad(NET, LOSS)

    def descend(vg: Any, params: Any, state: Any, x: Any, y: Any) -> Any:
        def body(params: Any, _: Any) -> Any:
            (value, _), grads = vg(params, state, x, y)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

        return jax.lax.scan(body, params, None, length=4)

    with float64():
        x, y = classification(dtype=np.float64)
        params, state = jax.tree.map(lambda *p: jnp.stack(p), *[drawn(NET, x, seed=10 * i) for i in range(3)])
        of_one = chex.assert_max_traces(lambda *arguments: descend(own, *arguments), n=1)
        of_many = jax.jit(jax.vmap(of_one, (0, 0, None, None)))
        many = of_many(params, state, x, y)
        of_many(params, state, x + 1, y)
        one = jax.jit(functools.partial(descend, VG))(*jax.tree.map(lambda p: p[1], (params, state)), x, y)
        chex.assert_trees_all_close(jax.tree.map(lambda p: p[1], many), one, rtol=1e-12, atol=1e-14)


def test_one_trace_for_each_shape() -> None:
    traced = []

    def counted(*arguments: Any) -> Any:
        traced.append(1)
        return backprop.value_and_grad(NET, LOSS)(*arguments)

    compiled, (params, state) = jax.jit(counted), jax.eval_shape(lambda: NET.init(jax.random.key(0), (6,)))
    for n in (10, 10, 20, 10, 20):
        compiled.lower(params, state, *classification(seed=len(traced), n=n))
    assert len(traced) == 2
