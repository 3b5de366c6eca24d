"""Broken rules are caught by the checks that the right ones pass."""

from __future__ import annotations

import functools

import pytest

from tests.backprop.mutants import CAUGHT, MUTANTS, QUICK, Mutant
from tests.backprop.sequence_mutants import SEQUENCE_MUTANTS, SEQUENCE_QUICK

of_the_right_one = functools.cache(lambda check: check())


ALL, IN_SHORT = [*MUTANTS, *SEQUENCE_MUTANTS], [*QUICK, *SEQUENCE_QUICK]


@pytest.mark.parametrize(
    "mutant", [pytest.param(m, marks=() if m.name in IN_SHORT else pytest.mark.slow, id=m.name) for m in ALL]
)
def test_the_check_passes_the_right_rule_and_catches_the_broken_one(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_the_right_one(mutant.check) <= mutant.tolerance
    mutant.breaks(monkeypatch)
    assert mutant.check() > CAUGHT


def test_there_are_no_two_of_one_name() -> None:
    names = [mutant.name for mutant in ALL]
    assert len(set(names)) == len(names) >= 30
    assert set(IN_SHORT) < set(names)
