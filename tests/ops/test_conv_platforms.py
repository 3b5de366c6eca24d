"""The two forms of a convolution, matrix products for CPUs and XLA's own elsewhere, are one function."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.numerics import EXACT
from jaxnn.ops.conv import conv, conv_native, conv_weight_grad, conv_weight_grads
from jaxnn.ops.conv_matmul import conv_as_matmul
from tests.helpers import assert_close, float64, random, slow, strict

GEOMETRIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "plain": ((2, 9, 8, 3), (3, 3, 3, 4), {}),
    "strided": ((2, 9, 8, 3), (3, 2, 3, 4), {"stride": (2, 3), "pads": ((2, 1), (0, 1))}),
    "dilated": ((1, 9, 11, 2), (2, 3, 2, 3), {"dilation": (3, 2), "pads": ((1, 1), (2, 2))}),
    "grouped": ((2, 7, 7, 4), (3, 3, 2, 6), {"groups": 2, "pads": ((1, 1), (1, 1))}),
    "depthwise": ((2, 7, 7, 4), (3, 3, 1, 8), {"groups": 4}),
    "one axis": ((2, 12, 3), (4, 3, 5), {"stride": (2,), "dilation": (2,), "pads": ((3, 0),)}),
    "three axes": ((1, 4, 5, 6, 2), (2, 2, 3, 2, 3), {}),
    "one by one": ((2, 5, 5, 3), (1, 1, 3, 4), {"stride": (2, 2)}),
    "wide": ((1, 6, 6, 70), (3, 3, 70, 2), {}),
    "skipping input": ((1, 8, 8, 1), (1, 1, 1, 1), {"stride": (3, 5)}),
}


def geometry(name: str) -> tuple[Any, Any, dict[str, Any]]:
    x, w, given = GEOMETRIES[name]
    dims = len(x) - 2
    defaults = {"stride": (1,) * dims, "pads": ((0, 0),) * dims, "dilation": (1,) * dims, "groups": 1}
    return random(0, *x), random(1, *w), defaults | given


def value_and_adjoints(form: Any, x: Any, w: Any, settings: dict[str, Any]) -> Any:
    y, back = jax.vjp(lambda x, w: form(x, w, **settings), x, w)
    return y, back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


QUICK = ["strided", "dilated", "grouped", "one axis"]
LONG = [name for name in GEOMETRIES if name not in QUICK]


@pytest.mark.parametrize("names", [QUICK, *slow((LONG,))], ids=["short", "long"])
def test_both_forms_agree_in_value_and_both_gradients(names: list[str]) -> None:
    """And where one form has its window shifted, they do not."""
    x, w, settings = geometry("strided")
    moved = x, w, settings | {"pads": ((1, 2), (0, 1))}
    products = {name: geometry(name) for name in names} | {"moved": moved}
    natives = products | {"moved": (x, w, settings)}

    @jax.jit
    def every(arrays: Any) -> Any:
        return [
            {name: value_and_adjoints(form, *arrays[name], given[name][2]) for name in given}
            for form, given in ((conv_as_matmul, products), (conv_native, natives))
        ]

    with float64():
        found, expected = every({name: (x, w) for name, (x, w, _) in products.items()})
    for name in names:
        assert_close(found[name], expected[name], rtol=1e-11, atol=1e-12)
    with pytest.raises(AssertionError):
        assert_close(found["moved"], expected["moved"], rtol=1e-11, atol=1e-12)


def test_conv_is_the_product_form_on_cpu_and_a_convolution_elsewhere() -> None:
    x, w = np.ones((1, 5, 5, 1), np.float32), np.ones((3, 3, 1, 2), np.float32)
    gradient = jax.jit(jax.grad(lambda w: conv(x, w).sum()))
    for platform, expected in (("cpu", False), ("cuda", True), ("tpu", True)):
        module = jax.export.export(gradient, platforms=[platform])(w).mlir_module()
        assert ("stablehlo.convolution" in module) is expected, platform


def test_the_product_form_leaves_no_residuals_on_other_platforms() -> None:
    x, w = np.ones((4, 9, 9, 8), np.float32), np.ones((3, 3, 8, 2), np.float32)
    gradient = jax.jit(jax.grad(lambda x, w: jnp.sum(conv(x, w) ** 2), argnums=(0, 1)))
    module = jax.export.export(gradient, platforms=["cuda"])(x, w).mlir_module()
    columns = f"tensor<{4 * 7 * 7}x{3 * 3 * 8}xf32>"  # nine slices of eight channels, side by side
    assert columns not in module
    assert columns in jax.export.export(gradient, platforms=["cpu"])(x, w).mlir_module()


@pytest.mark.slow
def test_products_of_half_precision_are_summed_in_float32() -> None:
    # 2,304 terms of 1 + 1/128 + ...: a bfloat16 running sum would stop growing at 256.
    x, w = jnp.ones((1, 3, 3, 256), jnp.bfloat16), jnp.ones((3, 3, 256, 1), jnp.bfloat16)
    assert float(conv(x, w)[0, 0, 0, 0]) == 2304


def test_both_forms_keep_strict_promotion_and_batch_over_kernels() -> None:
    x, w, settings = geometry("grouped")
    kernels, x = np.stack([w, 2 * w]).astype(np.float32), x.astype(np.float32)
    with strict():
        for form in (conv_native, conv_as_matmul):
            y = jax.jit(jax.vmap(lambda w, form=form: form(x, w, **settings)))(kernels)
            np.testing.assert_allclose(y[1], 2 * y[0], rtol=1e-5, atol=1e-5)


HALF = [jnp.bfloat16, jnp.float16]


@pytest.mark.parametrize("dtype", HALF)
def test_weight_gradients_of_half_precision_are_summed_in_float32_by_both_forms(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = (random(seed, 4, size, size, c).astype(dtype) for seed, (size, c) in enumerate([(9, 3), (7, 5)]))
    with float64():
        wide = [v.astype(np.float64) for v in (x, dy)]
        each = jax.jit(lambda x, dy: conv_weight_grads(x, dy, (3, 3)))(*wide)
    expected = np.asarray(each)
    for platform in ("cpu", "default"):
        chosen = lambda *arrays, platform=platform, **forms: forms[platform](*arrays)  # noqa: E731
        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
        total, found = jax.jit(
            lambda x, dy: (conv_weight_grad(x, dy, (3, 3), precision=EXACT), conv_weight_grads(x, dy, (3, 3)))
        )(x, dy)
        assert total.dtype == found.dtype == jnp.float32
        assert_close(found, expected, rtol=0, atol=4e-5)
        assert_close(total, expected.sum(0), rtol=0, atol=4e-5)
        slope = jax.grad(lambda x: jnp.sum(conv_weight_grad(x, dy, (3, 3)) ** 2))(x)
        assert slope.dtype == dtype


def test_the_precision_of_a_weight_gradient_is_exact_for_its_dtype() -> None:
    def text(dtype: Any, platform: str) -> str:
        x, dy = (jax.ShapeDtypeStruct((4, size, size, 8), dtype) for size in (9, 7))
        exact = jax.jit(lambda x, dy: conv_weight_grad(x, dy, (3, 3), precision=EXACT))
        return str(jax.export.export(exact, platforms=[platform])(x, dy).mlir_module())

    highest = {(d.__name__, p): "HIGHEST" in text(d, p) for d in [*HALF, jnp.float32] for p in ("cuda", "tpu")}
    assert [key for key, found in highest.items() if found] == [
        ("float16", "tpu"),
        ("float32", "cuda"),
        ("float32", "tpu"),
    ]
