"""Steps and epochs: equal to a plain Python loop, donated, reproducible, explicit about the last partial batch."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import data, layers, losses, models, optim, train
from jaxnn.data import Partial
from tests.helpers import assert_close, random, slow, strict
from tests.train.problems import KEY, LOSS, NET, OPT, VG, D, K, N, classification, initial, started


@jax.jit
def permutation(key: Any) -> Any:
    """The order in which an epoch with this key meets the examples."""
    return data.batch_indices(jax.random.split(key)[0], N, N, partial=Partial.DROP)[0][0]


@jax.jit
def one_step(params: Any, opt_state: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    def loss(params: Any) -> Any:
        return losses.softmax_cross_entropy(NET.predict(params, (), x), y).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = OPT.update(grads, opt_state, params)
    return optim.apply_updates(params, updates), opt_state, value


def by_hand(ts: train.TrainState, x: Any, y: Any, key: Any, batch_size: int, partial: Partial) -> Any:
    """The epoch as anybody would write it: a Python loop, gradients of the mean over the examples of each batch."""
    order = np.asarray(permutation(key))
    params, opt_state, values = ts.params, ts.opt_state, []
    stop = len(x) - len(x) % batch_size if partial is Partial.DROP else len(x)
    for i in range(0, stop, batch_size):
        rows = order[i : i + batch_size]
        params, opt_state, value = one_step(params, opt_state, x[rows], y[rows])
        values.append(value)
    return params, np.array(values)


CASES = [
    (16, Partial.WEIGHT),
    *slow((16, Partial.DROP), *((size, partial) for size in (1, 25, N) for partial in Partial)),
]


@pytest.mark.parametrize(("batch_size", "partial"), CASES)
def test_an_epoch_is_the_loop_that_one_would_write(batch_size: int, partial: Partial) -> None:
    x, y = classification()
    epoch = train.make_epoch(VG, OPT, batch_size=batch_size, partial=partial)
    expected, values = by_hand(started(), x, y, jax.random.key(3), batch_size, partial)
    ts, report = epoch(started(), x, y, jax.random.key(3))
    assert_close(ts.params, expected, rtol=2e-4, atol=1e-5)
    assert_close(report["loss"], values, rtol=2e-4, atol=1e-5)
    seen = N if partial is Partial.WEIGHT else N - N % batch_size
    assert report["examples"].sum() == seen


@pytest.mark.slow
def test_the_check_above_tells_dropping_from_weighting() -> None:
    x, y = classification()
    ts, _ = train.make_epoch(VG, OPT, batch_size=16, partial=Partial.DROP)(started(), x, y, jax.random.key(3))
    expected, _ = by_hand(started(), x, y, jax.random.key(3), 16, Partial.WEIGHT)
    with pytest.raises(AssertionError):
        assert_close(ts.params, expected, rtol=2e-4, atol=1e-5)


def test_an_epoch_is_bit_identical_for_one_key_and_differs_for_another() -> None:
    x, y = classification()
    epoch = train.make_epoch(VG, OPT, batch_size=16)
    a, b, c = (epoch(started(), x, y, jax.random.key(k))[0].params for k in (1, 1, 2))
    chex.assert_trees_all_equal(a, b)
    assert not np.array_equal(a[1]["w"], c[1]["w"])


def test_the_old_state_is_donated_and_no_retrace_happens() -> None:
    x, y = classification()
    ts = started()
    traces = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        traces.append(1)
        return VG(*args, **kwargs)

    epoch = train.make_epoch(counted, OPT, batch_size=16)
    new, _ = epoch(ts, x, y, KEY)
    assert ts.params[1]["w"].is_deleted()
    count = len(traces)
    epoch(new, x, y, jax.random.key(1))
    assert len(traces) == count


def test_a_step_reports_the_loss_before_it_and_what_is_measured() -> None:
    x, y = classification()
    (value, _), grads = jax.jit(VG)(started().params, (), x, y)
    ts, report = train.make_step(VG, OPT, measure=train.grad_norm)(started(), x, y)
    assert_close(report["loss"], value, rtol=1e-6)
    assert_close(report["grad_norm"], np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads))), rtol=1e-5)
    expected = jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.1) * g, started().params, jax.device_get(grads))
    assert_close(ts.params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, r'got NoneType\. Return \{"name": value\}, or pass measure=None'),
        (1.0, r"got float\. Return"),
        ({"a": np.ones(3)}, r"got 'a' of shape \(3,\)\. Return its mean, or one name per entry"),
        ({"a": {"b": 1.0}}, r"got 'a': dict\. Name each number by a text"),
        ({"a": "text"}, r"got 'a': str\."),
        ({"a": np.complex64(1j)}, r"got 'a': complex64\."),
        ({3: 1.0}, r"got 3: float\."),
    ],
)
def test_a_measure_that_returns_no_named_scalars_is_refused(found: Any, text: str) -> None:
    step = train.make_step(VG, OPT, measure=lambda params, grads, updates: found)
    with pytest.raises((TypeError, ValueError), match=f"make_step: measure must return a dict of .* scalars, {text}"):
        step.eval_shape(started(), *classification())  # type: ignore[attr-defined]


def test_a_measure_whose_names_mean_something_else_is_refused() -> None:
    for name in ("loss", "epoch", "examples", "seconds", "examples_per_second", "learning_rate", "validation_error",
                 "loss_scale", "skipped_steps"):  # fmt: skip
        epoch = train.make_epoch(VG, OPT, batch_size=10, measure=lambda params, grads, updates, name=name: {name: 1.0})
        with pytest.raises(ValueError, match=f"measure returns {name}, already the name of something else"):
            epoch.eval_shape(started(), *classification(), KEY)  # type: ignore[attr-defined]
    vg = train.per_example_vg(NET, LOSS)
    step = train.make_step(vg, OPT, measure=lambda params, grads, updates: {"sq_norms": 1.0})
    with pytest.raises(ValueError, match="measure returns sq_norms, already"):
        step.eval_shape(started(), *classification())  # type: ignore[attr-defined]
    fine = {"grad_norm": np.float32(1), "on": jnp.bool_(True), "n": 3, "rate": 0.5}
    step = train.make_step(VG, OPT, measure=lambda params, grads, updates: fine)
    assert {*fine, "loss"} == set(step.eval_shape(started(), *classification())[1])  # type: ignore[attr-defined]


def test_a_step_hands_the_optimizer_value_gradient_and_functions_of_the_parameters() -> None:
    x, y = classification()
    seen: dict[str, Any] = {}

    def update(grads: Any, state: Any, params: Any, *, value: Any, grad: Any, value_fn: Any, **rest: Any) -> Any:
        seen.update(difference=value_fn(params) - value, grad=grad, rest=set(rest))
        return jax.tree.map(jnp.zeros_like, grads), {
            "difference": value_fn(params) - value,
            "g": rest["grad_fn"](params),
        }

    opt = optim.Optimizer(lambda p: {"difference": jnp.zeros(()), "g": p}, update)
    ts, _ = train.make_step(VG, opt)(initial(NET, opt, KEY, (D,)), x, y)
    assert seen["rest"] == {"grad_fn", "obj_fn"}
    np.testing.assert_allclose(ts.opt_state["difference"], 0, atol=1e-6)
    assert_close(ts.opt_state["g"], jax.jit(VG)(started().params, (), x, y)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "opt",
    [optax.lbfgs(), optax.chain(optim.sgd(1.0), optax.scale_by_backtracking_linesearch(20))],
    ids=["lbfgs", "armijo"],
)
def test_line_searches_of_optax_receive_what_they_need(opt: Any) -> None:
    x, y = classification()
    epoch = train.make_epoch(VG, opt, batch_size=N)
    ts, report = epoch(initial(NET, opt, KEY, (D,)), x, y, KEY)
    _, later = epoch(ts, x, y, KEY)
    assert later["loss"][0] < report["loss"][0]


@pytest.mark.parametrize(
    "opt", [optax.adam(1e-2), *slow((optax.scale(-0.1),), (optax.chain(optax.trace(0.9), optax.scale(-0.1)),))]
)
def test_optimizers_of_optax_train_too(opt: Any) -> None:
    x, y = classification()
    _, report = train.make_epoch(VG, opt, batch_size=10)(initial(NET, opt, KEY, (D,)), x, y, KEY)
    assert report["loss"][-1] < report["loss"][0]


def test_augmentation_changes_each_batch_by_its_own_key() -> None:
    x, y = classification()
    seen = []

    def augment(key: Any, x: Any) -> Any:
        jax.debug.callback(lambda k: seen.append(tuple(np.asarray(k).tolist())), jax.random.key_data(key), ordered=True)
        return x + jax.random.normal(key, x.shape, x.dtype)

    _, report = train.make_epoch(VG, OPT, batch_size=10, augment=augment)(started(), x, y, KEY)
    jax.effects_barrier()
    assert len(set(seen)) == N // 10
    plain = train.make_epoch(VG, OPT, batch_size=10)(started(), x, y, KEY)[1]
    assert not np.allclose(report["loss"], plain["loss"])


@pytest.mark.slow
def test_batch_norm_takes_no_filled_batch() -> None:
    net = models.serial(layers.Dense(4), layers.BatchNorm(), layers.Dense(K))
    vg = jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)
    ts = initial(net, OPT, KEY, (D,))
    x, y = classification()
    with pytest.raises(ValueError, match=r"running statistics.*50 examples in batches of 16.*Partial\.DROP"):
        train.make_epoch(vg, OPT, batch_size=16, partial=Partial.WEIGHT)(ts, x, y, KEY)
    ts, _ = train.make_epoch(vg, OPT, batch_size=16, partial=Partial.DROP)(ts, x, y, KEY)
    fresh = initial(net, OPT, KEY, (D,))
    moved = jax.tree.map(lambda a, b: np.any(np.asarray(a) != np.asarray(b)), ts.state, fresh.state)
    assert all(jax.tree.leaves(moved))


def test_mean_loss_weighs_examples_and_leaves_out_ignored_positions() -> None:
    x, y = classification()
    weights = np.abs(random(3, N, dtype=np.float32))
    ignoring = train.mean_loss(NET, functools.partial(LOSS, ignore_index=-1))

    @jax.jit
    def found(params: Any) -> Any:
        loss_fn, nothing = train.mean_loss(NET, LOSS), np.full(N, -1, np.int32)
        means = loss_fn(params, (), x, y)[0], loss_fn(params, (), x, y, weights=weights)[0]
        some = ignoring(params, (), x, np.where(np.arange(N) < 20, np.int32(-1), y))[0]
        return LOSS(NET.predict(params, (), x), y), means, some, ignoring(params, (), x, nothing)[0]

    per_example, (mean, weighted), some, none = jax.device_get(found(started().params))
    assert_close(mean, per_example.mean(), rtol=1e-6)
    assert_close(weighted, np.average(per_example, weights=weights), rtol=1e-5)
    assert_close(some, per_example[20:].mean(), rtol=1e-5)
    assert none == 0


def test_mean_loss_adds_the_regularizer_of_weights_only() -> None:
    x, y = classification()
    params = jax.tree.map(lambda p: np.asarray(p) + 1, started().params)

    @jax.jit
    def found(params: Any) -> Any:
        return [train.mean_loss(NET, LOSS, each)(params, (), x, y)[0] for each in (None, losses.l2(0.01))]

    plain, penalised = found(params)
    squares = sum(float(np.sum(p["w"] ** 2)) for p in params if p)
    np.testing.assert_allclose(penalised - plain, 0.01 * squares, rtol=1e-4)


def test_a_weight_of_zero_shields_from_infinities() -> None:
    values, weights = np.float32([1, np.inf, 3]), np.float32([1, 0, 1])
    assert train.loss.weighted_mean(values, weights) == 2.0


def test_a_network_with_dropout_needs_the_key_that_the_epoch_gives_it() -> None:
    net = models.mlp([D, 8, K], dropout=0.5)
    loss_fn = train.mean_loss(net, LOSS)
    opt = optim.adam(1e-2)
    ts = initial(net, opt, KEY, (D,))
    x, y = classification()
    with pytest.raises(ValueError, match="dropout: needs a random key"):
        jax.eval_shape(loss_fn, ts.params, ts.state, x, y)
    vg = jax.value_and_grad(loss_fn, has_aux=True)
    train.make_epoch(vg, opt, batch_size=10)(ts, x, y, KEY)


@pytest.mark.slow
def test_training_keeps_strict_promotion() -> None:
    x, y = classification()
    epoch = train.make_epoch(VG, OPT, batch_size=16, partial=Partial.WEIGHT)
    with strict():
        _, report = epoch(started(), x, y, KEY)
    assert np.isfinite(report["loss"]).all()


def test_bfloat16_parameters_train_under_scan() -> None:
    x, y = classification(dtype=jnp.bfloat16)
    ts = initial(NET, OPT, KEY, jax.ShapeDtypeStruct((D,), jnp.bfloat16))
    ts, report = train.make_epoch(VG, OPT, batch_size=10)(ts, x, y, KEY)
    assert {p.dtype for p in jax.tree.leaves(ts.params)} == {jnp.dtype(jnp.bfloat16)}
    assert report["loss"].dtype == jnp.float32
    assert report["loss"][-1] < report["loss"][0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x, y: train.mean_loss(NET, lambda o, t: LOSS(o, t).mean())(started().params, (), x, y),
            r"shape \(N,\), got shape \(\)",
        ),
        (
            lambda x, y: train.mean_loss(NET, LOSS)(started().params, (), x, y, weights=np.ones(3, np.float32)),
            r"\(50,\), got \(3,\)",
        ),
        (lambda x, y: train.mean_loss(NET, LOSS)(started().params, (), x[:0], y[:0]), "empty batch"),
        (
            lambda x, y: train.mean_loss(NET, LOSS)((started().params, ()), (), x, y),
            "got a tuple of 2. init returns the pair",
        ),
        (lambda x, y: train.mean_loss(NET, LOSS)(started().params, (), x[:, :3], y), "must have 6 features"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(lambda: call(*classification()))


def test_minibatch_indices_are_what_the_epoch_uses() -> None:
    indices, weights = jax.jit(lambda key: data.batch_indices(key, N, 16, partial=Partial.WEIGHT))(KEY)
    assert sorted(np.asarray(indices)[np.asarray(weights) > 0].tolist()) == list(range(N))


@pytest.mark.slow
def test_rules_that_estimate_the_hessian_run_in_a_step() -> None:
    net, opt = models.linear(2), optim.sophia(1e-2)
    step = train.make_step(jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True), opt)
    ts = initial(net, opt, KEY, (4,))
    x, y = random(1, 8, 4, dtype=np.float32), np.arange(8, dtype=np.int32) % 2
    values = []
    for _ in range(20):
        ts, report = step(ts, x, y)
        values.append(float(report["loss"]))
    assert values[-1] < values[0]
