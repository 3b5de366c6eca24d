"""Diagnosis of a training run: diverged, under-fitting, over-fitting or good, with the numbers and the remedies."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnn.checks import require_between, require_number
from jaxnn.train.stopping import Record

LOW = 0.25
"""The default of `low`, as a fraction of the smaller metric of the first epoch."""

FALLING = 0.05
"""A training metric that fell by more than this fraction over the last quarter of the epochs is still falling."""

RISEN, RISEN_OF_LOW = 0.1, 0.1
"""A validation metric has turned upward where it exceeds its best by more than this fraction of the best, and by more
than this fraction of `low`: below that, rises are noise."""

REBOUND = 2.0
"""A training metric above its best by more than this factor, and not low, has diverged."""

BURST = 3.0
"""A first epoch whose training metric, a mean over its steps, is more than this factor above the validation metric at
its end had a burst of large losses; if half of that level remains, the run has not recovered."""


class Verdict(enum.Enum):
    """The four outcomes of a diagnosis."""

    DIVERGED = "diverged"
    UNDER_FITTING = "under-fitting"
    OVER_FITTING = "over-fitting"
    GOOD = "good"


class Diagnosis(NamedTuple):
    """A verdict with the numbers it was judged by.

    Attributes:
        verdict: `Verdict.DIVERGED`, `UNDER_FITTING`, `OVER_FITTING` or `GOOD`.
        training, validation: the metric, averaged over the last tenth of the epochs (at least one).
        low: the threshold of the training metric.
        guessed: whether `low` is the default.
        allowed: the threshold of the validation metric, training + gap low.
        turned: whether the validation metric turned upward while the training metric fell on.
        rise: of the validation metric above its lowest average over a tenth of the epochs: 0.1 is 10%.
        trend: relative change of the training metric over the last quarter of the epochs: -0.1 is a fall of 10%.
        best, best_epoch: the lowest validation metric, and its epoch (from 1).
        advice: what to try next, the most promising remedy first.
    """

    verdict: Verdict
    training: float
    validation: float
    low: float
    guessed: bool
    allowed: float
    turned: bool
    rise: float
    trend: float
    best: float
    best_epoch: int
    advice: tuple[str, ...]

    def describe(self) -> str:
        """The verdict, the numbers and the advice, in lines of text."""
        guess = ", a guess: pass low=" if self.guessed else ""
        lines = [
            f"{self.verdict.value}: training {self.training:.4g} (low: at most {self.low:.4g}{guess}), "
            f"validation {self.validation:.4g} (near it: at most {self.allowed:.4g})",
            f"training changed by {self.trend:+.1%} over the last quarter of the epochs; validation was best, "
            f"{self.best:.4g}, after epoch {self.best_epoch}, and {'turned' if self.turned else 'did not turn'} upward "
            f"({self.rise:+.1%})",
            *(f"try: {remedy}" for remedy in self.advice),
        ]
        return "\n".join(lines)


def diagnose(
    history: Sequence[Record], *, figure: str = "loss", low: float | None = None, gap: float = 0.2
) -> Diagnosis:
    """Diagnose a run from its training and validation metrics.

    Judged in this order, by level, turn and gap:

    a metric not finite; training high, above its start or far above its best    diverged
    validation turned upward while training fell                                 over-fitting, at any level
    training > low                                                               under-fitting
    validation > training + gap low                                              over-fitting
    else                                                                         good

    A high training metric may also be the noise of the targets, which no model can fit: pass `low` then.

    The training loss of `fit` is the mean over an epoch's batches, each before its update: it lags behind the
    validation loss, which uses the parameters after the epoch. It also includes dropout, augmentation and the
    regularizer. So it can exceed the validation loss.

    Args:
        history: of `fit`, at least two epochs, made with validation data; or any such list of dicts.
        figure: the name of the training metric, >= 0, less being better; the validation metric is "validation_" +
            figure.
        low: the largest training metric that counts as low, in its own units: what the task asks for. None guesses a
            quarter of the smaller metric of the first epoch, training or validation, that is not 0.
        gap: how far the validation metric may exceed the training metric, as a fraction of `low`.

    Returns:
        Diagnosis; its `describe()` is the text to print.

    Raises:
        TypeError: history is not a list of dicts, e.g. the whole result of `fit`, or a metric is not a number.
        ValueError: fewer than two epochs, a metric that is missing or negative, an accuracy, or a `low` or `gap` < 0.

    Reference: Geman, S., Bienenstock, E. & Doursat, R. (1992). Neural networks and the bias/variance dilemma.

    Example:
        >>> history = [{"loss": 2.0 / e, "validation_loss": 1.0 + 0.1 * e} for e in range(1, 21)]
        >>> found = diagnose(history)
        >>> found.verdict.value, found.best_epoch
        ('over-fitting', 1)
        >>> found.advice[0]
        'stop early: validation was best, 1.1, after epoch 1: stopping=[train.EarlyStopping("validation_loss")]'
    """
    if "accuracy" in str(figure):
        raise ValueError(
            f"diagnose: expected a metric that is better the lower it is, got {figure!r}. Take the loss, or pass "
            'metrics={"error_rate": metrics.error_rate} to fit and figure="error_rate" here.'
        )
    training, validation = (_figures(history, name) for name in (figure, f"validation_{figure}"))
    require_between("diagnose", "gap", gap, 0, math.inf)
    require_between("diagnose", "low", low or 0, 0, math.inf)
    # A few validation examples may all be right by luck; no run starts at 0.
    start = min(training[0], validation[0]) or max(training[0], validation[0])
    guessed, low = low is None, LOW * start if low is None else low
    last, last_validation = _tail(training), _tail(validation)
    allowed, lowest = last + gap * low, _lowest(validation)
    best = min((v for v in validation if math.isfinite(v)), default=validation[0])
    best_epoch = validation.index(best) + 1
    rise = _change(lowest, last_validation)
    apart = last_validation > allowed
    # Where training rose too, or where the two are equal, the optimization is unstable: that is no over-fitting.
    turned = (
        apart and rise > RISEN and last_validation - lowest > RISEN_OF_LOW * low and last <= training[best_epoch - 1]
    )
    trend = _trend(training)
    if not all(map(math.isfinite, training + validation)) or _diverged(training, last, start, low):
        verdict, advice = Verdict.DIVERGED, FOR_DIVERGED
    elif not turned and last > low:
        verdict, advice = Verdict.UNDER_FITTING, _for_under_fitting(trend)
    elif apart:
        verdict, advice = Verdict.OVER_FITTING, _for_over_fitting(figure, best, best_epoch, turned)
    else:
        verdict, advice = Verdict.GOOD, ("look at the test set, once; a smaller model or fewer epochs may do as well",)
    return Diagnosis(
        verdict, last, last_validation, low, guessed, allowed, turned, rise, trend, best, best_epoch, advice
    )


FOR_DIVERGED: tuple[str, ...] = (
    "a smaller learning rate: a tenth of it; warm-up",
    "gradient clipping: optim.chain(optim.clip_by_global_norm(1.0), ...)",
    "inputs of mean 0 and deviation 1; another initialization; normalization",
)
"""What to try after a divergence."""


def _diverged(training: list[float], last: float, start: float, low: float) -> bool:
    """Whether the training metric ended high, and above its start, far above its best, or after a burst."""
    burst = training[0] > BURST * start and last > start / 2
    return last > low and (burst or last > min((1 + RISEN) * start, REBOUND * _lowest(training)))


def _for_under_fitting(trend: float) -> tuple[str, ...]:
    """More epochs while the loss falls, a smaller learning rate where it rises; then another model or optimizer."""
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
    """Early stopping where validation has turned upward; then more data and regularization."""
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
    """One metric of every epoch, checked."""
    if (
        not isinstance(history, Sequence)
        or hasattr(history, "history")
        or not all(isinstance(record, Mapping) for record in history)
    ):
        raise TypeError(
            f"diagnose: history must be a list of one dict per epoch, got {type(history).__name__}. "
            "Pass the history of what fit returns: result.history."
        )
    if len(history) < 2:
        raise ValueError(
            f"diagnose: expected a history of at least 2 epochs, got {len(history)}. Train for more, unless fit raised "
            "DivergedError: that run diverged, and the error says where and why."
        )
    for record in history:
        if name not in record:
            raise ValueError(
                f"diagnose: no {name!r} in the history, which has {', '.join(record) or 'none'}. Pass "
                "validation=(x, y) (and metrics= for other metrics than the loss) to fit, or name another metric."
            )
        require_number("diagnose", name, record[name])
    values = [float(record[name]) for record in history]
    for epoch, value in enumerate(values, start=1):
        if value < 0:
            raise ValueError(
                f"diagnose: {name} must be >= 0 in every epoch, got {value:g} in epoch {epoch}: runs are judged by "
                "ratios. Instead of a log-likelihood of densities, use a squared or absolute error."
            )
    return values


def _tail(values: list[float]) -> float:
    """The mean over the last tenth."""
    count = max(len(values) // 10, 1)
    return sum(values[-count:]) / count


def _lowest(values: list[float]) -> float:
    """The lowest mean over a tenth: one lucky epoch is not a level."""
    count = max(len(values) // 10, 1)
    return min(sum(values[i : i + count]) / count for i in range(len(values) - count + 1))


def _change(then: float, now: float) -> float:
    """Relative change; 0 from 0."""
    return now / then - 1 if then else 0.0


def _trend(values: list[float]) -> float:
    """Relative change of the mean over the eighth before the last quarter to that over the last eighth; 0 from 0."""
    quarter, width = max(len(values) // 4, 1), max(len(values) // 8, 1)
    now = sum(values[-width:]) / width
    before = values[: len(values) - quarter][-width:]
    then = sum(before) / len(before)
    return _change(then, now)
