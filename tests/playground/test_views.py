"""Heat maps: the right unit, the right epoch, the right way up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.playground.views import FRAMES, OUTPUT_SIZE, UNIT_SIZE, shown_epochs
from tests.playground.runs import short_run


def forward(frame: int, x: float, y: float) -> list[np.ndarray]:
    """The outputs of all units at a point, in NumPy."""
    run, views = short_run()
    a, found = np.array([x, y, x * x]), []
    for layer in run.at(int(views.epochs[frame]))[::2]:
        a = np.tanh(a @ layer["w"].astype(np.float64) + layer["b"])
        found.append(a)
    return found


def test_every_pixel_is_the_output_of_its_unit_at_its_place() -> None:
    _, views = short_run()
    assert views.output.shape == (len(views.epochs), OUTPUT_SIZE, OUTPUT_SIZE)
    rng = np.random.default_rng(0)
    for frame in (0, 7, len(views.epochs) - 1):
        for row, column in rng.integers(0, UNIT_SIZE, (5, 2)):
            x, y = -6 + 12 * (column + 0.5) / UNIT_SIZE, 6 - 12 * (row + 0.5) / UNIT_SIZE
            np.testing.assert_allclose(views.inputs[:, row, column], [x, y, x * x], rtol=1e-5, atol=1e-5)
            for hidden, expected in zip(views.hidden, forward(frame, x, y), strict=False):
                np.testing.assert_allclose(hidden[frame, :, row, column], expected, atol=1e-5)
        for row, column in rng.integers(0, OUTPUT_SIZE, (5, 2)):
            x, y = -6 + 12 * (column + 0.5) / OUTPUT_SIZE, 6 - 12 * (row + 0.5) / OUTPUT_SIZE
            np.testing.assert_allclose(views.output[frame, row, column], forward(frame, x, y)[-1][0], atol=1e-5)


def test_the_loss_is_that_of_the_outputs_shown() -> None:
    run, views = short_run()
    x, y = np.asarray(run.data.test.x, np.float64), np.asarray(run.data.test.y)
    last = [forward(len(views.epochs) - 1, *point)[-1][0] for point in x]
    np.testing.assert_allclose(run.test_loss[-1], 0.5 * np.mean((np.array(last) - y) ** 2), rtol=1e-4)


@given(st.integers(1, 5000), st.integers(2, 60))
def test_shown_epochs_run_from_first_to_last(epochs: int, frames: int) -> None:
    shown = shown_epochs(epochs, frames)
    assert (shown[0], shown[-1]) == (0, epochs)
    assert (np.diff(shown) > 0).all()
    assert len(shown) <= min(frames, epochs + 1)


def test_there_are_thirty_frames_of_a_long_run() -> None:
    assert len(shown_epochs(300)) in (FRAMES - 1, FRAMES)
    assert max(shown_epochs(300)) == 300
