"""The command line end to end, in temporary folders, on the embedded digits."""

from __future__ import annotations

import csv
import dataclasses
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest

import jaxnn
from jaxnn import data, metrics, optim
from jaxnn.cli import runs
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.main import main
from jaxnn.cli.recipes import RECIPES
from jaxnn.train import evaluate, fit
from tests.helpers import assert_close, slow

QUICK = ["train", "--epochs", "3", "--hidden", "16", "--batch-size", "16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main([*QUICK, "--seeds", "2", "--augment", "affine", "--dropout", "0.1", "--out", str(folder)]) == 0
    return folder


def test_a_run_writes_its_folder(run: Path) -> None:
    names = {"config.json", "metrics.jsonl", "params.npz", "result.json", "curves.png", "confusion.png", "mistakes.png"}
    assert {p.name for p in run.iterdir()} == names
    whole = json.loads((run / "config.json").read_text())
    assert whole["options"]["hidden"] == [16]
    assert whole["example"] == [8, 8, 1]
    assert len(whole["classes"]) == 10
    assert whole["versions"]["jaxnn"] == jaxnn.__version__
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["seed"], r["epoch"]) for r in records] == [(s, e) for s in (0, 1) for e in (1, 2, 3)]
    assert all(np.isfinite(r["loss"]) for r in records)
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert matplotlib.image.imread(run / name).std() > 0.01


FOLDER_OF_0_1 = {
    "options": {
        "data": "digits", "model": "cnn", "hidden": [4], "channels": [2], "convolutions": 1, "window": 3,
        "padding": "VALID", "batch_norm": True, "dropout": 0.5, "input_dropout": 0.0, "optimizer": "adamw",
        "optimizer_options": ["b1=0.8"], "learning_rate": None, "momentum": 0.9, "schedule": "cosine",
        "weight_decay": 0.0, "label_smoothing": 0.0, "batch_size": 64, "epochs": 1, "augment": "none", "patience": None,
        "final": False, "seeds": 1, "seed": 0, "folder": None, "out": "runs/digits-cnn",
    },
    "example": [8, 8, 1],
    "classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    "versions": {"jax": "0.10.2", "numpy": "2.4.6", "device": "cpu"},
}  # fmt: skip
ARRAYS_OF_0_1 = {
    "params/1/w": (3, 3, 1, 2), "params/3/scale": (2,), "params/3/shift": (2,), "params/7/b": (4,),
    "params/7/w": (18, 4), "params/10/b": (10,), "params/10/w": (4, 10), "state/3/mean": (2,), "state/3/var": (2,),
}  # fmt: skip
"""What `jaxnn train --model cnn --channels 2 --hidden 4 --batch-norm ...` of 0.1 wrote: config.json and params.npz."""


def test_a_run_folder_of_0_1_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in ARRAYS_OF_0_1.items()}
    (tmp_path / "config.json").write_text(json.dumps(FOLDER_OF_0_1))
    np.savez(tmp_path / "params.npz", **arrays)
    read = runs.read_run(tmp_path)
    assert (read.config.optimizer, read.config.optimizer_options, read.config.hidden) == ("adamw", ("b1=0.8",), (4,))
    assert_close(read.params[1]["w"], arrays["params/1/w"], rtol=0)
    assert_close(read.state[3]["var"], arrays["state/3/var"], rtol=0)
    logits = jax.jit(read.net.predict)(read.params, read.state, np.ones((2, 8, 8, 1), np.float32))
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()


def test_predictions_of_a_run_are_those_of_its_network(run: Path, tmp_path: Path, capsys: Any) -> None:
    test = data.load("digits").test
    np.save(tmp_path / "images.npy", test.x)
    assert main(["predict", str(run), str(tmp_path / "images.npy"), "--out", str(tmp_path / "out.csv")]) == 0
    shown = capsys.readouterr().out
    assert "confidence" in shown
    assert "250 more" in shown
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    read = runs.read_run(run)
    logits = jax.jit(read.net.predict)(read.params, read.state, test.x)
    assert [r["guess"] for r in rows] == [read.classes[k] for k in np.asarray(logits).argmax(axis=1)]
    right = np.mean([int(r["guess"]) == y for r, y in zip(rows, test.y, strict=True)])
    assert right > 0.5


@pytest.mark.slow
def test_predict_reads_every_format_alike(run: Path, tmp_path: Path, capsys: Any) -> None:
    levels = np.rint(data.load("digits").test.x[:3] * 16).astype(np.uint8)
    data.write_idx(tmp_path / "a.idx", levels[..., 0])
    np.save(tmp_path / "b.npy", levels[..., 0] / np.float32(16))
    np.savez(tmp_path / "c.npz", x=levels)
    matplotlib.image.imsave(tmp_path / "d.png", 1 - levels[0, ..., 0] / 16, cmap="gray", vmin=0, vmax=1)
    outputs = []
    for words in (["a.idx", "--levels", "16"], ["b.npy"], ["c.npz", "--levels", "16"], ["d.png", "--invert"]):
        assert main(["predict", str(run), str(tmp_path / words[0]), *words[1:]]) == 0
        outputs.append([line.split()[1:-1] for line in capsys.readouterr().out.splitlines() if "%" in line])
    assert [row[:4] for row in outputs[0]] == [row[:4] for row in outputs[1]] == [row[:4] for row in outputs[2]]
    assert outputs[3][0][:4] == outputs[0][0][:4]


@pytest.mark.slow
def test_the_same_command_gives_the_same_parameters(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main([*QUICK, "--out", str(tmp_path / name)]) == 0
    a, b = (np.load(tmp_path / name / "params.npz") for name in ("a", "b"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert set(a) == set(b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--model", "linear", "--optimizer", "sgd", "--schedule", "constant", "--learning-rate", "0.1"],
        ["--model", "cnn", "--channels", "4", "--batch-norm", "--label-smoothing", "0.1", "--schedule", "onecycle"],
        ["--final"],
        ["--patience", "1", "--weight-decay", "1e-4", "--input-dropout", "0.1"],
    ],
    ids=["linear", "cnn", "final", "patience"],
)
def test_every_model_trains(words: list[str], tmp_path: Path, capsys: Any) -> None:
    start = [QUICK[0], "--epochs", "1"] if "linear" in words else QUICK
    assert main([*start, *words, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "test error" in out
    assert str(tmp_path / "run") in out.replace("\n", "")
    runs.read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model linear --window 5 --momentum 0.5", "--window (of cnn only), --momentum (of sgd only)"),
        ("--optimizer adam --momentum 0.9", "--momentum (of sgd only)"),  # the default, but given
        ("--model linear --hidden 4", "--hidden (of mlp, cnn only)"),
        ("--model mlp --channels 3 --no-batch-norm", "--channels (of cnn only), --batch-norm (of cnn only)"),
        ("--recipe mnist-linear --hidden 4", "--hidden (of mlp, cnn only)"),
        ("--hidden= --dropout .1", "--dropout (there are no hidden units)"),
        ("--model cnn --channels= --window 5", "--window (--channels is empty: there are no convolutions)"),
        (
            "--optimizer sgd --momentum .9 --optimizer-options momentum=.5",
            "--momentum (--optimizer-options sets it too)",
        ),
        ("--folder nowhere", "--folder (the digits are included in the package)"),
        ("--optimizer rprop --schedule cosine", "--schedule (rprop follows none)"),
        ("--optimizer polyak_sgd --learning-rate 1", "--learning-rate (polyak_sgd takes none)"),
    ],
)
def test_an_option_without_effect_is_refused(words: str, text: str, capsys: Any) -> None:
    assert main(["train", *words.split()]) == 2
    said = f"jaxnn: train: without effect here: {text}; omit it\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["playground", "--regularization", "l1"], "--regularization l1 (its --regularization-rate is 0)"),
        (["playground", "--hidden", "", "--activation", "relu"], "--activation (there are no hidden units)"),
        (["study", "norms", "--folder", "x"], "--folder (the digits are included in the package)"),
        (["predict", "run", "x.npy", "--force"], "--force (there is no --out to overwrite)"),
    ],
)
def test_an_option_of_another_command_without_effect_is_refused(words: list[str], text: str, capsys: Any) -> None:
    assert main(words) == 2
    assert f"without effect here: {text}; omit it" in capsys.readouterr().err


def test_a_recipe_may_be_overridden_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recipe says of another model is none of the options given."""
    seen: list[TrainConfig] = []
    monkeypatch.setattr("jaxnn.cli.main.train", seen.append)
    assert main(["train", "--recipe", "mnist-cnn", "--model", "linear", "--optimizer", "rprop"]) == 0
    assert main(["train", "--optimizer", "rprop", "--schedule", "constant"]) == 0
    assert [each.model for each in seen] == ["linear", "mlp"]


@pytest.mark.slow
def test_default_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(QUICK) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-mlp", "digits-mlp-2"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_survive_the_run_folder(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    runs.write_config(tmp_path, recipe, (28, 28, 1), tuple("0123456789"))
    options = json.loads((tmp_path / "config.json").read_text())["options"]
    restored = type(recipe)(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    assert restored == recipe


def test_a_recipe_sets_defaults_that_other_options_override(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("jaxnn.cli.main.train", seen.append)
    assert main(["train", "--epochs", "1", "--recipe", "mnist-mlp", "--batch-size=7"]) == 0
    assert seen == [dataclasses.replace(RECIPES["mnist-mlp"], epochs=1, batch_size=7)]
    assert main(["train", "--recipe=fashion-cnn"]) == 0
    assert seen[1] == RECIPES["fashion-cnn"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trian"], "no command 'trian' (did you mean 'train'?); there are: train, predict"),
        (["train", "--recipe", "mnist-mpl"], "no recipe 'mnist-mpl' (did you mean 'mnist-mlp'?)"),
        (["train", "--recipe"], "--recipe needs a name; there are: mnist-linear"),
        (["train", "--learning-rte", "1"], "--learning-rte"),
        (["train", "--data", "cifar"], "digits"),
        (["train", "--epochs", "many"], "many"),
        (["train", "--epochs", "0"], "train: epochs must be at least 1, got 0"),
        (["train", "--dropout", "1"], "dropout must lie in [0, 1), got 1"),
        (["train", "--learning-rate", "-1"], "learning_rate must lie in [0, inf), got -1"),
        (["train", "--batch-size", "100000"], "batch_size 100000 exceeds the 1257 training examples"),
        (["train", "--final", "--patience", "3"], "--patience needs a validation split"),
        *slow((["train", "--learning-rate", "1e30", "--optimizer", "sgd"], "the training loss became")),
        (["predict", "nowhere", "x.npy"], "not a finished run: it has no config.json"),
        (["predict", "nowhere"], "IMAGES"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_arguments_print_one_line_and_exit_2(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jaxnn: ")
    assert text in error


def test_an_out_folder_that_is_taken_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "precious").write_text("mine")
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "is not an empty folder; name a new one" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 28, 28)), "expected images of shape (8, 8, 1), one or many (N, ...), got (2, 28, 28)"),
        (np.full((8, 8), 7.0), "expected values in [0, 1], got 7 to 7"),
        (
            np.where(np.arange(192).reshape(3, 8, 8) < 65, 0, [np.nan] + [np.inf] * 7),
            "got 127 of 192 that are not finite, the first inf at index (1, 0, 1)",
        ),
        (np.zeros((0, 8, 8)), "holds no image"),
        (np.array([["a"]]), "must be numbers or bools"),
    ],
)
def test_images_that_do_not_fit_are_named(
    run: Path, images: np.ndarray, text: str, tmp_path: Path, capsys: Any
) -> None:
    np.save(tmp_path / "images.npy", images)
    assert main(["predict", str(run), str(tmp_path / "images.npy")]) == 2
    assert text in capsys.readouterr().err


def test_levels_are_of_integers(run: Path, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8)))
    matplotlib.image.imsave(tmp_path / "b.png", np.zeros((8, 8)), cmap="gray")
    for name, text in {"a.npy": "this is float64", "b.png": "this is a PNG, which has its own"}.items():
        assert main(["predict", str(run), str(tmp_path / name), "--levels", "255"]) == 2
        assert f"{text}" in capsys.readouterr().err


def test_jax_s_note_on_its_traceback_is_left_out(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "--model", "cnn", "--channels", "4", "4", "4", "4", "4", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "in part 5 of serial (max_pool)" in said
    assert "JAX has removed" not in said
    assert "----" not in said


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["schedule_free_adamw", "schedule_free_sgd"])
def test_a_schedule_free_rule_keeps_the_parameters_that_it_is_evaluated_at(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found: list[Any] = []
    monkeypatch.setattr("jaxnn.cli.train.fit", lambda *args, **how: found.append(fit(*args, **how)) or found[-1])
    assert main([*QUICK, "--optimizer", rule, "--optimizer-options", "b1=.5", "--out", str(tmp_path / "run")]) == 0
    stored = runs.read_run(tmp_path / "run")
    mean = optim.schedule_free_eval_params(found[0].opt_state, found[0].params)
    assert_close(stored.params, mean, rtol=1e-6)
    assert not np.allclose(stored.params[1]["w"], found[0].params[1]["w"])
    held_out = data.load("digits").validation
    error = evaluate(stored.net, mean, stored.state, held_out.x, held_out.y, {"error": metrics.error_rate})["error"]
    assert found[0].history[-1]["validation_error"] == pytest.approx(error, abs=1e-6)
    assert json.loads((tmp_path / "run" / "result.json").read_text())[0]["validation_error"] == pytest.approx(error)


def test_damaged_runs_are_named(run: Path, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "images.npy", np.zeros((8, 8)))
    for name in ("config.json", "params.npz"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    arrays = dict(np.load(run / "params.npz"))
    lost = {k: v for k, v in arrays.items() if k != "params/1/w"} | {
        "params/1/v": np.zeros(3),
        "params/1/b": np.zeros(3),
    }
    np.savez(tmp_path / "params.npz", **lost)
    assert main(["predict", str(tmp_path), str(tmp_path / "images.npy")]) == 2
    error = capsys.readouterr().err
    for text in (
        "params/1/w is missing",
        "params/1/v is not of this network",
        "params/1/b has shape (3,), expected (16,)",
    ):
        assert text in error
    (tmp_path / "config.json").write_text("{}")
    assert main(["predict", str(tmp_path), str(tmp_path / "images.npy")]) == 2
    assert "is not the configuration of a run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_fails_at_once_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", "cnn", "--channels", "8", "8", "8", "8"]) == 2
    assert "does not fit" in capsys.readouterr().err
    assert main(["train", "--optimizer", "sgd", "--learning-rate", "1e30"]) == 2
    assert not list((tmp_path / "runs").iterdir())


def test_transparent_paper_is_white_and_a_broken_png_is_named(run: Path, tmp_path: Path, capsys: Any) -> None:
    ink = data.load("digits").test.x[0, ..., 0]
    black = np.zeros((8, 8, 4))
    black[..., 3] = ink
    matplotlib.image.imsave(tmp_path / "clear.png", black)
    matplotlib.image.imsave(tmp_path / "white.png", 1 - ink, cmap="gray", vmin=0, vmax=1)
    shown = []
    for name in ("clear.png", "white.png"):
        assert main(["predict", str(run), str(tmp_path / name), "--invert"]) == 0
        shown.append([line.split()[3] for line in capsys.readouterr().out.splitlines() if "%" in line])
    assert shown[0] == shown[1]
    (tmp_path / "fake.png").write_text("hi")
    assert main(["predict", str(run), str(tmp_path / "fake.png")]) == 2
    assert "is not a readable PNG" in capsys.readouterr().err


def test_help_version_and_module(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 0
    assert "usage: jaxnn COMMAND" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxnn {jaxnn.__version__}\n"
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--learning-rate" in shown
    assert "--recipe" in shown
    monkeypatch.setattr(sys, "argv", ["jaxnn", "nonsense"])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which the entry point replaces
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("jaxnn", run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
