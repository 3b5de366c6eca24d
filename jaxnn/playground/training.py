"""A training run of a small network on points of the plane: one compiled scan that keeps every epoch's network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import backprop, layers, losses, models, train
from jaxnn.checks import concrete_number, require_between, require_positive, require_positive_int
from jaxnn.data import Dataset, Partial, TrainTest, batch_indices, split
from jaxnn.initializers import constant, uniform
from jaxnn.layers import Dense, Layer
from jaxnn.playground.data import MAX_NOISE, SOURCES, Problem
from jaxnn.playground.features import canonical_features, featurize, require_features
from jaxnn.playground.penalties import Regularization, make_optimizer
from jaxnn.train.pieces import scan_epoch
from jaxnn.types import Array, Key, Params

ACTIVATIONS = {"relu": layers.Relu, "tanh": layers.Tanh, "sigmoid": layers.Sigmoid, "linear": layers.Identity}
"""Activations of the hidden units."""

MAX_LAYERS, MAX_UNITS = 6, 8
"""The largest network that fits on the page."""

Examples: TypeAlias = tuple[Array, Array]
"""A network's inputs (N, F) and their targets (N, 1)."""

LOSS = losses.half_squared_error
"""1/2 (y - t)^2 of output y and target t; its mean over the points is reported, without the penalty."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of a run; the defaults are the original's, except `epochs`, which it lacks.

    Attributes:
        data: one of `SOURCES`; it also determines the kind of problem.
        features: the inputs of the network, of `FEATURES`: x, y, x2 (x squared), y2, xy, sinx, siny; or of `INDEXED`:
            x1, x2 (the second coordinate), x1^2, x2^2, x1x2, sinx1, sinx2.
        hidden: units of each hidden layer, at most 6 layers of 1 to 8; () for none.
        activation: of the hidden units, one of `ACTIVATIONS`.
        learning_rate: > 0.
        batch_size: examples per step, >= 1; if there are fewer training points, all of them.
        noise: of the data: nu, a fraction in [0, 0.5] (0.25 for the 25 percent of the original's slider).
        train_ratio: the fraction of training points, in [0.1, 0.9]; the others are the test set.
        regularization: the penalty, "none", "l1" or "l2".
        regularization_rate: its strength, >= 0; 0 with "none".
        epochs: passes through the training points, >= 1.
        seed: integer >= 0, for points, split, initial weights and order.

    Raises:
        ValueError: an unknown name, a number out of range, or a strength without a penalty.
        TypeError: features or hidden is a string or no sequence, or a number is of another type.

    Example:
        >>> Settings(data="spiral", hidden=(8, 8)).problem
        'classification'
    """

    data: str = "circle"
    features: tuple[str, ...] = ("x", "y")
    hidden: tuple[int, ...] = (4, 2)
    activation: str = "tanh"
    learning_rate: float = 0.03
    batch_size: int = 10
    noise: float = 0.0
    train_ratio: float = 0.5
    regularization: Regularization = "none"
    regularization_rate: float = 0.0
    epochs: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.data not in SOURCES:
            raise ValueError(f"playground: no data set {self.data!r}; there are: {', '.join(SOURCES)}.")
        object.__setattr__(self, "features", canonical_features("playground", self.features))
        require_features("playground", self.features)
        require_network("playground", self.hidden, self.activation)
        require_positive("playground", "learning_rate", self.learning_rate)
        require_penalty("playground", self.regularization, self.regularization_rate)
        require_fraction("playground", "noise", self.noise, 0, MAX_NOISE)
        require_fraction("playground", "train_ratio", self.train_ratio, 0.1, 0.9)
        require_positive_int("playground", "batch_size", self.batch_size)
        require_positive_int("playground", "epochs", self.epochs)
        require_positive_int("playground", "seed", self.seed, 0)

    @property
    def problem(self) -> Problem:
        """ "classification" or "regression"."""
        return SOURCES[self.data].problem


class Run(NamedTuple):
    """The result of a run.

    Attributes:
        settings: its options.
        net: from the chosen features to one output (N, 1).
        data: the points and their targets, `train` and `test`.
        params: the parameters before training and after each epoch: each leaf has a leading axis of epochs + 1.
        train_loss, test_loss: (epochs + 1,), the mean of 1/2 (y - t)^2 over the points at these parameters.
        orders: (epochs, N) ints, the order of the N training points in each epoch; its batches are consecutive.
    """

    settings: Settings
    net: Layer
    data: TrainTest
    params: Params
    train_loss: np.ndarray
    test_loss: np.ndarray
    orders: np.ndarray

    def at(self, epochs: Any) -> Params:
        """The parameters after the given epochs, a number or an array (then a leading axis); 0 is before training."""
        return jax.tree.map(lambda leaf: leaf[epochs], self.params)

    def numbers(self) -> dict[str, float]:
        """For JSON: the losses at the end."""
        return {"train_loss": round(float(self.train_loss[-1]), 6), "test_loss": round(float(self.test_loss[-1]), 6)}


def require_network(where: str, hidden: tuple[int, ...], activation: str) -> None:
    """Raise ValueError unless the network fits on the page and its activation exists; TypeError for no sequence.

    Example:
        >>> require_network("playground", (9,), "tanh")
        Traceback (most recent call last):
        ValueError: playground: hidden must be at most 6 layers of 1 to 8 units each, got 9.
    """
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise TypeError(f"{where}: hidden must be a tuple of ints, such as (8,), got {hidden!r}.")
    whole = all(isinstance(units, int | np.integer) for units in hidden)  # 2.0 in range(3) is true
    if not whole or len(hidden) > MAX_LAYERS or any(units not in range(1, MAX_UNITS + 1) for units in hidden):
        got = ",".join(map(str, hidden))
        raise ValueError(
            f"{where}: hidden must be at most {MAX_LAYERS} layers of 1 to {MAX_UNITS} units each, got {got}."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"{where}: no activation {activation!r}; there are: {', '.join(ACTIVATIONS)}.")


def require_fraction(where: str, name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high; for a percentage the message has the fraction.

    Example:
        >>> require_fraction("playground", "noise", 25, 0, 0.5)
        Traceback (most recent call last):
        ValueError: playground: noise must be a fraction in [0, 0.5], got 25. For 25 percent write 0.25.
    """
    number = concrete_number(value) if isinstance(value, int | float) else None
    if number is not None and 1 <= number <= 100:
        raise ValueError(
            f"{where}: {name} must be a fraction in [{low:g}, {high:g}], got {value:g}. For {value:g} percent write "
            f"{value / 100:g}."
        )
    require_between(where, name, value, low, high)


def require_penalty(where: str, regularization: Regularization, rate: float) -> None:
    """Raise ValueError unless the penalty exists and its strength is >= 0, and 0 where there is no penalty.

    Example:
        >>> require_penalty("playground", "none", 0.1)
        Traceback (most recent call last):
        ValueError: playground: regularization_rate 0.1 has no effect with regularization 'none'. Choose l1 or l2.
    """
    known = get_args(Regularization)
    if regularization not in known:
        raise ValueError(f"{where}: regularization must be one of {', '.join(known)}, got {regularization!r}.")
    require_between(where, "regularization_rate", rate, 0, float("inf"), open_high=True)
    if regularization == "none" and rate > 0:
        raise ValueError(
            f"{where}: regularization_rate {rate:g} has no effect with regularization 'none'. Choose l1 or l2."
        )


def network(hidden: tuple[int, ...], activation: str, problem: Problem) -> Layer:
    """Dense layers, w ~ U(-0.5, 0.5) and b = 0.1, with the activation between and one output, tanh or linear.

    Args:
        hidden: units of each hidden layer; () for none.
        activation: a key of `ACTIVATIONS`.
        problem: "classification" for a tanh output, "regression" for a linear one.

    Returns:
        A `serial` of 2 (len(hidden) + 1) parts, dense and activation alternating: (N, F) -> (N, 1).

    Raises:
        ValueError: more layers or units than fit on the page, or an unknown activation.
        TypeError: hidden is a string or no sequence.

    Example:
        >>> net = network((4, 2), "tanh", "classification")
        >>> [params["w"].shape for params in net.init(jax.random.key(0), (2,))[0][::2]]
        [(2, 4), (4, 2), (2, 1)]
    """
    require_network("network", hidden, activation)
    output = layers.Tanh if problem == "classification" else layers.Identity
    w_init, b_init = uniform(-0.5, 0.5), constant(0.1)
    parts = []
    for units, follows in [*((units, ACTIVATIONS[activation]) for units in hidden), (1, output)]:
        parts += [Dense(units, w_init=w_init, b_init=b_init), follows]
    return models.serial(*parts)


def compiler_options() -> dict[str, bool | int] | None:
    """No LLVM optimizations on CPU, where compiling these programs takes longer than running them; elsewhere None."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def points(settings: Settings) -> TrainTest:
    """The points of a run: sampled, shuffled, and the first floor(n train_ratio) of them for training.

    Example:
        >>> [len(part) for part in points(Settings(data="reg-plane", train_ratio=0.1))]
        [120, 1080]
    """
    source = SOURCES[settings.data]
    key = jax.random.fold_in(jax.random.key(settings.seed), 0)
    whole = jax.jit(source.make, static_argnums=1, compiler_options=compiler_options())(
        key, source.points, noise=settings.noise
    )
    count = int(source.points * settings.train_ratio + 1e-9)  # 0.7 * 10 is 6.999...
    return TrainTest(*split(whole, (count, source.points - count), seed=settings.seed))


def run(settings: Settings) -> Run:
    """Train with these settings, and keep the network of every epoch.

    Each epoch shuffles the training points anew; the last batch may be smaller, and its gradient is the mean over its
    own points. (The original shuffles once, and carries the remainder of an epoch over into the next.)

    Raises:
        ValueError: the loss became NaN or infinite.

    Reference: Smilkov, D., Carter, S., Sculley, D., Viegas, F. B. & Wattenberg, M. (2017). Direct-manipulation
        visualization of deep networks.

    Example:
        >>> run(Settings(data="gauss", hidden=(3,), epochs=2)).train_loss.shape
        (3,)
    """
    data = points(settings)
    net = network(settings.hidden, settings.activation, settings.problem)
    scan = make_scan(settings, net)

    def whole(key: Key, data: TrainTest) -> tuple[Params, Array, Array]:
        orders = jax.lax.map(lambda key: _order(settings, key, len(data.train)), _epoch_keys(settings, key))
        return *scan(key, *(_examples(settings, part) for part in data)), orders

    compiled = jax.jit(whole, compiler_options=compiler_options())
    params, curves, orders = jax.tree.map(np.asarray, compiled(jax.random.key(settings.seed), data))
    finite = np.isfinite(curves).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"playground: the loss became NaN or infinite after epoch {finite.argmin()}. Use a smaller learning rate."
        )
    return Run(settings, net, data, params, curves[:, 0], curves[:, 1], orders)


def make_scan(settings: Settings, net: Layer) -> Callable[[Key, Examples, Examples], tuple[Params, Array]]:
    """The whole run as one function to compile: a scan over epochs of a scan over batches.

    Args:
        settings: only `batch_size`, `epochs`, `learning_rate`, `regularization` and `regularization_rate` are used.
        net: from inputs (N, F) to (N, 1).

    Returns:
        `scan(key, train, test) -> (params, losses)`, train and test pairs of inputs (N, F) and targets (N, 1): the
        parameters with a leading axis of epochs + 1, and the losses (epochs + 1, 2) on train and test.

    Example:
        >>> settings, pair = Settings(epochs=3), (jnp.ones((20, 2)), jnp.ones((20, 1)))
        >>> scan = make_scan(settings, network((), "tanh", "regression"))
        >>> jax.jit(scan)(jax.random.key(0), pair, pair)[1].shape
        (4, 2)
    """
    opt = make_optimizer(settings.regularization, settings.learning_rate, settings.regularization_rate)
    vg = backprop.value_and_grad(net, LOSS)
    epoch = scan_epoch(vg, opt, batch_size=settings.batch_size, partial=Partial.WEIGHT)

    def scan(key: Key, train_set: Examples, test_set: Examples) -> tuple[Params, Array]:
        def found(ts: train.TrainState) -> tuple[Params, Array]:
            losses = [LOSS(net.predict(ts.params, ts.state, x), y).mean() for x, y in (train_set, test_set)]
            return ts.params, jnp.stack(losses)

        def body(ts: train.TrainState, key: Key) -> tuple[train.TrainState, tuple[Params, Array]]:
            ts, _ = epoch(ts, *train_set, key)
            return ts, found(ts)

        start = train.init(net, opt, jax.random.fold_in(key, 1), train_set[0][0])
        _, after = jax.lax.scan(body, start, _epoch_keys(settings, key))
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), found(start), after)

    return scan


def _epoch_keys(settings: Settings, key: Key) -> Key:
    """The key of each epoch, (epochs,)."""
    return jax.random.split(jax.random.fold_in(key, 2), settings.epochs)


def _order(settings: Settings, key: Key, n: int) -> Array:
    """The order of n examples in the epoch with this key, as `train.pieces.scan_epoch` makes it: (n,)."""
    order_key, _ = jax.random.split(key)
    return batch_indices(order_key, n, settings.batch_size, partial=Partial.WEIGHT)[0].ravel()[:n]


def _examples(settings: Settings, part: Dataset) -> Examples:
    return featurize(settings.features, part.x), part.y[:, None]
