"""Benchmark problems: a network (or any function), a loss, data, and a target."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_function, require_number, require_positive_int
from jaxnn.data import Dataset
from jaxnn.layers import Kind, Layer
from jaxnn.layers.base import require_net, stateless
from jaxnn.types import Array, ArrayLike, Key, Loss, Params

KIND = Kind("function")


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A task for optimizers.

    Attributes:
        name: lower-case letters and digits, with -, _ or . between.
        net: the network.
        loss: per example, (outputs (N, ...), targets (N, ...)) -> (N,).
        train: the training set.
        validation: the set by which learning rates are chosen; None for the training set.
        batch_size, epochs: of a run; `race` may replace the epochs.
        test: evaluated once, at the end of each fresh run of a race; None for a problem without a test set.
        metrics: name -> (outputs, targets) -> (N,), evaluated on the validation and test sets.
        figure: the metric of a run, lower is better: "loss" (of training; it is also the final metric),
            "validation_loss" or, of `metrics`, "validation_NAME".
        target: the value of the metric that counts as solved, for "steps to the target", or None.
        reference: the source of the problem and its settings.
        published: published results on the problem, quoted by optimizer.

    Raises:
        ValueError: an invalid name, an unknown figure, or a batch_size that exceeds the training examples.
        TypeError: an attribute of another type.

    Example:
        >>> points = Dataset(np.linspace(-1, 1, 8, dtype=np.float32)[:, None], np.zeros(8, np.float32))
        >>> ball = from_function("ball", lambda key: jnp.ones(1), lambda w, x: jnp.sum((w - x) ** 2), points)
        >>> params, state = ball.net.init(jax.random.key(0), (1,))
        >>> ball.loss(ball.net.predict(params, state, points.x[:2]), points.y[:2])
        Array([4.       , 2.9387755], dtype=float32)
    """

    name: str
    net: Layer
    loss: Loss
    train: Dataset
    validation: Dataset | None
    batch_size: int
    epochs: int
    test: Dataset | None = None
    metrics: Mapping[str, Loss] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    figure: str = "validation_loss"
    target: float | None = None
    reference: str = ""
    published: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", self.name):
            raise ValueError(
                f"problem: name must be lower-case letters and digits, with -, _ or . between, got {self.name!r}."
            )
        require_net(f"problem {self.name}", self.net)
        if self.validation is None:
            object.__setattr__(self, "validation", self.train)
        for part in ("train", "validation", "test"):
            data = getattr(self, part)
            if not isinstance(data, Dataset) and (part != "test" or data is not None):
                raise TypeError(
                    f"problem {self.name}: {part} must be a Dataset, got {type(data).__name__}. "
                    "Use jaxnn.data.Dataset(x, y)."
                )
        if not isinstance(self.metrics, Mapping):
            raise TypeError(
                f'problem {self.name}: metrics must be a dict of functions, such as {{"error": metrics.error_rate}}, '
                f"got {self.metrics!r}."
            )
        if self.target is not None:
            require_number(f"problem {self.name}", "target", self.target)
        require_function(f"problem {self.name}", "loss", self.loss, "losses.softmax_cross_entropy", optional=False)
        if require_positive_int(f"problem {self.name}", "batch_size", self.batch_size) > len(self.train):
            raise ValueError(
                f"problem {self.name}: batch_size {self.batch_size} exceeds the {len(self.train)} training examples."
            )
        require_positive_int(f"problem {self.name}", "epochs", self.epochs)
        figures = {"loss", "validation_loss", *(f"validation_{name}" for name in self.metrics)}
        if self.figure not in figures:
            raise ValueError(
                f"problem {self.name}: figure must be one of {', '.join(sorted(figures))}, got {self.figure!r}."
            )


def values(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """The loss of a network that outputs the loss itself: the outputs (N,), whatever the targets."""
    return jnp.asarray(outputs)


def from_function(
    name: str,
    init: Callable[[Key], Params],
    loss: Callable[[Params, Array], Array],
    train: Any,
    validation: Any = None,
    *,
    test: Any = None,
    batch_size: int | None = None,
    epochs: int = 10,
    **attributes: Any,
) -> Problem:
    """A problem of your own from parameters, the loss of one example, and data.

    Args:
        name: of the problem.
        init: key -> parameters, a pytree of floating arrays.
        loss: (params, x) -> (), x one example of the data; jittable and differentiable.
        train, validation: examples x (N, ...), or Datasets, of which only x is used; None validates on `train`.
        test: as `validation`; None for no test set.
        batch_size: None for all training examples at once.
        epochs, attributes: as the attributes of `Problem`.

    Returns:
        Problem, whose network outputs the loss of each example.

    Raises:
        TypeError: init or loss is not a function.
        ValueError: no examples; an invalid attribute; when the network is applied, a loss of one example that is not a
            scalar.

    Example:
        >>> xs = np.eye(4, dtype=np.float32)
        >>> mine = from_function("mine", lambda key: jax.random.normal(key, (4,)), lambda w, x: (w @ x - 1) ** 2, xs)
        >>> mine.batch_size, mine.figure
        (4, 'validation_loss')
    """
    where = f"problem {name}"
    require_function(where, "init", init, "lambda key: {'w': jnp.ones(3)}", optional=False)
    require_function(where, "loss", loss, "lambda params, x: jnp.sum((params['w'] - x) ** 2)", optional=False)
    train, validation = (_dataset(where, part) for part in (train, train if validation is None else validation))
    test = None if test is None else _dataset(where, test)

    def apply(params: Params, x: Array) -> Array:
        found = jax.vmap(loss, in_axes=(None, 0))(params, x)
        if found.ndim != 1:
            raise ValueError(
                f"{where}: loss(params, x) must return a scalar for one example x {x.shape[1:]}, got shape "
                f"{found.shape[1:]}. Sum or average over its axes; the mean over examples is taken later."
            )
        return found

    net = stateless(KIND, apply, lambda key, example: init(key))
    size = len(train) if batch_size is None else batch_size
    return Problem(name, net, values, train, validation, size, epochs, test, **attributes)


def _dataset(where: str, part: Any) -> Dataset:
    """Examples as a Dataset with dummy targets, which `values` ignores."""
    x = part.x if isinstance(part, Dataset) else np.asarray(part)
    if np.ndim(x) == 0 or not len(x):
        raise ValueError(f"{where}: the data must hold at least one example, x (N, ...), got shape {np.shape(x)}.")
    return Dataset(x, np.zeros(len(x), np.float32), where)
