"""The linear estimate against a fit, and what a denoising autoencoder returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxnn import data
from jaxnn.classic import denoising


def test_the_linear_estimate_is_that_of_many_noisy_copies() -> None:
    """Least squares on 200,000 noisy copies finds the same map as the formula."""
    generator = np.random.default_rng(0)
    clean = generator.normal(size=(50, 3)) @ np.diag([2.0, 1.0, 0.3]) + 1
    copies = np.repeat(clean, 4000, axis=0)
    noisy = copies + 0.7 * generator.normal(size=copies.shape)
    design = np.concatenate([np.ones((len(noisy), 1)), noisy], axis=1)
    fitted = np.linalg.lstsq(design, copies, rcond=None)[0]
    point = np.array([[2.0, -1.0, 0.5]])
    expected = np.concatenate([np.ones((1, 1)), point], axis=1) @ fitted
    np.testing.assert_allclose(denoising.wiener(clean, point, 0.7), expected, atol=0.02)
    assert np.abs(denoising.wiener(clean, point, 0.7 * 2) - expected).max() > 0.2


@pytest.mark.slow
def test_shapes_and_the_error_of_the_noise_itself() -> None:
    found = denoising.by_level((0.3, 0.6), units=8, seeds=2, epochs=2)
    assert found.plain.shape == found.denoising.shape == (2, 2)
    assert found.restored.shape == found.noisy_images.shape == (2, 270, 64)
    np.testing.assert_allclose(found.noisy, [0.3, 0.6], rtol=0.02)
    clean = data.load("digits").validation.x.reshape(270, 64)
    first = np.sqrt(np.mean((found.restored - clean) ** 2, axis=(1, 2)))
    np.testing.assert_allclose(first, found.denoising[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"levels": (-1.0,)}, ValueError, r"each of levels must lie in \[0, inf\)"),
        ({"levels": (0.5, 0.0)}, ValueError, "each of levels must be a finite number > 0, got 0"),
        ({"seeds": 0}, ValueError, "seeds must be at least 1"),
        ({"units": 1.5}, TypeError, "units must be an int"),
        ({"examples": np.ones((9, 4))}, TypeError, r"must be data.Splits of Datasets, got ndarray"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        denoising.by_level(**settings)
    part = data.make_dataset(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="at least 50 training images, one batch, got 3"):
        denoising.by_level(examples=data.Splits(part, part, part))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: denoising.wiener([[1.0, 1.0]], [[1.0, 1.0]], 0.0), "level must be a finite number > 0"),
        (lambda: denoising.wiener([[1.0, 1.0]], [[1.0]], 1.0), "got \\(1, 2\\) and \\(1, 1\\)"),
        (lambda: denoising.wiener([[np.nan]], [[1.0]], 1.0), "must be finite"),
        (lambda: denoising.by_level((0.0,)), "each of levels must be a finite number > 0"),
    ],
)
def test_what_has_no_linear_estimate_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
