"""Sums of gradients in the accumulation dtype, which are rounded later."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

from jaxnn.per_example.streaming.dense import TOTAL
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class WideTotal(Statistic):
    """sum_i c_i g_i, a pytree like the parameters, float32 or float64: noise is added to it before it is rounded."""

    needs = frozenset({TOTAL})
    adds_up = True

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part:
        return Part(param.path, None)

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        return gradients.wide_total

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        return batch.like_params(found)
