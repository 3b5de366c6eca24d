"""Numbers with their nouns: the singular for one, in `count_of` and in the reports that use it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import jaxnn
from jaxnn.checks import count_of
from jaxnn.classic import perceptron
from jaxnn.playground import Settings
from jaxnn.playground.page import describe
from jaxnn.train import EarlyStopping


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (count_of(1, "epoch"), "1 epoch"),
        (count_of(0, "epoch"), "0 epochs"),
        (count_of(1, "pass", "passes"), "1 pass"),
        (count_of(1000, "pass", "passes"), "1,000 passes"),
    ],
)
def test_count_of(told: str, expected: str) -> None:
    assert told == expected


def test_a_perceptron_that_made_one_mistake_says_so() -> None:
    assert perceptron.fit(np.ones((1, 2)), np.array([-1])).describe() == (
        "converged: 1 mistake in 2 passes, the last without one"
    )
    assert "1 mistake in 1 pass" in perceptron.fit(np.ones((1, 2)), np.array([-1]), passes=1).describe()


def test_other_reports_of_one() -> None:
    assert "for 1 epoch" in str(EarlyStopping("loss", patience=1)([{"loss": 1.0}, {"loss": 2.0}]))
    assert describe(Settings(hidden=(1,))).count("1 hidden unit,") == 1
    assert "2 hidden units" in describe(Settings(hidden=(2,)))


REPORTS = {"describe", "__repr__", "kept"}
"""Functions that tell a result in words: their counts are written by `count_of`."""

NOUNS = "mistakes|passes|epochs|runs|steps|labels|examples|lines|files|results|seeds|problems|optimizers|bytes|units"


def test_no_report_writes_a_plural_after_a_count_by_hand() -> None:
    found = []
    for path in Path(jaxnn.__file__).parent.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name in REPORTS:
                text = ast.get_source_segment(source, node) or ""
                found += re.findall(rf"\{{(?:len|int)\([^{{}}]*\}} (?:{NOUNS})\b", text)
    assert found == []
