"""The means against over-fitting: that each does what it says, and (slow) that it helps on digits not seen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data, losses, metrics, models, train
from jaxnn.classic import generalization
from jaxnn.classic.generalization import Errors
from jaxnn.classic.trials import Curves, few_digits, learning_curves, starts

FEW = few_digits(100, wrong=0)


def test_digits_are_split_evenly_and_once() -> None:
    parts = few_digits(200, wrong=0, seed=1)
    assert [len(part) for part in parts] == [200, 800, 797]
    assert all(abs(np.bincount(part.y) / len(part) - 0.1).max() < 0.02 for part in parts)
    whole = np.concatenate([part.x.reshape(len(part), -1) for part in parts])
    digits = data.digits().x.reshape(1797, -1)
    np.testing.assert_array_equal(np.sort(whole @ np.arange(64)), np.sort(digits @ np.arange(64)))


@pytest.mark.parametrize("wrong", [0.0, 0.2, 1.0])
def test_so_many_training_labels_are_wrong(wrong: float) -> None:
    spoilt, clean = few_digits(150, wrong=wrong), few_digits(150, wrong=0)
    assert (spoilt.train.y != clean.train.y).sum() == round(150 * wrong)
    assert spoilt.train.y.min() >= 0
    assert spoilt.train.y.max() <= 9
    np.testing.assert_array_equal(spoilt.train.x, clean.train.x)
    np.testing.assert_array_equal(spoilt.validation.y, clean.validation.y)
    np.testing.assert_array_equal(spoilt.test.y, clean.test.y)


def test_bad_splits() -> None:
    with pytest.raises(ValueError, match=r"n must lie in \[10, 900\], got 901"):
        few_digits(901)
    with pytest.raises(ValueError, match="n must be at least 10, got 5"):
        few_digits(5)
    with pytest.raises(TypeError, match=r"n must be an int, got 50\.0"):
        few_digits(50.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"wrong must lie in \[0, 1\], got 2"):
        few_digits(wrong=2)


@pytest.mark.slow
def test_learning_curves_are_those_of_fit() -> None:
    net, opt, key = models.mlp([64, 8, 10]), generalization.OPT, jax.random.key(3)
    start = jax.tree.map(lambda leaf: leaf[0], starts(net, opt, key[None], FEW.train.x))
    _, curves = jax.jit(lambda start: learning_curves(net, opt, FEW, start, key, epochs=4))(start)
    fitted = train.fit(net, losses.softmax_cross_entropy, opt, FEW.train, key=key, epochs=4, batch_size=50,
                       validation=FEW.validation, metrics={"error": metrics.error_rate}, progress=False)  # fmt: skip
    for name in ("validation_loss", "validation_error"):
        np.testing.assert_allclose([r[name] for r in curves.history()], [r[name] for r in fitted.history], rtol=1e-5)
    x, y = FEW.train.x, FEW.train.y
    at_end = train.evaluate(net, fitted.params, fitted.state, x, y, {"loss": losses.softmax_cross_entropy})
    np.testing.assert_allclose(curves.training_loss[-1], at_end["loss"], rtol=1e-5)


@pytest.mark.slow
def test_settings_and_seeds_stand_where_they_belong() -> None:
    found = generalization.weight_decay((0.0, 0.3), examples=FEW, seeds=3, epochs=8)
    assert found.settings.tolist() == pytest.approx([0.0, 0.3])
    assert found.training.shape == found.validation.shape == (2, 3)
    net, opt, keys = generalization.plain(10), generalization.OPT, jax.random.split(jax.random.key(0), 3)
    start = jax.tree.map(lambda leaf: leaf[2], starts(net, opt, keys, FEW.train.x))
    _, alone = jax.jit(
        lambda start: learning_curves(net, opt, FEW, start, keys[2], epochs=8, regularizer=losses.l2(0.3))
    )(start)
    np.testing.assert_allclose(found.validation[1, 2], alone.validation_error[-1], atol=1 / 800 + 1e-6)
    assert found.training[1].mean() > found.training[0].mean(), "a penalty this strong keeps digits from being learned"


@pytest.mark.slow
def test_a_shift_by_nothing_changes_nothing() -> None:
    plain = generalization.weight_decay((0.0,), examples=FEW, seeds=2, epochs=4)
    moved = generalization.augmentation((0.0, 1.5), examples=FEW, seeds=2, epochs=4)
    np.testing.assert_allclose(moved.validation[0], plain.validation[0], atol=2 / 800)
    assert abs(moved.validation[1] - plain.validation[0]).max() > 10 / 800


@pytest.mark.slow
def test_units_that_are_switched_off_do_not_count() -> None:
    wide, narrow = generalization.network(hidden=6, on=2), generalization.network(hidden=2)
    params, state = wide.init(jax.random.key(0), (3,))
    _, first, _, last = params
    x = jnp.arange(12.0).reshape(4, 3) / 10
    small = ((), {"w": first["w"][:, :2], "b": first["b"][:2]}, (), {"w": last["w"][:2], "b": last["b"]})
    outputs, expected, grads = jax.jit(
        lambda p, q: (wide.predict(p, state, x), narrow.predict(q, state, x),
                      jax.grad(lambda p: wide.predict(p, state, x).sum())(p))
    )(params, small)  # fmt: skip
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert not np.asarray(grads[3]["w"][2:]).any()
    assert not np.asarray(grads[1]["w"][:, 2:]).any()
    assert np.asarray(grads[3]["w"][:2]).any()


@pytest.mark.slow
def test_dropout_of_nearly_everything_hinders_learning() -> None:
    found = generalization.dropout((0.0, 0.95), examples=FEW, seeds=2, epochs=8)
    assert found.training[1].mean() > found.training[0].mean() + 0.05


def test_best_is_the_least_mean_validation_error() -> None:
    training = np.array([[0.0, 0.0], [0.3, 0.3], [0.5, 0.5]])
    validation = np.array([[0.4, 0.2], [0.25, 0.25], [0.1, 0.6]])
    assert Errors(np.arange(3), training, validation).best == 1
    assert Errors(np.arange(3), training, np.ones((3, 2))).best == 0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_early_stopping_looks_no_further_than_it_may(figures: list[float], patience: int) -> None:
    loss = np.array([figures])
    found = generalization.stopped(Curves(loss, loss, loss, loss), patience)
    best, stop = int(found.best_epoch[0]), int(found.stop_epoch[0])
    assert figures[best - 1] == min(figures[:stop])
    assert min(figures[:best]) == figures[best - 1]
    assert stop == len(figures) or stop == best + patience
    assert all(min(figures[: e + 1]) < min(figures[:e]) or e + 1 - figures.index(min(figures[:e])) - 1 < patience
               for e in range(1, stop - 1))  # fmt: skip
    np.testing.assert_array_equal(found.errors().validation[:, 0], [figures[-1], figures[best - 1]])


@pytest.mark.slow
def test_early_stopping_trains_to_the_end_all_the_same() -> None:
    found = generalization.early_stopping(patience=1, examples=FEW, seeds=2, epochs=6)
    assert found.curves.validation_loss.shape == (2, 6)
    assert found.errors().training.shape == (2, 2)


def naive_error(probabilities: np.ndarray, y: np.ndarray, members: list[int]) -> float:
    return float((probabilities[members].mean(axis=0).argmax(axis=-1) != y).mean())


def test_an_ensemble_is_the_mean_of_neighbours() -> None:
    generator = np.random.default_rng(0)
    probabilities, y = generator.dirichlet(np.ones(4), (5, 60)), generator.integers(0, 4, 60)
    for size in (1, 2, 5):
        expected = [naive_error(probabilities, y, [(i + j) % 5 for j in range(size)]) for i in range(5)]
        np.testing.assert_allclose(generalization._circle_errors(probabilities, y, size), expected)


@pytest.mark.slow
def test_an_ensemble_errs_less_than_its_members() -> None:
    found = generalization.ensembles((1, 6), examples=FEW, epochs=20)
    assert found.validation[1].mean() < found.validation[0].mean()
    assert np.ptp(found.validation[1]) == 0, "all of them together are one ensemble"


@pytest.mark.slow
def test_the_number_of_units_is_chosen_on_validation() -> None:
    found = generalization.hidden_units((1, 16), examples=FEW, seeds=2, epochs=25)
    assert found.errors.best == 1
    assert found.errors.validation[0].mean() > 0.5
    assert found.test.shape == (2,)
    assert abs(found.test - found.errors.validation[1]).max() < 0.08
    assert abs(found.test - found.errors.validation[0]).min() > 0.2, "the test error is that of the chosen size"


@pytest.mark.slow
def test_batch_normalization_helps_sigmoid_layers_to_learn() -> None:
    without, with_norm = generalization.batch_norm()
    assert (with_norm.training_loss[:, -1] < 0.3 * without.training_loss[:, -1]).all()
    assert (with_norm.validation_error[:, -1] < 0.2).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: generalization.weight_decay(seeds=0), "seeds must be at least 1, got 0"),
        (lambda: generalization.weight_decay(epochs=0), "epochs must be at least 1, got 0"),
        (lambda: generalization.ensembles((0,)), r"each of sizes must lie in \[1, inf\), got 0"),
        (lambda: generalization.batch_norm(layers=0), "layers must be at least 1, got 0"),
        (lambda: generalization.weight_decay((-1.0,)), r"each of strengths must lie in \[0, inf\), got -1"),
        (lambda: generalization.weight_decay((np.nan,)), "each of strengths must lie in"),
        (lambda: generalization.weight_decay(()), "strengths must be a sequence of at least one number"),
        (lambda: generalization.weight_decay(0.1), "strengths must be a sequence of at least one number, got 0.1"),
        (lambda: generalization.dropout((1.0,)), r"each of rates must lie in \[0, 1\), got 1"),
        (lambda: generalization.augmentation(examples=vectors(3)), r"must be images \(N, H, W, C\), got \(60, 2\)"),
        (lambda: generalization.hidden_units((1,), examples=vectors(3, labels=-1)), "train: labels must lie in"),
        (lambda: generalization.dropout(examples=vectors(3, x=np.nan)), "train must hold .* only finite features"),
        (lambda: generalization.dropout(examples=vectors(3, count=0)), "train must hold at least one example"),
    ],
)
def test_bad_settings_and_examples(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def vectors(classes: int, *, count: int = 60, labels: int | None = None, x: float | None = None) -> data.Splits:
    """Points in the plane at the corners of a polygon, or all at x; labels by corner, or all the same."""
    y = np.arange(count) % classes
    angle = 2 * np.pi * y / classes
    points = np.stack([np.cos(angle), np.sin(angle)], 1) if x is None else np.full((count, 2), x)
    part = data.Dataset(points.astype(np.float32), y if labels is None else np.full(count, labels))
    return data.Splits(part, part, part)


def test_examples_of_another_kind_are_an_error() -> None:
    for examples in ((np.ones((9, 2)), np.zeros(9)), vectors(3).train, "digits"):
        with pytest.raises(TypeError, match=r"examples must be data.Splits\(train, validation, test\)"):
            generalization.early_stopping(examples=examples)


@pytest.mark.slow
def test_other_data_have_as_many_outputs_as_classes() -> None:
    few = vectors(13, count=26)  # fewer examples than a batch
    found = generalization.weight_decay((0.0,), examples=few, seeds=2, epochs=150)
    assert found.validation.max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weight_decay", "dropout", "augmentation", "ensembles"])
def test_it_helps(name: str) -> None:
    """The validation error at the best setting is below that without by more than the seeds scatter."""
    found = getattr(generalization, name)()
    assert found.best > 0
    assert found.training[0].max() < 0.05, "without help the digits are learned by heart, wrong labels and all"
    gain = found.validation[0].mean() - found.validation[found.best].mean()
    assert gain > 2 * found.validation[0].std() / np.sqrt(found.validation.shape[1])


@pytest.mark.slow
def test_the_validation_loss_turns_upward() -> None:
    found = generalization.early_stopping()
    loss = np.asarray(found.curves.validation_loss)
    assert (found.stop_epoch < loss.shape[1]).all()
    assert (loss[:, -1] > 1.05 * loss.min(axis=1)).all()
    errors = found.errors()
    assert (errors.validation[1] < errors.validation[0]).all()
    assert (errors.training[1] > errors.training[0]).all()
