"""Sign rules, Rprop, MADGRAD, optimistic rules, sharpness-aware minimization and noise, against optax."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import normalize, sam

from jaxnn.compare.cases.adaptive import decaying
from jaxnn.compare.parity import Case, as_extra, same
from jaxnn.optim import Optimizer
from jaxnn.optim.scalars import at_count
from jaxnn.types import Array, Params, PyTree, ScalarOrSchedule


def punctual_rprop(*, sign: float = -1.0, **settings: Any) -> Any:
    """optax's scale_by_rprop, with the direction in its new state as the update, times a sign."""
    late = optax.scale_by_rprop(**settings)

    def update(updates: PyTree, state: Any, params: Params | None = None) -> tuple[PyTree, Any]:
        _, state = late.update(updates, state, params)
        return jax.tree.map(lambda u: sign * u, state.prev_updates), state

    return optax.GradientTransformation(late.init, update)


LATE = (
    "optax steps along the previous step's direction (its first update is 0); here, as in the paper and PyTorch, along "
    "the current one, which optax keeps in its state; the comparison reads it there"
)

BOUNDED = {"learning_rate": 0.05, "eta_minus": 0.3, "eta_plus": 1.5, "min_step_size": 1e-2, "max_step_size": 0.5}

SINGLE = (
    "optax computes sqrt(k + 1) in float32 even for float64 parameters, with an error of 1e-8; the comparison passes "
    "it a schedule multiplied by the ratio of the exact root to that one"
)


def exact(learning_rate: ScalarOrSchedule, eps: float = 1e-6) -> Callable[[Array], Array]:
    """The schedule with which optax's product (learning_rate + eps) sqrt(k + 1) is exact."""

    def rate(count: Array) -> Array:
        ratio = jnp.sqrt((count + 1).astype(float)) / jnp.sqrt(count + 1).astype(float)
        return (jnp.asarray(at_count(learning_rate, count), float) + eps) * ratio - eps

    return rate


def madgrad_case(name: str, learning_rate: ScalarOrSchedule, **settings: Any) -> Case:
    """A case in which optax receives the learning rate of `exact`."""
    theirs = getattr(optax.contrib, name)
    eps = settings.get("eps", 1e-6)
    return Case(
        lambda library: getattr(library, name)(learning_rate, **settings),
        lambda: theirs(exact(learning_rate, eps), **settings),
        SINGLE,
    )


def deprecated_optimistic_adam(*args: Any, **kwargs: Any) -> Any:
    """optax's optimistic_adam without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optax.optimistic_adam(*args, **kwargs)


def sam_of(library: Any, momentum: float | None = None, **settings: Any) -> Any:
    """Our SAM around SGD, with normalized SGD as its adversary."""
    adversary = library.chain(library.normalize(), library.sgd(0.1, momentum))
    return library.sam(library.sgd(0.1, 0.9), adversary, **settings)


def optax_sam(momentum: float | None = None, **settings: Any) -> Any:
    """The same SAM by optax; its `grad_fn` takes the step of the adversary too, which ours does not."""
    inner = sam(optax.sgd(0.1, 0.9), optax.chain(normalize(), optax.sgd(0.1, momentum)), **settings)

    def update(
        updates: PyTree, state: Any, params: Params | None = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        return inner.update(updates, state, params, grad_fn=lambda params, i: grad_fn(params))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def sam_case(momentum: float | None = None, **settings: Any) -> Case:
    """SAM in both libraries."""
    return Case(
        lambda library: sam_of(library, momentum, **settings),
        lambda: optax_sam(momentum, **settings),
        fields={"opt_state": "", "adv_state": "", "count": ""},
    )


def of_three_examples(opt: Any) -> Optimizer:
    """A rule for per-example gradients, with three examples' gradients made from the one passed."""
    inner = as_extra(opt)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        each = jax.tree.map(lambda g: jnp.stack([0.2 * g, -0.4 * g, 2.0 * g]), updates)
        return inner.update(each, state, params, **extra)

    return Optimizer(inner.init, update)


def optax_dpsgd(*args: Any, **settings: Any) -> Any:
    """optax's dpsgd without the warning about its use of seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optax.contrib.dpsgd(*args, **settings)


def private(*args: Any, **settings: Any) -> Case:
    """A case of dpsgd with the same settings in both libraries."""
    return Case(
        lambda library: of_three_examples(library.dpsgd(*args, **settings)),
        lambda: of_three_examples(optax_dpsgd(*args, **settings)),
    )


CASES: dict[str, Case] = {
    # Sign rules and Rprop
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
    # MADGRAD
    "scale_by_madgrad": madgrad_case("scale_by_madgrad", 0.1),
    "madgrad": madgrad_case("madgrad", 0.1),
    "madgrad: decay": madgrad_case("madgrad", decaying, momentum=0.5, weight_decay=0.1, eps=1e-2),
    "madgrad: no momentum": madgrad_case("madgrad", 0.1, momentum=0.0),
    # Optimistic gradient descent and optimistic Adam
    "scale_by_optimistic_gradient": same("scale_by_optimistic_gradient", 0.9, 0.5),
    "optimistic_gradient_descent": same("optimistic_gradient_descent", 0.05),
    "optimistic_gradient_descent: settings": same("optimistic_gradient_descent", decaying, alpha=0.5, beta=0.8),
    "optimistic_adam": Case(lambda library: library.optimistic_adam(0.02), lambda: deprecated_optimistic_adam(0.02)),
    "optimistic_adam: optimism": Case(
        lambda library: library.optimistic_adam(0.02, 0.05, 0.5, 0.9, 1e-3, 1e-2, nesterov=False),
        lambda: deprecated_optimistic_adam(0.02, 0.05, 0.5, 0.9, 1e-3, 1e-2, nesterov=False),
    ),
    "optimistic_adam_v2": same("optimistic_adam_v2", 0.02),
    "optimistic_adam_v2: settings": same(
        "optimistic_adam_v2", decaying, alpha=0.5, beta=0.8, b1=0.5, b2=0.9, eps=1e-3, eps_root=1e-2, nesterov=False
    ),
    # Sharpness-aware minimization
    "normalize": same("normalize"),
    "sam": sam_case(),
    "sam: period 1": Case(
        lambda library: sam_of(library, sync_period=1),
        lambda: optax.sgd(0.1, 0.9),
        "optax's outer rule starts from outdated parameters; it is compared to SAM of period 1 as the outer rule",
        {"count": ""},
    ),
    "sam: momentum": sam_case(0.9, sync_period=3),
    "sam: no reset": sam_case(0.9, sync_period=3, reset_state=False),
    "sam: opaque": sam_case(opaque_mode=True),
    "sam: opaque, momentum": sam_case(0.9, sync_period=3, opaque_mode=True),
    "sam: opaque, no reset": sam_case(0.9, sync_period=3, reset_state=False, opaque_mode=True),
    # Noisy gradients: the draws for one key are the same
    "add_noise": Case(
        lambda library: library.chain(library.add_noise(0.1, 0.3, key=1), library.scale(-0.05)),
        lambda: optax.chain(optax.add_noise(0.1, 0.3, key=1), optax.scale(-0.05)),
    ),
    "noisy_sgd": same("noisy_sgd", 0.1, key=0),
    "noisy_sgd: schedule": same("noisy_sgd", decaying, eta=0.5, gamma=0.9, key=3),
    # Private descent: the same clipping, and for one key the same draws
    "differentially_private_aggregate": Case(
        lambda library: of_three_examples(library.differentially_private_aggregate(0.5, 0.1, key=1)),
        lambda: of_three_examples(optax.contrib.differentially_private_aggregate(0.5, 0.1, key=1)),
    ),
    "dpsgd": private(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, seed=0),
    "dpsgd: no noise": private(0.2, l2_norm_clip=3.0, noise_multiplier=0.0, seed=0),
    "dpsgd: momentum": private(decaying, l2_norm_clip=1.0, noise_multiplier=0.5, seed=2, momentum=0.5),
    "dpsgd: nesterov": private(0.1, l2_norm_clip=1.0, noise_multiplier=0.5, seed=2, momentum=0.8, nesterov=True),
}
