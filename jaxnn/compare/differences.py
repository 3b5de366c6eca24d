"""Differences between two runs per step and leaf, the cost of each, and the verdict."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import tree
from jaxnn.checks import count_of
from jaxnn.types import PyTree

COARSE = 1e-6
"""A wider tolerance than this is mentioned beside the verdict."""

TINY = 1e-30
"""The smallest divisor of relative differences, where all entries of a leaf have been smaller."""


class Cost(NamedTuple):
    """The cost of one rule.

    Attributes:
        seconds_per_step: median over the steps of update and `apply_updates`, from the call to the result; for a pytree
            as small as the random one nearly all of it is call overhead.
        compile_seconds: to trace, lower and compile the update; both rules are compiled concurrently, so that on one
            core each takes longer.
        state_bytes: of all arrays of the optimizer's state.
    """

    seconds_per_step: float
    compile_seconds: float
    state_bytes: int


class Leaves(NamedTuple):
    """The differences of one step: for each of L leaves (L,) the largest, the mean, and the largest finite |entry| of
    theirs."""

    names: tuple[str, ...]
    max_difference: np.ndarray
    mean_difference: np.ndarray
    entry: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Parity:
    """The differences between two rules over S steps and L leaves, and the verdict.

    Attributes:
        leaves: names, "params/w" and "state/mu/w"; those of the parameters come first.
        max_difference, mean_difference: (S, L) float64, over the entries of a leaf, absolute.
        entry: (S, L) float64, the leaf's largest finite |entry| (of theirs) so far.
        dtype: of the parameters.
        eps: of that dtype: twice the largest relative error of one rounding.
        tolerance: largest relative difference that counts as equal.
        ours, theirs: their costs.
        differs: intended differences of the definitions, in words.

    Example:
        >>> cost = Cost(1e-5, 0.1, 4)
        >>> gap, entry = np.array([[0.0], [1e-3]]), np.array([[1.0], [2.0]])
        >>> found = Parity(("params/w",), gap, gap / 2, entry, "float32", 2**-23, 1e-6, cost, cost)
        >>> found.equal, found.params, found.first
        (False, 0.0005, (2, 'params/w'))
    """

    leaves: tuple[str, ...]
    max_difference: np.ndarray
    mean_difference: np.ndarray
    entry: np.ndarray
    dtype: str
    eps: float
    tolerance: float
    ours: Cost
    theirs: Cost
    differs: str = ""

    @functools.cached_property
    def relative(self) -> np.ndarray:
        """(S, L): the largest difference of a leaf, relative to its largest entry so far."""
        return _ratio(self.max_difference, self.entry)

    @functools.cached_property
    def mean_relative(self) -> np.ndarray:
        """(S, L): the mean difference of a leaf, relative to its largest entry so far."""
        return _ratio(self.mean_difference, self.entry)

    @property
    def ulp(self) -> np.ndarray:
        """(S, L): `relative` / eps: units in the last place of the leaf's largest entry so far, to a factor of 2."""
        return self.relative / self.eps

    @property
    def params(self) -> float:
        """The largest relative difference of the parameters; NaN if one of them is NaN."""
        return self._largest(self.relative, "params")

    @property
    def params_mean(self) -> float:
        """The largest over steps and leaves of the mean relative difference of the parameters."""
        return self._largest(self.mean_relative, "params")

    @property
    def params_ulp(self) -> float:
        """The largest `ulp` of the parameters."""
        return self.params / self.eps

    @property
    def state(self) -> Mapping[str, float]:
        """The largest relative difference of each state field."""
        fields = dict.fromkeys(name.split("/")[1] for name in self.leaves if name.startswith("state/"))
        return {field: self._largest(self.relative, f"state/{field}") for field in fields}

    @property
    def largest(self) -> float:
        """The largest relative difference of parameters and state; NaN if one of them is NaN."""
        return float(np.max(self.relative, initial=0.0))

    @property
    def equal(self) -> bool:
        """The verdict: every difference is within the tolerance; NaN never is."""
        return self.largest <= self.tolerance

    @property
    def first(self) -> tuple[int, str] | None:
        """The first step (from 1) beyond the tolerance, and its leaf of the largest difference; None if equal."""
        beyond = ~(self.relative <= self.tolerance)
        if not beyond.any():
            return None
        step = int(np.argmax(beyond.any(axis=1)))
        return step + 1, self.leaves[int(np.argmax(np.nan_to_num(self.relative[step], nan=np.inf)))]

    def table(self) -> dict[str, np.ndarray]:
        """One row per step and leaf, as columns.

        Returns:
            step (from 1), leaf, max_difference, mean_difference, relative, mean_relative, ulp, entry: each (S L,).
        """
        steps, leaves = self.relative.shape
        figures = ("max_difference", "mean_difference", "relative", "mean_relative", "ulp", "entry")
        return {
            "step": np.repeat(np.arange(1, steps + 1), leaves),
            "leaf": np.tile(np.array(self.leaves), steps),
            **{name: getattr(self, name).ravel() for name in figures},
        }

    def describe(self) -> str:
        """The verdict, the differences and the costs, in a few lines."""
        states = ", ".join(f"{name} {gap:.1e}" for name, gap in self.state.items())
        lines = [
            f"{'equal' if self.equal else 'DIFFERS'} within {self.tolerance:.0e} over "
            f"{count_of(len(self.relative), 'step')} in {self.dtype}",
            f"parameters: max {self.params:.1e} ({self.params_ulp:.3g} ulp), mean {self.params_mean:.1e}, relative to "
            "the largest entry of the leaf",
            f"state: {states or 'not compared: no field in common (states are compared where they are NamedTuples)'}",
        ]
        if self.equal and self.tolerance > COARSE:
            lines.insert(1, 'smaller errors are not detected: compare in float64, or with gradients="same"')
        if self.first:
            step, leaf = self.first
            off = self.relative[step - 1, self.leaves.index(leaf)]
            lines.insert(1, f"first beyond the tolerance at step {step}, in {leaf}: {off:.1e}")
        for name, cost in (("ours", self.ours), ("theirs", self.theirs)):
            lines.append(
                f"{name}: {cost.seconds_per_step * 1e6:.0f} us per step, compiled in {cost.compile_seconds:.2f} s, "
                f"state {count_of(cost.state_bytes, 'byte')}"
            )
        return "\n".join([*lines, f"definitions: {self.differs}"] if self.differs else lines)

    __str__ = describe

    def _largest(self, figures: np.ndarray, part: str) -> float:
        chosen = [i for i, name in enumerate(self.leaves) if name == part or name.startswith(f"{part}/")]
        return float(np.max(figures[:, chosen], initial=0.0))


def differences(ours: PyTree, theirs: PyTree) -> Leaves:
    """|ours - theirs| of two pytrees with the same number of leaves: largest and mean per leaf, in float64.

    Equal infinities have difference 0; where either is NaN, so is the difference. Random keys and empty leaves are
    omitted.

    Raises:
        ValueError: the numbers of leaves differ, or the shapes of two leaves, except for axes of length 1.
    """
    named, yours = tree.named_leaves(ours), jax.tree.leaves(theirs)
    if len(named) != len(yours):
        raise ValueError(
            f"parity: the pytrees differ in their leaves: ours has {', '.join(named)}; theirs is "
            f"{jax.tree.structure(theirs)}."
        )
    names, gaps, sizes, starts = [], [], [], [0]
    for (name, a), b in zip(named.items(), yours, strict=True):
        if np.size(a) == 0 or any(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in (a, b)):
            continue
        if _long_axes(a) != _long_axes(b):
            raise ValueError(
                f"parity: {name} has shape {np.shape(a)} in ours and {np.shape(b)} in theirs. Exclude a field of the "
                'state that has another meaning: fields={"name": ""}.'
            )
        mine, your = _wide(a), _wide(b)
        with np.errstate(invalid="ignore"):  # inf - inf, which `where` corrects
            gaps.append(np.where(mine == your, 0.0, np.abs(mine - your)))
        sizes.append(np.abs(your))
        names.append(name)
        starts.append(starts[-1] + gaps[-1].size)
    if not names:
        return Leaves((), *(np.zeros(0) for _ in range(3)))
    gap, size = np.concatenate(gaps), np.concatenate(sizes)
    ends = np.array(starts[:-1])
    mean = np.add.reduceat(gap, ends) / np.diff(starts)
    entry = np.maximum.reduceat(np.where(np.isfinite(size), size, 0.0), ends)
    return Leaves(tuple(names), np.maximum.reduceat(gap, ends), mean, entry)


def _long_axes(a: Any) -> tuple[int, ...]:
    """The shape without axes of length 1: a scalar state may be stored as () or as (1,)."""
    return tuple(n for n in np.shape(a) if n != 1)


def _wide(a: Any) -> np.ndarray:
    """All entries in float64 or complex128."""
    flat = np.asarray(a).reshape(-1)
    return flat.astype(np.complex128 if np.iscomplexobj(flat) else np.float64)


def _ratio(difference: np.ndarray, entry: np.ndarray) -> np.ndarray:
    return difference / np.where(difference == 0, 1.0, np.maximum(entry, TINY))
