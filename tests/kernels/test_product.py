"""The reference, and where the kernel takes its place: switch, shapes, platform, transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxnn import kernels, per_example
from jaxnn.kernels import hopper, product
from jaxnn.per_example import SecondMoment, SqNorms
from tests.helpers import assert_close, float64, random, strict

BF16, F32 = jnp.bfloat16, jnp.float32
A, DELTA, W = (jax.ShapeDtypeStruct(*x) for x in (((16, 256, 256), BF16), ((16, 256, 1024), BF16), ((16,), F32)))
KERNEL = "mosaic_gpu"


def lowered(f: Any, *args: Any, platform: str = "cuda") -> str:
    return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def with_kernels(*args: Any) -> Any:
    with kernels.use(True):
        return kernels.product_norms_and_sum(*args)


def small() -> tuple[Any, Any, Any]:
    return jnp.asarray(random(0, 4, 3, 5), F32), jnp.asarray(random(1, 4, 3, 2), F32), jnp.asarray(random(2, 4), F32)


@pytest.mark.parametrize("dtype", [BF16, F32, np.float64])
def test_the_reference_against_numpy(dtype: Any) -> None:
    with float64(), strict():
        a, delta, w = (jnp.asarray(x).astype(dtype) for x in (random(0, 4, 3, 5), random(1, 4, 3, 2), random(2, 4)))
        found = kernels.product_norms_and_sum(a, delta, w)
        unweighted = kernels.product_norms_and_sum(a, delta)
        assert {x.dtype for x in found} == {jnp.dtype(np.float64 if dtype == np.float64 else F32)}
        a, delta, w = (np.asarray(x, np.float64) for x in (a, delta, w))
    g = np.einsum("ntk,ntp->nkp", a, delta)
    tolerance = {"rtol": 1e-12 if dtype == np.float64 else 1e-5, "atol": 1e-14 if dtype == np.float64 else 1e-6}
    assert_close(found, (np.square(g).sum((1, 2)), np.tensordot(w, g, 1)), **tolerance)
    assert_close(unweighted, (np.square(g).sum((1, 2)), g.sum(0)), **tolerance)


@pytest.mark.parametrize(("a", "delta", "w"), [((4, 3), (4, 3, 2), (4,)), ((4, 3, 5), (3, 4, 2), (4,)),
                                               ((4, 3, 5), (4, 3, 2), (4, 1)), ((4, 3, 5), (4, 3, 2), ())])  # fmt: skip
def test_wrong_shapes(a: Any, delta: Any, w: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a \(N, T, K\), delta \(N, T, P\) and w \(N,\) or None, got"):
        kernels.product_norms_and_sum(jnp.zeros(a), jnp.zeros(delta), jnp.zeros(w))


def test_wrong_dtypes_and_a_wrong_switch() -> None:
    a, delta, w = small()
    with pytest.raises(TypeError, match="expected floating delta, got int32"):
        kernels.product_norms_and_sum(a, delta.astype(jnp.int32), w)
    with pytest.raises(TypeError, match=r"with kernels.use\(True\)"):
        kernels.use("hopper")  # type: ignore[arg-type]


def test_the_switch_and_the_platform() -> None:
    """Off by default; a function that was traced with the kernel is traced anew without."""
    f = jax.jit(kernels.product_norms_and_sum)

    def text(platform: str) -> str:
        return f.trace(A, DELTA, W).lower(lowering_platforms=(platform,)).as_text()

    assert KERNEL not in text("cuda")
    with kernels.use(True):
        assert text("cuda").count(f"@{KERNEL}") == 1
        assert KERNEL not in text("cpu")
        assert KERNEL not in text("tpu")
        with kernels.use(False):
            assert KERNEL not in text("cuda")
        assert KERNEL in text("cuda")
    assert KERNEL not in text("cuda")


def test_what_the_kernel_does_not_take() -> None:
    odd = jax.ShapeDtypeStruct((16, 256, 250), BF16)
    assert KERNEL in lowered(with_kernels, A, DELTA)
    assert KERNEL not in lowered(with_kernels, odd, DELTA, W)
    assert KERNEL not in lowered(with_kernels, A.update(dtype=F32), DELTA.update(dtype=F32), W)
    assert KERNEL not in lowered(with_kernels, A, DELTA.update(dtype=F32), W)


def test_on_a_mesh_it_is_the_reference() -> None:
    """In `shard_map`, whose checks the kernel does not know; on 8 devices: tests/devices/eight/test_kernels.py."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(*args: Any) -> Any:
        sq_norms, total = with_kernels(*args)
        return sq_norms, jax.lax.psum(total, "data")

    sharded = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=(P("data"), P()))
    a, delta, w = jnp.asarray(random(0, 16, 256, 256), BF16), jnp.asarray(random(1, 16, 256, 1024), BF16), jnp.ones(16)
    assert KERNEL not in lowered(sharded, a, delta, w)
    assert_close(jax.jit(sharded)(a, delta, w), kernels.product_norms_and_sum(a, delta, w), rtol=1e-4, atol=1e-3)


def scaled(a: Any, delta: Any, w: Any, **_: Any) -> Any:
    """A stand-in for the kernel, which differs from the reference: twice the norms."""
    assert a.ndim == 3, "the kernel takes one set"
    sq_norms, total = kernels.product_norms_and_sum_reference(a, delta, w)
    return 2 * sq_norms, total


def test_set_by_set_under_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "product_norms_and_sum", scaled)
    a, delta, w = small()
    sets = jnp.stack([w, 2 * w, -w])
    for args, axes in (((a, delta, sets), (None, None, 0)), ((jnp.stack([a, -a, a]), delta, sets), (0, None, 0))):
        found = jax.jit(jax.vmap(product._set_by_set, axes))(*args)
        reference = jax.vmap(kernels.product_norms_and_sum_reference, axes)(*args)
        assert_close(found, (2 * reference[0], reference[1]), rtol=1e-6, atol=1e-6)
    nested = jax.vmap(jax.vmap(product._set_by_set, (None, None, 0)), (None, None, 0))(a, delta, sets[:, None])
    assert nested[0].shape == (3, 1, 4)


def test_a_loop_of_kernels_under_vmap() -> None:
    """Not the stand-in: lowered with the kernel inside."""
    many = jax.ShapeDtypeStruct((3, *W.shape), F32)
    text = lowered(jax.vmap(with_kernels, (None, None, 0)), A, DELTA, many)
    assert KERNEL in text
    assert "stablehlo.while" in text


def test_derivatives_are_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    text = lowered(jax.grad(lambda *args: jnp.sum(with_kernels(*args)[0]), 0), A, DELTA, W)
    assert text.count("stablehlo.dot_general") >= 2, "the derivative is that of the reference"
    # Of shapes that the kernel does not take.
    monkeypatch.setattr(product, "_set_by_set", lambda *args: kernels.product_norms_and_sum_reference(*args))
    a, delta, w = small()

    def of(f: Any) -> Any:
        def value(a: Any, delta: Any, w: Any) -> Any:
            sq_norms, total = f(a, delta, w)
            return jnp.sum(jnp.sin(sq_norms)) + jnp.sum(jnp.cos(total))

        every = (0, 1, 2)
        hvp = jax.jvp(jax.grad(value, every), (a, delta, w), (delta[..., :1] * jnp.ones_like(a), delta, w))
        back_again = jax.grad(lambda w: jnp.sum(jax.grad(value, 0)(a, delta, w) ** 2))(w)
        return hvp, back_again, jax.vmap(jax.grad(value, 2), (None, None, 0))(a, delta, jnp.stack([w, 2 * w]))

    found, expected = jax.jit(lambda: (of(product._by_platform), of(kernels.product_norms_and_sum_reference)))()
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


# --- in the streamed pass ------------------------------------------------------------------------------------------


def squares_loss(params: Any, x: Any) -> Any:
    return jnp.mean(jnp.square(jnp.tanh(x @ params["w"]) @ params["v"]).astype(F32))


PARAMS = {"w": jax.ShapeDtypeStruct((256, 1024), BF16), "v": jax.ShapeDtypeStruct((1024, 256), BF16)}


@pytest.mark.parametrize("statistic", [SqNorms(), (SqNorms(), SecondMoment())], ids=["norms", "and squares"])
def test_streamed_norms_use_it(statistic: Any) -> None:
    """One kernel for each of two products; none where sums of squares are wanted too, nor with float32."""
    x = jax.ShapeDtypeStruct((16, 512, 256), BF16)
    vg = per_example.value_and_grad(squares_loss, statistic)

    def on(params: Any, x: Any) -> Any:
        with kernels.use(True):
            return vg(params, x)

    alone = statistic == SqNorms()
    assert lowered(on, PARAMS, x).count(f"@{KERNEL}") == (2 if alone else 0)
    assert KERNEL not in lowered(vg, PARAMS, x)
    assert KERNEL not in lowered(on, PARAMS, x, platform="cpu")
    single = jax.tree.map(lambda s: s.update(dtype=F32), (PARAMS, x))
    assert KERNEL not in lowered(on, *single)


@pytest.mark.slow
def test_streamed_norms_by_it_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form for CUDA run on this machine, the kernel's place taken by its reference, with weights and without."""
    # Not `hopper.product_norms_and_sum`: JAX keeps what it has traced by the function, here `_set_by_set`.
    monkeypatch.setattr(product, "_set_by_set", lambda *args: kernels.product_norms_and_sum_reference(*args))
    calls = []

    def chosen(*arrays: Any, default: Any, cuda: Any = None, **others: Any) -> Any:
        calls.append(cuda is not None)
        return (default if cuda is None else cuda)(*arrays)

    params = jax.tree.map(lambda s: jnp.asarray(0.05 * random(0, *s.shape), BF16), PARAMS)
    x = jnp.asarray(random(1, 16, 512, 256), BF16)
    vg = per_example.value_and_grad(squares_loss, SqNorms())
    for weights in (None, jnp.arange(16.0)):
        expected = jax.jit(lambda params, x, w=weights: vg(params, x, weights=w))(params, x)
        with monkeypatch.context() as patch, kernels.use(True):
            patch.setattr(jax.lax, "platform_dependent", chosen)
            found = jax.jit(lambda params, x, w=weights: vg(params, x, weights=w))(params, x)
        (_, norms), grads = found
        (_, expected_norms), expected_grads = expected
        assert_close(norms, expected_norms, rtol=1e-3)  # XLA may keep a cotangent wider than bfloat16 inside a fusion
        for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
            ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            assert np.linalg.norm(ours - theirs) < 2**-9 * np.linalg.norm(theirs)
    assert any(calls)
