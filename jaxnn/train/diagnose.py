"""Reading a training run: under-fitting, over-fitting or good, by which numbers, and what to try next."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnn.checks import require_between
from jaxnn.train.stopping import Record

LOW = 0.25
"""Without a `low` of the caller's, a loss counts as low once it is at most this part of the first epoch's."""

FALLING = 0.05
"""A training loss that fell by more than this part over the last quarter of the epochs has not settled yet."""

RISEN = 0.1
"""A validation figure above its best by more than this part has turned upward."""


class Verdict(enum.Enum):
    """What a history tells: the three cases of the recipe."""

    UNDER_FITTING = "under-fitting"
    OVER_FITTING = "over-fitting"
    GOOD = "good"


class Diagnosis(NamedTuple):
    """A verdict with the numbers it was judged by.

    Attributes:
        verdict: `Verdict.UNDER_FITTING`, `OVER_FITTING` or `GOOD`.
        training, validation: the figure, mean over the last tenth of the epochs (at least one).
        low: what the training figure was held against.
        guessed: whether `low` is the guess of a quarter of the first epoch's figure.
        allowed: what the validation figure was held against: low (1 + gap).
        trend: change of the training figure over the last quarter of the epochs, as a part: -0.1 fell by 10%.
        best, best_epoch: the least validation figure, and the epoch (from 1) that it belongs to.
        advice: what to try next, the likeliest remedy first.
    """

    verdict: Verdict
    training: float
    validation: float
    low: float
    guessed: bool
    allowed: float
    trend: float
    best: float
    best_epoch: int
    advice: tuple[str, ...]

    def describe(self) -> str:
        """The verdict, the numbers and the advice, in lines of text."""
        guess = ", a guess: pass low=" if self.guessed else ""
        lines = [
            f"{self.verdict.value}: training {self.training:.4g} (low: at most {self.low:.4g}{guess}), "
            f"validation {self.validation:.4g} (low: at most {self.allowed:.4g})",
            f"training changed by {self.trend:+.1%} over the last quarter of the epochs; validation was best, "
            f"{self.best:.4g}, after epoch {self.best_epoch}",
            *(f"try: {remedy}" for remedy in self.advice),
        ]
        return "\n".join(lines)


def diagnose(
    history: Sequence[Record], *, figure: str = "loss", low: float | None = None, gap: float = 0.5
) -> Diagnosis:
    """Judge a run by its training and validation figures.

    training > low                                      under-fitting: the function set or the optimization fails
    training <= low, validation > low (1 + gap)         over-fitting
    training <= low, validation <= low (1 + gap)        good

    The training loss of `fit` is the mean over an epoch's batches as they were met: it lags behind the parameters that
    validation sees, and holds dropout, augmentation and the penalty, which validation does not. With these it may well
    be the larger of the two.

    Args:
        history: of `fit`, at least two epochs, made with validation data; or any such list of dicts.
        figure: the name of the training figure; that of validation has "validation_" in front. Never negative.
        low: up to where the training figure counts as low, in its own units: what the task asks for. None takes a
            quarter of the first epoch's training figure, which is a guess.
        gap: how far above `low` the validation figure may lie, as a part of it.

    Returns:
        Diagnosis.

    Raises:
        TypeError: no list of dicts, such as the whole result of `fit`.
        ValueError: fewer than two epochs, a figure that is missing, negative or not finite, or a `low` or `gap` < 0.

    Reference:
        Geman, S., Bienenstock, E. & Doursat, R. (1992). Neural networks and the bias/variance dilemma.

    Example:
        >>> history = [{"loss": 2.0 / e, "validation_loss": 1.0 + 0.1 * e} for e in range(1, 21)]
        >>> found = diagnose(history)
        >>> found.verdict.value, found.best_epoch
        ('over-fitting', 1)
        >>> found.advice[0]
        'stop early: validation was best, 1.1, after epoch 1: stopping=[train.EarlyStopping("validation_loss")]'
    """
    training, validation = (_figures(history, name) for name in (figure, f"validation_{figure}"))
    require_between("diagnose", "gap", gap, 0, math.inf)
    guessed, low = low is None, LOW * training[0] if low is None else low
    require_between("diagnose", "low", low, 0, math.inf)
    allowed = low * (1 + gap)
    last, last_validation = _tail(training), _tail(validation)
    trend, best = _trend(training), min(validation)
    best_epoch = validation.index(best) + 1
    if last > low:
        verdict, advice = Verdict.UNDER_FITTING, _for_under_fitting(trend)
    elif last_validation > allowed:
        turned = last_validation > (1 + RISEN) * best
        verdict, advice = Verdict.OVER_FITTING, _for_over_fitting(figure, best, best_epoch, turned)
    else:
        verdict, advice = Verdict.GOOD, ("look at the test set, once; a smaller model or fewer epochs may do as well",)
    return Diagnosis(verdict, last, last_validation, low, guessed, allowed, trend, best, best_epoch, advice)


def _for_under_fitting(trend: float) -> tuple[str, ...]:
    """Longer while the loss falls; a smaller step where it rises; else another model or rule."""
    general = (
        "a larger model: more units, more layers",
        "another optimizer, learning rate or initialization; normalization",
        "less weight decay and dropout",
    )
    if trend < -FALLING:
        return (f"more epochs: training still fell by {-trend:.0%} over the last quarter", *general)
    if trend > FALLING:
        return (f"a smaller learning rate: training rose by {trend:.0%} over the last quarter", *general)
    return general


def _for_over_fitting(figure: str, best: float, best_epoch: int, turned: bool) -> tuple[str, ...]:
    """An earlier stop where validation has turned upward; then what makes up for scarce data."""
    general = (
        "more data, or augmentation: augment=data.augment.shift(1)",
        "dropout: models.mlp(sizes, dropout=0.5)",
        "weight decay: regularizer=losses.l2(1e-4), or optim.adamw",
        "an ensemble: train.ensemble",
    )
    if not turned:
        return general
    stop = f'stopping=[train.EarlyStopping("validation_{figure}")]'
    return (f"stop early: validation was best, {best:.4g}, after epoch {best_epoch}: {stop}", *general)


def _figures(history: Sequence[Record], name: str) -> list[float]:
    """One figure of every epoch, checked."""
    if (
        not isinstance(history, Sequence)
        or hasattr(history, "history")
        or not all(isinstance(record, Mapping) for record in history)
    ):
        raise TypeError(
            f"diagnose: history must be a list of one dict for each epoch, got {type(history).__name__}. Of what fit "
            "returns take result.history."
        )
    if len(history) < 2:
        raise ValueError(f"diagnose: needs the history of at least 2 epochs, got {len(history)}.")
    for record in history:
        if name not in record:
            raise ValueError(
                f"diagnose: no {name!r} in the history, which has {', '.join(record)}. Give fit validation=(x, y) (and "
                "metrics for figures other than the loss), or name another figure."
            )
    values = [float(record[name]) for record in history]
    for epoch, value in enumerate(values, start=1):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"diagnose: {name} must be finite and not negative, to be judged by ratios, got {value:g} in epoch "
                f"{epoch}. For a log-likelihood of densities take a squared or absolute error instead."
            )
    return values


def _tail(values: list[float]) -> float:
    """The mean over the last tenth."""
    count = max(len(values) // 10, 1)
    return sum(values[-count:]) / count


def _trend(values: list[float]) -> float:
    """The mean over the last eighth against the mean over the eighth that ended a quarter before, as a change."""
    quarter, width = max(len(values) // 4, 1), max(len(values) // 8, 1)
    now = sum(values[-width:]) / width
    before = values[: len(values) - quarter][-width:]
    then = sum(before) / len(before)
    return now / then - 1 if then else 0.0
