"""A folder gives back runs of the same program alone, whatever a function has captured and wherever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jaxnn.train import map_runs
from jaxnn.train.sweeps.stamp import stamp

FACTOR = 1.0
BIG = np.arange(3000.0, dtype=np.float32)  # more than any text shows
OTHER = np.where(BIG == 1500, 7, BIG)


def by_factor(rate: Any) -> Any:
    return rate * FACTOR


def runs_in(folder: Path, run: Callable[..., Any]) -> Any:
    return map_runs(run, np.arange(4.0, dtype=np.float32), folder=folder, progress=False)


def test_a_global_that_has_changed_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(runs_in(tmp_path, by_factor), [0, 1, 2, 3])
    np.testing.assert_array_equal(runs_in(tmp_path, by_factor), [0, 1, 2, 3])
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    with pytest.raises(ValueError, match="holds runs of another sweep"):
        runs_in(tmp_path, by_factor)


INSIDE: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "outermost": lambda b: lambda r: jnp.sum(r * b),
    "jit": lambda b: lambda r: jax.jit(lambda x: jnp.sum(x * b))(r),
    "jit in scan": lambda b: (
        lambda r: jax.lax.scan(lambda c, _: (jax.jit(lambda x: jnp.sum(x * b))(c), None), r, None, length=2)[0]
    ),
    "cond": lambda b: lambda r: jax.lax.cond(r > 0, lambda x: jnp.sum(x * b), lambda x: x, r),
    "checkpoint": lambda b: jax.checkpoint(lambda r: jnp.sum(r * b)),
    "exported": lambda b: jax.export.export(jax.jit(lambda r: jnp.sum(r * b)))(jnp.float32(1)).call,
}


@pytest.mark.parametrize("name", INSIDE)
def test_an_array_inside_any_part_of_a_program_counts(name: str) -> None:
    def stamped(values: Any) -> str:
        return stamp(jax.make_jaxpr(lambda r: INSIDE[name](values)(r))(jnp.float32(1)), ())

    assert stamped(BIG) == stamped(BIG.copy()) == stamped(BIG + 0)
    assert stamped(BIG) != stamped(OTHER)
    assert stamped(jnp.asarray(BIG)) != stamped(jnp.asarray(OTHER))


def test_a_program_that_calls_python_keeps_no_folder(tmp_path: Path) -> None:
    def host(x: Any) -> Any:
        return np.asarray(x) * np.float32(2)

    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def pure(r: Any) -> Any:
        return jax.jit(lambda x: jax.pure_callback(host, shape, x, vmap_method="sequential"))(r)

    with pytest.raises(ValueError, match=r"must not call Python, got pure_callback of host: .*Omit folder="):
        runs_in(tmp_path / "runs", pure)
    with pytest.raises(ValueError, match="got io_callback of host"):
        runs_in(tmp_path / "runs", lambda r: io_callback(host, shape, r))
    assert not (tmp_path / "runs").exists()
    np.testing.assert_array_equal(map_runs(pure, np.arange(2.0, dtype=np.float32), progress=False), [0, 2])


def test_what_is_printed_is_no_result(tmp_path: Path, capfd: Any) -> None:
    def run(r: Any) -> Any:
        jax.debug.print("rate {}", r)
        return r

    for _ in range(2):
        np.testing.assert_array_equal(runs_in(tmp_path, run), [0, 1, 2, 3])
