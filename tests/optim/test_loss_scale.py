"""Dynamic loss scaling: the rule of the scale, steps that are skipped, and what they leave as it was."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.optim.precision.loss_scale import loss_scale_of
from tests.helpers import random, strict
from tests.optim.mutants import mutated
from tests.optim.running import along

INITIAL, PERIOD, MAXIMUM, STEPS = 8.0, 3, 64.0, 120
FINITE = (random(7, STEPS) > -1.2) & (np.arange(STEPS) // 10 != 3)
"""Which of the gradients are finite: runs of several, and several in a row that are not."""


def transcribed(finite: np.ndarray) -> tuple[list[float], list[int], list[int]]:
    """Scale, finite steps since its last change and skipped steps, after each step."""
    scale, good, skipped = INITIAL, 0, 0
    scales, goods, skips = [], [], []
    for fine in finite:
        if fine:
            good += 1
            if good == PERIOD:
                scale, good = min(2 * scale, MAXIMUM), 0
        else:
            scale, good, skipped = max(scale / 2, 1.0), 0, skipped + 1
        scales.append(scale)
        goods.append(good)
        skips.append(skipped)
    return scales, goods, skips


def gradients() -> np.ndarray:
    grads = random(8, STEPS, 3, dtype=np.float32)
    grads[~FINITE, 1] = np.where(np.arange((~FINITE).sum()) % 2, np.inf, np.nan)
    return grads


def course(library: Any) -> dict[str, np.ndarray]:
    """What a run leaves after each step, and its parameters."""
    opt = library.dynamic_loss_scale(optim.adam(0.1), INITIAL, 2.0, PERIOD, MAXIMUM)

    def body(carry: Any, g: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = opt.update(g, state, params)
        params = optim.apply_updates(params, updates)
        return (params, state), {"params": params, **state._asdict()}

    with strict():
        start = np.ones(3, np.float32)
        _, found = jax.jit(lambda p, g: jax.lax.scan(body, (p, opt.init(p)), g))(start, gradients())
    return found


def check(library: Any) -> None:
    found, (scales, goods, skips) = course(library), transcribed(FINITE)
    np.testing.assert_array_equal(found["scale"], np.float32(scales))
    np.testing.assert_array_equal(found["good_steps"], goods)
    np.testing.assert_array_equal(found["skipped_steps"], skips)
    # Adam along the finite gradients alone is where the others left no trace.
    _, params, state = along(optim.adam(0.1), np.ones(3, np.float32), gradients()[FINITE])
    np.testing.assert_array_equal(found["params"][FINITE], params)
    np.testing.assert_array_equal(found["params"][1:][~FINITE[1:]], found["params"][:-1][~FINITE[1:]])
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[-1], found["inner_state"]), state)


def test_the_rule_and_what_skipped_steps_leave_alone() -> None:
    assert {max(transcribed(FINITE)[0]), min(transcribed(FINITE)[0])} == {MAXIMUM, 1.0}, "both bounds are met"
    check(optim)


BROKEN = [
    ("state.scale * factor, maximum", "state.scale * factor, jnp.inf"),
    ("state.scale / factor, 1", "state.scale / factor, 0"),
    ("jnp.where(finite, state.good_steps + 1, 0)", "state.good_steps + 1"),
    ("good >= period", "good > period"),
    ("jnp.where(due, 0, good)", "good"),
    ("jnp.where(finite, u, jnp.zeros_like(u))", "u"),
    ("jnp.where(finite, n, old)", "n"),
    ("jnp.where(finite, g, jnp.zeros_like(g))", "g"),
    ("state.skipped_steps, increment", "increment(state.skipped_steps), increment"),
]


@pytest.mark.parametrize(
    ("old", "new"), [BROKEN[5], *(pytest.param(*m, marks=pytest.mark.slow) for m in BROKEN[:5] + BROKEN[6:])]
)
def test_a_broken_rule_is_caught(old: str, new: str) -> None:
    if old.startswith("jnp.where(finite, g,"):  # NaN would reach derivatives of the update alone
        assert np.isnan(slope(mutated("loss_scale", old, new)))
        return
    with pytest.raises(AssertionError):
        check(mutated("loss_scale", old, new))


def slope(library: Any) -> float:
    """The derivative of the parameter after a skipped step by the learning rate."""

    def after(rate: Any) -> Any:
        opt, p = library.dynamic_loss_scale(optim.adam(rate)), jnp.ones(())
        return p + opt.update(jnp.inf, opt.init(p), p)[0]

    return float(jax.grad(after)(0.1))


def test_a_skipped_step_has_a_derivative_of_zero() -> None:
    assert slope(optim) == 0


def test_the_scale_is_that_of_jmp() -> None:
    jmp = pytest.importorskip("jmp", reason="jmp is not installed: pip install jmp")
    theirs = jmp.DynamicLossScale(jnp.float32(INITIAL), period=PERIOD, factor=2, min_loss_scale=jnp.float32(1))
    opt = optim.dynamic_loss_scale(optim.sgd(0.1), INITIAL, 2.0, PERIOD)
    state = opt.init(np.ones(1, np.float32))
    for g in gradients()[:40]:
        _, state = opt.update(g[1:2], state)
        theirs = theirs.adjust(jmp.all_finite(g[1:2]))
        assert (float(state.scale), int(state.good_steps)) == (float(theirs.loss_scale), int(theirs.counter))


@pytest.mark.parametrize("around", [True, False])
def test_float16_weights_with_master_weights(around: bool) -> None:
    """100 steps of 1e-3 that alone would leave a weight of 1 where it is, and one that is skipped."""
    sgd = optim.sgd(1e-4)
    opt = optim.dynamic_loss_scale(sgd) if around else sgd
    opt = optim.master_weights(opt) if around else optim.dynamic_loss_scale(optim.master_weights(sgd))
    grads = np.ones((101, 1), np.float32)
    grads[50] = np.inf
    _, params, state = along(opt, np.ones(1, np.float16), grads)
    assert params.dtype == np.float16
    np.testing.assert_allclose(params[-1], 0.99, atol=5e-4)
    np.testing.assert_array_equal(params[50], params[49])
    assert loss_scale_of(state).skipped_steps == 1


def test_a_scale_is_found_and_only_one_may_be_there() -> None:
    params = np.ones(1, np.float32)
    assert loss_scale_of(optim.adam(0.1).init(params)) is None
    inside = optim.chain(optim.clip(1.0), optim.dynamic_loss_scale(optim.adam(0.1), 4.0))
    assert float(loss_scale_of(inside.init(params)).scale) == 4
    twice = optim.chain(*[optim.dynamic_loss_scale(optim.sgd(0.1))] * 2)
    with pytest.raises(ValueError, match="must hold one loss scale, got 2"):
        loss_scale_of(twice.init(params))


def test_arguments_out_of_range_raise() -> None:
    for name, value in (("initial", 0.5), ("factor", 0.9), ("period", 0), ("maximum", np.inf)):
        with pytest.raises(ValueError, match=f"dynamic_loss_scale: {name} must lie in"):
            optim.dynamic_loss_scale(optim.sgd(0.1), **{name: value})
