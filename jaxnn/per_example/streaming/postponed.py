"""Statistics of a batch in parts: what each part adds, and the result from all of them."""

from __future__ import annotations

from collections.abc import Hashable

from jaxnn.per_example.streaming.moments import Variance
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.types import Array, PyTree, Scalar


class Postponed(Statistic):
    """A statistic whose result is what it combines: (sums over examples, arrays (N, ...)), each by slot.

    `combined` makes the result of the statistic from the sums of several batches, and their rows concatenated.
    """

    def __init__(self, statistic: Statistic) -> None:
        if isinstance(statistic, Variance):
            raise ValueError(
                "Variance: deviations are taken from the mean of the whole batch, which microbatches do not know. Use "
                "SecondMoment() and per_example.variance_of, or a batch in one piece."
            )
        self.statistic = statistic
        self.needs, self.adds_up = statistic.needs, statistic.adds_up  # type: ignore[misc]
        self._rows: dict[Hashable, bool] = {}
        self._batches: list[Batch] = []

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part | None:
        part = self.statistic.prepare(param, params)
        if part is not None:
            self._rows[part.slot] = part.shape is not None
        return part

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        return self.statistic.of_use(gradients, part)

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        self._batches.append(batch)
        sums = {slot: found[slot] for slot, by_example in self._rows.items() if not by_example}
        return sums, {slot: x for slot, x in found.items() if slot not in sums}

    def combined(self, sums: dict[Hashable, Array], rows: dict[Hashable, Array], examples: int, kept: Scalar) -> PyTree:
        """The result for all batches, of `examples` examples, of which `kept` have weights other than 0."""
        return self.statistic.combine(sums | rows, self._batches[-1]._replace(examples=examples, kept=kept))
