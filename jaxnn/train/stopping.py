"""Stopping rules, functions of the history, and the error that a diverged run raises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxnn.checks import count_of, require_positive_int

Record: TypeAlias = Mapping[str, float]
"""The metrics of one epoch: "epoch", "loss", "validation_error", ..."""

Stopping: TypeAlias = Callable[[Sequence[Record]], str | None]
"""(history so far) -> the reason to stop, or None to continue; called after each epoch."""


class DivergedError(FloatingPointError):
    """Training diverged: the loss, a parameter or a running statistic is NaN or infinite, or a monitored metric NaN.

    Attributes:
        epoch, step: where, both from 1; `step` within the epoch, 0 for a metric.
        result: of `fit`, the `FitResult` of the epochs before; of `epochs`, the `TrainState` before that epoch.
    """

    def __init__(self, message: str, *, epoch: int, step: int, result: Any) -> None:
        super().__init__(message)
        self.epoch, self.step, self.result = epoch, step, result


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for `patience` epochs; by default `fit` returns the epoch of its minimum.

    Attributes:
        monitor: a name in the history, e.g. "validation_error" or "validation_loss"; lower is better.
        patience: number of epochs without improvement.
        min_delta: a decrease counts as an improvement only if it exceeds this, in the units of the monitor.

    Example:
        >>> rule = EarlyStopping("validation_loss", patience=2)
        >>> rule([{"validation_loss": v} for v in (1.0, 0.5, 0.6, 0.7)])
        'validation_loss has not improved on 0.5 for 2 epochs'
    """

    monitor: str = "validation_loss"
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        require_positive_int("EarlyStopping", "patience", self.patience)

    def __call__(self, history: Sequence[Record]) -> str | None:
        best, since = math.inf, 0
        for value in monitored(history, self.monitor):
            best, since = (value, 0) if value < best - self.min_delta else (best, since + 1)
        if since < self.patience:
            return None
        return f"{self.monitor} has not improved on {best:g} for {count_of(since, 'epoch')}"


@dataclass(frozen=True)
class LossTolerance:
    """Stop when the training loss f of two successive epochs changes little: |f(k+1) - f(k)| < tolerance.

    With batch_size = N, the number of training examples, an epoch is one step, and this is the convergence test of
    gradient descent.

    Example:
        >>> LossTolerance(0.1)([{"loss": 1.0}, {"loss": 0.95}])
        'the loss changed by 0.05 < 0.1'
    """

    tolerance: float

    def __call__(self, history: Sequence[Record]) -> str | None:
        losses = monitored(history[-2:], "loss")
        if len(losses) < 2 or not abs(losses[1] - losses[0]) < self.tolerance:
            return None
        return f"the loss changed by {abs(losses[1] - losses[0]):.3g} < {self.tolerance:g}"


@dataclass(frozen=True)
class GradTolerance:
    """Stop when the gradient norm, averaged over the epoch's steps, is below the tolerance: |grad f| < tolerance.

    f is the training loss. With batch_size = N, the number of training examples, an epoch is one step, and this is a
    convergence test of gradient descent. `fit` measures `grad_norm` for it, unless another `measure` is passed.

    Example:
        >>> GradTolerance(1e-3)([{"grad_norm": 5e-4}])
        'the gradient norm is 0.0005 < 0.001'
    """

    tolerance: float

    def __call__(self, history: Sequence[Record]) -> str | None:
        norm = monitored(history[-1:], "grad_norm")[0]
        return f"the gradient norm is {norm:.3g} < {self.tolerance:g}" if norm < self.tolerance else None


def monitored(history: Sequence[Record], name: str) -> list[float]:
    """One metric of every epoch; raises ValueError, which lists the names in the history, if it is missing."""
    for record in history:
        if name not in record:
            raise ValueError(
                f"stopping: no {name!r} in the history, which has {', '.join(record)}. Pass validation data for "
                "validation_* and measure=train.grad_norm for grad_norm, or monitor one of those."
            )
    return [float(record[name]) for record in history]
