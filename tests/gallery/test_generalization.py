"""The pictures of learning and generalization, and those of the building blocks: titles, labels, something drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, losses, models
from jaxnn.classic.generalization import MEMBERS, few_digits
from jaxnn.gallery import basics, generalization
from jaxnn.layers import Dense, Flatten, Sigmoid
from tests.gallery.reading import drawn, line

PICTURES = {picture.name: picture for picture in (*basics.PICTURES, *generalization.PICTURES)}


def test_activations_are_drawn_with_their_properties() -> None:
    fig = drawn("activations")
    shown = {ax.get_title().splitlines()[0]: ax for ax in fig.axes}
    assert {"sign", "linear"} <= set(shown)
    for name, ax in shown.items():
        function = getattr(activations, name.replace(" ", "_"))
        found = activations.properties(function)
        *shape, told = ax.get_title().splitlines()[1:]
        assert (shape or [name])[0].split(",")[0] == found.shape
        assert ("not monotone" in ax.get_title()) == (not found.monotone)
        assert float(told.split("= ")[1]) == pytest.approx(found.slope, abs=0.01)
        z, values = line(ax, "s(z)").T
        np.testing.assert_allclose(values, np.where(np.isnan(values), np.nan, function(z)), atol=1e-6)
        low, high = (
            float(word.replace("\N{MINUS SIGN}", "-").replace("∞", "inf")) for word in told.split(",")[0].split(" to ")
        )
        assert low - 0.01 <= np.nanmin(values) <= np.nanmax(values) <= high + 0.01


def test_there_are_seven_to_nine() -> None:
    assert 7 <= len(generalization.PICTURES) <= 9
    assert all(picture.source for picture in PICTURES.values())


@pytest.mark.slow
def test_equal_units_stay_in_one_line_and_random_ones_part() -> None:
    equal, parted, loss = drawn("symmetry").axes
    ways = [line(equal, f"unit {j}") for j in (1, 2, 3, 4)]
    for way in ways:
        np.testing.assert_allclose(way, ways[0], atol=1e-3)
    ends = np.array([line(parted, f"unit {j}")[-1] for j in (1, 2, 3, 4)])
    gaps = [np.abs(ends[j] - ends[k]).max() for j in range(4) for k in range(j)]
    said = float(parted.get_title().rsplit(" ", 1)[1])
    assert min(gaps) > said - 0.1 > 1, "the separation also counts the outgoing weights and opposite signs"
    assert generalization.SYMMETRY_STARTS == 8
    assert "of eight starts" in " ".join(PICTURES["symmetry"].caption.split())
    assert line(loss, "equal")[-1, 1] > 0.4
    assert line(loss, "random")[-1, 1] < 0.02


@pytest.mark.slow
def test_errors_under_shifts_lie_within_the_colours() -> None:
    axes = drawn("shifts").axes
    for ax in axes[:-1]:
        (image,) = ax.images
        least, most = (float(image.get_array().min()), float(image.get_array().max()))
        assert image.get_clim()[0] <= least < most <= image.get_clim()[1]
        told = ax.get_title().splitlines()[1].removeprefix("centred ").split("%, at most ")
        centre, greatest = (float(each.rstrip("%")) for each in told)
        assert greatest == pytest.approx(most, abs=0.06)
        assert centre == pytest.approx(float(image.get_array()[4, 4]), abs=0.06)
        errors = np.asarray(image.get_array())
        one, beyond = np.zeros((2, 9, 9), bool)
        one[3:6, 3:6], one[4, 4] = True, False
        beyond[:], beyond[3:6, 3:6] = True, False
        if ax.get_title().startswith("MLP\n"):
            assert errors[one].min() > 45, "half or more"
            assert errors[beyond].min() > 80
        elif "global" in ax.get_title():
            assert 0 < most - least < 2, "the same but for the border"


@pytest.mark.slow
def test_early_stopping_waits_ten_epochs_for_a_lower_validation_loss() -> None:
    left, right = drawn("early-stopping").axes
    dots = line(left, "epoch returned")
    runs = [np.asarray(each.get_xydata()) for each in left.lines if each.get_linewidth() < 1]
    training, validation = runs[: len(dots)], runs[len(dots) :]
    assert len(training) == len(validation) == len(dots), "a thin line and a dot for each seed"
    for way, (epoch, least) in zip(validation, dots, strict=True):
        waited = way[: int(epoch) + 10, 1]
        assert waited.min() == pytest.approx(least)
        assert waited.argmin() + 1 == epoch
    assert all(way[-1, 1] < 0.3 * way[20, 1] for way in training)
    error = line(right, "validation")
    assert error[error[:, 1].argmin(), 0] < dots[:, 0].min(), "the error turns before the loss"


@pytest.mark.slow
def test_plain_sigmoid_layers_shrink_the_gradient() -> None:
    left, _ = drawn("batch-norm").axes
    without, normalized = line(left, "without, training")[:, 1], line(left, "with batch normalization, training")[:, 1]
    assert len(without) == 20
    assert without[-1] > 0.9 * without[0], "hardly falls"
    assert normalized[2] < 0.5 * normalized[0], "falls at once"
    digits = few_digits(600, wrong=0).train
    x = jnp.asarray(digits.x)
    net = models.serial(Flatten, *((Dense(50), Sigmoid) * 3), Dense(10))
    params, state = net.init(jax.random.key(0), x.shape[1:])
    slopes = jax.grad(lambda p: losses.softmax_cross_entropy(net.predict(p, state, x), digits.y).mean())(params)
    norms = [float(jnp.linalg.norm(each["w"])) for each in slopes if each]
    assert (np.array(norms[1:]) > 2 * np.array(norms[:-1])).all(), "smaller in each layer on the way back"


@pytest.mark.slow
def test_regularizers_trade_training_errors_for_validation_errors() -> None:
    *regularized, ensemble = drawn("regularizers").axes
    for ax in regularized:
        training, validation = (line(ax, name)[:, 1] for name in ("training", "validation"))
        assert training[0] < 3, "memorizes nearly all"
        assert 18 < validation[0] < 24, "a fifth"
        assert (np.diff(training) > 0).all()
        best = validation.argmin()
        assert 0 < best < len(validation) - 1, "until too strong a setting raises both"
        assert (np.diff(validation[: best + 1]) < 0).all()
        assert validation[best] < 0.75 * validation[0]
    members = line(ensemble, "validation")[:, 1]
    assert 1 < members[0] - members[1:].min() < 4, "gains a little"
    assert "three seeds (bottom right: 16)" in PICTURES["regularizers"].caption
    assert max(MEMBERS) == 16


@pytest.mark.slow
def test_the_number_of_hidden_units_with_the_least_validation_error_is_chosen() -> None:
    (ax,) = drawn("hidden-units").axes
    training, validation, test = (line(ax, name) for name in ("training", "validation", "test error"))
    assert min(training[0, 1], validation[0, 1]) > 60, "under-fits"
    best = validation[:, 1].argmin()
    assert test[0, 0] == validation[best, 0]
    assert (np.diff(training[:, 1]) < 0).all()
    assert (np.diff(validation[best:, 1]) > 0).all(), "over-fits"
    assert best < len(validation) - 1


@pytest.mark.slow
def test_the_error_falls_with_the_width() -> None:
    _, right = drawn("width").axes
    for name in ("largest error", "rms error"):
        median = line(right, name)[:, 1]
        assert (np.diff(median) < 1e-3).all()
        assert median[1] > 0.85 * median[0]
        assert median[3] < 0.6 * median[2], "steeply once there are enough"
