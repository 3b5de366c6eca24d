"""optax's own tests pass over jaxnn, but for those on the list of `optax_differences`, each with its reason."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import jax
import optax
import pytest

from jaxnn import optim
from tests.optim.optax_differences import AWAITED, DIFFERENT
from tests.optim.optax_suites import FOLDER, Outcome, run

JUDGED = "0.2.8"
"""The version of optax whose tests the list of differences judges."""

SAMPLE = {
    "_src/alias_test": 60,
    "_src/base_test": 1,
    "_src/combine_test": 5,
    "_src/lookahead_test": 1,
    "_src/transform_test": 4,
    "_src/update_test": 1,
    "contrib/_common_test": 90,
    "losses/_classification_test": 6,
    "losses/_fenchel_young_test": 1,
    "losses/_ranking_test": 3,
    "losses/_regression_test": 1,
    "losses/_segmentation_test": 9,
    "losses/_self_supervised_test": 1,
    "losses/_smoothing_test": 1,
    "schedules/_inject_test": 6,
    "schedules/_join_test": 1,
    "schedules/_schedule_test": 3,
    "transforms/_adding_test": 1,
    "transforms/_clipping_test": 4,
    "transforms/_combining_test": 4,
    "transforms/_conditionality_test": 2,
    "transforms/_constraining_test": 1,
    "transforms/_freezing_test": 3,
    "transforms/_layouts_test": 1,
    "transforms/_masking_test": 2,
    "transforms/_monitoring_test": 2,
}
"""What the long run takes: of each file every n-th test."""

PROOF_ONLY = (
    "_src/factorized_test", "_src/float64_test", "_src/linesearch_test", "contrib/_complex_valued_test",
    "contrib/_galore_test", "contrib/_mechanic_test", "contrib/_muon_test", "contrib/_privacy_test",
    "contrib/_reduce_on_plateau_test", "contrib/_sam_test", "contrib/_schedule_free_test",
    "microbatching/_microbatching_test", "perturbations/_make_pert_test", "projections/_projections_test",
    "transforms/_accumulation_test",
)  # fmt: skip
SLOWEST = ("test_optimization", "test_optimizers(")
"""Tests of thousands of steps, left out of the sample."""


def need(name: str) -> None:
    """Skip, with the reason, where optax's tests are not at hand or are of another version than the list."""
    if not FOLDER.joinpath(f"{name}.py").exists():
        pytest.skip(f"this optax has no {name}.py: point JAXNN_OPTAX_TESTS at the folder of its package with tests")
    if optax.__version__ != JUDGED:
        pytest.skip(f"the list of differences is for the tests of optax {JUDGED}, not {optax.__version__}")


def listed(name: str) -> dict[str, str]:
    return DIFFERENT.get(name, {}) | AWAITED.get(name, {})


def disagreements(outcome: Outcome, listed: dict[str, str], *, whole: bool) -> list[str]:
    """Where an outcome and a list differ; if the whole suite ran, also entries that no test bears out."""
    found, borne_out = [], set()
    for title in outcome.ran:
        entries = [pattern for pattern in listed if re.match(pattern, title)]
        if title in outcome.failed:
            borne_out.update(entries)
            found += [] if entries else [f"{title} fails: {outcome.failed[title]}"]
        elif title not in outcome.skipped_tests:
            found += [f"{title} passes, but the list says: {listed[entry]}" for entry in entries]
    return found + [f"no test that fails is {entry}" for entry in listed if whole and entry not in borne_out]


@pytest.mark.proof
@pytest.mark.parametrize("name", [*SAMPLE, *PROOF_ONLY])
def test_all_of_optaxs_tests_pass_but_those_on_the_list(name: str) -> None:
    need(name)
    assert disagreements(run(name), listed(name), whole=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_optaxs_tests_passes(name: str) -> None:
    need(name)
    outcome = run(name, every=SAMPLE[name], keep=lambda title: not any(s in title for s in SLOWEST))
    assert outcome.ran
    assert disagreements(outcome, listed(name), whole=False) == []


@pytest.mark.slow
def test_a_broken_function_fails_optaxs_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    need("_src/update_test")
    monkeypatch.setattr(optim, "periodic_update", lambda new, old, steps, update_period: old)
    outcome = run("_src/update_test")
    assert disagreements(outcome, {}, whole=True)[0].startswith("UpdateTest.test_periodic_update fails: AssertionError")


@pytest.mark.slow
def test_nothing_of_a_run_stays_behind() -> None:
    need("_src/float64_test")
    adam, handlers = optax.adam, list(logging.getLogger("jax").handlers)
    run("_src/update_test")  # what a first run imports stays: absl, and flax where it is
    modules = set(sys.modules)
    assert run("_src/float64_test", every=8).ran
    assert set(sys.modules) == modules
    assert optax.adam is adam is not optim.adam
    assert logging.getLogger("jax").handlers == handlers
    assert not jax.config.read("jax_enable_x64")


def test_the_list_of_differences_is_strict() -> None:
    outcome = Outcome()
    outcome.ran, outcome.failed, outcome.skipped_tests = ["A.x", "A.y(1)", "B.z"], {"A.y(1)": "Error"}, {"B.z": "slow"}
    cases: list[tuple[dict[str, str], Any]] = [
        ({}, ["A.y(1) fails: Error"]),
        ({r"A\.y\(1": "why"}, []),
        ({r"A\.": "why"}, ["A.x passes, but the list says: why"]),
        ({r"A\.y": "why", r"B\.z": "so"}, [r"no test that fails is B\.z"]),
        ({r"A\.y": "why", "C": "so"}, ["no test that fails is C"]),
    ]
    for listed, expected in cases:
        assert disagreements(outcome, listed, whole=True) == expected
    assert disagreements(outcome, {r"A\.y": "why", "C": "so"}, whole=False) == []
