"""Broken streamed passes fail the tests that the right one passes."""

from __future__ import annotations

import pytest

from tests.per_example.streaming.mutants import MUTANTS, Mutant, right_one_passes


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [pytest.param(m, id=m.name) for m in MUTANTS])
def test_the_test_passes_the_right_pass_and_catches_the_broken_one(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    right_one_passes(mutant.test, mutant.arguments)
    mutant.breaks(monkeypatch)
    with pytest.raises(AssertionError):
        mutant.test(*mutant.arguments)
