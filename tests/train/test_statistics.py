"""`per_example_vg`: the value and gradient of `mean_loss`, statistics of each example, what a step does with them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import layers, losses, models, optim, train
from jaxnn.data import Partial
from jaxnn.optim import GradientTransformation, GradientTransformationExtraArgs
from jaxnn.per_example import Directional, Margin, Projection, SecondMoment, SqNorms
from tests.helpers import assert_close, float64, random, strict
from tests.train.problems import KEY, LOSS, NET, D, K, N, classification, started

ALL = {"whole": SqNorms(), "each": SqNorms(by="parameter"), "squares": SecondMoment()}
PENALTY = losses.l2(0.1)


def problem() -> tuple[Any, Any, Any]:
    """Parameters, x, y in float64."""
    params = jax.tree.map(lambda p: jnp.asarray(random(p.size, *p.shape)), started().params)
    x, y = classification(n=7, dtype=np.float64)
    return params, jnp.asarray(x), jnp.asarray(y)


def example_gradients(params: Any, x: Any, y: Any) -> np.ndarray:
    """(N, P) by vmap(grad)."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        return LOSS(NET.predict(params, (), x[None]), y[None])[0]

    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(params, x, y)
    return np.concatenate([np.asarray(g).reshape(len(x), -1) for g in jax.tree.leaves(grads)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def both(regularizer: Any, params: Any, x: Any, y: Any, weights: Any) -> Any:
    """Of `mean_loss` by JAX, and of `per_example_vg`."""
    plain = jax.value_and_grad(train.mean_loss(NET, LOSS, regularizer), has_aux=True)
    ours = train.per_example_vg(NET, LOSS, ALL, regularizer)
    return plain(params, (), x, y, weights=weights), ours(params, (), x, y, weights=weights)


@pytest.mark.parametrize("weights", [None, [1, 0, 1, 1, 0, 1, 1], [0.5, 2, 0, 1, 3, 0.25, 1], [0] * 7])
def test_value_and_gradient_are_those_of_the_mean_loss_and_statistics_those_of_the_examples(weights: Any) -> None:
    with float64(), strict():
        params, x, y = problem()
        w = None if weights is None else jnp.asarray(weights, jnp.float64)
        ((value, _), grads), ((ours, state, found), our_grads) = both(PENALTY, params, x, y, w)
        assert state == ()
        assert_close((ours, our_grads), (value, grads), rtol=1e-11, atol=1e-13)
        each, w = example_gradients(params, x, y), np.ones(7) if w is None else np.asarray(w)
        kept = w[w != 0]
        scaled = each * (w / (kept.mean() if kept.size else 1.0))[:, None]
        expected = (scaled**2).sum(1)
        count = max(kept.size, 1)
        assert_close(found.values["whole"], expected, rtol=1e-10)
        assert_close(sum(found.values["each"].values()), expected, rtol=1e-10)
        squares = np.concatenate([np.ravel(g) for g in jax.tree.leaves(found.values["squares"])])
        np.testing.assert_allclose(squares, (scaled**2).sum(0) / count, rtol=1e-10, atol=1e-20)
        assert_close(found.means["whole"], expected.sum() / count, rtol=1e-10)
        assert set(found.means) == {"whole", *(f"each [{i}]['{k}']" for i in (1, 3) for k in "bw")}


def test_padding_of_any_content_is_not_seen() -> None:
    params, x, y = started().params, *classification(n=6)
    vg = jax.jit(train.per_example_vg(NET, LOSS))
    whole = vg(params, (), x[:4], y[:4])
    x[4:] = np.nan
    (value, _, found), grads = vg(params, (), x, y, weights=np.array([1, 1, 1, 1, 0, 0], np.float32))
    assert_close((value, grads, found.means), (whole[0][0], whole[1], whole[0][2].means), rtol=1e-5, atol=1e-7)
    assert_close(found.values, np.append(whole[0][2].values, [0, 0]), rtol=1e-5)


def test_positions_that_a_loss_masks_weigh_as_in_the_mean_loss() -> None:
    net = models.serial(layers.Dense(4))
    loss = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)
    params, state = net.init(KEY, (5, 3))
    x, y = random(0, 3, 5, 3, dtype=np.float32), np.array([[0, 1, -1, 2, 3], [-1] * 5, [1, 1, 1, 1, -1]])
    plain = jax.value_and_grad(train.mean_loss(net, loss), has_aux=True)
    vg = train.per_example_vg(net, loss)
    both = jax.jit(lambda *args: (plain(*args), vg(*args)))
    ((value, _), grads), ((ours, _, found), our_grads) = both(params, state, x, y)
    assert_close((ours, our_grads), (value, grads), rtol=1e-5, atol=1e-7)
    assert found.values[1] == 0
    assert_close(found.means["sq_norms"], found.values.sum() / 2, rtol=1e-6)


@pytest.mark.slow
def test_every_example_has_a_key_of_its_own() -> None:
    net = models.serial(layers.Dense(16), layers.Dropout(0.5), layers.Dense(2))
    params, state = net.init(KEY, (3,))
    x, y = jnp.ones((6, 3)), jnp.zeros(6, jnp.int32)

    def of_one(params: Any, x: Any, y: Any, key: Any) -> Any:
        return LOSS(net.apply(params, state, x[None], key=key, train=True)[0], y[None])[0]

    def mean(params: Any) -> Any:
        return jnp.mean(jax.vmap(of_one, (None, 0, 0, 0))(params, x, y, jax.random.split(KEY, 6)))

    expected = jax.value_and_grad(mean)(params)
    for vg in (train.per_example_vg(net, LOSS), train.per_example_vg(of_one, statistics=SqNorms())):
        (value, _, found), grads = jax.jit(vg)(params, state, x, y, key=KEY)
        assert_close((value, grads), expected, rtol=1e-5, atol=1e-7)
        assert len({*found.values.tolist()}) == 6
    with pytest.raises(ValueError, match="key"):
        train.per_example_vg(net, LOSS)(params, state, x, y)


def test_a_step_hands_the_statistics_to_the_optimizer_and_reports_their_means() -> None:
    def update(grads: Any, state: Any, params: Any = None, *, statistics: Any, **_: Any) -> Any:
        return jax.tree.map(lambda g: -jnp.min(statistics[0]) * g, grads), state

    scaled = GradientTransformationExtraArgs(lambda params: (), update)
    (x, y), ts = classification(n=5), started()
    ts = ts._replace(opt_state=())
    each = example_gradients(ts.params, x, y)
    found = (each**2).sum(1)
    expected = jax.tree.map(np.asarray, ts.params)
    vg = train.per_example_vg(NET, LOSS, (SqNorms(), Margin(), Projection(KEY, 3)))
    new, report = train.make_step(vg, scaled)(ts, x, y)
    assert set(report) == {"loss", "sq_norms", "margin"}
    assert_close(report["sq_norms"], found.mean(), rtol=1e-5)
    moved = np.concatenate([np.ravel(d) for d in jax.tree.leaves(jax.tree.map(np.subtract, new.params, expected))])
    np.testing.assert_allclose(moved, -found.min() * each.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_optimizers_that_know_no_statistics_work_as_before() -> None:
    (x, y), vg = classification(n=5), train.per_example_vg(NET, LOSS)
    plain = GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    for opt in (optim.adam(1e-2), plain, optax.lbfgs(), optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1))):
        ts = train.init(NET, opt, KEY, (D,))
        ts, report = train.make_step(vg, opt)(ts, x, y)
        assert set(report) == {"loss", "sq_norms"}


@pytest.mark.slow
def test_the_history_of_a_fit_has_the_means() -> None:
    data, opt = classification(), optim.sgd(0.0)
    vg = train.per_example_vg(NET, LOSS, SqNorms(by={"first": "[1]", "last": "[3]"}))
    how: dict[str, Any] = {"key": KEY, "epochs": 1, "batch_size": 16, "progress": False, "partial": Partial.WEIGHT}
    result = train.fit(NET, LOSS, opt, data, value_and_grad=vg, measure=train.grad_norm, **how)
    record = result.history[0]
    squares = example_gradients(result.params, *data) ** 2
    assert {"sq_norms first", "sq_norms last", "grad_norm", "loss"} <= set(record)
    # Parameters stay; 50 examples in batches of 16: the padding of the last batch must not count.
    total = record["sq_norms first"] + record["sq_norms last"]
    assert total == pytest.approx(squares.sum(1).mean(), rel=1e-4)
    assert record["loss"] == pytest.approx(train.fit(NET, LOSS, opt, data, **how).history[0]["loss"], rel=1e-5)


def test_one_number_for_each_example_is_reported_even_where_a_sum_has_as_many_entries() -> None:
    """A bias of K entries and a batch of K examples."""
    params, (x, y) = started().params, classification(n=K)
    statistics = {"a": SecondMoment(), "b": Directional(params)}
    (_, _, found), _ = jax.jit(train.per_example_vg(NET, LOSS, statistics))(params, (), x, y)
    assert found.values["a"][3]["b"].shape == found.values["b"].shape == (K,)
    assert list(found.means) == ["b"]


NORMED = models.serial(layers.Dense(3), layers.BatchNorm(), layers.Dense(K))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: train.per_example_vg(NET), TypeError, "a network needs a loss"),
        (lambda: train.per_example_vg(LOSS, LOSS), TypeError, "takes no second loss"),
        (lambda: train.per_example_vg(3), TypeError, "a network or a loss of one example"),  # type: ignore[arg-type]
        (lambda: train.per_example_vg(NET, LOSS, SqNorms), TypeError, "statistics must be a statistic"),
        (lambda: train.per_example_vg(NET, LOSS, {"loss": SqNorms()}), ValueError, "cannot be named 'loss'"),
        (lambda: train.per_example_vg(NET, LOSS, SqNorms(), 3), TypeError, "regularizer"),  # type: ignore[arg-type]
        (lambda: train.per_example_vg(NORMED, LOSS), ValueError, r"undefined here: in batch_norm at \[1\]"),
        (
            lambda: train.per_example_vg(NET, LOSS)(started().params, (), np.ones((4, D)), np.zeros(3, int)),
            ValueError,
            "same N",
        ),
        (
            lambda: train.per_example_vg(NET, LOSS)(
                started().params, (), np.ones((4, D)), np.zeros(4, int), weights=np.ones((4, 1))
            ),
            ValueError,
            "one weight for each of 4 examples",
        ),
        (
            lambda: train.per_example_vg(NET, lambda outputs, y: outputs)(
                started().params, (), np.ones((4, D)), np.zeros(4, int)
            ),
            ValueError,
            "expected one loss for each example",
        ),
        (
            lambda: train.make_step(lambda *_, **__: ((1.0, (), 3), {}), optim.sgd(1.0))(
                train.init(NET, optim.sgd(1.0), KEY, (D,)), np.ones((N, D)), np.zeros(N, int)
            ),
            TypeError,
            "must return",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_layer_with_other_state_is_turned_down() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        train.per_example_vg(NET, LOSS)(started().params, {"count": jnp.zeros(())}, np.ones((4, D)), np.zeros(4, int))
