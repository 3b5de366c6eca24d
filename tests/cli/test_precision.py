"""`jaxnn train --precision`: what is trained in half precision, kept in float32, resumed and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import data, models, optim, train
from jaxnn.cli import config as build
from jaxnn.cli import rules, runs
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.main import main
from jaxnn.cli.text import predict as text_predict
from jaxnn.cli.text.config import TextConfig
from jaxnn.train.precision import InPrecision
from jaxnn.train.saving.saver import Saver
from tests.cli.test_resume import Killed, assert_same, killed_after, lines, trained
from tests.helpers import slow

IMAGES = ["train", "--epochs", "3", "--hidden", "32", "--batch-size", "25", "--save-every", "40"]
TEXT = ["train", "--data", "text", "--width", "8", "--depth", "1", "--heads", "2", "--length", "16", "--steps", "3",
        "--epochs", "2", "--sample", "0", "--save-every", "2", "--text"]  # fmt: skip
HALVES = slow("bfloat16", "float16")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float32."""
    return trained(IMAGES, tmp_path_factory.mktemp("single") / "run")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_text(data.text.embedded()[:2000])
    return path


def options(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["options"]
    return found


def parameters(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "params.npz") as file:
        return dict(file)


def test_the_value_and_gradient_is_in_the_precision_asked_for() -> None:
    net = models.linear(10)
    for name in ("bfloat16", "float16"):
        vg: Any = build.build_value_and_grad(TrainConfig(precision=name), net)  # type: ignore[arg-type]
        assert isinstance(vg, InPrecision)
        assert vg.compute == jnp.dtype(name)
    assert not isinstance(build.build_value_and_grad(TrainConfig(), net), InPrecision)


@pytest.mark.parametrize("precision", HALVES)
def test_images_train_in_half_precision_with_float32_parameters(
    precision: str, single: Path, tmp_path: Path, capsys: Any
) -> None:
    run = trained([*IMAGES, "--precision", precision], tmp_path / "run")
    assert options(run)["precision"] == precision
    got, expected = parameters(run), parameters(single)
    assert all(array.dtype == np.float32 for array in got.values())
    assert any((got[name] != expected[name]).any() for name in expected), "nothing was computed in half precision"
    results = [json.loads((folder / "result.json").read_text())[0]["test_error"] for folder in (run, single)]
    assert abs(results[0] - results[1]) < 0.02
    scales = [record.get("loss_scale") for record in lines(run)]
    assert scales == ([None] * 3 if precision == "bfloat16" else [2.0**15] * 3)
    np.save(tmp_path / "images.npy", data.load("digits").test.x[:3])
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "images.npy")]) == 0
    assert capsys.readouterr().out.count("%") == 3


@pytest.mark.parametrize("precision", HALVES)
def test_a_resumed_run_keeps_its_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words, out = [*IMAGES, "--precision", precision, "--weight-decay", "1e-4"], tmp_path / "run"
    whole = trained(words, tmp_path / "whole")
    with monkeypatch.context() as context:
        killed_after(2, Saver, "save", context)
        with pytest.raises(Killed):
            main([*words, "--out", str(out)])
    capsys.readouterr()
    assert main(["train", "--resume", str(out), "--precision", "float32"]) == 2
    assert "omit --precision" in capsys.readouterr().err
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, whole)


@pytest.mark.parametrize("precision", HALVES)
def test_text_trains_and_resumes_in_half_precision(
    precision: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, words = tmp_path / "run", [*TEXT, str(text), "--precision", precision]
    single, whole = trained([*TEXT, str(text)], tmp_path / "single"), trained(words, tmp_path / "whole")
    with monkeypatch.context() as context:
        killed_after(2, Saver, "save", context)
        with pytest.raises(Killed):
            main([*words, "--out", str(out)])
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, whole)
    assert options(out)["precision"] == precision
    got, expected = parameters(out), parameters(single)
    assert all(array.dtype == np.float32 for array in got.values())
    assert any((got[name] != expected[name]).any() for name in expected)
    losses = [lines(folder)[-1]["validation_loss"] for folder in (out, single)]
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert ("loss_scale" in lines(out)[-1]) == (precision == "float16")
    capsys.readouterr()
    assert main(["predict", str(out), "--prompt", "the ", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("the ")


def test_a_run_of_before_is_in_float32(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("images", "text")]
    for folder in folders:
        folder.mkdir()
    runs.write_config(folders[0], TrainConfig(precision="bfloat16"), (8, 8, 1), ("a", "b"))
    runs.write_options(folders[1], TextConfig(precision="bfloat16"), symbols=data.text.BYTES.as_json(), corpus="x")
    for folder in folders:
        told = json.loads((folder / "config.json").read_text())
        del told["options"]["precision"]
        (folder / "config.json").write_text(json.dumps(told))
    assert runs.read_config(folders[0] / "config.json")[0].precision == "float32"
    assert text_predict.read_text_config(folders[1])[0].precision == "float32"


def test_an_unknown_precision_is_told(capsys: Any) -> None:
    for more in ([], ["--data", "text"]):
        assert main(["train", *more, "--precision", "float8"]) == 2
        assert "float8" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_every_rule_makes_a_step_in_half_precision(precision: Any) -> None:
    net = models.linear(3)
    x, y = np.ones((8, 4), np.float32), np.zeros(8, np.int32)
    for name in rules.rules():
        config = TrainConfig(optimizer=name, precision=precision)
        opt, vg = build.build_optimizer(config, 5), build.build_value_and_grad(config, net)
        ts = jax.eval_shape(lambda key, opt=opt: train.init(net, opt, key, (4,)), jax.random.key(0))
        after, report = jax.eval_shape(train.make_step(vg, opt), ts, x, y)
        assert after == ts, name
        assert ("loss_scale" in report) == (precision == "float16")


@pytest.mark.slow
def test_a_schedule_free_run_in_float16_is_evaluated_at_its_mean(tmp_path: Path) -> None:
    words = [*IMAGES, "--optimizer", "schedule_free_adamw", "--precision"]
    found = [lines(trained([*words, name], tmp_path / name))[-1] for name in ("float32", "float16")]
    assert abs(found[0]["validation_error"] - found[1]["validation_error"]) < 0.03


def test_the_loss_scale_is_around_the_whole_optimizer() -> None:
    opt = build.build_optimizer(TrainConfig(optimizer="sgd", schedule="constant", precision="float16"), 5)
    assert optim.describe(opt).startswith("dynamic_loss_scale(inner=sgd(")
