"""Rules that adapt or avoid the learning rate, against optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnn.compare.cases.adaptive import decaying
from jaxnn.compare.parity import Case, same
from jaxnn.types import Array

MASK = {"w": True, "parts": False, "nothing": None}


def descending(*args: Any) -> Case:
    """A case of the layer-wise form followed by scaling by -0.5."""

    def shaped(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p: u.reshape(p.shape), updates, params)

    return Case(
        lambda library: library.chain(library.scale_by_distance_over_gradients(*args), library.scale(-0.5)),
        lambda: optax.chain(optax.scale_by_distance_over_gradients(*args), optax.stateless(shaped), optax.scale(-0.5)),
        "optax returns an update of shape (1,) for a parameter of shape (); the case reshapes it",
    )


def proximal(name: str, learning_rate: float, *, weight_decay: float, **kwargs: Any) -> Case:
    """A case of weight decay in which optax's step is divided as the parameters are."""
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


SCALING = (
    "optax takes the norm of the scaled gradient, unlike its documentation; here the scaling follows the step size, so "
    "the case chains optax's parts in that order"
)

WARM_UP = (
    "optax computes the warm-up in float32; the comparison passes it the same base rule and schedule in float64, and "
    "the peak here is a float64 array"
)

SKIPPED = {"base_optimizer_state": ""}

"""The base rules' states differ in their nesting; their moments are compared by name."""


def rising(count: Array) -> Array:
    """From 0 to 0.1 in 20 steps, in the default floating dtype (float64 in `measure`)."""
    return 0.1 * jnp.minimum(jnp.asarray(count, float) / 20, 1)


def schedule_free_case(name: str, *args: Any, **kwargs: Any) -> Case:
    """A case with the same arguments in both libraries."""
    theirs = getattr(optax.contrib, name)
    return Case(
        lambda library: getattr(library, name)(*args, **kwargs), lambda: theirs(*args, **kwargs), fields=SKIPPED
    )


CASES: dict[str, Case] = {
    # COCOB
    "scale_by_cocob": same("scale_by_cocob"),
    "cocob": same("cocob"),
    "cocob: settings": same("cocob", decaying, alpha=10.0, eps=1e-2, weight_decay=0.1),
    "cocob: mask": same("cocob", weight_decay=0.1, mask={"w": True, "parts": False, "nothing": None}),
    # D-adapted Adam and Prodigy
    "dadapt_adamw": same("dadapt_adamw"),
    "dadapt_adamw: settings": same("dadapt_adamw", 0.5, betas=(0.8, 0.95), eps=1e-2, estim_lr0=1e-3, weight_decay=0.05),
    "dadapt_adamw: schedule": same("dadapt_adamw", decaying, estim_lr0=1e-2),
    "prodigy": same("prodigy", 0.1),
    "prodigy: settings": same(
        "prodigy", 0.3, betas=(0.8, 0.95), beta3=0.9, eps=1e-2, estim_lr0=1e-3, estim_lr_coef=0.7, weight_decay=0.05
    ),
    "prodigy: schedule": same("prodigy", decaying, estim_lr0=1e-3),
    "prodigy: safeguard": same("prodigy", 0.3, estim_lr0=1e-3, safeguard_warmup=True),
    # Distance over gradients
    "dog": same("dog"),
    "dog: distance": same("dog", 0.5, ("distance", 0.1), eps=0.5),
    "dog: first rate": same("dog", 0.5, ("learning_rate", 1e-3)),
    "dog: heuristic": same("dog", decaying, ("heuristic", 0.1), weight_decay=0.05),
    "dog: mask": same("dog", 0.5, ("distance", 0.1), weight_decay=0.2, mask=MASK),
    "dowg": same("dowg"),
    "dowg: settings": same("dowg", 0.3, 0.05, eps=0.5, weight_decay=0.05),
    "dowg: mask": same("dowg", decaying, weight_decay=0.2, mask=MASK),
    "scale_by_distance_over_gradients": descending(),
    "scale_by_distance_over_gradients: settings": descending(0.01, 0.5, float, 0.8),
    # MoMo and MoMo-Adam
    "momo": same("momo", 0.05),
    "momo: model": same("momo", 0.2, beta=0.5, lower_bound=5.0),
    "momo: decay": proximal("momo", 0.1, weight_decay=0.2, lower_bound=5.0),
    "momo: adapts": same("momo", 0.02, lower_bound=1.0, adapt_lower_bound=True),
    "momo: adapts from above": same("momo", 0.02, lower_bound=60.0, adapt_lower_bound=True),
    "momo_adam": same("momo_adam", 0.02),
    "momo_adam: model": same("momo_adam", 0.2, b1=0.7, b2=0.9, eps=1e-2, lower_bound=5.0),
    "momo_adam: decay": proximal("momo_adam", 0.05, weight_decay=0.2, lower_bound=5.0),
    "momo_adam: adapts": same("momo_adam", 0.05, lower_bound=1.0, adapt_lower_bound=True),
    # Polyak's step size
    "scale_by_polyak": Case(
        lambda library: library.chain(library.scale_by_polyak(0.1, 0.3, 0.2), library.scale(-1.0)),
        lambda: optax.chain(optax.scale_by_polyak(0.1, 0.3, 0.2), optax.scale(-1.0)),
    ),
    "polyak_sgd": same("polyak_sgd", 0.2),
    "polyak_sgd: sps": same("polyak_sgd", 0.2, f_min=8.0, eps=0.1),
    "polyak_sgd: sps+": same("polyak_sgd", 0.2, f_min=8.0, eps=0.1, variant="sps+"),
    "polyak_sgd: scaling": Case(
        lambda library: library.polyak_sgd(1.0, 0.1),
        lambda: optax.chain(optax.scale_by_polyak(), optax.sgd(0.1)),
        SCALING,
    ),
    "polyak_sgd: schedule": Case(
        lambda library: library.polyak_sgd(1.0, decaying, 0.5),
        lambda: optax.chain(optax.scale_by_polyak(0.5), optax.sgd(decaying)),
        SCALING,
    ),
    "polyak_sgd: optax's scaling": Case(
        lambda library: library.chain(library.sgd(0.5), library.scale_by_polyak(max_learning_rate=0.2)),
        lambda: optax.polyak_sgd(0.2, 0.5),
        "optax takes the norm of the scaled gradient: so does this chain",
    ),
    # Schedule-free rules
    "schedule_free": Case(
        lambda library: library.schedule_free(library.sgd(decaying), decaying, b1=0.7, weight_lr_power=1.0),
        lambda: optax.contrib.schedule_free(optax.sgd(decaying), decaying, b1=0.7, weight_lr_power=1.0),
        fields=SKIPPED,
    ),
    "schedule_free: sign steps": Case(
        lambda library: library.schedule_free(library.sign_sgd(0.02), 0.02),
        lambda: optax.contrib.schedule_free(optax.sign_sgd(0.02), 0.02),
        fields=SKIPPED,
    ),
    "schedule_free: plain mean": schedule_free_case("schedule_free_sgd", 0.1, weight_lr_power=0.0, b1=1.0),
    "schedule_free_sgd": schedule_free_case("schedule_free_sgd", 0.05),
    "schedule_free_sgd: decay": schedule_free_case("schedule_free_sgd", 0.1, b1=0.8, weight_decay=0.05),
    "schedule_free_sgd: warm-up": Case(
        lambda library: library.schedule_free_sgd(jnp.asarray(0.1, float), 20, b1=0.8, weight_lr_power=1.5),
        lambda: optax.contrib.schedule_free(optax.sgd(rising), rising, b1=0.8, weight_lr_power=1.5),
        WARM_UP,
        SKIPPED,
    ),
    "schedule_free_adamw": schedule_free_case("schedule_free_adamw", 0.02),
    "schedule_free_adamw: settings": schedule_free_case(
        "schedule_free_adamw", 0.05, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.05, weight_lr_power=1.0
    ),
    "schedule_free_adamw: warm-up": Case(
        lambda library: library.schedule_free_adamw(jnp.asarray(0.1, float), 20),
        lambda: optax.contrib.schedule_free(optax.adamw(rising, b1=0.0, weight_decay=0.0), rising),
        WARM_UP,
        SKIPPED,
    ),
}
