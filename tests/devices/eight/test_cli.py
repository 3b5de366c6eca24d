"""`jaxnn train --devices 8`: the results of one device; a run that is stopped goes on, on other devices too."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn import data
from jaxnn.cli import train as training
from jaxnn.cli.main import main
from jaxnn.train.feeds.arrays import ArrayFeed

pytestmark = pytest.mark.slow

IMAGES = ["--epochs", "3", "--hidden", "8", "--batch-size", "296", "--save-every", "3"]
TEXT = [
    "--data", "text", "--width", "8", "--depth", "1", "--heads", "2", "--length", "16", "--steps", "3", "--epochs", "2",
    "--sample", "0", "--batch-size", "16", "--save-every", "2",
]  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_close(found: Path, expected: Path) -> None:
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-4)
    with np.load(found / "params.npz") as ours, np.load(expected / "params.npz") as theirs:
        for name in theirs.files:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("words", [IMAGES, TEXT], ids=lambda words: words[1])
def test_eight_devices_train_what_one_trains(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "text" in words:
        (tmp_path / "mine.txt").write_text(data.text.embedded()[:2000])
        words = [*words, "--text", str(tmp_path / "mine.txt")]
    run, meshes = ArrayFeed.run, []

    def noting(self: Any, *given: Any) -> Any:
        meshes.append(None if self.epoch.split is None else self.epoch.split.mesh.size)
        return run(self, *given)

    monkeypatch.setattr(ArrayFeed, "run", noting)
    for devices in (1, 8):
        assert main(["train", *words, "--devices", str(devices), "--out", str(tmp_path / str(devices))]) == 0
    assert set(meshes) == {None, 8}
    assert_close(tmp_path / "8", tmp_path / "1")


@pytest.mark.parametrize("devices", [8, 4, 1])
def test_a_run_goes_on_on_other_devices(devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, whole, out = training.append_metrics, tmp_path / "whole", tmp_path / "run"
    assert main(["train", *IMAGES, "--devices", "8", "--out", str(whole)]) == 0

    def sending(folder: Path, record: Any) -> None:
        append(folder, record)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(training, "append_metrics", sending)
        assert main(["train", *IMAGES, "--devices", "8", "--out", str(out)]) == 143
    assert main(["train", "--resume", str(out), "--devices", str(devices)]) == 0
    if devices == 8:
        assert losses(out) == losses(whole)
    assert_close(out, whole)
