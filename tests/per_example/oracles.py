"""Every statistic of a tape, and beside it the same from explicit gradients by NumPy, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import per_example
from tests.helpers import float64, random, strict
from tests.per_example.cases import Made, N, flat, gap, make, vector

EXACT, SINGLE = 1e-10, 1e-5
"""The largest differences allowed in float64 and float32, relative to the largest entry."""


class Given(NamedTuple):
    """What our statistics are taken of: two tapes, a direction like params, weights, a bound on norms."""

    tape: Any
    other: Any
    direction: Any
    weights: Any
    bound: Any


class Explicit(NamedTuple):
    """The same for the oracle: gradients (N, P) and (M, P); `parts` (layer, columns) of each parameter."""

    g: np.ndarray
    h: np.ndarray
    direction: np.ndarray
    weights: np.ndarray
    bound: float
    parts: list[tuple[str, slice]]

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """The gradients of each layer."""
        names = dict.fromkeys(layer for layer, _ in self.parts)
        return {
            name: np.concatenate([self.g[:, part] for layer, part in self.parts if layer == name], 1) for name in names
        }


class Statistic(NamedTuple):
    ours: Callable[[Given], Any]
    expected: Callable[[Explicit], np.ndarray]


def _sizes(g: np.ndarray) -> np.ndarray:
    return np.linalg.norm(g, axis=1)


def _kept(bound: float, g: np.ndarray) -> np.ndarray:
    """min(1, C / n), 1 at n = 0."""
    return np.minimum(1, bound / np.maximum(_sizes(g), np.finfo(np.float64).tiny))


def _clipped_by_layer(e: Explicit) -> np.ndarray:
    bound = e.bound / np.sqrt(len(e.layers))
    factors = {name: _kept(bound, g) for name, g in e.layers.items()}
    return np.concatenate([factors[layer] @ e.g[:, part] for layer, part in e.parts])


def _shares(snr: Any) -> Any:
    """r / (1 + r): a ratio whose variance is rounding has no digit to compare; its share of 1 has all."""
    return jax.tree.map(lambda r: 1 - 1 / (1 + r), snr)


def _share(e: Explicit) -> np.ndarray:
    mean, variance = e.g.mean(0), e.g.var(0)
    return np.where(mean == 0, 0, mean**2 / np.where(mean == 0, 1, mean**2 + variance))


def _signal(g: np.ndarray) -> float:
    """The mean of g_i . g_j over pairs i != j: an unbiased estimate of |G|^2, derived apart from the library's."""
    products = g @ g.T
    return float((products.sum() - np.trace(products)) / (len(g) * (len(g) - 1)))


def _noise(e: Explicit) -> np.ndarray:
    trace, signal = (sum(f(g) for g in (e.g, e.h)) for f in (lambda g: g.var(0, ddof=1).sum(), _signal))
    return np.array([trace, signal, signal / trace])


def _noise_of_two(given: Given) -> Any:
    found = per_example.noise_scale(given.other, per_example.noise_scale(given.tape))
    return [found.trace, found.sq_norm, 1 / found.scale]  # |G|^2 may be near 0, where the scale has no digits


def _all_in_rows(tree: Any) -> Any:
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], axis=1)


STATISTICS = {
    "sq_norms": Statistic(lambda t: per_example.sq_norms(t.tape), lambda e: _sizes(e.g) ** 2),
    "norms": Statistic(lambda t: per_example.norms(t.tape), lambda e: _sizes(e.g)),
    "norms by layer": Statistic(
        lambda t: list(per_example.sq_norms_by_layer(t.tape).values()),
        lambda e: np.concatenate([_sizes(g) ** 2 for g in e.layers.values()]),
    ),
    "weighted_grad": Statistic(lambda t: per_example.weighted_grad(t.tape, t.weights), lambda e: e.weights @ e.g),
    "mean_grad": Statistic(lambda t: per_example.mean_grad(t.tape), lambda e: e.g.mean(0)),
    "clipped_grad": Statistic(
        lambda t: per_example.clipped_grad(t.tape, t.bound),
        lambda e: np.concatenate([_kept(e.bound, e.g) @ e.g, _sizes(e.g)]),
    ),
    "clipped_grad, automatic": Statistic(
        lambda t: per_example.clipped_grad(t.tape, per_example.automatic(t.bound, 0.01))[0],
        lambda e: (e.bound / (_sizes(e.g) + 0.01)) @ e.g,
    ),
    "clipped_grad, psac": Statistic(
        lambda t: per_example.clipped_grad(t.tape, per_example.psac(t.bound, 0.1))[0],
        lambda e: (e.bound / (_sizes(e.g) + 0.1 / (_sizes(e.g) + 0.1))) @ e.g,
    ),
    "clipped_grad_by_layer": Statistic(
        lambda t: per_example.clipped_grad_by_layer(t.tape, t.bound)[0], _clipped_by_layer
    ),
    "second_moment": Statistic(lambda t: per_example.second_moment(t.tape), lambda e: (e.g**2).mean(0)),
    "variance": Statistic(lambda t: per_example.variance(t.tape), lambda e: e.g.var(0)),
    "variance, ddof 1": Statistic(lambda t: per_example.variance(t.tape, ddof=1), lambda e: e.g.var(0, ddof=1)),
    "snr": Statistic(lambda t: _shares(per_example.snr(t.tape)), _share),
    "gram": Statistic(lambda t: per_example.gram(t.tape), lambda e: e.g @ e.g.T),
    "gram, two batches": Statistic(lambda t: per_example.gram(t.tape, t.other), lambda e: e.g @ e.h.T),
    "cosine": Statistic(
        lambda t: per_example.cosine(t.tape, t.other), lambda e: e.g @ e.h.T / np.outer(_sizes(e.g), _sizes(e.h))
    ),
    "jvp_examples": Statistic(lambda t: per_example.jvp_examples(t.tape, t.direction), lambda e: e.g @ e.direction),
    "noise_scale": Statistic(_noise_of_two, _noise),
    "materialize": Statistic(lambda t: _all_in_rows(per_example.materialize(t.tape)), lambda e: e.g),
}

CENTRED = Statistic(lambda t: per_example.variance_centred(t.tape, ddof=1), lambda e: e.g.var(0, ddof=1))
"""For weights used at one position only."""


def parts_of(tree: Any) -> list[tuple[str, slice]]:
    parts, start = [], 0
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    parents = [path[:-1] for path, _ in leaves]
    for path, leaf in leaves:
        # In flax.nnx each array is the only child of its variable.
        alone = jax.tree_util.keystr(path[-1:]) == ".value" and parents.count(path[:-1]) == 1
        parts.append((jax.tree_util.keystr(path[: -2 if alone else -1]), slice(start, start + leaf.size)))
        start += leaf.size
    return parts


def _wide(made: Made) -> Made:
    """The same numbers in float64."""
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, made[1:])


def both(name: str, dtype: Any = np.float64) -> tuple[Given, Explicit]:
    """A net's tapes, of N and of 4 examples, and the explicit gradients of the same numbers in float64.

    Called inside `float64()`.
    """
    made = make(name, dtype)
    more = make(name, dtype, n=4, seed=1)._replace(params=made.params, state=made.state)
    direction = jax.tree.map(lambda p: random(p.size, *p.shape), made.params)
    g, h = (flat(Made(name, *_wide(m)).grads()) for m in (made, more))
    weights, bound = random(5, N), float(np.median(_sizes(g)))
    narrow = jax.tree.map(lambda v: np.asarray(v, dtype), (direction, weights, bound))
    with strict():
        given = Given(made.tape, more.tape, *narrow)
    return given, Explicit(g, h, vector(direction), weights, bound, parts_of(made.params))


def gaps(name: str, names: Iterable[str] = STATISTICS, dtype: Any = np.float64) -> dict[str, float]:
    """How far each statistic of a net's tape is from that of explicit gradients."""
    chosen = {key: STATISTICS[key] for key in names}
    with float64():
        given, explicit = both(name, dtype)
        with strict():
            found = jax.jit(lambda given: {key: s.ours(given) for key, s in chosen.items()})(given)
        return {key: gap(vector(found[key]), s.expected(explicit).ravel()) for key, s in chosen.items()}


def error(name: str, statistic: Statistic) -> float:
    """How far one statistic is from that of explicit gradients, in float64."""
    with float64():
        given, explicit = both(name)
        found = jax.jit(lambda given: statistic.ours(given))(given)  # a new function, traced anew each time
        return gap(vector(found), statistic.expected(explicit).ravel())
