"""Mixture-density regression: for an input with several valid targets, predict a density rather than their mean."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, models, optim, train
from jaxnn.checks import require_positive_int
from jaxnn.data import Dataset
from jaxnn.initializers import normal, uniform
from jaxnn.layers import Dense, Layer, Tanh
from jaxnn.train import FitResult
from jaxnn.types import Array, ArrayLike, DTypeLike, Key, Loss, Params, Scalar, Shape, State


class Mixture(NamedTuple):
    """Mixtures of M Gaussians in one dimension for N inputs: sum_m a_m N(y; mu_m, sigma_m^2); each field (N, M)."""

    weights: Array
    means: Array
    deviations: Array


def inverse_problem(key: Key, n: int, *, noise: Scalar = 0.05) -> Dataset:
    """Points of x = y + 0.3 sin(2 pi y) + U(-noise, noise), y ~ U(0, 1): y from x, which has up to three solutions.

    Args:
        noise: half the width of the noise on x, >= 0.

    Returns:
        Dataset of x (n, 1) and targets y (n, 1), without classes.

    Reference: Bishop, C. M. (1994). Mixture density networks, section 5 (there the noise is 0.1).

    Example:
        >>> inverse_problem(jax.random.key(0), 5).y.shape
        (5, 1)
    """
    y_key, noise_key = jax.random.split(key)
    y = jax.random.uniform(y_key, (require_positive_int("inverse_problem", "n", n), 1))
    return Dataset(forward(y) + jax.random.uniform(noise_key, y.shape, y.dtype, -noise, noise), y, "inverse-problem")


def forward(y: Array) -> Array:
    """x = y + 0.3 sin(2 pi y), element-wise: the forward problem, which has one solution for each y.

    Example:
        >>> forward(jnp.array([0.0, 0.5, 1.0])).round(6)
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return y + 0.3 * jnp.sin(2 * jnp.pi * y)


def fit_mixture(
    examples: Dataset, *, key: Key, components: int = 3, hidden: int = 20, epochs: int = 400
) -> tuple[Layer, FitResult]:
    """Train a mixture-density network by `losses.mixture_density_nll`.

    Args:
        examples: x (N, 1), y (N, 1).
        key: typed key of the initial parameters and the order.
        components: M.
        hidden: number of tanh units.
        epochs: of Adam in batches of 100, the learning rate 0.01 falling to 0 along a cosine.

    Returns:
        (the network: (N, 1) -> (N, 3 M), see `mixture_at`; its FitResult).

    Reference: Bishop, C. M. (1994). Mixture density networks.

    Example:
        >>> net, result = fit_mixture(inverse_problem(jax.random.key(0), 100), key=jax.random.key(1), epochs=1)
        >>> net.predict(result.params, result.state, jnp.zeros((4, 1))).shape
        (4, 9)
    """
    components = require_positive_int("fit_mixture", "components", components)

    def spread_means(key: Key, shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
        """Biases that place the initial components side by side in [0, 1], and wide: narrow ones get no data."""
        middles = (jnp.arange(components, dtype=dtype) + 0.5) / components
        return jnp.concatenate([jnp.zeros(components, dtype), middles, jnp.full(components, -1, dtype)])

    outputs = Dense(3 * components, w_init=normal(0.05), b_init=spread_means)
    net = models.serial(_hidden(hidden, 3.0), Tanh, outputs)
    return net, _fit(net, functools.partial(losses.mixture_density_nll, components=components), examples, key, epochs)


def fit_mean(examples: Dataset, *, key: Key, hidden: int = 40, epochs: int = 400) -> tuple[Layer, FitResult]:
    """Train a network with one output under the squared error: it learns the mean of y given x.

    That mean jumps where the number of solutions changes, so the initial units are steeper than those of `fit_mixture`.

    Args:
        examples, key, epochs: as for `fit_mixture`. From 4,000 examples the default network comes within 0.05 of the
            mean, except within 0.03 of a jump.
        hidden: number of tanh units.

    Returns:
        (the network: (N, 1) -> (N, 1); its FitResult).

    Example:
        >>> net, result = fit_mean(inverse_problem(jax.random.key(0), 100), key=jax.random.key(1), epochs=1)
        >>> net.predict(result.params, result.state, jnp.zeros((4, 1))).shape
        (4, 1)
    """
    net = models.serial(_hidden(hidden, 60.0), Tanh, Dense(1, w_init=normal(0.05)))
    return net, _fit(net, losses.half_squared_error, examples, key, epochs)


def mixture_at(net: Layer, params: Params, state: State, x: Array) -> Mixture:
    """The mixtures that a network of `fit_mixture` outputs at x (N, 1).

    Raises:
        ValueError: the network does not output three numbers per component.

    Example:
        >>> net, result = fit_mixture(inverse_problem(jax.random.key(0), 100), key=jax.random.key(1), epochs=1)
        >>> mixture_at(net, result.params, result.state, jnp.zeros((4, 1))).weights.shape
        (4, 3)
    """
    outputs = net.predict(params, state, x)
    if outputs.shape[-1] % 3:
        raise ValueError(
            "mixture_at: net must output three numbers per component, as the net of fit_mixture does; got "
            f"outputs {outputs.shape}."
        )
    logits, means, log_scale = jnp.split(outputs, 3, axis=-1)
    return Mixture(jax.nn.softmax(logits), means, jnp.exp(log_scale))


def density(mixture: Mixture, y: ArrayLike) -> Array:
    """p(y | x) = sum_m a_m N(y; mu_m, sigma_m^2).

    Args:
        mixture: a_m, mu_m, sigma_m for N inputs, from `mixture_at`.
        y: (T,), the targets at which the density is evaluated, the same for all inputs.

    Returns:
        (N, T).

    Raises:
        ValueError: y does not have one axis.

    Example:
        >>> one = Mixture(jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1)))
        >>> density(one, jnp.zeros(1)).round(4)
        Array([[0.3989]], dtype=float32)
    """
    y = jnp.asarray(y)
    if y.ndim != 1:
        raise ValueError(
            f"density: y must have shape (T,), got {y.shape}. Pass [y] for one number, y[:, 0] for a column."
        )
    weights, means, deviations = (values[:, None, :] for values in mixture)
    scaled = (y[None, :, None] - means) / deviations
    return jnp.sum(weights * jnp.exp(-0.5 * scaled**2) / (deviations * jnp.sqrt(2 * jnp.pi)), axis=-1)


def mean_by_bin(examples: Dataset, edges: ArrayLike) -> np.ndarray:
    """The mean of y over the examples whose x lies in each bin: the conditional mean, estimated without a model.

    Args:
        examples: x (N, 1), y (N, 1).
        edges: (B + 1,), ascending; bin b is [edges_b, edges_(b + 1)).

    Returns:
        (B,) float64; NaN for a bin without examples.

    Raises:
        ValueError: fewer than two edges, or edges that do not ascend.

    Example:
        >>> examples = Dataset(jnp.array([[0.1], [0.2], [0.7]]), jnp.array([[1.0], [3.0], [5.0]]), "three")
        >>> mean_by_bin(examples, [0.0, 0.5, 1.0, 1.5])
        array([ 2.,  5., nan])
    """
    at = np.asarray(edges, np.float64)
    if at.ndim != 1 or len(at) < 2 or not (np.diff(at) > 0).all():
        raise ValueError(f"mean_by_bin: edges must be (B + 1,), B >= 1, and ascend, got {edges!r}.")
    x, y = (np.asarray(values, np.float64)[:, 0] for values in (examples.x, examples.y))
    sums, counts = np.histogram(x, at, weights=y)[0], np.histogram(x, at)[0]
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _hidden(units: int, slope: float) -> Layer:
    """The pre-activations of tanh units with random inflection points -b_j / w_j and |w_j| up to `slope`."""
    return Dense(units, w_init=uniform(-slope, slope), b_init=uniform(-2 * slope / 3, 2 * slope / 3))


def _fit(net: Layer, loss: Loss, examples: Dataset, key: Key, epochs: int) -> FitResult:
    batch_size = min(100, len(examples))
    opt = optim.adam(optim.cosine_decay_schedule(0.01, epochs * (len(examples) // batch_size)))
    return train.fit(net, loss, opt, examples, key=key, epochs=epochs, batch_size=batch_size, progress=False)
