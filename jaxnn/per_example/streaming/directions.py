"""Inner products of per-example gradients with one direction, inside the backward pass."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from jaxnn.numerics import accumulate
from jaxnn.per_example.products import along
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.types import Array, Params, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Directional(Statistic):
    """g_i . v, (N,): the directional derivative of each example's loss along v.

    Args:
        direction: v, a pytree like the parameters; None where a parameter is not trained. May be traced.

    Raises:
        TypeError: a complex direction.
        ValueError: a direction of other paths or shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.per_example import value_and_grad
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x), Directional(jnp.array([1.0, -1.0])))
        >>> vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 5.0]]))[0][1]
        Array([-1., -2.], dtype=float32)
    """

    adds_up = True
    degree = 1

    direction: Params

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part:
        places = jax.tree_util.tree_leaves_with_path(self.direction)
        found = {jax.tree_util.keystr(path): jnp.asarray(v) for path, v in places}
        got, expected = {path: v.shape for path, v in found.items()}, {p.path: p.shape for p in params}
        if got != expected:
            raise ValueError(
                f"Directional: the direction must be a pytree like the trained parameters, shapes {expected}, got "
                f"{got}."
            )
        v = found[param.path]
        if jnp.issubdtype(v.dtype, jnp.complexfloating):
            raise TypeError(f"Directional: the direction must be real, got {v.dtype.name} at {param.path}.")
        return Part("", like=accumulate(v))

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        found = [along(use, part.like.reshape(use.shape)) for use in gradients.uses]
        return functools.reduce(jnp.add, found, jnp.zeros(gradients.examples))

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        return found.get("", jnp.zeros(batch.examples))
