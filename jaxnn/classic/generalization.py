"""Seven means of generalization, each tried on a few real digits.

Each function trains a small network from several seeds at once (`vmap`; where the setting is a number, over the
settings too) and returns errors or learning curves. By default one in five training labels is wrong (none in
`batch_norm`), so that over-fitting shows; see `trials.as_splits` for other examples. In all functions `examples`,
`seeds` and `epochs` are as for `weight_decay`. Choices are made on the validation set; test errors are returned by
`hidden_units` only, of the chosen setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, metrics, models, optim
from jaxnn.checks import require_positive_int
from jaxnn.classic.trials import (
    Curves,
    as_counts,
    as_settings,
    as_splits,
    few_digits,
    learning_curves,
    network,
    over_seeds,
    plain,
)
from jaxnn.data import Splits, augment
from jaxnn.layers import BatchNorm, Dense, Dropout, Flatten, Layer, Sigmoid
from jaxnn.train import EarlyStopping, TrainState
from jaxnn.types import Array, Key

OPT = optim.adam(3e-3)

STRENGTHS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2)
RATES = (0.0, 0.25, 0.5, 0.75, 0.9)
PIXELS = (0.0, 0.5, 1.0, 1.5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
MEMBERS = (1, 2, 4, 8, 16)


class Errors(NamedTuple):
    """Error rates in [0, 1] after training, for S settings and R seeds.

    Attributes:
        settings: (S,), the values of the setting.
        training, validation: (S, R).
    """

    settings: np.ndarray
    training: np.ndarray
    validation: np.ndarray

    @property
    def best(self) -> int:
        """The index of the setting with the lowest mean validation error, the first in a tie."""
        return int(self.validation.mean(axis=1).argmin())


class Stopped(NamedTuple):
    """Learning curves (R, E); the epoch (R,), from 1, whose network early stopping returns; that at which it stops."""

    curves: Curves
    best_epoch: np.ndarray
    stop_epoch: np.ndarray

    def errors(self) -> Errors:
        """The errors at the end (setting 0) and at the epoch that early stopping returns (setting 1)."""
        runs = np.arange(len(self.best_epoch))

        def both(values: Array) -> np.ndarray:
            each = np.asarray(values)
            return np.stack([each[:, -1], each[runs, self.best_epoch - 1]])

        return Errors(np.arange(2), both(self.curves.training_error), both(self.curves.validation_error))


class Chosen(NamedTuple):
    """Errors by the number of hidden units, and the test errors (R,) of the chosen one."""

    errors: Errors
    test: np.ndarray


def weight_decay(
    strengths: Sequence[float] = STRENGTHS, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Errors:
    """The penalty lambda sum w^2 on the weights, for several lambda: C + lambda w'w.

    Args:
        strengths: lambda >= 0, S of them; all settings and seeds are one compiled program.
        examples: training and validation sets, see `trials.as_splits`; None for `trials.few_digits()`, 200 digits.
        seeds: R runs of each setting.
        epochs: of training, in batches of 50 by Adam with learning rate 0.003.

    Returns:
        Errors, settings the strengths.

    Raises:
        TypeError, ValueError: settings out of range, or examples that `trials.as_splits` rejects; the same for all
            functions of this module.

    Reference: Krogh, A. & Hertz, J. A. (1992). A simple weight decay can improve generalization.

    Example:
        >>> weight_decay((0.0, 0.1), examples=few_digits(50), seeds=2, epochs=1).validation.shape
        (2, 2)
    """

    strengths = as_settings("weight_decay", "strengths", strengths, 0, math.inf)
    examples, classes = as_splits("weight_decay", examples)
    net = plain(classes)

    def run(strength: Array, start: TrainState, key: Key, examples: Splits) -> Curves:
        return learning_curves(net, OPT, examples, start, key, epochs=epochs, regularizer=losses.l2(strength))[1]

    return _errors(strengths, run, net, examples, seeds)


def dropout(
    rates: Sequence[float] = RATES, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Errors:
    """Hidden units set to 0 at random in training, each with the same probability.

    Args:
        rates: the probabilities of dropping a unit, each in [0, 1).

    Returns:
        Errors without dropout (evaluation mode), settings the rates.

    Reference: Srivastava, N., Hinton, G., Krizhevsky, A., Sutskever, I. & Salakhutdinov, R. (2014). Dropout: a simple
        way to prevent neural networks from overfitting.

    Example:
        >>> dropout((0.0, 0.5), examples=few_digits(50), seeds=2, epochs=1).training.shape
        (2, 2)
    """

    rates = as_settings("dropout", "rates", rates, 0, 1)
    examples, classes = as_splits("dropout", examples)

    def run(rate: Array, start: TrainState, key: Key, examples: Splits) -> Curves:
        net = network(Dropout(rate), classes=classes)
        return learning_curves(net, OPT, examples, start, key, epochs=epochs)[1]

    return _errors(rates, run, network(Dropout(0.0), classes=classes), examples, seeds)


def augmentation(
    pixels: Sequence[float] = PIXELS, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Errors:
    """Training images shifted at random in each step, down and right each uniform on [-p, p) pixels.

    Args:
        pixels: the largest shifts p >= 0; may be fractional.

    Returns:
        Errors on unshifted images, settings the pixels.

    Reference: Simard, P. Y., Steinkraus, D. & Platt, J. C. (2003). Best practices for convolutional neural networks
        applied to visual document analysis, section 2.

    Example:
        >>> augmentation((0.0, 1.0), examples=few_digits(50), seeds=2, epochs=1).training.shape
        (2, 2)
    """

    pixels = as_settings("augmentation", "pixels", pixels, 0, math.inf)
    examples, classes = as_splits("augmentation", examples)
    net = plain(classes)
    if np.ndim(examples.train.x) != 4:
        raise ValueError(f"augmentation: examples must be images (N, H, W, C), got {np.shape(examples.train.x)}.")

    def run(reach: Array, start: TrainState, key: Key, examples: Splits) -> Curves:
        move = augment.affine(max_pixels=reach)
        return learning_curves(net, OPT, examples, start, key, epochs=epochs, augment=move)[1]

    return _errors(pixels, run, net, examples, seeds)


def early_stopping(*, patience: int = 10, examples: Splits | None = None, seeds: int = 4, epochs: int = 100) -> Stopped:
    """Complete learning curves, and where `train.EarlyStopping` on the validation loss would have stopped each.

    Args:
        patience: number of epochs without improvement after which a run stops.

    Returns:
        Stopped; `stop_epoch` is the last epoch for a run that did not stop early.

    Reference: Prechelt, L. (1998). Early stopping - but when?

    Example:
        >>> early_stopping(patience=1, examples=few_digits(50), seeds=2, epochs=3).best_epoch.shape
        (2,)
    """

    examples, classes = as_splits("early_stopping", examples)
    net = plain(classes)

    def run(start: TrainState, key: Key, examples: Splits) -> Curves:
        return learning_curves(net, OPT, examples, start, key, epochs=epochs)[1]

    return stopped(over_seeds("generalization", run, net, OPT, examples, seeds), patience)


def stopped(curves: Curves, patience: int) -> Stopped:
    """Where `train.EarlyStopping` on the validation loss stops runs, from their complete curves (R, E).

    Example:
        >>> loss = np.array([[3.0, 1.0, 2.0, 2.0, 0.0]])
        >>> found = stopped(Curves(loss, loss, loss, loss), patience=2)
        >>> found.best_epoch.item(), found.stop_epoch.item()
        (2, 4)
    """
    rule = EarlyStopping("validation_loss", patience=patience)
    figures = np.asarray(curves.validation_loss)
    runs, epochs = figures.shape
    stops = []
    for r in range(runs):
        history = Curves(*(values[r] for values in curves)).history()
        stops.append(next((e for e in range(1, epochs + 1) if rule(history[:e])), epochs))
    best = [int(figures[r, :stop].argmin()) + 1 for r, stop in enumerate(stops)]
    return Stopped(curves, np.array(best), np.array(stops))


def batch_norm(*, layers: int = 3, examples: Splits | None = None, seeds: int = 4, epochs: int = 20) -> list[Curves]:
    """Learning curves of a sigmoid network under plain SGD, without and with batch normalization before each sigmoid.

    Args:
        layers: number of hidden layers of 50 units; SGD has learning rate 0.3.
        examples: None for `trials.few_digits(600, wrong=0)`.

    Returns:
        [without, with], each (R, E).

    Reference: Ioffe, S. & Szegedy, C. (2015). Batch normalization: accelerating deep network training by reducing
        internal covariate shift, section 4.1.

    Example:
        >>> without, with_norm = batch_norm(layers=1, examples=few_digits(50), seeds=2, epochs=1)
        >>> with_norm.training_loss.shape
        (2, 1)
    """
    layers = require_positive_int("batch_norm", "layers", layers)
    examples, classes = as_splits("batch_norm", few_digits(600, wrong=0) if examples is None else examples)
    opt = optim.sgd(0.3)

    def curves(*norm: Layer) -> Curves:
        net = models.serial(Flatten, *((Dense(50), *norm, Sigmoid) * layers), Dense(classes))

        def run(start: TrainState, key: Key, examples: Splits) -> Curves:
            return learning_curves(net, opt, examples, start, key, epochs=epochs)[1]

        return over_seeds("generalization", run, net, opt, examples, seeds)

    return [curves(), curves(BatchNorm())]


def ensembles(sizes: Sequence[int] = MEMBERS, *, examples: Splits | None = None, epochs: int = 100) -> Errors:
    """Ensembles of networks, each trained from its own seed; the mean of their probabilities decides.

    M = max(sizes) networks are trained and arranged in a circle; an ensemble of m is m neighbours. So there are M
    ensembles of each size, which overlap; for m = M they are all the same.

    Args:
        sizes: numbers of members, each at least 1.

    Returns:
        Errors, settings the sizes, R = M ensembles of each.

    Reference: Hansen, L. K. & Salamon, P. (1990). Neural network ensembles.

    Example:
        >>> ensembles((1, 3), examples=few_digits(50), epochs=1).validation.shape
        (2, 3)
    """
    sizes = as_counts("ensembles", "sizes", sizes)
    examples, classes = as_splits("ensembles", examples)
    net = plain(classes)

    def run(start: TrainState, key: Key, examples: Splits) -> list[Array]:
        ts, _ = learning_curves(net, OPT, examples, start, key, epochs=epochs)
        return [jax.nn.softmax(net.predict(ts.params, ts.state, part.x)) for part in examples[:2]]

    members = over_seeds("generalization", run, net, OPT, examples, max(sizes))

    def errors(probabilities: Array, y: Any) -> np.ndarray:
        return np.stack([_circle_errors(np.asarray(probabilities), np.asarray(y), size) for size in sizes])

    return Errors(np.array(sizes), errors(members[0], examples.train.y), errors(members[1], examples.validation.y))


def hidden_units(
    sizes: Sequence[int] = SIZES, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Chosen:
    """The number of hidden units, chosen by the mean validation error over seeds, and its test errors.

    All sizes are one program: for size h, the units after the first h of max(sizes) have outputs and gradients 0. The
    initial weights are those of the widest network.

    Args:
        sizes: numbers of hidden units, each at least 1.

    Returns:
        Chosen; `errors.settings[errors.best]` is the number chosen.

    Reference: Stone, M. (1974). Cross-validatory choice and assessment of statistical predictions.

    Example:
        >>> hidden_units((1, 2), examples=few_digits(50), seeds=2, epochs=1).test.shape
        (2,)
    """
    sizes = as_counts("hidden_units", "sizes", sizes)
    examples, classes = as_splits("hidden_units", examples)
    widest = network(hidden=max(sizes), classes=classes)

    def run(size: Array, start: TrainState, key: Key, examples: Splits) -> tuple[Curves, Array]:
        net = network(hidden=max(sizes), on=size, classes=classes)
        ts, curves = learning_curves(net, OPT, examples, start, key, epochs=epochs)
        wrong = metrics.error_rate(net.predict(ts.params, ts.state, examples.test.x), jnp.asarray(examples.test.y))
        return curves, wrong.mean()

    curves, test = _over_settings(sizes, run, widest, examples, seeds)
    errors = _last_errors(sizes, curves)
    return Chosen(errors, np.asarray(test[:, errors.best]))


def _over_settings(settings: Sequence[Any], run: Callable[..., Any], net: Layer, examples: Splits, seeds: int) -> Any:
    """run(setting, start, key, examples) for all settings and seeds, as one program: leaves (R, S, ...)."""
    values = jnp.asarray(settings)

    def over_settings(start: TrainState, key: Key, examples: Splits) -> Any:
        return jax.vmap(run, (0, None, None, None))(values, start, key, examples)

    return over_seeds("generalization", over_settings, net, OPT, examples, seeds)


def _errors(settings: Sequence[float], run: Callable[..., Curves], net: Layer, examples: Splits, seeds: int) -> Errors:
    return _last_errors(settings, _over_settings(settings, run, net, examples, seeds))


def _last_errors(settings: Sequence[float], curves: Curves) -> Errors:
    """The errors after the last epoch, of curves (R, S, E)."""
    training, validation = (
        np.asarray(values[..., -1]).T for values in (curves.training_error, curves.validation_error)
    )
    return Errors(np.asarray(settings), training, validation)


def _circle_errors(probabilities: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Errors (M,) of the means of `size` neighbours, of probabilities (M, N, K)."""
    means = sum(np.roll(probabilities, -i, axis=0) for i in range(size))
    return np.asarray((np.asarray(means).argmax(axis=-1) != y).mean(axis=-1))
