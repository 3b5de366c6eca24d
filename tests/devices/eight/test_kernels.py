"""Kernels know one device: on a mesh their references are used, which the compiler shards."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import kernels
from tests.helpers import assert_close, random


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_the_reference(kind: Any) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    host = [random(i, *shape) for i, shape in enumerate([(8, 128, 128), (8, 128, 4096), (8,)])]
    a, delta, w = (jnp.asarray(x, dtype) for x, dtype in zip(host, [jnp.bfloat16, jnp.bfloat16, None], strict=True))
    w = w.astype(jnp.float32)

    def f(*args: Any) -> Any:
        with kernels.use(True):
            return kernels.product_norms_and_sum(*args)

    def text(*args: Any) -> str:
        return jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()

    assert "mosaic_gpu" in text(a, delta, w)
    expected = jax.jit(f)(a, delta, w)
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, P("data"))
        sharded = [jax.device_put(x, rows) for x in (a, delta, w)]
        assert "mosaic_gpu" not in text(*sharded)
        found = jax.jit(f)(*sharded)
    assert_close(jax.tree.map(np.asarray, found), expected, rtol=1e-5, atol=1e-3)
