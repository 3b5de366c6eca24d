"""The memory of a streamed pass beside that of jax.grad of the same loss, by the compiler's own account."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import per_example
from jaxnn.per_example import Margin, SecondMoment, SqNorms, Variance

Shape = jax.ShapeDtypeStruct
LAYERS, WIDTH, T, B = 8, 64, 128, 16
BLOCKS = {"u": Shape((LAYERS, WIDTH, 4 * WIDTH), jnp.float32), "b": Shape((LAYERS, 4 * WIDTH), jnp.float32),
          "d": Shape((LAYERS, 4 * WIDTH, WIDTH), jnp.float32)}  # fmt: skip


def temporaries(f: Any, *shapes: Any) -> int:
    jax.config.update("jax_disable_most_optimizations", False)  # the fixture of the folder sets it back
    return jax.jit(f).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def plain(loss: Any) -> Any:
    """The gradient of the sum of the same vmapped loss."""
    return jax.grad(lambda p, *data: jnp.sum(jax.vmap(loss, (None, *(0 for _ in data)))(p, *data)))


def blocks(p: Any, x: Any) -> Any:
    @jax.checkpoint
    def block(h: Any, w: Any) -> Any:
        return h + jax.nn.gelu(h @ w["u"] + w["b"]) @ w["d"], None

    return jnp.mean(lax.scan(block, x, p)[0] ** 2)


@pytest.mark.parametrize(
    "statistics", [SqNorms(), pytest.param((SqNorms(by="parameter"), SecondMoment(), Margin()), marks=pytest.mark.slow)]
)
def test_scanned_rematerialized_blocks(statistics: Any) -> None:
    """8 blocks of width 64 on 16 x 128 positions: norms and gradient within 1.05 of the gradient (here .96)."""
    x = Shape((B, T, WIDTH), jnp.float32)
    most = 1.05 * temporaries(plain(blocks), BLOCKS, x)
    assert temporaries(per_example.value_and_grad(blocks, statistics), BLOCKS, x) <= most


def test_the_tape_of_these_blocks_takes_more() -> None:
    """What the bound above excludes: everything that checkpoint was to save."""
    x = Shape((B, T, WIDTH), jnp.float32)

    def by_tape(p: Any, x: Any) -> Any:
        tape = per_example.record(blocks)(p, x)
        return per_example.sq_norms(tape), per_example.mean_grad(tape)

    assert temporaries(by_tape, BLOCKS, x) > 1.5 * temporaries(plain(blocks), BLOCKS, x)


@pytest.mark.slow
def test_a_flax_transformer() -> None:
    """The 4 layers of width 256 of the benchmark, its embedding tied to the output (here .97)."""
    pytest.importorskip("flax")
    from benchmarks.flax_models import CASES

    case = CASES["transformer"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        z = jax.nn.log_softmax(case.model.apply(params, x[None])[0])
        return -jnp.mean(jnp.take_along_axis(z, y[:, None], 1))

    x, y = Shape((case.batch, *case.example), jnp.int32), Shape((case.batch, *case.labels), jnp.int32)
    params = jax.eval_shape(case.model.init, jax.random.key(0), Shape((1, *case.example), jnp.int32))
    most = 1.05 * temporaries(plain(loss), params, x, y)
    assert temporaries(per_example.value_and_grad(loss), params, x, y) <= most


@pytest.mark.parametrize("statistics", [SecondMoment(), Variance(), (SqNorms(), SecondMoment(), Variance())])
def test_no_gradient_of_an_example_where_there_is_one_position(statistics: Any) -> None:
    """An MLP's second moment is a product of squares: no array (N, D, P), in what is lowered or compiled."""
    params = {"w": np.ones((30, 40), np.float32), "v": np.ones((40, 50), np.float32)}

    def loss(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ p["w"]) @ p["v"]) ** 2

    vg = jax.jit(per_example.value_and_grad(loss, statistics))
    lowered = vg.lower(params, np.ones((8, 30), np.float32))
    for text, shapes in (
        (lowered.as_text(), ("8x30x40", "8x40x50")),
        (lowered.compile().as_text(), ("8,30,40", "8,40,50")),
    ):
        assert not any(shape in text for shape in shapes)
        assert any(shape in text for shape in ("8x40", "8,40"))


def test_gradients_at_several_positions_are_formed_in_chunks() -> None:
    """512 gradients of 128 x 128 would take 32 MiB."""
    params, x = {"w": Shape((128, 128), jnp.float32)}, Shape((512, 4, 128), jnp.float32)

    def loss(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ p["w"]) ** 2)

    assert temporaries(per_example.value_and_grad(loss, (SqNorms(), SecondMoment())), params, x) < 8 * 2**20
