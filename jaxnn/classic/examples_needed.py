"""The number of training examples: the errors of one network, trained on more and more of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, metrics, optim
from jaxnn.classic.trials import as_counts, as_splits, first_of, learning_curves, mislabel, over_seeds, plain
from jaxnn.data import Splits
from jaxnn.train import TrainState
from jaxnn.types import Array, Key

OPT = optim.adam(3e-3)
SIZES = (25, 50, 100, 200, 400, 800)


class Errors(NamedTuple):
    """Error rates in [0, 1] after training, for S numbers of examples and R seeds.

    Attributes:
        sizes: (S,), numbers of training examples.
        training, test: (S, R).
    """

    sizes: np.ndarray
    training: np.ndarray
    test: np.ndarray

    @property
    def exponent(self) -> float:
        """b of the power law, test error = a n^-b, that fits the mean test errors best on logarithmic axes.

        ValueError: fewer than two sizes, or a mean error of 0.
        """
        if len(self.sizes) < 2 or not (self.test.mean(axis=1) > 0).all():
            raise ValueError(
                f"exponent: needs at least two sizes, with test errors > 0, got sizes {self.sizes.tolist()} and errors "
                f"{self.test.mean(axis=1).tolist()}."
            )
        slope, _ = np.polyfit(np.log(self.sizes), np.log(self.test.mean(axis=1)), 1)
        return -float(slope)


def digits(*, wrong: float = 0.0) -> Splits:
    """The embedded digits, 800 for training, 200 for validation (not used here) and 797 for the test.

    Args:
        wrong: the fraction of training labels that are wrong, in [0, 1].

    Example:
        >>> [len(part) for part in digits()]
        [800, 200, 797]
    """
    training, validation, test = data.split(data.digits(), (800, 200, 797), seed=0, stratify=True)
    return Splits(mislabel(training, wrong, 10), validation, test)


def by_size(
    sizes: Sequence[int] = SIZES, *, examples: Splits | None = None, seeds: int = 4, epochs: int = 30
) -> Errors:
    """Train on n examples, for several n; all sizes and seeds are one compiled program.

    Each seed draws its own examples, those of a smaller n among those of a larger. All sizes take the same number of
    steps: the n examples are repeated to the size of the largest set (`trials.first_of`).

    Args:
        sizes: numbers n of examples, each at most that of the training set. The exponent of the power law needs two.
        examples: `train` is drawn from, `test` gives the errors; see `trials.as_splits`. None for `digits()`.
        seeds: R runs of each size.
        epochs: passes over as many examples as the training set has, in batches of 50, by Adam with learning rate
            0.003. Nothing is chosen by the test errors, so that they are unbiased.

    Returns:
        Errors; `training` is the error on the n examples.

    Raises:
        TypeError, ValueError: sizes out of range, or examples that `trials.as_splits` rejects.

    Reference: Cortes, C., Jackel, L. D., Solla, S. A., Vapnik, V. & Denker, J. S. (1994). Learning curves: asymptotic
        values and rate of convergence.

    Example:
        >>> by_size((10, 100), seeds=2, epochs=1).test.shape
        (2, 2)
    """
    examples, classes = as_splits("examples_needed", digits() if examples is None else examples)
    sizes = as_counts("examples_needed", "sizes", sizes, len(examples.train))
    net = plain(classes)

    def run(n: Array, start: TrainState, key: Key, examples: Splits) -> tuple[Array, Array]:
        chosen, training = jax.random.split(key)
        few = first_of(examples.train, n, chosen)
        ts, curves = learning_curves(net, OPT, examples._replace(train=few), start, training, epochs=epochs)
        outputs = net.predict(ts.params, ts.state, jnp.asarray(examples.test.x))
        return curves.training_error[-1], metrics.error_rate(outputs, jnp.asarray(examples.test.y)).mean()

    def over_sizes(start: TrainState, key: Key, examples: Splits) -> tuple[Array, Array]:
        return jax.vmap(run, (0, None, None, None))(jnp.asarray(sizes), start, key, examples)

    training, test = over_seeds("examples_needed", over_sizes, net, OPT, examples, seeds)
    return Errors(np.array(sizes), np.asarray(training).T, np.asarray(test).T)
