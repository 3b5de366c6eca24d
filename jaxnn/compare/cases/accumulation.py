"""Gradients gathered over several steps, against optax."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnn.compare.parity import Case
from jaxnn.types import Array, Params, PyTree

PRECISION = "optax gathers in float32 unless told otherwise; here in the parameters' precision, real or complex"


def growing(step: Array) -> Array:
    """2 gradients for each of the first five updates, then 5.

    Example:
        >>> growing(jnp.array(7, jnp.int32))
        Array(5, dtype=int32)
    """
    return jnp.where(step < 5, 2, 5).astype(jnp.int32)


def leave_out(updates: PyTree, step: Array, params: Params | None) -> tuple[Array, PyTree]:
    """Skip about every second gradient, by the sum of first entries.

    Example:
        >>> bool(leave_out(jnp.array([0.1, -2.0]), jnp.zeros(()), None)[0])
        True
    """
    total = functools.reduce(jnp.add, [jnp.real(u).ravel()[0].astype(float) for u in jax.tree.leaves(updates)])
    return jnp.sin(20 * total) > 0, {"total": total}


def multi_steps(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
    """optax's MultiSteps, told to gather in the precision of the parameters.

    Example:
        >>> multi_steps(optax.sgd(0.1), 2).init(jnp.ones(1, jnp.complex64)).acc_grads
        Array([0.+0.j], dtype=complex64)
    """

    def fitting(tree: PyTree) -> optax.MultiSteps:
        return optax.MultiSteps(*args, accumulator_dtype=jnp.result_type(*jax.tree.leaves(tree)), **kwargs)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        return fitting(updates).update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(lambda params: fitting(params).init(params), update)


CASES: dict[str, Case] = {
    "MultiSteps": Case(
        lambda library: library.MultiSteps(library.adam(0.1), 3),
        lambda: multi_steps(optax.adam(0.1), 3),
        PRECISION,
    ),
    "MultiSteps: sum": Case(
        lambda library: library.MultiSteps(library.adam(0.1), 4, use_grad_mean=False),
        lambda: multi_steps(optax.adam(0.1), 4, use_grad_mean=False),
        PRECISION,
    ),
    "MultiSteps: schedule": Case(
        lambda library: library.MultiSteps(library.adam(0.1), growing),
        lambda: multi_steps(optax.adam(0.1), growing),
        PRECISION,
    ),
    "MultiSteps: skip": Case(
        lambda library: library.MultiSteps(library.adam(0.1), 3, should_skip_update_fn=leave_out),
        lambda: multi_steps(optax.adam(0.1), 3, should_skip_update_fn=leave_out),
        PRECISION,
    ),
    "accumulate": Case(
        lambda library: library.accumulate(library.sgd(0.1, 0.9), 3, should_skip_update_fn=library.skip_not_finite),
        lambda: multi_steps(optax.sgd(0.1, 0.9), 3, should_skip_update_fn=optax.skip_not_finite),
        PRECISION + "; sgd counts its steps here",
        fields={"inner_opt_state": ""},
    ),
    "apply_every": Case(
        lambda library: library.chain(library.scale_by_adam(), library.apply_every(3), library.scale(-0.03)),
        lambda: optax.chain(optax.scale_by_adam(), optax.apply_every(3), optax.scale(-0.03)),
    ),
}
