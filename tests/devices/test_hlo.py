"""The reader of compiled programs: FLOPs, loops, precision, dtypes, callbacks, bytes; texts of CPU, GPU and TPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.devices import hlo, hlo_products, hlo_text
from tests.devices.hlo_loops import Loop
from tests.helpers import float64

F32, BF16 = jnp.float32, jnp.bfloat16
HIGHEST = jax.lax.Precision.HIGHEST


def on_cpu(f: Callable[..., Any], *args: Any) -> hlo.Program:
    return hlo.read(jax.jit(f).lower(*args).compile().as_text(), "cpu")


def shaped(*shape: int, dtype: Any = F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def test_products_are_counted() -> None:
    found = on_cpu(
        lambda a, b, c: (a @ b, jnp.einsum("nij,nkj->nik", c, c)), shaped(8, 16), shaped(16, 32), shaped(3, 5, 7)
    )
    assert found.flops == {"f32/default": 2 * 8 * 16 * 32 + 2 * 3 * 5 * 5 * 7}
    assert found.half_flops == 0
    assert found.loops == ()


def convolve(x: Any, k: Any, stride: int, padding: Any, dilation: int, groups: int) -> Any:
    return jax.lax.conv_general_dilated(
        x, k, (stride, stride), padding, rhs_dilation=(dilation, dilation), feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, "VALID", 1, 1), (1, "SAME", 1, 1), (2, ((1, 2), (0, 1)), 1, 1), (1, "SAME", 2, 1), (1, "VALID", 1, 2)],
)
def test_convolutions_are_counted_without_their_padding(stride: int, padding: Any, dilation: int, groups: int) -> None:
    """The products of a convolution are those of images of ones with a kernel of ones: its sum is their number."""
    x, k = np.ones((2, 9, 8, 4)), np.ones((3, 3, 4 // groups, 6))
    expected = int(
        np.sum(np.asarray(convolve(jnp.asarray(x, F32), jnp.asarray(k, F32), stride, padding, dilation, groups)))
    )
    found = on_cpu(lambda x, k: convolve(x, k, stride, padding, dilation, groups), shaped(*x.shape), shaped(*k.shape))
    assert found.all_flops == 2 * expected


def test_a_convolution_and_its_gradients_multiply_as_often() -> None:
    for sizes in [(9, 3, 9, 1, 1), (8, 3, 4, 2, 0)]:
        image, kernel, out, stride, before = sizes
        forward = hlo_products.pairs(
            image, kernel, out, stride=stride, before=before, image_dilation=1, kernel_dilation=1
        )
        to_kernel = hlo_products.pairs(
            image, out, kernel, stride=1, before=before, image_dilation=1, kernel_dilation=stride
        )
        to_image = hlo_products.pairs(
            out, kernel, image, stride=1, before=kernel - 1 - before, image_dilation=stride, kernel_dilation=1
        )
        assert forward == to_kernel == to_image


def test_a_loop_counts_its_body_as_often_as_it_runs() -> None:
    def inner(c: Any, w: Any) -> Any:
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), c, None, length=5)[0]

    found = on_cpu(
        lambda x, w: jax.lax.scan(lambda c, _: (inner(c, w), None), x, None, length=7)[0], *[shaped(8, 8)] * 2
    )
    assert found.all_flops == 7 * 5 * 2 * 8**3
    assert sorted(loop.trips or 0 for loop in found.loops) == [5, 7]
    assert found.unknown_loops == ()


def test_a_loop_that_only_the_device_ends_is_told() -> None:
    found = on_cpu(lambda x: jax.lax.while_loop(lambda c: jnp.sum(c) < 100, lambda c: c @ c, x), shaped(8, 8))
    assert len(found.unknown_loops) == 1
    assert "while" in found.unknown_loops[0]
    assert found.all_flops == 2 * 8**3, "of one turn"


def widened(precision: Any, dtype: Any = BF16) -> Callable[..., Any]:
    return lambda x, w: jnp.dot(x.astype(F32), w.astype(F32), precision=precision)


@pytest.mark.parametrize("dtype", [BF16, jnp.float16])
def test_half_precision_at_highest_is_seen_through_widening(dtype: Any) -> None:
    x, w = shaped(8, 16, dtype=dtype), shaped(16, 32, dtype=dtype)
    flops = 2 * 8 * 16 * 32
    found = on_cpu(widened(HIGHEST), x, w)
    assert list(found.half_at_highest.values()) == [flops]
    assert found.flops == {"f32/highest": flops}
    assert found.half_flops == flops
    assert not on_cpu(widened(None), x, w).half_at_highest, "not at HIGHEST"
    assert on_cpu(widened(None), x, w).half_flops == flops
    mixed = on_cpu(widened(HIGHEST), x, shaped(16, 32))
    assert not mixed.half_at_highest, "one operand is float32"
    assert mixed.half_flops == 0


def test_half_precision_is_seen_through_loops_reshapes_and_slices() -> None:
    def f(x: Any, w: Any) -> Any:
        wide = w.astype(F32)

        def body(c: Any, row: Any) -> Any:
            return c, jnp.dot(row.reshape(4, 4).astype(F32), wide, precision=HIGHEST)

        return jax.lax.scan(body, 0.0, x)[1]

    found = on_cpu(f, shaped(3, 16, dtype=BF16), shaped(4, 8, dtype=BF16))
    assert sum(found.half_at_highest.values()) == 3 * 2 * 4 * 4 * 8
    assert "dot_general" in next(iter(found.half_at_highest))


def test_half_precision_operands_as_they_are() -> None:
    def f(x: Any, w: Any) -> Any:
        return jax.lax.dot(x, w, preferred_element_type=F32)

    found = on_cpu(f, shaped(8, 16, dtype=BF16), shaped(16, 32, dtype=BF16))
    assert found.half_flops == found.all_flops == 2 * 8 * 16 * 32
    assert "bf16" in found.dtypes


def test_float64_and_callbacks_are_told() -> None:
    assert not on_cpu(lambda x: x + 1, shaped(3)).has_float64
    with float64():
        assert on_cpu(lambda x: x + 1, shaped(3, dtype=jnp.float64)).has_float64
    assert on_cpu(lambda x: x + 1, shaped(3)).callbacks == ()
    asked = on_cpu(lambda x: jax.pure_callback(np.sin, x, x), shaped(3))
    assert len(asked.callbacks) == 1
    assert "callback" in asked.callbacks[0]


def test_bytes_are_those_read_and_written() -> None:
    found = on_cpu(lambda a, b: a * b + 1, shaped(1000), shaped(1000))
    assert found.bytes == 3 * 4000
    assert found.kernels == 1


TPU = """HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[8,8], s32[])) -> (s32[], f32[8,8], s32[]) {
  %one = s32[]{:T(128)} constant(1)
  %p = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,8]{1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %n = s32[]{:T(128)} get-tuple-element(%p), index=2
  %next = s32[]{:T(128)} add(%i, %one)
  %y = f32[8,8]{1,0:T(8,128)S(1)} convolution(%x, %x), dim_labels=bf_io->bf, metadata={op_name="jit(f)/while/body/dot"}
  ROOT %t = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) tuple(%next, %y, %n)
}

%condition (q: (s32[], f32[8,8], s32[])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %m = s32[]{:T(128)} get-tuple-element(%q), index=2
  ROOT %lt = pred[]{:T(512)} compare(%j, %m), direction=LT
}

%fused (a: bf16[8,32,256], b: bf16[8,256,32]) -> f32[8,32,32] {
  %a = bf16[8,32,256]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[8,256,32]{2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = f32[8,32,32]{2,1,0} convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf
}

ENTRY %main (w: f32[8,8], a1: bf16[8,32,256], b1: bf16[8,256,32]) -> (f32[8,8], f32[8,32,32]) {
  %w = f32[8,8]{1,0:T(8,128)} parameter(0)
  %a1 = bf16[8,32,256]{2,1,0:T(8,128)(2,1)} parameter(1)
  %b1 = bf16[8,256,32]{2,1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %end = s32[]{:T(128)} constant(BOUND)
  %copied = s32[]{:T(128)} copy(%zero)
  %start = (f32[8,8]{1,0:T(8,128)S(1)}, f32[8,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%w)
  %near = f32[8,8]{1,0:T(8,128)S(1)} copy-done(%start)
  %carry = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) tuple(%copied, %near, %end)
  %loop = (s32[], f32[8,8]{1,0:T(8,128)S(1)}, s32[]) while(%carry), condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  %out = f32[8,8]{1,0:T(8,128)S(1)} get-tuple-element(%loop), index=1
  %batched = f32[8,32,32]{2,1,0} fusion(%a1, %b1), kind=kOutput, calls=%fused
  ROOT %r = (f32[8,8]{1,0:T(8,128)S(1)}, f32[8,32,32]{2,1,0}) tuple(%out, %batched)
}
"""  # noqa: E501


def test_a_program_of_a_tpu() -> None:
    """No trip count is noted; a batched product is a convolution with holes; what is on the chip moves no bytes."""
    found = hlo.read(TPU.replace("BOUND", "12"), "tpu")
    assert found.loops == (Loop("jit(f)/while", 12),)
    assert found.flops == {"f32/default": 12 * 2 * 8**3, "bf16/default": 2 * 8 * 32 * 256 * 32}
    assert found.kernels == 12 + 1
    assert found.bytes == 8 * 8 * 4 + 2 * 8 * 32 * 256 * 2 + 8 * 32 * 32 * 4
    assert hlo.read(TPU.replace("constant(BOUND)", "parameter(3)"), "tpu").loops == (Loop("jit(f)/while", None),)
    assert hlo.read(TPU.replace("BOUND", "12").replace("add(%i", "multiply(%i"), "tpu").loops[0].trips is None
    assert hlo.read(TPU.replace("BOUND", "12").replace("constant(1)", "constant(5)"), "tpu").loops[0].trips == 3


CUDA = """HloModule jit_f

%sliced (big: f32[100,64], index: s32[]) -> f32[1,64] {
  %big = f32[100,64]{1,0} parameter(0)
  %index = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,64]{1,0} dynamic-slice(%big, %index, %zero), dynamic_slice_sizes={1,64}
}

%placed (whole: f32[100,64], part: f32[1,64], at: s32[]) -> f32[100,64] {
  %whole = f32[100,64]{1,0} parameter(0)
  %part = f32[1,64]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %nought = s32[] constant(0)
  ROOT %new = f32[100,64]{1,0} dynamic-update-slice(%whole, %part, %at, %nought)
}

ENTRY %main (x: f32[100,64], i: s32[], a: f32[32,16], b: f32[16,8], im: f32[4,9,9,2], dy: f32[4,7,7,6]) -> f32[100,64] {
  %x = f32[100,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %a = f32[32,16]{1,0} parameter(2)
  %b = f32[16,8]{1,0} parameter(3)
  %im = f32[4,9,9,2]{3,2,1,0} parameter(4)
  %dy = f32[4,7,7,6]{3,2,1,0} parameter(5)
  %slice = f32[1,64]{1,0} fusion(%x, %i), kind=kLoop, calls=%sliced
  %gemm = (f32[32,8]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]},"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}
  %filter = (f32[6,3,3,2]{3,2,1,0}, u8[0]{0}) custom-call(%im, %dy), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  ROOT %update = f32[100,64]{1,0} fusion(%x, %slice, %i), kind=kLoop, calls=%placed
}
"""  # noqa: E501


def test_a_program_of_a_gpu() -> None:
    """Calls of cuBLAS and cuDNN are products; a slice, or an update in place, moves only its own bytes."""
    found = hlo.read(CUDA, "cuda")
    assert found.flops == {"f32/highest": 2 * 32 * 16 * 8, "f32/default": 2 * 4 * 7 * 7 * 6 * 3 * 3 * 2}
    assert found.custom_calls == {"__cublas$gemm": 1, "__cudnn$convBackwardFilter": 1}
    assert found.kernels == 4
    row, products = 64 * 4, 4 * (32 * 16 + 16 * 8 + 32 * 8) + 64 + 4 * (4 * 81 * 2 + 4 * 49 * 6 + 6 * 9 * 2)
    assert found.bytes == (2 * row + 4) + (2 * row + 4) + products


ASYNC = """\
%taken (s: f32[4,64], i: s32[]) -> f32[1,64] {
  %s = f32[4,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  ROOT %d = f32[1,64]{1,0} dynamic-slice(%s, %i, %z), dynamic_slice_sizes={1,64}
}

ENTRY %main (x: f32[4,64], i: s32[]) -> f32[1,64] {
  %x = f32[4,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %f = ((f32[4,64]{1,0}, s32[]), f32[1,64]{1,0}, u32[]) fusion-start(%x, %i), kind=kLoop, calls=%taken
  ROOT %r = f32[1,64]{1,0} fusion-done(%f)
}
"""


def test_a_fusion_beside_others_moves_what_it_would_alone() -> None:
    """A slice of a stack: read and written once, and the index."""
    alone = ASYNC.replace("((f32[4,64]{1,0}, s32[]), f32[1,64]{1,0}, u32[]) fusion-start", "f32[1,64]{1,0} fusion")
    alone = alone.replace("  ROOT %r = f32[1,64]{1,0} fusion-done(%f)\n", "")
    for text in (ASYNC, alone):
        found = hlo.read(text, "cuda")
        assert found.kernels == 1
        assert found.bytes == 2 * 64 * 4 + 4


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("all-reduce", "%r = f32[8]{0} all-reduce(%x), replica_groups={}, to_apply=%add"),
        ("all-reduce", "%r = f32[8]{0} all-reduce-start(%x), replica_groups={}, to_apply=%add"),
        ("all-gather", "%r = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), dimensions={0}"),
        ("reduce-scatter", "%r = f32[2]{0} reduce-scatter(%x), dimensions={0}"),
        ("collective-permute", "%r = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1}}"),
        ("all-to-all", "%r = f32[8]{0} all-to-all(%x), dimensions={0}"),
    ],
)
def test_collectives_are_counted_once(kind: str, line: str) -> None:
    done = f"  %d = f32[8]{{0}} {kind}-done(%r)\n" if "-start" in line else ""
    text = f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n  {line}\n{done}}}\n"
    found = hlo.read(text, "cuda")
    assert found.collectives == {kind: 1}
    assert found.kernels == 1


def test_what_is_no_program_is_told() -> None:
    with pytest.raises(ValueError, match="got no line `ENTRY name"):
        hlo_text.parse("module @jit_f {}")
    if hlo.unavailable("tpu"):
        with pytest.raises(RuntimeError, match=r"no compiler for tpu here .*pip install -e '\.\[devices\]'"):
            hlo.compiled(jnp.sin, (1.0,), "tpu")
