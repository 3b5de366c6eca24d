"""Binary digits: bits, their positions, resampling, and that a linear classifier reads them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxnn import data
from jaxnn.classic import logistic, multiclass
from jaxnn.classic.neurons import with_bias
from jaxnn.data import Dataset, Splits, binarised, make_dataset

DIGITS = data.digits()


def test_bits_of_the_same_size_are_thresholded_pixels() -> None:
    found = binarised(DIGITS, side=8, threshold=0.3)
    np.testing.assert_array_equal(found.x, (DIGITS.x.reshape(-1, 64) >= 0.3).astype(np.float32))
    assert (found.name, found.classes) == (DIGITS.name, DIGITS.classes)
    np.testing.assert_array_equal(found.y, DIGITS.y)


def test_rows_stay_rows_and_ink_stays_where_it_was() -> None:
    image = np.zeros((1, 4, 4, 1), np.float32)
    image[0, 0, 2:] = 1
    found = binarised(make_dataset(image, [0]), side=8).x.reshape(8, 8)
    expected = np.zeros((8, 8))
    expected[:2, 4:] = 1  # each pixel becomes four, but the border is blurred by half a pixel
    assert np.abs(found - expected)[[0, 3, 7]].sum() == 0
    small = binarised(make_dataset(np.kron(image, np.ones((1, 4, 4, 1))).astype(np.float32), [0]), side=4)
    np.testing.assert_array_equal(small.x.reshape(4, 4), image[0, ..., 0])


@pytest.mark.slow
def test_a_linear_classifier_reads_256_bits() -> None:
    found = binarised(DIGITS)
    assert found.x.shape == (1797, 256)
    share = found.x.mean()
    assert 0.1 < share < 0.5
    train, test = data.split(found, (1200, 597), seed=0, stratify=True)
    fit = logistic.softmax_fit(
        with_bias(train.x), train.y, 10, key=jax.random.key(0), learning_rate=0.02, epochs=20, batch_size=20
    )
    error = np.mean(np.asarray(multiclass.predict(fit.w, with_bias(test.x))) != test.y)
    assert error < 0.1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: binarised(Dataset(np.zeros((2, 8, 8)), np.zeros(2))),
            ValueError,
            r"images must have shape \(N, H, W, C\)",
        ),
        (lambda: binarised(Dataset(np.zeros((2, 8, 8, 3)), np.zeros(2))), ValueError, "must be grey"),
        (lambda: binarised(Dataset(np.zeros((2, 8, 8, 1), int), np.zeros(2))), TypeError, "floating dtype"),
        (lambda: binarised(Splits(DIGITS, DIGITS, DIGITS)), TypeError, "one Dataset, got Splits. Pass one part"),
        (lambda: binarised(DIGITS, side=0), ValueError, "side must be at least 1, got 0"),
        (lambda: binarised(DIGITS, threshold=0.0), ValueError, "threshold must be > 0, got 0"),
        (lambda: binarised(DIGITS, threshold=1.5), ValueError, r"threshold must lie in \[0, 1\], got 1.5"),
    ],
)
def test_bad_input_is_named(call, error, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("images", [np.full((2, 4, 4, 1), np.nan, np.float32), np.ones((2, 0, 4, 1), np.float32)])
def test_images_without_grey_levels_are_named(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="have pixels, and finite ones"):
        data.binarised(data.make_dataset(images, [0, 1]))
    with pytest.raises(TypeError, match="expected one Dataset"):
        data.binarised(images)  # type: ignore[arg-type]
