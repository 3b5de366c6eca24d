"""The verdict on a training run, from made-up histories and from real ones."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data, losses, models, optim, train
from jaxnn.classic.generalization import early_stopping
from jaxnn.classic.trials import Curves, few_digits
from jaxnn.train import Verdict, diagnose


def history(training: list[float], validation: list[float]) -> list[dict[str, float]]:
    return [{"loss": t, "validation_loss": v} for t, v in zip(training, validation, strict=True)]


FLAT_HIGH = history([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], [1.0] * 8)
FALLING_HIGH = history([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [1.0] * 8)
RISING_HIGH = history([1.0, 0.5, 0.4, 0.4, 0.5, 0.6, 0.8, 1.0], [1.0] * 8)
RISING = history([1.0, 0.6, 0.5, 0.5, 0.5, 0.4, 0.5, 0.5], [1.0] * 8)
TURNED_HIGH = history([1.0, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5], [0.9, 0.8, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2])
TURNED = history([1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01], [0.9, 0.6, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9])
STUCK = history([1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01], [0.9, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
GOOD = history([1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1], [0.9, 0.5, 0.3, 0.2, 0.12, 0.12, 0.12, 0.12])


@pytest.mark.parametrize(
    ("run", "verdict", "first"),
    [
        (FLAT_HIGH, Verdict.UNDER_FITTING, "a larger model"),
        (FALLING_HIGH, Verdict.UNDER_FITTING, "more epochs: training still fell by 40%"),
        (RISING, Verdict.UNDER_FITTING, "a smaller learning rate: training rose by 25%"),
        (RISING_HIGH, Verdict.DIVERGED, "a smaller learning rate: a tenth of it"),
        (TURNED_HIGH, Verdict.OVER_FITTING, "stop early: validation was best, 0.7, after epoch 3"),
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
    assert (found.training, found.validation, found.low, found.allowed) == (0.01, 0.9, 0.225, 0.01 + 0.2 * 0.225)
    assert (found.turned, found.rise) == (True, pytest.approx(0.8))
    assert (found.best, found.best_epoch) == (0.5, 3)
    assert found.trend == pytest.approx(0.01 / 0.02 - 1)
    last_two = [*TURNED * 2, *history([0.03, 0.01, 0.01, 0.01], [0.5, 0.5, 0.7, 0.9])]
    assert diagnose(last_two).validation == pytest.approx(0.8), "the mean over the last tenth of 20 epochs"


def test_thresholds_of_the_callers() -> None:
    assert diagnose(GOOD, low=0.05).verdict is Verdict.UNDER_FITTING
    assert diagnose(GOOD, low=0.1, gap=0.1).verdict is Verdict.OVER_FITTING
    assert diagnose(GOOD, low=0.1, gap=0.5).verdict is Verdict.GOOD
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
    high, apart = found.training > found.low, found.validation > found.allowed
    if found.verdict is not Verdict.DIVERGED:
        assert (found.verdict is Verdict.UNDER_FITTING) == (high and not found.turned)
        assert (found.verdict is Verdict.OVER_FITTING) == (found.turned or (apart and not high))
    else:
        assert high


@pytest.mark.parametrize(
    ("run", "settings", "text"),
    [
        ([], {}, "at least 2 epochs, got 0. Train for more, unless fit raised DivergedError"),
        (GOOD[:1], {}, "at least 2 epochs, got 1"),
        ([{"loss": 1.0}] * 2, {}, "no 'validation_loss' in the history, which has loss. Pass validation"),
        (GOOD, {"figure": "error"}, "no 'error' in the history"),
        (history([1.0, -1.0], [1.0, 1.0]), {}, "got -1 in epoch 2"),
        (GOOD, {"low": -1.0}, "low must lie in"),
        (GOOD, {"gap": -1.0}, "gap must lie in"),
    ],
)
def test_bad_histories(run: Any, settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        diagnose(run, **settings)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_what_is_not_finite_has_diverged(bad: float, epoch: int) -> None:
    falling = [0.8, 0.4, 0.2, 0.1]
    broken = [bad if e == epoch else value for e, value in enumerate(falling)]
    for run in (history(broken, falling), history(falling, broken)):
        found = diagnose(run)
        assert found.verdict is Verdict.DIVERGED
        assert found.describe().startswith("diverged: ")


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


SEEDS = (10, 11, 12, 13)
DIGITS = data.load("digits")
MLP = models.mlp([64, 64, 10])
UNDER, OVER = Verdict.UNDER_FITTING, Verdict.OVER_FITTING


def first(n: int) -> Any:
    return data.select(DIGITS.train, slice(0, n))


def mislabelled(share: float) -> Any:
    """The training digits, this share of them with a random label."""
    rng = np.random.default_rng(0)
    labels = np.array(DIGITS.train.y)
    wrong = rng.random(len(labels)) < share
    labels[wrong] = rng.integers(0, 10, wrong.sum())
    return data.Dataset(DIGITS.train.x, labels, DIGITS.train.classes)


SPIRALS = [data.toy.spirals(jax.random.key(seed), 600) for seed in range(2)]

KNOWN = {  # name: verdict, network, optimizer, training and validation data, epochs
    "one hidden unit": (UNDER, models.mlp([64, 1, 10]), optim.adam(3e-3), DIGITS.train, DIGITS.validation, 20),
    "a tiny rate": (UNDER, MLP, optim.sgd(1e-3), DIGITS.train, DIGITS.validation, 15),
    "40 digits": (OVER, MLP, optim.adam(3e-3), first(40), DIGITS.validation, 100),
    "100 digits": (OVER, MLP, optim.adam(3e-3), first(100), DIGITS.validation, 80),
    "200 digits, a tenth mislabelled": (OVER, MLP, optim.adam(3e-3), few_digits(200).train, DIGITS.validation, 80),
    "noisy labels": (OVER, models.mlp([64, 256, 10]), optim.adam(3e-3), mislabelled(0.3), DIGITS.validation, 60),
    "all digits": (Verdict.GOOD, MLP, optim.adam(3e-3), DIGITS.train, DIGITS.validation, 20),
    "spirals": (Verdict.GOOD, models.mlp([2, 64, 64, 2]), optim.adam(3e-3), *SPIRALS, 150),
    "a large rate": (Verdict.DIVERGED, MLP, optim.adam(1.0), DIGITS.train, DIGITS.validation, 15),
    "too much momentum": (Verdict.DIVERGED, MLP, optim.sgd(0.3, momentum=0.98), DIGITS.train, DIGITS.validation, 15),
}


@pytest.mark.slow
def test_forty_runs_whose_truth_is_known() -> None:
    """At the defaults: too small and too slow, too few and noisy data, good, diverged; four seeds each."""
    wrong = []
    for name, (truth, net, opt, examples, validation, epochs) in KNOWN.items():
        for seed in SEEDS:
            run = train.fit(net, losses.softmax_cross_entropy, opt, examples, key=jax.random.key(seed), epochs=epochs,
                            batch_size=min(32, len(examples.x)), validation=validation, progress=False)  # fmt: skip
            if diagnose(run.history).verdict is not truth:
                wrong.append((name, seed, diagnose(run.history).describe()))
    assert len(wrong) <= 2, wrong


@pytest.mark.slow
def test_curves_past_their_best_over_fit() -> None:
    curves = early_stopping().curves
    for run in range(len(curves.training_loss)):
        found = diagnose(Curves(*(values[run] for values in curves)).history())
        assert found.verdict is OVER


def curves(training: Any, validation: Any, name: str = "loss") -> Any:
    return [{name: a, f"validation_{name}": b} for a, b in zip(training, validation, strict=True)]


def test_metrics_that_cannot_be_judged_are_named() -> None:
    with pytest.raises(ValueError, match="better the lower it is, got 'accuracy'"):
        diagnose(curves([0.5, 0.9], [0.5, 0.9], "accuracy"), figure="accuracy")
    with pytest.raises(TypeError, match="loss must be a real number, got None"):
        diagnose(curves([None, 0.9], [0.5, 0.9]))


def test_a_validation_error_of_zero_from_the_start() -> None:
    assert diagnose(curves([0.4, 0.1, 0.02], [0.0, 0.0, 0.0])).verdict is Verdict.GOOD
