"""What every optimizer rule must do, over the whole table of cases that `jaxnn.compare` holds against optax."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.compare.parity import Case, measure, random_loss, random_params

CASES = all_cases()
MAIN = [name for name in CASES if ":" not in name]
SHORT = {
    "sgd", "adagrad", "rmsprop", "adam", "adamw", "adabelief", "radam", "lion", "sign_sgd", "lamb", "adafactor", "muon",
    "polyak_sgd", "sam", "partition", "masked", "clip_by_global_norm", "centralize",
}  # fmt: skip
SHORTER = {"sgd", "adam", "lamb", "adafactor", "muon", "polyak_sgd", "masked"}


def cases(quick: set[str]) -> list[Any]:
    """Every case; all but those named, in the long suite only."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


REAL_ONLY = (
    "scale_by_adadelta", "adadelta", "scale_by_adopt", "adopt", "scale_by_simplified_ademamix", "simplified_ademamix",
    "clip", "scale_by_cocob", "cocob", "dadapt_adamw", "prodigy", "momo", "momo_adam", "scale_by_madgrad", "madgrad",
    "scale_by_distance_over_gradients", "mechanize", "scale_by_rprop", "rprop", "scale_by_sm3", "sm3", "sophia",
    "scale_by_galore", "galore",
)  # fmt: skip
"""Rules that order the entries of arrays or take roots of their products: they reject complex parameters."""
HALF = (jnp.bfloat16, jnp.float32)


def run(case: Case, params_dtype: Any, grads_dtype: Any, steps: int = 3) -> tuple[Any, Any, Any]:
    """(parameters, state at the start, state) after some steps of our rule under scan."""
    opt = case.ours(optim)
    params = random_params(jax.random.key(0), params_dtype, matrices=case.matrices, positive=case.positive)
    start = opt.init(params)

    def body(carry: Any, key: Any) -> tuple[Any, None]:
        params, state = carry

        def value_fn(params: Any, grad_fn: Any = None) -> Any:
            return random_loss(key, jax.tree.map(lambda p: p.astype(jnp.float32), params))

        def grad_fn(params: Any) -> Any:
            return jax.tree.map(lambda g: g.astype(grads_dtype), jax.grad(value_fn)(params))

        grads = grad_fn(params)
        updates, state = opt.update(
            grads,
            state,
            params,
            value=value_fn(params),
            grad=grads,
            value_fn=value_fn,
            grad_fn=grad_fn,
            obj_fn=value_fn,
        )
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        return (optim.apply_updates(params, updates), state), jax.tree.map(lambda u: jnp.zeros((), u.dtype), updates)

    (params, state), kinds = jax.lax.scan(body, (params, start), jax.random.split(jax.random.key(1), steps))
    return (params, kinds), start, state


@pytest.mark.parametrize("name", cases(quick=SHORTER))
def test_equals_optax_in_parameters_and_state(name: str) -> None:
    case = CASES[name]
    found = measure(case, "own")
    assert found.largest <= case.tolerance, found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MAIN if not CASES[name].fixed_loss])
def test_equals_optax_on_the_same_gradients(name: str) -> None:
    case = CASES[name]
    found = measure(case, "same")
    assert found.largest <= case.tolerance, found


@pytest.mark.slow
@pytest.mark.parametrize("name", MAIN)
def test_complex_parameters_work_where_they_do_in_optax(name: str) -> None:
    """Equal to optax, or a TypeError that says what to do, where optax fails too or computes nothing sensible."""
    case = dataclasses.replace(CASES[name], steps=3)
    with jax.enable_x64(True):
        params = random_params(jax.random.key(0), jnp.complex128, matrices=case.matrices)
        if name in REAL_ONLY:
            with pytest.raises(TypeError, match="split_real_and_imaginary"):
                case.ours(optim).init(params)
            return
    found = measure(case, "own", dtype=jnp.complex128)
    assert found.largest <= case.tolerance, found


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_keeps_its_dtypes_under_scan_for_half_and_single_precision(name: str) -> None:
    """eval_shape traces the scan, which rejects a carry whose dtypes change; nothing is compiled."""
    for params_dtype in HALF:
        for grads_dtype in HALF:
            (params, kinds), start, state = jax.eval_shape(lambda p=params_dtype, g=grads_dtype: run(CASES[name], p, g))
            assert {leaf.dtype for leaf in jax.tree.leaves((params, kinds))} == {jnp.dtype(params_dtype)}
            assert [s.dtype for s in jax.tree.leaves(state)] == [s.dtype for s in jax.tree.leaves(start)]


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_promotes_no_dtypes_and_no_ranks_by_itself(name: str) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(lambda: update_once(CASES[name]))


def update_once(case: Case) -> Any:
    """One update in float32, with every extra argument; the loss itself is kept strict too."""
    opt = case.ours(optim)
    params = random_params(jax.random.key(0), jnp.float32, matrices=case.matrices, positive=case.positive)

    def value_fn(params: Any, grad_fn: Any = None) -> Any:
        return sum((jnp.vdot(p, p) for p in jax.tree.leaves(params)), jnp.zeros(()))

    grads = jax.grad(value_fn)(params)
    extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn, "grad_fn": jax.grad(value_fn)}
    return opt.update(grads, opt.init(params), params, **extra, obj_fn=value_fn)


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_rejects_gradients_of_another_structure(name: str) -> None:
    case = CASES[name]
    opt = case.ours(optim)
    params = random_params(jax.random.key(0), jnp.float32, matrices=case.matrices)
    extra = {"value": jnp.zeros(()), "grad": {}, "value_fn": lambda p: jnp.zeros(()), "grad_fn": lambda p: {"other": p}}
    with pytest.raises((ValueError, TypeError)):
        opt.update({"other": params["w"]}, opt.init(params), params, **extra, obj_fn=extra["value_fn"])
