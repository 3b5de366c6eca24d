"""What is frozen does not move; what is pre-trained comes from the source."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, optim
from jaxnn.classic import transfer
from jaxnn.classic.trials import plain
from tests.helpers import assert_close


@pytest.mark.slow
@pytest.mark.parametrize("free", [0.0, 1.0])
def test_the_switch_is_freeze_and_adam(free: float) -> None:
    params = plain(10).init(jax.random.key(0), (4,))[0]
    opt = transfer.trained_on(jnp.asarray(free))
    mask = (True, True, True, False) if free == 0 else False
    known = optim.chain(transfer.OPT, optim.freeze(mask))
    state, other = opt.init(params), known.init(params)
    for i in range(3):
        grads = jax.tree.map(lambda leaf, i=i: jnp.sin(leaf + i), params)
        updates, state = opt.update(grads, state, params)
        expected, other = known.update(grads, other, params)
        assert_close(updates, expected, rtol=1e-6)


def test_tasks_share_no_example() -> None:
    for task in (transfer.noisy_digits(level=0.0), transfer.other_digits()):
        parts = (task.source, *task.target)
        assert [len(part) for part in parts[:3]] == [800, 400, 100]
        rows = np.concatenate([part.x.reshape(len(part), -1) for part in parts])
        whole = {row.tobytes() for row in data.digits().x.reshape(1797, -1)}
        assert len({row.tobytes() for row in rows}) > len(rows) - 5  # a few digits are there twice
        assert {row.tobytes() for row in rows} <= whole
    noise = np.asarray(transfer.noisy_digits().target.test.x) - np.asarray(transfer.noisy_digits(0.0).target.test.x)
    assert noise.std() == pytest.approx(0.4, rel=0.02)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match=r"each of sizes must lie in \[1, 400\], got 401"):
        transfer.by_size(sizes=(401,))
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        transfer.by_size(epochs=0)


def test_tasks_that_do_not_fit_together_are_named() -> None:
    few, other = (data.make_dataset(np.ones((60, d), np.float32), np.arange(60) % 2) for d in (1, 4))
    with pytest.raises(ValueError, match=r"inputs of one shape, got \(1,\), \(4,\)"):
        transfer.by_size(transfer.Task(few, data.Splits(other, other, other)))
    with pytest.raises(TypeError, match=r"task must be a transfer\.Task"):
        transfer.by_size(few)  # type: ignore[arg-type]
