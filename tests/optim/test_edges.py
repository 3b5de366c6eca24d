"""What every rule does with bounds of 0, integers, gradients of dtype float0, and arrays of odd shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from tests.helpers import assert_close, slow

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
OF_SHAPES = ("sm3", "adafactor", "clip_by_block_rms")

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


@pytest.mark.parametrize("name", ["clip_by_block_rms", *slow(*(n for n in BOUNDED if n != "clip_by_block_rms"))])
def test_a_bound_of_zero_gives_zero_updates_traced_or_not(name: str) -> None:
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}

    def update(bound: Any, grads: Any) -> Any:
        opt = BOUNDED[name](bound)
        if name == "dpsgd":
            grads = jax.tree.map(lambda g: g[None], grads)
        return opt.update(grads, opt.init(params), params, obj_fn=lambda p: jnp.sum(p["w"]) + jnp.sum(p["b"]))[0]

    both = (jax.tree.map(np.zeros_like, params), jax.tree.map(lambda p: 3 * p, params))
    updates = jax.jit(lambda bound: [update(0.0, g) for g in both] + [update(bound, g) for g in both])(0.0)
    for i, found in enumerate(updates):
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()
            if i % 2 == 0 or not name.startswith("adam "):
                assert (np.asarray(leaf) == 0).all()


def test_clipped_sums_of_a_bound_of_zero() -> None:
    rules = (optim.normalize_by_update_norm(), optim.scale_by_trust_ratio(), optim.normalize())

    @jax.jit
    def sums(grads: Any) -> Any:
        zero, clips = jnp.zeros(2), (optim.per_example_global_norm_clip, optim.per_example_layer_norm_clip)
        return [clip([grads], 0.0)[0] for clip in clips], [opt.update(zero, opt.init(zero), zero)[0] for opt in rules]

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(sums(np.float32([[3, 4], [0, 0]]))))


def test_integers_are_refused_and_never_truncated() -> None:
    rules = {
        "scale": optim.scale(0.5),
        "clip": optim.clip(1.5),
        "clip_by_global_norm": optim.clip_by_global_norm(1.0),
        "clip_by_block_rms": optim.clip_by_block_rms(1.0),
        "centralize": optim.centralize(),
    }
    whole = np.array([3, 4], np.int32)
    for opt in rules.values():
        for params in (None, whole):
            for made in (opt, optim.chain(opt), optim.chain(opt, optim.scale(1.0))):
                with pytest.raises(TypeError, match=r"a gradient must have a floating dtype.*masked"):
                    made.update(whole, made.init(whole), params)

    @jax.jit
    def updates(grads: Any, params: Any) -> Any:
        return {name: opt.update(grads, opt.init(grads), params)[0] for name, opt in rules.items()}

    ones = np.ones(2, np.float32)  # whose dtype promotes them
    assert_close(updates(whole, ones), updates(whole.astype(np.float32), ones), rtol=0)


def test_applied_updates_of_integers() -> None:
    params = {"n": np.array([2**24 + 1, 3], np.int32), "w": np.ones(1, np.float32)}
    moved = jax.jit(optim.apply_updates)(params, params | {"n": np.array([1, -1], np.int32)})
    assert moved["n"].tolist() == [2**24 + 2, 2]
    assert moved["n"].dtype == params["n"].dtype
    with pytest.raises(TypeError, match=r"an update must have a floating dtype.*truncated"):
        optim.apply_updates(params, params | {"n": np.float32([0.5, 0.5])})


def test_decayed_weights_are_added_in_float32_and_masked_by_the_stored_dtype() -> None:
    opt = optim.add_decayed_weights(1.0, lambda p: jax.tree.map(lambda x: x.dtype == jnp.bfloat16, p))
    params, grads = jnp.full(1, 2.0**-9, jnp.bfloat16), jnp.ones(1, jnp.float32)
    updates = opt.update(grads - 2.0**-9, opt.init(params), params)[0]
    assert updates.dtype == jnp.bfloat16
    assert float(updates[0]) == 1.0


MASK = {"w": True, "n": False}
MASKED = {
    "masked": optim.masked(optim.adam(0.1), MASK),
    "chain": optim.chain(optim.masked(optim.clip_by_global_norm(1.0), MASK), optim.masked(optim.adam(0.1), MASK)),
    "partition": optim.partition({True: optim.adam(0.1), False: optim.set_to_zero()}, MASK),
    "selective_transform": optim.selective_transform(optim.adam(0.1), freeze_mask={"w": False, "n": True}),
    "apply_if_finite": optim.apply_if_finite(optim.masked(optim.adam(0.1), MASK), 1),
    "dynamic_loss_scale": optim.dynamic_loss_scale(optim.masked(optim.adam(0.1), MASK)),
    "conditionally_mask": optim.conditionally_mask(optim.masked(optim.adam(0.1), MASK), lambda step: step >= 0),
    "inject_hyperparams": optim.inject_hyperparams(lambda rate: optim.masked(optim.adam(rate), MASK))(0.1),
}


@pytest.mark.parametrize("name", ["masked", *slow(*(name for name in MASKED if name != "masked"))])
def test_float0_passes_beside_masked_integers(name: str) -> None:
    opt, params = MASKED[name], {"w": np.float32([1, 2]), "n": np.array([3, 4], np.int32)}

    @jax.jit
    def both(params: Any) -> Any:
        grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
        with pytest.raises(TypeError, match=r"a gradient must have a floating dtype.*float0"):
            optim.scale(0.5).update(grads, ())
        moved = []
        for given in (grads, grads | {"n": jnp.zeros(2, int)}):
            _, state = opt.update(given, opt.init(params), params)
            moved.append(optim.apply_updates(params, opt.update(given, state, params)[0]))
        return moved

    for moved in both(params):
        assert moved["n"].tolist() == [3, 4]
        assert moved["n"].dtype == params["n"].dtype
        assert_close(moved["w"], np.float32([0.9, 1.9]), rtol=1e-5)


@pytest.mark.parametrize("name", [*OF_SHAPES, *slow(*(name for name in RULES if name not in OF_SHAPES))])
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

        params = {"w": np.ones(shape, np.float32)}
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


def test_what_has_no_gradient_may_be_no_array() -> None:
    """A key, a function or a string beside the parameters, where their gradient is None, is passed over."""
    rules = {"normalize": optim.normalize(), "norm": optim.normalize_by_update_norm(), "muon": optim.scale_by_muon()}
    rules |= {"noise": optim.add_noise(0.1, 0.5, 0), "sgd": optim.sgd(0.1)}
    weights = {"w": np.ones((2, 2), np.float32), "x": None}
    for name, opt in rules.items():
        for other in (jax.random.key(0), jax.nn.relu, "text"):
            updates, _ = opt.update(weights, opt.init(weights), weights | {"x": other})
            assert updates["x"] is None, name
