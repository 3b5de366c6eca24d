"""Trainings that are stopped and go on: the same folder in the end, the exit codes, and what is said."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn import data, files
from jaxnn.cli import train as training
from jaxnn.cli.main import main
from jaxnn.train import checkpoints
from jaxnn.train.feeds.arrays import ArrayFeed
from jaxnn.train.saving.lock import FolderLock
from jaxnn.train.saving.saver import Saver
from tests.train.test_logging import Service, shown

IMAGES = [
    "train", "--epochs", "4", "--hidden", "8", "--dropout", "0.1", "--batch-size", "300", "--seeds", "2", "--patience",
    "3", "--save-every", "3",
]  # fmt: skip
"""Epochs of 4 steps: checkpoints lie within epochs."""

TEXT = [
    "train", "--data", "text", "--width", "8", "--depth", "1", "--heads", "2", "--length", "16", "--steps", "3",
    "--epochs", "3", "--sample", "20", "--seeds", "2", "--save-every", "2", "--text",
]  # fmt: skip

TIMES = ("seconds", "examples_per_second", "training_seconds")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_text(data.text.embedded()[:2000])
    return path


@pytest.fixture(scope="module")
def images_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(IMAGES, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    return trained([*TEXT, str(text)], tmp_path_factory.mktemp("whole") / "run")


def trained(words: list[str], out: Path) -> Path:
    assert main([*words, "--out", str(out)]) == 0
    return out


class Killed(Exception):
    """Ends a command between two of its operations."""


def killed_after(count: int, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call after so many raises, as if the process ended there."""
    call, done = getattr(owner, name), []

    def counted(*arguments: Any, **settings: Any) -> Any:
        if len(done) == count:
            raise Killed
        done.append(1)
        return call(*arguments, **settings)

    monkeypatch.setattr(owner, name, counted)


def strip(rows: Any) -> Any:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(found: Path, expected: Path) -> None:
    """The same files; the same content, but for times."""
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.iterdir():
        if path.suffix in (".png", ".txt"):
            assert (found / path.name).read_bytes() == path.read_bytes(), path.name
    assert strip(lines(found)) == strip(lines(expected))
    assert strip(files.read_json(found / "result.json")) == strip(files.read_json(expected / "result.json"))
    with np.load(found / "params.npz") as ours, np.load(expected / "params.npz") as theirs:
        assert ours.files == theirs.files
        for name in theirs.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "owner", "name"),
    [
        (2, Saver, "save"),  # within the second epoch
        (7, Saver, "save"),  # seed 1
        (1, training, "append_metrics"),
        (6, training, "append_metrics"),
        (0, training, "write_params"),
        (0, training, "write_results"),
        (1, training, "write_results"),
        (0, training, "remove_checkpoints"),
        (1, training, "remove_checkpoints"),
        (0, training, "_draw"),
    ],
)
def test_a_killed_training_of_images_goes_on_to_the_same_folder(
    count: int, owner: Any, name: str, images_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        killed_after(count, owner, name, context)
        with pytest.raises(Killed):
            main([*IMAGES, "--out", str(out)])
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, images_run)


@pytest.mark.slow
@pytest.mark.parametrize("saves", [1, 3, 6, 8])
def test_a_killed_training_on_text_goes_on_to_the_same_folder(
    saves: int, text: Path, text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        killed_after(saves, Saver, "save", context)
        with pytest.raises(Killed):
            main([*TEXT, str(text), "--out", str(out)])
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, text_run)


@pytest.mark.slow
def test_seeds_that_had_ended_are_not_trained_again(
    images_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        killed_after(1, training, "_fit", context)
        with pytest.raises(Killed):
            main([*IMAGES, "--out", str(out)])
    assert "seed 0: train error " in capsys.readouterr().out
    before = files.read_json(out / "result.json")
    assert strip(before) == strip(files.read_json(images_run / "result.json"))[:1]
    fits = []
    fit = training._fit
    monkeypatch.setattr(training, "_fit", lambda *given: fits.append(given[5]) or fit(*given))
    assert main(["train", "--resume", str(out)]) == 0
    assert fits == [1]
    assert files.read_json(out / "result.json")[0] == before[0], "its times, too"
    assert_same(out, images_run)
    capsys.readouterr()
    assert main(["train", "--resume", str(out)]) == 0
    assert f"{out} has ended: nothing is left to train" in capsys.readouterr().out
    assert fits == [1]
    assert_same(out, images_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_signal_saves_ends_and_says_how_to_go_on(
    number: signal.Signals, word: str, code: int, images_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:  # fmt: skip
    append = training.append_metrics

    def sending(folder: Path, record: Any) -> None:
        append(folder, record)
        if (record["seed"], record["epoch"]) == (1, 2):
            os.kill(os.getpid(), number)

    out = tmp_path / "my run"
    before = signal.getsignal(number)
    with monkeypatch.context() as context:
        context.setattr(training, "append_metrics", sending)
        assert main([*IMAGES, "--out", str(out)]) == code
    assert signal.getsignal(number) is before
    command = f"jaxnn train --resume '{out}'"
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"jaxnn: {word}; {out} is saved, with 2 of 4 epochs of seed 1 done; go on with: {command}"
    assert main(["train", "--resume", str(out)]) == 0
    assert f"{out / 'checkpoints' / 'seed-1'}: goes on after 2 epochs" in capsys.readouterr().err
    assert_same(out, images_run)


@pytest.mark.slow
def test_a_signal_ends_a_training_on_text(
    text: Path, text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from jaxnn.cli.text import train as of_text

    append, out = of_text.append_metrics, tmp_path / "run"

    def sending(folder: Path, record: Any) -> None:
        append(folder, record)
        if (record["seed"], record["epoch"]) == (0, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(of_text, "append_metrics", sending)
        assert main([*TEXT, str(text), "--out", str(out)]) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"{out} is saved, with 1 of 3 epochs of seed 0 done; go on with: jaxnn train --resume {out}")
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, text_run)


def test_what_ends_at_once_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    append, out = training.append_metrics, tmp_path / "run"

    def twice(folder: Path, record: Any) -> None:  # Ctrl-C twice
        append(folder, record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "append_metrics", twice)
    assert main([*IMAGES, "--out", str(out)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"jaxnn: interrupted; {out} keeps checkpoints, config.json, metrics.jsonl (2 lines); "
        f"go on with: jaxnn train --resume {out}"
    )


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_with_the_one_before(
    images_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        killed_after(3, Saver, "save", context)
        with pytest.raises(Killed):
            main([*IMAGES, "--out", str(out)])
    before, newest = checkpoints.Checkpoints(out / "checkpoints" / "seed-0").steps()
    folder = out / "checkpoints" / "seed-0"
    content = (folder / f"step-{newest:010d}.npz").read_bytes()
    (folder / f"step-{newest:010d}.npz").write_bytes(content[:-200])
    assert main(["train", "--resume", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"to go on from step {before}, delete or rename the other file" in said
    assert said.endswith(f"go on with: jaxnn train --resume {out}")
    (folder / f"step-{newest:010d}.npz").unlink()
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(out, images_run)


def test_a_folder_that_is_no_run_or_in_use_is_told(images_run: Path, tmp_path: Path, capsys: Any) -> None:
    def said(*words: str) -> str:
        assert main(["train", *words]) == 2
        told = capsys.readouterr().err.strip()
        assert "\n" not in told
        return told

    assert "is not a run: it has no config.json" in said("--resume", str(tmp_path))
    assert "--resume needs the folder of a run" in said("--resume")
    assert "given twice" in said("--resume", "a", "--resume=b")
    assert "omit --recipe" in said("--resume", "a", "--recipe", "mnist-mlp")
    told = said("--resume", str(images_run), "--epochs", "9", "--batch-size", "100")
    assert "goes on with the options of that run, but for --devices, --save-every" in told
    assert told.endswith("omit --batch-size, --epochs")
    for name in ("config.json", "params.npz"):
        (tmp_path / name).write_bytes((images_run / name).read_bytes())
    assert "has parameters, but neither result.json nor checkpoints" in said("--resume", str(tmp_path))
    (tmp_path / "result.json").write_text("[{}]")
    assert "are not those of a run" in said("--resume", str(tmp_path))
    (tmp_path / "result.json").write_bytes((images_run / "result.json").read_bytes())
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert "has a line that is no record: {}" in said("--resume", str(tmp_path))
    lock = FolderLock(images_run)
    lock.acquire()
    try:
        assert "is in use by process" in said("--resume", str(images_run))
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--save-every 0", "--save-every takes steps, such as 500, or a time, such as 60s, 10m or 1h, got '0'"),
        ("--save-every 1.5", "got '1.5'"),
        ("--save-every 0s", "got '0s'"),
        ("--devices 0", "devices must be at least 1"),
        ("--devices 3", "--batch-size 64 must be a multiple of --devices 3: use 63 or 66"),
        ("--devices 64", "--devices 64 exceeds the 1 device here"),
        ("--data text --devices 5", "--batch-size 12 must be a multiple of --devices 5: use 10 or 15"),
        ("--log tensor", "--log"),
    ],
)
def test_wrong_options_are_one_line(words: str, text: str, capsys: Any) -> None:
    assert main(["train", *words.split()]) == 2
    said = capsys.readouterr().err.strip()
    assert text in said
    assert "\n" not in said


def test_a_log_without_its_package_is_told_before_training(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["train", "--log", "wandb"]) == 2
    told = "jaxnn: train: --log wandb: needs the package wandb. Install it: pip install 'jaxnn[wandb]'\n"
    assert capsys.readouterr().err == told


LONG = ["train", "--epochs", "1000000", "--hidden", "8", "--batch-size", "300", "--save-every", "3"]


@pytest.mark.slow
def test_a_log_has_each_epoch_of_each_seed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        killed_after(6, Saver, "save", context)
        with pytest.raises(Killed):
            main([*IMAGES, "--log", "tensorboard", "--out", str(out)])
    assert main(["train", "--resume", str(out)]) == 0
    for seed in (0, 1):
        found = [(step, value) for name, step, value in shown(out / "tensorboard" / f"seed-{seed}") if name == "loss"]
        assert found == [(r["epoch"], np.float32(r["loss"])) for r in lines(out) if r["seed"] == seed]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_a_run_for_each_seed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, out = Service(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, name, service)
    assert main([*IMAGES, "--log", name, "--out", str(out)]) == 0
    begun = [call[1] for call in service.calls if call[0] == "init"]
    identity = files.read_json(out / "config.json")["id"]
    assert [each["name"] for each in begun] == [f"run-{identity}-seed-0", f"run-{identity}-seed-1"]
    assert begun[0]["config"]["hidden"] == [8]
    if name == "wandb":
        assert [each["id"] for each in begun] == [each["name"] for each in begun]
        assert begun[0]["dir"] == str(out)
    assert [call[0] for call in service.calls if isinstance(call[0], int)] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_watch_shows_what_there_is_and_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = {"options": {"seed": 3, "seeds": 2, "epochs": 2}}
    files.write_json(tmp_path / "config.json", config)
    records = [{"seed": s, "epoch": e, "loss": s + e / 10, "examples_per_second": 1.0} for s in (3, 4) for e in (1, 2)]
    append = lambda record: files.append_line(tmp_path / "metrics.jsonl", json.dumps(record))  # noqa: E731
    append(records[0])
    lock = FolderLock(tmp_path)
    lock.acquire()
    coming = records[1:]

    def pause(seconds: float) -> None:
        append(coming.pop(0))
        if not coming:
            lock.release()

    monkeypatch.setattr(time, "sleep", pause)
    assert main(["watch", str(tmp_path)]) == 0
    said = [line.split("  ")[:2] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert said == [[f"epoch {r['epoch']}/2", f"loss {r['loss']:.4g}"] for r in records]
    # Of a run that was killed, nothing more comes.
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text(json.dumps(records[0]) + "\n")
    (tmp_path / "lock.json").write_text(
        json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "since": "", "started": "1"})
    )
    assert main(["watch", str(tmp_path)]) == 0
    told = f"seed 3 stopped after 1 of 2 epochs; go on with: jaxnn train --resume {tmp_path}"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert "is not a run: it has no config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b'{"seed": 0}',
        b'{"seed": 0, "epoch": 1, "loss": null, "examples_per_second": 1.0}',
        b'{"seed": "0", "epoch": 1, "examples_per_second": 1.0}',
        b'{"seed": 0, "epoch": 1}',
        b'{"seed": 0, "epoch": [1], "examples_per_second": 1.0}',
        b"\xff\xfe{}",
        b"[1]",
        b"3",
        b"",
    ],
)
def test_watch_names_a_line_that_is_no_record(line: bytes, tmp_path: Path, capsys: Any) -> None:
    files.write_json(tmp_path / "config.json", {"options": {"seed": 0, "seeds": 1, "epochs": 2}})
    whole = b'{"seed": 0, "epoch": 1, "loss": NaN, "examples_per_second": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + line + b"\n")
    assert main(["watch", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    told = f"{tmp_path / 'metrics.jsonl'} has a line that is no record: {line.decode(errors='replace')}"
    assert f"{told}. Expected an object of numbers with seed, epoch and examples_per_second" in said
    (tmp_path / "metrics.jsonl").write_bytes(whole + line[:-1])  # being written
    assert main(["watch", str(tmp_path)]) == 0


def started(out: Path) -> subprocess.Popen[str]:
    """A long training in a process of its own, after its third epoch."""
    words = [sys.executable, "-m", "jaxnn", *LONG, "--out", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 100
    while not (out / "metrics.jsonl").is_file() or len((out / "metrics.jsonl").read_text().splitlines()) < 3:
        if time.monotonic() > end or process.poll() is not None:
            process.kill()
            pytest.fail(f"no third epoch: {process.communicate()[1]}")
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_a_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started(out)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert said.splitlines()[-1].endswith(f"of seed 0 done; go on with: jaxnn train --resume {out}")
    assert not list(out.rglob("lock.json"))
    done = len(lines(out))
    assert f"with {done:,} of 1,000,000 epochs" in said


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    process = started(out)
    process.kill()
    process.communicate()
    whole, _, _ = (out / "metrics.jsonl").read_text().rpartition("\n")
    before = strip(map(json.loads, whole.splitlines()))
    append = training.append_metrics

    def stopping(folder: Path, record: Any) -> None:
        append(folder, record)
        if record["epoch"] == len(before) + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training, "append_metrics", stopping)
    assert main(["train", "--resume", str(out)]) == 143
    assert (
        f"{out} was locked by process {process.pid} on {socket.gethostname()}, which has ended"
        in capsys.readouterr().err
    )
    found = strip(lines(out))
    assert [record["epoch"] for record in found] == list(range(1, len(before) + 3))
    assert found[: len(before)] == before, "repeated to the bit"


@pytest.mark.slow
def test_a_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ["study", "mislabeled", "--examples", "64", "--hidden", "4", "--epochs", "3"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert main([*words, "--out", str(whole)]) == 0
    save, saved = checkpoints.Checkpoints.save, list[int]()

    def sending(self: Any, step: int, *given: Any) -> None:
        saved.append(step)
        save(self, step, *given)
        if len(saved) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", sending)
    assert main([*words, "--out", str(out)]) == 143
    told = f"{out} keeps checkpoints, config.json; go on with: jaxnn study mislabeled --resume {out}"
    assert capsys.readouterr().err.splitlines()[-1] == f"jaxnn: terminated; {told}"
    assert main(["study", "mislabeled", "--resume", str(out)]) == 0
    assert saved == [1, 2, 3]
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert (out / "result.json").read_bytes() == (whole / "result.json").read_bytes()


TASKS = [
    "study", "tasks", "--tasks", "parity", "--networks", "RNN", "GRU", "--width", "4", "--epochs", "3", "--steps", "2",
]  # fmt: skip


@pytest.mark.slow
def test_a_study_of_many_runs_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert main([*TASKS, "--out", str(whole)]) == 0
    save, saves = Saver.save, []

    def sending(self: Any, saved: Any) -> None:
        saves.append(1)
        save(self, saved)
        if len(saves) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(Saver, "save", sending)
        assert main([*TASKS, "--out", str(out)]) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    told = f"jaxnn: terminated; {out} keeps checkpoints, config.json; go on with: jaxnn study tasks --resume {out}"
    assert said == told
    runs = []
    feed = ArrayFeed.run
    monkeypatch.setattr(ArrayFeed, "run", lambda *given: runs.append(given[3]) or feed(*given))
    assert main(["study", "tasks", "--resume", str(out)]) == 0
    assert runs == [3], "the last epoch of the second run"
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert (out / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    for words, text in (
        (["study", "tasks", "--resume", str(out)], "has ended"),
        (["study", "norms", "--resume", str(out)], "is not of a study norms"),
        (["study", "tasks", "--resume", str(out), "--epochs", "9"], "omit --epochs 9"),
        (["study", "tasks", "--resume", str(tmp_path)], "is not a run: it has no config.json"),
    ):
        assert main(words) == 2
        assert text in capsys.readouterr().err
