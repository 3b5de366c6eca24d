"""What captions and titles of the studies of training say is so, read from what is drawn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from jaxnn.gallery import training
from tests.gallery.reading import drawn, line


def values(ax: Any, label: str) -> np.ndarray:
    return line(ax, label)[:, 1]


@pytest.mark.slow
def test_examples_remove_errors_by_a_power_law() -> None:
    clean, wrong = drawn("examples-needed").axes
    test, law = line(clean, "test"), line(clean, "$a")
    quoted = [float(number) for number in re.findall(r"\d+\.\d", clean.get_title())]
    assert [test[list(test[:, 0]).index(n), 1] for n in (50, 200, 800)] == pytest.approx(quoted, abs=0.051)
    for found, (low, high) in zip(quoted, ((11, 18), (4.5, 8), (1.5, 4.5)), strict=True):
        assert low < found < high
    assert values(clean, "training").max() < 0.5
    halved = test[1:, 1] / test[:-1, 1]  # sizes double
    assert (halved > 0.4).all()
    assert (halved < 0.8).all()
    np.testing.assert_allclose(np.interp(test[:, 0], *law.T), test[:, 1], rtol=0.2)
    assert values(wrong, "training")[:3].max() < 0.5, "memorized, up to 100"
    assert values(wrong, "training")[-1] > 15
    assert values(wrong, "test")[-1] < 10


@pytest.mark.slow
def test_plain_depth_loses_its_gradient_and_the_others_keep_it() -> None:
    gradient, error = drawn("depth").axes
    plain = values(gradient, "plain")
    assert (plain[1:] < 0.5 * plain[:-1]).all()
    assert (values(error, "plain")[2:] > 75).all()
    assert values(error, "plain")[0] < 15
    for name in ("batch", "residual", "both"):
        assert (values(gradient, name) > 0.8 * values(gradient, name)[0]).all()
        assert values(error, name).max() < 20


@pytest.mark.slow
def test_types_of_layers() -> None:
    names = [text.get_text() for text in drawn("layer-types").axes[0].get_yticklabels()]
    parameters, _, errors = (
        dict(zip(names, (bar.get_width() for bar in ax.patches), strict=True)) for ax in drawn("layer-types").axes
    )
    linear = errors.pop("none: linear")
    assert all(0.2 < error / linear < 0.7 for error in errors.values())
    assert errors["3 x 3 convolution"] < errors["1 x 1 convolution"] - 0.5
    assert abs(errors["3 x 3, max-pool"] - errors["dense"]) < 0.8
    assert parameters["3 x 3, max-pool"] < parameters["dense"]


@pytest.mark.slow
def test_transfer_helps_where_tasks_are_alike() -> None:
    noisy, other = drawn("transfer").axes
    scratch, n = values(noisy, "from scratch"), list(line(noisy, "from scratch")[:, 0])
    for name in ("pre-trained, all", "pre-trained, frozen"):
        assert (values(noisy, name) < scratch).all()
        assert values(noisy, name)[n.index(50)] < scratch[n.index(100)]
    assert (values(other, "pre-trained, all") > values(other, "from scratch") - 1).all()
    assert (values(other, "pre-trained, frozen") > values(other, "random, frozen") - 1).all()


def test_products_read_what_the_equation_says() -> None:
    read, operations = drawn("matrix-products").axes
    found = line(read, "matrix by matrix")
    np.testing.assert_allclose(found[:, 1], 1 / training.OUTPUTS + 1 / found[:, 0], rtol=1e-12)
    assert (values(operations, "matrix by matrix") == 1).all()
    np.testing.assert_array_equal(values(operations, "vector by matrix"), found[:, 0])
    assert (values(read, "vector by matrix") > 1).all()
