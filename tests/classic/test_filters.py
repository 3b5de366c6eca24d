"""A scan against the layer and SciPy's correlation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from jaxnn.classic import filters
from jaxnn.layers import conv
from tests.helpers import random

IMAGE, KERNEL = random(0, 7, 6), random(1, 3, 2)


def test_frames_come_row_by_row_and_fill_the_output() -> None:
    frames = filters.scan(IMAGE, KERNEL, bias=0.5)
    assert [(f.row, f.column) for f in frames] == list(np.ndindex(5, 5))
    for i, frame in enumerate(frames):
        assert np.isfinite(frame.output).sum() == i + 1
        np.testing.assert_array_equal(frame.window, IMAGE[frame.top : frame.top + 3, frame.left : frame.left + 2])
        assert frame.total == pytest.approx(frame.products.sum() + 0.5) == frame.output[frame.row, frame.column]
    expected = correlate2d(IMAGE, KERNEL, mode="valid") + 0.5
    np.testing.assert_allclose(frames[-1].output, expected, rtol=1e-12)
    flipped = correlate2d(IMAGE, KERNEL[::-1, ::-1], mode="valid") + 0.5
    assert np.abs(frames[-1].output - flipped).max() > 0.1


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), ((2, 1), (1, 2)), (3, 1)])
def test_the_last_output_is_the_layers(stride: Any, padding: Any) -> None:
    image, kernel = random(2, 7, 6, 3), random(3, 3, 2, 3)
    pads = padding if isinstance(padding, tuple) else (padding, padding)
    params = {"w": jnp.asarray(kernel[..., None], jnp.float32), "b": jnp.array([0.25])}
    x = jnp.asarray(image[None], jnp.float32)
    expected = conv.apply(params, x, stride=stride, padding=[(p, p) for p in pads])[0, ..., 0]
    got = filters.response(image, kernel, bias=0.25, stride=stride, padding=padding)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_sizes_of_the_text() -> None:
    assert filters.response(np.ones((7, 7)), np.ones((3, 3))).shape == (5, 5)
    np.testing.assert_array_equal(filters.response(IMAGE, [[2.0]]), 2 * IMAGE)


def test_what_the_filters_find() -> None:
    flat, step = np.ones((5, 5)), np.repeat([[0.0, 0, 0, 1, 1]], 5, axis=0)
    for name, kernel in filters.FILTERS.items():
        assert filters.response(flat, kernel)[0, 0] == pytest.approx(float(name == "blur"), abs=1e-12)
    assert filters.response(step, filters.FILTERS["vertical edges"])[0].tolist() == [0, 3, 3]
    assert not filters.response(step, filters.FILTERS["horizontal edges"]).any()
    assert filters.response(step.T, filters.FILTERS["horizontal edges"])[:, 0].tolist() == [0, 3, 3]


@pytest.mark.parametrize(
    ("image", "kernel", "settings", "text"),
    [
        (np.ones((3, 3, 2)), np.ones((2, 2, 1)), {}, r"same channels .* got \(3, 3, 2\) and \(2, 2, 1\)"),
        (np.ones(3), np.ones(2), {}, r"expected an image \(H, W\)"),
        (np.ones((2, 2)), np.ones((3, 3)), {}, "does not fit the padded image"),
        (np.ones((2, 2)), np.ones((1, 1)), {"stride": 0}, "stride must be at least 1"),
    ],
)
def test_bad_shapes(image: Any, kernel: Any, settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        filters.scan(image, kernel, **settings)


def test_small_integers_do_not_wrap() -> None:
    image, kernel = np.full((2, 2), 200, np.uint8), np.full((1, 1), 2, np.uint8)
    np.testing.assert_array_equal(filters.response(image, kernel), np.full((2, 2), 400.0))
    with pytest.raises(TypeError, match="image must hold real numbers"):
        filters.response(1j * image, kernel)
