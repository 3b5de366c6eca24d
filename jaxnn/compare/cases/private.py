"""Private descent, against optax: the same clipping, and for one key the same draws."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnn.compare.cases.adam import decaying
from jaxnn.compare.parity import Case, as_extra
from jaxnn.optim import Optimizer
from jaxnn.types import Params, PyTree


def of_three_examples(opt: Any) -> Optimizer:
    """A rule for per-example gradients, given three examples' gradients made from the one that it is passed.

    Example:
        >>> opt = of_three_examples(optax.contrib.differentially_private_aggregate(1.0, 0.0, key=0))
        >>> opt.update(jnp.full(1, 3.0), opt.init(jnp.ones(1)))[0]
        Array([0.2], dtype=float32)
    """
    inner = as_extra(opt)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        each = jax.tree.map(lambda g: jnp.stack([0.2 * g, -0.4 * g, 2.0 * g]), updates)
        return inner.update(each, state, params, **extra)

    return Optimizer(inner.init, update)


def optax_dpsgd(*args: Any, **settings: Any) -> Any:
    """optax's dpsgd without the warning that it gives about its own use of seed.

    Example:
        >>> optax_dpsgd(0.1, 1.0, 0.0, seed=0).init(jnp.ones(1))[1:]
        (EmptyState(), EmptyState())
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optax.contrib.dpsgd(*args, **settings)


def private(*args: Any, **settings: Any) -> Case:
    """The case of dpsgd with these settings on both sides.

    Example:
        >>> private(0.1, 1.0, 0.0, seed=0).tolerance
        1e-12
    """
    return Case(
        lambda library: of_three_examples(library.dpsgd(*args, **settings)),
        lambda: of_three_examples(optax_dpsgd(*args, **settings)),
    )


CASES: dict[str, Case] = {
    "differentially_private_aggregate": Case(
        lambda library: of_three_examples(library.differentially_private_aggregate(0.5, 0.1, key=1)),
        lambda: of_three_examples(optax.contrib.differentially_private_aggregate(0.5, 0.1, key=1)),
    ),
    "dpsgd": private(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, seed=0),
    "dpsgd: no noise": private(0.2, l2_norm_clip=3.0, noise_multiplier=0.0, seed=0),
    "dpsgd: momentum": private(decaying, l2_norm_clip=1.0, noise_multiplier=0.5, seed=2, momentum=0.5),
    "dpsgd: nesterov": private(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, seed=2, momentum=0.8, nesterov=True),
}
