"""Denoising autoencoder: a network that reconstructs clean images from noisy ones, against plain and linear rivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, losses, models, optim, train
from jaxnn.checks import require_positive, require_positive_int
from jaxnn.classic.trials import as_settings
from jaxnn.data import Dataset, Splits
from jaxnn.initializers import lecun_normal
from jaxnn.layers import Dense, Flatten, Layer, Relu
from jaxnn.train.keys import run_keys
from jaxnn.train.pieces import scan_epoch
from jaxnn.types import Array, Key, Params, Scalar

LEVELS = (0.1, 0.2, 0.4, 0.8)
UNITS = 200
BATCH = 50


class Denoised(NamedTuple):
    """Root mean squared errors per pixel on validation images, for L noise levels and R seeds; pixels lie in [0, 1].

    Attributes:
        levels: (L,), standard deviations of the noise.
        noisy: (L,), of the noisy images themselves.
        linear: (L,), of the best linear estimate, `wiener`.
        plain: (L, R), of an autoencoder trained on clean images.
        denoising: (L, R), of one trained on noisy images, each level its own.
        params: of the denoising networks, leaves (L, R, ...).
        noisy_images, restored: (L, N, D), the validation images with noise; and as the first seed's networks
            reconstruct them.
    """

    levels: np.ndarray
    noisy: np.ndarray
    linear: np.ndarray
    plain: np.ndarray
    denoising: np.ndarray
    params: Params
    noisy_images: np.ndarray
    restored: np.ndarray


def network(pixels: int, units: int = UNITS) -> Layer:
    """An autoencoder: ReLUs, more than pixels, and linear outputs.

    Example:
        >>> from jaxnn import tree
        >>> tree.size(network(4, 8).init(jax.random.key(0), (2, 2, 1))[0])
        76
    """
    return models.serial(Flatten, Dense(units), Relu, Dense(pixels, w_init=lecun_normal))


def wiener(clean: Any, noisy: Any, level: Scalar) -> np.ndarray:
    """The linear estimate of least expected squared error: m + C (C + s^2 I)^-1 (x - m).

    Args:
        clean: (N, D), training images, for their mean m and covariance C.
        noisy: (M, D), images with white noise of standard deviation s.
        level: s > 0.

    Returns:
        (M, D), float64.

    Reference: Wiener, N. (1949). Extrapolation, interpolation, and smoothing of stationary time series.

    Example:
        >>> wiener([[-1.0], [1.0]], [[2.0]], 1.0)
        array([[1.]])
    """
    known, given = np.asarray(clean, np.float64), np.asarray(noisy, np.float64)
    require_positive("wiener", "level", level)
    if known.ndim != 2 or given.ndim != 2 or known.shape[1] != given.shape[1] or not known.size:
        raise ValueError(f"wiener: expected images clean (N, D) and noisy (M, D), got {known.shape} and {given.shape}.")
    if not np.isfinite(known).all():
        raise ValueError("wiener: the clean images must be finite.")
    mean = known.mean(axis=0)
    covariance = (known - mean).T @ (known - mean) / len(known)
    gain = np.linalg.solve(covariance + float(level) ** 2 * np.eye(len(covariance)), covariance)
    return mean + (given - mean) @ gain


def by_level(
    levels: Sequence[float] = LEVELS, *, examples: Splits | None = None, units: int = UNITS, seeds: int = 2,
    epochs: int = 60,
) -> Denoised:  # fmt: skip
    """Train autoencoders with and without noise, and restore noisy images; all are one compiled program.

    The loss is (1/D) |f(x + s e) - x|^2 with new noise e ~ N(0, I) in each step; s = 0 for the plain one.

    Args:
        levels: standard deviations s > 0 of the noise.
        examples: images, or vectors (N, D), in about [0, 1]; labels are not used. None for `data.load("digits")`.
        units: of the hidden layer.
        seeds: R runs of each.
        epochs: in batches of 50, by Adam with learning rate 0.003, falling to 0 along a cosine.

    Raises:
        TypeError, ValueError: a setting is out of range, or examples are not Splits of at least 50 finite training
            examples, and others of their size.

    Reference: Vincent, P., Larochelle, H., Bengio, Y. & Manzagol, P.-A. (2008). Extracting and composing robust
        features with denoising autoencoders.

    Example:
        >>> by_level((0.5,), seeds=1, epochs=1).denoising.shape
        (1, 1)
    """
    levels = as_settings("denoising", "levels", levels, 0, math.inf)
    for level in levels:
        require_positive("denoising", "each of levels", level)
    clean, held_out = _images(data.load("digits") if examples is None else examples)
    units, seeds, epochs = (
        require_positive_int("denoising", name, value)
        for name, value in (("units", units), ("seeds", seeds), ("epochs", epochs))
    )
    net = network(clean.shape[1], units)
    # The last level is that of the plain autoencoder.
    found = _train(net, jax.random.split(jax.random.key(0), seeds), jnp.array([*levels, 0.0]), clean, epochs)
    noise = jax.random.normal(jax.random.key(1), held_out.shape)
    noisy = held_out + jnp.array(levels)[:, None, None] * noise

    def restore(params: Params, images: Array) -> Array:
        return net.predict(params, (), images)

    denoising, plain = jax.tree.map(lambda leaf: leaf[:-1], found), jax.tree.map(lambda leaf: leaf[-1], found)
    over_seeds = jax.vmap(restore, (0, None))
    restored = jax.vmap(over_seeds)(denoising, noisy)  # (L, R, N, D)
    copied = jax.vmap(over_seeds, (None, 0))(plain, noisy)
    linear = np.stack([wiener(clean, images, level) for images, level in zip(noisy, levels, strict=True)])
    at_start, by_linear, by_plain, by_denoising = (
        _rms(np.asarray(values) - np.asarray(held_out)) for values in (noisy, linear, copied, restored)
    )
    return Denoised(
        np.array(levels), at_start, by_linear, by_plain, by_denoising, denoising, np.asarray(noisy),
        np.asarray(restored[:, 0]),
    )  # fmt: skip


def _images(examples: Splits) -> tuple[Array, Array]:
    """The training and validation images as rows (N, D)."""
    if not isinstance(examples, Splits) or not all(isinstance(part, Dataset) for part in examples):
        raise TypeError(f"denoising: examples must be data.Splits of Datasets, got {type(examples).__name__}.")
    rows = [jnp.asarray(part.x).reshape(len(part), -1) for part in examples[:2]]
    if len(rows[0]) < BATCH:
        raise ValueError(f"denoising: expected at least {BATCH} training images, one batch, got {len(rows[0])}.")
    if rows[1].shape[1:] != rows[0].shape[1:] or not all(bool(jnp.isfinite(part).all()) for part in rows):
        raise ValueError(
            f"denoising: expected finite training and validation images of one size, got {rows[0].shape} and "
            f"{rows[1].shape} as rows. Remove rows that are not finite."
        )
    return rows[0], rows[1]


def _train(net: Layer, keys: Key, levels: Array, clean: Array, epochs: int) -> Params:
    """The parameters after training for each level and key, leaves (L, R, ...)."""
    opt = optim.adam(optim.cosine_decay_schedule(3e-3, epochs * (len(clean) // BATCH)))
    vg = jax.value_and_grad(train.mean_loss(net, losses.mse), has_aux=True)

    def one(level: Array, key: Key, clean: Array) -> Params:
        def corrupt(key: Key, x: Array) -> Array:
            return x + level * jax.random.normal(key, x.shape)

        init_key, epochs_key = run_keys(key)
        epoch = scan_epoch(vg, opt, batch_size=BATCH, augment=corrupt)

        def body(ts: train.TrainState, i: Array) -> tuple[train.TrainState, None]:
            return epoch(ts, clean, clean, jax.random.fold_in(epochs_key, i))[0], None

        return jax.lax.scan(body, train.init(net, opt, init_key, clean.shape[1:]), jnp.arange(1, epochs + 1))[0].params

    over_levels = jax.vmap(jax.vmap(one, (None, 0, None)), (0, None, None))
    return jax.jit(over_levels)(levels, keys, clean)


def _rms(differences: np.ndarray) -> np.ndarray:
    """The root mean square over images and pixels, the last two axes."""
    return np.asarray(np.sqrt(np.square(differences).mean(axis=(-2, -1))))
