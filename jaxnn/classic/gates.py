"""Logic gates as threshold units, and the OR of ANDs, the normal form of Boolean functions.

Inputs and outputs are 0 and 1; `threshold.bipolar` makes the same gate for -1 and +1. `inputs` is the number n >= 1 of
inputs of a gate, (N, n) -> (N, 1). Each threshold lies half-way between the sums that it separates, so that no sum
equals it.

| gate | weights | bias |
|---|---|---|
| AND of n | 1 | 1/2 - n |
| OR of n | 1 | -1/2 |
| NOT | -1 | 1/2 |
| NAND of n | -1 | n - 1/2 |
| AND of some inputs and some negated ones | 1, -1 | 1/2 - number of inputs not negated |
| XOR | no single unit: two ANDs and an OR | |
"""

from __future__ import annotations

import numpy as np

from jaxnn.checks import require_between, require_positive_int
from jaxnn.classic.threshold import THRESHOLD, Network, dense_params
from jaxnn.layers import Dense
from jaxnn.models import serial
from jaxnn.types import ArrayLike, Params


def unit(weights: ArrayLike, bias: float) -> Network:
    """One threshold unit.

    y = 1 if w.x + b >= 0 else 0

    Args:
        weights: w, (D,).
        bias: b, minus the threshold.

    Returns:
        Network: (N, D) -> (N, 1).

    Raises:
        ValueError: weights are not one row of finite numbers.
        TypeError, ValueError: bias is not one finite number.

    Reference: McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity.

    Example:
        >>> unit([1, 1, 1], -2)([[1, 1, 0], [1, 0, 0]]).ravel()  # at least two of three
        Array([1., 0.], dtype=float32)
    """
    w = np.asarray(weights, float)
    if w.ndim != 1 or not w.size:
        raise ValueError(f"unit: weights must be one row (D,), one per input, got shape {w.shape}.")
    require_between("unit", "bias", bias, -np.inf, np.inf)
    if not np.isfinite([*w, bias]).all():
        raise ValueError(f"unit: weights and bias must be finite, got {w.tolist()} and {bias}.")
    return Network(serial(Dense(1), THRESHOLD), (dense_params(w[:, None], [bias]), ()))


def and_(inputs: int = 2) -> Network:
    """AND: 1 where all inputs are 1.

    Example:
        >>> and_()([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel()
        Array([0., 0., 0., 1.], dtype=float32)
    """
    n = require_positive_int("and_", "inputs", inputs)
    return unit(np.ones(n), 0.5 - n)


def or_(inputs: int = 2) -> Network:
    """OR: 1 where any input is 1.

    Example:
        >>> or_()([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel()
        Array([0., 1., 1., 1.], dtype=float32)
    """
    n = require_positive_int("or_", "inputs", inputs)
    return unit(np.ones(n), -0.5)


def not_() -> Network:
    """NOT: 1 where the input is 0.

    Example:
        >>> not_()([[0], [1]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    return unit([-1.0], 0.5)


def nand(inputs: int = 2) -> Network:
    """NAND: 0 where all inputs are 1.

    Example:
        >>> nand()([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel()
        Array([1., 1., 1., 0.], dtype=float32)
    """
    n = require_positive_int("nand", "inputs", inputs)
    return unit(-np.ones(n), n - 0.5)


def xor() -> Network:
    """Exclusive OR, AB' + A'B: two hidden ANDs and an OR, 3 units and 9 weights and biases.

    No single unit computes it.

    Reference: Minsky & Papert (1969), Perceptrons: an introduction to computational geometry.

    Example:
        >>> xor()([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel()
        Array([0., 1., 1., 0.], dtype=float32)
    """
    return or_of_ands([[1, -1], [-1, 1]])


def or_of_ands(terms: ArrayLike) -> Network:
    """A sum of products: a hidden AND unit per term, and an OR.

    y = OR_j AND_i literal_ij, literal_ij one of x_i, NOT x_i, or absent

    Args:
        terms: (T, D), the sign of each input in each term: 1 for x_i, -1 for NOT x_i, 0 where x_i is absent. A term
            of zeros is always true. No terms, (0, D), give the constant 0, by one unit that never fires.

    Returns:
        Network: (N, D) -> (N, 1); max(T, 1) hidden units.

    Raises:
        ValueError: terms are not rows of -1, 0 and 1.

    Reference: McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity.

    Example:
        >>> two_pairs = or_of_ands([[1, 1, 0, 0], [0, 0, 1, 1]])  # AB + CD
        >>> two_pairs([[1, 1, 0, 0], [0, 1, 1, 0]]).ravel()
        Array([1., 0.], dtype=float32)
    """
    signs = np.asarray(terms)
    if signs.ndim != 2 or not signs.shape[1] or not np.isin(signs, (-1, 0, 1)).all():
        raise ValueError(
            "or_of_ands: terms must be rows (T, D) of 1 (the input), -1 (its negation) and 0 (absent), got "
            f"{signs.tolist() if signs.size <= 8 else f'shape {signs.shape}'}."
        )
    w, b = ands(signs) if len(signs) else (np.zeros((signs.shape[1], 1)), np.array([-0.5]))
    hidden = len(b)
    params: Params = (dense_params(w, b), (), dense_params(np.ones((hidden, 1)), [-0.5]), ())
    return Network(serial(Dense(hidden), THRESHOLD, Dense(1), THRESHOLD), params)


def ands(signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, T) and biases (T,) of AND units: w = signs (T, D) of the literals, b = 1/2 - number of +1."""
    return signs.T.astype(float), 0.5 - (signs == 1).sum(1)
