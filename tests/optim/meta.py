"""Every optimizer of `jaxnn.optim` with real settings that may be traced, and a training run to differentiate through.

The run has entries that get no gradient, because their inputs are 0: a row of the matrix "w" (or what `LIVE` names) and
the leaves "idle" and "still". The rest lies away from kinks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import optim
from tests.helpers import random
from tests.optim.test_traced import RULES

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

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        each = jax.tree.map(lambda g: jnp.stack([2.0 * g, -0.5 * g * g, jnp.zeros_like(g)]), updates)
        return opt.update(each, state, params)

    return optim.Optimizer(opt.init, update)


def beside_slow(opt: Any) -> Any:
    """A rule for LookaheadParams as one for plain parameters, the fast ones; the slow ones join the state."""

    def init(params: Any) -> Any:
        return opt.init(optim.LookaheadParams.init_synced(params)), params

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        inner, slow = state
        updates, inner = opt.update(updates, inner, optim.LookaheadParams(params, slow))
        return updates.fast, (inner, optim.apply_updates(slow, updates.slow))

    return optim.Optimizer(init, update)


def observed(opt: Any) -> Any:
    """Gradients as they are, plus the diagonal that an estimator makes of them."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        found, state = opt.update(updates, state, params, **extra)
        return jax.tree.map(lambda g, d: g + 0.1 * d, updates, found), state

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
    "scale_by_distance_over_gradients": lambda: optim.scale_by_distance_over_gradients(0.1),
    "scale_by_param_block_norm": optim.scale_by_param_block_norm,
    "scale_by_param_block_rms": optim.scale_by_param_block_rms,
    "scale_by_schedule": lambda: optim.scale_by_schedule(lambda count: 1 / (1.0 + count)),
    "scale_by_stddev": lambda: optim.scale_by_stddev(eps=0.0),
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

PART_OF = {
    "scale_by_acprop": "acprop",
    "scale_by_adadelta": "adadelta",
    "scale_by_adam": "adam",
    "scale_by_adamax": "adamax",
    "scale_by_adan": "adan",
    "scale_by_ademamix": "ademamix",
    "scale_by_adopt": "adopt",
    "scale_by_amsgrad": "amsgrad",
    "scale_by_belief": "adabelief",
    "scale_by_cocob": "cocob",
    "scale_by_factored_rms": "adafactor",
    "scale_by_galore": "galore",
    "scale_by_lbfgs": "lbfgs",
    "scale_by_lion": "lion",
    "scale_by_madgrad": "madgrad",
    "scale_by_muon": "muon",
    "scale_by_novograd": "novograd",
    "scale_by_optimistic_gradient": "optimistic_gradient_descent",
    "scale_by_polyak": "polyak_sgd",
    "scale_by_radam": "radam",
    "scale_by_rms": "rmsprop",
    "scale_by_rprop": "rprop",
    "scale_by_rss": "adagrad",
    "scale_by_shampoo": "shampoo",
    "scale_by_sign": "sign_sgd",
    "scale_by_simplified_ademamix": "simplified_ademamix",
    "scale_by_sm3": "sm3",
    "scale_by_soap": "soap",
    "scale_by_sophia": "sophia",
    "scale_by_trust_ratio": "lamb",
    "scale_by_yogi": "yogi",
}
"""Transformations that another rule of the table consists of, beside its learning rate."""

WHOLE: dict[str, Maker] = {
    "accumulate": lambda rate: optim.accumulate(optim.adam(rate), 2),
    "adagrad_as_published": optim.adagrad_as_published,
    "apply_if_finite": lambda rate: optim.apply_if_finite(optim.adam(rate), 3),
    "average_params": lambda rate: optim.average_params(optim.adam(rate), 0.9),
    "chain": lambda rate: optim.chain(optim.clip_by_global_norm(0.2), optim.scale_by_adam(), optim.scale(-rate)),
    "conditionally_mask": lambda rate: optim.conditionally_mask(optim.adam(rate), lambda step: step > 1),
    "dpsgd": lambda rate: of_examples(optim.dpsgd(rate, 0.5, 0.1, 0, momentum=0.9)),
    "dynamic_loss_scale": lambda rate: optim.dynamic_loss_scale(optim.adam(rate)),
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
    "soap": {"precondition_frequency": 2, "eps": 1e-3},
    "prodigy": {"estim_lr0": 0.01},
    "galore": {"rank": 2, "update_proj_gap": 2},
    "madgrad": {"learning_rate": 0.1},
    "momo": {"adapt_lower_bound": True},
    "noisy_sgd": {"seed": 0},
}
"""Other settings than those of the tests of traced hyperparameters, for a problem this small."""


def aliases() -> dict[str, Maker]:
    """The rules of `test_traced.RULES`, from a learning rate."""
    found: dict[str, Maker] = {}
    for name, settings in RULES.items():
        given = {k: v for k, v in (settings | SETTINGS.get(name, {})).items() if k != "random"}
        key = next(k for k in inspect.signature(getattr(optim, name)).parameters if k.endswith("learning_rate"))
        size = given.pop(key, RATE) / RATE
        found[name] = lambda rate, name=name, key=key, size=size, given=given: getattr(optim, name)(
            **{key: rate * size}, **given
        )
    return found


def followed(part: Callable[[], Any]) -> Maker:
    return lambda rate: optim.chain(part(), optim.scale_by_learning_rate(rate))


def table() -> dict[str, Maker]:
    """Every optimizer by name: what makes it from a learning rate, RATE or so."""
    return aliases() | {name: followed(part) for name, part in PARTS.items()} | WHOLE


MATRIX = ("galore", "muon", "shampoo", "soap")
"""Rules whose name holds one of these get a whole matrix without gradients too."""


def start(name: str, dtype: Any = jnp.float64) -> dict[str, Any]:
    """Parameters for a rule."""
    shapes = {"w": (4, 3), "idle": (2,)} | ({"still": (2, 3)} if any(kind in name for kind in MATRIX) else {})
    return {leaf: jnp.asarray(random(i, *shape), dtype) for i, (leaf, shape) in enumerate(shapes.items())}


LIVE: dict[str, Any] = {
    "a row is 0": [[1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]],
    "a column is 0": [[1, 0, 1]] * 4,
    "a row and a column are 0": [[1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, 1]],
    "all but one are 0": [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]],
    "all are 0": [[0, 0, 0]] * 4,
}
"""Which entries of "w" get a gradient: their inputs."""


def turned(params: Any, examples: int = 6, live: Any = None) -> Any:
    """theta - c_i for every example i, and the inputs x, (N, ...) each: `live` for "w", by default without a row."""
    c = {leaf: jnp.asarray(random(len(leaf), examples, *p.shape), p.dtype) for leaf, p in params.items()}
    x = {leaf: jnp.zeros(p.shape, p.dtype) for leaf, p in params.items()}
    x["w"] = jnp.asarray(LIVE["a row is 0"] if live is None else live).astype(params["w"].dtype)
    return {leaf: p - c[leaf] for leaf, p in params.items()}, x


def loss(params: Any, weights: Any, live: Any = None) -> Any:
    """The sum over examples i of weight_i sum x^2 (1 - cos(theta - c_i)), over all entries."""
    angles, x = turned(params, len(weights), live)
    return sum(jnp.vdot(jnp.tensordot(weights, 1 - jnp.cos(angles[leaf]), 1), x[leaf]) for leaf in params)


def gradient(params: Any, weights: Any, live: Any = None) -> Any:
    """Of `loss` in the parameters; written down, because every rule would trace its derivation anew."""
    angles, x = turned(params, len(weights), live)
    return {leaf: x[leaf] * jnp.tensordot(weights, jnp.sin(angles[leaf]), 1) for leaf in params}


def outcome(make: Maker, rate: Any, weights: Any, params: Any, steps: int = STEPS, live: Any = None) -> Any:
    """After some steps on the weighted loss: a smooth function of all parameters."""
    weights = weights.astype(params["w"].dtype)

    def value_fn(params: Any, grad_fn: Any = None) -> Any:
        return loss(params, weights, live)

    opt = make(rate)

    def body(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        grads, value = gradient(params, weights, live), value_fn(params)
        extra = {"value": value, "grad": grads, "value_fn": value_fn, "obj_fn": value_fn}
        updates, state = opt.update(grads, state, params, grad_fn=lambda p: gradient(p, weights, live), **extra)
        return (optim.apply_updates(params, updates), state), None

    params, _ = jax.lax.scan(body, (params, opt.init(params)), None, length=steps)[0]
    return sum(jnp.sum(jnp.sin(p + jnp.arange(p.size, dtype=p.dtype).reshape(p.shape))) for p in params.values())
