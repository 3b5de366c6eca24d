"""What makes a network do well on examples that it has not seen: seven means, each tried on a few real digits.

Each function trains a small network from several seeds at once (`vmap`; where the setting is a number, over the
settings too) and returns training and validation errors. Choices are made on validation; test is looked at once, by
`hidden_units`, after the choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, metrics, models, optim
from jaxnn.checks import require_positive_int
from jaxnn.classic.trials import Curves, few_digits, learning_curves
from jaxnn.data import Dataset, Splits, augment
from jaxnn.layers import BatchNorm, Dense, Dropout, Flatten, Layer, Relu
from jaxnn.train import EarlyStopping, TrainState
from jaxnn.types import Array, Key

HIDDEN = 100
"""Hidden units, unless the function is about them: enough to learn a few hundred digits by heart."""

OPT = optim.adam(3e-3)

STRENGTHS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
PIXELS = (0.0, 0.25, 0.5, 1.0, 1.5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
MEMBERS = (1, 2, 4, 8, 16)


class Errors(NamedTuple):
    """Error rates in [0, 1] after training, for S settings and R seeds.

    Attributes:
        settings: (S,), what was varied.
        training, validation: (S, R).
    """

    settings: np.ndarray
    training: np.ndarray
    validation: np.ndarray

    @property
    def best(self) -> int:
        """The index of the setting of least mean validation error, the first of equals."""
        return int(self.validation.mean(axis=1).argmin())


class Stopped(NamedTuple):
    """Learning curves (R, E), and the epochs (R,), from 1, that early stopping returns and stops at."""

    curves: Curves
    best_epoch: np.ndarray
    stop_epoch: np.ndarray

    def errors(self) -> Errors:
        """At the end (setting 0) and at the epoch that early stopping returns (setting 1)."""
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
        strengths: lambda >= 0, S of them; traced, so that all settings and seeds are one program.
        examples: trained on and validated with; None for `trials.few_digits()`.
        seeds: R runs of each setting.
        epochs: of training.

    Returns:
        Errors, settings the strengths.

    Reference:
        Krogh, A. & Hertz, J. A. (1992). A simple weight decay can improve generalization.

    Example:
        >>> weight_decay((0.0, 0.1), examples=few_digits(50), seeds=2, epochs=1).validation.shape
        (2, 2)
    """

    def run(strength: Array, key: Key, examples: Splits) -> Curves:
        return learning_curves(_net(), OPT, examples, key, epochs=epochs, regularizer=losses.l2(strength))[1]

    return _errors(strengths, run, examples, seeds)


def dropout(
    rates: Sequence[float] = RATES, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Errors:
    """A random part of the hidden units set to zero in each training step.

    Args:
        rates: the fractions dropped, each in [0, 1).
        examples, seeds, epochs: as for `weight_decay`.

    Returns:
        Errors, settings the rates.

    Reference:
        Srivastava, N., Hinton, G., Krizhevsky, A., Sutskever, I. & Salakhutdinov, R. (2014). Dropout: a simple way to
        prevent neural networks from overfitting.

    Example:
        >>> dropout((0.0, 0.5), examples=few_digits(50), seeds=2, epochs=1).training.shape
        (2, 2)
    """

    def run(rate: Array, key: Key, examples: Splits) -> Curves:
        return learning_curves(_net(Dropout(rate)), OPT, examples, key, epochs=epochs)[1]

    return _errors(rates, run, examples, seeds)


def augmentation(
    pixels: Sequence[float] = PIXELS, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Errors:
    """Training images shifted at random, down and right each uniform on [-p, p) pixels, anew in each step.

    Args:
        pixels: p >= 0, the farthest shift, fractions of a pixel too.
        examples, seeds, epochs: as for `weight_decay`.

    Returns:
        Errors on images that are not shifted, settings the pixels.

    Reference:
        Simard, P. Y., Steinkraus, D. & Platt, J. C. (2003). Best practices for convolutional neural networks applied to
        visual document analysis, section 2.

    Example:
        >>> augmentation((0.0, 1.0), examples=few_digits(50), seeds=2, epochs=1).training.shape
        (2, 2)
    """

    def run(reach: Array, key: Key, examples: Splits) -> Curves:
        move = augment.affine(max_pixels=reach)
        return learning_curves(_net(), OPT, examples, key, epochs=epochs, augment=move)[1]

    return _errors(pixels, run, examples, seeds)


def early_stopping(*, patience: int = 10, examples: Splits | None = None, seeds: int = 4, epochs: int = 150) -> Stopped:
    """Learning curves to the end, and where `train.EarlyStopping` on the validation loss would have ended each.

    Args:
        patience: epochs without improvement that are waited for.
        examples, seeds, epochs: as for `weight_decay`.

    Returns:
        Stopped; a run that never stopped has the last epoch for its `stop_epoch`.

    Reference:
        Prechelt, L. (1998). Early stopping - but when?

    Example:
        >>> early_stopping(patience=1, examples=few_digits(50), seeds=2, epochs=3).best_epoch.shape
        (2,)
    """

    def run(key: Key, examples: Splits) -> Curves:
        return learning_curves(_net(), OPT, examples, key, epochs=epochs)[1]

    return stopped(_over_seeds(run, examples, seeds), patience)


def stopped(curves: Curves, patience: int) -> Stopped:
    """Where `train.EarlyStopping` on the validation loss ends runs whose curves (R, E) are known to the end.

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


def batch_norm(*, layers: int = 5, examples: Splits | None = None, seeds: int = 4, epochs: int = 40) -> list[Curves]:
    """Learning curves of a deep network under plain SGD without and with batch normalization before each ReLU.

    Args:
        layers: hidden layers of 50 units.
        examples, seeds, epochs: as for `weight_decay`.

    Returns:
        [without, with], each (R, E).

    Reference:
        Ioffe, S. & Szegedy, C. (2015). Batch normalization: accelerating deep network training by reducing internal
        covariate shift.

    Example:
        >>> without, with_norm = batch_norm(layers=1, examples=few_digits(50), seeds=2, epochs=1)
        >>> with_norm.training_loss.shape
        (2, 1)
    """
    layers = require_positive_int("batch_norm", "layers", layers)

    def curves(*norm: Layer) -> Curves:
        net = models.serial(Flatten, *((Dense(50), *norm, Relu) * layers), Dense(10))

        def run(key: Key, examples: Splits) -> Curves:
            return learning_curves(net, optim.sgd(0.03), examples, key, epochs=epochs)[1]

        return _over_seeds(run, examples, seeds)

    return [curves(), curves(BatchNorm())]


def ensembles(sizes: Sequence[int] = MEMBERS, *, examples: Splits | None = None, epochs: int = 50) -> Errors:
    """The mean of several networks' probabilities, each trained from its own seed.

    M = max(sizes) networks are trained; an ensemble of m is m neighbours in their circle, so that there are M of each
    size.

    Args:
        sizes: how many members, each at least 1.
        examples, epochs: as for `weight_decay`.

    Returns:
        Errors, settings the sizes, R = M ensembles of each.

    Reference:
        Hansen, L. K. & Salamon, P. (1990). Neural network ensembles.

    Example:
        >>> ensembles((1, 3), examples=few_digits(50), epochs=1).validation.shape
        (2, 3)
    """
    sizes = [require_positive_int("ensembles", "each of sizes", size) for size in sizes]
    examples = few_digits() if examples is None else examples
    net = _net()

    def run(key: Key, examples: Splits) -> tuple[Array, Array]:
        ts, _ = learning_curves(net, OPT, examples, key, epochs=epochs)
        return tuple(jax.nn.softmax(net.predict(ts.params, ts.state, part.x)) for part in examples[:2])

    members = _over_seeds(run, examples, max(sizes))

    def errors(probabilities: Array, y: Any) -> np.ndarray:
        return np.stack([_circle_errors(np.asarray(probabilities), np.asarray(y), size) for size in sizes])

    return Errors(np.array(sizes), errors(members[0], examples.train.y), errors(members[1], examples.validation.y))


def hidden_units(
    sizes: Sequence[int] = SIZES, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 100
) -> Chosen:
    """The number of hidden units, chosen by the mean validation error over seeds; the test set is looked at once.

    Args:
        sizes: hidden units; each size is a program of its own.
        examples, seeds, epochs: as for `weight_decay`.

    Returns:
        Chosen; `errors.settings[errors.best]` is the number chosen.

    Reference:
        Stone, M. (1974). Cross-validatory choice and assessment of statistical predictions.

    Example:
        >>> hidden_units((1, 2), examples=few_digits(50), seeds=2, epochs=1).test.shape
        (2,)
    """
    examples = few_digits() if examples is None else examples

    def trained(net: Layer) -> tuple[TrainState, Curves]:
        run = functools.partial(learning_curves, net, OPT, epochs=epochs)
        return _over_seeds(lambda key, examples: run(examples, key), examples, seeds)

    found = [trained(_net(hidden=size)) for size in sizes]
    last = [np.stack([np.asarray(curves[i][:, -1]) for _, curves in found]) for i in (0, 2)]
    errors = Errors(np.array(sizes), *last)
    ts, _ = found[errors.best]
    return Chosen(errors, _test_errors(_net(hidden=sizes[errors.best]), ts, examples.test))


def _net(*extra: Layer, hidden: int = HIDDEN) -> Layer:
    """One hidden layer of ReLUs, with what may follow them."""
    return models.serial(Flatten, Dense(hidden), Relu, *extra, Dense(10))


def _over_seeds(run: Callable[..., Any], examples: Splits | None, seeds: int) -> Any:
    """run(key, examples) for `seeds` keys, as one program."""
    keys = jax.random.split(jax.random.key(0), require_positive_int("generalization", "seeds", seeds))
    return jax.jit(jax.vmap(run, (0, None)))(keys, few_digits() if examples is None else examples)


def _errors(settings: Sequence[float], run: Callable[..., Curves], examples: Splits | None, seeds: int) -> Errors:
    """run(setting, key, examples) for all settings and seeds, as one program; the errors after the last epoch."""
    values = np.asarray(settings, np.float32)

    def over_settings(key: Key, examples: Splits) -> Curves:
        return jax.vmap(run, (0, None, None))(jnp.asarray(values), key, examples)

    curves = _over_seeds(over_settings, examples, seeds)
    training, validation = (np.asarray(curves[i][..., -1]).T for i in (0, 2))
    return Errors(values, training, validation)


def _circle_errors(probabilities: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Errors (M,) of the means of `size` neighbours, of probabilities (M, N, K)."""
    means = sum(np.roll(probabilities, -i, axis=0) for i in range(size))
    return np.asarray((np.asarray(means).argmax(axis=-1) != y).mean(axis=-1))


def _test_errors(net: Layer, ts: TrainState, test: Dataset) -> np.ndarray:
    outputs = jax.vmap(net.predict, (0, 0, None))(ts.params, ts.state, jnp.asarray(test.x))
    return np.asarray(jax.vmap(metrics.error_rate, (0, None))(outputs, jnp.asarray(test.y)).mean(axis=1))
