"""Sharded arrays in safetensors files: gathered when saved, sharded as `like` when loaded."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

pytest.importorskip("safetensors", reason="safetensors is not installed")
from jaxnn.interchange import load_safetensors, save_safetensors


def test_sharded_arrays_are_gathered_and_come_back_sharded(tmp_path: Path) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    rows, both = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ("data", "model")))
    whole = np.arange(32, dtype=np.float32).reshape(8, 4)
    tree = {"rows": jax.device_put(whole, rows), "both": jax.device_put(whole, both), "one": jnp.ones(3)}
    path = save_safetensors(tmp_path / "a", tree)
    np.testing.assert_array_equal(load_safetensors(path)["both"], whole)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
    for given in (tree, like):
        back = load_safetensors(path, like=given)
        for name, x in tree.items():
            assert back[name].sharding.is_equivalent_to(x.sharding, x.ndim), name
            np.testing.assert_array_equal(back[name], x)
