"""Figures: what they say can be read back from their axes; bad input is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from jaxnn import plots, train

HISTORY = [{"epoch": e, "loss": 1 / e, "validation_loss": 1.5 / e, "validation_error": 0.1 / e} for e in (1, 2, 3)]


def test_curves_show_every_loss_and_error_with_units_and_legend() -> None:
    left, right = plots.curves([HISTORY], title="A run").axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["training loss", "validation loss"]
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["validation error"]
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss (mean per example)", "error (%)")
    np.testing.assert_allclose(right.lines[0].get_ydata(), [10, 5, 10 / 3])


def test_curves_of_several_runs_show_their_mean_over_the_epochs_that_all_have() -> None:
    shifted = [{**record, "loss": record["loss"] + 1} for record in HISTORY[:2]]
    left, _ = plots.curves([HISTORY, shifted]).axes
    assert left.get_legend().get_texts()[0].get_text() == "training loss (mean of 2 runs)"
    np.testing.assert_allclose(left.lines[0].get_ydata(), [1.5, 1.0])
    assert len(left.lines) == 2 * (1 + 2)


def test_a_single_history_is_a_run() -> None:
    assert plots.curves(HISTORY).axes[0].get_legend().get_texts()[0].get_text() == "training loss"


def test_a_run_without_errors_has_losses_only() -> None:
    losses_only = [{"epoch": 1, "loss": 1.0}]
    assert [ax.get_ylabel() for ax in plots.curves(losses_only).axes] == ["loss (mean per example)"]
    with pytest.raises(ValueError, match=r"named \*loss or \*error, got epoch"):
        plots.curves([{"epoch": 1}])


def test_confusion_shows_counts_and_the_error() -> None:
    ax = plots.confusion(np.array([[9, 1], [0, 5]]), ["cat", "dog"]).axes[0]
    assert sorted(t.get_text() for t in ax.texts) == ["1", "5", "9"]
    assert "1 of 15 wrong (6.67%)" in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_mistakes_come_most_confident_first_and_no_more_than_asked() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 1])
    fig = plots.mistakes(np.zeros((4, 8, 8, 1)), labels, probabilities, ["a", "b"], most=1)
    assert fig.axes[0].get_title() == "true a\nguess b 80%"
    assert fig.axes[1].get_title() == ""
    assert fig.get_suptitle() == "Mistakes: 2 of 4, the 1 most confident"
    perfect = plots.mistakes(np.zeros((1, 8, 8)), labels[:1], probabilities[:1], ["a", "b"])
    assert perfect.get_suptitle() == "Mistakes: 0 of 1"


def test_pictures_stand_under_their_captions_row_by_row() -> None:
    images = [np.full((2, 2, 1), i / 4) for i in range(5)]
    axes = plots.pictures(images, [f"no. {i}" for i in range(5)], columns=3, title="five").axes
    assert [ax.get_title() for ax in axes] == ["no. 0", "no. 1", "no. 2", "no. 3", "no. 4", ""]
    assert [float(ax.images[0].get_array().max()) for ax in axes[:5]] == [0, 0.25, 0.5, 0.75, 1]
    assert not axes[5].images


def test_figures_are_written_and_not_blank(tmp_path: Path) -> None:
    for i, fig in enumerate((plots.curves([HISTORY]), plots.confusion(np.eye(3, dtype=int), "abc"))):
        image = matplotlib.image.imread(plots.save(fig, tmp_path / f"{i}.png"))
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.01


def test_a_whole_result_or_all_parameters_are_named() -> None:
    result = train.FitResult((), (), (), HISTORY, 2, "")
    for given in (result, [result]):
        with pytest.raises(TypeError, match=r"got its whole result\. Pass result\.history"):
            plots.curves(given)
    with pytest.raises(TypeError, match="templates: weights must be an array of numbers, got dict"):
        plots.templates({"w": np.eye(4)}, (2, 2))


def test_colours_are_distinct() -> None:
    assert len(set(plots.COLOURS)) == 8


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plots.curves([]), "at least one history"),
        (lambda: plots.pictures([np.eye(2)], []), "one caption per image, 1, got 0"),
        (lambda: plots.pictures([np.eye(2)], ["a"], columns=0), "pictures: columns must be at least 1, got 0"),
        (lambda: plots.templates(np.eye(4), (2, 2), columns=0), "templates: columns must be at least 1, got 0"),
        (lambda: plots.curves([HISTORY, []]), "at least one history with at least one epoch"),
        (lambda: plots.confusion(np.eye(3), ["a", "b"]), r"expected a matrix \(2, 2\) for 2 classes, got \(3, 3\)"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize(
    ("weights", "settings", "text"),
    [
        (np.eye(4), {"columns": 0}, "columns must be at least 1"),
        (np.ones((4, 0)), {}, r"got \(4, 0\)"),
        (np.full((4, 1), np.nan), {}, "must be finite"),
    ],
)
def test_templates_of_nothing_are_named(weights: Any, settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plots.templates(weights, (2, 2), **settings)
