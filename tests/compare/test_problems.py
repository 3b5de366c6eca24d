"""Problems: what they hold, that they learn, and one's own from three functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, losses, models, optim, train
from jaxnn.compare import problems
from jaxnn.compare.problems import Problem, analytic, from_function
from jaxnn.data import Dataset

EMBEDDED = [name for name in problems.PROBLEMS if not name.startswith(("mnist", "fmnist"))]


def figures_of(problem: Problem, opt: optim.Optimizer, epochs: int, seeds: int = 1) -> dict[str, np.ndarray]:
    found = train.sweep(
        lambda rate: opt, np.zeros(1, np.float32), problem.net, problem.loss, problem.train,
        keys=jax.random.split(jax.random.key(0), seeds), epochs=epochs, batch_size=problem.batch_size,
        validation=problem.validation, metrics=problem.metrics, progress=False,
    )  # fmt: skip
    return found.curves


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_a_few_epochs_help(name: str) -> None:
    problem = problems.load(name)
    assert problem.name == name
    opt = optim.sgd(1e-3 if name in ("quadratic", "rosenbrock") else 0.1)
    (figure,) = figures_of(problem, opt, 3)[problem.figure]
    assert np.isfinite(figure).all()
    assert figure[-1] < figure[0]


RATES = {"quadratic": 0.04, "rosenbrock": 0.3, "digits-logistic": 0.016, "digits-cnn": 4e-3}


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_adam_reaches_the_target_within_the_epochs_but_not_at_once(name: str) -> None:
    problem = problems.load(name)
    assert problem.target is not None
    figures = figures_of(problem, optim.adam(RATES.get(name, 8e-3)), problem.epochs, seeds=3)[problem.figure]
    there = figures <= problem.target
    assert there.any(axis=1).all()
    assert 0.2 * problem.epochs < np.median(there.argmax(axis=1) + 1) < 0.6 * problem.epochs


def test_a_test_set_is_held_out() -> None:
    parts = data.load("digits")
    for name in (name for name in EMBEDDED if name.startswith("digits")):
        problem = problems.load(name)
        assert problem.test is not None
        for part, expected in zip((problem.train, problem.validation, problem.test), parts, strict=True):
            np.testing.assert_array_equal(part.x, expected.x, err_msg=name)
            images = name == "digits-autoencoder"
            targets = np.reshape(expected.x, (-1, 64)) if images else expected.y
            np.testing.assert_array_equal(part.y, targets, err_msg=name)


def test_the_quadratic_is_that_of_deepobs() -> None:
    generator = np.random.RandomState(42)
    eigenvalues = np.concatenate((generator.uniform(0, 1, 90), generator.uniform(30, 60, 10)))
    rotation = analytic._rotation(100, generator)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(100), atol=1e-12)
    # 98 reflections and a sign on an even number of axes.
    np.testing.assert_allclose(np.linalg.det(rotation), 1, rtol=1e-12)
    matrix = analytic._matrix(np.random.RandomState(42))
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), np.sort(eigenvalues), rtol=1e-10)
    assert abs(eigenvalues.sum() - 477.61) < 5e-3
    problem = problems.load("quadratic")
    params, state = problem.net.init(jax.random.key(9), (100,))
    np.testing.assert_array_equal(params, np.ones(100))

    def mean(theta: np.ndarray, part: Dataset) -> tuple[float, float]:
        """By the problem, and by NumPy in float64."""
        away = theta - np.asarray(part.x, np.float64)
        found = problem.loss(problem.net.predict(jnp.asarray(theta, jnp.float32), state, part.x), part.y)
        return float(np.mean(found)), 0.5 * float(np.einsum("ni,ij,nj->n", away, matrix, away).mean())

    assert problem.test is not None
    sets = (problem.train, problem.validation, problem.test)
    assert [len(part) for part in sets] == [1000, 1000, 896]
    for part in sets:
        assert abs(part.x.std() - 0.6) < 0.01
        for theta in (np.ones(100), np.zeros(100)):
            np.testing.assert_allclose(*mean(theta, part), rtol=1e-5)
    assert len({part.x[0, 0].item() for part in sets}) == 3
    # The figures of DeepOBS' own instance, computed once from its public definition.
    assert abs(mean(np.ones(100), problem.train)[0] - 353.706) < 1e-3
    assert abs(mean(np.zeros(100), problem.test)[0] - 86.926) < 1e-3


@pytest.mark.slow
def test_a_problem_of_ones_own() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    mine = from_function("mine", lambda key: {"c": jax.random.normal(key, (3,))},
                         lambda p, x: 0.5 * jnp.sum((p["c"] - x) ** 2), x[:30], x[30:35], test=x[35:],
                         batch_size=10)  # fmt: skip
    assert (len(mine.train), len(mine.validation)) == (30, 5)
    assert mine.test is not None
    np.testing.assert_array_equal(mine.test.x, x[35:])
    assert from_function("p", lambda key: jnp.ones(3), lambda p, x: jnp.sum(p * x), x).test is None
    loss = figures_of(mine, optim.sgd(0.1), 60)["loss"][0]
    np.testing.assert_allclose(loss[-1], 0.5 * mine.train.x.var(axis=0).sum(), rtol=0.05)


POINTS = Dataset(np.ones((4, 2), np.float32), np.zeros(4, np.int32))
NET: dict[str, Any] = {"net": models.linear(2), "loss": losses.softmax_cross_entropy, "train": POINTS}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: problems.load("digits-mpl"), "did you mean 'digits-mlp'"),
        (lambda: Problem("p", **NET, validation=POINTS, batch_size=5, epochs=1), "batch_size 5 exceeds the 4"),
        (lambda: Problem("p", **NET, validation=POINTS, batch_size=2, epochs=0), "epochs must be at least 1"),
        (
            lambda: Problem("p", **NET, validation=POINTS, batch_size=2, epochs=1, figure="validation_error"),
            "figure must be one of loss, validation_loss, got 'validation_error'",
        ),
        (
            lambda: Problem("P/x", **NET, validation=None, batch_size=2, epochs=1),
            "must be lower-case letters",
        ),
        (lambda: Problem("p", **NET, validation=(1, 2), batch_size=2, epochs=1), "validation must be a Dataset"),  # type: ignore[arg-type]
        (lambda: Problem("p", **NET, validation=None, batch_size=2, epochs=1, target="low"), "target must be a real"),  # type: ignore[arg-type]
        (lambda: Problem("p", **NET, validation=None, batch_size=2, epochs=1, metrics=len), "metrics must be a dict"),  # type: ignore[arg-type]
        (lambda: Problem("p", **(NET | {"net": 3}), validation=POINTS, batch_size=2, epochs=1), "net must be"),
        (lambda: from_function("p", 1, lambda p, x: x, POINTS), "init must be a function"),  # type: ignore[arg-type]
        (lambda: from_function("p", lambda key: jnp.ones(2), 1, POINTS), "loss must be a function"),  # type: ignore[arg-type]
        (
            lambda: from_function("p", lambda key: jnp.ones(2), lambda p, x: x[0], np.ones((0, 2))),
            "at least one example",
        ),
        (
            lambda: figures_of(
                from_function("p", lambda key: jnp.ones(2), lambda p, x: p * x, POINTS), optim.sgd(0.1), 1
            ),
            r"must return a scalar for one example x \(2,\), got shape \(2,\)",
        ),
    ],
)
def test_bad_problems_are_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()
