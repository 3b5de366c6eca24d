"""The kernel for Hopper GPUs, interpreted on a CPU: values, races, and how it is divided among programs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.kernels import hopper
from tests.helpers import random

CLOSE = 1e-6
"""Relative error, of each norm and of the sum in norm; 1e-7 is seen."""


def interpreting() -> Any:
    """The settings that interpret a GPU kernel and look for races."""
    from jax.experimental.pallas import mosaic_gpu

    if not hasattr(mosaic_gpu, "InterpretGPUParams"):
        pytest.skip(f"the interpreter of jax {jax.__version__} knows no transposed operand of wgmma: jax 0.12 does")
    return mosaic_gpu.InterpretGPUParams(detect_races=True)


def factors(n: int, t: int, k: int, p: int) -> tuple[Any, Any, Any]:
    return jnp.asarray(random(0, n, t, k), jnp.bfloat16), jnp.asarray(random(1, n, t, p), jnp.bfloat16), random(2, n)


def worst(shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> float:
    """The larger relative error of the kernel against float64."""
    monkeypatch.setattr(hopper, "LEAST_ENTRIES", 0)
    a, delta, w = factors(*shape)
    hopper.plan.cache_clear()
    kernel = jax.jit(functools.partial(hopper.product_norms_and_sum, interpret=interpreting()))
    sq_norms, total = (np.asarray(x, np.float64) for x in kernel(a, delta, jnp.asarray(w, jnp.float32)))
    hopper.plan.cache_clear()
    g = np.einsum("ntk,ntp->nkp", np.asarray(a, np.float64), np.asarray(delta, np.float64))
    expected = np.tensordot(np.asarray(w, np.float32).astype(np.float64), g, 1)
    of_norms = np.abs(sq_norms / np.square(g).sum((1, 2)) - 1).max()
    return float(max(of_norms, np.linalg.norm(total - expected) / np.linalg.norm(expected)))


SHAPES = {
    "one program": (3, 128, 128, 192),
    "two shares, five steps": (8, 320, 128, 128),
    "four programs": (2, 256, 256, 384),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_close_to_float64_and_without_races(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter raises where a buffer is used before a barrier allows it."""
    assert worst(shape, monkeypatch) < CLOSE


def mutant(old: str, new: str) -> Callable[..., None]:
    """The program with a piece of its source replaced."""
    source = inspect.getsource(hopper._program)
    assert source.count(old) == 1
    scope = dict(vars(hopper))
    exec(source.replace(old, new), scope)
    return scope["_program"]


MUTANTS = {
    "weights lost": ("total + w[n] * tile", "total + tile"),
    "sums of entries": ("tile * tile", "tile"),
    "a sum that begins at 1": ("jnp.zeros((ROWS", "jnp.ones((ROWS"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_program_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "_program", mutant(*MUTANTS[name]))
    assert not worst((8, 128, 128, 128), monkeypatch) < 1e-2


def test_plans() -> None:
    """Shares divide the examples, sums take at most a quarter of the products, few processors are idle."""
    for n in (8, 16, 33, 64, 128):
        for k in (128, 768, 1024):
            for p in (128, 768, 3072, 4096):
                if n * k * p < hopper.LEAST_ENTRIES:
                    assert hopper.plan(n, 512, k, p) is None
                    continue
                found = hopper.plan(n, 512, k, p)
                assert found is not None
                assert n % found.shares == 0
                assert found.shares <= max(n // 4, 1)
                assert p % found.columns == 0
    assert hopper.plan(64, 512, 768, 3072) == (192, 4)  # 384 programs, 3 rounds of 132
    assert hopper.plan(16, 1024, 1024, 4096) == (128, 1)  # 256 programs


NOT_TAKEN = [
    *((64, 512, 700, 3072), (64, 512, 768, 100), (64, 500, 768, 3072), (64, 64, 768, 768)),
    *((0, 512, 768, 768), (64, 512, 0, 768), (64, 0, 768, 768), (64, 512, 768, 0)),
]


@pytest.mark.parametrize("shape", NOT_TAKEN)
def test_shapes_without_a_plan(shape: tuple[int, int, int, int]) -> None:
    assert hopper.plan(*shape) is None
    n, t, k, p = shape
    with pytest.raises(ValueError, match="does not take"):
        hopper.product_norms_and_sum(jnp.zeros((n, t, k)), jnp.zeros((n, t, p)), jnp.zeros(n))
