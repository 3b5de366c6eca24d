"""Sign rules and Rprop, against optax."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jaxnn.compare.cases.adam import decaying
from jaxnn.compare.parity import Case, same
from jaxnn.types import Params, PyTree


def punctual_rprop(*, sign: float = -1.0, **settings: Any) -> Any:
    """optax's scale_by_rprop with the direction that its new state holds as the update, times a sign.

    Example:
        >>> import jax.numpy as jnp
        >>> opt = punctual_rprop(learning_rate=0.5)
        >>> opt.update(jnp.ones(1), opt.init(jnp.ones(1)))[0]
        Array([-0.5], dtype=float32)
    """
    late = optax.scale_by_rprop(**settings)

    def update(updates: PyTree, state: Any, params: Params | None = None) -> tuple[PyTree, Any]:
        _, state = late.update(updates, state, params)
        return jax.tree.map(lambda u: sign * u, state.prev_updates), state

    return optax.GradientTransformation(late.init, update)


LATE = (
    "optax steps along the direction of the step before (its first update is 0); here, as in the paper and PyTorch, "
    "along this step's, which optax keeps in its state; the comparison takes it from there"
)
BOUNDED = {"learning_rate": 0.05, "eta_minus": 0.3, "eta_plus": 1.5, "min_step_size": 1e-2, "max_step_size": 0.5}

CASES: dict[str, Case] = {
    "scale_by_sign": same("scale_by_sign"),
    "sign_sgd": same("sign_sgd", 0.05),
    "sign_sgd: schedule": same("sign_sgd", decaying),
    "signum": same("signum", 0.05),
    "signum: beta": same("signum", decaying, beta=0.5),
    "scale_by_lion": same("scale_by_lion"),
    "scale_by_lion: smooth": same("scale_by_lion", 0.8, 0.95, mode="smooth", smooth_beta=2.0),
    "scale_by_lion: refined": same("scale_by_lion", 0.5, mode="refined"),
    "lion": same("lion", 0.05),
    "lion: decay": same("lion", decaying, b1=0.8, b2=0.95, weight_decay=0.05),
    "lion: mask": same("lion", 0.05, weight_decay=0.05, mask={"w": True, "parts": False, "nothing": None}),
    "scale_by_rprop": Case(
        lambda library: library.scale_by_rprop(0.01), lambda: punctual_rprop(learning_rate=0.01, sign=1.0), LATE
    ),
    "rprop": Case(lambda library: library.rprop(0.1), lambda: punctual_rprop(learning_rate=0.1), LATE),
    "rprop: factors": Case(lambda library: library.rprop(**BOUNDED), lambda: punctual_rprop(**BOUNDED), LATE),
}
