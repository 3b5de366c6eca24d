"""What the commands write: nothing over what is there, nothing half, and the truth about what is kept."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest

from jaxnn import data, files, optim
from jaxnn.cli import config as build
from jaxnn.cli import parity, runs
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.main import main
from jaxnn.compare import pair
from jaxnn.train import checkpoints
from jaxnn.train.sweeps import store

STUDY = ["study", "mislabeled", "--examples", "96", "--hidden", "8", "--epochs", "1", "--batch-size", "32"]
COMMANDS = {
    "train": ["train", "--epochs", "1", "--hidden", "4", "--batch-size", "300"],
    "study": STUDY,
    "playground": ["playground", "--epochs", "1", "--hidden", "1"],
    "gallery": ["gallery", "--only", "losses,activations"],
    "race": [
        "compare", "race", "--problems", "rosenbrock", "--optimizers", "sgd", "--learning-rates", "1e-4", "--seeds",
        "1", "--epochs", "1", "--landscapes", "",
    ],
    "parity": ["compare", "parity", "sgd", "--steps", "2"],
}  # fmt: skip
FILES = {"train": 5, "study": 4, "playground": 5, "gallery": 4, "race": 3, "parity": 3}
"""How many files the commands write at least, lines of metrics.jsonl apart."""


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A run folder and images beside it."""
    config = TrainConfig(hidden=(4,))
    net = build.build_network(config, (8, 8, 1), 10)
    (tmp_path / "run").mkdir()
    runs.write_config(tmp_path / "run", config, (8, 8, 1), tuple("0123456789"))
    runs.write_params(tmp_path / "run", *net.init(jax.random.key(0), (8, 8, 1)))
    np.save(tmp_path / "x.npy", data.load("digits").test.x[:200])
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("x.npy", "x.npy, an input of this command"),
        ("link.npy", "an input of this command"),
        ("hard.npy", "an input of this command"),
        ("run/params.npz", "params.npz, an input of this command"),
        ("run/config.json", "an input of this command"),
        ("mine.csv", "exists already; name a new file, or overwrite it with --force"),
        ("run", "is a folder"),
        ("nowhere/a.csv", "does not exist"),
    ],
)
def test_predict_writes_over_nothing(out: str, text: str, digits: Path, capsys: Any) -> None:
    (digits / "link.npy").symlink_to(digits / "x.npy")
    os.link(digits / "x.npy", digits / "hard.npy")
    (digits / "mine.csv").write_text("mine")
    before = content(digits)
    for force in [] if "mine" in out else ["--force"], []:
        assert main(["predict", str(digits / "run"), str(digits / "x.npy"), "--out", str(digits / out), *force]) == 2
        assert text in capsys.readouterr().err
    assert content(digits) == before


@pytest.mark.slow
def test_predict_writes_over_a_table_by_force_and_to_devices(digits: Path, capsys: Any) -> None:
    words = ["predict", str(digits / "run"), str(digits / "x.npy"), "--out"]
    assert main([*words, str(digits / "a.csv")]) == 0
    first = (digits / "a.csv").read_bytes()
    (digits / "a.csv").write_text("other")
    assert main([*words, str(digits / "a.csv"), "--force"]) == 0
    assert (digits / "a.csv").read_bytes() == first
    assert main([*words, os.devnull]) == 0
    assert not Path(os.devnull).is_file()
    capsys.readouterr()


def test_a_full_disk_at_predict(digits: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_replace", full_after(0))
    words = ["predict", str(digits / "run"), str(digits / "x.npy"), "--out", str(digits / "a.csv")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said == f"jaxnn: {digits / 'a.csv'} could not be written: No space left on device; nothing was written\n"
    if Path("/dev/full").exists():
        assert main([*words[:-1], "/dev/full"]) == 2
        assert "/dev/full could not be written: No space left on device" in capsys.readouterr().err


def full_after(count: int) -> Callable[..., None]:
    """In place of `files._replace`: so many files are written, then the disk is full."""
    whole, left = files._replace, [count]

    def replace(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(*arguments)

    return replace


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case of parity, compared with itself."""
    monkeypatch.setattr(parity, "all_cases", lambda: {"sgd": pair(optim.sgd(0.1), optim.sgd(0.1), steps=2)})


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_full_disk_every_command_tells_what_is_kept(
    name: str, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for count in (0, FILES[name] - 1) if name == "playground" else (FILES[name] - 1,):
        out = tmp_path / f"{name}{count}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "_replace", full_after(count))
            # The chunks of a race's runs and the checkpoints of a training are not counted.
            patch.setattr(store, "write_bytes", lambda path, content: path.write_bytes(content))
            patch.setattr(checkpoints, "_write", lambda *arguments: None)
            assert main([*COMMANDS[name], "--out", str(out)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("jaxnn: ")
        assert re.search("could not be written: No space left on device; (nothing was written|the old file)", said)
        kept = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        assert (f"{out} keeps {', '.join(kept)}" if kept else "nothing was kept") in said.replace(" (1 line)", "")
        assert len([k for k in kept if k not in ("metrics.jsonl", "runs")]) == count
        for path in out.rglob("*.png"):
            assert matplotlib.image.imread(path).size
        for path in out.rglob("*.json"):
            json.loads(path.read_text())


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, resource.RLIM_INFINITY))
from jaxnn.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_train_under_ulimit(tmp_path: Path) -> None:
    words = ["train", "--epochs", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], capture_output=True, text=True,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"jaxnn: {tmp_path / 'run' / 'checkpoints' / 'seed-0' / 'step-0000000038.npz'} could not be written: File too "
        f"large; nothing was written; {tmp_path / 'run'} keeps config.json, metrics.jsonl (2 lines)"
    )
    assert "Traceback" not in done.stderr
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_standard_output_is_told_once() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxnn", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        2,
        "jaxnn: standard output could not be written: No space left on device\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_table_that_standard_output_does_not_take(digits: Path, capfd: Any) -> None:
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert main(["predict", str(digits / "run"), str(digits / "x.npy")]) == 2
    said = capfd.readouterr().err
    assert said == "jaxnn: standard output could not be written: No space left on device\n"


@pytest.mark.parametrize("name", ["train", "gallery", "playground"])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for out, text in (("file/x", "Not a directory"), ("link", "it is a dangling link to nowhere")):
        assert main([*COMMANDS[name], "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"jaxnn: the folder {tmp_path / out} could not be made: {text}; name another" in said


def test_a_gallery_that_a_full_disk_stops_at_once_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(files, "_replace", full_after(0))
    out = tmp_path / "gallery"
    assert main(["gallery", "--only", "losses", "--out", str(out)]) == 2
    assert "nothing was kept" in capsys.readouterr().err
    assert not out.exists()


def test_tables_are_whole_where_the_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    runs.wide_console().print("x" * 300, soft_wrap=False)
    assert "x" * 300 in capsys.readouterr().out


INTERRUPTED = """
import importlib, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in what runs in the background
class Stop:  # Ctrl-C while jax is imported, by a module that takes no notice of exceptions
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                sum(range(1000))
            except BaseException:
                pass
sys.meta_path.insert(0, Stop())
sys.argv = ["jaxnn", "--version"]
runpy.run_module("jaxnn", run_name="__main__")
"""


def test_ctrl_c_during_the_imports_ends_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "jaxnn: interrupted; nothing was kept\n")


LOST = """
import gc, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxnn.cli import entry, main
def work(words):
    gc.callbacks.append(lambda phase, info: (gc.callbacks.clear(), signal.raise_signal(signal.SIGINT)))
    gc.collect()
    for _ in range(100):
        time.sleep(0.1)
    return 0
main._run = work
sys.exit(entry.main())
"""


@pytest.mark.slow
def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "jaxnn: interrupted; nothing was kept\n")


def stop(*arguments: Any, **settings: Any) -> Any:
    raise KeyboardInterrupt


def test_a_study_that_is_stopped_tells_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("jaxnn.studies.mislabeled.run", stop)
    assert main([*STUDY, "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "jaxnn: interrupted; nothing was kept\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_gallery_that_is_stopped_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from jaxnn.gallery import drawing

    save, calls = drawing.plots.save, []

    def second(*arguments: Any) -> Any:
        calls.append(arguments)
        return save(*arguments) if len(calls) == 1 else stop()

    monkeypatch.setattr(drawing.plots, "save", second)
    out = tmp_path / "gallery"
    assert main(["gallery", "--only", "losses,activations", "--out", str(out)]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"jaxnn: interrupted; {out} keeps chapters.html, index.html, losses.png"


def test_a_training_that_is_stopped_keeps_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def two_epochs(*arguments: Any, on_epoch: Any, **settings: Any) -> Any:
        on_epoch({"epoch": 1}, None)
        on_epoch({"epoch": 2}, None)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxnn.cli.train.fit", two_epochs)
    out = tmp_path / "run"
    assert main([*COMMANDS["train"], "--out", str(out)]) == 130
    assert capsys.readouterr().err.endswith(f"jaxnn: interrupted; {out} keeps config.json, metrics.jsonl (2 lines)\n")
    monkeypatch.setattr("jaxnn.cli.train.fit", stop)
    assert main([*COMMANDS["train"], "--out", str(tmp_path / "other")]) == 130
    assert capsys.readouterr().err.endswith("jaxnn: interrupted; nothing was kept\n")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["gallery", "race"])
def test_a_folder_of_other_things_is_left_alone(name: str, tmp_path: Path, capsys: Any) -> None:
    for other in ("index.html", "losses.png", "report.html"):
        (tmp_path / other).write_text("mine")
    before = content(tmp_path)
    assert main([*COMMANDS[name], "--out", str(tmp_path)]) == 2
    assert "has other contents" in capsys.readouterr().err
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            {"settings": {"optimizers": ["sgd", "lion"], "problems": ["rosenbrock"]}},
            "holds the report of a race with lion",
        ),
        ({"settings": {"optimizers": ["sgd"], "problems": ["beale"]}}, "a race with beale, which this one lacks"),
        ({"settings": None}, "is not that of a race"),
        ([], "is not that of a race"),
        ("{", "is not readable JSON"),
    ],
)
def test_the_report_of_another_race_is_kept(told: Any, text: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "race.json").write_text(told if isinstance(told, str) else json.dumps(told))
    before = content(tmp_path)
    assert main([*COMMANDS["race"], "--out", str(tmp_path)]) == 2
    assert text in capsys.readouterr().err
    assert content(tmp_path) == before


@pytest.mark.slow
def test_a_gallery_is_drawn_again_and_by_force_anywhere(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a").write_text("mine")
    words = ["gallery", "--only", "losses", "--out", str(tmp_path)]
    assert main([*words, "--force"]) == 0
    assert main(words) == 0
    assert (tmp_path / "a").read_text() == "mine"


WRITING = re.compile(
    r"\.write_(text|bytes)\(|np\.savez?(_compressed)?\(|open\([^)]*[\"'][wax]b?[\"']|savefig\((?!out\b)"
)


def outputs(room: Path) -> Iterator[str]:
    """The lines that write files, but for examples in docstrings."""
    for path in sorted(room.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if WRITING.search(line.replace("files.write_", "")) and not line.strip().startswith((">>>", "...")):
                yield f"{path.relative_to(room)}:{number}: {line.strip()}"


def test_everything_is_written_by_one_helper() -> None:
    """Files are opened for writing in `files`; a store of runs fills memory alone, a checkpoint what `files` opened."""
    root = Path(runs.__file__).parents[2]
    found = [line for room in ("jaxnn", "benchmarks", "examples") for line in outputs(root / room)]
    assert found, "the scan finds what writes"
    assert not [
        line for line in found if not line.startswith(("files.py:", "train/sweeps/store.py:", "train/checkpoints.py:"))
    ]
