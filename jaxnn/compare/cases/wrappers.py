"""Transformations of updates and of other optimizers, against optax."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnn.compare.cases.adaptive import decaying
from jaxnn.compare.parity import Case
from jaxnn.types import Array, Params, PyTree


def every_third(step: Array) -> Array:
    """Whether the step is one of 0, 3, 6, ..."""
    return step % 3 == 0


def descending(name: str, *args: Any) -> Case:
    """A case of the transformation followed by scaling by -0.05."""
    return Case(
        lambda library: library.chain(getattr(library, name)(*args), library.scale(-0.05)),
        lambda: optax.chain(getattr(optax, name)(*args), optax.scale(-0.05)),
    )


def before_sgd(name: str, *args: Any, note: str = "", **kwargs: Any) -> Case:
    """A case of the transformation followed by gradient descent with momentum, with the same arguments."""
    return Case(
        lambda library: library.chain(getattr(library, name)(*args, **kwargs), library.sgd(0.05, 0.9)),
        lambda: optax.chain(getattr(optax, name)(*args, **kwargs), optax.sgd(0.05, 0.9)),
        note,
    )


MASK = {"w": True, "parts": (False, True, False), "nothing": None}

LABELS = {"w": "fast", "parts": ("slow", "fast", "still"), "nothing": None}


def by_axes(params: Params) -> PyTree:
    """Labels by the number of axes."""
    return jax.tree.map(lambda p: "fast" if p.ndim > 1 else "slow", params)


PRECISION = "optax accumulates in float32 by default; here in the parameters' dtype, real or complex"


def growing(step: Array) -> Array:
    """2 gradients for each of the first five updates, then 5."""
    return jnp.where(step < 5, 2, 5).astype(jnp.int32)


def leave_out(updates: PyTree, step: Array, params: Params | None) -> tuple[Array, PyTree]:
    """Skip about every second gradient, by the sum of first entries."""
    total = functools.reduce(jnp.add, [jnp.real(u).ravel()[0].astype(float) for u in jax.tree.leaves(updates)])
    return jnp.sin(20 * total) > 0, {"total": total}


def multi_steps(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
    """optax's MultiSteps, accumulating in the parameters' dtype."""

    def fitting(tree: PyTree) -> optax.MultiSteps:
        return optax.MultiSteps(*args, accumulator_dtype=jnp.result_type(*jax.tree.leaves(tree)), **kwargs)

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        return fitting(updates).update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(lambda params: fitting(params).init(params), update)


def reducing(**kwargs: Any) -> Case:
    """A case of gradient descent followed by the reduction."""
    return Case(
        lambda library: library.chain(library.scale(-0.1), library.reduce_on_plateau(**kwargs)),
        lambda: optax.chain(optax.scale(-0.1), optax.contrib.reduce_on_plateau(**kwargs)),
    )


INNER = {"base_optimizer_state": ""}

"""The base rules' states differ in their nesting; their moments are compared by name."""


def around(name: str, rate: float, *, tolerance: float = 1e-12, **kwargs: Any) -> Case:
    """A case of Mechanic around a rule."""
    # The accumulated update is (x0 - p) / sum s, which magnifies the rounding of p by 1 / s_init: hence a large
    # s_init in exact cases, and the tolerance of the default.
    return Case(
        lambda library: library.mechanize(getattr(library, name)(rate), **kwargs),
        lambda: optax.contrib.mechanize(getattr(optax, name)(rate), **kwargs),
        fields=INNER,
        tolerance=tolerance,
    )


CASES: dict[str, Case] = {
    # Rules applied under a condition; Lookahead, whose parameters are a pair, has a test of its own
    "apply_if_finite": Case(
        lambda library: library.apply_if_finite(library.adam(0.05), 3),
        lambda: optax.apply_if_finite(optax.adam(0.05), 3),
    ),
    "conditionally_transform": Case(
        lambda library: library.chain(
            library.conditionally_transform(library.scale_by_adam(), every_third), library.scale(-0.05)
        ),
        lambda: optax.chain(optax.conditionally_transform(optax.scale_by_adam(), every_third), optax.scale(-0.05)),
    ),
    "conditionally_transform: extra": Case(
        lambda library: library.chain(
            library.conditionally_transform(
                library.scale_by_adam(), lambda step, value, **extra: value > 15.0, forward_extra_args=True
            ),
            library.scale(-0.05),
        ),
        lambda: optax.chain(
            optax.conditionally_transform(
                optax.scale_by_adam(), lambda step, value, **extra: value > 15.0, forward_extra_args=True
            ),
            optax.scale(-0.05),
        ),
    ),
    "conditionally_mask": Case(
        lambda library: library.conditionally_mask(library.adam(0.05), every_third),
        lambda: optax.conditionally_mask(optax.adam(0.05), every_third),
    ),
    # Updates times or over norms
    "scale_by_param_block_norm": descending("scale_by_param_block_norm"),
    "scale_by_param_block_norm: bound": descending("scale_by_param_block_norm", 1.5),
    "scale_by_param_block_rms": descending("scale_by_param_block_rms"),
    "scale_by_param_block_rms: bound": descending("scale_by_param_block_rms", 0.8),
    "normalize_by_update_norm": descending("normalize_by_update_norm"),
    "normalize_by_update_norm: settings": descending("normalize_by_update_norm", 0.5, 0.3),
    # Transformations that bound, clean or centre gradients, before a rule
    "clip": before_sgd("clip", 0.3),
    "clip_by_global_norm": before_sgd("clip_by_global_norm", 0.5),
    "clip_by_global_norm: at times": before_sgd("clip_by_global_norm", 8.0),
    "clip_by_block_rms": before_sgd("clip_by_block_rms", 0.3),
    "adaptive_grad_clip": before_sgd("adaptive_grad_clip", 0.02),
    "adaptive_grad_clip: eps": before_sgd("adaptive_grad_clip", 0.02, eps=3.0),
    "adaptive_grad_clip: axis": before_sgd("adaptive_grad_clip", 0.02, axis=()),
    "zero_nans": before_sgd("zero_nans"),
    "centralize": Case(
        lambda library: library.chain(library.centralize(keep_axis=0), library.sgd(0.05, 0.9)),
        lambda: optax.chain(optax.centralize(), optax.sgd(0.05, 0.9)),
        "the mean is over all axes but the last, the outputs; optax takes all but the first: keep_axis=0",
    ),
    "keep_params_nonnegative": Case(
        lambda library: library.chain(library.sgd(0.05, 0.9), library.keep_params_nonnegative()),
        lambda: optax.chain(optax.sgd(0.05, 0.9), optax.keep_params_nonnegative()),
        positive=True,
    ),
    # Transformations of some parameters
    "masked": Case(
        lambda library: library.chain(library.masked(library.scale_by_adam(b1=0.8), MASK), library.scale(-0.05)),
        lambda: optax.chain(optax.masked(optax.scale_by_adam(b1=0.8), MASK), optax.scale(-0.05)),
    ),
    "masked: function": Case(
        lambda library: library.chain(
            library.masked(library.add_decayed_weights(0.1), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
            library.adam(0.05),
        ),
        lambda: optax.chain(
            optax.masked(optax.add_decayed_weights(0.1), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
            optax.adam(0.05),
        ),
        fields={"inner_state": ""},
    ),
    "partition": Case(
        lambda library: library.partition(
            {"fast": library.adam(0.1), "slow": library.adam(0.01), "still": library.set_to_zero()}, LABELS
        ),
        lambda: optax.partition(
            {"fast": optax.adam(0.1), "slow": optax.adam(0.01), "still": optax.set_to_zero()}, LABELS
        ),
    ),
    "multi_transform: function": Case(
        lambda library: library.multi_transform({"fast": library.adam(0.1), "slow": library.sgd(0.01, 0.9)}, by_axes),
        lambda: optax.multi_transform({"fast": optax.adam(0.1), "slow": optax.sgd(0.01, 0.9)}, by_axes),
        "sgd counts its steps here",
        fields={"inner_states": "", "inner_state": ""},
    ),
    "freeze": Case(
        lambda library: library.chain(library.adam(0.05), library.freeze(MASK)),
        lambda: optax.chain(optax.adam(0.05), optax.freeze(MASK)),
    ),
    "selective_transform": Case(
        lambda library: library.selective_transform(library.adam(0.05), freeze_mask=MASK),
        lambda: optax.selective_transform(optax.adam(0.05), freeze_mask=MASK),
    ),
    # Gradients accumulated over several steps
    "MultiSteps": Case(
        lambda library: library.MultiSteps(library.adam(0.1), 3), lambda: multi_steps(optax.adam(0.1), 3), PRECISION
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
    # The moving average of updates, and the optimizer that averages its parameters
    "ema": Case(
        lambda library: library.chain(library.ema(0.8), library.scale(-0.05)),
        lambda: optax.chain(optax.ema(0.8), optax.scale(-0.05)),
    ),
    "ema: biased": Case(
        lambda library: library.chain(library.ema(0.8, debias=False), library.scale(-0.05)),
        lambda: optax.chain(optax.ema(0.8, debias=False), optax.scale(-0.05)),
    ),
    "average_params": Case(
        lambda library: library.average_params(library.adam(0.05), 0.9),
        lambda: optax.adam(0.05),
        "optax keeps no average in the state",
    ),
    # Hyperparameters in the state, constant and scheduled
    "inject_hyperparams": Case(
        lambda library: library.inject_hyperparams(library.adam)(0.1, b2=0.99),
        lambda: optax.inject_hyperparams(optax.adam)(0.1, b2=0.99),
    ),
    "inject_hyperparams: schedule": Case(
        lambda library: library.inject_hyperparams(library.adamw)(
            decaying, weight_decay=lambda count: 0.5 * decaying(count), b1=0.8
        ),
        lambda: optax.inject_hyperparams(optax.adamw)(
            decaying, weight_decay=lambda count: 0.5 * decaying(count), b1=0.8
        ),
    ),
    # Other layouts of the parameters
    "flatten": Case(
        lambda library: library.flatten(library.chain(library.clip_by_block_rms(0.5), library.adam(0.05))),
        lambda: optax.flatten(optax.chain(optax.clip_by_block_rms(0.5), optax.adam(0.05))),
    ),
    "split_real_and_imaginary": Case(
        lambda library: library.split_real_and_imaginary(library.adam(0.05)),
        lambda: optax.contrib.split_real_and_imaginary(optax.adam(0.05)),
    ),
    # Measurements inside a chain
    "snapshot": Case(
        lambda library: library.chain(library.snapshot("norm", library.global_norm), library.adam(0.05)),
        lambda: optax.chain(optax.snapshot("norm", optax.tree.norm), optax.adam(0.05)),
    ),
    # The reduction of the learning rate on a plateau
    "reduce_on_plateau": reducing(),
    "reduce_on_plateau: settings": reducing(factor=0.7, patience=3, rtol=0.05, atol=0.1, cooldown=4, min_scale=0.2),
    "reduce_on_plateau: means": reducing(factor=0.5, patience=2, accumulation_size=7),
    # Mechanic around several rules
    "mechanize": around("sgd", 0.1, s_init=0.5),
    "mechanize: default": around("sgd", 0.1, tolerance=1e-8),
    "mechanize: adam": around("adam", 0.05, s_init=0.3),
    "mechanize: settings": around("sgd", 0.1, weight_decay=0.5, eps=1e-3, s_init=0.2, num_betas=3),
    # Precision wrappers, where they change nothing: in float64, and for leaves too small to be quantized
    "kahan": Case(
        lambda library: library.kahan(library.adam(0.01)),
        lambda: optax.adam(0.01),
        "no counterpart in optax; in float64 the compensation changes the last place only",
    ),
    "quantized_state": Case(
        lambda library: library.quantized_state(library.adam(0.1)),
        lambda: optax.adam(0.1),
        "no counterpart in optax; leaves below min_size are not quantized",
    ),
}
