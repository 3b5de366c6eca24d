"""What captions and titles of features and filters say is so, with MNIST or without."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from jaxnn.classic import features as study
from jaxnn.classic import filters
from jaxnn.gallery import features
from tests.gallery.reading import drawn, line

PICTURES = {picture.name: picture for picture in features.PICTURES}


@pytest.mark.slow
def test_denoising_beats_its_rivals_at_every_level() -> None:
    ax = drawn("denoising").axes[1]
    denoising, linear, plain, noisy = (line(ax, name)[:, 1] for name in ("den", "best", "auto", "the noisy"))
    assert (denoising < linear).all()
    assert (denoising > 0.9 * linear).all(), "but by less than a tenth"
    assert (linear < plain).all()
    assert (plain > 0.75 * noisy).all(), "most of the noise passes"
    assert (plain < noisy).all()


def hold_features(fig: Any) -> None:
    bars = fig.axes[2]
    pair, ten = ([patch.get_height() for patch in each] for each in bars.containers)
    two, four, pixels, learned = pair
    assert 5 < four <= two + 1 < 17, "most ones and fives"
    assert max(pixels, learned) < 2.5
    assert ten[3] < 0.8 * ten[2], "learned features err less than pixels"
    assert 60 < ten[1] < 72, "about two in three"
    for ax, error in zip(fig.axes[:2], (two, learned), strict=True):
        assert float(re.findall(r"\d+\.\d", ax.get_title())[0]) == pytest.approx(error, abs=0.051)


def hold_hierarchy(fig: Any) -> None:
    shares = [float(re.findall(r"(\d+)%", ax.get_title())[0]) for ax in fig.axes[:3]]
    assert shares == sorted(shares)
    assert shares[2] > 1.5 * shares[0]
    pixels, *stages = (patch.get_height() for patch in fig.axes[3].patches)
    assert max(stages) < 0.65 * pixels


@pytest.mark.slow
def test_learned_features_and_their_hierarchy() -> None:
    hold_features(drawn("features"))
    hold_hierarchy(drawn("hierarchy"))


@pytest.mark.slow
def test_the_same_holds_without_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "local_folder", lambda source: None)
    for hold, name in ((hold_features, "features"), (hold_hierarchy, "hierarchy")):
        fig = PICTURES[name].draw()
        assert "MNIST is not here" in fig.get_suptitle()
        hold(fig)


def test_the_scan_is_that_of_the_filter() -> None:
    fig = drawn("filter-scan")
    image, kernel = (np.asarray(fig.axes[i].images[0].get_array()) for i in (0, 5))
    final = np.asarray(fig.axes[9].images[0].get_array())
    np.testing.assert_array_equal(final, filters.response(image, kernel))
    assert final[0].max() > 0 > final[1].min(), "positive above the line, negative below"
    totals = [float(fig.axes[6 + i].get_title().split()[-1]) for i in range(4)]
    assert totals == [final[number // 5, number % 5] for number in features.FRAMES]
    assert len(set(totals[:3])) == 3
