"""A small generative adversarial network, and its coverage of the modes of the data.

min over the generator G, max over the discriminator D of E log D(x) + E log(1 - D(G(z))), z ~ N(0, I); the generator's
loss is the non-saturating -E log D(G(z)), whose gradient does not vanish where D(G(z)) is near 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, models, optim
from jaxnn.checks import require_between, require_function, require_key, require_positive, require_positive_int
from jaxnn.classic.baselines import nearest
from jaxnn.classic.neurons import require_finite
from jaxnn.layers import Layer, Sigmoid
from jaxnn.train import minmax
from jaxnn.types import Array, ArrayLike, Key, Params, Scalar

Draw: TypeAlias = Callable[[Key, int], Array]
"""(key, n) -> n examples of the data, (n, D)."""


class Rule(NamedTuple):
    """The training rule of a GAN: a step factory of `train.minmax`, and the optimizer that each player uses."""

    make_step: Callable[[minmax.Game, optim.Optimizer, optim.Optimizer], minmax.Step]
    opt: optim.Optimizer


class Gan(NamedTuple):
    """The generator, (N, latent) -> (N, D), and the discriminator, (N, D) -> (N, 1), the logit of "real"."""

    generator: Layer
    discriminator: Layer
    latent: int


class Coverage(NamedTuple):
    """Mode coverage: `found`, (...) int32, the number of modes; `quality`, (...), the fraction of samples at a mode."""

    found: Array
    quality: Array


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "descent-ascent": Rule(minmax.simultaneous, optim.adam(1e-3, b1=0.5)),
        "alternating": Rule(minmax.alternating, optim.adam(1e-3, b1=0.5)),
        "optimistic": Rule(minmax.simultaneous, optim.optimistic_adam_v2(1e-3, b1=0.5, nesterov=False)),
        "extragradient": Rule(minmax.extragradient, optim.adam(1e-3, b1=0.5)),
    }
)
"""The rules compared, each with a form of Adam at learning rate 0.001; b1 = 0.5 as in Radford, Metz & Chintala 2016."""


def make(dimensions: int, *, latent: int = 2, hidden: Sequence[int] = (64, 64), unit: bool = False) -> Gan:
    """A generator and a discriminator, both MLPs with ReLU.

    Args:
        dimensions: D, the number of entries of an example.
        latent: dimension of the generator's noise.
        hidden: units of each hidden layer, the same for both networks.
        unit: whether examples lie in [0, 1]; the generator then ends in a sigmoid.

    Raises:
        TypeError: hidden is not a sequence, or a size is not an integer.
        ValueError: a size is less than 1.

    Example:
        >>> gan = make(64, latent=16, hidden=(32,), unit=True)
        >>> len(gan.generator.parts), len(gan.discriminator.parts)
        (5, 4)
    """
    latent = require_positive_int("gan.make", "latent", latent)
    if np.ndim(hidden) != 1:
        raise TypeError(f"gan.make: hidden must be a sequence of ints, such as (32,), got {hidden!r}.")
    generator = models.mlp([latent, *hidden, dimensions])
    if unit:
        generator = models.serial(*generator.parts, Sigmoid)
    return Gan(generator, models.mlp([dimensions, *hidden, 1]), latent)


def generate(gan: Gan, params: Params, z: ArrayLike) -> Array:
    """G(z): examples (N, D) from noise z (N, latent); `params` are the generator's, the first of the pair of `start`.

    Example:
        >>> gan = make(2, latent=3)
        >>> generator, _ = jax.eval_shape(lambda: start(gan, jax.random.key(0), 2))
        >>> jax.eval_shape(lambda params: generate(gan, params, jnp.ones((5, 3))), generator).shape
        (5, 2)
    """
    return gan.generator.predict(params, (), jnp.asarray(z))


def non_saturating(gan: Gan) -> minmax.Game:
    """The game: x are the generator's parameters, y the discriminator's, data are B real examples and z (B, latent).

    x_loss = -mean log D(G(z));   y_loss = -mean log D(real) - mean log(1 - D(G(z)))

    D = sigmoid(logit of the discriminator).

    Reference: Goodfellow et al. 2014, "Generative adversarial nets", section 3.

    Example:
        >>> gan = make(2)
        >>> x, y = jax.eval_shape(lambda: start(gan, jax.random.key(0), 2))
        >>> jax.eval_shape(non_saturating(gan).x_loss, x, y, jnp.zeros((5, 2)), jnp.zeros((5, 2))).shape
        ()
    """

    def judged(discriminator: Params, examples: Array, target: float) -> Array:
        logits = gan.discriminator.predict(discriminator, (), examples)
        return jnp.mean(losses.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, target)))

    def x_loss(generator: Params, discriminator: Params, real: Array, z: Array) -> Array:
        return judged(discriminator, generate(gan, generator, z), 1.0)

    def y_loss(generator: Params, discriminator: Params, real: Array, z: Array) -> Array:
        return judged(discriminator, real, 1.0) + judged(discriminator, generate(gan, generator, z), 0.0)

    return minmax.Game(x_loss, y_loss)


def start(gan: Gan, key: Key, dimensions: int) -> tuple[Params, Params]:
    """Initial parameters of (generator, discriminator) for examples of `dimensions` entries.

    Raises:
        ValueError: a network has running statistics.

    Example:
        >>> generator, discriminator = jax.eval_shape(lambda: start(make(2), jax.random.key(0), 2))
        >>> discriminator[1]["w"].shape
        (2, 64)
    """
    require_key("gan.start", key)
    generator_key, discriminator_key = jax.random.split(key)
    generator, generator_stats = gan.generator.init(generator_key, (gan.latent,))
    discriminator, discriminator_stats = gan.discriminator.init(discriminator_key, (dimensions,))
    if jax.tree.leaves((generator_stats, discriminator_stats)):
        raise ValueError("gan.start: the networks must have no running statistics; omit batch normalization.")
    return generator, discriminator


def run(
    gan: Gan,
    rule: Rule,
    draw: Draw,
    players: tuple[Params, Params],
    key: Key,
    *,
    steps: int,
    looks: int,
    batch_size: int = 64,
    shown: int = 512,
) -> tuple[minmax.GameState, Array]:
    """Train, and sample at intervals from the same noise. Pure: `jax.vmap` it over players and keys.

    Args:
        gan: two networks without running statistics.
        rule: one of `RULES`, or your own.
        draw: `draw(key, n)` samples n examples (n, D), e.g. `ring` or `from_examples(x)`.
        players: the initial parameters (generator, discriminator), from `start`.
        key: typed key of data and noise.
        steps: steps between two snapshots of the samples.
        looks: number of snapshots after the initial one; there are steps * looks steps in all.
        batch_size: number of real, and of generated, examples per step.
        shown: samples per snapshot.

    Returns:
        (final state, samples (looks + 1, shown, D), the initial ones first).

    Raises:
        TypeError: rule is not a Rule, draw is not a function, key is not a typed key, or a count is not an integer.
        ValueError: a count is less than 1, key is None, or draw(key, n) is not (n, D).

    Example:
        >>> gan, rule = make(2), RULES["alternating"]
        >>> def trained(key):
        ...     return run(gan, rule, ring, start(gan, key, 2), key, steps=100, looks=3, shown=5)
        >>> state, samples = jax.eval_shape(trained, jax.random.key(0))  # jax.jit(trained) computes it
        >>> samples.shape
        (4, 5, 2)
    """
    if not isinstance(rule, Rule):
        raise TypeError(f'gan.run: rule must be a Rule, such as gan.RULES["alternating"], got {rule!r}.')
    require_function("gan.run", "draw", draw, "gan.ring or, for rows of an array, gan.from_examples(x)", optional=False)
    require_key("gan.run", key)
    steps = require_positive_int("gan.run", "steps", steps)
    looks = require_positive_int("gan.run", "looks", looks)
    batch_size = require_positive_int("gan.run", "batch_size", batch_size)
    shown = require_positive_int("gan.run", "shown", shown)
    noise_key, looks_key = jax.random.split(key)
    dimensions = _dimensions(draw, key)
    step = rule.make_step(non_saturating(gan), rule.opt, rule.opt)
    noise = jax.random.normal(noise_key, (shown, gan.latent))

    def until_look(state: minmax.GameState, key: Key) -> tuple[minmax.GameState, Array]:
        real_key, z_key = jax.random.split(key)
        real = draw(real_key, steps * batch_size).reshape(steps, batch_size, dimensions)
        z = jax.random.normal(z_key, (steps, batch_size, gan.latent))
        state, _ = jax.lax.scan(lambda state, batch: (step(state, *batch), None), state, (real, z))
        return state, generate(gan, state.x, noise)

    first = minmax.init(*players, rule.opt, rule.opt)
    last, samples = jax.lax.scan(until_look, first, jax.random.split(looks_key, looks))
    return last, jnp.concatenate([generate(gan, first.x, noise)[None], samples])


def ring_centres(modes: int = 8, radius: float = 2.0) -> np.ndarray:
    """(modes, 2) float32: evenly spaced points on a circle, the first on the positive x axis.

    Example:
        >>> ring_centres(4).round(3).tolist()
        [[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [-0.0, -2.0]]
    """
    angle = 2 * np.pi * np.arange(require_positive_int("ring_centres", "modes", modes)) / modes
    return (radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


def ring(key: Key, n: int, *, modes: int = 8, radius: float = 2.0, deviation: Scalar = 0.1) -> Array:
    """n samples (n, 2) float32 of an equal mixture of Gaussians N(centre, deviation^2 I), centres from `ring_centres`.

    Reference: Metz, Poole, Pfau & Sohl-Dickstein 2017, "Unrolled generative adversarial networks" (8 Gaussians on a
        ring of radius 2; theirs have deviation 0.02).

    Example:
        >>> ring(jax.random.key(0), 3).shape
        (3, 2)
    """
    mode_key, noise_key = jax.random.split(key)
    mode = jax.random.randint(mode_key, (n,), 0, modes)
    return jnp.asarray(ring_centres(modes, radius))[mode] + deviation * jax.random.normal(noise_key, (n, 2))


def coverage(
    samples: ArrayLike, centres: ArrayLike, *, deviation: Scalar = 0.1, within: Scalar = 3.0, least: Scalar = 0.01
) -> Coverage:
    """Modes found: those with at least a fraction `least` of all samples within `within` deviations of the centre.

    Args:
        samples: (..., n, D): n of each run and snapshot.
        centres: (K, D), more than 2 `within` deviations apart.
        deviation: standard deviation of each mode.
        within: the largest distance, in deviations. A two-dimensional Gaussian has 1.1% of its mass beyond 3.
        least: the smallest fraction of the samples, so that a single stray sample does not count as a mode; with 0
            it does.

    Returns:
        Coverage. Samples that are not finite are at no mode.

    Raises:
        ValueError: shapes do not match, there is no sample or no centre, or a concrete deviation or within is not > 0
            or a concrete least not in [0, 1].

    Reference: Srivastava, Valkov, Russell, Gutmann & Sutton 2017, "VEEGAN: Reducing mode collapse in GANs using
        implicit variational learning" (samples within 3 deviations; there a single sample is enough).

    Example:
        >>> coverage(jnp.array([[0.1, 0.0], [0.0, 0.2], [5.0, 5.0]]), jnp.array([[0.0, 0.0], [9.0, 9.0]]))
        Coverage(found=Array(1, dtype=int32), quality=Array(0.6666667, dtype=float32))
    """
    require_positive("gan.coverage", "deviation", deviation)
    require_positive("gan.coverage", "within", within)
    require_between("gan.coverage", "least", least, 0, 1)
    samples, centres = jnp.asarray(samples), jnp.asarray(centres)
    fits = samples.ndim >= 2 and centres.ndim == 2 and samples.shape[-1] == centres.shape[-1]
    if not fits or not samples.shape[-2] or not len(centres):
        raise ValueError(
            "gan.coverage: expected samples (..., n, D) and centres (K, D), n >= 1 and K >= 1, got "
            f"{samples.shape} and {centres.shape}."
        )
    distances = jnp.linalg.norm(samples[..., None, :] - centres, axis=-1)
    at = (distances <= within * deviation).astype(jnp.float32)
    enough = jnp.mean(at, axis=-2) >= jnp.maximum(least, 1e-9)
    return Coverage(jnp.sum(enough, axis=-1, dtype=jnp.int32), jnp.mean(jnp.max(at, axis=-1), axis=-1))


def from_examples(x: ArrayLike) -> Draw:
    """A `Draw` of rows of x (N, ...), flattened, sampled with replacement.

    Raises:
        ValueError: x has no axis or no entry, or a concrete row is not finite.

    Example:
        >>> from_examples(jnp.zeros((5, 2, 2)))(jax.random.key(0), 3).shape
        (3, 4)
    """
    examples = jnp.asarray(x)
    if examples.ndim == 0 or 0 in examples.shape:
        raise ValueError(f"gan.from_examples: expected examples x (N, ...), N >= 1, got {examples.shape}.")
    rows = examples.reshape(len(examples), -1)
    require_finite("gan.from_examples", "x", rows)
    return lambda key, n: rows[jax.random.randint(key, (n,), 0, len(rows))]


def nearest_labels(samples: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """The label of the example nearest to each sample, by Euclidean distance: the digits that a GAN generates.

    Args:
        samples: (n, D), n >= 1.
        x: (N, ...) of D entries each.
        y: (N,) labels.

    Returns:
        (n,), of y's dtype.

    Raises:
        ValueError: shapes do not match, there is no sample or no example, or a concrete one is not finite.

    Example:
        >>> nearest_labels(jnp.array([[0.9]]), jnp.array([[0.0], [1.0]]), jnp.array([7, 8]))
        Array([8], dtype=int32)
    """
    samples, examples, labels = jnp.asarray(samples), jnp.asarray(x), jnp.asarray(y)
    entries = math.prod(examples.shape[1:])
    if not examples.size or labels.shape != examples.shape[:1] or samples.ndim != 2 or samples.shape[1] != entries:
        raise ValueError(
            "gan.nearest_labels: expected samples (n, D), examples x (N, ...) of D entries each, N >= 1, and labels "
            f"y (N,); got {samples.shape}, {examples.shape} and {labels.shape}."
        )
    return labels[nearest(samples, examples.reshape(len(examples), -1), k=1)[:, 0]]


def _dimensions(draw: Draw, key: Key) -> int:
    """The dimension D of the examples of `draw`."""
    shape = jax.tree.map(jnp.shape, jax.eval_shape(lambda key: draw(key, 1), key))
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != 1:
        raise ValueError(
            f"gan.run: draw(key, n) must return n examples, (n, D); for n = 1 it returned shape {shape}. "
            "gan.from_examples(x) samples from an array, its examples flattened."
        )
    return int(shape[1])
