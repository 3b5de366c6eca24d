"""The Hopfield network: memories as minima of an energy, recalled from noisy starts, and how many it can hold.

N units of state -1 or +1 are joined by symmetric weights w (N, N) without self-connections, in float32 (float64 for
float64 patterns). Patterns are (P, N). ValueError: another shape, or a concrete entry that is neither -1 nor +1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf

from jaxnn.checks import as_array, require_key, require_positive, require_positive_int
from jaxnn.classic.neurons import as_rows
from jaxnn.losses.base import float_info, poison
from jaxnn.types import Array, ArrayLike, Key, Scalar

_GRID: Any = np.linspace(1, 2, 4097)


class Recall(NamedTuple):
    """The result of `recall`: the state (N,), the number of sweeps, and whether the last changed no unit: a minimum."""

    state: Array
    sweeps: Array
    converged: Array


def hebb(patterns: ArrayLike) -> Array:
    """Hebb's rule: w_ij = (1 / N) sum_p xi^p_i xi^p_j for i != j, w_ii = 0.

    Random patterns are stored with few errors up to the `critical_load`; correlated ones interfere.

    Args:
        patterns: xi (P, N), each entry -1 or +1.

    Reference: Hopfield, J. J. (1982). Neural networks and physical systems with emergent collective computational
        abilities, equation 2 (there without 1 / N).

    Example:
        >>> hebb([[1, 1, -1, -1]])[0]
        Array([ 0.  ,  0.25, -0.25, -0.25], dtype=float32)
    """
    xi = as_rows("hopfield.hebb", "patterns", patterns, values=(-1, 1))
    return _without_self(jnp.matmul(xi.T, xi, precision="highest") / xi.shape[1])


def projection(patterns: ArrayLike) -> Array:
    """The projection Q onto the span of the patterns, w_ij = Q_ij for i != j, w_ii = 0: correlated ones are stored too.

    Q xi = xi and Q_ii <= 1, so that xi_i sum_j w_ij xi_j = 1 - Q_ii >= 0: no unit of a pattern changes. A unit with
    Q_ii = 1 has the field 0 in every state, and keeps any.

    Args:
        patterns: xi (P, N), each entry -1 or +1; repetitions have no effect.

    Reference: Personnaz, L., Guyon, I. & Dreyfus, G. (1985). Information storage and retrieval in spin-glass like
        neural networks. Kanter, I. & Sompolinsky, H. (1987). Associative recall of memory without errors (w_ii = 0).

    Example:
        >>> projection([[1, 1, -1, -1], [1, 1, -1, 1]])[0].round(3)
        Array([ 0.   ,  0.333, -0.333,  0.   ], dtype=float32)
    """
    xi = as_rows("hopfield.projection", "patterns", patterns, values=(-1, 1))
    # By singular vectors: the Gram matrix of repeated patterns has no inverse.
    _, sizes, basis = jnp.linalg.svd(xi, full_matrices=False)
    rounding = max(xi.shape) * float(float_info(xi.dtype).eps)
    kept = jnp.where(sizes[:, None] > rounding * sizes[0], basis, 0)
    q = jnp.matmul(kept.T, kept, precision="highest")
    return _without_self(jnp.where(jnp.abs(q) > rounding, q, 0))  # or fields that are 0 but for rounding flip units


def energy(w: ArrayLike, state: ArrayLike) -> Array:
    """E(s) = -1/2 sum_ij w_ij s_i s_j, (...), of states s (..., N) with weights w (N, N); no `update` raises it.

    Reference: Hopfield (1982), as above, equation 7.

    Example:
        >>> energy(hebb([[1, 1, -1, -1]]), jnp.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, 1.0]]))
        Array([-1.5,  0.5], dtype=float32)
    """
    w, state = as_array("hopfield.energy", "w", w), as_array("hopfield.energy", "state", state)
    if w.ndim != 2 or state.shape[-1:] * 2 != w.shape:
        raise ValueError(f"hopfield.energy: expected w (N, N) and states (..., N), got {w.shape} and {state.shape}.")
    return -0.5 * jnp.sum(jnp.matmul(state, w, precision="highest") * state, axis=-1)


def update(w: ArrayLike, state: ArrayLike, unit: ArrayLike) -> Array:
    """One unit takes the sign of its field: s_i <- sign(h_i), h_i = sum_j w_ij s_j; with h_i = 0 it keeps its state.

    If the unit changes, the energy falls by 2 |h_i|, since w is symmetric and w_ii = 0.

    Args:
        w: (N, N).
        state: s (N,), each -1 or +1.
        unit: i, () integer.

    Returns:
        s (N,), in the dtype of w.

    Reference: Hopfield (1982), as above, equation 1.

    Example:
        >>> update(hebb([[1, 1, -1, -1]]), jnp.array([1.0, 1.0, -1.0, 1.0]), jnp.array(3))
        Array([ 1.,  1., -1., -1.], dtype=float32)
    """
    w = as_array("hopfield.update", "w", w)
    state = as_array("hopfield.update", "state", state).astype(w.dtype)
    field = jnp.dot(w[unit], state, precision="highest")
    return state.at[unit].set(jnp.where(field == 0, state[unit], jnp.sign(field)))


def recall(w: ArrayLike, state: ArrayLike, *, key: Key, sweeps: int = 100) -> Recall:
    """Sweeps of `update` over all units, each in a new random order, until one changes nothing.

    Args:
        w: (N, N), symmetric, w_ii = 0; with other weights it may never converge.
        state: the initial state (N,), each -1 or +1. For several: `jax.vmap` over states and keys.
        key: typed key of the orders.
        sweeps: the largest number of sweeps.

    Reference: Hopfield (1982), as above.

    Example:
        >>> patterns = [[1, 1, 1, 1, -1, -1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]]
        >>> recall(hebb(patterns), [1, 1, 1, -1, -1, -1, -1, -1], key=jax.random.key(0)).state.astype(int).tolist()
        [1, 1, 1, 1, -1, -1, -1, -1]
    """
    require_key("hopfield.recall", key)
    limit = min(require_positive_int("hopfield.recall", "sweeps", sweeps), 2**31 - 1)  # the largest int32
    weights, start = as_rows("hopfield.recall", "w", w), as_array("hopfield.recall", "state", state)
    if start.ndim != 1 or weights.shape != 2 * start.shape:
        raise ValueError(
            f"hopfield.recall: expected w (N, N) and state (N,), got {weights.shape} and {start.shape}. For several "
            "states use jax.vmap over states and keys."
        )
    start = as_rows("hopfield.recall", "state", start[None], values=(-1, 1))[0].astype(weights.dtype)
    return _recall(weights, start, key, limit)


def critical_load() -> Array:
    """The largest load P / N at which random patterns stored by `hebb` are recalled, as N -> infinity: .1379.

    The maximum over y of 1/2 (erf(y) / y - 2 / sqrt(pi) e^(-y^2))^2.

    Reference: Amit, D. J., Gutfreund, H. & Sompolinsky, H. (1985). Storing infinite numbers of patterns in a spin-glass
        model of neural networks (.138).

    Example:
        >>> critical_load().round(4)
        Array(0.1379, dtype=float32)
    """
    return jnp.max(_load(_GRID))


def retrieval_overlap(load: Scalar) -> Array:
    """The overlap m = (1 / N) sum_i xi_i s_i of a random pattern xi and the state s recalled from it, as N -> infinity.

    m = erf(y), with y the larger solution of load = 1/2 (erf(y) / y - 2 / sqrt(pi) e^(-y^2))^2: the mean-field theory
    of zero temperature. Beyond the critical load it has only m = 0, though finite networks keep a remnant of m.

    Args:
        load: P / N > 0, patterns per unit; may be traced: the result is NaN if it is not > 0.

    Reference: Amit, Gutfreund & Sompolinsky (1985), as above.

    Example:
        >>> retrieval_overlap(0.1).round(3), retrieval_overlap(0.2)
        (Array(0.998, dtype=float32), Array(0., dtype=float32))
    """
    require_positive("hopfield.retrieval_overlap", "load", load)
    value, peak = jnp.asarray(load, float), jnp.argmax(_load(_GRID))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        y = (low + high) / 2
        return jnp.where(_load(y) > value, y, low), jnp.where(_load(y) > value, high, y)

    # From the peak on the load falls, and is at most 1 / (2 y^2).
    low = jnp.asarray(_GRID, float)[peak]
    y, _ = lax.fori_loop(0, 60, halve, (low, jnp.maximum(1 / jnp.sqrt(2 * value), low)))
    return poison(jnp.where(value <= critical_load(), erf(y), 0), value > 0)


@jax.jit
def _recall(w: Array, start: Array, key: Key, limit: int) -> Recall:
    def sweep(found: Recall) -> Recall:
        order = jax.random.permutation(jax.random.fold_in(key, found.sweeps), len(start))
        after, _ = lax.scan(lambda s, i: (update(w, s, i), None), found.state, order)
        return Recall(after, found.sweeps + 1, jnp.all(after == found.state))

    first = Recall(start, jnp.int32(0), jnp.array(False))
    return lax.while_loop(lambda found: ~found.converged & (found.sweeps < limit), sweep, first)


def _load(y: Array) -> Array:
    return 0.5 * (erf(y) / y - 2 / jnp.sqrt(jnp.pi) * jnp.exp(-jnp.square(y))) ** 2


def _without_self(w: Array) -> Array:
    return jnp.where(jnp.eye(w.shape[0], dtype=bool), 0, w)
