"""Moving averages of updates and of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import float64, random, strict

MUTANTS = [
    ("averages", "ema", "mean / (1 - d ** count", "mean / (1 - d ** (count + 1)"),
    ("averages", "ema: biased", "d * mean + (1 - d) * g", "d * mean + g"),
    (
        "averages",
        "ema",
        "count = increment(state.count)\n\n        def rule",
        "count = state.count\n\n        def rule",
    ),
    (
        "averages",
        "average_params",
        "return updates, AverageState(",
        "return jax.tree.map(jnp.negative, updates), AverageState(",
    ),
]


def visited(opt: Any, steps: int) -> tuple[list[Any], list[Any], Any]:
    """The parameters after each step, the averages after each step, and the state."""
    params = {"w": jnp.asarray(random(0, 3)), "none": None}
    state, thetas, averages = opt.init(params), [], []
    for i in range(steps):
        grads = {"w": jnp.asarray(random(i, 3)), "none": None}
        updates, state = opt.update(grads, state, params)
        params = optim.apply_updates(params, updates)
        thetas.append(np.asarray(params["w"]))
        averages.append(np.asarray(optim.averaged_params(state)["w"]))
    return thetas, averages, state


@pytest.mark.parametrize("library", [optim, optax])
def test_the_mean_of_the_parameters_from_a_start_on(library: Any) -> None:
    with float64(), strict() if library is optim else float64():
        for start in (0, 10):
            thetas, averages, _ = visited(optim.average_params(library.adam(0.1), start=start), 100)
            for t in range(100):
                expected = np.mean(thetas[start : t + 1], axis=0) if t > start else thetas[t]
                np.testing.assert_allclose(averages[t], expected, rtol=1e-12)


def test_the_exponential_average_without_and_with_correction() -> None:
    with float64():
        thetas, averages, _ = visited(optim.average_params(optim.sgd(0.1), 0.9), 100)
        ema = np.zeros(3)
        for t, theta in enumerate(thetas):
            ema = 0.9 * ema + 0.1 * theta
            np.testing.assert_allclose(averages[t], ema / (1 - 0.9 ** (t + 1)), rtol=1e-12)
        thetas, averages, _ = visited(optim.average_params(optim.sgd(0.1), 0.9, debias=False), 100)
        ema = thetas[0]
        for t, theta in enumerate(thetas[1:], 1):
            ema = 0.9 * ema + 0.1 * theta
            np.testing.assert_allclose(averages[t], ema, rtol=1e-12)


def test_the_exponential_average_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    swa = pytest.importorskip("torch.optim.swa_utils")
    with float64():
        thetas, averages, _ = visited(optim.average_params(optim.sgd(0.1), 0.9, debias=False), 20)
    module = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    model = swa.AveragedModel(module, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    for theta, average in zip(thetas, averages, strict=True):
        with torch.no_grad():
            module.weight.copy_(torch.tensor(theta)[None])
        model.update_parameters(module)
        np.testing.assert_allclose(average, model.module.weight.detach().numpy()[0], rtol=1e-12)


def test_the_average_is_found_in_a_chain_and_kept_in_float32() -> None:
    params = jnp.ones(2, jnp.bfloat16)
    state = optim.chain(optim.clip(1.0), optim.average_params(optim.adam(0.1))).init(params)
    assert optim.averaged_params(state).dtype == jnp.float32
    assert optim.averaged_params(state, params).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="must hold one average, got 0"):
        optim.averaged_params(optim.adam(0.1).init(params))


def test_ema_equals_optax_without_and_with_correction() -> None:
    with float64():
        for debias in (True, False):
            ours, theirs = optim.ema(0.7, debias), optax.ema(0.7, debias)
            state, other = ours.init(jnp.zeros(3)), theirs.init(jnp.zeros(3))
            for i in range(5):
                a, state = ours.update(jnp.asarray(random(i, 3)), state)
                b, other = theirs.update(jnp.asarray(random(i, 3)), other)
                np.testing.assert_allclose(a, b, rtol=1e-14)


def test_incremental_and_periodic_updates_equal_optax_and_keep_dtypes() -> None:
    new, old = {"w": jnp.asarray(random(0, 3), jnp.float32), "n": None}, {"w": jnp.ones(3), "n": None}
    np.testing.assert_allclose(
        optim.incremental_update(new, old, 0.1)["w"], optax.incremental_update(new, old, 0.1)["w"], rtol=1e-6
    )
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), old)
    assert optim.incremental_update(new, half, 0.1)["w"].dtype == jnp.bfloat16
    for step in range(5):
        got = jax.jit(lambda s: optim.periodic_update(new, half, s, 2))(step)["w"]
        assert got.dtype == jnp.bfloat16
        assert (got == half["w"]).all() == (step % 2 == 1)


def test_an_incremental_update_is_none_where_the_new_tensor_is() -> None:
    old = {"w": jnp.ones(2), "inner": {"b": jnp.ones(1)}}
    assert optim.incremental_update(None, jnp.ones(3), 0.5) is None
    assert optim.incremental_update({"w": None, "inner": None}, old, 0.5) == {"w": None, "inner": None}
    new = optim.incremental_update({"w": jnp.zeros(2), "inner": {"b": None}}, old, 0.5)
    assert new["inner"]["b"] is None
    np.testing.assert_array_equal(new["w"], 0.5)
    with pytest.raises(ValueError, match="an old tensor is None where the new is an array"):
        optim.incremental_update(old, {"w": None, "inner": {"b": jnp.ones(1)}}, 0.5)


def test_complaints() -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        optim.ema(1.0)
    with pytest.raises(ValueError, match=r"start must lie in"):
        optim.average_params(optim.sgd(0.1), start=-1)
    opt = optim.average_params(optim.sgd(0.1))
    with pytest.raises(ValueError, match="average_params: update needs the parameters"):
        opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
