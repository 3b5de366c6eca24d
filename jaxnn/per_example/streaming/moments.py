"""Element-wise moments of per-example gradients inside the backward pass: sums over examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.per_example.measures import deviations
from jaxnn.per_example.streaming.dense import SQUARES
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class SecondMoment(Statistic):
    """1/N sum_i g_i^2, element-wise, a pytree like `params`; of w_i g_i over the N examples with w_i != 0.

    For a weight matrix with T = 1 it is (a^2)' (delta^2) / N, one matrix product; for T > 1 gradients are materialized
    in chunks.

    Reference: Dangel, F., Kunstner, F. & Hennig, P. (2020). BackPACK: packing more into backprop, appendix A.1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.per_example import value_and_grad
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x), SecondMoment())
        >>> vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0][1]
        Array([ 5., 10.], dtype=float32)
    """

    needs = frozenset({SQUARES})
    adds_up = True
    degree = 2

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part:
        return Part(param.path, None)

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        return gradients.squares

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        return jax.tree.map(lambda x: x / jnp.asarray(batch.kept, x.dtype), batch.like_params(found))


@dataclasses.dataclass(frozen=True)
class Variance(Statistic):
    """1/(N - ddof) sum_i (g_i - mean g)^2, element-wise, a pytree like `params`, in two passes over a, delta: >= 0.

    Args:
        ddof: 0 divides by N, 1 by N - 1 (unbiased).

    Raises:
        ValueError: N <= ddof; a batch with weights.

    Reference: Chan, T. F., Golub, G. H. & LeVeque, R. J. (1983). Algorithms for computing the sample variance: analysis
        and recommendations, equation 1.1 (two passes).

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.per_example import value_and_grad
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x), Variance(ddof=1))
        >>> vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0][1]
        Array([2., 2.], dtype=float32)
    """

    adds_up = True
    degree = 2

    ddof: int = 0

    def __post_init__(self) -> None:
        require_positive_int("Variance", "ddof", self.ddof, minimum=0)

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part:
        return Part(param.path, None)

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        return deviations(gradients.form)

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        if batch.weighted:
            raise ValueError(
                "Variance: expected a batch without weights: the mean that deviations are taken from would count the "
                "examples that are removed. Use SecondMoment(), or per_example.variance of the tape of the batch."
            )
        if batch.examples <= self.ddof:
            raise ValueError(
                f"Variance: expected more than ddof={self.ddof} examples, got {batch.examples}. Use a larger batch or "
                "a smaller ddof."
            )
        return jax.tree.map(lambda x: x / (batch.examples - self.ddof), batch.like_params(found))
