"""Random programs over all rules and beyond them: the streamed pass against vmap(grad), in float64."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import float64
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import N
from tests.per_example.recording.programs import OPS, PROGRAMS, loss_of
from tests.per_example.streaming.oracles import gaps, worst

FEW, MANY = ["sq_norms", "directional"], ["sq_norms", "by parameter", "second_moment", "variance", "directional"]


def _check(program: Any, seed: int, names: list[str]) -> None:
    with float64():
        found = gaps(loss_of(program, seed, N), names)
    assert worst(found) <= EXACT, found


def _search(part: int, programs: int, names: list[str]) -> None:
    @hypothesis.seed(200 + part)
    @hypothesis.settings(max_examples=programs, derandomize=False, database=None)
    @hypothesis.given(PROGRAMS, st.integers(0, 1000))
    def run(program: Any, seed: int) -> None:
        _check(program, seed, names)

    run()


@pytest.mark.parametrize(("part", "programs"), [(0, 3), pytest.param(1, 30, marks=pytest.mark.slow)])
def test_random_programs(part: int, programs: int) -> None:
    _search(part, programs, FEW)


@pytest.mark.proof
@pytest.mark.parametrize("part", range(2, 12))
def test_many_random_programs(part: int) -> None:
    _search(part, 30, MANY)


@pytest.mark.proof
@pytest.mark.parametrize("name", OPS)
def test_each_operation_twice_with_the_same_parameters(name: str) -> None:
    """Uses are added before they are squared."""
    _check([(name, 1, False), ("tanh", 0, False), (name, 2, True)], 0, MANY)
