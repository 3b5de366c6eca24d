"""Muon with roles: Muon for hidden matrices, Adam for embeddings, heads and vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.optim.arguments import require_nonnegative
from jaxnn.optim.base import Optimizer
from jaxnn.optim.descent import Mask, called_on_stored, descent
from jaxnn.optim.matrix.muon import JORDAN, scale_by_muon, scaled_by_shape
from jaxnn.optim.matrix.muon_axes import MuonDimensionNumbers, matrix_axes
from jaxnn.optim.matrix.newton_schulz import Preconditioning
from jaxnn.optim.rules.adam import adamw
from jaxnn.optim.spec import specified
from jaxnn.optim.wrappers.partition import partition
from jaxnn.tree import called
from jaxnn.types import DTypeLike, Params, PyTree, Scalar, ScalarOrSchedule

Roles: TypeAlias = PyTree | Callable[[Params], PyTree]
"""A pytree of roles like the parameters or a prefix of it, or a function of the parameters that returns one."""

ROLES = ("hidden", "embedding", "head", "vector")
AXES = {2: MuonDimensionNumbers(0, 1), 3: MuonDimensionNumbers(1, 2), 4: MuonDimensionNumbers((0, 1, 2), 3)}
"""By number of axes: a matrix (inputs, outputs), a stack of them, a convolution's kernel (H, W, inputs, outputs)."""


@specified
@called_on_stored("roles")
def muon_with_roles(
    learning_rate: ScalarOrSchedule,
    roles: Roles,
    *,
    ns_coeffs: Any = JORDAN,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    preconditioning: Preconditioning = "frobenius",
    consistent_rms: Scalar | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    embedding_learning_rate: ScalarOrSchedule | None = None,
    head_learning_rate: ScalarOrSchedule | None = None,
    vector_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_weight_decay: ScalarOrSchedule = 0.0,
) -> Optimizer:
    """Muon where the role is "hidden", AdamW where it is "embedding", "head" or "vector", each with its own rate.

    hidden: update = -learning_rate (s direction + weight_decay params), as in `muon`
    others: `adamw` with the learning rate of their role, by default `adam_learning_rate`

    Nothing is guessed: shapes do not distinguish an embedding, whose rows are independent, from a hidden matrix. A
    hidden array of 2 axes is a matrix (inputs, outputs), of 3 a stack of matrices along its first axis, each
    orthogonalized separately, and of 4 a convolution's kernel (H, W, inputs, outputs), a matrix of H * W * inputs rows.
    For other layouts, e.g. the kernel of a 1-D convolution, use `MuonDimensionNumbers` in place of "hidden".

    Args:
        learning_rate: of hidden matrices, number or schedule.
        roles: pytree of roles like the parameters or a prefix of it, or a function of the parameters that returns one.
        ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, preconditioning: see `scale_by_muon`; eps and mu_dtype are
            Adam's too, nesterov is not.
        weight_decay: of hidden matrices; multiplied by the learning rate.
        consistent_rms: see `muon`; with 0.2, one learning rate suits both Muon and Adam.
        adam_learning_rate: of the other roles; None means `learning_rate`.
        embedding_learning_rate, head_learning_rate, vector_learning_rate: of one role; None means `adam_learning_rate`.
        adam_b1, adam_b2, adam_weight_decay: see `adamw`.

    Returns:
        Optimizer with state `PartitionState`: by role, a `MaskedState` of a `MuonState` or of an `AdamState`.

    Raises:
        ValueError: an unknown role, or none; a hidden array that is not a matrix.

    Reference: Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural networks. Liu, J. et al. (2025).
        Muon is scalable for LLM training, section 2.2.

    Example:
        >>> params = {"embed": jnp.zeros((5, 2)), "w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
        >>> opt = muon_with_roles(0.1, {"embed": "embedding", "w": "hidden", "b": "vector"}, adam_learning_rate=0.01)
        >>> grads = jax.tree.map(jnp.ones_like, params)
        >>> updates, state = jax.jit(opt.update)(grads, opt.init(params), params)
        >>> updates["b"].round(3)
        Array([-0.01, -0.01], dtype=float32)
    """
    adam_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rates = {"embedding": embedding_learning_rate, "head": head_learning_rate, "vector": vector_learning_rate}
    require_nonnegative("muon_with_roles", adam_learning_rate=adam_rate, adam_weight_decay=adam_weight_decay)
    require_nonnegative("muon_with_roles", **{f"{role}_learning_rate": rate for role, rate in rates.items()})
    require_nonnegative("muon_with_roles", consistent_rms=consistent_rms)

    def numbers(params: Params) -> PyTree:
        return jax.tree.map(lambda role, p: _axes_of(role, p), _roles_tree(roles, params), params, is_leaf=_is_role)

    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        preconditioning=preconditioning,
        weight_dimension_numbers=numbers,
    )
    hidden = descent(
        scaled_by_shape(direction, numbers, consistent_rms),
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        where="muon_with_roles",
    )

    def adam_of(rate: ScalarOrSchedule | None) -> Optimizer:
        return adamw(
            adam_rate if rate is None else rate,
            adam_b1,
            adam_b2,
            eps,
            mu_dtype=mu_dtype,
            weight_decay=adam_weight_decay,
            mask=mask,
        )

    def labels(params: Params) -> PyTree:
        return jax.tree.map(
            lambda role: role if isinstance(role, str) else "hidden", _roles_tree(roles, params), is_leaf=_is_role
        )

    return partition({"hidden": hidden} | {role: adam_of(rate) for role, rate in rates.items()}, labels)


def _roles_tree(roles: Roles, params: Params) -> PyTree:
    """The role of each parameter, checked against its shape."""
    found = called(roles, params)
    try:
        whole = jax.tree.map(lambda role, part: jax.tree.map(lambda _: role, part), found, params, is_leaf=_is_role)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "muon_with_roles: the roles must be a pytree like the parameters, or a prefix of it, got "
            f"{jax.tree.structure(found, is_leaf=_is_role)} for parameters {jax.tree.structure(params)}. {error}"
        ) from None
    jax.tree_util.tree_map_with_path(_check, whole, params, is_leaf=_is_role)
    return whole


def _check(path: Any, role: Any, p: Any) -> None:
    """Raise ValueError unless an array can have its role."""
    name, shape = jax.tree_util.keystr(path), jnp.shape(p)
    if isinstance(role, MuonDimensionNumbers):
        matrix_axes(f"muon_with_roles: parameter {name}", shape, role)
    elif role not in ROLES:
        raise ValueError(
            f"muon_with_roles: the role of parameter {name} must be one of {', '.join(map(repr, ROLES))} or "
            f"MuonDimensionNumbers, got {role!r}."
        )
    elif role == "hidden" and len(shape) not in AXES:
        raise ValueError(
            f"muon_with_roles: a hidden parameter must have 2 axes (a matrix), 3 (a stack of matrices) or 4 (a "
            f"convolution's kernel), got {name} of shape {shape}. Call it 'vector', or name its axes by "
            "MuonDimensionNumbers."
        )


def _axes_of(role: Any, p: Any) -> MuonDimensionNumbers | None:
    """The axes of a hidden array; None for another role."""
    if isinstance(role, MuonDimensionNumbers):
        return role
    return AXES[jnp.ndim(p)] if role == "hidden" else None


def _is_role(x: Any) -> bool:
    return isinstance(x, MuonDimensionNumbers)
