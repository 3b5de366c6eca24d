"""Checks of arguments: hyperparameters when a rule is made; parameters and extra arguments at `init` and `update`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_between
from jaxnn.types import Params


def require_nonnegative(where: str, **values: Any) -> None:
    """ValueError unless each value is finite and >= 0, TypeError if it is no number; None, schedules, tracers pass."""
    for name, value in values.items():
        if value is not None and not callable(value):
            require_between(where, name, value, 0, math.inf, open_high=True)


def require_decay(where: str, **values: Any) -> None:
    """ValueError unless each value lies in [0, 1), TypeError if it is no number; None, schedules, tracers pass."""
    for name, value in values.items():
        if value is not None and not callable(value):
            require_between(where, name, value, 0, 1, open_high=True)


def require_real(where: str, params: Params) -> Params:
    """The parameters; TypeError if one is complex, for rules that are defined for real ones only."""
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        if jnp.issubdtype(jnp.result_type(p), jnp.complexfloating):
            raise TypeError(
                f"{where}: parameter {jax.tree_util.keystr(path)} is complex ({jnp.result_type(p)}), and this rule is "
                f"defined for real ones. Wrap it: split_real_and_imaginary({where}(...))."
            )
    return params


def require_params(where: str, params: Params | None) -> Params:
    """The parameters; ValueError if `update` did not receive them."""
    if params is None:
        raise ValueError(
            f"{where}: update needs the parameters, got params=None. Call opt.update(grads, state, params)."
        )
    return params


def require_extra(where: str, name: str, value: Any) -> Any:
    """An extra argument of `update`; ValueError if it is missing."""
    if value is None:
        raise ValueError(
            f"{where}: update needs the extra argument {name}, got none. Call opt.update(grads, state, params, "
            f"{name}=...); train.make_step does so. Inside an optax combinator wrap the rule by compare.as_optax, "
            "since optax passes extra arguments only to its own type."
        )
    return value
