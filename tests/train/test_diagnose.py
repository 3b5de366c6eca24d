"""The verdict on a training run, from made-up histories and from real ones."""

from __future__ import annotations

from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data, losses, models, optim, train
from jaxnn.train import Verdict, diagnose


def history(training: list[float], validation: list[float]) -> list[dict[str, float]]:
    return [{"loss": t, "validation_loss": v} for t, v in zip(training, validation, strict=True)]


FLAT_HIGH = history([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], [1.0] * 8)
FALLING_HIGH = history([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [1.0] * 8)
RISING_HIGH = history([1.0, 0.5, 0.4, 0.4, 0.5, 0.6, 0.8, 1.0], [1.0] * 8)
TURNED = history([1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01], [0.9, 0.6, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9])
STUCK = history([1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01], [0.9, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
GOOD = history([1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1], [0.9, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("run", "verdict", "first"),
    [
        (FLAT_HIGH, Verdict.UNDER_FITTING, "a larger model"),
        (FALLING_HIGH, Verdict.UNDER_FITTING, "more epochs: training still fell by 40%"),
        (RISING_HIGH, Verdict.UNDER_FITTING, "a smaller learning rate: training rose by 67%"),
        (TURNED, Verdict.OVER_FITTING, "stop early: validation was best, 0.5, after epoch 3"),
        (STUCK, Verdict.OVER_FITTING, "more data"),
        (GOOD, Verdict.GOOD, "look at the test set, once"),
    ],
)
def test_the_recipe(run: Any, verdict: Verdict, first: str) -> None:
    found = diagnose(run)
    assert found.verdict is verdict
    assert found.advice[0].startswith(first)
    told = found.describe()
    assert told.startswith(f"{verdict.value}: training {found.training:.4g}")
    assert f"try: {found.advice[0]}" in told


def test_the_numbers_it_was_judged_by() -> None:
    found = diagnose(TURNED)
    assert (found.training, found.validation, found.low, found.allowed) == (0.01, 0.9, 0.25, 0.375)
    assert (found.best, found.best_epoch) == (0.5, 3)
    assert found.trend == pytest.approx(0.01 / 0.02 - 1)
    last_two = [*TURNED * 2, *history([0.03, 0.01, 0.01, 0.01], [0.5, 0.5, 0.7, 0.9])]
    assert diagnose(last_two).validation == pytest.approx(0.8), "the mean over the last tenth of 20 epochs"


def test_thresholds_of_the_callers() -> None:
    assert diagnose(GOOD, low=0.05).verdict is Verdict.UNDER_FITTING
    assert diagnose(GOOD, low=0.1, gap=0.5).verdict is Verdict.OVER_FITTING
    assert diagnose(GOOD, low=0.1, gap=1.0).verdict is Verdict.GOOD
    errors = [{"error": r["loss"], "validation_error": r["validation_loss"]} for r in TURNED]
    assert diagnose(errors, figure="error")[:-1] == diagnose(TURNED)[:-1]
    assert "validation_error" in diagnose(errors, figure="error").advice[0]


figures = st.lists(st.tuples(st.floats(0.001, 10), st.floats(0.001, 10)), min_size=2, max_size=30)


@given(figures, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_verdict_does_not_depend_on_the_unit(pairs: Any, unit: float) -> None:
    a, b = (diagnose(history([t * u for t, _ in pairs], [v * u for _, v in pairs])) for u in (1.0, unit))
    assert a.verdict is b.verdict
    assert a.best_epoch == b.best_epoch
    assert b.training == pytest.approx(unit * a.training)


@given(figures)
def test_verdicts_follow_from_the_numbers_told(pairs: Any) -> None:
    found = diagnose(history([t for t, _ in pairs], [v for _, v in pairs]))
    low = found.training <= found.low
    assert (found.verdict is Verdict.UNDER_FITTING) == (not low)
    assert (found.verdict is Verdict.OVER_FITTING) == (low and found.validation > found.allowed)


@pytest.mark.parametrize(
    ("run", "settings", "text"),
    [
        ([], {}, "at least 2 epochs, got 0"),
        (GOOD[:1], {}, "at least 2 epochs, got 1"),
        ([{"loss": 1.0}] * 2, {}, "no 'validation_loss' in the history, which has loss. Pass validation"),
        (GOOD, {"figure": "error"}, "no 'error' in the history"),
        (history([1.0, -1.0], [1.0, 1.0]), {}, "got -1 in epoch 2"),
        (history([1.0, 1.0], [float("nan"), 1.0]), {}, "validation_loss must be finite .* got nan in epoch 1"),
        (GOOD, {"low": -1.0}, "low must lie in"),
        (GOOD, {"gap": -1.0}, "gap must lie in"),
    ],
)
def test_bad_histories(run: Any, settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        diagnose(run, **settings)


def test_another_thing_than_a_history_is_named() -> None:
    whole = train.FitResult((), (), (), GOOD, 2, "")
    for other, name in ((whole, "FitResult"), ({"loss": [1.0, 2.0]}, "dict"), (None, "NoneType"), ([1.0, 2.0], "list")):
        with pytest.raises(TypeError, match=f"got {name}. Pass the history of what fit returns: result.history"):
            diagnose(other)  # type: ignore[arg-type]


def test_a_guess_is_said_to_be_one() -> None:
    assert diagnose(GOOD).guessed
    assert "a guess: pass low=" in diagnose(GOOD).describe()
    assert not diagnose(GOOD, low=1.0).guessed
    assert "guess" not in diagnose(GOOD, low=1.0).describe()


@pytest.mark.slow
def test_real_runs() -> None:
    """One hidden unit is too little, forty digits are too few; 64 units and all digits are enough."""
    digits = data.load("digits")
    few = data.select(digits.train, slice(0, 40))

    def fitted(net: Any, examples: data.Dataset, epochs: int) -> Verdict:
        run = train.fit(net, losses.softmax_cross_entropy, optim.adam(3e-3), examples, key=jax.random.key(0),
                        epochs=epochs, batch_size=40, validation=digits.validation, progress=False)  # fmt: skip
        return diagnose(run.history, low=0.3).verdict

    assert fitted(models.mlp([64, 1, 10]), digits.train, 10) is Verdict.UNDER_FITTING
    assert fitted(models.mlp([64, 64, 10]), few, 60) is Verdict.OVER_FITTING
    assert fitted(models.mlp([64, 64, 10]), digits.train, 10) is Verdict.GOOD
