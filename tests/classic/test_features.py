"""Features by hand against loops; planes that classify as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxnn import data
from jaxnn.classic import features
from jaxnn.data import TrainTest
from tests.helpers import random

IMAGES = random(0, 3, 4, 5, 2)
DIGITS = TrainTest(*data.split(data.digits(), (300, 1497), seed=0, stratify=True))


def naive(image: Any, row: Any, column: Any) -> float:
    """Minus the mean difference of each pixel from the one it is exchanged with."""
    height, width, channels = image.shape
    places = list(np.ndindex(height, width, channels))
    return -float(np.mean([abs(image[i, j, c] - image[row(i), column(j), c]) for i, j, c in places]))


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("symmetry, left and right", lambda i: i, lambda j: 4 - j),
        ("symmetry, up and down", lambda i: 3 - i, lambda j: j),
        ("symmetry, half a turn", lambda i: 3 - i, lambda j: 4 - j),
    ],
)
def test_symmetries_exchange_pixels(name: str, row: Any, column: Any) -> None:
    got = features.HAND[name](IMAGES)
    np.testing.assert_allclose(got, [naive(image, row, column) for image in IMAGES], rtol=1e-12)
    twin = features.symmetry(np.concatenate([IMAGES, IMAGES[:, :, ::-1]], axis=2))
    np.testing.assert_array_equal(twin, 0)


def test_intensity_is_the_mean() -> None:
    np.testing.assert_allclose(features.intensity(IMAGES), [image.mean() for image in IMAGES])


def test_classes_are_renumbered_in_their_order() -> None:
    part = data.make_dataset(np.arange(5.0)[:, None], [3, 1, 7, 3, 2])
    found = features.of_classes(part, (7, 3))
    assert found.x.ravel().tolist() == [0, 2, 3]
    assert found.y.tolist() == [1, 0, 1]


def test_without_mnist_the_embedded_digits_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "local_folder", lambda source: None)
    training, test = features.digits()
    assert (training.name, len(training), len(test)) == ("digits", 1000, 797)


@pytest.mark.slow
def test_planes_err_as_they_say() -> None:
    found = features.compare(examples=DIGITS, epochs=4)
    assert found.examples == "digits"
    for plane, name in zip(found.planes, ("two by hand", "learned"), strict=True):
        wrong = (plane.points @ plane.normal + plane.offset > 0) != plane.labels
        assert plane.error == found.errors[name] == pytest.approx(wrong.mean(), abs=0.005)
        assert len(plane.points) == np.isin(DIGITS.test.y, (1, 5)).sum()
    assert found.errors["learned"] < found.errors["two by hand"]
    assert features.compare((0, 1, 2), examples=DIGITS, epochs=1).planes == ()


def test_bad_classes() -> None:
    for classes in ((1,), (1, 99)):
        with pytest.raises(ValueError, match=r"images \(N, H, W, C\) of at least two classes, each with training"):
            features.compare(classes, examples=DIGITS)


def test_grey_levels_of_bytes_do_not_wrap() -> None:
    image = np.array([[0, 255]], np.uint8)[None, :, :, None]
    assert features.symmetry(image).tolist() == [-255.0]
    assert features.symmetry(image > 0).tolist() == [-1.0]
    with pytest.raises(ValueError, match=r"x must be images \(N, H, W, C\), got \(2, 4, 4\)"):
        features.intensity(np.ones((2, 4, 4)))
