"""Pictures of networks by construction: what they say is so."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from jaxnn import plots
from jaxnn.classic import parity
from jaxnn.gallery.base import Picture
from jaxnn.gallery.constructions import PICTURES

BY_NAME = {picture.name: picture for picture in PICTURES}


def test_names() -> None:
    assert len(BY_NAME) == len(PICTURES) == 6
    assert all(picture.caption.count(".") >= 2 and picture.source and picture.equation for picture in PICTURES)


@pytest.mark.slow
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_pictures_have_titles_and_labels_and_are_not_blank(picture: Picture, tmp_path) -> None:  # type: ignore[no-untyped-def]
    fig = picture.draw()
    assert fig.get_suptitle()
    panels = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert all(ax.get_title() and ax.get_xlabel() for ax in panels)
    assert panels[0].get_ylabel()
    image = matplotlib.image.imread(plots.save(fig, tmp_path / "picture.png"))
    assert min(image.shape[:2]) > 300
    assert image[..., :3].std() > 0.05


@pytest.mark.slow
def test_the_colour_bar_of_xor_stands_beside_its_axes_and_titles_below_the_main_one() -> None:
    fig = BY_NAME["xor-regions"].draw()
    fig.canvas.draw()
    *panels, bar = fig.axes
    last, shown = panels[-1].get_window_extent(), bar.get_window_extent()
    assert 0 < shown.x0 - last.x1 < 0.2 * last.width
    assert abs(shown.height - last.height) < 0.15 * last.height
    above = fig._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert all(ax.title.get_window_extent().y1 <= above.y0 for ax in panels)


@pytest.mark.slow
def test_ridges_and_their_sum_have_one_scale() -> None:
    *three, surface = BY_NAME["ridge-bump-surface"].draw().axes
    assert {ax.get_zlim() for ax in three} == {(0, 2)}
    assert {ax.collections[0].get_clim() for ax in three} == {(0, 2)}
    assert surface.get_zlim()[0] < 0 < surface.get_zlim()[1] < 2


@pytest.mark.slow
def test_the_staircase_stays_in_its_band() -> None:
    left, right = BY_NAME["staircase"].draw().axes
    function, network = (np.asarray(line.get_ydata(), float) for line in left.lines)
    assert np.abs(function - network).max() <= 0.15 + 0.01
    for line, slope in zip(right.lines, (-1, -1, -0.5), strict=True):
        units, errors = (np.log(np.asarray(data, float)[-5:]) for data in (line.get_xdata(), line.get_ydata()))
        assert abs(np.polyfit(units, errors, 1)[0] - slope) < 0.1


def test_what_the_caption_says_of_parity() -> None:
    more = [n for n in range(2, 17) if parity.counter(n).parameters > parity.chain(n).parameters]
    assert more == list(range(6, 17))
