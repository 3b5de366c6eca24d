"""What every optimizer rule must do, over the whole table of cases that `jaxnn.compare` holds against optax."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.compare.parity import Case, measure, random_params
from tests.helpers import slow

CASES = all_cases()
MAIN = [name for name in CASES if ":" not in name]
SHORT = ("sgd", "adam", "lamb", "adafactor", "muon", "polyak_sgd", "sam", "partition", "masked", "clip_by_global_norm")
"""A rule of each kind, traced."""
SHORTER = ("adam", "polyak_sgd", "masked")
"""And compiled, beside optax's."""


def cases(quick: tuple[str, ...]) -> list[Any]:
    """Every case; all but those named, in the long suite only."""
    return [*quick, *slow(*(name for name in CASES if name not in quick))]


REAL_ONLY = (
    "scale_by_adadelta", "adadelta", "scale_by_adopt", "adopt", "scale_by_simplified_ademamix", "simplified_ademamix",
    "clip", "scale_by_cocob", "cocob", "dadapt_adamw", "prodigy", "momo", "momo_adam", "scale_by_madgrad", "madgrad",
    "scale_by_distance_over_gradients", "mechanize", "scale_by_rprop", "rprop", "scale_by_sm3", "sm3", "sophia",
    "scale_by_galore", "galore",
)  # fmt: skip
"""Rules that order the entries of arrays or take roots of their products: they reject complex parameters."""


def params_of(case: Case, dtype: Any = jnp.float32) -> Any:
    """Parameters for a case, shapes alone."""
    made = lambda: random_params(jax.random.key(0), dtype, matrices=case.matrices)  # noqa: E731
    return jax.tree.map(lambda p: np.ones(p.shape, p.dtype), jax.eval_shape(made))


def value_fn(params: Any, grad_fn: Any = None) -> Any:
    wide = [p.astype(jnp.float32) for p in jax.tree.leaves(params)]
    return sum((jnp.vdot(p, p) for p in wide), jnp.zeros(()))


def update(opt: Any, state: Any, params: Any, grads_dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """One update with every extra argument."""

    def grad_fn(params: Any) -> Any:
        return jax.tree.map(lambda p: 2 * p.astype(grads_dtype), params)

    grads = grad_fn(params)
    extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn, "grad_fn": grad_fn, "obj_fn": value_fn}
    return opt.update(grads, state, params, **extra)


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


def kept(name: str, params_dtype: Any, grads_dtype: Any) -> None:
    """Trace three steps under scan, which rejects a carry whose dtypes change; nothing is compiled."""
    opt, params = CASES[name].ours(optim), params_of(CASES[name], params_dtype)

    def body(carry: Any, _: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = update(opt, state, params, grads_dtype)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(params_dtype)}
        return (optim.apply_updates(params, updates), state), None

    def run(params: Any) -> Any:
        start = opt.init(params)
        return start, jax.lax.scan(body, (params, start), length=3)[0]

    start, (params, state) = jax.eval_shape(run, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(params_dtype)}
    assert [s.dtype for s in jax.tree.leaves(state)] == [s.dtype for s in jax.tree.leaves(start)]


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_keeps_its_dtypes_under_scan_in_mixed_precision(name: str) -> None:
    kept(name, jnp.bfloat16, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_keeps_its_dtypes_under_scan_for_half_and_single_precision(name: str) -> None:
    for dtypes in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.bfloat16), (jnp.float32, jnp.float32)):
        kept(name, *dtypes)


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_promotes_no_dtypes_and_no_ranks_by_itself(name: str) -> None:
    opt = CASES[name].ours(optim)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(lambda params: update(opt, opt.init(params), params), params_of(CASES[name]))


@pytest.mark.parametrize("name", cases(quick=SHORT))
def test_rejects_gradients_of_another_structure(name: str) -> None:
    opt, params = CASES[name].ours(optim), params_of(CASES[name])
    zero, other = lambda p: jnp.zeros(()), lambda p: {"other": p}
    extra = {"value": 0.0, "grad": {}, "value_fn": zero, "grad_fn": other, "obj_fn": zero}
    with pytest.raises((ValueError, TypeError)):
        jax.eval_shape(lambda p: opt.update({"other": p["w"]}, opt.init(p), p, **extra), params)
