"""The verdict on a gradient: what was claimed of each entry, beside what differences found."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.table import Table

from jaxnn.backprop.differences import Estimate
from jaxnn.backprop.text import Printable
from jaxnn.types import Array, Scalar

RIGHT, WRONG, UNDECIDED = "right", "WRONG", "undecided"
STATIC = {"static": True}


class Row(NamedTuple):
    """What was found of one array.

    Attributes:
        name: "output", "state", "input", or the path of a parameter.
        entries: the number of entries compared.
        kinks: how many of them differences cannot decide: those at a kink, a jump, or lost in rounding.
        error: the largest difference, relative to the largest entry.
        verdict: "right", "WRONG" or "undecided".
        worst: of the worst entry, its index, what was claimed, and what was expected.
    """

    name: str
    entries: int
    kinks: int
    error: float
    verdict: str
    worst: tuple[tuple[int, ...], float, float]


OF_EACH = " of each example"
"""What ends the name of the row of single examples' gradients."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Compared:
    """E entries of one array, as claimed and as found.

    Attributes:
        at: (E,), their flat indices.
        claimed: (E,).
        found: `Estimate` with fields (E,), by differences; None where the claim must equal `known`.
        known: (E,), what the claim must equal where differences cannot decide; None if nothing is known there.
        name: of the row.
        shape: of the array.
    """

    at: Array
    claimed: Array
    found: Estimate | None
    known: Array | None
    name: str = dataclasses.field(metadata=STATIC)
    shape: tuple[int, ...] = dataclasses.field(metadata=STATIC)

    @property
    def is_gradient(self) -> bool:
        """Whether it is a gradient, of the total or of each example, and no output or state."""
        return self.found is not None or self.name.endswith(OF_EACH)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Check(Printable):
    """The result of a check: a pytree of arrays, which `jax.jit` may return, and on the host a table.

    Attributes:
        compared: the entries of each array.
        tolerance: relative to the largest entry of an array.
        rows: the verdicts, a `Row` for each array.
        passed: whether every row is right.
    """

    compared: tuple[Compared, ...]
    tolerance: Scalar

    @property
    def rows(self) -> tuple[Row, ...]:
        compared, tolerance = jax.tree.map(_wide, (self.compared, self.tolerance))
        # A gradient that is 0 but for rounding, as of a bias before batch normalization, is measured by the others.
        least = max([_top(one) for one in compared if one.found is not None], default=0.0) / 100
        tops = [max(_top(one), least if one.is_gradient else 0.0) for one in compared]
        return tuple(_row(one, top, tolerance) for one, top in zip(compared, tops, strict=True))

    @property
    def passed(self) -> bool:
        return all(row.verdict == RIGHT for row in self.rows)

    def __rich__(self) -> Table:
        table = Table("array", "entries", "at kinks", "relative error", "verdict", box=None, pad_edge=False)
        for row in self.rows:
            verdict = row.verdict
            if verdict != RIGHT:
                index, claimed, expected = row.worst
                verdict += f" at {index}: {claimed:.6g}, expected {expected:.6g}"
            table.add_row(row.name, str(row.entries), str(row.kinks), f"{row.error:.2g}", verdict)
        return table


def _wide(array: Any) -> Any:
    """A host array, float64 if it is floating."""
    host = np.asarray(array)
    return host if host.dtype.kind in "biu" else host.astype(np.float64)


def _top(one: Compared) -> float:
    """The largest finite entry, as claimed or found."""
    sides = np.concatenate([one.claimed, one.known if one.found is None else one.found.value])
    return float(np.max(np.abs(sides), where=np.isfinite(sides), initial=0.0))


def _row(one: Compared, top: float, tolerance: float) -> Row:
    """The verdict on one array, with `top` as the size of its entries."""
    expected, allowed, kinks = _expected(one, tolerance * top)
    undecided = kinks & np.isnan(expected) if one.known is None else np.zeros_like(kinks)
    off = np.abs(one.claimed - expected)
    excess = np.where(np.isnan(off), np.inf, off) - allowed
    wrong = (excess > 0) & ~undecided
    verdict = WRONG if wrong.any() else UNDECIDED if undecided.any() else RIGHT
    if not off.size:
        return Row(one.name, 0, 0, 0.0, verdict, ((), 0.0, 0.0))
    i = int(np.argmax(np.where(undecided, -np.inf, excess) if wrong.any() else excess))
    index = tuple(int(k) for k in np.unravel_index(int(one.at[i]), one.shape))
    error = float(np.max(np.where(undecided, 0.0, off))) / (top or 1.0)
    return Row(one.name, off.size, int(kinks.sum()), error, verdict, (index, float(one.claimed[i]), float(expected[i])))


def _expected(one: Compared, slack: float) -> tuple[Any, Any, Any]:
    """Expected values (NaN: unknown), allowed differences, and which entries differences cannot decide."""
    if one.found is None:
        return one.known, np.full(one.claimed.shape, slack), np.zeros(one.claimed.shape, bool)
    value, error, left, right, side_error = one.found
    # The central quotient at a kink is the mean of both sides, with no sign of doubt: only the sides show the kink.
    kink = np.abs(right - left) > slack + 4 * side_error
    doubtful = ~(error <= slack)
    between = np.clip(one.claimed, np.minimum(left, right), np.maximum(left, right))
    otherwise = np.where(kink & ~doubtful, between, np.nan) if one.known is None else one.known
    return np.where(kink | doubtful, otherwise, value), np.where(kink | doubtful, slack, slack + error), kink | doubtful
