"""Studies that are stopped go on in their folder, and find what they find without a stop."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jaxnn import data, layers, models, studies
from jaxnn.studies import (
    clipped,
    gram,
    hardest,
    induction,
    influence,
    mislabeled,
    noise_scale,
    norms,
    projections,
    tasks,
    vanishing,
)
from jaxnn.train.checkpoints import Checkpoints
from tests.helpers import slow

FEW = data.Splits(*(data.select(part, slice(0, 64)) for part in data.load("digits")))
IMAGES: dict[str, Any] = {"data": FEW, "net": models.linear(10), "epochs": 3, "batch_size": 32}
SEQUENCES: dict[str, Any] = {"epochs": 3, "steps": 2, "batch_size": 2}
RUNS: dict[ModuleType, tuple[dict[str, Any], int]] = {
    norms: (IMAGES, 3),
    hardest: (IMAGES, 3),
    mislabeled: (IMAGES, 3),
    noise_scale: (IMAGES | {"sizes": (4, 8)}, 3),
    gram: (IMAGES | {"per_class": 2}, 3),
    projections: (IMAGES | {"tests": 2, "sizes": (4, 8)}, 3),
    clipped: (IMAGES | {"noise": (0.5, 2.0)}, 9),
    influence: (IMAGES | {"tests": 2}, 6),
    vanishing: (SEQUENCES | {"length": 6, "hidden": 4}, 3),
    induction: (SEQUENCES | {"symbols": 6, "length": 4, "width": 8, "heads": 2}, 6),
    tasks: (SEQUENCES | {"tasks": ["adding"], "networks": ["RNN", "LinearRecurrence"], "width": 4}, 6),
}
"""Each study, small, and the number of its saves."""


class Killed(Exception):
    pass


def stop_after(count: int, patch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are saved; the one after `count` saves does not come."""
    save, saved = Checkpoints.save, list[int]()

    def counted(self: Any, step: int, *args: Any) -> None:
        if len(saved) == count:
            raise Killed
        saved.append(step)
        save(self, step, *args)

    patch.setattr(Checkpoints, "save", counted)
    return saved


def test_all_studies_are_tried() -> None:
    assert {module.__name__.rsplit(".", 1)[1] for module in RUNS} == {
        name for name in dir(studies) if hasattr(getattr(studies, name), "run")
    }


LONG = [pytest.param(module, marks=pytest.mark.proof) for module in (vanishing, induction, tasks)]


@pytest.mark.parametrize(
    "module", [gram, *slow(norms, hardest, mislabeled, noise_scale, projections, clipped, influence), *LONG]
)
def test_a_study_goes_on(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, saves = RUNS[module]
    monkeypatch.setattr(vanishing, "CELLS", {"GRU": layers.GRU})  # one of four alike
    whole = module.run(**given)
    with monkeypatch.context() as patch:
        stop_after(saves // 2, patch)
        with pytest.raises(Killed):
            module.run(**given, folder=tmp_path)
    left = stop_after(saves, monkeypatch)
    found = module.run(**given, folder=tmp_path)
    assert 0 < len(left) <= saves - saves // 2
    for name, value in vars(whole).items() if hasattr(whole, "__dict__") else whole._asdict().items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert found.numbers() == whole.numbers()


def test_the_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    hardest.run(**IMAGES, folder=tmp_path)
    text = r"has the states of another training (batch size: saved 32, now 16). Use another folder."
    with pytest.raises(ValueError, match=re.escape(text)):
        hardest.run(**IMAGES | {"batch_size": 16}, folder=tmp_path)
