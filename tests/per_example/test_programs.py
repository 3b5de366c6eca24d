"""Under jit, vmap over seeds, scan and sharding; one compile for each shape, as large for any batch."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from jaxnn import backprop, per_example
from tests.helpers import float64
from tests.per_example.cases import N, flat, gap, make, vector
from tests.per_example.programs import FROM_A_TAPE, LOSS, NETS, PROGRAMS, program, shapes

QUICK = [("mlp", "clipped_grad"), ("cnn", "value_and_grad")]
"""A statistic of products, and the gradient of convolutions, whose form goes by size."""

EVERY = [
    pytest.param(net, name, marks=() if (net, name) in QUICK else pytest.mark.slow) for net in NETS for name in PROGRAMS
]


def statistics(record: Any, params: Any, state: Any, x: Any, y: Any) -> Any:
    tape = record(params, state, x, y)
    clipped, norms = per_example.clipped_grad(tape, 0.5)
    return norms, clipped, per_example.variance(tape), per_example.gram(tape), per_example.noise_scale(tape).trace


def assert_statistics(found: Any, g: np.ndarray) -> None:
    """Against explicit gradients (N, P), to 1e-10 of the largest entry."""
    sizes = np.linalg.norm(g, axis=1)
    expected = sizes, np.minimum(1, 0.5 / sizes) @ g, g.var(0), g @ g.T, g.var(0, ddof=1).sum()[None]
    for got, want in zip(found, expected, strict=True):
        assert gap(vector(got), want.ravel()) < 1e-10


@pytest.mark.parametrize(
    "name",
    ["conv_stride", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mlp", "cnn", "embedding", "sequence_gram"))],
)
def test_over_seeds_at_once_and_over_batches_in_a_scan(name: str) -> None:
    """Two seeds by vmap, each two batches by scan: every one has the statistics of its explicit gradients."""
    with float64():
        batches = [[make(name, seed=seed), make(name, seed=seed + 10)] for seed in (0, 1)]
        record = batches[0][0].record

        def of_seed(params: Any, state: Any, xs: Any, ys: Any) -> Any:
            def of_batch(carry: Any, batch: Any) -> Any:
                return carry, statistics(record, params, state, *batch)

            return jax.lax.scan(of_batch, (), (xs, ys))[1]

        def stacked(trees: Any) -> Any:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

        arguments = stacked(
            [(first.params, first.state, *stacked([(b.x, b.y) for b in (first, second)])) for first, second in batches]
        )
        found = jax.tree.map(np.asarray, jax.jit(jax.vmap(of_seed))(*arguments))
        for seed, (first, second) in enumerate(batches):
            for i, batch in enumerate((first, second)):
                made = batch._replace(params=first.params, state=first.state)
                assert_statistics(jax.tree.map(lambda leaf, at=(seed, i): leaf[at], found), flat(made.grads()))


def test_one_trace_for_each_shape() -> None:
    """Other numbers trace nothing anew, a tape handed from one program to the next included; another N does once."""
    plain = make("conv_padding", np.float32).record  # its padding was given as lists
    traces = []

    def record(*arguments: Any) -> Any:
        traces.append("record")
        return plain(*arguments)

    def clip(tape: Any, bound: Any) -> Any:
        traces.append("clip")
        return per_example.clipped_grad(tape, bound)

    recorded, clipped = jax.jit(record), jax.jit(clip)
    for n, seed, bound in [(N, 0, 0.5), (N, 1, 0.7), (4, 0, 0.5), (N, 2, 0.1), (4, 3, 0.2)]:
        arguments = make("conv_padding", np.float32, n=n, seed=seed)[1:]
        tape = recorded.lower(*arguments).out_info
        clipped.lower(tape, bound)
    assert sorted(traces) == ["clip", "clip", "record", "record"]


def operations(net: str, name: str, n: int) -> int:
    """How many operations the lowered program has."""
    return _count(jax.jit(program(net, name)).lower(*shapes(net, n)).as_text())


def _count(module: str) -> int:
    return sum(" = " in line for line in module.splitlines())


@pytest.mark.parametrize(("net", "name"), EVERY)
def test_programs_do_not_grow_with_the_batch(net: str, name: str) -> None:
    few, some, many = (operations(net, name, n) for n in (8, 64, 512))
    assert_alike(net, name, some, many)
    assert few <= 1.5 * some


def assert_alike(net: str, name: str, some: int, many: int) -> None:
    """Equal, but where forms of a convolution are chosen by size, or sums of squares go by more examples at a time."""
    by_size = net == "cnn" or name in ("second_moment", "variance", "diag_ggn")
    assert max(some, many) <= 1.5 * min(some, many) if by_size else some == many


@pytest.mark.slow
@pytest.mark.parametrize("name", ["second_moment", "variance"])
def test_sums_that_are_unrolled_are_unrolled_a_few_examples_at_a_time(name: str) -> None:
    """32 at most, and a rest: no batch size makes the program twice as large as 64 examples do."""
    base = operations("mlp", name, 64)
    assert max(operations("mlp", name, n) for n in (31, 63, 511, 4096)) < 2 * base


@pytest.mark.parametrize(("net", "name"), EVERY)
def test_programs_lower_for_cuda_and_tpu(net: str, name: str) -> None:
    def module(n: int) -> str:
        exported = jax.export.export(jax.jit(program(net, name)), platforms=["cuda", "tpu"])(*shapes(net, n))
        assert set(exported.platforms) == {"cuda", "tpu"}
        return exported.mlir_module()

    assert_alike(net, name, _count(module(64)), _count(module(512)))


def products(f: Any, net: str) -> tuple[int, int]:
    """How many matrix products and convolutions a program has on a GPU: (at the highest precision, at the default)."""
    module = jax.export.export(jax.jit(f), platforms=["cuda"])(*shapes(net, 64)).mlir_module()
    lines = [line for line in module.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)", line)]
    exact = sum("HIGHEST" in line for line in lines)
    return exact, len(lines) - exact


@pytest.mark.slow
@pytest.mark.parametrize("net", ["cnn", "mlp"])
def test_gradients_have_the_precision_that_is_set_and_statistics_the_highest(net: str) -> None:
    """As `jax.grad`, the gradient may run in TensorFloat-32; what is made of a tape may not."""
    assert products(program(net, "value_and_grad"), net)[0] == 0
    with jax.default_matmul_precision("highest"):
        assert products(program(net, "value_and_grad"), net)[1] == 0
    backward = products(backprop.record(NETS[net][0], LOSS), net)
    assert backward[0] == 0
    for name in FROM_A_TAPE:
        exact, default = products(program(net, name), net)
        assert default == backward[1], name
        assert exact > 0 or (net == "mlp" and name in ("norms", "materialize", "variance")), name
