"""Transformations of other making inside our combinators: their states pass through as they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import slow
from tests.optim.running import traced

G = np.float32([0.6, 0.8])


def smoothed(kind: Any = optax.GradientTransformation, start: Any = 0) -> Any:
    """Gradients over 1 + the mean of their norms, whose state is an int at the start and a float from then on."""

    def update(g: Any, s: Any, p: Any = None) -> Any:
        return g / (1 + s), 0.5 * s + 0.5 * optim.global_norm(g)

    return kind(lambda p: jnp.array(start), update)


def flagged() -> Any:
    """The gradients, with Python scalars for a state."""

    def update(g: Any, s: Any, p: Any = None) -> Any:
        return g, {"called": True, "count": s["count"] + 1, "rate": 0.5}

    return optax.GradientTransformation(lambda p: {"called": jnp.array(False), "count": 0, "rate": 1}, update)


def remembers() -> Any:
    """The last gradients and parameters, as they came; its state begins in the dtype of the parameters."""
    zeros = lambda p: jax.tree.map(jnp.zeros_like, p)  # noqa: E731
    return optax.GradientTransformation(lambda p: (zeros(p), zeros(p)), lambda g, s, p=None: (g, (g, p)))


AROUND = {
    "chain": lambda t: optim.chain(t, optim.scale(1.0)),
    "named_chain": lambda t: optim.named_chain(("t", t)),
    "masked": lambda t: optim.masked(t, True),
    "partition": lambda t: optim.partition({"a": t}, "a"),
    "flatten": optim.flatten,
    "inject_hyperparams": lambda t: optim.inject_hyperparams(lambda rate: t)(1.0),
    "average_params": optim.average_params,
    "split_real_and_imaginary": optim.split_real_and_imaginary,
    "schedule_free": lambda t: optim.schedule_free(t, 1.0),
    "mechanize": lambda t: optim.mechanize(t, 0.0, 0.0, 1.0, 1),
    "quantized_state": lambda t: optim.quantized_state(optim.chain(optim.trace(0.5), t), fields="trace"),
    "master_weights": optim.master_weights,
    "stochastic_rounding": lambda t: optim.stochastic_rounding(t, jax.random.key(0)),
    "kahan": optim.kahan,
    "lookahead": lambda t: optim.lookahead(t, 10, 0.5),
    "sam": lambda t: optim.sam(t, optim.sgd(0.0), 1, opaque_mode=True),
    "monitor": lambda t: optim.monitor({"t": t}),
}
QUICK = ("chain", "masked", "flatten", "kahan", "lookahead")
CONDITIONAL = {
    "apply_if_finite": lambda t: optim.apply_if_finite(t, 1),
    "conditionally_mask": lambda t: optim.conditionally_mask(t, lambda step: step >= 0),
    "conditionally_transform": lambda t: optim.conditionally_transform(t, lambda step: step >= 0),
    "accumulate": lambda t: optim.accumulate(t, 1),
    "dynamic_loss_scale": optim.dynamic_loss_scale,
}


def last(opt: Any, steps: int, params: Any = G, grads: Any = G) -> Any:
    """The last of some updates, and the state."""
    both = optim.LookaheadParams(params, params)
    state = opt.init(params)
    for _ in range(steps):
        at = both if isinstance(state, optim.LookaheadState) else params
        updates, state = opt.update(grads, state, at, grad_fn=lambda p: grads)
        updates = getattr(updates, "fast", updates)
    return updates, state


@pytest.mark.parametrize("name", ["chain", "lookahead", *slow("masked", "inject_hyperparams")])
def test_a_state_that_begins_as_an_int_is_not_truncated(name: str) -> None:
    made = [AROUND[name](smoothed(kind)) for kind in (optax.GradientTransformation, optim.Optimizer)]
    opts = (optax.chain(smoothed(), optax.scale(1.0)), *made)
    expected, *ours = jax.jit(lambda: [last(opt, 3)[0] for opt in opts])()
    np.testing.assert_allclose(expected, [0.343, 0.457], atol=1e-3)
    np.testing.assert_allclose(ours, [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in AROUND if name not in QUICK))])
def test_python_scalars_in_a_state_pass(name: str) -> None:
    _, state = last(AROUND[name](flagged()), 2)
    found = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, dict) and "called" in x)
    found = [x for x in found if isinstance(x, dict) and x["called"] is not None]
    assert found == [{"called": True, "count": 2, "rate": 0.5}]


@pytest.mark.parametrize(
    "name", ["apply_if_finite", *slow(*(name for name in CONDITIONAL if name != "apply_if_finite"))]
)
def test_where_one_dtype_is_needed_both_are_named(name: str) -> None:
    with pytest.raises(TypeError, match="state at the top was int32 and is float32 after its update"):
        jax.eval_shape(lambda: last(CONDITIONAL[name](smoothed()), 1))
    made = CONDITIONAL[name](smoothed(start=0.0))
    np.testing.assert_allclose(jax.jit(lambda: last(made, 3)[0])(), [0.343, 0.457], atol=1e-3)


@traced
def test_other_choices_between_two_states_need_one_dtype() -> None:
    for opt, where in (
        (optim.lookahead(smoothed(), 2, 0.5, reset_state=True), "lookahead"),
        (optim.sam(smoothed(), optim.sgd(0.1)), "sam"),
        (optim.sam(optim.sgd(0.1), smoothed()), "sam"),
    ):
        with pytest.raises(TypeError, match=f"{where}: the wrapped transformation's state at the top was int32"):
            last(opt, 1)


@pytest.mark.parametrize("name", ["chain", "kahan", *slow("masked", "flatten", "average_params", "schedule_free")])
def test_states_keep_their_dtypes_under_scan_in_mixed_precision(name: str) -> None:
    """Others see float32 from `init` on, so that even a state of the last gradients and parameters never changes."""
    for kinds in ((jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.bfloat16)):
        params, grads = (G.astype(kind) for kind in kinds)
        for rule in (remembers(), optax.adam(0.1), optax.sgd(0.1, 0.9)):
            opt = AROUND[name](rule)

            def body(state: Any, _: Any, opt: Any = opt, params: Any = params, grads: Any = grads) -> Any:
                updates, state = opt.update(grads, state, params)
                return state, updates

            _, updates = jax.eval_shape(
                lambda opt=opt, body=body, params=params: jax.lax.scan(body, opt.init(params), None, length=3)
            )
            assert updates.dtype == params.dtype


def test_an_int_schedule_may_become_a_fraction() -> None:
    opt = optim.inject_hyperparams(optim.sgd)(lambda count: jnp.array(1) if isinstance(count, int) else 1 / (1 + count))
    assert jax.jit(lambda: last(opt, 2)[0])().tolist() == pytest.approx([-0.3, -0.4])


def test_updates_that_are_python_numbers_come_in_the_dtype_of_the_parameters() -> None:
    opt = optim.chain(optax.stateless(lambda updates, params: -0.5))
    updates, _ = opt.update(jnp.ones(()), opt.init(jnp.ones(())), jnp.ones((), jnp.bfloat16))
    assert (updates.dtype, float(updates)) == (jnp.bfloat16, -0.5)
