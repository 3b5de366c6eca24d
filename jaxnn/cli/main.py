"""The entry point: subcommands, and errors as one line with exit code 2."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import jax
import tyro

import jaxnn
from jaxnn import files
from jaxnn.checks import nearest_name
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.gallery import GalleryConfig, gallery, listed_figures
from jaxnn.cli.parity import ParityConfig, parity
from jaxnn.cli.playground import PlaygroundConfig, playground
from jaxnn.cli.predict import PredictConfig, predict
from jaxnn.cli.race import RaceConfig, race
from jaxnn.cli.recipes import RECIPES
from jaxnn.cli.runs import CONFIG, read_config
from jaxnn.cli.stopping import last_line, terminating
from jaxnn.cli.study import STUDIES, resumed, study
from jaxnn.cli.text.config import MODELS, TextConfig
from jaxnn.cli.text.predict import PromptConfig, is_text_run, predict_text, read_text_config
from jaxnn.cli.text.train import train_text
from jaxnn.cli.train import train
from jaxnn.cli.training import FREE, require_resumable
from jaxnn.cli.watch import WatchConfig, watch
from jaxnn.cli.words import UsageError, gathered, named_fields
from jaxnn.train import DivergedError

C = TypeVar("C")

COMPARISONS: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "race": (RaceConfig, race),
    "parity": (ParityConfig, parity),
}
"""The comparisons by name: configuration and function."""

EXPECTED = (
    UsageError, DivergedError, OSError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError,
    jax.errors.JaxRuntimeError,
)  # fmt: skip
"""Errors of wrong arguments, damaged files, full disks and too large networks; any other exception is a bug."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Error numbers of a full output."""

USAGE = f"""usage: jaxnn COMMAND [OPTIONS]

commands:
  train      train a network on images and write a run folder; with no option, on the embedded digits;
             a language model:  jaxnn train --data text;  one that was stopped goes on:  jaxnn train --resume RUN
  predict    apply a finished run to images:  jaxnn predict RUN IMAGES;  to a text:  jaxnn predict RUN --prompt TEXT
  watch      show the epochs of a training in another process:  jaxnn watch RUN
  compare    race optimizers, or compare ours to optax's:  jaxnn compare race, jaxnn compare parity --all
  study      study per-example gradients, or networks on sequences:  jaxnn study NAME
  playground train a small network on points of the plane and write a page that trains on
  gallery    draw all figures of the library, with an HTML page:  jaxnn gallery --out DIR

comparisons: {", ".join(COMPARISONS)}
studies: {", ".join(STUDIES)}
recipes (jaxnn train --recipe NAME): {", ".join(RECIPES)}

jaxnn COMMAND --help lists the options of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 on success, 2 with one line on standard error for `EXPECTED`, 130 after Ctrl-C, 143
    after SIGTERM.

    A command may return another code: `compare parity` returns 1 if a rule differs.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminating():
            code = _run(words)
        sys.stdout.flush()  # a full disk raises here, not at exit
        return code
    except BrokenPipeError:  # the reader of a pipe, e.g. head, has closed it
        _drop_output()
        return 0
    except EXPECTED as error:
        print(f"jaxnn: {_told(error)}", file=sys.stderr)
        _drop_output()
        return 2
    except KeyboardInterrupt as stop:
        line, code = last_line(stop)
        print(f"jaxnn: {line}", file=sys.stderr)
        return code


def _run(words: list[str]) -> int:
    """Run the command named by the words, or print the help."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        print(f"jaxnn {jaxnn.__version__}")
        return 0
    return _command(words[0])(words[1:]) or 0


def _told(error: BaseException) -> str:
    """The text and the notes of an error in one line, without JAX's note on tracebacks."""
    notes = [note for note in getattr(error, "__notes__", []) if "JAX has removed its internal frames" not in note]
    return " ".join("; ".join([_text(error).rstrip("."), *notes]).split())


def _text(error: BaseException) -> str:
    """The text of an error; an explanation for errors of memory, recursion and system calls."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror and error.errno in FULL:  # errors of files have a filename
        return f"standard output could not be written: {error.strerror}"
    if isinstance(error, MemoryError | RecursionError) or "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory ({' '.join(str(error).split())[:200] or type(error).__name__})"
    return str(error) or type(error).__name__


def _drop_output() -> None:
    """Discard unwritten output of a full or closed standard output; Python would retry at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(name: str) -> Callable[[list[str]], int | None]:
    commands: dict[str, Callable[[list[str]], int | None]] = {
        "train": _train, "predict": _predict, "watch": _watch, "compare": _compare, "study": _study,
        "playground": _playground, "gallery": _gallery,
    }  # fmt: skip
    if name not in commands:
        raise UsageError(f"no command {name!r}{nearest_name(name, commands)}; there are: {', '.join(commands)}")
    return commands[name]


def _train(words: list[str]) -> None:
    recipe, rest = _take_once(words, "--recipe", f"a name; there are: {', '.join(RECIPES)}")
    run, rest = _take_once(rest, "--resume", "the folder of a run")
    if run is not None:
        if recipe is not None:
            raise UsageError("--resume goes on with the options of its run: omit --recipe")
        _resume(Path(run), rest)
        return
    if recipe is not None and recipe not in RECIPES:
        raise UsageError(f"no recipe {recipe!r}{nearest_name(recipe, RECIPES)}; there are: {', '.join(RECIPES)}")
    default = RECIPES[recipe] if recipe else TextConfig() if _is_text(rest) else TrainConfig()
    if isinstance(default, TextConfig):
        train_text(_parse("train", TextConfig, rest, default))
    else:
        train(_parse("train", TrainConfig, rest, default))


def _resume(folder: Path, words: list[str]) -> None:
    """Train on in the folder of a run, with its options."""
    require_resumable(folder)
    text = is_text_run(files.read_json(folder / CONFIG))
    begun: TrainConfig | TextConfig = read_text_config(folder)[0] if text else read_config(folder / CONFIG)[0]
    config = _parse("train", type(begun), words, begun)
    fixed = [name for name in vars(begun) if getattr(config, name) != getattr(begun, name) and name not in FREE]
    if fixed:
        raise UsageError(
            f"train: --resume {folder} goes on with the options of that run, but for --{', --'.join(FREE)}: omit "
            f"--{', --'.join(fixed)}".replace("_", "-")
        )
    if isinstance(config, TextConfig):
        train_text(config, resume=folder)
    else:
        train(config, resume=folder)


def _is_text(words: list[str]) -> bool:
    """Whether the words are of a language model, which has options of its own: by its data, or its model or text."""
    data, model, text = (_value(words, name) for name in ("--data", "--model", "--text"))
    return data == "text" if data is not None else text is not None or model in get_args(MODELS)


def _value(words: list[str], name: str) -> str | None:
    """The value of an option, None without it."""
    pairs = [word.split("=", 1) for word in words if "=" in word] + [list(pair) for pair in itertools.pairwise(words)]
    return next((value for option, value in pairs if option == name), None)


def _predict(words: list[str]) -> None:
    run = [word for word in words if not word.startswith("-")]
    if any(word.partition("=")[0] == "--prompt" for word in words) or (len(run) == 1 and _holds_text_run(Path(*run))):
        predict_text(_parse("predict", PromptConfig, words, None))
    else:
        predict(_parse("predict", PredictConfig, words, None))


def _holds_text_run(folder: Path) -> bool:
    """Whether a folder has the config.json of a language model."""
    with contextlib.suppress(OSError, ValueError):
        return is_text_run(files.read_json(folder / CONFIG))
    return False


def _watch(words: list[str]) -> None:
    watch(_parse("watch", WatchConfig, words, None))


def _playground(words: list[str]) -> None:
    playground(_parse("playground", PlaygroundConfig, words, None))


def _study(words: list[str]) -> None:
    about = [(each.module.__doc__ or "").splitlines()[0] for each in STUDIES.values()]
    name = _named("study", "studies", STUDIES, words, about)
    run, rest = _take_once(words[1:], "--resume", "the folder of a study")
    if name is not None and run is not None:
        if rest:
            raise UsageError(f"study {name}: --resume goes on with the options of its folder: omit {' '.join(rest)}")
        resumed(name, Path(run))
    elif name is not None:
        study(name, _parse(f"study {name}", STUDIES[name].config, words[1:], None))


def _compare(words: list[str]) -> int:
    name = _named("compare", "comparisons", COMPARISONS, words)
    if name is None:
        return 0
    config, run = COMPARISONS[name]
    return run(_parse(f"compare {name}", config, words[1:], None))


def _named(
    command: str, plural: str, known: Collection[str], words: list[str], about: Sequence[str] = ()
) -> str | None:
    """The name after a command, as in `study NAME`; None if help was requested, and printed, with a line `about` each
    name."""
    told = f"jaxnn {command} NAME [OPTIONS]; {plural}: {', '.join(known)}"
    if not words:
        raise UsageError(f"{command} needs a name: {told}")
    if words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {each:12}{line}" for each, line in zip(known, about, strict=False))
        pieces = [f"usage: {told}", lines, f"jaxnn {command} NAME --help lists the options."]
        print("\n\n".join(filter(None, pieces)))
        return None
    if words[0] not in known:
        raise UsageError(f"no {command} {words[0]!r}{nearest_name(words[0], known)}; there are: {', '.join(known)}")
    return words[0]


def _gallery(words: list[str]) -> None:
    gallery(_parse("gallery", GalleryConfig, words, None))


def _parse(command: str, config: type[C], words: list[str], default: C | None) -> C:
    """A configuration parsed from words by tyro; tyro's errors become a UsageError of one line."""
    words = gathered(config, words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings = {} if default is None else {"default": default}
            about = _described(config, helping=not {"-h", "--help"}.isdisjoint(words))
            parsed = tyro.cli(config, prog=f"jaxnn {command}", description=about, args=words, **settings)  # type: ignore[call-overload]
    except SystemExit as stopped:
        if stopped.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue(), command)) from None
    if hasattr(parsed, "without_effect") and (unused := parsed.without_effect(named_fields(config, words))):
        raise UsageError(f"{command}: without effect here: {', '.join(unused)}; omit it")
    return parsed


def _described(config: type[Any], helping: bool) -> str:
    """The first lines of --help, with lists that are made for it only; `main` takes --recipe before tyro parses."""
    about = (config.__doc__ or "").splitlines()[0]
    if helping and config is GalleryConfig:
        return f"{about}\n\n{listed_figures()}"
    if config not in (TrainConfig, TextConfig):
        return about
    more = "" if config is TextConfig else " --data text --help lists the options of language models."
    return (
        f"{about} --recipe NAME starts from one of: {', '.join(RECIPES)}; other options override it. --resume RUN goes "
        f"on with a run that was stopped, by its own options.{more}"
    )


def _one_line(text: str, command: str) -> str:
    """The message inside tyro's box."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │╭╮╰╯─┆┌┐└┘|+") for line in text.splitlines()]
    # The first line is the box's title; the last ones point to the help, which the line below does itself.
    told = " ".join(line for line in lines[1:] if line.strip("─-"))
    told = re.sub(r"^Error parsing \w*Config: ", "", told)  # the name of a class says nothing to who types words
    told = re.split(r" *(?:Argument helptext:|For full helptext)", told)[0]
    return f"{told} (jaxnn {command} --help lists the options)"


def _take_once(words: list[str], name: str, what: str) -> tuple[str | None, list[str]]:
    """The value of `--name value` or `--name=value`, None without it, and the words without it."""
    value, rest = _take_option(words, name, what)
    if _take_option(rest, name, what)[0] is not None:
        raise UsageError(f"{name} is given twice: omit one of them")
    return value, rest


def _take_option(words: list[str], name: str, what: str) -> tuple[str | None, list[str]]:
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}="), words[:i] + words[i + 1 :]
        if word == name:
            if i + 1 == len(words):
                raise UsageError(f"{name} needs {what}")
            return words[i + 1], words[:i] + words[i + 2 :]
    return None, words
