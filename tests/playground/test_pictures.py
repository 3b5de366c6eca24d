"""The figure of one epoch and the animation of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnn import plots
from jaxnn.playground.pictures import DELAY, HOLD, NEGATIVE, POSITIVE, draw, write_gif
from tests.playground.runs import short_run


def test_the_figure_shows_the_frame_that_is_asked_for() -> None:
    run, views = short_run()
    first, last = draw(run, views, 0), draw(run, views)
    network, output, losses = last.axes[:3]
    assert output.get_title() == f"output after {views.epochs[-1]} epochs"
    assert first.axes[1].get_title() == "output after 0 epochs"
    np.testing.assert_array_equal(output.images[0].get_array(), views.output[-1])
    np.testing.assert_array_equal(first.axes[1].images[0].get_array(), views.output[0])
    assert len(network.images) == 3 + 4 + 3 + 1
    np.testing.assert_array_equal(network.images[3 + 4].get_array(), views.hidden[1][-1, 0])
    assert losses.lines[-1].get_xdata() == [30, 30]
    for ax in (output, losses):
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_lines_are_weights() -> None:
    run, views = short_run()
    lines = draw(run, views).axes[0].collections[0]
    weights = np.concatenate([layer["w"][-1].ravel() for layer in run.params[::2]])
    assert len(lines.get_segments()) == weights.size == 3 * 4 + 4 * 3 + 3
    assert (np.argsort(lines.get_linewidths()) == np.argsort(np.abs(weights))).all()
    colours = {False: plots.COLOURS[1], True: plots.COLOURS[0]}
    assert colours == {False: NEGATIVE, True: POSITIVE}
    blue = lines.get_colors()[:, 2] > lines.get_colors()[:, 0]
    np.testing.assert_array_equal(blue, weights > 0)


@pytest.mark.slow
def test_the_animation_has_every_frame(tmp_path: Path) -> None:
    run, views = short_run()
    few = views._replace(
        epochs=views.epochs[[0, 10, -1]],
        output=views.output[[0, 10, -1]],
        hidden=tuple(layer[[0, 10, -1]] for layer in views.hidden),
    )
    with Image.open(write_gif(run, few, tmp_path / "training.gif")) as gif:
        assert (gif.n_frames, gif.info["loop"]) == (3, 0)
        seen, durations = [], []
        for frame in range(3):
            gif.seek(frame)
            durations.append(gif.info["duration"])
            seen.append(np.asarray(gif.convert("RGB"), float))
    assert durations == [DELAY, DELAY, HOLD]
    still = draw(run, few)
    still.set_dpi(72)
    still.canvas.draw()
    expected = np.asarray(still.canvas.buffer_rgba(), float)[..., :3]
    assert np.abs(seen[-1] - expected).mean() < 4 < np.abs(seen[0] - expected).mean()
