"""Training on drawn batches: the loop that one would write, to the bit; reports, divergence, sweeps, and errors."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, models, optim, train
from jaxnn.compare.problems import Problem
from jaxnn.data import Dataset, Draws, Partial, text
from jaxnn.layers import BatchNorm, Dense, Embedding
from jaxnn.train.keys import run_keys
from tests.helpers import assert_close, float64
from tests.train.problems import KEY, LOSS, NET, OPT, D, classification

STEPS, B, T = 5, 4, 6
SYMBOLS = text.characters(text.embedded())
TOKENS = SYMBOLS.encode(text.embedded()[:2000])
WINDOWS = text.windows(TOKENS, T, steps=STEPS)
HELD_OUT = text.all_windows(TOKENS[-200:], T)
LM = models.serial(Embedding(SYMBOLS.size, 8), Dense(SYMBOLS.size))
LM_OPT = optim.adam(0.01)
SETTINGS: dict[str, Any] = {"key": KEY, "epochs": 3, "batch_size": B}


# A program whose arithmetic is exact: the parameter is halved, and a number of the batch, in which places count, added.


def number(x: Any, y: Any) -> Any:
    places = jnp.arange(1, x.size + 1).reshape(x.shape)
    return jnp.sum(places * (x + 3 * y)).astype(jnp.float32)


def exact_vg(params: Any, state: Any, x: Any, y: Any, *, key: Any = None, weights: Any = None) -> Any:
    assert weights is None
    return (number(x, y), state), {"w": params["w"] / 2 - number(x, y)}


EXACT_OPT = optim.sgd(1.0)


def exact_start() -> train.TrainState:
    return train.TrainState({"w": jnp.zeros(())}, (), EXACT_OPT.init({"w": jnp.zeros(())}))


def by_hand(key: Any, key_of: Any = lambda order, i: jax.random.fold_in(order, i), turn: bool = False) -> Any:
    """One epoch as anybody would write it."""
    w, values = 0.0, []
    for i in range(STEPS):
        x, y = (np.asarray(part) for part in WINDOWS.batch(key_of(jax.random.split(key)[0], i), B))
        x, y = (y, x) if turn else (x, y)
        values.append(float((np.arange(1, x.size + 1).reshape(x.shape) * (x + 3 * y)).sum()))
        w = w / 2 + values[-1]
    return w, values


exact_epoch = train.make_epoch(exact_vg, EXACT_OPT, batch_size=B)


def test_an_epoch_is_the_loop_that_one_would_write_to_the_bit() -> None:
    ts, report = exact_epoch(exact_start(), WINDOWS, (), jax.random.key(5))
    w, values = by_hand(jax.random.key(5))
    assert float(ts.params["w"]) == w
    assert report["loss"].tolist() == values
    assert (report["examples"].tolist(), report["examples"].dtype) == ([B] * STEPS, jnp.float32)


def test_the_check_above_tells_other_batches() -> None:
    right = by_hand(jax.random.key(5))
    for wrong in (
        by_hand(jax.random.key(6)),
        by_hand(jax.random.key(5), turn=True),
        by_hand(jax.random.key(5), lambda order, i: jax.random.fold_in(order, i + 1)),
        by_hand(jax.random.key(5), lambda order, i: order),
    ):
        assert wrong[0] != right[0]


def test_partial_is_without_effect() -> None:
    epoch = train.make_epoch(exact_vg, EXACT_OPT, batch_size=B, partial=Partial.WEIGHT)  # exact_vg rejects weights
    ts, _ = epoch(exact_start(), WINDOWS, (), jax.random.key(5))
    assert float(ts.params["w"]) == by_hand(jax.random.key(5))[0]


def test_augment_sees_the_inputs_of_each_batch() -> None:
    def later(key: Any, x: Any) -> Any:
        return x + jax.random.randint(key, (), 0, 1000)

    epoch = train.make_epoch(exact_vg, EXACT_OPT, batch_size=B, augment=later)
    _, report = epoch(exact_start(), WINDOWS, (), KEY)
    added = np.array(report["loss"]) - by_hand(KEY)[1]
    places = B * T * (B * T + 1) // 2
    assert (added % places == 0).all()
    assert len(set(added)) == STEPS


def language_model(**how: Any) -> train.FitResult:
    return train.fit(LM, LOSS, LM_OPT, **SETTINGS | {"train": WINDOWS, "progress": False} | how)


@pytest.mark.slow
def test_fit_is_a_loop_of_epochs_and_goes_on_from_any_of_them() -> None:
    """Each epoch depends on its state and its key alone."""
    vg = jax.value_and_grad(train.mean_loss(LM, LOSS), has_aux=True)
    epoch, evaluate = train.make_epoch(vg, LM_OPT, batch_size=B), train.make_evaluate(LM, {"loss": LOSS})
    init_key, epochs_key = run_keys(KEY)
    ts = train.init(LM, LM_OPT, init_key, jax.ShapeDtypeStruct((T,), jnp.int32))
    values, validation, kept = [], [], []
    for e in (1, 2, 3):
        kept.append(jax.tree.map(jnp.copy, ts))
        ts, report = epoch(ts, WINDOWS, (), jax.random.fold_in(epochs_key, e))
        values.append(float(np.mean(np.asarray(report["loss"], np.float64))))
        validation.append(float(evaluate(ts.params, ts.state, *HELD_OUT)["loss"]))
    result = language_model(validation=HELD_OUT)
    chex.assert_trees_all_equal(train.TrainState(result.params, result.state, result.opt_state), ts)
    assert [record["loss"] for record in result.history] == values
    assert [record["validation_loss"] for record in result.history] == validation
    assert values[2] < values[0]
    for record in result.history:
        assert record["examples_per_second"] * record["seconds"] == pytest.approx(STEPS * B)
    again, _ = epoch(kept[2], WINDOWS, (), jax.random.fold_in(epochs_key, 3))
    chex.assert_trees_all_equal(again, ts)


def sums(key: Any, arrays: Any, n: int) -> Any:
    """An endless stream: points and a linear function of them."""
    x = jax.random.normal(key, (n, D), arrays.dtype)
    return x, x @ arrays


def test_a_stream_trains_as_steps_on_its_batches_do() -> None:
    with float64():
        w = jnp.asarray(np.random.default_rng(0).standard_normal((D, 2)))
        net, opt, loss = models.linear(2), optim.adam(0.01), losses.half_squared_error
        draws = Draws(w, sums, STEPS)
        result = train.fit(net, loss, opt, draws, **SETTINGS, progress=False)
        step = train.make_step(jax.value_and_grad(train.mean_loss(net, loss), has_aux=True), opt)
        init_key, epochs_key = run_keys(KEY)
        ts = train.init(net, opt, init_key, jax.ShapeDtypeStruct((D,), jnp.float64))
        for e in (1, 2, 3):
            order_key, step_key = jax.random.split(jax.random.fold_in(epochs_key, e))
            for i in range(STEPS):
                x, y = draws.batch(jax.random.fold_in(order_key, i), B)
                ts, _ = step(ts, x, y, key=jax.random.split(jax.random.fold_in(step_key, i))[0])
        assert_close(result.params, ts.params, rtol=1e-12)


def test_equal_draws_are_one_program() -> None:
    plain, traced = jax.value_and_grad(train.mean_loss(LM, LOSS), has_aux=True), []

    def vg(*given: Any, **how: Any) -> Any:
        traced.append(how)
        return plain(*given, **how)

    for tokens in (TOKENS, TOKENS[::-1]):
        draws = text.windows(tokens, T, steps=STEPS)
        train.fit(LM, LOSS, LM_OPT, draws, **SETTINGS, value_and_grad=vg, progress=False)
    assert len(traced) == 1


def test_running_statistics_take_drawn_batches() -> None:
    draws = Draws(jnp.ones((D, 2)), sums, STEPS)
    net = models.serial(Dense(3), BatchNorm(), Dense(2))
    for partial in Partial:
        loss = losses.half_squared_error
        result = train.fit(net, loss, OPT, draws, **SETTINGS | {"epochs": 1}, partial=partial, progress=False)
        assert np.isfinite(result.params[0]["w"]).all()


def diverged(**how: Any) -> train.DivergedError:
    given: dict[str, Any] = {"net": LM, "loss": LOSS, "opt": LM_OPT, "train": WINDOWS, "progress": False}
    with pytest.raises(train.DivergedError) as caught:
        train.fit(**given | SETTINGS | how)
    return caught.value


def test_a_step_that_diverges_is_replayed() -> None:
    error = diverged(opt=optim.sgd(lambda count: jnp.where(count == STEPS + 2, jnp.inf, 0.1)))
    assert (error.epoch, error.step) == (2, 4)
    assert "The update of step 3 made a parameter overflow: " in str(error)


def test_the_drawn_example_that_is_not_finite_is_named() -> None:
    def spoiled(key: Any, arrays: Any, n: int) -> Any:
        x, y = sums(key, arrays, n)
        return jnp.where(jnp.arange(n)[:, None] == 2, jnp.nan, x), y

    draws = Draws(jnp.ones((D, 2)), spoiled, STEPS)
    error = diverged(net=models.linear(2), loss=losses.half_squared_error, train=draws)
    assert (error.epoch, error.step) == (1, 1)
    told = "In the batch of that step, after augment: The x of example 2 holds nan, at [2, 0] (1 of 4 examples are"
    assert told in str(error)


def test_labels_of_a_drawn_batch_are_checked_before_training() -> None:
    net = models.serial(Embedding(SYMBOLS.size, 8), Dense(30))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 30\)") as caught:
        train.fit(net, LOSS, LM_OPT, WINDOWS, **SETTINGS, progress=False)
    assert caught.value.__notes__ == ["fit: raised by the training targets"]


@pytest.mark.slow
def test_runs_at_once_equal_single_ones() -> None:
    keys = jax.random.split(KEY, 2)
    single = [[r["loss"] for r in language_model(key=key).history] for key in keys]
    probed = []

    def probe(ts: Any, x: Any, y: Any) -> Any:
        probed.append((type(x), y))
        return {"first": x.arrays[0]}

    found = train.sweep(
        lambda s: optim.adam(s["rate"]), {"rate": np.array([0.01], np.float32)}, LM, LOSS, WINDOWS, keys=keys, epochs=3,
        batch_size=B, validation=HELD_OUT, probe=probe, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(found.curves["loss"], single, rtol=1e-5)
    assert set(probed) == {(Draws, ())}
    assert (found.curves["first"] == TOKENS[0]).all()
    _, report = train.ensemble(LM, LOSS, LM_OPT, WINDOWS, keys=keys, epochs=3, batch_size=B)
    assert report["loss"].shape == (2, 3, STEPS)
    np.testing.assert_allclose(report["loss"].mean(axis=2), single, rtol=1e-5)


def returns(x: Any, y: Any) -> Draws:
    return Draws((), lambda key, arrays, n: (x, y), 1)


BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "as many examples as asked for, 4, got 33", lambda: language_model(train=returns(*HELD_OUT))),
    (ValueError, "n must be at least 1, got 0", lambda: language_model(batch_size=0)),
    (TypeError, "n must be an int, got 1.5", lambda: language_model(batch_size=1.5)),
    (
        TypeError,
        r"validation must be a pair \(x, y\) or a Dataset, got Draws. Draw fixed examples once: draws.batch\(key, n\)",
        lambda: language_model(validation=WINDOWS),
    ),
    (
        ValueError,
        r"a Draws makes x and y: pass \(\) as y",
        lambda: exact_epoch(exact_start(), WINDOWS, np.ones(3, np.float32), KEY),
    ),
    (
        TypeError,
        "problem drawn: train must be a Dataset, got Draws",
        lambda: Problem("drawn", NET, LOSS, WINDOWS, Dataset(*classification()), 4, 1),
    ),
]


@pytest.mark.parametrize(("error", "told", "call"), BAD)
def test_what_does_not_fit_is_named(error: type[Exception], told: str, call: Any) -> None:
    with pytest.raises(error, match=told):
        call()
