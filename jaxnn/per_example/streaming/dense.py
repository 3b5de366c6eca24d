"""Squared norms, sums and sums of squares of gradients that are formed once for all of them: in chunks, or by a kernel
that stores none.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import kernels
from jaxnn.numerics import EXACT, safe_sqrt
from jaxnn.ops.steps import CPU_BYTES, OTHER_BYTES, Step, chunks, map_and_sum_examples
from jaxnn.per_example.blocks import CHUNK_BYTES, fits
from jaxnn.per_example.clip import Clip
from jaxnn.per_example.forms import MATERIALISE, strategy
from jaxnn.per_example.measures import sum_of_squares
from jaxnn.per_example.outer import Outer, Pairs
from jaxnn.per_example.sums import factors_of
from jaxnn.placement import shards
from jaxnn.tape import Whole
from jaxnn.types import Array

SQ_NORMS, TOTAL, SQUARES = "sq_norms", "total", "squares"
"""|g_i|^2, (N,); sum_i c_i g_i, (P,); sum_i g_i^2, (P,)."""

Moments = dict[str, Array]

CPU_ENTRY, OTHER_ENTRY, TPU_ENTRY = 64, 1536, 3072
"""Operations that take as long as writing an entry of a gradient, adding it to a sum and squaring it: on a CPU, whose
cache holds the gradients of a chunk; on an H200 (550 TFLOP/s of bfloat16, 12 bytes at 4.3 TB/s); on a TPU v5e (197
TFLOP/s, .8 TB/s)."""


def pays(form: Outer, operations: int) -> bool:
    """Whether a gradient of T x (d + p) factors, which is summed in any case, is better formed for its norm too.

    Its norm by a Gram matrix takes 2 T^2 (d + p) operations besides the sum; once it is formed, as it is where that is
    cheaper than a Gram matrix, the sum and the norm take a few operations for each of d p entries.
    """
    _, d, p = form.block
    by_gram = 2 * form.times**2 * (d + p)
    # Those that fit in memory at once are not held for the sum: for a small bfloat16 GPT on an H200 that took 4% more
    # memory, and saved 5% of the time.
    formed = strategy(form) == MATERIALISE and not fits(form)
    return form.times > 1 and (formed or by_gram > operations * d * p)


def kernel_pays(form: Outer, wanted: frozenset[str], factors: Array | Clip | None) -> bool:
    """Whether norms and sum together are those of a kernel for GPUs, which must be switched on (`jaxnn.kernels.use`).

    An estimate for an H200, no measurement: the kernel is taken to reach 0.8 T / (T + 48) of the product's own speed,
    which is T / 2 + 120 operations more for each entry of a gradient, whereas forming gradients takes `OTHER_ENTRY`.
    At T = 512, d = 768, p = 3072: 400 us for 64 examples instead of 570, 36 MiB of temporaries instead of 576.
    """
    asked = kernels.used() and wanted == {SQ_NORMS, TOTAL} and not callable(factors)
    if not asked or not isinstance(form, Pairs) or form.block[0] != 1:
        return False
    operations = form.times // 2 + 120
    return kernels.takes(form.a[:, :, 0], form.delta[:, :, 0]) and pays(form, operations) and operations < OTHER_ENTRY


def by_kernel(form: Outer, factors: Array | None) -> Moments:
    """Norms and sum by `kernels.product_norms_and_sum`."""
    sq_norms, total = kernels.product_norms_and_sum(form.a[:, :, 0], form.delta[:, :, 0], factors)
    return {SQ_NORMS: sq_norms, TOTAL: form.laid_out(total[None])}


def weights_of(factors: Array | Clip | None, sq_norms: Array | None) -> Array | None:
    """The factors (N,), from the norms where they are a function of these."""
    if not callable(factors):
        return factors
    if sq_norms is None:
        raise TypeError("per_example: factors that are a function of the norms need the norms.")
    return factors_of(factors, safe_sqrt(sq_norms))


def dense_moments(form: Outer, wanted: frozenset[str], factors: Array | Clip | None, step: Step) -> Moments:
    """The `wanted` moments, the gradients materialized in chunks."""
    given = None if callable(factors) else factors
    leaves, structure = jax.tree.flatten((form, given))

    def of_chunk(*leaves: Array) -> tuple[Moments, Moments]:
        some, given = jax.tree.unflatten(structure, leaves)
        grads = some.gradients()
        rows = {SQ_NORMS: jnp.sum(jnp.square(grads), axis=(1, 2, 3))} if SQ_NORMS in wanted else {}
        sums = {}
        if TOTAL in wanted:
            sums[TOTAL] = Whole(grads).grad(
                weights_of(factors if callable(factors) else given, rows.get(SQ_NORMS)), EXACT
            )
        if SQUARES in wanted:
            sums[SQUARES] = sum_of_squares(grads)
        return rows, sums

    rows, sums = map_and_sum_examples(of_chunk, step, *leaves)
    # Flat only now: a matrix whose columns are sharded is gathered where it is flattened.
    return rows | jax.tree.map(form.laid_out, sums)


def by_platform(
    form: Outer,
    wanted: frozenset[str],
    factors: Array | Clip | None,
    factored: Callable[[Outer, Array | None], Moments],
) -> Moments:
    """`dense_moments` where that pays, else `factored(form, factors)`, or `by_kernel`: chosen at lowering."""
    given = None if callable(factors) else factors
    leaves, structure = jax.tree.flatten((form, given))
    # Loops cost launches on an accelerator: as much at once as the factors take, which are in memory anyway.
    held = form.examples * (form.bytes_each - form.gradient_bytes) // shards(form)
    many = min(max(CHUNK_BYTES, held), OTHER_BYTES)

    def way(operations: int, step: Step) -> Callable[..., Moments]:
        def moments(*leaves: Array) -> Moments:
            form, given = jax.tree.unflatten(structure, leaves)
            if SQUARES in wanted or pays(form, operations):
                return dense_moments(form, wanted, factors if callable(factors) else given, step)
            return factored(form, given)

        return moments

    fused = kernel_pays(form, wanted, factors)
    if SQUARES not in wanted and not fused and not pays(form, CPU_ENTRY):  # the least of the three
        return factored(form, given)
    here = chunks(form.gradient_bytes, CPU_BYTES, *leaves)
    elsewhere = chunks(form.gradient_bytes, many, *leaves, apart=True)
    ways = {"cpu": way(CPU_ENTRY, here), "tpu": way(TPU_ENTRY, elsewhere)}
    if fused:
        ways["cuda"] = lambda *leaves: by_kernel(*jax.tree.unflatten(structure, leaves))
    return lax.platform_dependent(*leaves, **ways, default=way(OTHER_ENTRY, elsewhere))
