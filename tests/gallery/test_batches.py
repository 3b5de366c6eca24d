"""The picture of batch sizes: what its caption says, read from what is drawn; time by the clock of this machine."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxnn import data, losses, models
from jaxnn.classic import batching
from tests.gallery.reading import drawn, line


@pytest.mark.slow
def test_progress_and_noise_of_batches() -> None:
    by_update, by_example, every_step, noise = drawn("batches").axes
    whole, mini, single = (line(by_update, name) for name in ("batch", "mini-batch", "stochastic"))
    for way, size in ((whole, 1257), (mini, 32), (single, 1)):
        np.testing.assert_array_equal(np.diff(way[:, 0]), 1257 // size)
    at = 1257 // 32  # the first epoch of mini-batches
    assert np.interp(at, whole[:, 0], whole[:, 1]) < mini[0, 1]
    assert np.interp(single[0, 0], mini[:, 0], mini[:, 1]) < single[0, 1]
    whole, mini, single = (line(by_example, name) for name in ("batch", "mini-batch", "stochastic"))
    assert whole[-1, 1] > max(np.interp(1e4, *mini.T), np.interp(1e4, *single.T))
    thin, bold = ([each.get_ydata() for each in every_step.lines[i:4:2]] for i in (0, 1))
    rough = [
        np.abs(np.diff(np.log(a))).mean() / np.abs(np.diff(np.log(b))).mean() for a, b in zip(thin, bold, strict=True)
    ]
    assert min(rough) > 1.5, "a batch's loss fluctuates more than that of all examples"
    assert "1,257 examples" in every_step.lines[-1].get_label()
    predicted, measured = line(noise, "predicted"), line(noise, "measured")
    expected = np.interp(np.log(measured[:, 0]), np.log(predicted[:, 0]), np.log(predicted[:, 1]))
    np.testing.assert_allclose(np.log(measured[:, 1]), expected, atol=0.12)
    np.testing.assert_allclose(predicted[:8, 1] * predicted[:8, 0], predicted[0, 1], rtol=0.02)


@pytest.mark.slow
def test_in_time_mini_batches_win() -> None:
    digits = data.load("digits").train
    net = models.mlp([64, 256, 256, 10])

    def course(size: int, rate: float, epochs: int) -> batching.Course:
        return batching.course(
            net, losses.softmax_cross_entropy, digits,
            batch_size=size, learning_rate=rate, epochs=epochs, key=jax.random.key(0),
        )  # fmt: skip

    mini, single = course(32, 0.3, 8), course(1, 0.02, 3)
    epoch = [np.diff(run.seconds).min() for run in (mini, single)]  # the least: other programs may run too
    assert epoch[0] / (1257 // 32) < 20 * epoch[1] / 1257, "32 examples take far less than 32 times as long as one"
    reached = [run.reaches(0.1) for run in (mini, single)]
    assert reached[0] is not None
    assert reached[1] is not None
    assert reached[0] * epoch[0] < reached[1] * epoch[1]
