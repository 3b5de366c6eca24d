"""Records of a fit in TensorBoard's files, read back, and in W&B and trackio, of which the calls alone are tested."""

from __future__ import annotations

import math
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn import losses, models, optim, train
from tests.train.problems import KEY, K, classification

OPT = optim.sgd(0.1)
NAMES = {"loss", "grad_norm", "validation_loss", "seconds", "examples_per_second"}


def fitted(log: Any, epochs: int = 3, **settings: Any) -> train.FitResult:
    return train.fit(
        models.linear(K), losses.softmax_cross_entropy, OPT, classification(), key=KEY, epochs=epochs,
        batch_size=10, validation=classification(1), on_epoch=log, progress=False, **settings,
    )  # fmt: skip


def events(folder: Path) -> Iterator[Any]:
    """The events of all files of a folder, in the order in which TensorBoard reads them."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:  # length, its CRC, data, their CRC
            (length,) = struct.unpack("<Q", content[:8])
            yield proto.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def shown(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of what TensorBoard shows: a start of a session hides what was written from its step on."""
    found: list[tuple[str, int, float]] = []
    for event in events(folder):
        if event.HasField("session_log"):
            found = [each for each in found if each[1] < event.step]
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard_shows_the_history(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with train.logging.tensorboard(tmp_path) as log:
        result = fitted(log)
    expected = [
        (name, record["epoch"], np.float32(value)) for record in result.history for name, value in record.items()
        if name != "epoch"
    ]  # fmt: skip
    assert shown(tmp_path) == expected
    assert {name for name, _, _ in expected} >= NAMES


def test_a_fit_that_goes_on_shows_no_epoch_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with train.logging.tensorboard(tmp_path / "log") as log:
        fitted(log, 2, folder=tmp_path / "fit")
        log({"epoch": 3, "loss": math.pi}, None)  # of an epoch after the last checkpoint
    with train.logging.tensorboard(tmp_path / "log") as log:
        result = fitted(log, 4, folder=tmp_path / "fit")
    found = [(step, value) for name, step, value in shown(tmp_path / "log") if name == "loss"]
    assert found == [(record["epoch"], np.float32(record["loss"])) for record in result.history]
    assert len(found) == 4
    files = set((tmp_path / "log").iterdir())
    with train.logging.tensorboard(tmp_path / "log") as log:  # of a fit that had ended
        fitted(log, 4, folder=tmp_path / "fit")
    assert set((tmp_path / "log").iterdir()) == files


class Service:
    """A module with the functions of W&B and of trackio that are called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def init(self, **settings: Any) -> Any:
        self.calls.append(("init", settings))
        log = lambda scalars, step: self.calls.append((step, scalars))  # noqa: E731
        return types.SimpleNamespace(log=log, finish=lambda: self.calls.append("finish"))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_each_epoch_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, name, service)  # type: ignore[arg-type]
    with getattr(train.logging, name)(project="digits", name="a") as log:
        result = fitted(log)
    first, *epochs, last = service.calls
    assert first == ("init", {"resume": "allow", "project": "digits", "name": "a"})
    assert epochs == [(r["epoch"], {k: v for k, v in r.items() if k != "epoch"}) for r in result.history]
    assert all(type(value) is float for _, scalars in epochs for value in scalars.values())
    assert last == "finish"


@pytest.mark.parametrize(("name", "package"), train.logging.PACKAGES.items())
def test_a_package_that_is_not_there_is_told_with_its_extra(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{name}: needs the package {package}. .*pip install 'jaxnn\[{name}\]'"):
        getattr(train.logging, name)(*([tmp_path] if name == "tensorboard" else []))
