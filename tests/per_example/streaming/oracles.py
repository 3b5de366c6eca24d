"""Every statistic of the streamed pass, and beside it the same from explicit gradients by NumPy, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import per_example
from jaxnn.per_example import SecondMoment, SqNorms, Variance
from tests.helpers import random
from tests.per_example.cases import flat, gap, vector
from tests.per_example.recording.losses import Made


class Explicit(NamedTuple):
    """For the oracle: gradients (N, P), a direction (P,), the columns of each parameter by path, and how many examples
    have a weight other than 0."""

    g: np.ndarray
    direction: np.ndarray
    columns: dict[str, slice]
    kept: int

    def sizes(self, *paths: str) -> np.ndarray:
        """|g_i|^2 over some parameters, (N,)."""
        return sum((np.sum(self.g[:, self.columns[path]] ** 2, 1) for path in paths), np.zeros(len(self.g)))


class Streamed(NamedTuple):
    """A statistic from (paths, direction), and its value, flat."""

    ours: Callable[[list[str], Any], Any]
    expected: Callable[[Explicit], np.ndarray]


def _halves(paths: list[str]) -> dict[str, list[str]]:
    """Two groups of parameters, the first of every other one; the last parameter is in neither if there are three."""
    paths = paths[: max(len(paths) - 1, 1)] if len(paths) > 2 else paths
    return {name: found for name, found in (("even", paths[::2]), ("odd", paths[1::2])) if found}


def _by_group(e: Explicit) -> np.ndarray:
    return np.concatenate([e.sizes(*paths) for paths in _halves(list(e.columns)).values()])


STATISTICS = {
    "sq_norms": Streamed(lambda paths, v: SqNorms(), lambda e: np.sum(e.g**2, 1)),
    "by parameter": Streamed(
        lambda paths, v: SqNorms(by="parameter"), lambda e: np.concatenate([e.sizes(p) for p in sorted(e.columns)])
    ),
    "by group": Streamed(lambda paths, v: SqNorms(by=_halves(paths)), _by_group),
    "second_moment": Streamed(lambda paths, v: SecondMoment(), lambda e: (e.g**2).sum(0) / e.kept),
    "variance": Streamed(lambda paths, v: Variance(), lambda e: e.g.var(0)),
    "variance, ddof 1": Streamed(lambda paths, v: Variance(ddof=1), lambda e: e.g.var(0, ddof=1)),
    "directional": Streamed(lambda paths, v: per_example.Directional(v), lambda e: e.g @ e.direction),
}

WEIGHTED = [name for name in STATISTICS if "variance" not in name]
"""Those of weighted examples."""


def columns_of(params: Any) -> dict[str, slice]:
    """The columns of each parameter in `flat`, by path."""
    columns, start = {}, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        columns[jax.tree_util.keystr(path)] = slice(start, start + np.size(leaf))
        start += np.size(leaf)
    return columns


def direction_like(params: Any) -> Any:
    return jax.tree.map(lambda p: random(np.size(p), *np.shape(p)), params)


def explicit_of(params: Any, g: np.ndarray, direction: Any, weights: Any = None) -> Explicit:
    """`g` (N, P) are the gradients without weights; rows of weight 0 may be anything."""
    if weights is not None:
        weights = np.asarray(weights)
        g = np.where(weights[:, None] != 0, g * weights[:, None], 0)
    kept = len(g) if weights is None else max(int(np.sum(weights != 0)), 1)
    return Explicit(g, vector(direction), columns_of(params), kept)


def worst(found: dict[str, float]) -> float:
    """The largest gap; NaN if any is NaN, which `max` may pass over."""
    return float(np.max(list(found.values())))


def gaps(made: Made, names: Iterable[str] = STATISTICS, weights: Any = None) -> dict[str, float]:
    """How far the losses, the gradient and statistics of one pass are from vmap(grad). Called in float64.

    `Made.data` are the N examples of the batch."""
    direction, paths = direction_like(made.params), list(columns_of(made.params))
    asked = {name: STATISTICS[name].ours(paths, direction) for name in names}
    vg = per_example.value_and_grad(made.loss, asked)
    each = jax.vmap(jax.value_and_grad(made.loss), (None, *(0 for _ in made.data)))

    @jax.jit
    def both(params: Any, data: Any) -> Any:
        return vg(params, *data, weights=weights), each(params, *data)

    ((losses, found), grads), (expected_losses, g) = both(made.params, made.data)
    explicit = explicit_of(made.params, flat(g), direction, weights)
    mask = np.ones(len(losses)) if weights is None else np.asarray(weights) != 0
    shown = {
        "losses": gap(losses, np.where(mask, expected_losses, 0)),
        "gradient": gap(vector(grads), explicit.g.sum(0)),
    }
    return shown | {name: gap(vector(found[name]), STATISTICS[name].expected(explicit).ravel()) for name in names}
