"""Sharpness-aware minimization, against optax."""

from __future__ import annotations

from typing import Any

import optax
from optax.contrib import normalize, sam

from jaxnn.compare.parity import Case, same
from jaxnn.types import Params, PyTree


def sam_of(library: Any, momentum: float | None = None, **settings: Any) -> Any:
    """Our SAM of SGD, adversary included.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> sam_of(optim).init(jnp.ones(1)).steps_since_sync
        Array(0, dtype=int32)
    """
    adversary = library.chain(library.normalize(), library.sgd(0.1, momentum))
    return library.sam(library.sgd(0.1, 0.9), adversary, **settings)


def optax_sam(momentum: float | None = None, **settings: Any) -> Any:
    """optax's SAM of the same, which takes `grad_fn` alone of the extra arguments, with two arguments of its own.

    Example:
        >>> import jax.numpy as jnp
        >>> optax_sam().init(jnp.ones(1)).steps_since_sync
        Array(0, dtype=int32)
    """
    inner = sam(optax.sgd(0.1, 0.9), optax.chain(normalize(), optax.sgd(0.1, momentum)), **settings)

    def update(
        updates: PyTree, state: Any, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        return inner.update(updates, state, params, grad_fn=lambda params, i: grad_fn(params))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def case(momentum: float | None = None, **settings: Any) -> Case:
    """SAM in both libraries.

    Example:
        >>> case(sync_period=3).differs
        ''
    """
    return Case(
        lambda library: sam_of(library, momentum, **settings),
        lambda: optax_sam(momentum, **settings),
        fields={"opt_state": "", "adv_state": "", "count": ""},
    )


CASES: dict[str, Case] = {
    "normalize": same("normalize"),
    "sam": case(),
    "sam: period 1": Case(
        lambda library: sam_of(library, sync_period=1),
        lambda: optax.sgd(0.1, 0.9),
        "optax's outer rule starts from parameters that are out of date; here SAM of period 1 is the outer rule, and "
        "that is what it is compared to",
        {"count": ""},
    ),
    "sam: momentum": case(0.9, sync_period=3),
    "sam: no reset": case(0.9, sync_period=3, reset_state=False),
    "sam: opaque": case(opaque_mode=True),
    "sam: opaque, momentum": case(0.9, sync_period=3, opaque_mode=True),
    "sam: opaque, no reset": case(0.9, sync_period=3, reset_state=False, opaque_mode=True),
}
