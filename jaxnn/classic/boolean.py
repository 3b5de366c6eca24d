"""Networks with one hidden layer for any Boolean function, from its truth table; `parse` makes tables from formulas.

A truth table of n inputs is an array (2^n,) of 0 and 1; row r belongs to the bits of r, the highest first, as
`inputs(n)` lists them. ValueError: not a truth table, or n above 20 (14 for `minimized` and `shared`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import require_positive_int
from jaxnn.classic.formulas import Function as Function
from jaxnn.classic.formulas import parse as parse
from jaxnn.classic.gates import ands, or_of_ands
from jaxnn.classic.minimize import checked_table, minimize, minimize_together
from jaxnn.classic.threshold import THRESHOLD, Network, dense_params
from jaxnn.layers import Dense, Layer
from jaxnn.models import serial
from jaxnn.types import ArrayLike, Params

MOST_INPUTS = 20
"""The largest n of `inputs`: 2^20 rows of 20 float32 take 84 MB."""


def inputs(n: int) -> np.ndarray:
    """All 2^n inputs of n bits, in the order of a truth table's rows.

    Returns:
        (2^n, n), float32, of 0 and 1.

    Raises:
        ValueError: n is not in 1 .. 20.

    Example:
        >>> inputs(2)
        array([[0., 0.],
               [0., 1.],
               [1., 0.],
               [1., 1.]], dtype=float32)
    """
    n = require_positive_int("inputs", "n", n)
    if n > MOST_INPUTS:
        raise ValueError(f"inputs: at most {MOST_INPUTS} inputs, got {n}: all of them are 2^{n} rows.")
    return ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1).astype(np.float32)


def truth_table(network: Network, n: int) -> np.ndarray:
    """The truth table of a network of n Boolean inputs and one output.

    Args:
        network: (N, n) -> (N, 1), its inputs 0 and 1.
        n: number of inputs.

    Returns:
        (2^n,), bool: where the output is at least 1/2.

    Example:
        >>> from jaxnn.classic import gates
        >>> truth_table(gates.xor(), 2)
        array([False,  True,  True, False])
    """
    return np.asarray(network(inputs(n)))[:, 0] >= 0.5


def dnf(table: ArrayLike) -> Network:
    """The disjunctive normal form: a hidden AND unit for each true row, an OR on top.

    y = OR_{r: table[r] = 1} AND_i (x_i = bit i of r)

    Args:
        table: (2^n,) of 0 and 1; static.

    Returns:
        Network: (N, n) -> (N, 1). With T true rows, T hidden units and (n + 2) T + 1 weights and biases; for T = 0 one
        hidden unit that never fires.

    Reference: McCulloch & Pitts (1943), A logical calculus of the ideas immanent in nervous activity.

    Example:
        >>> dnf([0, 1, 1, 0]).units
        3
    """
    bits, n = checked_table("dnf", table)
    return or_of_ands(2 * inputs(n)[bits] - 1)


def minimized(table: ArrayLike, dont_care: ArrayLike | None = None) -> Network:
    """The disjunctive form after Quine-McCluskey minimization: a hidden AND unit for each term, an OR on top.

    Args:
        table: (2^n,) of 0 and 1, n <= 14.
        dont_care: (2^n,), 1 at rows where either output is allowed, whatever the table has there; None if there are
            none.

    Returns:
        Network: (N, n) -> (N, 1), with no more hidden units than `dnf`, perhaps not the fewest (see `minimize`).

    Reference: Quine (1952), The problem of simplifying truth functions; McCluskey (1956), Minimization of Boolean
        functions.

    Example:
        >>> minimized([0, 1, 1, 1]).units, dnf([0, 1, 1, 1]).units  # A + B, and A'B + AB' + AB
        (3, 4)
    """
    return or_of_ands(minimize(table, dont_care))


def shared(tables: ArrayLike, dont_care: ArrayLike | None = None) -> Network:
    """Several Boolean functions of the same inputs: a hidden AND unit for each term, which they share, an OR for each.

    h_t = AND_i literal_ti, y_k = OR_{t used by k} h_t

    Args:
        tables: (K, 2^n) of 0 and 1, n <= 14.
        dont_care: (K, 2^n), 1 where either output is allowed, whatever the table has there; None if there are none.

    Returns:
        Network: (N, n) -> (N, K), with the terms of `minimize.minimize_together` as hidden units.

    Reference: Bartee (1961), Computer design of multiple-output logical networks.

    Example:
        >>> both = parse(["AB + A'C", "AB + BC'"])
        >>> network = shared(both.table)
        >>> network.units - 2, [minimized(table).units - 1 for table in both.table]  # AB is made once
        (3, [2, 2])
        >>> network([[1, 1, 0], [0, 0, 1]])
        Array([[1., 1.],
               [1., 0.]], dtype=float32)
    """
    terms, uses = minimize_together(tables, dont_care)
    if not len(terms):  # only constants 0: one hidden unit that nothing listens to
        terms, uses = np.zeros((1, terms.shape[1]), np.int8), np.zeros((len(uses), 1), bool)
    w, b = ands(terms)
    params = (dense_params(w, b), (), dense_params(uses.T.astype(float), np.full(len(uses), -0.5)), ())
    return Network(serial(Dense(len(b)), THRESHOLD, Dense(len(uses)), THRESHOLD), params)


def lookup_net(n: int) -> Layer:
    """The net of `lookup_params`: one architecture for all Boolean functions of n inputs.

    Returns:
        Layer: (N, n) -> (N, 1), 2^n hidden units.

    Example:
        >>> lookup_net(2)
        serial(dense(features=4, ...), activation(function=heaviside, at_zero=1.0), dense(features=1, ...), ...)
    """
    n = require_positive_int("lookup_net", "n", n)
    return serial(Dense(2**n), THRESHOLD, Dense(1), THRESHOLD)


def lookup_params(table: ArrayLike) -> Params:
    """The unminimized network with an AND unit for every row; the table itself is the OR's weights.

    h_r = AND_i (x_i = bit i of r), y = 1 if sum_r table[r] h_r >= 1/2

    The shapes and the hidden layer do not depend on the table, so that `jax.vmap` runs over tables.

    Args:
        table: (2^n,) of 0 and 1, any real or boolean dtype; may be traced.

    Returns:
        Parameters of `lookup_net(n)`.

    Raises:
        ValueError: the shape is not (2^n,), 1 <= n <= 20. Values are not checked, because they may be traced.

    Example:
        >>> import jax
        >>> tables = inputs(4)  # all 16 functions of two inputs
        >>> outputs = jax.vmap(lambda table: lookup_net(2).predict(lookup_params(table), (), inputs(2))[:, 0])
        >>> bool((jax.jit(outputs)(tables) == tables).all())
        True
    """
    weights = jnp.asarray(table, float)
    n = max(weights.size - 1, 1).bit_length()
    if weights.shape != (2**n,):
        raise ValueError(f"lookup_params: a truth table of n inputs has 2^n rows (2^n,), got shape {weights.shape}.")
    w, b = ands(2 * inputs(n) - 1)
    return dense_params(w, b), (), dense_params(weights[:, None], [-0.5]), ()
