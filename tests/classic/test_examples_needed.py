"""More examples, fewer errors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data
from jaxnn.classic import examples_needed
from jaxnn.classic.trials import first_of, mislabel

PART = data.make_dataset(np.arange(12.0)[:, None], np.arange(12) % 3)


def test_the_chosen_are_repeated_evenly_and_nested() -> None:
    @jax.jit
    def chosen(n: Any) -> Any:
        return first_of(PART, n, jax.random.key(3)).x[:, 0]

    found = {n: np.unique(np.asarray(chosen(jnp.asarray(n))), return_counts=True) for n in (1, 3, 5, 12)}
    assert [len(values) for values, _ in found.values()] == [1, 3, 5, 12]
    assert found[3][1].tolist() == [4, 4, 4]
    assert sorted(found[5][1].tolist()) == [2, 2, 2, 3, 3]
    assert set(found[1][0]) < set(found[3][0]) < set(found[5][0])
    part = first_of(PART, jnp.asarray(5), jax.random.key(3))
    np.testing.assert_array_equal(part.y, np.asarray(part.x[:, 0], int) % 3)


@pytest.mark.parametrize("wrong", [0.0, 0.25, 1.0])
def test_so_many_labels_are_replaced_by_others(wrong: float) -> None:
    found = mislabel(PART, wrong, 3, seed=1)
    assert (found.y != PART.y).sum() == round(12 * wrong)
    assert set(found.y) <= {0, 1, 2}


def test_the_exponent_is_that_of_a_power_law() -> None:
    sizes = np.array([10, 40, 90])
    errors = examples_needed.Errors(sizes, np.zeros((3, 1)), 2.0 * sizes[:, None] ** -0.7)
    assert errors.exponent == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [((900,), r"each of sizes must lie in \[1, 800\], got 900"), ((0,), "got 0"), ((), "at least one number")],
)
def test_bad_sizes(sizes: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        examples_needed.by_size(sizes)
    with pytest.raises(TypeError, match="must be an int"):
        examples_needed.by_size((10.5,))  # type: ignore[arg-type]


def test_no_exponent_of_errors_of_zero() -> None:
    with pytest.raises(ValueError, match="at least two sizes, with test errors > 0"):
        _ = examples_needed.Errors(np.array([1, 2]), np.zeros((2, 1)), np.zeros((2, 1))).exponent
