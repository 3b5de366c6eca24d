"""Training on 8 devices gives the numbers of one: runs of any number, sharded data and parameters on both kinds of mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, models, optim, train

DATA = np.linspace(-1.0, 1.0, 12, dtype=np.float32)


def run(given: Any, x: Any) -> Any:
    rate, key = given
    return {"sum": jnp.sum(jnp.sin(rate * x)), "noise": rate + jax.random.normal(key, (2,))}


def inputs(n: int) -> Any:
    return np.linspace(0.1, 1.0, 17, dtype=np.float32)[:n], jax.random.split(jax.random.key(0), 17)[:n]


@pytest.fixture(scope="module")
def one_by_one() -> Any:
    return jax.device_get(jax.jit(jax.vmap(run, (0, None)))(inputs(17), DATA))


def assert_runs(found: Any, one_by_one: Any, n: int) -> None:
    for name, values in one_by_one.items():
        np.testing.assert_allclose(found[name], values[:n], rtol=1e-6, err_msg=f"{n} runs: {name}")


def test_any_number_of_runs(one_by_one: Any) -> None:
    for n in range(1, 18):
        np.testing.assert_array_equal(train.map_runs(lambda r: r * 2, np.arange(n), progress=False), np.arange(n) * 2)
    for n in (1, 7):
        assert_runs(train.map_runs(run, inputs(n), (DATA,), progress=False), one_by_one, n)


@pytest.mark.parametrize("chunk", [1, 3, 8, 12, 16])
def test_runs_in_chunks_of_fewer_and_more_than_the_devices(chunk: int, one_by_one: Any) -> None:
    asked: list[int] = []
    found = train.map_runs(run, inputs(17), (DATA,), chunk=chunk, progress=lambda done, n: asked.append(done))
    assert_runs(found, one_by_one, 17)
    assert max(np.diff(asked)) == {12: 8}.get(chunk, chunk)


def test_inputs_that_make_many_runs_each(one_by_one: Any) -> None:
    together = jax.vmap(run, (0, None))
    for n in (1, 5):
        rows = jax.tree.map(lambda leaf, n=n: leaf[:n, None], inputs(17))
        found = train.map_runs(together, rows, (DATA,), each=2, chunk=24, progress=False)
        assert_runs(jax.tree.map(lambda leaf: leaf[:, 0], found), one_by_one, n)


def test_chunks_that_fit_into_little_memory(one_by_one: Any) -> None:
    assert_runs(train.map_runs(run, inputs(17), (DATA,), memory=1, progress=False), one_by_one, 17)


def test_a_folder_serves_any_number_of_devices(
    tmp_path: Path, one_by_one: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = jax.local_devices()
    for number, n, runs in ((1, 3, (0, 3)), (8, 8, (3, 11)), (3, 3, (11, 14))):
        monkeypatch.setattr(jax, "local_devices", lambda number=number: devices[:number])

        def stop(done: int, n: int, last: int = runs[1]) -> None:
            if done >= last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train.map_runs(run, inputs(17), (DATA,), chunk=n, folder=tmp_path, progress=stop)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 3
    assert_runs(train.map_runs(run, inputs(17), (DATA,), folder=tmp_path, progress=False), one_by_one, 17)
