"""Which networks mind where a digit stands."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, metrics
from jaxnn.classic import shifts
from tests.helpers import assert_close, slow

DIGITS = data.load("digits")
FEW = data.Splits(*(data.select(part, slice(0, 200)) for part in DIGITS))
IMAGES = shifts.on_paper(DIGITS.test.x[:20])


@functools.partial(jax.jit, static_argnums=(0, 1))
def outputs_at(name: str, places: tuple[tuple[int, int], ...]) -> list[jax.Array]:
    """The outputs of a network with the digits moved (down, right)."""
    net = shifts.NETWORKS[name]
    params, state = net.init(jax.random.key(0), IMAGES.shape[1:])
    # Zero biases would make the empty paper look like no feature at all, which is not so after training.
    params = jax.tree.map(lambda p: p + 0.1, params)
    return [net.predict(params, state, shifts.shifted(IMAGES, down, right)) for down, right in places]


@pytest.mark.slow
def test_a_global_maximum_forgets_the_place() -> None:
    there, *moved, cut = outputs_at("CNN, global max-pool", ((0, 0), (1, 0), (-2, 2), (2, 1), (4, 4)))
    for outputs in moved:
        assert_close(outputs, there, rtol=1e-5, atol=1e-5)
    assert abs(cut - there).max() > 1e-3, "at the edge of the paper something is cut off"


@pytest.mark.parametrize("name", ["CNN", *slow("MLP")])
def test_the_others_mind(name: str) -> None:
    moved, there = jax.device_get(outputs_at(name, ((0, 2), (0, 0))))
    assert abs(moved - there).max() > 0.1


def test_shifting_moves_and_loses_nothing() -> None:
    moved = np.asarray(jax.jit(lambda: shifts.shifted(IMAGES, 3, -2))())
    image = np.asarray(IMAGES)
    np.testing.assert_array_equal(moved[:, 3:, :-2], image[:, :-3, 2:])
    assert moved.sum() == pytest.approx(image.sum())
    np.testing.assert_array_equal(image[:, 4:12, 4:12], DIGITS.test.x[:20])


@pytest.mark.slow
def test_the_map_has_each_displacement_in_its_place() -> None:
    found = shifts.run("MLP", examples=FEW, reach=2, epochs=8)
    net, paper = shifts.NETWORKS["MLP"], shifts.on_paper(FEW.validation.x)
    for down, right in ((0, 0), (-2, 1), (1, -2)):
        outputs = net.predict(found.params, found.state, shifts.shifted(paper, down, right))
        error = metrics.error_rate(outputs, jnp.asarray(FEW.validation.y)).mean()
        np.testing.assert_allclose(found.errors[down + 2, right + 2], error, atol=1e-6)
    assert found.errors[2, 2] < 0.3 < found.by_distance()[2]


def test_distances() -> None:
    found = shifts.ErrorMap(np.array([[3.0, 2, 3], [2, 1, 2], [3, 2, 3]]), (), ())
    np.testing.assert_allclose(found.by_distance(), [1, 2.5])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="name must be one of MLP, CNN, CNN, global max-pool, got 'cnn'"):
        shifts.run("cnn")
    with pytest.raises(ValueError, match="at most the border of 4 pixels, got 5"):
        shifts.run("MLP", reach=5)


@pytest.mark.slow
def test_shifts_harm_a_perceptron_most_and_a_global_maximum_least() -> None:
    by_name = {name: shifts.run(name).by_distance() for name in shifts.NETWORKS}
    assert all(errors[0] < 0.1 for errors in by_name.values())
    assert by_name["MLP"][2] > by_name["CNN"][2] > 0.1
    pooled = by_name["CNN, global max-pool"]
    np.testing.assert_allclose(pooled[:3], pooled[0], atol=1e-6)
    augmented = shifts.run("MLP", augmented=True, epochs=20).by_distance()
    assert augmented[4] < 0.5 * by_name["MLP"][4]
