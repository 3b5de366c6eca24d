"""Recipes reach what benchmarks/README.md says of them, where MNIST is at hand; the shorter ones, at full length."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from jaxnn.cli.config import TrainConfig
from jaxnn.cli.recipes import RECIPES
from jaxnn.cli.train import train

FOLDER = os.environ.get("JAXNN_DATA")
needs_mnist = pytest.mark.skipif(
    not (FOLDER and (Path(FOLDER) / "mnist").is_dir()), reason="set JAXNN_DATA to a folder that holds mnist/"
)


@needs_mnist
@pytest.mark.parametrize(
    ("name", "changes", "most"),
    [
        pytest.param("mnist-linear", {}, 0.077, marks=pytest.mark.slow),
        pytest.param("mnist-mlp", {"epochs": 6}, 0.020, marks=pytest.mark.proof),
        pytest.param("mnist-cnn-fast", {"epochs": 1}, 0.025, marks=pytest.mark.proof),
    ],
)
def test_a_recipe_reaches_its_error(name: str, changes: dict[str, int], most: float, tmp_path: Path) -> None:
    config = dataclasses.replace(RECIPES[name], out=tmp_path / "run", **changes)
    _, (outcome,) = train(config, progress=False)
    assert outcome.test_error <= most


@pytest.mark.slow
def test_the_default_run_reads_the_digits(tmp_path: Path) -> None:
    _, (outcome,) = train(TrainConfig(out=tmp_path / "run"), progress=False)
    assert outcome.test_error <= 0.03
