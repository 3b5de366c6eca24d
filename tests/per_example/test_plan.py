"""The operations of a plan, held against those that XLA counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn import per_example
from jaxnn.ops import steps
from jaxnn.ops.views import Slice, Transpose, View
from jaxnn.tape import Addition, Convolution, Lookup, Placed, Product, Scaling, Tape, Whole
from tests.helpers import slow

N = 4


def f(*shape: int) -> Any:
    return jax.ShapeDtypeStruct((N, *shape), jnp.float32)


def rows_of(times: int, rows: int, columns: int) -> Lookup:
    return Lookup(jax.ShapeDtypeStruct((N, times), jnp.int32), f(times, columns), rows)


def product(times: int, d: int, p: int) -> Product:
    return Product(f(times, d), f(times, p))


FIRST_ROWS = View((100, 70)).then(Slice((0, 0), (30, 70), (1, 1)))
LAST_ROWS = View((100, 70)).then(Slice((30, 0), (100, 70), (1, 1)))
TURNED = View((100, 70)).then(Transpose((1, 0)))
CHUNKS = "materialize in chunks"
TABLE = (500, 64)

CASES: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...]]] = {
    "one position": ("norm product", (1000, 700), (product(1, 1000, 700),)),
    "few positions": ("Gram", (100, 70), (product(12, 100, 70),)),
    "many positions": (CHUNKS, (100, 70), (product(200, 100, 70),)),
    "narrow": (CHUNKS, (2, 700), (product(3, 2, 700),)),
    "two products": ("Gram", (100, 70), (product(8, 100, 70), product(9, 100, 70))),
    "convolution": (CHUNKS, (3, 3, 8, 16), (Convolution(f(14, 14, 8), f(12, 12, 16), (3, 3)),)),
    "wide convolution": ("Gram", (3, 3, 64, 128), (Convolution(f(6, 6, 64), f(4, 4, 128), (3, 3)),)),
    "bias": ("sum over positions", (700,), (Addition(f(30, 700)),)),
    "scale": ("sum over positions", (700,), (Scaling(f(30, 700), f(30, 700)),)),
    "bias twice": ("sum over positions", (700,), (Addition(f(5, 700)), Addition(f(6, 700)))),
    "fallback": ("as given (cond)", (700, 9), (Whole(f(700, 9), "cond"),)),
    "lookup": ("sum over equal indices", (500, 640), (rows_of(30, 500, 640),)),
    "lookup of one row": ("sum over equal indices", (500, 640), (rows_of(1, 500, 640),)),
    "tied": ("tied, Gram", TABLE, (rows_of(12, *TABLE), product(12, *TABLE))),
    "tied, one position": ("tied, norm product", (500, 640), (rows_of(12, 500, 640), product(1, 500, 640))),
    "tied, many positions": (f"tied, {CHUNKS}", TABLE, (rows_of(100, *TABLE), product(100, *TABLE))),
    "product and the rest": (CHUNKS, (100, 70), (Whole(f(100, 70)), product(200, 100, 70))),
    "products of two shapes": (CHUNKS, (100, 64), (rows_of(12, 100, 64), product(20, 50, 128))),
    "overlapping rows": (CHUNKS, (100, 70), (product(30, 100, 70), Placed(product(20, 30, 70), FIRST_ROWS))),
    "disjoint rows": (
        f"Gram, {CHUNKS}",
        (100, 70),
        (Placed(product(5, 30, 70), FIRST_ROWS), Placed(product(50, 70, 70), LAST_ROWS)),
    ),
    "transposed": ("Gram", (100, 70), (Placed(product(30, 70, 100), TURNED),)),
}
QUICK = ["many positions", "tied", "tied, many positions"]


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in CASES if name not in QUICK))])
def test_the_operations_are_those_that_the_compiler_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 10 per cent, by the strategy that the plan names; one operation more or less for each entry looked up."""
    monkeypatch.setattr(steps, "CPU_BYTES", 2**28)  # one chunk: of a loop XLA may count one iteration
    strategy, shape, uses = CASES[name]
    leaf, each = jax.ShapeDtypeStruct(shape, jnp.float32), f()
    tape = Tape(each, each, (uses,), ("w",), jax.tree.structure(0), (leaf,))
    (row,) = per_example.plan(tape)
    counted = jax.jit(lambda tape: per_example.sq_norms(tape)).lower(tape).compile().cost_analysis()["flops"]
    assert row.strategy == strategy
    # XLA counts 4 operations for each entry of a lookup's cotangents in one version, 5 in another.
    masks = sum(use.delta.size for use in uses if isinstance(use, Lookup))
    assert abs(row.flops - counted) < 0.1 * counted + masks
