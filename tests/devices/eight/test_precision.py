"""Mixed precision on 8 devices gives the numbers of one, and all devices skip the same steps."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, optim, train
from tests.helpers import assert_close, slow

NET = models.mlp([8, 16, 4])
LOSS = losses.softmax_cross_entropy
WAYS = {
    "backprop": lambda: backprop.value_and_grad(NET, LOSS),
    "jax.grad": lambda: jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True),
    "per_example": lambda: train.per_example_vg(NET, LOSS),
}
CASES = [
    ("backprop", AxisType.Auto),
    *slow(*((way, kind) for way in WAYS for kind in (AxisType.Auto, AxisType.Explicit))),
]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_steps_in_float16_on_a_mesh(way: str, kind: Any) -> None:
    """Data split over the devices, the wide matrix split by columns."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 8)).astype(np.float32), rng.integers(0, 4, 32)
    opt = optim.dynamic_loss_scale(optim.adam(1e-2), 2.0**22)
    step = train.make_step(train.precision(WAYS[way](), jnp.float16), opt)
    alone = train.init(NET, opt, jax.random.key(0), (8,))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))

    def place(leaf: Any, *spec: Any) -> Any:
        # NumPy's copy: one buffer may not be donated twice.
        return jax.device_put(np.array(leaf), NamedSharding(mesh, P(*spec)))

    params = jax.tree.map(lambda p: place(p, None, "data") if p.shape == (8, 16) else place(p), alone.params)
    with jax.set_mesh(mesh):
        ts: Any = train.TrainState(params, alone.state, jax.jit(opt.init)(params))
        found: list[Any] = []
        for _ in range(8):
            ts, report = step(ts, place(x, "data"), place(y, "data"))
            found.append(jax.device_get(report))
    expected: list[Any] = []
    for _ in range(8):
        alone, report = step(alone, x, y)
        expected.append(jax.device_get(report))
    skipped = [float(report["skipped_steps"]) for report in expected]
    assert 0 < sum(skipped) < 8
    assert [float(report["skipped_steps"]) for report in found] == skipped
    chex.assert_trees_all_equal(ts.opt_state.scale, alone.opt_state.scale)
    # Sums over devices are rounded to float16 in another order.
    assert_close([r["loss"] for r in found], [r["loss"] for r in expected], rtol=2e-3)
    assert_close(jax.device_get(ts.params), jax.device_get(alone.params), rtol=0.05, atol=5e-3)
