"""The hierarchy of features of a convolutional network: what each layer's units respond to, and what it tells."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import models, optim, train
from jaxnn.checks import pair, require_positive_int
from jaxnn.classic import baselines, multiclass
from jaxnn.classic.features import digits
from jaxnn.classic.neurons import with_bias
from jaxnn.classic.shifts import on_paper
from jaxnn.classic.trials import LOSS
from jaxnn.data import TrainTest
from jaxnn.data.warp import require_images
from jaxnn.layers import Conv, Dense, Flatten, Layer, MaxPool, Relu, activation
from jaxnn.layers.base import require_net
from jaxnn.types import Array, Params

OPT = optim.adam(3e-3)
STAGES = ((Conv(8, 3), Relu, MaxPool(2)), (Conv(16, 3), Relu, MaxPool(2)), (Conv(32, 3), Relu))
"""The layers of the network before its linear output, by stage."""

SMALLEST = 20
"""Images with fewer pixels to a side get a border of zeros, since the three stages look at 18 of them at once."""


class Window(NamedTuple):
    """What a unit sees: `size` pixels to a side, the windows of neighbouring units `step` pixels apart."""

    size: int
    step: int


class Strongest(NamedTuple):
    """The images to which the units of a stage respond most, for U units and T images of each, the strongest first.

    Attributes:
        images: (U, T), their indices; each unit's are distinct.
        patches: (U, T, s, s, C), what the unit sees of them where it responds most.
        responses: (U, T).
    """

    images: np.ndarray
    patches: np.ndarray
    responses: np.ndarray


class Stage(NamedTuple):
    """One level of the hierarchy; the first is the pixels.

    Attributes:
        window: of a unit.
        units: number of channels.
        probe_error: test error in [0, 1] of a least-squares classifier on the stage's outputs.
        strongest: None for the pixels.
        share: (units,), the share of the most frequent class among the strongest test images of each unit, NaN for a
            unit that responds to fewer; empty for the pixels.
    """

    window: Window
    units: int
    probe_error: float
    strongest: Strongest | None
    share: np.ndarray


class Hierarchy(NamedTuple):
    """The stages, the pixels first; the network's own test error; "mnist" or "digits"."""

    stages: tuple[Stage, ...]
    error: float
    examples: str


def window_of(layers: Sequence[Layer]) -> Window:
    """The window of a unit after square convolutions and poolings without padding, and element-wise layers.

    size <- size + (k - 1) step for a window of k, then step <- step s for a stride of s.

    Raises:
        TypeError: not a layer.
        ValueError: another kind of layer, one with padding, dilation, or different sizes down and right.

    Example:
        >>> window_of([Conv(8, 3), Relu, MaxPool(2)])
        Window(size=4, step=2)
    """
    size, step = 1, 1
    for layer in layers:
        require_net("window_of", layer)
        if layer.kind is not activation.KIND and "window" not in layer.options:
            raise ValueError(f"window_of: expected convolutions, poolings and activations, got {layer!r}.")
        if "window" not in layer.options:
            continue
        k = pair("window_of", "window", layer.options["window"])
        stride = pair("window_of", "stride", layer.options.get("stride") or layer.options["window"])
        dilation = pair("window_of", "dilation", layer.options.get("dilation", 1))
        if layer.options["padding"] != "VALID" or set(dilation) != {1} or len({*k}) > 1 or len({*stride}) > 1:
            raise ValueError(
                f"window_of: expected square windows and strides, no dilation and padding VALID, got {layer!r}."
            )
        size, step = size + (k[0] - 1) * step, step * stride[0]
    return Window(size, step)


def strongest(outputs: Any, images: Any, window: Window, *, top: int = 9) -> Strongest:
    """The images with the largest responses of each unit, and the patches at which it responds.

    Args:
        outputs: (N, H', W', U), of units with this window.
        images: (N, H, W, C), the inputs.
        window: of a unit, from `window_of`.
        top: T, images of each unit.

    Reference: Zeiler, M. D. & Fergus, R. (2014). Visualizing and understanding convolutional networks.

    Example:
        >>> images = np.arange(8.0).reshape(2, 2, 2, 1)
        >>> strongest(images, images, Window(1, 1), top=1).patches.ravel()
        array([7.])
    """
    responses, pictures = np.asarray(outputs), np.asarray(images)
    if responses.ndim != 4 or pictures.ndim != 4 or len(responses) != len(pictures):
        raise ValueError(
            f"strongest: expected outputs (N, H', W', U) and images (N, H, W, C), got {responses.shape} and "
            f"{pictures.shape}."
        )
    if not np.isfinite(responses).all():
        raise ValueError("strongest: outputs must be finite.")
    ends = [(n - 1) * window.step + window.size for n in responses.shape[1:3]]
    if ends[0] > pictures.shape[1] or ends[1] > pictures.shape[2]:
        raise ValueError(
            f"strongest: {window} at outputs {responses.shape[1:3]} leaves the images {pictures.shape[1:3]}. Take "
            "that of `window_of`."
        )
    n, _, width, units = responses.shape
    if require_positive_int("strongest", "top", top) > n:
        raise ValueError(f"strongest: top must be at most the number of images, {n}, got {top}.")
    flat = responses.reshape(n, -1, units)
    best = flat.max(axis=1)
    order = np.argsort(-best, axis=0, kind="stable")[:top].T  # (U, T)
    where = flat.argmax(axis=1)

    def patch(unit: int, image: int) -> np.ndarray:
        row, column = (window.step * i for i in divmod(int(where[image, unit]), width))
        return pictures[image, row : row + window.size, column : column + window.size]

    patches = np.stack([[patch(unit, image) for image in row] for unit, row in enumerate(order)])
    return Strongest(order, patches, np.take_along_axis(best.T, order, axis=1))


def study(*, examples: TrainTest | None = None, steps: int = 300, top: int = 9) -> Hierarchy:
    """Train a convolutional network of three stages; probe the pixels and each stage, and find what its units prefer.

    Args:
        examples: images of digits; None for `features.digits()`.
        steps: of Adam with learning rate 0.003 on batches of 50, rounded up to whole epochs.
        top: images of each unit, chosen among the test images.

    Reference: Zeiler, M. D. & Fergus, R. (2014). Visualizing and understanding convolutional networks. Alain, G. &
        Bengio, Y. (2016). Understanding intermediate layers using linear classifier probes.

    Example:
        >>> from jaxnn import data
        >>> few = TrainTest(*data.split(data.digits(), (200, 1597), seed=0))
        >>> [stage.window.size for stage in study(examples=few, steps=1).stages]
        [1, 4, 10, 18]
    """
    training, test = digits() if examples is None else examples
    for part in (training, test):
        require_images("hierarchy", part.x)
    x, u = (_large(part.x) for part in (training, test))
    batch = min(50, len(x))
    epochs = -(-require_positive_int("hierarchy", "steps", steps) // (len(x) // batch))
    classes = 1 + int(max(np.max(training.y), np.max(test.y)))
    net = models.serial(*(layer for stage in STAGES for layer in stage), Flatten, Dense(classes))
    keys = jax.random.key(0)[None]
    ts, _ = train.ensemble(net, LOSS, OPT, (x, jnp.asarray(training.y)), keys=keys, epochs=epochs, batch_size=batch)
    *levels, outputs = _levels(net, jax.tree.map(lambda leaf: leaf[0], ts.params), jnp.concatenate([x, u]))
    found = []
    for i, values in enumerate(levels):
        on_training, on_test = values[: len(x)], values[len(x) :]
        error = probe(on_training, training.y, on_test, test.y, classes)
        window = window_of([layer for stage in STAGES[:i] for layer in stage])
        best = strongest(on_test, u, window, top=top) if i else None
        shares = np.zeros(0) if best is None else _shares(best, np.asarray(test.y))
        found.append(Stage(window, on_test.shape[-1], error, best, shares))
    wrong = np.asarray(outputs[len(x) :]).argmax(axis=-1) != np.asarray(test.y)
    return Hierarchy(tuple(found), float(wrong.mean()), training.name)


def share(labels: Any) -> np.ndarray:
    """The share of the most frequent label in each row (U, T): (U,).

    Example:
        >>> share([[1, 1, 2, 3]])
        array([0.5])
    """
    rows = np.asarray(labels)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"share: labels must be (U, T), U and T at least 1, got {rows.shape}.")
    return np.asarray(np.stack([(rows == label).mean(axis=1) for label in np.unique(rows)]).max(axis=0))


def probe(x: Any, labels: Any, u: Any, answers: Any, classes: int) -> float:
    """The error in [0, 1] on (u, answers) of a least-squares classifier fitted on (x, labels); outputs are flattened.

    Reference: Alain, G. & Bengio, Y. (2016). Understanding intermediate layers using linear classifier probes.

    Example:
        >>> x = np.array([[-1.0], [1.0]])
        >>> probe(x, [0, 1], x, [0, 1], 2)
        0.0
    """
    rows, held_out = (with_bias(jnp.asarray(values).reshape(len(values), -1)) for values in (x, u))
    w = baselines.least_squares(rows, jnp.asarray(labels), classes)
    return float((np.asarray(multiclass.predict(w, held_out)) != np.asarray(answers)).mean())


def _shares(best: Strongest, labels: np.ndarray) -> np.ndarray:
    """The shares of the most frequent class, NaN for units that do not respond to all of their strongest images."""
    return np.where((best.responses > 0).all(axis=1), share(labels[best.images]), np.nan)


def _large(images: Any) -> Array:
    """Images with at least `SMALLEST` pixels to a side."""
    border = max(0, -(-(SMALLEST - min(np.shape(images)[1:3])) // 2))
    return on_paper(images, border)


@functools.partial(jax.jit, static_argnames="net")
def _levels(net: Layer, params: Params, x: Array) -> list[Array]:
    """The pixels, the outputs of each stage, and those of the network."""
    outputs, first = [x], 0
    for stage in (*STAGES, net.parts[-2:]):
        part = models.serial(*stage)
        outputs.append(part.predict(params[first : first + len(stage)], (), outputs[-1]))
        first += len(stage)
    return outputs
