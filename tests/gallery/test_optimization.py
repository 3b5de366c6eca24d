"""The pictures of optimization: each is drawn, and shows what its caption says."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from jaxnn.gallery import optimization
from jaxnn.gallery.base import Picture
from jaxnn.plots import save
from tests.helpers import slow

PICTURES = {picture.name: picture for picture in optimization.PICTURES}
GANS = ("gan-samples", "gan-coverage")


@functools.cache
def drawn(name: str) -> Any:
    return PICTURES[name].draw()


def line(ax: Any, label: str) -> np.ndarray:
    """The points of the line whose label begins like this."""
    return next(found for found in ax.lines if str(found.get_label()).startswith(label)).get_xydata()


def test_names_captions_and_sources() -> None:
    assert len(PICTURES) == len(optimization.PICTURES) == 6
    for picture in optimization.PICTURES:
        assert isinstance(picture, Picture)
        assert picture.title
        assert 2 <= picture.caption.count(". ") + 1 <= 4, picture.name
        assert picture.source
        assert "$" not in picture.equation


@pytest.mark.parametrize("name", ["bilinear", *slow(*(n for n in PICTURES if n not in (*GANS, "bilinear")))])
def test_pictures_are_drawn_with_labels(name: str, tmp_path: Any) -> None:
    fig = drawn(name)
    for ax in fig.axes:
        assert ax.get_xlabel() or ax.get_ylabel()
    assert save(fig, tmp_path / f"{name}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_steps_of_each_size_do_what_is_said() -> None:
    height = drawn("step-sizes").axes[-1]
    ways = {name: line(height, name)[:, 1] for name in ("too small", "good", "oscillating", "diverging")}
    assert len(ways["good"]) < 40 < len(ways["too small"]) == 61
    assert ways["too small"][-1] > 1e-2
    assert ways["diverging"][-1] > ways["diverging"][0]
    assert ways["good"][-1] < 1e-4 < ways["oscillating"][-1] < ways["oscillating"][0]


def test_the_bilinear_game_circles_outward_and_is_mended() -> None:
    right = drawn("bilinear").axes[1]
    far = {name: line(right, name)[:, 1] for name in ("simultaneous", "alternating", "optimistic", "extragradient")}
    np.testing.assert_allclose(far["simultaneous"], line(right, "√2")[:, 1], rtol=1e-4)
    assert far["simultaneous"][-1] > 10
    assert 1 < far["alternating"].min() < far["alternating"].max() < 2
    assert max(far["optimistic"][-1], far["extragradient"][-1]) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", GANS)
def test_slow_pictures_are_drawn(name: str, tmp_path: Any) -> None:
    assert save(drawn(name), tmp_path / f"{name}.png").stat().st_size > 20_000
