"""Every optimizer of `jaxnn.optim` with real settings that may be traced, and a training run to differentiate through.

The run has entries that get no gradient: a row of "w" (its input is 0 in every example) and two whole leaves, "dead"
and "idle". The rest lies away from kinks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import optim
from tests.helpers import random
from tests.optim.test_traced import RULES, STATIC

STEPS = 5
RATE = 0.03


def vectors(params: Any) -> Any:
    """True for what is no matrix."""
    return jax.tree.map(lambda x: x.ndim < 2, params)


def halved(tree: Any) -> Any:
    return jax.tree.map(lambda x: 0.5 * x, tree)


def of_matrices(opt: Any) -> Any:
    """An optimizer that only knows matrices."""
    return optim.masked(opt, lambda params: jax.tree.map(lambda x: x.ndim == 2, params))


def of_examples(opt: Any) -> Any:
    """A rule for per-example gradients, given those of three examples, made from the one that it is passed.

    The gradient of the last example is 0 everywhere.
    """

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        each = jax.tree.map(lambda g: jnp.stack([2.0 * g, -0.5 * g * g, jnp.zeros_like(g)]), grads)
        return opt.update(each, state, params)

    return optim.Optimizer(opt.init, update)


def beside_slow(opt: Any) -> Any:
    """A rule for LookaheadParams as one for plain parameters, the fast ones; the slow ones join the state."""

    def init(params: Any) -> Any:
        return opt.init(optim.LookaheadParams.init_synced(params)), params

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        inner, slow = state
        updates, inner = opt.update(grads, inner, optim.LookaheadParams(params, slow))
        return updates.fast, (inner, optim.apply_updates(slow, updates.slow))

    return optim.Optimizer(init, update)


def observed(opt: Any) -> Any:
    """Gradients as they are, plus the diagonal that an estimator makes of them."""

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        found, state = opt.update(grads, state, params, **extra)
        return jax.tree.map(lambda g, d: g + 0.1 * d, grads, found), state

    return optim.Optimizer(opt.init, update)


Maker = Callable[..., Any]

PARTS: dict[str, Callable[[], Any]] = {
    "adaptive_grad_clip": lambda: optim.adaptive_grad_clip(0.1),
    "add_decayed_weights": lambda: optim.add_decayed_weights(0.1),
    "add_noise": lambda: optim.add_noise(0.1, 0.5, 0),
    "apply_every": lambda: optim.apply_every(2),
    "centralize": optim.centralize,
    "clip": lambda: optim.clip(0.3),
    "clip_by_block_rms": lambda: optim.clip_by_block_rms(0.1),
    "clip_by_global_norm": lambda: optim.clip_by_global_norm(0.2),
    "conditionally_transform": lambda: optim.conditionally_transform(optim.scale_by_adam(), lambda step: step > 1),
    "differentially_private_aggregate": lambda: of_examples(optim.differentially_private_aggregate(0.5, 0.1, seed=0)),
    "ema": lambda: optim.ema(0.9),
    "freeze": lambda: optim.freeze(vectors),
    "hutchinson_estimator_diag_hessian": lambda: observed(optim.hutchinson_estimator_diag_hessian(0)),
    "identity": optim.identity,
    "keep_params_nonnegative": optim.keep_params_nonnegative,
    "masked": lambda: optim.masked(optim.scale_by_adam(), vectors),
    "measure_with_ema": lambda: optim.monitor({"norm": optim.measure_with_ema(optim.global_norm, 0.9)}),
    "monitor": lambda: optim.monitor({"norm": optim.global_norm}),
    "named_chain": lambda: optim.named_chain(("norm", optim.clip_by_global_norm(0.2)), ("adam", optim.scale_by_adam())),
    "normalize": optim.normalize,
    "normalize_by_update_norm": optim.normalize_by_update_norm,
    "scale": lambda: optim.scale(0.5),
    "scale_by_acprop": optim.scale_by_acprop,
    "scale_by_adadelta": lambda: optim.scale_by_adadelta(eps=1e-4),
    "scale_by_adam": optim.scale_by_adam,
    "scale_by_adamax": optim.scale_by_adamax,
    "scale_by_adan": optim.scale_by_adan,
    "scale_by_ademamix": lambda: optim.scale_by_ademamix(alpha=2.0),
    "scale_by_adopt": optim.scale_by_adopt,
    "scale_by_amsgrad": optim.scale_by_amsgrad,
    "scale_by_belief": optim.scale_by_belief,
    "scale_by_cocob": optim.scale_by_cocob,
    "scale_by_distance_over_gradients": lambda: optim.scale_by_distance_over_gradients(0.1),
    "scale_by_factored_rms": lambda: optim.scale_by_factored_rms(min_dim_size_to_factor=2),
    "scale_by_galore": lambda: optim.scale_by_galore(2, 2),
    "scale_by_lbfgs": optim.scale_by_lbfgs,
    "scale_by_lion": optim.scale_by_lion,
    "scale_by_madgrad": lambda: optim.scale_by_madgrad(0.1),
    "scale_by_muon": lambda: of_matrices(optim.scale_by_muon()),
    "scale_by_novograd": optim.scale_by_novograd,
    "scale_by_optimistic_gradient": optim.scale_by_optimistic_gradient,
    "scale_by_param_block_norm": optim.scale_by_param_block_norm,
    "scale_by_param_block_rms": optim.scale_by_param_block_rms,
    "scale_by_polyak": optim.scale_by_polyak,
    "scale_by_radam": optim.scale_by_radam,
    "scale_by_rms": lambda: optim.scale_by_rms(eps=0.0),
    "scale_by_rprop": lambda: optim.scale_by_rprop(0.1),
    "scale_by_rss": lambda: optim.scale_by_rss(0.0, eps=0.0),
    "scale_by_schedule": lambda: optim.scale_by_schedule(lambda count: 1 / (1.0 + count)),
    "scale_by_shampoo": lambda: optim.scale_by_shampoo(update_every=2),
    "scale_by_sign": optim.scale_by_sign,
    "scale_by_simplified_ademamix": optim.scale_by_simplified_ademamix,
    "scale_by_sm3": optim.scale_by_sm3,
    "scale_by_soap": lambda: optim.scale_by_soap(precondition_frequency=2),
    "scale_by_sophia": optim.scale_by_sophia,
    "scale_by_stddev": lambda: optim.scale_by_stddev(eps=0.0),
    "scale_by_trust_ratio": optim.scale_by_trust_ratio,
    "scale_by_yogi": optim.scale_by_yogi,
    "set_to_zero": optim.set_to_zero,
    "snapshot": lambda: optim.snapshot("norm", optim.global_norm),
    "split_real_and_imaginary": lambda: optim.split_real_and_imaginary(optim.scale_by_adam()),
    "stateless": lambda: optim.stateless(lambda grads, params: halved(grads)),
    "stateless_with_tree_map": lambda: optim.stateless_with_tree_map(lambda g, p: 0.5 * g),
    "trace": lambda: optim.trace(0.9, nesterov=True),
    "with_extra_args_support": lambda: optim.with_extra_args_support(optim.scale_by_adam()),
    "zero_nans": optim.zero_nans,
}
"""Transformations without a learning rate; `scale_by_learning_rate` follows them."""

WHOLE: dict[str, Maker] = {
    "accumulate": lambda rate: optim.accumulate(optim.adam(rate), 2),
    "adagrad_as_published": optim.adagrad_as_published,
    "apply_if_finite": lambda rate: optim.apply_if_finite(optim.adam(rate), 3),
    "average_params": lambda rate: optim.chain(optim.adam(rate), optim.average_params(0.9)),
    "chain": lambda rate: optim.chain(optim.clip_by_global_norm(0.2), optim.scale_by_adam(), optim.scale(-rate)),
    "conditionally_mask": lambda rate: optim.conditionally_mask(optim.adam(rate), lambda step: step > 1),
    "dpsgd": lambda rate: of_examples(optim.dpsgd(rate, 0.5, 0.1, 0, momentum=0.9)),
    "flatten": lambda rate: optim.flatten(optim.adam(rate)),
    "inject_hyperparams": lambda rate: optim.inject_hyperparams(optim.adam)(rate),
    "inject_stateful_hyperparams": lambda rate: optim.inject_stateful_hyperparams(optim.adam)(rate),
    "kahan": lambda rate: optim.kahan(optim.adam(rate)),
    "lookahead": lambda rate: beside_slow(optim.lookahead(optim.adam(rate), 2, 0.5)),
    "master_weights": lambda rate: optim.master_weights(optim.adam(rate)),
    "mechanize": lambda rate: optim.mechanize(optim.adam(rate), s_init=0.5),
    "multi_transform": lambda rate: optim.multi_transform({True: optim.adam(rate), False: optim.lamb(rate)}, vectors),
    "nesterov_lookahead": optim.nesterov_lookahead,
    "optimistic_adam": optim.optimistic_adam,
    "partition": lambda rate: optim.partition({True: optim.adam(rate), False: optim.muon(rate)}, vectors),
    "quantized_state": lambda rate: optim.quantized_state(optim.adam(rate), min_size=1, block_size=4),
    "reduce_on_plateau": lambda rate: optim.chain(optim.adam(rate), optim.reduce_on_plateau()),
    "sam": lambda rate: optim.sam(optim.sgd(rate), optim.chain(optim.normalize(), optim.sgd(0.05))),
    "scale_by_backtracking_linesearch": lambda rate: optim.chain(
        optim.sgd(rate), optim.scale_by_backtracking_linesearch(10)
    ),
    "scale_by_learning_rate": lambda rate: optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(rate)),
    "scale_by_zoom_linesearch": lambda rate: optim.chain(optim.sgd(rate), optim.scale_by_zoom_linesearch(10)),
    "schedule_free": lambda rate: optim.schedule_free(optim.sgd(rate), rate),
    "schedule_free_adamw": lambda rate: optim.schedule_free_adamw(rate, warmup_steps=2),
    "schedule_free_sgd": lambda rate: optim.schedule_free_sgd(rate, warmup_steps=2),
    "selective_transform": lambda rate: optim.selective_transform(optim.adam(rate), freeze_mask=vectors),
    "stochastic_rounding": lambda rate: optim.stochastic_rounding(optim.adam(rate), jax.random.key(0)),
}
"""Optimizers, from their learning rate."""

SETTINGS: dict[str, dict[str, Any]] = {
    "adafactor": {"min_dim_size_to_factor": 2, "learning_rate": RATE},
    "adadelta": {"eps": 1e-4},
    "dadapt_adamw": {"estim_lr0": 0.01},
    "dog": {"learning_rate": 1.5},
    "shampoo": {"update_every": 2},
    "soap": {"precondition_frequency": 2},
    "prodigy": {"estim_lr0": 0.01},
    "galore": {"rank": 2, "update_proj_gap": 2},
    "madgrad": {"learning_rate": 0.1},
    "momo": {"adapt_lower_bound": True},
    "noisy_sgd": {"seed": 0},
}
"""Other settings than those of the tests of traced hyperparameters, for a problem this small."""


def aliases() -> dict[str, tuple[Maker, dict[str, float]]]:
    """The rules of `test_traced.RULES`, each with the real settings to be traced."""
    found: dict[str, tuple[Maker, dict[str, float]]] = {}
    for name, settings in RULES.items():
        given = {k: v for k, v in (settings | SETTINGS.get(name, {})).items() if k != "random"}
        reals = {}
        for key, parameter in inspect.signature(getattr(optim, name)).parameters.items():
            value = given.get(key, parameter.default)
            if key == "learning_rate" and not isinstance(value, float):
                value = RATE
            if isinstance(value, float) and key not in STATIC:
                reals[key] = value
        fixed = {key: value for key, value in given.items() if key not in reals}
        found[name] = (lambda name=name, fixed=fixed, **traced: getattr(optim, name)(**fixed, **traced)), reals
    return found


def followed(part: Callable[[], Any]) -> Maker:
    return lambda rate: optim.chain(part(), optim.scale_by_learning_rate(rate))


def table() -> dict[str, tuple[Maker, Mapping[str, float]]]:
    """Every optimizer by name: what makes it, from the real settings that are given beside it."""
    return (
        aliases()
        | {name: (followed(part), {"rate": RATE}) for name, part in PARTS.items()}
        | {name: (make, {"rate": RATE}) for name, make in WHOLE.items()}
    )


def start(dtype: Any = jnp.float64) -> Any:
    """Parameters: dense layers "w", "b" and "u", and the leaves that get no gradient."""
    shapes = {"w": (4, 3), "b": (3,), "u": (3, 2), "dead": (3, 2), "idle": (2,)}
    return {name: jnp.asarray(random(i, *shape), dtype) for i, (name, shape) in enumerate(shapes.items())}


def example_loss(params: Any, x: Any, y: Any) -> Any:
    """Of every example; "dead" and "idle" are multiplied by the input that is always 0."""
    z = jnp.tanh(x @ params["w"] + params["b"]) @ params["u"]
    nothing = x[:, 2:3]
    z = z + jnp.broadcast_to(nothing, (len(x), 3)) @ params["dead"] + nothing * params["idle"]
    return jnp.mean((z - y) ** 2, -1)


def data(seed: int, dtype: Any) -> tuple[Any, Any]:
    x = random(seed, 6, 4)
    x[:, 2] = 0
    return jnp.asarray(x, dtype), jnp.asarray(random(seed + 1, 6, 2), dtype)


def outcome(make: Maker, settings: Any, weights: Any, params: Any, steps: int = STEPS) -> Any:
    """After some steps on the weighted loss: the loss on other data, plus a linear function of all parameters."""
    dtype = params["w"].dtype
    x, y = data(10, dtype)

    def value_fn(params: Any, grad_fn: Any = None) -> Any:
        return jnp.vdot(weights.astype(dtype), example_loss(params, x, y))

    opt = make(**settings)

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        value, grads = jax.value_and_grad(value_fn)(params)
        extra = {"value": value, "grad": grads, "value_fn": value_fn, "obj_fn": value_fn}
        updates, state = opt.update(grads, state, params, grad_fn=jax.grad(value_fn), **extra)
        return (optim.apply_updates(params, updates), state), None

    params, _ = jax.lax.scan(body, (params, opt.init(params)), None, length=steps)[0]
    linear = sum(jnp.vdot(jnp.cos(jnp.arange(p.size, dtype=dtype)), p.ravel()) for p in jax.tree.leaves(params))
    return (jnp.mean(example_loss(params, *data(20, dtype))) + 0.1 * linear).astype(dtype)
