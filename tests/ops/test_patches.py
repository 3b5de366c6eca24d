"""Patches against the convolution that they make a product of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn.ops.conv import conv
from jaxnn.ops.patches import conv_patches
from tests.helpers import assert_close, float64, random, slow


@pytest.mark.parametrize(
    "settings",
    [
        {"dilation": (1, 2), "padding": ((1, 0), (2, 1))},
        {"groups": 2, "stride": (2, 1)},
        *slow({}, {"stride": 2, "padding": "SAME"}),
    ],
)
def test_patches_times_kernel_is_the_convolution(settings: dict[str, Any]) -> None:
    groups = settings.get("groups", 1)

    @jax.jit
    def both(x: Any, w: Any) -> Any:
        kernel = w.reshape(-1, groups, 6 // groups)
        y = jnp.einsum("ntgd,dgp->ntgp", conv_patches(x, (3, 2), **settings), kernel)
        expected = conv(x, w, **settings)
        return y.reshape(expected.shape), expected

    with float64():
        assert_close(*both(random(0, 2, 7, 6, 4), random(1, 3, 2, 4 // groups, 6)), rtol=1e-12, atol=1e-13)
