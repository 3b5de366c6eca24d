"""GaLore, against optax; its singular vectors are computed in float32, as optax's are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jaxnn.compare.cases.adam import decaying
from jaxnn.compare.parity import Case
from jaxnn.types import PyTree

SINGLE = (
    "optax decomposes in float32 even where all else is float64, which svd_dtype=float32 does too, and fails on None "
    "leaves, which the comparison takes out of what it gets"
)
MATRIX = (0, 1)
KERNEL = (-2, (0, 1, 3))
"""(reduction_axis, output_axis) of a matrix, and of an HWIO kernel whose input channels are reduced."""


def without_none(inner: Any) -> Any:
    """An optax transformation of the list of a tree's leaves.

    Example:
        >>> opt = without_none(optax.scale(2.0))
        >>> opt.update({"w": jnp.ones(1), "nothing": None}, opt.init(None))[0]
        {'nothing': None, 'w': Array([2.], dtype=float32)}
    """

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        leaves, structure = jax.tree.flatten(updates)
        updates, state = inner.update(leaves, state, None if params is None else jax.tree.leaves(params))
        return jax.tree.unflatten(structure, updates), state

    return optax.GradientTransformation(lambda params: inner.init(jax.tree.leaves(params)), update)


def galore(*args: Any, base: Any = None, library: Any = optax.contrib, **settings: Any) -> Any:
    """Either library's galore, its singular vectors in float32; `base` makes the inner rule from the library's name.

    Example:
        >>> from jaxnn import optim
        >>> galore(0.1, library=optim).init(jnp.ones(1)).count
        Array(0, dtype=int32)
    """
    ours = library is not optax.contrib
    extra = {"svd_dtype": jnp.float32} if ours else {}
    made = library.galore(
        *args, base_optimizer=None if base is None else base(library if ours else optax), **settings, **extra
    )
    return made if ours else without_none(made)


def pair(*args: Any, **settings: Any) -> Case:
    """Both libraries' galore with one set of arguments.

    Example:
        >>> pair(0.1).differs == SINGLE
        True
    """
    return Case(lambda library: galore(*args, library=library, **settings), lambda: galore(*args, **settings), SINGLE)


def kernels(library: Any) -> list[Any]:
    """Dimension numbers of the leaves of `random_params` in order: a vector, a number, a kernel and a matrix.

    Example:
        >>> from jaxnn import optim
        >>> [None if numbers is None else numbers.output_axis for numbers in kernels(optim)]
        [None, None, (0, 1, 3), 1]
    """
    numbers = library.GaLoreDimensionNumbers
    return [None, None, numbers(*KERNEL), numbers(*MATRIX)]


def tree_of(leaves: list[Any]) -> PyTree:
    """A list of those as a tree like `random_params`.

    Example:
        >>> tree_of([1, 2, 3, 4])
        {'nothing': None, 'parts': (1, 2, 3), 'w': 4}
    """
    return {"nothing": None, "parts": tuple(leaves[:3]), "w": leaves[3]}


CASES: dict[str, Case] = {
    "galore": pair(0.05),
    "galore: low rank": pair(0.05, 2, 7, scale=0.5),
    "galore: matrices": Case(
        lambda library: galore(decaying, rank=2, update_proj_gap=5, library=library),
        lambda: galore(decaying, rank=2, update_proj_gap=5),
        SINGLE,
        matrices=True,
    ),
    "galore: decay": pair(
        0.05, 2, 10, weight_decay=0.1, base=lambda library: library.scale_by_adam(b1=0.8, b2=0.95, eps=1e-3)
    ),
    "galore: lion": pair(0.01, 1, 10, base=lambda library: library.scale_by_lion()),
    "galore: kernels": Case(
        lambda library: galore(0.05, 2, 10, library=library, weight_dimension_numbers=tree_of(kernels(library))),
        lambda: galore(0.05, 2, 10, weight_dimension_numbers=kernels(optax.contrib)),
        SINGLE,
    ),
    "galore: one for all": Case(
        lambda library: galore(
            0.05, 2, 10, library=library, weight_dimension_numbers=library.GaLoreDimensionNumbers(1, 0)
        ),
        lambda: galore(0.05, 2, 10, weight_dimension_numbers=optax.contrib.GaLoreDimensionNumbers(1, 0)),
        SINGLE,
        matrices=True,
    ),
    "scale_by_galore": Case(
        lambda library: library.chain(
            library.scale_by_galore(2, 9, svd_dtype=jnp.float32), library.scale_by_learning_rate(0.05)
        ),
        lambda: without_none(optax.chain(optax.contrib.scale_by_galore(2, 9), optax.scale_by_learning_rate(0.05))),
        SINGLE,
    ),
}
