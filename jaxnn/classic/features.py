"""Features: a linear classifier on pixels, on features made by hand (intensity, symmetry), and on learned features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, models, optim, train
from jaxnn.checks import as_numpy, require_positive_int
from jaxnn.classic.trials import LOSS
from jaxnn.data import Dataset, TrainTest
from jaxnn.data.sources import MNIST, local_folder
from jaxnn.initializers import lecun_normal
from jaxnn.layers import Dense, Flatten, Layer, Relu, Tanh
from jaxnn.types import Array, Params

OPT = optim.adam(3e-3)
PAIR = (1, 5)
UNITS = 64


class Plane(NamedTuple):
    """Test examples in the plane of two features, and the classifier there.

    Attributes:
        names: of the two features.
        points: (N, 2).
        labels: (N,), 0 or 1.
        normal, offset: (2,) and (): class 1 where normal . point + offset > 0.
        error: the test error in [0, 1].
    """

    names: tuple[str, str]
    points: np.ndarray
    labels: np.ndarray
    normal: np.ndarray
    offset: float
    error: float


class Features(NamedTuple):
    """Test errors by the features that a linear classifier gets.

    Attributes:
        examples: the name of the data, "mnist" or "digits".
        classes: of the images.
        errors: test errors in [0, 1] by the features' name.
        counts: numbers of features by their name.
        planes: for two classes and two learned features, that of the two features made by hand that separate the
            training set best, and that of the learned ones; else empty.
    """

    examples: str
    classes: tuple[int, ...]
    errors: dict[str, float]
    counts: dict[str, int]
    planes: tuple[Plane, ...]


def intensity(x: Any) -> np.ndarray:
    """The mean grey level of each image (N, H, W, C): (N,).

    Example:
        >>> intensity(np.ones((2, 4, 4, 1)))
        array([1., 1.])
    """
    return _images("intensity", x).mean(axis=(1, 2, 3))


def symmetry(x: Any, *, axes: tuple[int, ...] = (2,)) -> np.ndarray:
    """Minus the mean |x - flip(x)| of each image: 0 for a symmetric one, else negative.

    Args:
        x: (N, H, W, C).
        axes: reversed by the flip: (2,) exchanges left and right, (1,) up and down, (1, 2) is half a turn.

    Example:
        >>> symmetry(np.eye(2)[None, :, :, None]), symmetry(np.eye(2)[None, :, :, None], axes=(1, 2))
        (array([-1.]), array([0.]))
    """
    images = _images("symmetry", x)
    return 0.0 - np.abs(images - np.flip(images, axes)).mean(axis=(1, 2, 3))


def _images(where: str, x: Any) -> np.ndarray:
    """Images (N, H, W, C) as floats: differences of unsigned integers would wrap."""
    images = as_numpy(where, "x", x)
    if images.ndim != 4:
        raise ValueError(f"{where}: x must be images (N, H, W, C), got {images.shape}.")
    return images if images.dtype.kind == "f" else images.astype(np.float64)


HAND: Mapping[str, Callable[[Any], np.ndarray]] = MappingProxyType(
    {
        "intensity": intensity,
        "symmetry, left and right": symmetry,
        "symmetry, up and down": functools.partial(symmetry, axes=(1,)),
        "symmetry, half a turn": functools.partial(symmetry, axes=(1, 2)),
    }
)
"""Features made by hand: functions of images (N, H, W, C) -> (N,)."""


def digits(train: int = 5000) -> TrainTest:
    """MNIST, its first `train` training images, if its files are here; else the embedded digits, 1,000 and 797.

    Nothing is downloaded; `name` of the Datasets is "mnist" or "digits".

    Example:
        >>> digits(100).train.name in ("mnist", "digits")
        True
    """
    folder = local_folder(MNIST)
    if folder is None:
        return TrainTest(*data.split(data.digits(), (1000, 797), seed=0, stratify=True))
    whole, test = data.mnist(folder)
    return TrainTest(data.select(whole, slice(0, require_positive_int("features.digits", "train", train))), test)


def of_classes(part: Dataset, classes: Sequence[int]) -> Dataset:
    """The examples of some classes, labels renumbered from 0 in their order.

    Example:
        >>> of_classes(data.make_dataset(np.zeros((3, 1)), [5, 2, 1]), (1, 5)).y
        array([1, 0], dtype=int32)
    """
    labels = np.asarray(part.y)
    kept = np.flatnonzero(np.isin(labels, classes))
    numbers = (labels[kept, None] == np.asarray(classes)).argmax(axis=1).astype(np.int32)
    return dataclasses.replace(data.select(part, kept), y=numbers, classes=())


def compare(
    classes: Sequence[int] = PAIR, *, examples: TrainTest | None = None, learned: int = 2, epochs: int = 20
) -> Features:
    """Linear classifiers (softmax regression) of some classes, on each kind of features.

    The learned features are the last hidden layer of a network, flatten - 64 ReLUs - tanh, trained together with the
    linear classifier on them.

    Args:
        classes: labels of at least two classes.
        examples: images (N, H, W, C); None for `digits()`.
        learned: number of learned features; with two, and two classes, the planes are returned too.
        epochs: in batches of 50, by Adam with learning rate 0.003; for the few features made by hand, with 0.03.

    Returns:
        Features, with errors of the best two and of all features made by hand, of pixels, and of learned features.

    Raises:
        ValueError: fewer than two classes, a class without training images, no test images, or examples that are not
            images.

    Reference: LeCun, Y., Bottou, L., Bengio, Y. & Haffner, P. (1998). Gradient-based learning applied to document
        recognition, section I.A (features by hand against learned ones).

    Example:
        >>> few = TrainTest(*data.split(data.digits(), (300, 1497), seed=0))
        >>> sorted(compare(examples=few, epochs=1).counts.items())
        [('all by hand', 4), ('learned', 2), ('pixels', 64), ('two by hand', 2)]
    """
    examples = digits() if examples is None else examples
    training, test = (of_classes(part, classes) for part in examples)
    shape, k = np.shape(training.x)[1:], len(classes)
    if k < 2 or len(shape) != 3 or len(np.unique(training.y)) < k:
        raise ValueError(
            f"features.compare: expected images (N, H, W, C) of at least two classes, each with training images, got "
            f"x {np.shape(training.x)} for the classes {tuple(classes)}."
        )
    if not len(test):
        raise ValueError(f"features.compare: expected test images of the classes {tuple(classes)}, got none.")
    epochs = require_positive_int("features.compare", "epochs", epochs)
    hand, chosen = _by_hand(training, test, k, epochs)
    counts = {"two by hand": 2, "all by hand": len(HAND), "pixels": int(np.prod(shape)), "learned": learned}
    errors = dict(zip(counts, hand, strict=False))
    pixels, features = models.linear(k), network(learned, k)
    for name, net in (("pixels", pixels), ("learned", features)):
        params = _fit(net, OPT, training.x, training.y, epochs)
        errors[name] = _error(net.predict(params, (), jnp.asarray(test.x)), test.y)
    planes = (chosen, _learned_plane(features, params, test, errors["learned"])) if k == learned == 2 else ()
    return Features(examples.train.name, tuple(classes), errors, counts, planes)


def network(learned: int, classes: int) -> Layer:
    """64 ReLUs, `learned` tanh units, and the linear classifier on these.

    Example:
        >>> network(2, 10).init(jax.random.key(0), (8, 8, 1))[0][5]["w"].shape
        (2, 10)
    """
    units = require_positive_int("features.network", "learned", learned)
    return models.serial(Flatten, Dense(UNITS), Relu, Dense(units, w_init=lecun_normal), Tanh, Dense(classes))


def _fit(net: Layer, opt: optim.Optimizer, x: Any, y: Any, epochs: int) -> Params:
    """The parameters after training from one seed."""
    keys = jax.random.key(0)[None]
    pair = jnp.asarray(x), jnp.asarray(y)
    ts, _ = train.ensemble(net, LOSS, opt, pair, keys=keys, epochs=epochs, batch_size=min(50, len(x)))
    return jax.tree.map(lambda leaf: leaf[0], ts.params)


def _error(outputs: Any, labels: Any) -> float:
    """The fraction whose largest output is not that of the label."""
    return float((np.asarray(outputs).argmax(axis=-1) != np.asarray(labels)).mean())


def _by_hand(training: Dataset, test: Dataset, classes: int, epochs: int) -> tuple[list[float], Plane]:
    """The test errors of the best two features and of all, and the plane of the two."""
    raw, held_out = (np.stack([f(part.x) for f in HAND.values()], axis=1) for part in (training, test))
    mean, spread = raw.mean(axis=0), raw.std(axis=0) + 1e-9
    x, u = ((values - mean) / spread for values in (raw, held_out))
    # Intensity with each symmetry, and all four: features that are not in a set are 0, so that one program fits all.
    sets = np.array([[1, *(i == j for i in range(len(HAND) - 1))] for j in range(len(HAND) - 1)] + [[1] * len(HAND)])
    net = models.linear(classes)

    def outputs(on: Array, x: Array, u: Array) -> tuple[Params, Array, Array]:
        params = _fit(net, optim.adam(0.03), x * on, training.y, epochs)
        return params[1], net.predict(params, (), x * on), net.predict(params, (), u * on)

    arrays = (jnp.asarray(values, jnp.float32) for values in (sets, x, u))
    fitted, on_training, on_test = jax.jit(jax.vmap(outputs, (0, None, None)))(*arrays)
    pairs = [_error(values, training.y) for values in on_training[:-1]]
    best = int(np.argmin(pairs))
    errors = [_error(on_test[i], test.y) for i in (best, -1)]
    two = [0, best + 1]
    w, b = np.asarray(fitted["w"])[best, two], np.asarray(fitted["b"])[best]
    normal = (w[:, 1] - w[:, 0]) / spread[two]
    names = list(HAND)
    offset = float(b[1] - b[0] - normal @ mean[two])
    labels = np.asarray(test.y)
    return errors, Plane((names[0], names[best + 1]), held_out[:, two], labels, normal, offset, errors[0])


def _learned_plane(net: Layer, params: Params, test: Dataset, error: float) -> Plane:
    """The plane of two learned features."""
    points = np.asarray(models.serial(*net.parts[:-1]).predict(params[:-1], (), jnp.asarray(test.x)))
    w, b = (np.asarray(params[-1][name]) for name in ("w", "b"))
    normal, offset = w[:, 1] - w[:, 0], float(b[1] - b[0])
    return Plane(("learned feature 1", "learned feature 2"), points, np.asarray(test.y), normal, offset, error)
