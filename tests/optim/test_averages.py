"""Moving averages of updates and of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import float64, random, slow, strict
from tests.optim.running import along, traced

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


def visited(opt: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The parameters and the averages after each step."""
    grads = {"w": np.stack([random(i, 3) for i in range(steps)]), "none": None}

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = opt.update(g, state, params)
        params = optim.apply_updates(params, updates)
        return (params, state), (params["w"], optim.averaged_params(state)["w"])

    run = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), grads)[1])
    return jax.device_get(run({"w": random(0, 3), "none": None}))


@pytest.mark.parametrize("library", [optim, *slow(optax)])
def test_the_mean_of_the_parameters_from_a_start_on(library: Any) -> None:
    with float64(), strict() if library is optim else float64():
        for start in (0, 10):
            thetas, averages = visited(optim.average_params(library.adam(0.1), start=start), 100)
            for t in range(100):
                expected = np.mean(thetas[start : t + 1], axis=0) if t > start else thetas[t]
                np.testing.assert_allclose(averages[t], expected, rtol=1e-12)


def test_the_exponential_average_without_and_with_correction() -> None:
    with float64():
        thetas, averages = visited(optim.average_params(optim.sgd(0.1), 0.9), 100)
        ema = np.zeros(3)
        for t, theta in enumerate(thetas):
            ema = 0.9 * ema + 0.1 * theta
            np.testing.assert_allclose(averages[t], ema / (1 - 0.9 ** (t + 1)), rtol=1e-12)
        thetas, averages = visited(optim.average_params(optim.sgd(0.1), 0.9, debias=False), 100)
        ema = thetas[0]
        for t, theta in enumerate(thetas[1:], 1):
            ema = 0.9 * ema + 0.1 * theta
            np.testing.assert_allclose(averages[t], ema, rtol=1e-12)


@pytest.mark.slow
def test_the_exponential_average_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    swa = pytest.importorskip("torch.optim.swa_utils")
    with float64():
        thetas, averages = visited(optim.average_params(optim.sgd(0.1), 0.9, debias=False), 20)
    module = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    model = swa.AveragedModel(module, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    for theta, average in zip(thetas, averages, strict=True):
        with torch.no_grad():
            module.weight.copy_(torch.tensor(theta)[None])
        model.update_parameters(module)
        np.testing.assert_allclose(average, model.module.weight.detach().numpy()[0], rtol=1e-12)


def test_the_average_is_found_in_a_chain_and_kept_in_float32() -> None:
    params = np.ones(2, jnp.bfloat16)
    state = optim.chain(optim.clip(1.0), optim.average_params(optim.adam(0.1))).init(params)
    assert optim.averaged_params(state).dtype == jnp.float32
    assert optim.averaged_params(state, params).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="must hold one average, got 0"):
        optim.averaged_params(optim.adam(0.1).init(params))


def test_ema_equals_optax_without_and_with_correction() -> None:
    with float64():
        for debias in (True, False):
            rules = (library.ema(0.7, debias) for library in (optim, optax))
            ours, theirs = (along(rule, np.zeros(3), random(0, 5, 3))[0] for rule in rules)
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_incremental_and_periodic_updates_equal_optax_and_keep_dtypes() -> None:
    new, old = {"w": random(0, 3, dtype=np.float32), "n": None}, {"w": np.ones(3, np.float32), "n": None}
    half = {"w": np.ones(3, jnp.bfloat16), "n": None}
    ours, theirs = jax.jit(lambda: [library.incremental_update(new, old, 0.1)["w"] for library in (optim, optax)])()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert jax.eval_shape(lambda: optim.incremental_update(new, half, 0.1)["w"]).dtype == jnp.bfloat16
    periodic = jax.jit(lambda s: optim.periodic_update(new, half, s, 2)["w"])
    for step in range(5):
        got = np.asarray(periodic(step))
        assert got.dtype == jnp.bfloat16
        assert (got == half["w"]).all() == (step % 2 == 1)
    assert optim.periodic_update(jnp.ones(1), jnp.zeros(1, int), 2, 2).dtype == jnp.zeros(1, int).dtype


def test_an_incremental_update_is_none_where_the_new_tensor_is() -> None:
    old = {"w": jnp.ones(2), "inner": {"b": jnp.ones(1)}}
    assert optim.incremental_update(None, jnp.ones(3), 0.5) is None
    assert optim.incremental_update({"w": None, "inner": None}, old, 0.5) == {"w": None, "inner": None}
    new = optim.incremental_update({"w": jnp.zeros(2), "inner": {"b": None}}, old, 0.5)
    assert new["inner"]["b"] is None
    np.testing.assert_array_equal(new["w"], 0.5)
    with pytest.raises(ValueError, match="an old tensor is None where the new is an array"):
        optim.incremental_update(old, {"w": None, "inner": {"b": jnp.ones(1)}}, 0.5)


@traced
def test_complaints() -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        optim.ema(1.0)
    with pytest.raises(ValueError, match=r"start must lie in"):
        optim.average_params(optim.sgd(0.1), start=-1)
    opt = optim.average_params(optim.sgd(0.1))
    with pytest.raises(ValueError, match="average_params: update needs the parameters"):
        opt.update(jnp.ones(1), opt.init(jnp.ones(1)))
