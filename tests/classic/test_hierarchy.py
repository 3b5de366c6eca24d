"""What a unit sees, by derivatives; the strongest images, by a search."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, models
from jaxnn.classic import hierarchy
from jaxnn.classic.hierarchy import Window
from jaxnn.data import TrainTest
from jaxnn.layers import AveragePool, Conv, MaxPool, Relu
from tests.helpers import random

STACKS = {
    "a convolution": [Conv(2, 3)],
    "strided": [Conv(2, 3, stride=2), Conv(2, 2)],
    "pooled": [Conv(2, 3), AveragePool(2), Conv(2, 3), AveragePool(3, stride=2)],
}


@pytest.mark.parametrize("name", STACKS)
def test_the_window_is_where_derivatives_are(name: str) -> None:
    net = models.serial(*STACKS[name])
    params, state = net.init(jax.random.key(0), (24, 24, 1))
    window = hierarchy.window_of(STACKS[name])
    x = jnp.asarray(random(0, 1, 24, 24, 1), jnp.float32)

    @jax.jit
    def seen(row: int, column: int) -> jax.Array:
        return jax.grad(lambda x: net.predict(params, state, x)[0, row, column].sum())(x)[0, ..., 0] != 0

    for row, column in ((0, 0), (1, 2)):
        rows, columns = np.nonzero(np.asarray(seen(row, column)))
        assert (rows.min(), columns.min()) == (row * window.step, column * window.step)
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == window.size


def test_the_stages_of_the_study() -> None:
    assert hierarchy.window_of([Conv(8, 3), Relu, MaxPool(2)]) == Window(4, 2)
    for layer in (Conv(8, 3, padding="SAME"), Conv(8, (3, 2)), Conv(8, 3, dilation=2)):
        with pytest.raises(ValueError, match="expected square windows and strides"):
            hierarchy.window_of([layer])


def test_the_strongest_are_those_of_a_search() -> None:
    images, window = random(1, 6, 5, 5, 1), Window(2, 1)
    outputs = random(2, 6, 4, 4, 3)
    found = hierarchy.strongest(outputs, images, window, top=2)
    for unit in range(3):
        best = sorted(range(6), key=lambda i: -outputs[i, ..., unit].max())[:2]
        assert found.images[unit].tolist() == best
        for t, image in enumerate(best):
            row, column = np.unravel_index(outputs[image, ..., unit].argmax(), (4, 4))
            np.testing.assert_array_equal(found.patches[unit, t], images[image, row : row + 2, column : column + 2])
            assert found.responses[unit, t] == outputs[image, row, column, unit]
    with pytest.raises(ValueError, match="top must be at most the number of images, 6, got 7"):
        hierarchy.strongest(outputs, images, window, top=7)


def test_the_share_of_the_most_frequent() -> None:
    np.testing.assert_allclose(hierarchy.share([[1, 1, 1], [0, 1, 2], [2, 0, 2]]), [1, 1 / 3, 2 / 3])


@pytest.mark.slow
def test_small_images_get_a_border_and_all_stages_are_probed() -> None:
    few = TrainTest(*data.split(data.digits(), (200, 1597), seed=0, stratify=True))
    found = hierarchy.study(examples=few, steps=8, top=3)
    assert [stage.window for stage in found.stages] == [Window(1, 1), Window(4, 2), Window(10, 4), Window(18, 4)]
    assert [stage.units for stage in found.stages] == [1, 8, 16, 32]
    for stage in found.stages[1:]:
        assert stage.strongest is not None
        assert stage.strongest.patches.shape == (stage.units, 3, stage.window.size, stage.window.size, 1)
        assert np.isnan(stage.share).sum() == (stage.strongest.responses <= 0).any(axis=1).sum()
    assert 0 < found.error < 1


def test_what_has_no_window_is_named() -> None:
    with pytest.raises(ValueError, match="expected convolutions, poolings and activations"):
        hierarchy.window_of([models.serial(Conv(8, 3))])
    with pytest.raises(TypeError, match="must be a Layer"):
        hierarchy.window_of([3])  # type: ignore[list-item]
    images = np.ones((2, 4, 4, 1))
    with pytest.raises(ValueError, match="leaves the images"):
        hierarchy.strongest(images, images, hierarchy.Window(2, 1), top=1)
    with pytest.raises(ValueError, match="outputs must be finite"):
        hierarchy.strongest(np.nan * images, images, hierarchy.Window(1, 1), top=1)
