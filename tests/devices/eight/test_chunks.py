"""The forms for accelerators on a batch sharded over 8 devices, in chunks: no device needs another's examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import per_example
from tests.helpers import random, slow
from tests.per_example.test_dtypes import use_accelerator_forms

N = 64
COLLECTIVE = re.compile(r" (all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter)(?:-start)?\(")


def _loss(params: Any, x: Any) -> Any:
    return jnp.sum(jnp.tanh(jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]) ** 2)


def _compiled(statistic: Callable[[Any], Any], positions: int) -> tuple[Counter[str], bool, float]:
    """(the collectives of a statistic of a sharded tape, whether it has a loop, its difference from one device)."""
    params = {"w": random(0, 16, 24) / 4, "b": np.zeros(24), "v": random(1, 24, 12) / 5}
    x = random(2, N, positions, 16)
    params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x))
    whole = jax.jit(per_example.record(_loss))(params, x)
    rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), P("data"))
    tape = jax.tree.map(lambda a: jax.device_put(a, rows), whole)
    program = jax.jit(lambda tape: statistic(tape)).lower(tape).compile()
    text = program.as_text()
    pairs = zip(jax.tree.leaves(program(tape)), jax.tree.leaves(jax.jit(statistic)(whole)), strict=True)
    gap = max(float(np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(np.asarray(b)))) for a, b in pairs)
    return Counter(COLLECTIVE.findall(text)), " while(" in text, gap


ROWS = {"sq_norms": per_example.sq_norms, "norms by clipping": lambda tape: per_example.clipped_grad(tape, 1.0)[1]}
SUMS = {
    "variance": per_example.variance,
    "second_moment": per_example.second_moment,
    "clipped_grad": lambda tape: per_example.clipped_grad(tape, 1.0)[0],
}


@pytest.mark.parametrize("positions", [40, *slow(1, 3)])
@pytest.mark.parametrize("name", ["sq_norms", "variance", *slow("norms by clipping", "second_moment", "clipped_grad")])
def test_only_sums_leave_a_device(name: str, positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By norm products, Gram matrices (T = 3) and materialized chunks (T = 40)."""
    use_accelerator_forms(monkeypatch, chunk_bytes=2**12)
    found, loop, gap = _compiled((ROWS | SUMS)[name], positions)
    assert set(found) <= ({"all-reduce"} if name in SUMS else set()), found
    assert loop or positions < 40
    assert gap < 1e-5
