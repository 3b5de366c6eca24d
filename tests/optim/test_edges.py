"""What every rule does with bounds of 0, integers, gradients of dtype float0, and arrays of odd shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from tests.helpers import assert_close

CASES = all_cases()


def _role(x: Any) -> str:
    return "hidden" if x.ndim > 1 else "vector"


OTHERS = {
    "shampoo": lambda lib: lib.shampoo(0.1),
    "soap": lambda lib: lib.soap(0.1, precondition_1d=True),
    "kahan": lambda lib: lib.kahan(lib.adam(0.1)),
    "master_weights": lambda lib: lib.master_weights(lib.adam(0.1)),
    "stochastic_rounding": lambda lib: lib.stochastic_rounding(lib.adam(0.1), 0),
    "quantized_state": lambda lib: lib.quantized_state(lib.adam(0.1), key=0, min_size=1, block_size=2),
    "muon_with_roles": lambda lib: lib.muon_with_roles(0.1, lambda p: jax.tree.map(_role, p)),
}
OF_OTHER_TREES = {"partition", "masked", "freeze", "selective_transform", "muon_with_roles"}
RULES = {name: case.ours for name, case in CASES.items() if ":" not in name and name not in OF_OTHER_TREES} | OTHERS
SHAPES = [(0,), (0, 3), (3, 0), (0, 2, 3), (), (1,), (1, 1), (2, 3, 2), (2, 1, 3, 2)]
QUICK = {"sm3", "muon", "adafactor", "clip_by_block_rms", "shampoo", "masked", "apply_if_finite"}

BOUNDED = {
    "clip": optim.clip,
    "clip_by_global_norm": optim.clip_by_global_norm,
    "clip_by_block_rms": optim.clip_by_block_rms,
    "adaptive_grad_clip": optim.adaptive_grad_clip,
    "adafactor": lambda bound: optim.adafactor(0.1, clipping_threshold=bound),
    "sophia": lambda bound: optim.scale_by_sophia(clip_threshold=bound),
    "dpsgd": lambda bound: optim.dpsgd(0.1, bound, 0.0, 0),
    "adam of an eps of 0": lambda bound: optim.adam(0.1, eps=bound),
}
"""Rules by their bound; all but the last move nothing where it is 0."""


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in BOUNDED])
def test_a_bound_of_zero_gives_zero_updates_traced_or_not(name: str) -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

    def update(bound: Any, grads: Any) -> Any:
        opt = BOUNDED[name](bound)
        if name == "dpsgd":
            grads = jax.tree.map(lambda g: g[None], grads)
        return opt.update(grads, opt.init(params), params, obj_fn=lambda p: jnp.sum(p["w"]) + jnp.sum(p["b"]))[0]

    both = (jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda p: 3 * p, params))
    updates = jax.jit(lambda bound: [update(0.0, g) for g in both] + [update(bound, g) for g in both])(0.0)
    for i, found in enumerate(updates):
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()
            if i % 2 == 0 or not name.startswith("adam "):
                assert (np.asarray(leaf) == 0).all()


def test_clipped_sums_of_a_bound_of_zero() -> None:
    grads = [jnp.array([[3.0, 4.0], [0.0, 0.0]])]
    for found, _ in (optim.per_example_global_norm_clip(grads, 0.0), optim.per_example_layer_norm_clip(grads, 0.0)):
        assert_close(found, [jnp.zeros(2)], rtol=0)
    for opt in (optim.normalize_by_update_norm(), optim.scale_by_trust_ratio(), optim.normalize()):
        updates, _ = opt.update(jnp.zeros(2), opt.init(jnp.zeros(2)), jnp.zeros(2))
        assert_close(updates, jnp.zeros(2), rtol=0)


@pytest.mark.parametrize("name", ["scale", "clip", "clip_by_global_norm", "clip_by_block_rms", "centralize"])
def test_integers_are_refused_and_never_truncated(name: str) -> None:
    opt = {
        "scale": optim.scale(0.5),
        "clip": optim.clip(1.5),
        "clip_by_global_norm": optim.clip_by_global_norm(1.0),
        "clip_by_block_rms": optim.clip_by_block_rms(1.0),
        "centralize": optim.centralize(),
    }[name]
    whole = jnp.array([3, 4])
    for params in (None, whole):
        for made in (opt, optim.chain(opt), optim.chain(opt, optim.scale(1.0))):
            with pytest.raises(TypeError, match=r"a gradient must have a floating dtype.*masked"):
                made.update(whole, made.init(whole), params)
    expected, _ = opt.update(whole.astype(float), opt.init(whole), jnp.ones(2))
    assert_close(opt.update(whole, opt.init(whole), jnp.ones(2))[0], expected, rtol=0)  # promoted by its parameters


def test_applied_updates_of_integers() -> None:
    params = {"n": jnp.array([2**24 + 1, 3]), "w": jnp.ones(1)}
    moved = optim.apply_updates(params, {"n": jnp.array([1, -1]), "w": jnp.ones(1)})
    assert moved["n"].tolist() == [2**24 + 2, 2]
    assert moved["n"].dtype == params["n"].dtype
    with pytest.raises(TypeError, match=r"an update must have a floating dtype.*truncated"):
        optim.apply_updates(params, {"n": jnp.array([0.5, 0.5]), "w": jnp.ones(1)})


MASK = {"w": True, "n": False}
MASKED = {
    "masked": optim.masked(optim.adam(0.1), MASK),
    "chain": optim.chain(optim.masked(optim.clip_by_global_norm(1.0), MASK), optim.masked(optim.adam(0.1), MASK)),
    "partition": optim.partition({True: optim.adam(0.1), False: optim.set_to_zero()}, MASK),
    "selective_transform": optim.selective_transform(optim.adam(0.1), freeze_mask={"w": False, "n": True}),
    "apply_if_finite": optim.apply_if_finite(optim.masked(optim.adam(0.1), MASK), 1),
    "conditionally_mask": optim.conditionally_mask(optim.masked(optim.adam(0.1), MASK), lambda step: step >= 0),
    "inject_hyperparams": optim.inject_hyperparams(lambda rate: optim.masked(optim.adam(rate), MASK))(0.1),
}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MASKED])
def test_float0_passes_beside_masked_integers(name: str) -> None:
    params = {"w": jnp.array([1.0, 2.0]), "n": jnp.array([3, 4])}
    grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
    zeros = grads | {"n": jnp.zeros(2, int)}
    opt = MASKED[name]
    for given in (grads, zeros):
        updates, state = opt.update(given, opt.init(params), params)
        updates, _ = opt.update(given, state, params)
        moved = optim.apply_updates(params, updates)
        assert moved["n"].tolist() == [3, 4]
        assert moved["n"].dtype == params["n"].dtype
        assert_close(moved["w"], jnp.array([0.9, 1.9]), rtol=1e-5)
    with pytest.raises(TypeError, match=r"a gradient must have a floating dtype.*float0"):
        optim.scale(0.5).update(grads, ())


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RULES])
def test_arrays_of_every_shape(name: str) -> None:
    """Two steps are traced, so that no state changes its form; rules for matrices alone say so."""
    only_matrices = name in ("scale_by_muon", "orthogonalize_via_newton_schulz")

    def loss(params: Any) -> Any:
        return jnp.sum(params["w"] ** 4)

    for shape in SHAPES:
        opt = RULES[name](optim)

        def two(params: Any, opt: Any = opt) -> Any:
            state = opt.init(params)
            for _ in range(2):
                value, grads = jax.value_and_grad(loss)(params)
                extra = {"value": value, "grad": grads, "value_fn": loss, "grad_fn": jax.grad(loss), "obj_fn": loss}
                updates, after = opt.update(grads, state, params, **extra)
                assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
                params, state = optim.apply_updates(params, updates), after
            return params

        params = {"w": jnp.ones(shape)}
        if only_matrices and len(shape) != 2:
            with pytest.raises(ValueError, match="must be a matrix"):
                jax.eval_shape(two, params)
            continue
        assert jax.eval_shape(two, params)["w"].shape == shape


@pytest.mark.slow
def test_arrays_without_entries_beside_others_change_nothing() -> None:
    params = {"w": jnp.array([[1.0, 2.0], [0.3, 0.2]]), "none": jnp.ones((0, 3))}
    for make in (optim.sm3, optim.muon, optim.adafactor, optim.lamb):
        opt = make(0.1)
        updates, state = jax.jit(opt.update)(params, opt.init(params), params)
        alone, _ = jax.jit(opt.update)({"w": params["w"]}, opt.init({"w": params["w"]}), {"w": params["w"]})
        assert updates["none"].shape == (0, 3)
        assert_close(updates["w"], alone["w"], rtol=1e-6)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
