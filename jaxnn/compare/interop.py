"""Our optimizers as optax's own type."""

from __future__ import annotations

from typing import Any

import optax

from jaxnn.optim.base import call_update
from jaxnn.optim.chain import require_transformation
from jaxnn.types import Params, PyTree


def as_optax(opt: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer as optax's type, to which optax's combinators pass extra arguments.

    Our rules work inside `optax.chain` and the other combinators unwrapped; only those that need extra arguments such
    as `value` or `value_fn` must be wrapped.

    Args:
        opt: an Optimizer of `jaxnn.optim`, or any object with init and update.

    Raises:
        TypeError: opt has no init and update.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> opt = optax.chain(optax.clip(1.0), as_optax(optim.sgd(0.5)))
        >>> opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)), value=0.0)[0]
        Array([-0.5], dtype=float32)
    """
    require_transformation("as_optax", "opt", opt)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra_args: Any) -> tuple[PyTree, Any]:
        return call_update(opt, updates, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(opt.init, update)
