"""Fits: history, stopping, convergence, divergence, reproducibility, ensembles."""

from __future__ import annotations

from typing import Any

import chex
import jax
import numpy as np
import pytest

from jaxnn import losses, metrics, models, optim, train
from jaxnn.data import Partial, make_dataset
from tests.helpers import assert_close, slow
from tests.train.problems import KEY, LOSS, NET, OPT, D, K, N, changed, classification, started

METRICS = {"error": metrics.error_rate}


def fitted(**settings: Any) -> train.FitResult:
    defaults: dict[str, Any] = {
        "key": KEY,
        "epochs": 5,
        "batch_size": 10,
        "validation": classification(1),
        "metrics": METRICS,
        "progress": False,
    }
    return train.fit(NET, LOSS, OPT, classification(), **defaults | settings)


@pytest.mark.slow
def test_history_holds_what_happened() -> None:
    result = fitted(epochs=20)
    assert [record["epoch"] for record in result.history] == list(range(1, 21))
    assert set(result.history[0]) == {
        "epoch", "loss", "grad_norm", "learning_rate", "validation_loss", "validation_error", "seconds",
        "examples_per_second",
    }  # fmt: skip
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert result.history[-1]["validation_error"] < 0.4
    assert (result.epoch, result.stopped) == (20, "")
    x, y = classification(1)
    again = train.evaluate(NET, result.params, result.state, x, y, METRICS | {"loss": LOSS}, batch_size=7)
    np.testing.assert_allclose(again["error"], result.history[-1]["validation_error"], rtol=1e-6)
    np.testing.assert_allclose(again["loss"], result.history[-1]["validation_loss"], rtol=1e-5)


def test_the_same_key_gives_bit_identical_runs() -> None:
    a, b, c = fitted(), fitted(), fitted(key=jax.random.key(1))
    chex.assert_trees_all_equal(a.params, b.params)
    chex.assert_trees_all_equal(a.opt_state, b.opt_state)
    assert [r["loss"] for r in a.history] == [r["loss"] for r in b.history]
    assert [r["loss"] for r in a.history] != [r["loss"] for r in c.history]


def test_a_fit_can_go_on_from_a_state_that_it_leaves_alone() -> None:
    first = fitted()
    start = train.TrainState(first.params, first.state, first.opt_state)
    second = fitted(start=start)
    assert second.history[0]["loss"] < first.history[0]["loss"]
    assert not start.params[1]["w"].is_deleted()
    assert fitted(start=start, epochs=0).epoch == 0


@pytest.mark.slow
def test_batch_gradient_descent_converges_by_both_tests() -> None:
    x = np.linspace(-1.0, 1.0, 32, dtype=np.float32)[:, None]
    settings: dict[str, Any] = {
        "key": KEY, "epochs": 500, "batch_size": 32, "progress": False,
    }  # fmt: skip
    run = lambda rule: train.fit(  # noqa: E731
        models.linear(1), losses.half_squared_error, optim.sgd(0.3), (x, 3 * x + 1), stopping=[rule], **settings
    )
    by_loss = run(train.LossTolerance(1e-6))
    values = [r["loss"] for r in by_loss.history]
    assert len(values) < 500
    assert abs(values[-1] - values[-2]) < 1e-6 <= abs(values[-2] - values[-3])
    assert "the loss changed by" in by_loss.stopped
    by_gradient = run(train.GradTolerance(1e-3))
    norms = [r["grad_norm"] for r in by_gradient.history]
    assert norms[-1] < 1e-3 <= norms[-2]
    assert "the gradient norm is" in by_gradient.stopped
    np.testing.assert_allclose(by_gradient.params[1]["w"], [[3.0]], atol=0.01)


def test_early_stopping_returns_the_best_epoch() -> None:
    result = fitted(epochs=300, stopping=[train.EarlyStopping("validation_loss", patience=3)])
    figures = [r["validation_loss"] for r in result.history]
    assert len(figures) < 300
    assert result.epoch == int(np.argmin(figures)) + 1 == len(figures) - 3
    assert "validation_loss has not improved on" in result.stopped
    x, y = classification(1)
    value = train.evaluate(NET, result.params, result.state, x, y, {"loss": LOSS})["loss"]
    np.testing.assert_allclose(value, min(figures), rtol=1e-5)


def test_select_returns_the_best_epoch_without_stopping() -> None:
    result = fitted(epochs=60, select="validation_error")
    figures = [r["validation_error"] for r in result.history]
    assert len(figures) == 60
    assert result.epoch == int(np.argmin(figures)) + 1


def test_a_diverging_run_stops_names_the_step_and_keeps_what_was_right() -> None:
    with pytest.raises(
        train.DivergedError, match=r"became (nan|inf) at step \d+ of epoch \d+ .*learning rate"
    ) as caught:
        train.fit(NET, losses.softmax_cross_entropy, optim.sgd(1e20), classification(), key=KEY, epochs=9,
                  batch_size=10, progress=False)  # fmt: skip
    error = caught.value
    assert error.epoch >= 1
    assert error.step >= 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(error.result.params)) or error.epoch > 1


def test_nan_in_the_inputs_is_blamed_on_the_inputs() -> None:
    x, y = classification()
    with pytest.raises(
        train.DivergedError, match=r"became nan at step 1 of epoch 1\. The training x of example 0 holds nan"
    ) as caught:
        train.fit(NET, LOSS, OPT, (np.full_like(x, np.nan), y), key=KEY, epochs=2, progress=False, batch_size=10)
    assert caught.value.result.epoch == 0
    assert np.isfinite(caught.value.result.params[1]["w"]).all()


@pytest.mark.parametrize("which", ["train", *slow("validation")])
def test_a_label_out_of_range_is_named_before_training(which: str) -> None:
    x, y = classification()
    bad = (x, changed(y, 7, K))
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, {K}\), got {K} at index \(7,\)") as caught:
        train.fit(
            NET, LOSS, OPT, bad if which == "train" else (x, y), key=KEY, epochs=1, progress=False,
            validation=bad if which == "validation" else None,
        )  # fmt: skip
    assert "raised by the" in caught.value.__notes__[0]


def test_a_validation_figure_of_nan_is_never_chosen_by() -> None:
    x, y = classification()
    with pytest.raises(train.DivergedError, match="validation_loss is NaN after epoch 1") as caught:
        fitted(validation=(changed(x, 3, np.nan), y), stopping=[train.EarlyStopping()])
    assert caught.value.result.epoch == 0


def test_datasets_are_taken_as_they_are() -> None:
    x, y = classification()
    dataset = make_dataset(x, y)
    settings: dict[str, Any] = {"key": KEY, "epochs": 2, "batch_size": 10, "progress": False}
    a = train.fit(NET, LOSS, OPT, dataset, validation=dataset, **settings)
    b = train.fit(NET, LOSS, OPT, (x, y), validation=(x, y), **settings)
    chex.assert_trees_all_equal(a.params, b.params)


def test_records_are_handed_out_as_they_come() -> None:
    seen: list[Any] = []
    result = fitted(on_epoch=lambda record, ts: seen.append((record, ts)))
    assert [record for record, _ in seen] == result.history
    chex.assert_trees_all_equal(seen[-1][1].params, result.params)


def test_a_hand_written_gradient_takes_the_place_of_autodiff() -> None:
    calls = []
    automatic = jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True)

    def hand_written(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return automatic(*args, **kwargs)

    chex.assert_trees_all_equal(fitted(value_and_grad=hand_written).params, fitted().params)
    assert calls


def test_progress_prints_a_line_for_each_epoch_where_there_is_no_terminal(capsys: Any) -> None:
    fitted(progress=True, epochs=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss 0.")
    assert "validation_error" in lines[1]
    assert lines[1].endswith("examples/s")


@pytest.mark.slow
def test_ensemble_members_are_the_runs_that_fit_makes() -> None:
    keys = jax.random.split(jax.random.key(5), 3)
    ts, report = train.ensemble(NET, LOSS, OPT, classification(), keys=keys, epochs=4, batch_size=10)
    assert report["loss"].shape == (3, 4, N // 10)
    for s in range(3):
        alone = fitted(key=keys[s], epochs=4)
        assert_close(jax.tree.map(lambda a, s=s: a[s], ts.params), alone.params, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(report["loss"][s].mean(axis=1), [r["loss"] for r in alone.history], rtol=1e-4)
    assert not np.allclose(ts.params[1]["w"][0], ts.params[1]["w"][1])
    outputs = jax.vmap(NET.predict, (0, 0, None))(ts.params, ts.state, classification(1)[0])
    assert outputs.shape == (3, N, K)


def test_weighting_the_last_batch_trains_on_all_examples() -> None:
    result = fitted(batch_size=32, partial=Partial.WEIGHT, epochs=30)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (
            {"validation": (np.ones((3, D), np.float32), np.zeros(4))},
            ValueError,
            r"validation x and y must be .* with the same N >= 1",
        ),
        ({"validation": np.ones((3, D), np.float32)}, TypeError, r"must be a pair \(x, y\) or a Dataset, got"),
        ({"epochs": -1}, ValueError, "epochs must be at least 0, got -1"),
        ({"batch_size": 51}, ValueError, "51 exceeds the 50 examples"),
        (
            {"select": "validation_f1"},
            ValueError,
            "no 'validation_f1' in the history, which has epoch, loss",
        ),
        ({"validation": None}, ValueError, r"metrics \(error\) are of the validation data"),
        ({"epochs": 1.5}, TypeError, "epochs must be an int, got 1.5"),
        ({"metrics": [metrics.error_rate]}, TypeError, "metrics must be a dict of functions"),
        ({"stopping": train.EarlyStopping()}, TypeError, r"must be a list of rules, such as \[EarlyStopping\(\)\]"),
        (
            {"augment": "shift"},
            TypeError,
            r"augment must be a function, such as augment.shift\(2\), or None; got 'shift'",
        ),
        ({"regularizer": 1e-4}, TypeError, "regularizer must be a function"),
        ({"start": NET.init(KEY, (D,))}, TypeError, "start must be a TrainState"),
        ({"key": 0}, TypeError, "fit: key must be a typed key"),
        (
            {"key": jax.random.split(KEY)},
            ValueError,
            r"fit: key must be one key, got an array of keys \(2,\)",
        ),
        (
            {"validation": None, "metrics": None, "stopping": [train.EarlyStopping()]},
            ValueError,
            "Pass validation data",
        ),
        ({"key": np.zeros(2, np.uint32)}, TypeError, "key"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fitted(**settings)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda d: train.fit(models.cnn, LOSS, OPT, d, key=KEY, epochs=1), TypeError, "Call it first"),
        (
            lambda d: train.fit(NET, LOSS, optim.adam, d, key=KEY, epochs=1),
            TypeError,
            "opt must be an optimizer",
        ),
        (lambda d: train.make_step(train.mean_loss(NET, LOSS), OPT)(started(), *d), TypeError, "has_aux=True missing"),
        (lambda d: train.mean_loss(NET, 3), TypeError, "loss must be a function"),
        (lambda d: train.evaluate(NET, (), (), *d, metrics.error_rate), TypeError, "metrics must be a dict"),
        (lambda d: train.EarlyStopping(patience=0), ValueError, "patience must be at least 1, got 0"),
        (lambda d: optim.adam(1e-3, b1=1.0), ValueError, r"adam: b1 must lie in \[0, 1\), got 1"),
        (lambda d: optim.sgd(1e-3, momentum=-1.0), ValueError, "sgd: momentum must lie in"),
    ],
)
def test_slips_are_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(classification())


def test_ensemble_needs_many_keys() -> None:
    with pytest.raises(ValueError, match=r"keys must have shape \(S,\).*got \(\)"):
        train.ensemble(NET, LOSS, OPT, classification(), keys=KEY, epochs=1)


def test_validation_is_of_the_parameters_that_a_rule_is_evaluated_at() -> None:
    result = fitted(epochs=1, evaluated_at=lambda opt_state, params: jax.tree.map(lambda p: 2 * p, params))
    plain = fitted(epochs=1)
    chex.assert_trees_all_equal(result.params, plain.params)
    found = train.evaluate(
        NET, jax.tree.map(lambda p: 2 * p, plain.params), plain.state, *classification(1), {"loss": LOSS}
    )
    assert result.history[0]["validation_loss"] == pytest.approx(found["loss"], rel=1e-6)
    with pytest.raises(TypeError, match="evaluated_at"):
        fitted(evaluated_at=2)
