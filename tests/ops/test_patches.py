"""Patches against the convolution that they make a product of."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

from jaxnn.ops.conv import conv
from jaxnn.ops.patches import conv_patches
from tests.helpers import assert_close, float64, random

pytestmark = pytest.mark.sampled


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": "SAME"},
        {"dilation": (1, 2), "padding": ((1, 0), (2, 1))},
        {"groups": 2, "stride": (2, 1)},
    ],
)
def test_patches_times_kernel_is_the_convolution(settings: dict[str, Any]) -> None:
    with float64():
        groups = settings.get("groups", 1)
        x, w = jnp.asarray(random(0, 2, 7, 6, 4)), jnp.asarray(random(1, 3, 2, 4 // groups, 6))
        patches = conv_patches(x, (3, 2), **settings)
        kernel = w.reshape(-1, groups, 6 // groups)
        y = jnp.einsum("ntgd,dgp->ntgp", patches, kernel)
        expected = conv(x, w, **settings)
        assert_close(y.reshape(expected.shape), expected, rtol=1e-12, atol=1e-13)
