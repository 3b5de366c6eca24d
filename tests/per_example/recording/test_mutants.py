"""Broken recorders are caught by the comparisons that the right one passes."""

from __future__ import annotations

import functools

import pytest

from tests.backprop.mutants import CAUGHT, Mutant
from tests.per_example.recording.mutants import MUTANTS

of_the_right_one = functools.cache(lambda check: check())


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [pytest.param(m, id=m.name) for m in MUTANTS])
def test_the_comparison_passes_the_right_recorder_and_catches_the_broken_one(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_the_right_one(mutant.check) <= 1e-10
    mutant.breaks(monkeypatch)
    assert mutant.check() > CAUGHT
