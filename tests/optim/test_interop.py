"""Our optimizers among optax's, optax's among ours, both in flax; and the small functions against optax's."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from jaxnn.compare import as_optax
from tests.helpers import assert_close, float64, random, strict
from tests.optim.running import along

MUTANTS = [
    ("interop", "flatten", "else jnp.real(part)", "else -jnp.real(part)"),
    (
        "interop",
        "flatten",
        "[leaf.astype(dtype) for leaf in leaves]",
        "[jnp.flip(leaf).astype(dtype) for leaf in leaves]",
    ),
    (
        "interop",
        "split_real_and_imaginary",
        "updates, new = update_inner(inner, _split(",
        "_, new = update_inner(inner, _split(",
    ),
]
PARAMS = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
MASK = {"w": True, "b": False}


def descend(opt: Any, params: Any = PARAMS, steps: int = 6, **extra: Any) -> Any:
    """The parameters after some steps on a fixed sequence of gradients."""
    noise = jax.tree.map(lambda p: random(0, steps, *p.shape, dtype=p.dtype), params)
    return jax.tree.map(lambda p: p[-1], along(opt, params, noise, **extra)[1])


COMBINATORS = {
    "chain": lambda lib, rules: lib.chain(rules.clip_by_global_norm(1.0), rules.adam(0.1)),
    "named_chain": lambda lib, rules: lib.named_chain(("clip", rules.clip(0.5)), ("adam", rules.adam(0.1))),
    "partition": lambda lib, rules: lib.partition({True: rules.adam(0.1), False: rules.sgd(0.1, 0.9)}, MASK),
    "masked": lambda lib, rules: lib.masked(rules.adam(0.1), MASK),
    "MultiSteps": lambda lib, rules: lib.MultiSteps(rules.chain(rules.ema(0.9), rules.adam(0.1)), 2),
    "inject_hyperparams": lambda lib, rules: lib.inject_hyperparams(rules.adamw)(0.1, weight_decay=0.1),
    "apply_if_finite": lambda lib, rules: lib.apply_if_finite(rules.adam(0.1), 2),
    "flatten": lambda lib, rules: lib.flatten(rules.adam(0.1)),
    "conditionally_mask": lambda lib, rules: lib.conditionally_mask(rules.adam(0.1), lambda step: step > 1),
    "selective_transform": lambda lib, rules: lib.selective_transform(rules.adam(0.1), freeze_mask=MASK),
}
"""Each combinator, by library of the combinator and library of the rules inside it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATORS)
def test_either_librarys_rules_work_inside_the_others_combinators(name: str) -> None:
    make = COMBINATORS[name]
    with float64():
        params = jax.tree.map(lambda p: p.astype(np.float64), PARAMS)
        # optax gathers gradients in float32.
        rtol = 1e-5 if name == "MultiSteps" else 1e-12
        reference = descend(make(optax, optax), params)
        for pair in ((optax, optim), (optim, optax), (optim, optim)):
            assert_close(descend(make(*pair), params), reference, rtol=rtol)


def test_our_combinators_inside_optaxs() -> None:
    inner = optim.partition({True: optim.adam(0.1), False: optim.set_to_zero()}, MASK)
    opt = optax.chain(optax.clip(0.5), optim.accumulate(inner, 2), optax.masked(optim.zero_nans(), MASK))
    assert_close(descend(opt)["b"], PARAMS["b"], rtol=0)
    assert np.abs(descend(opt)["w"] - 1).max() > 0.1
    names = optax.tree_map_params(opt, lambda _, n: n, opt.init(PARAMS), {"w": "W", "b": "B"},
                                  is_leaf=lambda x: isinstance(x, (optim.MaskedNode, optax.MaskedNode)))  # fmt: skip
    assert names[1].acc_grads == {"w": "W", "b": "B"}


def rule_that_needs_a_value() -> optim.Optimizer:
    def update(grads: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any) -> Any:
        if value is None:
            raise ValueError("needs value")
        return jax.tree.map(lambda g: -value * g, grads), state

    return optim.Optimizer(lambda params: (), update)


@pytest.mark.slow
def test_extra_arguments_pass_through_optax_if_wrapped() -> None:
    rule = rule_that_needs_a_value()
    wrapped = as_optax(rule)
    assert isinstance(wrapped, optax.GradientTransformationExtraArgs)
    for opt in (
        optax.chain(optax.clip(1.0), wrapped),
        optax.masked(wrapped, True),
        optax.partition({"a": wrapped}, {"w": "a", "b": "a"}),
        optax.apply_if_finite(wrapped, 1),
        optim.chain(optax.clip(1.0), rule),
        optim.accumulate(rule, 1),
        optim.masked(rule, True),
        optim.inject_hyperparams(lambda rate: rule)(0.1),
    ):
        updates, _ = opt.update(PARAMS, opt.init(PARAMS), PARAMS, value=2.0)
        assert updates["b"].tolist() == [-2.0] * 3
    with pytest.raises(ValueError, match="needs value"):
        optax.chain(rule).update(PARAMS, ((),), PARAMS, value=2.0)
    plain = optax.GradientTransformation(optax.sgd(0.5).init, lambda g, s, p=None: optax.sgd(0.5).update(g, s, p))
    opt = optim.with_extra_args_support(plain)
    assert opt.update(PARAMS, opt.init(PARAMS), PARAMS, value=2.0)[0]["b"].tolist() == [-0.5] * 3
    with pytest.raises(TypeError, match="as_optax: opt must be an optimizer"):
        as_optax(0.1)


def test_a_flax_train_state_takes_our_optimizers() -> None:
    train_state = pytest.importorskip("flax.training.train_state")
    for tx in (optim.adam(0.1), optim.MultiSteps(optim.adam(0.1), 2), optim.masked(optim.adam(0.1), MASK)):
        state = train_state.TrainState.create(apply_fn=lambda p, x: x, params=PARAMS, tx=tx)
        step = jax.jit(lambda s: s.apply_gradients(grads=PARAMS))
        for _ in range(2):
            state = step(state)
        assert int(state.step) == 2
        assert np.abs(state.params["w"] - 1).max() > 0.05


@pytest.mark.slow
def test_flatten_takes_mixed_dtypes_and_gives_each_its_own() -> None:
    params = {"h": jnp.ones((2, 2), jnp.bfloat16), "c": jnp.ones(2, jnp.complex64), "f": jnp.ones(())}
    opt = optim.flatten(optim.adam(0.1))
    updates, state = opt.update(params, opt.init(params), params)
    assert jax.tree.map(lambda u: (u.dtype, u.shape), updates) == jax.tree.map(lambda p: (p.dtype, p.shape), params)
    with pytest.raises(ValueError, match="must have the same structure"):
        opt.update({"h": params["h"]}, state, params)


def test_split_complex_parameters_move_as_pairs_of_real_ones() -> None:
    z, one = np.complex64([1 + 2j, -3 + 1j]), np.ones(1, np.float32)
    params, real = {"z": z, "x": one}, {"z": (z.real, z.imag), "x": one}

    def value_fn(p: Any) -> Any:
        return jnp.vdot(p["z"], p["z"]).real + jnp.vdot(p["x"], p["x"])

    seen = []

    def update(grads: Any, state: Any, p: Any = None, **extra: Any) -> Any:
        seen.append((extra["value_fn"](p), extra["grad"]["z"].imaginary, extra["grad_fn"](p)["z"].real))
        return grads, state

    opt = optim.split_real_and_imaginary(optim.adam(0.1))
    updates, expected = jax.jit(
        lambda: [o.update(p, o.init(p), p)[0] for o, p in ((opt, params), (optim.adam(0.1), real))]
    )()
    updates = np.asarray(updates["z"])
    assert_close((updates.real, updates.imag), expected["z"], rtol=1e-6)
    looks = optim.split_real_and_imaginary(optim.Optimizer(lambda p: (), update))
    looks.update(params, looks.init(params), params, value_fn=value_fn, grad=params, grad_fn=lambda p: p)
    assert_close(seen[0], (value_fn(params), z.imag, z.real), rtol=1e-6)


def test_stateless_functions_of_arrays() -> None:
    opt = optim.stateless_with_tree_map(lambda u, p: u if p is None else u * p)
    assert opt.update({"w": 2.0}, (), None)[0] == {"w": 2.0}
    assert opt.update({"w": 2.0}, (), {"w": 3.0})[0] == {"w": 6.0}
    assert optim.init_empty_state(PARAMS) == ()


def test_scaled_gradients() -> None:
    for scale in (0.0, 1.0, -2.5):
        for take in (lambda s=scale: s, lambda s=scale: jnp.asarray(s)):
            value, slope = jax.value_and_grad(lambda x, take=take: optim.scale_gradient({"x": x}, take())["x"] ** 2)(
                3.0
            )
            assert (value, slope) == (9.0, 6.0 * scale)


@pytest.mark.slow
def test_small_functions_equal_optax() -> None:
    grads = {"w": jnp.asarray(random(0, 4), jnp.float32), "none": None}
    moments = {"w": jnp.abs(jnp.asarray(random(1, 4), jnp.float32)), "none": None}
    complex_grads = {"w": grads["w"] + 1j, "none": None}
    x = jnp.asarray(random(2, 3, 4), jnp.float32)
    calls = {
        "update_moment": [(grads, moments, 0.9, 2), (grads, moments, 0.9, 1), (complex_grads, complex_grads, 0.5, 1)],
        "update_moment_per_elem_norm": [(grads, moments, 0.9, 3), (complex_grads, moments, 0.9, 2),
                                        (complex_grads, moments, 0.9, 3)],
        "update_infinity_moment": [(grads, moments, 0.9, 1e-3), (complex_grads, moments, 0.9, 1e-3)],
        "bias_correction": [(moments, 0.9, jnp.array(3, jnp.int32))],
        "safe_increment": [(jnp.array(2, jnp.int32),), (jnp.array(255, jnp.uint8),), (jnp.array(1.0),)],
        "safe_int32_increment": [(jnp.array(2**31 - 1, jnp.int32),)],
        "safe_norm": [(x, 0.5), (x, 9.0), (x, 0.1, None, 0), (x, 0.1, 1, 1, True), (x, 0.1, jnp.inf, (0, 1)),
                      (0 * x, 0.0)],
        "safe_root_mean_squares": [(x, 0.1), (x, 9.0), (0 * x, 0.0)],
        "global_norm": [(grads,), (complex_grads,)],
        "skip_not_finite": [(grads, 0, None), ({"w": jnp.array([jnp.nan, jnp.inf, 1.0])}, 0, None)],
        "skip_large_updates": [(grads, 0, None, 0.1), (grads, 0, None, 100.0)],
    }  # fmt: skip
    for name, settings in calls.items():
        for args in settings:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = getattr(optax, name)(*args)
            got = getattr(optim, name)(*args)
            assert jax.tree.structure(got) == jax.tree.structure(expected)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-6, err_msg=name)
    with strict():
        optim.bias_correction(optim.update_moment(grads, moments, 0.9, 2), 0.9, jnp.array(3, jnp.int32))
        optim.safe_norm(x, 0.1)
    for f in (lambda x: optim.safe_norm(x, 0.0), lambda x: optim.safe_root_mean_squares(x, 0.0)):
        assert np.isfinite(jax.grad(f)(jnp.zeros(3))).all()
    with pytest.raises(ValueError, match="must be an integer or floating, got bool"):
        optim.safe_increment(jnp.array(True))
