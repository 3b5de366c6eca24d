"""MoMo and MoMo-Adam, against optax."""

from typing import Any

import jax
import optax

from jaxnn.compare.parity import Case, same


def proximal(name: str, learning_rate: float, *, weight_decay: float, **kwargs: Any) -> Case:
    """A case of decay in which optax's step is divided as the parameters are.

    Example:
        >>> proximal("momo", 0.1, weight_decay=0.05).differs[:5]
        'optax'
    """
    c = 1 + learning_rate * weight_decay

    def theirs() -> Any:
        opt = getattr(optax.contrib, name)(learning_rate, weight_decay=weight_decay, **kwargs)

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            updates, state = opt.update(updates, state, params, **extra)
            return jax.tree.map(lambda u, p: (u + (1 - 1 / c) * p) / c - (1 - 1 / c) * p, updates, params), state

        return optax.GradientTransformationExtraArgs(opt.init, update)

    return Case(
        lambda library: getattr(library, name)(learning_rate, weight_decay=weight_decay, **kwargs),
        theirs,
        "optax divides the parameters by 1 + learning_rate weight_decay, but not the step; here it is divided too, as "
        "the paper and its authors do",
    )


CASES: dict[str, Case] = {
    "momo": same("momo", 0.05),
    "momo: model": same("momo", 0.2, beta=0.5, lower_bound=5.0),
    "momo: decay": proximal("momo", 0.1, weight_decay=0.2, lower_bound=5.0),
    "momo: adapts": same("momo", 0.02, lower_bound=1.0, adapt_lower_bound=True),
    "momo: adapts from above": same("momo", 0.02, lower_bound=60.0, adapt_lower_bound=True),
    "momo_adam": same("momo_adam", 0.02),
    "momo_adam: model": same("momo_adam", 0.2, b1=0.7, b2=0.9, eps=1e-2, lower_bound=5.0),
    "momo_adam: decay": proximal("momo_adam", 0.05, weight_decay=0.2, lower_bound=5.0),
    "momo_adam: adapts": same("momo_adam", 0.05, lower_bound=1.0, adapt_lower_bound=True),
}
