"""Random programs over all rules and beyond them: their tapes against vmap(grad), in float64."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import float64, slow
from tests.per_example.oracles import EXACT, STATISTICS
from tests.per_example.recording.losses import N
from tests.per_example.recording.programs import OPS, PROGRAMS, loss_of
from tests.per_example.recording.test_statistics import gaps


def _check(program: Any, seed: int, names: list[str]) -> None:
    with float64():
        found = gaps(loss_of(program, seed, 2 * N), names)
    assert max(found.values()) <= EXACT, found


@pytest.mark.parametrize(("part", "programs"), [(0, 6), *slow((0, 20), (1, 20))])
def test_random_programs(part: int, programs: int) -> None:
    @hypothesis.seed(part)
    @hypothesis.settings(max_examples=programs, derandomize=False, database=None)
    @hypothesis.given(PROGRAMS, st.just(part))
    def run(program: Any, seed: int) -> None:
        _check(program, seed, ["sq_norms", "materialize"])

    run()


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.slow if part < 2 else pytest.mark.proof) for part in range(10)]
)
def test_many_random_programs(part: int) -> None:
    @hypothesis.seed(100 + part)
    @hypothesis.settings(max_examples=50, derandomize=False, database=None)
    @hypothesis.given(PROGRAMS, st.integers(0, 1000))
    def run(program: Any, seed: int) -> None:
        _check(program, seed, ["sq_norms", "clipped_grad", "variance", "gram, two batches", "jvp_examples"])

    run()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_each_operation_twice_with_the_same_parameters(name: str) -> None:
    """Uses are added before they are squared."""
    _check([(name, 1, False), ("tanh", 0, False), (name, 2, True)], 0, list(STATISTICS))
