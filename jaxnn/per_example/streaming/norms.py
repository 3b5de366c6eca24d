"""Norms of per-example gradients inside the backward pass, and the sizes of their terms."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence

import jax.numpy as jnp

from jaxnn.numerics import safe_sqrt
from jaxnn.per_example.margin import size_of
from jaxnn.per_example.select import begins, layers_of
from jaxnn.per_example.streaming.dense import SQ_NORMS
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.types import Array, PyTree

PARAMETER, LAYER = "parameter", "layer"


@dataclasses.dataclass(frozen=True)
class SqNorms(Statistic):
    """|g_i|^2, (N,), over all parameters, or by parameter or group of parameters.

    Inside `with jaxnn.kernels.use(True):` the norms and the gradient of large bfloat16 products come from one kernel on
    Hopper GPUs, which stores no gradient of an example.

    Args:
        by: None; "parameter" or "layer": a dict {path: (N,)}, where a layer has the parameters whose paths differ in
            the last key only, and the rest is its path; or a mapping {name of a group: prefix of the paths of its
            parameters, or several}: a dict {name: (N,)}, over the parameters in the group.

    Raises:
        ValueError: a prefix that no path has.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.per_example import value_and_grad
        >>> loss = lambda params, x: jnp.vdot(params["w"], x) + params["b"]
        >>> params = {"w": jnp.ones(2), "b": jnp.zeros(())}
        >>> vg = value_and_grad(loss, SqNorms(by="parameter"))
        >>> (losses, sq_norms), grads = vg(params, jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> sq_norms["['w']"], sq_norms["['b']"]
        (Array([ 5., 25.], dtype=float32), Array([1., 1.], dtype=float32))
    """

    needs = frozenset({SQ_NORMS})
    adds_up = True
    degree = 2

    by: str | Mapping[str, str | Sequence[str]] | None = None

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part | None:
        if self.by is None:
            return Part("")
        mine = [name for name, paths in groups_of("SqNorms", self.by, params).items() if param.path in paths]
        return Part(mine[0]) if mine else None

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        return gradients.sq_norms

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        return found.get("", jnp.zeros(batch.examples)) if self.by is None else found


def groups_of(where: str, by: object, params: tuple[Parameter, ...]) -> dict[str, list[str]]:
    """The paths of the parameters in each parameter, layer or group of a mapping."""
    if by in (PARAMETER, LAYER):
        own: dict[str, list[str]] = {}
        paths = [param.path for param in params]
        for name, path in zip(paths if by == PARAMETER else layers_of(paths), paths, strict=True):
            own.setdefault(name, []).append(path)
        return own
    if not isinstance(by, Mapping):
        raise ValueError(
            f'{where}: groups must be None, "parameter", "layer" or a mapping from names of groups to prefixes of '
            f"paths, got {by!r}."
        )
    found: dict[str, list[str]] = {}
    taken: dict[str, str] = {}
    for name, given in by.items():
        prefixes = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
        if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
            raise ValueError(
                f"{where}: group {name!r} must be a prefix of paths such as {params[0].path!r}, or several, got "
                f"{given!r}."
            )
        found[name] = []
        for prefix in prefixes:
            paths = [param.path for param in params if begins(param.path, prefix)]
            if not paths:
                raise ValueError(
                    f"{where}: no parameter has a path that begins with {prefix!r}; there are "
                    f"{tuple(param.path for param in params)}."
                )
            for path in paths:
                if taken.setdefault(path, name) != name:
                    raise ValueError(f"{where}: groups must be disjoint; {path} is in {taken[path]!r} and {name!r}.")
            found[name] += paths
    return found


@dataclasses.dataclass(frozen=True)
class Margin(Statistic):
    """S_i, (N,): an upper bound on the sizes of the terms of g_i, by which rounding can change |g_i|.

    S_i^2 adds (sum_t |a_it| |delta_it|)^2 over parameters, each bounded by the Cauchy-Schwarz inequality. The norm
    n_i of `SqNorms` may be too small by about eps S_i^2 / (2 n_i): sqrt(n_i^2 + 4 eps S_i^2) is an upper bound on |g_i|
    that holds under rounding.

    Reference: Higham, N. J. (2002). Accuracy and stability of numerical algorithms, section 3.1.

    Example:
        >>> from jaxnn.per_example import value_and_grad
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x), Margin())
        >>> vg(jnp.ones(2), jnp.array([[3.0, 4.0], [0.0, 1.0]]))[0][1]
        Array([5., 1.], dtype=float32)
    """

    adds_up = True
    degree = 1

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part | None:
        return Part("")

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        if not gradients.uses:
            return jnp.zeros(gradients.examples)
        # Terms of all uses of one parameter may cancel each other.
        return jnp.square(functools.reduce(jnp.add, map(size_of, gradients.uses)))

    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        return safe_sqrt(found.get("", jnp.zeros(batch.examples)))
