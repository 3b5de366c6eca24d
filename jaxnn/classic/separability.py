"""Whether one unit without hidden layer can be right about every example, decided by a linear program, with proof."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped]

from jaxnn.classic import perceptron
from jaxnn.classic.neurons import as_signs
from jaxnn.types import ArrayLike


class Separability(NamedTuple):
    """Whether some weights are right about every example, and the proof.

    Attributes:
        separable: whether there are such weights.
        w: (D,) with y_i (w.x_i) >= 1 for every i; None if there are none.
        certificate: (N,) shares >= 0 that add up to 1 with sum_i share_i y_i x_i = 0: then y_i (w.x_i) > 0 for all i
            is impossible, since the sum of share_i y_i (w.x_i) is 0 for every w. With the always-on feature it is a
            point that the convex hulls of both classes share. None if there are weights.
    """

    separable: bool
    w: np.ndarray[Any, Any] | None
    certificate: np.ndarray[Any, Any] | None


def separate(x: ArrayLike, y: ArrayLike) -> Separability:
    """Decide by a linear program: find w with y_i (w.x_i) >= 1 for all i, or prove that there is none.

    By Gordan's theorem either such weights exist or shares as in `Separability.certificate`, never both; each is a
    linear program without an objective, and one of the two is infeasible.

    Args:
        x: features (N, D); `neurons.with_bias(x)` where the unit has a bias.
        y: labels (N,), each -1 or +1. Concrete, like x: this runs on the host, in float64.

    Returns:
        Separability.

    Raises:
        ValueError: shapes do not fit, or a label is neither -1 nor +1.
        RuntimeError: the solver gave up (examples that are all but inseparable, to its tolerance of 1e-7).

    Reference:
        Gordan (1873), Ueber die Aufloesung linearer Gleichungen mit reellen Coefficienten; Mangasarian (1965), Linear
        and nonlinear separation of patterns by linear programming.

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
        f"separability.separate: the solver decided nothing: {found.message} {dual.message} Are the features of very "
        "different sizes? Scale them."
    )


class Cycle(NamedTuple):
    """Weights that Rosenblatt's rule came back to.

    Attributes:
        first, again: steps t with the same weights before the same example; the rule then goes round for ever.
        w: the repeated weights (D,).
        weights: (again + 1, D), before each step up to the repetition.
    """

    first: int
    again: int
    w: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]


def repeated_weights(x: ArrayLike, y: ArrayLike, *, passes: int = 100) -> Cycle | None:
    """The first weights that Rosenblatt's rule repeats, with a mistake in between: it will never converge.

    The next weights are a function of the weights and of the example that is met, and the examples are met in turn; so
    once both repeat, everything repeats. On inseparable examples with whole-number features it must happen, since the
    weights stay bounded (Minsky & Papert's cycling theorem).

    Args:
        x: features (N, D).
        y: labels (N,), each -1 or +1.
        passes: how many are looked at.

    Returns:
        Cycle, or None: the rule converged, or nothing was repeated within `passes`.

    Raises:
        ValueError: shapes do not fit, or a label is neither -1 nor +1.

    Reference:
        Minsky & Papert (1969), Perceptrons, chapter 11; Block & Levin (1970), On the boundedness of an iterative
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
