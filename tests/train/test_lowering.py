"""What users compile for a GPU or TPU lowers for them, from a machine that has neither."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import pytest

from jaxnn import layers, losses, models, optim, train
from jaxnn.data import augment
from tests.helpers import slow

NETS = {
    "mlp": models.mlp([64, 8, 3], dropout=0.1),
    "cnn": models.cnn([4], [8], 3, batch_norm=True, dropout=0.1),
    "norms": models.serial(
        layers.DepthwiseConv(3, padding="SAME"), layers.GroupNorm(1), layers.AveragePool(3, stride=2, padding="SAME"),
        layers.MaxPool(3, stride=2, padding="SAME"), layers.RMSNorm(), layers.GlobalMaxPool, layers.LayerNorm(),
        layers.Dense(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("cnn", jnp.bfloat16),
        *slow(*((name, dtype) for name in NETS for dtype in (jnp.float32, jnp.bfloat16) if name != "cnn")),
        *slow(("cnn", jnp.float32)),
    ],
)
def test_an_epoch_lowers_for_cuda_and_tpu(name: str, dtype: jnp.dtype) -> None:
    opt = optim.adam(1e-3)
    vg = jax.value_and_grad(train.mean_loss(NETS[name], losses.softmax_cross_entropy), has_aux=True)
    epoch = train.make_epoch(vg, opt, batch_size=4, augment=augment.affine(max_degrees=5.0))
    example = jax.ShapeDtypeStruct((8, 8, 1), dtype)
    ts = jax.eval_shape(lambda key: train.init(NETS[name], opt, key, example), jax.random.key(0))
    x, y = jax.ShapeDtypeStruct((12, 8, 8, 1), dtype), jax.ShapeDtypeStruct((12,), jnp.int32)
    exported = jax.export.export(epoch, platforms=["cuda", "tpu"])(ts, x, y, jax.random.key(0))
    assert set(exported.platforms) == {"cuda", "tpu"}
    assert "while" in exported.mlir_module()
