"""Looking into an optimizer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import random

MUTANTS = [
    ("monitor", "snapshot", "_measured(measure, updates)})", "_measured(measure, updates) * 2})"),
    ("monitor", "snapshot", "return updates, dtypes_of(SnapshotState", "return jax.tree.map(jnp.negative, updates), "
     "dtypes_of(SnapshotState"),
]  # fmt: skip


def test_a_state_is_a_flat_dict() -> None:
    opt = optim.chain(optim.clip(1.0), optim.inject_hyperparams(optim.sgd)(0.1, momentum=0.9))
    named = optim.named_state(opt.init({"w": jnp.ones(2)}))
    assert set(named) == {
        "1/count", "1/hyperparams/learning_rate", "1/hyperparams/momentum", "1/inner_state/count",
        "1/inner_state/trace/w",
    }  # fmt: skip
    assert "1/inner_state/trace/w" not in optim.named_state(opt.init({"w": jnp.ones(2)}), scalars_only=True)
    assert "0/mu/w" in optim.named_state(optax.adam(0.1).init({"w": jnp.ones(2)}))


@pytest.mark.slow
def test_measurements_equal_optax_and_can_be_scanned_over() -> None:
    def measures(library: object) -> dict[str, object]:
        return {
            "norm": optax.tree.norm,
            "often": library.measure_with_ema(lambda u: optax.tree.norm(u) > 1.5, 0.9),
            "mean": library.measure_with_ema(lambda u: u["w"].mean(), 0.8, debias=False),
        }

    ours = optim.chain(optim.monitor(measures(optim)), optim.sgd(0.1))
    theirs = optax.chain(optax.monitor(measures(optax)), optax.sgd(0.1))
    params = {"w": jnp.ones(3)}
    grads = {"w": jnp.asarray(random(0, 20, 3), jnp.float32)}
    _, found = jax.lax.scan(lambda state, g: ours.update(g, state, params)[::-1], ours.init(params), grads)
    state, other = ours.init(params), theirs.init(params)
    assert all(leaf == 0 for leaf in jax.tree.leaves(state[0].measurements))
    for i in range(20):
        g = {"w": grads["w"][i]}
        _, state = ours.update(g, state, params)
        expected, other = theirs.update(g, other, params)
        np.testing.assert_allclose(found["w"][i], expected["w"], rtol=1e-6)
        for name in ("norm", "often", "mean"):
            np.testing.assert_allclose(state[0].measurements[name], other[0].measurements[name], rtol=1e-5)


def test_half_precision_updates_are_measured_in_float32() -> None:
    opt = optim.snapshot("norm", optim.global_norm)
    updates, state = opt.update(jnp.full(3, 1.5, jnp.bfloat16), opt.init(jnp.ones(3, jnp.bfloat16)))
    assert updates.dtype == jnp.bfloat16
    np.testing.assert_allclose(state.measurement["norm"], 1.5 * 3**0.5, rtol=1e-6)
    assert state.measurement["norm"].dtype == jnp.float32
