"""Linear separability of labelled examples, decided by a linear program, with a proof either way.

Features x are (N, D), labels y (N,), each -1 or +1. ValueError: shapes do not match, x is not finite, or a label is
neither -1 nor +1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped]

from jaxnn.classic import perceptron
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
    found = linprog(np.zeros(d), A_ub=-sides, b_ub=-np.ones(n), bounds=(None, None), method="highs")
    if found.status == 0:
        return Separability(True, found.x, None)
    equations, values = np.vstack([sides.T, np.ones(n)]), np.append(np.zeros(d), 1.0)
    dual = linprog(np.zeros(n), A_eq=equations, b_eq=values, bounds=(0, None), method="highs")
    if dual.status == 0:
        return Separability(False, None, dual.x)
    raise RuntimeError(
        f"separability.separate: the solver found neither: {found.message} {dual.message} If the features have very "
        "different scales, normalize them."
    )


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
