"""Dense and convolution layers against flax and torch; the embedding against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.layers import conv, dense, embedding
from tests.helpers import assert_close, float64, random


def check_dense(apply) -> None:
    x, w, b = random(0, 5, 4), random(1, 4, 4), random(2, 4)
    with float64():
        assert_close(jax.jit(apply)({"w": w, "b": b}, x), x @ w + b, rtol=1e-12)


def test_dense_and_a_transposed_weight():
    check_dense(dense.apply)
    with pytest.raises(AssertionError):
        check_dense(lambda p, x: dense.apply({"w": p["w"].T, "b": p["b"]}, x))
    with pytest.raises(AssertionError):
        check_dense(lambda p, x: dense.apply({"w": p["w"]}, x))


@pytest.mark.slow
def test_flax_agrees():
    linen = pytest.importorskip("flax.linen")
    with float64():
        x, w, b = (jnp.asarray(a) for a in (random(0, 2, 5, 6, 4), random(1, 4, 3), random(2, 3)))
        theirs = linen.Dense(3).apply({"params": {"kernel": w, "bias": b}}, x)
        assert_close(dense.apply({"w": w, "b": b}, x), theirs, rtol=1e-12, atol=1e-14)
        w = jnp.asarray(random(3, 3, 2, 2, 3 * 2))
        b = jnp.asarray(random(2, 6))
        settings = {"strides": (2, 1), "kernel_dilation": (1, 2), "padding": "SAME", "feature_group_count": 2}
        theirs = linen.Conv(6, (3, 2), **settings).apply({"params": {"kernel": w, "bias": b}}, x)
        ours = conv.apply({"w": w, "b": b}, x, stride=(2, 1), dilation=(1, 2), padding="SAME", groups=2)
        assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_torch_agrees():
    torch = pytest.importorskip("torch")
    x, w, b = random(0, 2, 5, 6, 4), random(1, 3, 3, 4, 2), random(2, 2)
    images = torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    kernel = torch.tensor(np.ascontiguousarray(np.transpose(w, (3, 2, 0, 1))))
    theirs = torch.nn.functional.conv2d(images, kernel, torch.tensor(b), stride=2, padding=1)
    with float64():
        params = {"w": jnp.asarray(w), "b": jnp.asarray(b)}
        ours = conv.apply(params, jnp.asarray(x), stride=2, padding=((1, 1), (1, 1)))
        assert_close(ours, np.moveaxis(theirs.numpy(), 1, -1), rtol=1e-12, atol=1e-13)
        table, symbols = random(3, 7, 3), np.array([[1, 6], [0, 1]])
        theirs = torch.nn.functional.embedding(torch.tensor(symbols), torch.tensor(table)).numpy()
        assert_close(embedding.apply({"w": jnp.asarray(table)}, jnp.asarray(symbols)), theirs, rtol=0)


@pytest.mark.slow
def test_depthwise_convolution_is_one_convolution_for_each_channel():
    x, w = random(0, 1, 5, 5, 3), random(1, 2, 2, 1, 6)
    with float64():
        whole = conv.apply({"w": jnp.asarray(w)}, jnp.asarray(x), groups=3)
        for c in range(3):
            alone = conv.apply({"w": jnp.asarray(w[..., 2 * c : 2 * c + 2])}, jnp.asarray(x[..., c : c + 1]))
            assert_close(whole[..., 2 * c : 2 * c + 2], alone, rtol=1e-12)
