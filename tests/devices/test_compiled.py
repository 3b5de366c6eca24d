"""What the compilers make of the programs of benchmarks/device_programs.py for an H200 and a TPU v5e.

    JAXNN_TEST_COMPILED=1 pytest -n 0 -m slow tests/devices/test_compiled.py

in a venv of Python 3.12 with `pip install -e '.[dev,devices]' flax`; no device is needed. Reports are kept in
`.cache/devices/` (hlo_cache.py). Only what is exact is asserted: it holds for the pinned compilers, whose next release
may move a bound. A bound that no longer holds is a change of speed or memory on the device: look at
`python -m benchmarks.devices --only NAME` before and after.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.device_programs import PROGRAMS
from benchmarks.device_training import weights
from jaxnn import kernels, per_example, tree
from tests.devices import hlo, hlo_cache
from tests.helpers import float64

if os.environ.get("JAXNN_TEST_COMPILED") == "1":
    WHY = hlo.unavailable()
else:
    WHY = "compiles for a GPU and a TPU in a process and a venv of their own: the module's docstring has the command"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY is not None, reason=str(WHY))]

F32, BF16 = jnp.float32, jnp.bfloat16
MIB = 2**20
QUICK = [(name, target) for name, program in PROGRAMS.items() for target in program.quick]


@functools.cache
def report(name: str, target: str) -> hlo.Compiled:
    if "gpt" in name or "block" in name or "flax" in name:
        pytest.importorskip("flax")
    case = PROGRAMS[name].build()
    return hlo_cache.compiled(case.function, case.args, target, **case.options)


@pytest.mark.parametrize(("name", "target"), QUICK)
def test_no_float64_no_endless_loop_no_callback(name: str, target: str) -> None:
    found = report(name, target)
    assert not found.has_float64
    assert found.unknown_loops == ()
    assert found.callbacks == ()


@pytest.mark.parametrize(("name", "target"), QUICK)
def test_half_precision_is_multiplied_as_it_is(name: str, target: str) -> None:
    """A product of bfloat16 numbers is exact in float32: HIGHEST only takes it from the fast units."""
    assert not report(name, target).half_at_highest


class Bound(NamedTuple):
    """At most so many kernels on each target, and temporaries of the plain rival's times `memory`, and `beside`."""

    cuda: int
    tpu: int
    memory: float = 1.0
    beside: int = 2 * MIB


BOUNDS = {
    "mlp norms and mean": Bound(27, 22),
    "mlp clipped sum": Bound(26, 21),
    "mlp variance": Bound(25, 27),
    "mlp second moment": Bound(21, 17),
    "mlp gradient by backprop": Bound(21, 17),
    "mlp norms and gradient, streamed": Bound(27, 18),
    "mlp clipped sum, two passes": Bound(43, 36),
    "mlp clipped sum by parameter, one pass": Bound(35, 23),
    "mlp second moment and gradient, streamed": Bound(29, 22),
    "cnn norms and mean": Bound(51, 78, memory=1.35),
    "block in bfloat16 norms and mean": Bound(140, 152),
    "block in bfloat16 clipped sum": Bound(112, 148),
    "small gpt untied norms and gradient, streamed": Bound(432, 420, memory=1.15, beside=0),
    "small gpt untied clipped sum by parameter, one pass": Bound(522, 600, memory=1.55, beside=0),
    "small decoder gradient by backprop": Bound(215, 230, memory=1.4, beside=0),
    "small decoder gradient by backprop, stacked": Bound(380, 385, memory=2.5, beside=0),
    "adam update": Bound(26, 24),
    "sgd with momentum update": Bound(25, 24),
    "adam with 8-bit state update": Bound(78, 330),
}
"""What is reached today, and a little."""


def plain_rival(name: str) -> str:
    """The plain gradient: with the losses, where a program returns them."""
    rivals = PROGRAMS[name].rivals
    return next((rival for rival in rivals if "value_and_grad" in rival), rivals[-1])


@pytest.mark.parametrize(("name", "target"), [(n, t) for n, t in QUICK if n in BOUNDS])
def test_kernels_and_memory(name: str, target: str) -> None:
    found, rival = report(name, target), report(plain_rival(name), target)
    bound = BOUNDS[name]
    assert found.kernels <= getattr(bound, target)
    assert found.temp_bytes <= bound.memory * rival.temp_bytes + bound.beside


def test_a_streamed_pass_keeps_the_loop_over_blocks() -> None:
    """Forward and backward over the 3 blocks, as the gradient alone, on both devices."""
    for target in hlo.TARGETS:
        names = ("norms and gradient, streamed", "gradient by jax.value_and_grad")
        ours, plain = (report(f"small gpt untied {name}", target) for name in names)
        assert [loop.trips for loop in ours.loops] == [loop.trips for loop in plain.loops] == [3, 3]


@pytest.mark.parametrize(("target", "share"), [("cuda", 0.9), ("tpu", 0.5)])
def test_attention_by_blocks_takes_less_memory_than_all_scores(target: str, share: float) -> None:
    """Of a decoder of 1,024 positions in bfloat16, with float32 scores, than flax with all in bfloat16."""
    ours, theirs = (report(f"small decoder gradient by {which}", target) for which in ("backprop", "flax"))
    assert ours.temp_bytes <= share * theirs.temp_bytes
    assert set(ours.flops) == set(theirs.flops) == {"bf16/default"}


def test_the_gradient_by_hand_moves_less_than_that_by_jax() -> None:
    """Where scores are stored, on the H200; by both all products are of bfloat16."""
    ours, plain = (report(f"small decoder gradient by {which}", "cuda") for which in ("backprop", "jax.grad"))
    assert set(ours.flops) == set(plain.flops) == {"bf16/default"}
    assert ours.bytes <= 0.85 * plain.bytes
    assert ours.seconds <= 0.9 * plain.seconds


def test_scores_stay_on_the_chip_of_a_tpu() -> None:
    """Float32 scores of a block, where those of flax, in bfloat16, go to the other memory and back."""
    ours, theirs = (report(f"small decoder gradient by {which}", "tpu") for which in ("backprop", "flax"))
    assert ours.bytes <= 0.5 * theirs.bytes
    assert ours.seconds <= 1.05 * theirs.seconds


BYTES = {"adam update": 28, "adam update by optax": 28, "sgd with momentum update": 20}
"""Bytes moved for each parameter: parameter, gradient and moments are read once, all but the gradient written once."""


@pytest.mark.parametrize(("name", "target"), [(n, t) for n, t in QUICK if n in BYTES])
def test_an_update_moves_each_array_once(name: str, target: str) -> None:
    parameters = tree.size(weights())
    assert report(name, target).bytes / parameters == pytest.approx(BYTES[name], rel=1e-3)


def test_an_epoch_is_one_loop_of_its_steps() -> None:
    assert 60_000 // 128 in [loop.trips for loop in report("mlp epoch", "cuda").loops]


@pytest.mark.parametrize("target", hlo.TARGETS)
def test_a_clipped_sum_sends_what_the_gradient_sends(target: str) -> None:
    ours, plain = (report(f"mlp {which} on 4 devices", target) for which in ("clipped sum", "gradient by jax.grad"))
    assert ours.collectives == plain.collectives == {"all-reduce": 1}
    assert ours.argument_bytes == plain.argument_bytes


def test_products_as_xla_counts_them() -> None:
    """XLA's analysis counts vector arithmetic too, here below 2%."""
    found = report("mlp gradient by jax.grad", "tpu")
    assert found.xla_flops is not None
    assert 0.98 * found.xla_flops < found.all_flops <= found.xla_flops


# --- kernels -------------------------------------------------------------------------------------------------------

NEEDS_PTXAS = pytest.mark.skipif(shutil.which("ptxas") is None, reason="kernels need NVIDIA's assembler ptxas on PATH")
PRODUCTS = [(64, 512, 768, 3072), (16, 1024, 1024, 4096), (32, 256, 768, 768)]


@NEEDS_PTXAS
@pytest.mark.parametrize(("n", "t", "k", "p"), PRODUCTS)
def test_norms_and_sum_of_products_in_one_kernel(n: int, t: int, k: int, p: int) -> None:
    """It stores at most a quarter of the products, which the reference stores all, and a number for 128 entries."""
    args = shaped(n, t, k, dtype=BF16), shaped(n, t, p, dtype=BF16), shaped(n)

    def by_kernel(*args: Any) -> Any:
        with kernels.use(True):
            return kernels.product_norms_and_sum(*args)

    found, plain = compiled(by_kernel, "cuda", *args), compiled(kernels.product_norms_and_sum, "cuda", *args)
    assert found.custom_calls == {"mosaic_gpu_v2": 1}
    assert found.temp_bytes <= n * k * p * 4 * (0.25 + 1 / 128) + MIB
    assert plain.temp_bytes >= n * k * p * 4
    assert not found.has_float64


def test_a_tpu_needs_no_kernel_for_norms_and_sum() -> None:
    """XLA fuses the product, its squares and its weighted sum: nothing is stored."""
    args = shaped(64, 512, 768, dtype=BF16), shaped(64, 512, 3072, dtype=BF16), shaped(64)
    assert compiled(kernels.product_norms_and_sum, "tpu", *args).temp_bytes <= MIB


@NEEDS_PTXAS
def test_streamed_norms_by_kernels() -> None:
    """Of two products of one block each is one kernel beside the three products that move the error."""
    n, t, d, f = 16, 1024, 768, 3072

    def loss(params: Any, x: Any) -> Any:
        return jnp.mean(jnp.square((jax.nn.gelu(x @ params["w"]) @ params["v"]).astype(F32)))

    vg = per_example.value_and_grad(loss, per_example.SqNorms())

    def by_kernel(params: Any, x: Any) -> Any:
        with kernels.use(True):
            return vg(params, x)

    args = {"w": shaped(d, f, dtype=BF16), "v": shaped(f, d, dtype=BF16)}, shaped(n, t, d, dtype=BF16)
    found, plain = compiled(by_kernel, "cuda", *args), compiled(vg, "cuda", *args)
    assert found.custom_calls == {"mosaic_gpu_v2": 2}
    assert found.all_flops == 3 * 2 * n * t * d * f
    assert plain.all_flops >= 5 * 2 * n * t * d * f
    assert found.temp_bytes <= plain.temp_bytes


# --- each thing that is asserted above to be absent is seen where it is present ------------------------------------


def compiled(f: Callable[..., Any], target: str, *args: Any) -> hlo.Compiled:
    return hlo_cache.compiled(f, args, target)


def shaped(*shape: int, dtype: Any = F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("target", hlo.TARGETS)
def test_products_convolutions_and_loops_are_read(target: str) -> None:
    def f(x: Any, w: Any, k: Any) -> Any:
        x, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)
        numbers = ("NHWC", "HWIO", "NHWC")
        image = x.reshape(4, 16, 16, 64)
        y = jax.lax.conv_general_dilated(image, k, (1, 1), "VALID", dimension_numbers=numbers)
        return jnp.einsum("nij,nkj->nik", x.reshape(8, 64, 128), x.reshape(8, 64, 128)), y

    found = compiled(f, target, shaped(256, 256), shaped(256, 256), shaped(3, 3, 64, 128))
    products = 7 * 2 * 256**3 + 2 * 8 * 64 * 128 * 64 + 2 * 4 * 14 * 14 * 9 * 64 * 128
    # On TPU a convolution may be cut into pieces that overlap.
    assert products <= found.all_flops <= products * (1.0 if target == "cuda" else 1.1)
    assert [loop.trips for loop in found.loops] == [7]
    assert found.argument_bytes == 4 * (2 * 256 * 256 + 9 * 64 * 128)
    assert not found.has_float64
    assert not found.half_at_highest


@pytest.mark.parametrize("target", hlo.TARGETS)
def test_half_precision_at_highest_is_seen(target: str) -> None:
    def f(x: Any, w: Any) -> Any:
        return jnp.dot(x.astype(F32), w.astype(F32), precision="highest")

    half, single = shaped(256, 256, dtype=BF16), shaped(256, 256)
    assert sum(compiled(f, target, half, half).half_at_highest.values()) == 2 * 256**3
    assert not compiled(f, target, half, single).half_at_highest
    as_it_is = compiled(lambda x, w: jax.lax.dot(x, w, preferred_element_type=F32), target, half, half)
    assert not as_it_is.half_at_highest
    assert as_it_is.flops == {"bf16/default": 2 * 256**3}


@pytest.mark.parametrize("target", hlo.TARGETS)
def test_an_endless_loop_and_float64_are_seen(target: str) -> None:
    def f(x: Any) -> Any:
        return jax.lax.while_loop(lambda c: jnp.sum(c) < 100, lambda c: 2 * c, x)

    assert len(compiled(f, target, shaped(64)).unknown_loops) == 1
    with float64():
        assert compiled(lambda x: 2 * x, "cuda", shaped(64, dtype=jnp.float64)).has_float64


def test_a_callback_is_seen() -> None:
    def f(x: Any) -> Any:
        return jax.pure_callback(np.sin, x, x)

    assert compiled(f, "tpu", shaped(64)).callbacks
    with pytest.raises(RuntimeError, match="Unknown backend: 'gpu'"):
        compiled(f, "cuda", shaped(64))  # JAX asks for the device whose host it is to call


@pytest.mark.parametrize("target", hlo.TARGETS)
def test_shards(target: str) -> None:
    from jax.sharding import PartitionSpec as P

    def loss(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ w))

    args = (shaped(512, 512), shaped(1024, 512))
    for spec, expected in [(P(), {"all-reduce": 1}), (P("data"), {"all-gather": 1, "all-reduce": 1})]:
        options = {"mesh": {"data": 4}, "in_shardings": (spec, P("data"))}
        found = hlo_cache.compiled(jax.grad(loss), args, target, **options)
        assert found.collectives == expected
        assert found.all_flops == 2 * 2 * 256 * 512 * 512
