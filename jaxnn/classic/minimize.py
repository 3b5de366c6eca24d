"""Quine-McCluskey minimization of Boolean functions: few product terms for a truth table, or provably the fewest.

Every product term over n inputs is a cell of an array (3, ..., 3) with one axis per input: index 0 for NOT x_i, 1 for
x_i, 2 for x_i absent. All implicants (terms that are true only where the function is) take n array operations: the term
without x_i is an implicant if the terms with x_i and with NOT x_i both are. 3^n cells are a few megabytes up to 14
inputs.

`sympy.logic.SOPform` does the same from symbols: a random function of 10 inputs took it 48 s on a CPU and gave 161
terms, `minimize` .1 s and 172, `minimize_exactly` .07 s and 160, which is proven to be the fewest.

A table is (2^n,) of 0 and 1, n <= 14, rows in the order of `boolean.inputs`; ValueError otherwise. `dont_care` (2^n,)
is 1 at rows where either output will do, None if there are none. Terms are (T, n), int8, in {-1, 0, 1}: NOT x_i,
absent, x_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse  # type: ignore[import-untyped]

from jaxnn.types import ArrayLike

MOST_INPUTS = 14
"""3^14 is 4.8 million cells."""


class Shared(NamedTuple):
    """Terms of several functions of the same inputs.

    Attributes:
        terms: (T, n), int8, in {-1, 0, 1}: NOT x_i, absent, x_i; all different.
        uses: (K, T), bool: function k is the OR of the terms where uses[k] is true.
    """

    terms: np.ndarray
    uses: np.ndarray


def checked_table(where: str, table: ArrayLike) -> tuple[np.ndarray, int]:
    """A truth table as booleans (2^n,), and n.

    Raises:
        TypeError: a formula, or what `formulas.parse` makes of it, in place of its table.
        ValueError: not (2^n,) with n >= 1, or a value that is neither 0 nor 1.

    Example:
        >>> checked_table("dnf", [0, 1, 1, 0])
        (array([False,  True,  True, False]), 2)
    """
    if isinstance(table, str) or hasattr(table, "table"):
        given = "a formula" if isinstance(table, str) else type(table).__name__
        raise TypeError(f"{where}: expected a truth table (2^n,), got {given}. Pass boolean.parse(formula).table.")
    bits = np.asarray(table)
    n = max(bits.size - 1, 1).bit_length()
    if bits.shape != (2**n,):
        raise ValueError(f"{where}: a truth table of n inputs has 2^n rows (2^n,), got shape {bits.shape}.")
    if not np.isin(bits, (0, 1)).all():
        raise ValueError(f"{where}: a truth table holds 0 and 1 (or booleans), got {np.unique(bits)[:5].tolist()}.")
    return bits.astype(bool), n


def prime_implicants(table: ArrayLike) -> np.ndarray:
    """The prime implicants: terms that are true only where the function is, and from which no input can be removed.

    Returns:
        (P, n), int8, in {-1, 0, 1}; rows in lexicographic order.

    Reference: Quine (1952), The problem of simplifying truth functions.

    Example:
        >>> prime_implicants([0, 1, 1, 1])  # A + B
        array([[0, 1],
               [1, 0]], dtype=int8)
    """
    bits, _ = checked_table("prime_implicants", table)
    return _primes(bits[None])[0]


def covers(terms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(T, R) bool: which terms (T, n) in {-1, 0, 1} are true at which rows (R, n) of 0 and 1."""
    literals = np.abs(terms).sum(1, keepdims=True)
    return np.asarray(terms.astype(np.float32) @ (2 * rows.T.astype(np.float32) - 1) == literals)


def minimize(table: ArrayLike, dont_care: ArrayLike | None = None) -> np.ndarray:
    """Few prime implicants whose OR is the function, except at `dont_care`: the essential ones, then a greedy choice.

    A prime implicant is essential if it alone covers some true row. The others are added greedily, by the number of
    rows that they newly cover; finally redundant ones are dropped. No term of the result can be removed, but a smaller
    set may exist: `minimize_exactly` finds it, for few inputs.

    Returns:
        (T, n), int8, in {-1, 0, 1}: NOT x_i, absent, x_i. T <= number of true rows. The constant 0 has no term, the
        constant 1 has one term without inputs.

    Reference: McCluskey (1956), Minimization of Boolean functions; Chvatal (1979), A greedy heuristic for the
        set-covering problem.

    Example:
        >>> text(minimize([0, 0, 1, 1, 0, 1, 1, 1]))
        'B + AC'
    """
    primes, cover = _problem(table, dont_care)
    return primes[_greedy(cover)]


def minimize_exactly(table: ArrayLike, dont_care: ArrayLike | None = None) -> np.ndarray:
    """The fewest prime implicants whose OR is the function; of such sets one of fewest literals.

    An integer program, solved by `scipy.optimize.milp`: minimize the number of terms (then of literals) subject to
    every true row being covered. Functions of 4 inputs take milliseconds; random ones of 10 inputs take a fraction of a
    second if half the rows are true, but minutes and more if nine tenths are: use `minimize` for those.

    Returns:
        As `minimize`.

    Raises:
        RuntimeError: the solver failed.

    Reference: Petrick (1956), A direct determination of the irredundant forms of a Boolean function from the set of
        prime implicants.

    Example:
        >>> minimize_exactly([1, 1, 1, 0, 0, 1, 1, 1]).shape  # A'B' + BC' + AC, or A'C' + B'C + AB
        (3, 3)
    """
    primes, cover = _problem(table, dont_care)
    return primes[_fewest("minimize_exactly", primes, cover)]


def minimize_together(tables: ArrayLike, dont_care: ArrayLike | None = None, *, exactly: bool = False) -> Shared:
    """Few terms for several functions of the same inputs, which share them.

    The candidates are the prime implicants of all products of the functions: a term may be worth less than a prime
    implicant of one function alone, and serve two. They are chosen as in `minimize`, or as in `minimize_exactly`. The
    network of `boolean.shared` has one hidden unit per term.

    Args:
        tables: (K, 2^n) of 0 and 1, K >= 1, n <= 14.
        dont_care: (K, 2^n), 1 where either value is allowed; None if there are none.
        exactly: whether to find the fewest terms, and of such sets one of fewest literals. This may take long.

    Returns:
        Shared: terms (T, n) and uses (K, T). No term can be removed, nor any use.

    Raises:
        RuntimeError: the solver failed.

    Reference: Bartee (1961), Computer design of multiple-output logical networks.

    Example:
        >>> found = minimize_together([[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 1, 0]])  # AB and BC'
        >>> text(found.terms)
        "BC' + AB"
        >>> found.uses.astype(int)
        array([[0, 1],
               [1, 0]])
    """
    where = "minimize_together"
    bits, n = _stacked(where, "tables", tables)
    free = np.zeros_like(bits) if dont_care is None else _stacked(where, "dont_care", dont_care)[0]
    if free.shape != bits.shape:
        raise ValueError(f"{where}: dont_care must have the shape of tables, {bits.shape}, got {free.shape}.")
    primes, serves = _primes(bits | free)
    needed = bits & ~free
    inside = covers(primes, (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1)
    cover = np.concatenate([inside[:, row] & serves[:, k, None] for k, row in enumerate(needed)], axis=1)
    chosen = _fewest(where, primes, cover) if exactly else _greedy(cover)
    uses = np.zeros((len(bits), len(chosen)), bool)
    for k, row in enumerate(needed):
        mine = np.flatnonzero(serves[chosen, k])
        uses[k, mine[_irredundant(inside[chosen][mine][:, row])]] = True
    return Shared(primes[chosen], uses)


def text(terms: np.ndarray, names: Sequence[str] | None = None) -> str:
    """Terms as a sum of products, a negated input with a prime; names of several letters are set apart by blanks.

    Args:
        terms: (T, n) in {-1, 0, 1}.
        names: of the n inputs; None for A, B, C, ..., for up to 26.

    Raises:
        ValueError: the number of names differs from the number of inputs.

    Example:
        >>> text(np.array([[1, -1], [-1, 1]]))
        "AB' + A'B"
        >>> text(np.array([[1, -1]]), ["rain", "wind"])
        "rain wind'"
        >>> text(np.zeros((0, 2))), text(np.zeros((1, 2)))
        ('0', '1')
    """
    letters = names or [chr(ord("A") + i) for i in range(26)][: terms.shape[1]]
    if len(letters) != terms.shape[1]:
        raise ValueError(f"text: names must hold one per input, {terms.shape[1]}, got {len(letters)}.")
    mark = {-1: "{}'", 1: "{}", 0: ""}
    joint = "" if all(len(x.rstrip("0123456789")) == 1 for x in letters) else " "  # x1x2, but rain wind
    factors = ([mark[int(s)].format(x) for x, s in zip(letters, term, strict=True) if s] for term in terms)
    products = [joint.join(product) or "1" for product in factors]
    return " + ".join(products) or "0"


def _problem(table: ArrayLike, dont_care: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Prime implicants (P, n), and which of the R true rows each covers, (P, R)."""
    bits, n = checked_table("minimize", table)
    free, _ = (np.zeros_like(bits), n) if dont_care is None else checked_table("minimize, dont_care", dont_care)
    if free.shape != bits.shape:
        raise ValueError(f"minimize: dont_care must have the table's shape {bits.shape}, got {free.shape}.")
    primes = prime_implicants(bits | free)
    needed = np.flatnonzero(bits & ~free)
    rows = (needed[:, None] >> np.arange(n)[::-1]) & 1
    return primes, covers(primes, rows)


def _stacked(where: str, name: str, tables: ArrayLike) -> tuple[np.ndarray, int]:
    """Several truth tables as booleans (K, 2^n), and n."""
    rows = np.asarray(tables)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{where}: {name} must be truth tables (K, 2^n), K >= 1, got shape {rows.shape}.")
    checked = [checked_table(f"{where}, {name}", row) for row in rows]
    return np.stack([bits for bits, _ in checked]), checked[0][1]


def _primes(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prime implicants (P, n) of all products of K functions (K, 2^n), and of which functions each is one, (P, K).

    A term is prime if without any of its inputs it is an implicant of fewer functions.
    """
    n = (tables.shape[1] - 1).bit_length()
    if n > MOST_INPUTS:
        raise ValueError(
            f"prime_implicants: at most {MOST_INPUTS} inputs, got {n}. Use boolean.dnf, or write the function as a "
            "composition of smaller ones, as parity.tree does."
        )
    implicant = tables.reshape(-1, *(2,) * n)
    for axis in range(1, n + 1):
        wider = implicant.all(axis, keepdims=True)
        implicant = np.concatenate([implicant, wider], axis)
    prime = np.asarray(implicant.any(0))
    for axis in range(n):
        before = (slice(None),) * axis
        prime[*before, :2] &= (implicant[:, *before, :2] != implicant[:, *before, 2:]).any(0)
    cells = np.argwhere(prime)
    signs = np.array([-1, 1, 0], np.int8)[cells]
    order = np.lexsort(signs.T[::-1])
    return signs[order], implicant[:, *cells[order].T].T


def _greedy(cover: np.ndarray) -> np.ndarray:
    """Terms, as ascending indices, that cover all rows: the essential ones, then greedily; none is redundant."""
    chosen = np.unique(cover[:, cover.sum(0) == 1].argmax(0)) if cover.size else np.zeros(0, int)
    picked = list(chosen)
    weights = cover.astype(np.float32)
    open_rows = ~cover[picked].any(0)
    while open_rows.any():
        best = int((weights @ open_rows.astype(np.float32)).argmax())
        picked.append(best)
        open_rows &= ~cover[best]
    found = np.array(picked, int)
    return np.sort(found[_irredundant(cover[found])])


def _irredundant(cover: np.ndarray) -> np.ndarray:
    """Indices of terms that still cover all rows covered by (T, R), the later ones dropped first."""
    kept = list(range(len(cover)))
    times = cover.sum(0)
    for term in reversed(kept.copy()):
        if (times[cover[term]] > 1).all():
            kept.remove(term)
            times -= cover[term]
    return np.array(kept, int)


def _fewest(where: str, primes: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The fewest terms, as ascending indices, that cover all rows, of such sets one of fewest literals."""
    if not cover.size:
        return np.zeros(0, int)
    literals = np.abs(primes).sum(1)
    found = optimize.milp(
        1 + literals / (1 + literals.sum()),
        constraints=optimize.LinearConstraint(sparse.csr_array(cover.T.astype(float)), lb=1),
        integrality=np.ones(len(primes)),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if not found.success:
        raise RuntimeError(f"{where}: scipy.optimize.milp failed: {found.message}")
    return np.flatnonzero(found.x > 0.5)
