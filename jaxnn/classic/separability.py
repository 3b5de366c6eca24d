"""Linear separability of labelled examples, decided by a linear program, with a proof either way; and of all Boolean
functions of up to four inputs at once.

Features x are (N, D), labels y (N,), each -1 or +1. ValueError: shapes do not match, x is not finite, or a label is
neither -1 nor +1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped]

from jaxnn.checks import require_positive_int
from jaxnn.classic import perceptron
from jaxnn.classic.boolean import inputs
from jaxnn.classic.neurons import as_signs
from jaxnn.types import ArrayLike


class Separability(NamedTuple):
    """Whether some weights w have y_i (w.x_i) > 0 for every example, and the proof.

    Attributes:
        separable: whether there are such weights. Without the constant feature `perceptron.predict`, with sign(0) = +1,
            may classify correctly where there are none: x = 0, y = +1.
        w: (D,) with y_i (w.x_i) >= 1 for every i; None if there are none.
        certificate: c (N,), c_i >= 0, sum_i c_i = 1, with sum_i c_i y_i x_i = 0: then y_i (w.x_i) > 0 for all i is
            impossible, since sum_i c_i y_i (w.x_i) = 0 for every w. With the constant feature 2 sum_i c_i x_i over one
            class equals that over the other: a common point of their convex hulls. None if the examples are separable.
    """

    separable: bool
    w: np.ndarray[Any, Any] | None
    certificate: np.ndarray[Any, Any] | None


def separate(x: ArrayLike, y: ArrayLike) -> Separability:
    """Decide by a linear program: find w with y_i (w.x_i) >= 1 for all i, or prove that there is none.

    By Gordan's theorem exactly one of such weights and a `Separability.certificate` exists; each is a linear program
    without an objective, and one of the two is infeasible.

    Args:
        x: features (N, D); `neurons.with_bias(x)` where the unit has a bias.
        y: labels (N,), each -1 or +1. Concrete, like x: this runs on the host, in float64.

    Raises:
        RuntimeError: the solver failed (examples that are barely separable, to its tolerance of 1e-7).

    Reference: Gordan (1873), Ueber die Aufloesung linearer Gleichungen mit reellen Coefficienten; Mangasarian (1965),
        Linear and nonlinear separation of patterns by linear programming.

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> table = with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> separate(table, np.array([-1, 1, 1, -1])).certificate  # XOR
        array([0.25, 0.25, 0.25, 0.25])
        >>> separate(table, np.array([-1, -1, -1, 1])).separable  # AND
        True
    """
    as_signs("separability.separate", x, y)
    sides = np.asarray(y, np.float64)[:, None] * np.asarray(x, np.float64)
    n, d = sides.shape
    # Features are scaled by powers of 2, exactly, so that the solver's tolerance is small beside each of them.
    scales = np.exp2(-np.frexp(np.abs(sides).max(axis=0))[1].astype(float))
    sides = sides * scales
    found = linprog(np.zeros(d), A_ub=-sides, b_ub=-np.ones(n), bounds=(None, None), method="highs")
    if found.status == 0:
        return Separability(True, found.x * scales, None)
    equations, values = np.vstack([sides.T, np.ones(n)]), np.append(np.zeros(d), 1.0)
    dual = linprog(np.zeros(n), A_eq=equations, b_eq=values, bounds=(0, None), method="highs")
    if dual.status == 0:
        return Separability(False, None, dual.x)
    raise RuntimeError(
        f"separability.separate: the solver found neither: {found.message} {dual.message} If the features have very "
        "different scales, normalize them."
    )


class BooleanFunctions(NamedTuple):
    """All Boolean functions of n inputs, and for each a proof whether one threshold unit computes it.

    Attributes:
        tables: (F, 2^n), bool, F = 2^(2^n): truth tables; table f is made of the bits of f, the highest first.
        separable: (F,), bool.
        w: (F, n + 1), weights of `neurons.with_bias(boolean.inputs(n))`, w_0 + w.x > 0 where the table is 1, < 0 where
            it is 0: integers w_i of least sum |w_i|, and w_0 half-way between them. NaN where there are none.
        crossing: (F, 4), int: rows a, b, c, d with f(a) = f(b) = 1, f(c) = f(d) = 0 and x_a + x_b = x_c + x_d. The
            segment from x_a to x_b crosses that from x_c to x_d, so that no hyperplane separates the two. -1 where the
            function is separable.
    """

    tables: np.ndarray
    separable: np.ndarray
    w: np.ndarray
    crossing: np.ndarray


def boolean_functions(n: int) -> BooleanFunctions:
    """All 2^(2^n) Boolean functions of n inputs, n <= 4, each with weights of one unit, or a proof that there are none.

    Weights are found by trying all integers up to n - 1. Every function without such weights turns out to have two true
    inputs with the same sum as two false ones, which excludes real weights too. One unit computes 4 of 4, 14 of 16, 104
    of 256 and 1,882 of 65,536 functions.

    Raises:
        ValueError: n is not in 1 .. 4. (5 inputs have 4,294,967,296 functions.)

    Reference: Muroga (1971), Threshold logic and its applications; Elgot (1961), Truth functions realizable by single
        threshold organs (summability).

    Example:
        >>> found = boolean_functions(2)
        >>> found.separable.sum(), np.flatnonzero(~found.separable)  # 0110 and 1001: XOR and its negation
        (np.int64(14), array([6, 9]))
        >>> found.w[0b0001]  # AND
        array([-1.5,  1. ,  1. ])
        >>> found.crossing[0b0110]  # x_01 + x_10 = x_00 + x_11
        array([1, 2, 0, 3])
    """
    if require_positive_int("boolean_functions", "n", n) > 4:
        raise ValueError(f"boolean_functions: at most 4 inputs, got {n}: 2^(2^{n}) functions are too many.")
    rows = inputs(n).astype(int)
    tables = inputs(2**n).astype(bool)
    w = _integer_weights(rows)
    separable = np.isfinite(w[:, 0])
    quadruples = _crossings(rows)
    a, b, c, d = quadruples.T
    crossed, which = np.nonzero(tables[:, a] & tables[:, b] & ~tables[:, c] & ~tables[:, d])
    proven, first = np.unique(crossed, return_index=True)
    crossing = np.full((len(tables), 4), -1)
    crossing[proven] = quadruples[which[first]]
    if ((crossing[:, 0] >= 0) == separable).any():
        raise RuntimeError("boolean_functions: some function has neither weights nor a proof.")
    return BooleanFunctions(tables, separable, w, crossing)


class Cycle(NamedTuple):
    """Weights to which Rosenblatt's rule returns.

    Attributes:
        first, again: steps t with the same weights before the same example; the rule then cycles forever.
        w: the repeated weights (D,).
        weights: (again + 1, D), before each step up to the repetition.
    """

    first: int
    again: int
    w: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]


def repeated_weights(x: ArrayLike, y: ArrayLike, *, passes: int = 100) -> Cycle | None:
    """The first repeated state of Rosenblatt's rule, which proves that it never converges.

    The state is the weights and the example; between its two occurrences there is a mistake. The next weights depend
    only on the state, and the examples cycle; so after a repeated state the rule repeats forever. On inseparable
    examples with integer features this must happen, since the weights stay bounded (Minsky & Papert's cycling theorem).

    Args:
        passes: the largest number of passes through all examples.

    Returns:
        Cycle, or None: the rule converged, or nothing repeated within `passes`.

    Reference: Minsky & Papert (1969), Perceptrons, chapter 11; Block & Levin (1970), On the boundedness of an iterative
        procedure for solving a system of linear inequalities.

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> table = with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> cycle = repeated_weights(table, np.array([-1, 1, 1, -1]))
        >>> cycle.first, cycle.again, cycle.w
        (5, 9, array([-1., -1.,  0.], dtype=float32))
    """
    weights, mistakes = (np.asarray(a) for a in perceptron.trace(x, y, passes=passes))
    n = np.shape(x)[0]
    made = np.append(0, np.cumsum(mistakes))
    seen: dict[tuple[int, bytes], int] = {}
    for t, w in enumerate(weights + 0.0):  # -0 becomes 0
        first = seen.setdefault((t % n, w.tobytes()), t)
        if first < t and made[first] < made[t]:
            return Cycle(first, t, w, weights[: t + 1])
    return None


def _integer_weights(rows: np.ndarray) -> np.ndarray:
    """For each table of the inputs (R, n) the bias and the least integer weights, (2^R, n + 1), NaN for none."""
    count, n = rows.shape
    most = max(n - 1, 1)
    steps = np.arange(-most, most + 1)
    weights = np.stack(np.meshgrid(*[steps] * n, indexing="ij"), -1).reshape(-1, n)
    weights = weights[np.argsort(np.abs(weights).sum(1), kind="stable")]
    biases = np.arange(-most * n, most * n + 2) - 0.5
    biases = biases[np.argsort(np.abs(biases), kind="stable")]
    fires = (weights @ rows.T)[:, None] + biases[:, None] > 0
    numbers = fires @ (1 << np.arange(count)[::-1])
    found, first = np.unique(numbers, return_index=True)
    w = np.full((2**count, n + 1), np.nan)
    w[found, 0], w[found, 1:] = biases[first % len(biases)], weights[first // len(biases)]
    return w


def _crossings(rows: np.ndarray) -> np.ndarray:
    """All a < b, c < d of the inputs (R, n) with x_a + x_b = x_c + x_d and (a, b) != (c, d), (Q, 4)."""
    pairs = np.stack(np.triu_indices(len(rows), 1), 1)
    sums = rows[pairs].sum(1)
    first, second = np.nonzero((sums[:, None] == sums).all(-1) & ~np.eye(len(pairs), dtype=bool))
    return np.concatenate([pairs[first], pairs[second]], axis=1)
