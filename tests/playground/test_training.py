"""A run against backpropagation written out in NumPy, and what it keeps and refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn.playground.features import featurize
from jaxnn.playground.training import Settings, network, points, run
from tests.helpers import float64, random, slow

RATE, STRENGTH = 0.3, 0.05


def full_batch(**changes: Any) -> Settings:
    """Every step sees all 250 points, so that their order does not matter."""
    return Settings(**{"data": "xor", "batch_size": 250, "learning_rate": RATE, "epochs": 20} | changes)


def numpy_run(params: Any, x: np.ndarray, y: np.ndarray, settings: Settings) -> list[Any]:
    """Parameters at the start and after each step of full-batch descent on a network of tanh units."""
    layers = [(np.array(p["w"]), np.array(p["b"])) for p in params[::2]]
    path = [layers]
    for _ in range(settings.epochs):
        outputs = [x]
        for w, b in layers:
            outputs.append(np.tanh(outputs[-1] @ w + b))
        delta = (outputs[-1] - y) * (1 - outputs[-1] ** 2)
        moved = []
        for (w, b), a in zip(reversed(layers), outputs[-2::-1], strict=True):
            decay = STRENGTH * w if settings.regularization == "l2" else 0
            moved.append((w - RATE * (a.T @ delta / len(x) + decay), b - RATE * delta.mean(axis=0)))
            delta = delta @ w.T * (1 - a**2)
        layers = moved[::-1]
        path.append(layers)
    return path


@pytest.mark.parametrize("regularization", ["l2", *slow("none")])
def test_a_run_is_backpropagation(regularization: str) -> None:
    settings = full_batch(
        regularization=regularization, regularization_rate=0.0 if regularization == "none" else STRENGTH
    )
    with float64():
        done = run(settings)
        x, x_test = (np.asarray(featurize(settings.features, part.x)) for part in done.data)
        y, y_test = (np.asarray(part.y)[:, None] for part in done.data)
    path = numpy_run(jax.tree.map(lambda leaf: leaf[0], done.params), x, y, settings)
    for epoch in range(settings.epochs + 1):
        for got, (w, b) in zip(done.at(epoch)[::2], path[epoch], strict=True):
            np.testing.assert_allclose(got["w"], w, rtol=0, atol=1e-12)
            np.testing.assert_allclose(got["b"], b, rtol=0, atol=1e-12)
    for inputs, targets, losses in ((x, y, done.train_loss), (x_test, y_test, done.test_loss)):
        for layers, loss in zip(path, losses, strict=True):
            a = inputs
            for w, b in layers:
                a = np.tanh(a @ w + b)
            np.testing.assert_allclose(loss, 0.5 * np.mean((a - targets) ** 2), rtol=1e-12)


@pytest.mark.slow
def test_l1_leaves_weights_at_exactly_zero() -> None:
    done = run(full_batch(data="circle", regularization="l1", regularization_rate=0.2, epochs=60))
    weights = np.concatenate([p["w"].reshape(61, -1) for p in done.params[::2]], axis=1)
    assert (weights[-1] == 0).any()
    zero = weights == 0
    assert (zero[1:] >= zero[:-1]).all(), "a weight came back from 0"
    assert all((p["b"][-1] != 0).all() for p in done.params[::2])


@pytest.mark.slow
def test_a_partial_batch_is_a_step_over_its_own_points() -> None:
    # One step of 250 of a batch of 300 is one step of all.
    whole, larger, two = (run(full_batch(epochs=3, hidden=(), batch_size=size)) for size in (250, 300, 200))
    np.testing.assert_allclose(whole.train_loss, larger.train_loss, rtol=1e-5)
    assert not np.allclose(whole.train_loss[1:], two.train_loss[1:], rtol=1e-3)


@pytest.mark.slow
def test_the_orders_are_those_of_the_batches() -> None:
    """Descent in NumPy on the batches that `orders` names; the last one is smaller."""
    settings = full_batch(batch_size=60, hidden=(), features=("x", "xy"), epochs=4)
    with float64():
        done = run(settings)
        x = np.asarray(featurize(settings.features, done.data.train.x))
    y = np.asarray(done.data.train.y)[:, None]
    assert (np.sort(done.orders, axis=1) == np.arange(250)).all()
    assert not np.array_equal(done.orders[0], done.orders[1])
    w, b = done.at(0)[0]["w"], done.at(0)[0]["b"]
    for epoch, order in enumerate(done.orders):
        for start in range(0, 250, 60):
            batch = order[start : start + 60]
            a = np.tanh(x[batch] @ w + b)
            delta = (a - y[batch]) * (1 - a**2) / len(batch)
            w, b = w - RATE * x[batch].T @ delta, b - RATE * delta.sum(axis=0)
        np.testing.assert_allclose(done.at(epoch + 1)[0]["w"], w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(done.at(epoch + 1)[0]["b"], b, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_first_weights_are_uniform_and_biases_a_tenth() -> None:
    net = network((8,) * 6, "relu", "regression")
    params, _ = jax.jit(jax.vmap(lambda key: net.init(key, (7,))))(jax.random.split(jax.random.key(0), 10))
    for layer in params[::2]:
        assert (np.asarray(layer["b"]) == np.float32(0.1)).all()
    w = np.concatenate([np.asarray(layer["w"]).ravel() for layer in params[::2]])
    assert 0.49 < np.abs(w).max() <= 0.5
    assert abs(w.mean()) < 5 * np.sqrt(1 / 12 / w.size)
    assert abs(w.var() - 1 / 12) < 5 * np.sqrt((1 / 80 - 1 / 144) / w.size)


@pytest.mark.parametrize(("data", "bound"), slow(("circle", 0.02), ("reg-gauss", 0.02)))
def test_it_learns(data: str, bound: float) -> None:
    done = run(Settings(data=data, hidden=(8, 8), features=("x", "y", "x2", "y2"), learning_rate=0.1, epochs=100))
    assert done.train_loss[-1] < bound
    assert done.test_loss[-1] < 2 * bound
    assert done.train_loss[-1] < 0.3 * done.train_loss[0]


def test_problems_differ_in_the_output_only() -> None:
    nets = [network((3,), "relu", problem) for problem in ("classification", "regression")]  # type: ignore[arg-type]

    @jax.jit
    def outputs(key: Any) -> Any:
        params, state = nets[0].init(key, (2,))
        return [net.predict(params, state, random(1, 5, 2, dtype=np.float32)) for net in nets]

    bounded, linear = outputs(jax.random.key(0))
    np.testing.assert_allclose(bounded, np.tanh(linear), rtol=1e-5)
    assert not np.allclose(bounded, linear, rtol=1e-3)


@pytest.mark.slow
def test_the_split_is_a_partition_by_the_ratio() -> None:
    for ratio, count in ((0.1, 50), (0.5, 250), (0.7, 350), (0.9, 450)):
        parts = points(Settings(train_ratio=ratio))
        assert [len(part) for part in parts] == [count, 500 - count]
        both = np.concatenate([np.asarray(part.x) for part in parts])
        assert len(np.unique(both, axis=0)) == 500
        assert 0.2 < (np.asarray(parts.train.y) > 0).mean() < 0.8
    assert not np.array_equal(parts.train.x, points(Settings(train_ratio=0.9, seed=1)).train.x)


def test_divergence_is_reported() -> None:
    settings = Settings(data="reg-plane", activation="linear", hidden=(), learning_rate=1e6, epochs=20)
    with pytest.raises(ValueError, match=r"loss became NaN or infinite after epoch \d+. Use a smaller learning rate"):
        run(settings)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data": "moons"}, "no data set 'moons'; there are: circle, xor"),
        ({"features": ("r",)}, "no feature 'r'"),
        ({"hidden": (9,)}, "hidden must be at most 6 layers of 1 to 8 units each, got 9"),
        ({"hidden": (2,) * 7}, "hidden must be at most 6 layers"),
        ({"hidden": (4, 0)}, "got 4,0"),
        ({"activation": "step"}, "no activation 'step'; there are: relu, tanh, sigmoid, linear"),
        ({"train_ratio": 1.0}, r"train_ratio must be a fraction in \[0.1, 0.9\], got 1"),
        ({"noise": 25}, r"noise must be a fraction in \[0, 0.5\], got 25. For 25 percent write 0.25"),
        ({"noise": 0.75}, r"noise must lie in \[0, 0.5\], got 0.75"),
        ({"train_ratio": 50}, "train_ratio must be a fraction in .* For 50 percent write 0.5"),
        ({"features": ("x1", "y")}, "features must be of one kind, got x1 of x1, x2, .* with y of x, y, x2"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"hidden": 8}, r"playground: hidden must be a tuple of ints, such as \(8,\), got 8"),
        ({"hidden": "8"}, "hidden must be a tuple of ints"),
        ({"hidden": (2.5,)}, "of 1 to 8 units each, got 2.5"),
        ({"hidden": (2.0,)}, "of 1 to 8 units each, got 2.0"),
        ({"features": "x,y"}, r'playground: features must be a tuple of names, such as \("x", "y"\), got \'x,y\''),
        ({"features": None}, "features must be a tuple of names"),
        ({"learning_rate": -1.0}, "playground: learning_rate must be a finite number > 0, got -1"),
        ({"learning_rate": 0.0}, "playground: learning_rate must be a finite number > 0, got 0"),
        ({"learning_rate": "0.1"}, "playground: learning_rate must be a real number, got '0.1'"),
        ({"regularization": "l3"}, "playground: regularization must be one of none, l1, l2, got 'l3'"),
        (
            {"regularization": "l2", "regularization_rate": -0.1},
            r"playground: regularization_rate must lie in \[0, inf",
        ),
        ({"regularization_rate": 0.1}, "regularization_rate 0.1 has no effect .* Choose l1 or l2"),
    ],
    ids=str,
)
def test_bad_settings_are_named_before_anything_is_computed(changes: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        dataclasses.replace(Settings(), **changes)
