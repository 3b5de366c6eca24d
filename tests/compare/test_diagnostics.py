"""What a watched run reports, against NumPy along the same run, and against single examples' gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim, train
from jaxnn.compare import diagnostics, problems
from jaxnn.data import Partial, batch_indices
from jaxnn.train.keys import run_keys
from tests.compare.bowl import SCALES, bowl
from tests.helpers import float64

EPOCHS, STEPS = 3, 3


def swept(make: Any, problem: Any, **more: Any) -> train.Sweep:
    return train.sweep(
        make, np.array([0.05]), problem.net, problem.loss, problem.train, keys=jax.random.split(jax.random.key(0), 2),
        epochs=EPOCHS, batch_size=8, progress=False, **more,
    )  # fmt: skip


def by_hand(key: Any) -> dict[str, np.ndarray]:
    """The same run in NumPy: sgd with momentum on the bowl, its batches in the order of the sweep."""
    problem = bowl()
    init_key, epochs_key = run_keys(key)
    start = np.asarray(problem.net.init(init_key, (3,))[0]["w"], np.float64)
    w, velocity, rows = start, np.zeros(3), []
    for e in range(1, EPOCHS + 1):
        order_key, _ = jax.random.split(jax.random.fold_in(epochs_key, e))
        steps = []
        for index in np.asarray(batch_indices(order_key, 24, 8, partial=Partial.DROP)[0]):
            grad = SCALES * (w - problem.train.x[index].mean(axis=0))
            before, velocity = velocity, 0.9 * velocity + grad
            norms = np.linalg.norm(before) * np.linalg.norm(velocity)
            steps.append((np.linalg.norm(grad), 0.05 * np.linalg.norm(velocity),
                          velocity @ before / norms if norms else np.nan))  # fmt: skip
            w = w - 0.05 * velocity
        rows.append((*np.nanmean(steps, axis=0), np.linalg.norm(w - start)))
    return dict(zip(("grad_norm", "update_norm", "alignment", "distance"), np.transpose(rows), strict=True))


@pytest.mark.slow
def test_sizes_angles_and_distance_are_those_of_the_run() -> None:
    problem = bowl()
    watched = swept(
        lambda rate: diagnostics.watched(optim.sgd(rate, momentum=0.9), STEPS), problem,
        probe=lambda ts, x, y: diagnostics.reading(ts, STEPS),
    )  # fmt: skip
    plain = swept(lambda rate: optim.sgd(rate, momentum=0.9), problem)
    np.testing.assert_allclose(watched.curves["loss"], plain.curves["loss"], rtol=1e-6)
    for run, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        for name, values in by_hand(key).items():
            np.testing.assert_allclose(watched.curves[name][run], values, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_noise_is_that_of_single_examples_gradients() -> None:
    problem = bowl()
    with float64():
        w = np.array([1.0, -2.0, 0.5])
        ts = train.TrainState({"w": jnp.asarray(w)}, (), None)
        x = np.asarray(problem.train.x, np.float64)
        found = diagnostics.noise(problem, ts, jnp.asarray(x), jnp.zeros(len(x)), batch_size=8)
        grads = SCALES.astype(np.float64) * (w - x)
        trace = grads.var(axis=0, ddof=1).sum()
        signal = np.sum(grads.mean(axis=0) ** 2) - trace / len(x)
        np.testing.assert_allclose(found["noise_scale"], trace / signal, rtol=1e-6)
        np.testing.assert_allclose(found["snr"], 8 * signal / trace, rtol=1e-6)


def test_a_problem_of_one_example_has_no_noise() -> None:
    valley = problems.load("rosenbrock")
    ts = train.init(valley.net, optim.sgd(0.1), jax.random.key(0), (1,))
    found = diagnostics.noise(valley, ts, valley.train.x, valley.train.y, batch_size=1)
    assert all(np.isnan(v) for v in found.values())
    one = diagnostics.watched(optim.sgd(0.1), 1)
    state = one.init(jnp.ones(2))
    _, state = one.update(jnp.ones(2), state)
    assert np.isnan(diagnostics.reading(train.TrainState(jnp.ones(2), (), state), 1)["alignment"])
    _, state = one.update(-jnp.ones(2), state)
    assert diagnostics.reading(train.TrainState(jnp.ones(2), (), state), 1)["alignment"] == pytest.approx(-1)
