"""Norms and weighted sum of matrix products in one kernel for NVIDIA Hopper GPUs.

A program (a block of threads) has a tile of 128 rows of K and 128 or 192 columns of P, and goes through its share of
the examples. Of its three warpgroups one copies a_i and delta_i, 64 positions at a time, to a ring of buffers in shared
memory (TMA); the two others multiply, 64 rows each: the accumulator, a tile of g_i = a_i' delta_i, is summed over
positions in registers (wgmma); then its squares are added up by row and w_i times the tile to a running sum, also in
registers. The ring goes on across examples, so that the next one is on its way while one is finished.

What is stored: the running sum once for each share, (shares, K, P), and the sums of squares by row, (N, P / columns,
K). No atomic operations: results are the same in every run.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.types import Array

ROWS, WARPGROUPS = 64, 2
"""Rows of a warpgroup's tile, those of wgmma, and warpgroups that multiply."""

POSITIONS, BUFFERS = 64, 4
"""Positions in one buffer, and buffers: 4 of 64 (128 + 192) bfloat16 take 160 of 227 KiB of shared memory."""

COLUMNS = (192, 128)
"""Columns of a tile, the best first. Accumulator and running sum take 2 x 96 or 2 x 64 of the 232 registers below."""

COPYING, MULTIPLYING = 40, 232
"""Registers of a thread: (40 + 2 x 232) x 128 threads are less than the 65,536 of a processor."""

PROCESSORS = 132
"""Of an H100 or H200. On others the result is the same."""

LEAST_POSITIONS, LEAST_ENTRIES = 128, 2**22
"""T and N K P below which loads, or the launch, take longest."""


class Plan(NamedTuple):
    """Columns of a tile, and shares of the examples that have programs of their own."""

    columns: int
    shares: int


@functools.cache
def plan(n: int, t: int, k: int, p: int) -> Plan | None:
    """How a product of (N, T, K) and (N, T, P) is divided among programs; None if the kernel does not take it."""
    columns = next((columns for columns in COLUMNS if p % columns == 0), None)
    wrong = k == 0 or p == 0 or k % (ROWS * WARPGROUPS) or t % POSITIONS or t < LEAST_POSITIONS
    if columns is None or wrong or n * k * p < LEAST_ENTRIES:
        return None
    tiles = (k // (ROWS * WARPGROUPS)) * (p // columns)
    # Each share has its own sum (K, P): at most a quarter of what the g_i would take.
    possible = [shares for shares in range(1, max(n // 4, 1) + 1) if n % shares == 0]

    def idle(shares: int) -> float:
        """Processors that have nothing to do in the last round, per processor and round."""
        rounds = -(-tiles * shares // PROCESSORS)
        return 1 - tiles * shares / (rounds * PROCESSORS)

    few = next((shares for shares in possible if idle(shares) < 0.1), None)
    return Plan(columns, min(possible, key=idle) if few is None else few)


def product_norms_and_sum(a: Array, delta: Array, w: Array, *, interpret: Any = None) -> tuple[Array, Array]:
    """|a_i' delta_i|^2 (N,) and sum_i w_i a_i' delta_i (K, P), float32, of shapes that have a `plan`.

    Args:
        a: (N, T, K), bfloat16.
        delta: (N, T, P), bfloat16.
        w: (N,), float32.
        interpret: `InterpretGPUParams` of `jax.experimental.pallas.mosaic_gpu`, to run it on a CPU.

    Raises:
        ValueError: shapes without a plan.

    Example:
        >>> a, delta = jnp.ones((16, 256, 256), jnp.bfloat16), jnp.ones((16, 256, 1024), jnp.bfloat16)
        >>> lowered = jax.jit(product_norms_and_sum).trace(a, delta, jnp.ones(16)).lower(lowering_platforms=("cuda",))
        >>> "mosaic_gpu" in lowered.as_text()
        True
    """
    # Imported here: it takes .3 s, and is needed only where a kernel is.
    from jax.experimental.pallas import mosaic_gpu as gpu

    n, _, k = a.shape
    p = delta.shape[2]
    chosen = plan(*a.shape, p)
    if chosen is None:
        raise ValueError(f"the Hopper kernel does not take a {a.shape} and delta {delta.shape}: see `takes`.")
    columns, shares = chosen
    rows = ROWS * WARPGROUPS
    tiled = (gpu.TilingTransform((8, 64)), gpu.SwizzleTransform(128))
    kernel = gpu.kernel(
        functools.partial(_program, columns=columns),
        out_type=(
            jax.ShapeDtypeStruct((n, p // columns, k), jnp.float32),
            jax.ShapeDtypeStruct((shares, k, p), jnp.float32),
        ),
        scratch_types=[
            gpu.SMEM((BUFFERS, POSITIONS, rows), jnp.bfloat16, transforms=tiled),
            gpu.SMEM((BUFFERS, POSITIONS, columns), jnp.bfloat16, transforms=tiled),
            gpu.Barrier(num_arrivals=2, num_barriers=BUFFERS),
            gpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=BUFFERS),
        ],
        # Programs of one share run side by side: they read the same a_i and delta_i, which stay in the L2 cache.
        grid=(shares, k // rows, p // columns),
        grid_names=("share", "row", "column"),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )
    squares, sums = kernel(a, delta, w)
    return jnp.sum(squares, axis=(1, 2)), sums[0] if shares == 1 else jnp.sum(sums, axis=0)


def _program(
    a: Any,
    delta: Any,
    w: Any,
    squares: Any,
    sums: Any,
    a_buffers: Any,
    delta_buffers: Any,
    full: Any,
    empty: Any,
    *,
    columns: int,
) -> None:
    """One program. All but the last are references: a, delta, w and the two results in the GPU's memory, the buffers in
    shared memory, and a barrier for each buffer that says that it is full (two copies arrived) or empty again."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import mosaic_gpu as gpu

    examples, steps = a.shape[0] // sums.shape[0], a.shape[1] // POSITIONS
    share, mine = lax.axis_index("share"), lax.axis_index("warpgroup")
    row = lax.axis_index("row") * (ROWS * WARPGROUPS)
    across = pl.ds(lax.axis_index("column") * columns, columns)

    @pl.when(mine == WARPGROUPS)
    def _copy() -> None:
        gpu.set_max_registers(COPYING, action="decrease")

        def step(i: Array, _: None) -> None:
            buffer = lax.rem(i, BUFFERS)

            @pl.when(i >= BUFFERS)
            def _wait() -> None:
                gpu.barrier_wait(empty.at[buffer])

            n, some = share * examples + lax.div(i, steps), pl.ds(lax.rem(i, steps) * POSITIONS, POSITIONS)
            down = pl.ds(row, ROWS * WARPGROUPS)
            gpu.copy_gmem_to_smem(a.at[n, some, down], a_buffers.at[buffer], full.at[buffer])
            gpu.copy_gmem_to_smem(delta.at[n, some, across], delta_buffers.at[buffer], full.at[buffer])

        lax.fori_loop(0, examples * steps, step, None)

    @pl.when(mine < WARPGROUPS)
    def _multiply() -> None:
        gpu.set_max_registers(MULTIPLYING, action="increase")
        down = pl.ds(row + mine * ROWS, ROWS)

        def product(first: Array, accumulator: Any) -> Array:
            def step(s: Array, _: None) -> None:
                buffer = lax.rem(first + s, BUFFERS)
                gpu.barrier_wait(full.at[buffer])
                a_tile = a_buffers.at[buffer, :, pl.ds(mine * ROWS, ROWS)].transpose((1, 0))
                gpu.wgmma(accumulator, a_tile, delta_buffers.at[buffer])
                gpu.wgmma_wait(1)  # this step may still run, the one before has read its buffer

                @pl.when(s > 0)
                def _release() -> None:
                    gpu.barrier_arrive(empty.at[lax.rem(first + s - 1, BUFFERS)])

            lax.fori_loop(0, steps, step, None)
            found = accumulator[...]  # waits for the last step
            gpu.barrier_arrive(empty.at[lax.rem(first + steps - 1, BUFFERS)])
            return found

        def example(j: Array, total: Array) -> Array:
            n = share * examples + j
            tile = pl.run_scoped(functools.partial(product, j * steps), gpu.ACC((ROWS, columns), jnp.float32))
            squares[n, lax.axis_index("column"), down] = jnp.sum(tile * tile, axis=1)
            return total + w[n] * tile

        sums[share, down, across] = lax.fori_loop(0, examples, example, jnp.zeros((ROWS, columns), jnp.float32))
