"""SGD, rules that divide by moments of gradients, and trust ratios, against optax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from jaxnn.compare.parity import Case, same
from jaxnn.optim.rules.factored import power_decay
from jaxnn.types import Array


def decaying(count: Array) -> Array:
    """A schedule that halves the rate in 20 steps, in the default floating dtype (float64 in `measure`)."""
    return 0.1 / (1.0 + 0.05 * jnp.asarray(count, float))


ADAN = "optax weights differences of gradients by 1 - b2, the paper by b2; difference_weight=1 - b2 restores equality"


def precise_factored_rms(**settings: Any) -> Any:
    """optax's scale_by_factored_rms, with the decay computed in the default floating dtype."""
    return optax.scale_by_factored_rms(**({"decay_rate_fn": power_decay} | settings))


def precise_adafactor(
    learning_rate: Any = None,
    *,
    parameter_scale: bool = True,
    threshold: float | None = 1.0,
    momentum: float | None = None,
    weight_decay_rate: Any = None,
    mask: Any = None,
    **settings: Any,
) -> Any:
    """optax's adafactor, assembled from optax's parts around `precise_factored_rms`."""
    return optax.chain(
        precise_factored_rms(**settings),
        optax.identity() if threshold is None else optax.clip_by_block_rms(threshold),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_param_block_rms() if parameter_scale else optax.identity(),
        optax.identity() if momentum is None else optax.ema(momentum, debias=False),
        optax.identity() if weight_decay_rate is None else optax.add_decayed_weights(weight_decay_rate, mask=mask),
        optax.scale(-1),
    )


SINGLE = (
    "optax computes the decay in float32 even for float64 parameters; the comparison passes it the same decay in the "
    "dtype of the run"
)

MASK = {"w": True, "parts": False, "nothing": None}

SOME = {"w": True, "parts": (False, True, True), "nothing": None}

CASES: dict[str, Case] = {
    # Gradient descent with momentum and the Adam family
    "sgd": same("sgd", 0.1),
    "sgd: momentum": same("sgd", 0.05, momentum=0.9),
    "sgd: nesterov": same("sgd", 0.05, momentum=0.9, nesterov=True),
    "sgd: schedule": same("sgd", decaying, momentum=0.5),
    "trace": same("trace", 0.3),
    "adam": same("adam", 0.1),
    "adam: schedule": same("adam", decaying, b1=0.8, b2=0.95, eps=1e-3),
    "adam: eps_root": same("adam", 0.1, eps_root=1e-2),
    "adam: no mu": Case(
        lambda library: library.adam(0.1, b1=0.0),
        lambda: optax.adam(0.1, b1=0.0),
        "b1=0.0 keeps no mu here; optax keeps a mu equal to the gradient",
    ),
    "scale_by_adam": same("scale_by_adam", b1=0.7),
    "adamw": same("adamw", 0.1, weight_decay=0.05),
    "adamw: mask": same("adamw", 0.1, weight_decay=0.05, mask={"w": True, "parts": False, "nothing": None}),
    "nadam": same("nadam", 0.1),
    "nadamw": same("nadamw", 0.1, weight_decay=0.05),
    # Rules with Adam-like moments
    "adamax": same("adamax", 0.1),
    "adamax: eps": same("adamax", decaying, b1=0.8, b2=0.95, eps=0.1),
    "scale_by_adamax": same("scale_by_adamax", eps=1e-3),
    "adamaxw": same("adamaxw", 0.05, weight_decay=0.1),
    "amsgrad": same("amsgrad", 0.1),
    "amsgrad: eps_root": same("amsgrad", 0.1, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-2),
    "amsgrad: uncorrected": same("amsgrad", 0.05, b2=0.9, bias_correction_mu=False, bias_correction_nu=False),
    "scale_by_amsgrad": same("scale_by_amsgrad", b2=0.9),
    "adabelief": same("adabelief", 0.02),
    "adabelief: eps": same("adabelief", 0.05, b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3),
    "adabelief: nesterov": same("adabelief", 0.02, eps=1e-3, nesterov=True),
    "scale_by_belief": same("scale_by_belief", eps=1e-2),
    "acprop": same("acprop", 0.02, eps_root=1e-4),
    "acprop: decay": same("acprop", 0.02, b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3, weight_decay=0.1),
    "scale_by_acprop": same("scale_by_acprop", eps=0.1, eps_root=1e-2),
    "yogi": same("yogi", 0.05),
    "yogi: eps": same("yogi", 0.05, b1=0.8, b2=0.9, eps=0.1),
    "scale_by_yogi": same("scale_by_yogi", b2=0.9, eps_root=1e-2, initial_accumulator_value=0.1),
    "radam": same("radam", 0.05),
    "radam: early": same("radam", 0.05, b2=0.9, eps=1e-3, eps_root=1e-2, threshold=6.0),
    "radam: nesterov": same("radam", 0.05, b2=0.95, nesterov=True),
    "scale_by_radam": same("scale_by_radam", b2=0.9),
    "adan": Case(
        lambda library: library.adan(0.05, difference_weight=1 - 0.92), lambda: optax.adan(0.05), ADAN, {"count": "t"}
    ),
    "adan: decay": Case(
        lambda library: library.adan(0.05, 0.9, 0.8, 0.95, 1e-3, weight_decay=0.1, difference_weight=1 - 0.8),
        lambda: optax.adan(0.05, 0.9, 0.8, 0.95, 1e-3, weight_decay=0.1),
        ADAN,
        {"count": "t"},
    ),
    "scale_by_adan": Case(
        lambda library: library.scale_by_adan(eps_root=1e-2, difference_weight=1 - 0.92),
        lambda: optax.scale_by_adan(eps_root=1e-2),
        ADAN,
        {"count": "t"},
    ),
    "novograd": same("novograd", 0.05),
    "novograd: decay": same("novograd", 0.05, b1=0.8, b2=0.5, eps=1e-2, eps_root=1e-2, weight_decay=0.1),
    "scale_by_novograd": same("scale_by_novograd", 0.5),
    "ademamix": same("ademamix", 0.02),
    "ademamix: schedules": same(
        "ademamix",
        0.02,
        b1=0.8,
        b2=0.95,
        b3=lambda t: 0.99 - 0.1 * decaying(t),
        alpha=decaying,
        eps=1e-3,
        weight_decay=0.1,
    ),
    "scale_by_ademamix": same("scale_by_ademamix", eps_root=1e-2),
    "simplified_ademamix": same("simplified_ademamix", 1e-3, fields={"count": "t"}),
    "simplified_ademamix: alpha": same(
        "simplified_ademamix", 1e-3, b1=0.9, alpha=2.0, eps=1e-2, weight_decay=0.1, fields={"count": "t"}
    ),
    "scale_by_simplified_ademamix": same("scale_by_simplified_ademamix", 0.5, alpha=1.0, fields={"count": "t"}),
    "adopt": same("adopt", 0.05),
    "adopt: nesterov": same("adopt", 0.02, b1=0.8, b2=0.95, eps=0.5, nesterov=True),
    "adopt: unclipped": same("adopt", 0.02, b2=0.95, use_clipping=False),
    "scale_by_adopt": same("scale_by_adopt", clip_value_fn=lambda count: 0.1 + 0.0 * count),
    # Adagrad
    "scale_by_rss": same("scale_by_rss"),
    "scale_by_rss: start and eps": same("scale_by_rss", initial_accumulator_value=0.5, eps=1e-2),
    "adagrad": same("adagrad", 0.1),
    "adagrad: schedule": same("adagrad", decaying, initial_accumulator_value=0.0, eps=1e-3),
    "adagrad_as_published": Case(
        lambda library: library.adagrad_as_published(0.1),
        lambda: optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0),
        "optax's equivalent is adagrad with initial_accumulator_value=0.0 and eps=0.0",
    ),
    # Adadelta
    "scale_by_adadelta": same("scale_by_adadelta"),
    "scale_by_adadelta: rho and eps": same("scale_by_adadelta", rho=0.7, eps=1e-2),
    "adadelta": same("adadelta", 1.0),
    "adadelta: no learning rate": Case(
        lambda library: library.adadelta(eps=1e-3),
        lambda: optax.adadelta(1.0, eps=1e-3),
        "learning_rate=None is 1 here; optax ascends with None, so the comparison passes it 1.0",
    ),
    "adadelta: schedule": same("adadelta", decaying, eps=1e-2),
    "adadelta: decay": same("adadelta", 1.0, rho=0.8, eps=1e-3, weight_decay=0.1),
    "adadelta: decay schedule": same("adadelta", 1.0, eps=1e-3, weight_decay=decaying),
    "adadelta: mask": same(
        "adadelta", 1.0, eps=1e-3, weight_decay=0.1, weight_decay_mask={"w": True, "parts": False, "nothing": None}
    ),
    # RMSprop
    "scale_by_rms": same("scale_by_rms"),
    "scale_by_rms: eps outside": same("scale_by_rms", 0.8, 1e-2, 0.5, eps_in_sqrt=False),
    "scale_by_rms: corrected": same("scale_by_rms", decay=0.95, bias_correction=True),
    "scale_by_stddev": same("scale_by_stddev", eps=1e-2),
    "scale_by_stddev: corrected": same("scale_by_stddev", 0.8, 1e-2, 0.5, eps_in_sqrt=False, bias_correction=True),
    "rmsprop": same("rmsprop", 0.05),
    "rmsprop: schedule": same("rmsprop", decaying, decay=0.8, eps=1e-3),
    "rmsprop: eps outside": same("rmsprop", 0.05, eps=1e-2, eps_in_sqrt=False),
    "rmsprop: initial_scale": same("rmsprop", 0.02, initial_scale=2.0),
    "rmsprop: corrected": same("rmsprop", 0.05, bias_correction=True),
    "rmsprop: centered": same("rmsprop", 0.05, eps=1e-3, initial_scale=0.5, centered=True),
    "rmsprop: centered, corrected": same("rmsprop", 0.02, eps=1e-2, centered=True, bias_correction=True),
    "rmsprop: momentum": same("rmsprop", decaying, momentum=0.9),
    "rmsprop: nesterov": same("rmsprop", 0.02, momentum=0.8, nesterov=True),
    "rmsprop: centered, momentum": same("rmsprop", 0.01, eps=1e-3, centered=True, momentum=0.9),
    # Adafactor and its factored second moments
    "scale_by_factored_rms": Case(
        lambda library: library.scale_by_factored_rms(), lambda: precise_factored_rms(), SINGLE
    ),
    "scale_by_factored_rms: matrices": Case(
        lambda library: library.scale_by_factored_rms(decay_rate=0.6, min_dim_size_to_factor=2, epsilon=1e-3),
        lambda: precise_factored_rms(decay_rate=0.6, min_dim_size_to_factor=2, epsilon=1e-3),
        SINGLE,
    ),
    "scale_by_factored_rms: decay_rate_fn": same(
        "scale_by_factored_rms", min_dim_size_to_factor=3, decay_rate_fn=lambda count, rate: 0.9 * rate
    ),
    "adafactor": Case(lambda library: library.adafactor(0.1), lambda: precise_adafactor(0.1), SINGLE),
    "adafactor: optax's own": Case(
        lambda library: library.adafactor(0.1, 2),
        lambda: optax.adafactor(0.1, 2),
        "optax computes the decay in float32 even for float64 parameters: equal to single precision",
        steps=20,
        tolerance=1e-6,
    ),
    "adafactor: matrices": Case(
        lambda library: library.adafactor(decaying, 2, decay_rate=0.7, decay_offset=-5, eps=1e-3),
        lambda: precise_adafactor(decaying, min_dim_size_to_factor=2, decay_rate=0.7, step_offset=-5, epsilon=1e-3),
        SINGLE,
    ),
    "adafactor: no learning rate": Case(
        lambda library: library.adafactor(clipping_threshold=0.05, factored=False),
        lambda: precise_adafactor(threshold=0.05, factored=False),
        SINGLE,
    ),
    "adafactor: plain": Case(
        lambda library: library.adafactor(0.05, 2, multiply_by_parameter_scale=False, clipping_threshold=None),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, parameter_scale=False, threshold=None),
        SINGLE,
    ),
    "adafactor: momentum": Case(
        lambda library: library.adafactor(0.05, 2, momentum=0.8, dtype_momentum=None),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, momentum=0.8),
        SINGLE,
    ),
    "adafactor: decay": Case(
        lambda library: library.adafactor(0.05, 2, weight_decay_rate=0.01),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, weight_decay_rate=0.01),
        SINGLE,
    ),
    "adafactor: mask": Case(
        lambda library: library.adafactor(0.05, 2, weight_decay_rate=decaying, weight_decay_mask=MASK),
        lambda: precise_adafactor(0.05, min_dim_size_to_factor=2, weight_decay_rate=decaying, mask=MASK),
        SINGLE,
    ),
    # SM3, which takes no scalars: the pytree holds matrices. Its sums are compared in the tests
    "scale_by_sm3": Case(
        lambda library: library.scale_by_sm3(), lambda: optax.scale_by_sm3(), fields={"mu": ""}, matrices=True
    ),
    "scale_by_sm3: b2 and eps": Case(
        lambda library: library.scale_by_sm3(0.5, 0.9, 1e-2),
        lambda: optax.scale_by_sm3(0.5, 0.9, 1e-2),
        fields={"mu": ""},
        matrices=True,
    ),
    "sm3": Case(lambda library: library.sm3(0.1), lambda: optax.sm3(0.1), fields={"mu": ""}, matrices=True),
    "sm3: no momentum": Case(
        lambda library: library.sm3(0.1, momentum=None),
        lambda: optax.sm3(0.1, momentum=0.0),
        "momentum=None and 0.0 keep no nu here; optax fails on None, and for 0.0 keeps a nu equal to the direction",
        fields={"mu": ""},
        matrices=True,
    ),
    # Sophia with Hutchinson's estimator; the random signs are the same in both
    "sophia": same("sophia", 0.02),
    "sophia: decay": same("sophia", decaying, weight_decay=0.05, b1=0.8, b2=0.9),
    "sophia: mask": same(
        "sophia", 0.02, weight_decay=0.05, weight_decay_mask={"w": True, "parts": False, "nothing": None}
    ),
    "sophia: gamma": same("sophia", 0.05, gamma=0.5, eps=1e-3, clip_threshold=0.5, update_interval=3),
    "sophia: no clipping": same("sophia", 0.01, gamma=1.0, eps=0.1, clip_threshold=None, update_interval=1),
    "sophia: another estimator": Case(
        lambda library: library.sophia(0.02, hessian_diagonal_fn=library.scale(0.5), gamma=1.0),
        lambda: optax.contrib.sophia(0.02, hessian_diagonal_fn=optax.scale(0.5), gamma=1.0),
    ),
    # Trust ratios, LARS, LAMB and Fromage
    "scale_by_trust_ratio": Case(
        lambda library: library.chain(library.scale_by_trust_ratio(), library.scale(-0.05)),
        lambda: optax.chain(optax.scale_by_trust_ratio(), optax.scale(-0.05)),
    ),
    "scale_by_trust_ratio: settings": Case(
        lambda library: library.chain(library.scale_by_trust_ratio(1.5, 0.3, 0.1), library.scale(-0.05)),
        lambda: optax.chain(optax.scale_by_trust_ratio(1.5, 0.3, 0.1), optax.scale(-0.05)),
    ),
    "lars": same("lars", 0.1),
    "lars: decay": same("lars", decaying, weight_decay=0.05, trust_coefficient=0.1, eps=1e-2, momentum=0.5),
    "lars: nesterov": same("lars", 0.1, weight_decay=0.05, trust_coefficient=0.05, nesterov=True),
    "lars: masks": same(
        "lars", 0.05, weight_decay=0.05, weight_decay_mask=SOME, trust_coefficient=0.1, trust_ratio_mask=SOME
    ),
    "lars: decay schedule": same("lars", 0.1, weight_decay=decaying, trust_coefficient=0.1),
    "lamb": same("lamb", 0.02),
    "lamb: decay": same("lamb", decaying, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.05),
    "lamb: mask": same("lamb", 0.02, eps_root=1e-2, weight_decay=0.05, mask=SOME),
    "lamb: decay schedule": same("lamb", 0.02, weight_decay=decaying),
    "fromage": same("fromage", 0.02),
    "fromage: schedule": same("fromage", decaying, min_norm=1.5),
}
