"""Preprocessing of the command line for tyro: lists in any notation; repeated options raise."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import tyro

from jaxnn.compare.entries import words as split

LISTED = "a text of comma-separated words"
"""Marks, in Annotated, an option whose text is a list."""

LOGS: TypeAlias = Literal["none", "tensorboard", "wandb", "trackio"]
"""Where metrics may go besides metrics.jsonl."""

_OPTION = re.compile(r"-(?![\d.]|inf)[^\s,]")


class UsageError(Exception):
    """Wrong arguments; its text is the one line that is printed."""


def gathered(config: type[Any], words: Sequence[str]) -> list[str]:
    """The words with each option once: a list may be separated by commas or blanks, or its option repeated.

    Args:
        config: the dataclass whose fields are the options.
        words: of the command line.

    Returns:
        The words for tyro: positional words, unknown options, then the known ones. A tuple has one word per item, a
        `LISTED` option one word, its items joined by commas.

    Raises:
        UsageError: a flag or an option of one value is repeated, or a list is given both empty and with items.
    """
    kinds = _kinds(config)
    given: dict[str, list[str]] = {}
    positional: list[str] = []
    unknown: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--" or not _OPTION.match(word):
            positional += left if word == "--" else [word]
            left = [] if word == "--" else left
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        kind = kinds.get(name) or ("flag" if kinds.get(name.removeprefix("no-")) == "flag" else "")
        if not word.startswith("--") or not kind:
            unknown.append(word)
            continue
        values = [value] if equals else []
        while left and not _OPTION.match(left[0]) and (kind in ("tuple", "text") or (kind == "scalar" and not values)):
            values.append(left.pop(0))
        _note(given, name, kind, values)
    return [*positional, *unknown, *(w for name, values in given.items() for w in _told(name, kinds, values))]


def named_fields(config: type[Any], words: Sequence[str]) -> set[str]:
    """The fields of a configuration that these words, as returned by `gathered`, name."""
    named = {word.removeprefix("--") for word in words if word.startswith("--")}
    return {kind.replace("-", "_") for kind in _kinds(config) if {kind, f"no-{kind}"} & named}


def require_seed(where: str, seed: int, count: int = 1) -> None:
    """Raise ValueError unless seed .. seed + count - 1 lie in [0, 2**32): JAX takes seeds modulo 2**32."""
    if not 0 <= seed <= (1 << 32) - count:
        raise ValueError(f"{where}: seed must lie in [0, {(1 << 32) - count}], got {seed}.")


def save_interval(text: str) -> int | float:
    """The value of --save-every: a number of steps (an int), or seconds (a float).

    Example:
        >>> save_interval("500"), save_interval("90s"), save_interval("10m"), save_interval("1h")
        (500, 90.0, 600.0, 3600.0)
    """
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or float(match[1] or match[2]) == 0:
        raise ValueError(
            f"train: --save-every takes steps, such as 500, or a time, such as 60s, 10m or 1h, got {text!r}."
        )
    return int(match[1]) if match[1] else float(match[2]) * {"s": 1, "m": 60, "h": 3600}[match[3]]


def require_divisible(batch_size: int, devices: int) -> None:
    """Raise ValueError unless the devices divide a batch."""
    if batch_size % devices:
        below = batch_size // devices * devices
        near = f"{below} or {below + devices}" if below else f"{devices}"
        raise ValueError(
            f"train: --batch-size {batch_size} must be a multiple of --devices {devices}: use {near}, or other devices."
        )


def _kinds(config: type[Any]) -> dict[str, str]:
    """The kind of each option: "tuple" or "text" (a list), "flag", "scalar"."""
    found = {}
    for name, hint in typing.get_type_hints(config, include_extras=True).items():
        marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        bare = typing.get_args(hint)[0] if marks else hint
        if typing.get_origin(bare) in (typing.Union, types.UnionType):
            bare = next(part for part in typing.get_args(bare) if part is not type(None))
        if tyro.conf.Positional in marks:
            continue
        kind = "tuple" if typing.get_origin(bare) is tuple else "flag" if bare is bool else "scalar"
        found[name.replace("_", "-")] = "text" if LISTED in marks else kind
    return found


def _note(given: dict[str, list[str]], name: str, kind: str, values: list[str]) -> None:
    """Add an option to `given`, or raise UsageError as `gathered` does."""
    other = name.removeprefix("no-") if name.startswith("no-") else f"no-{name}"
    twice = name if name in given else other if kind == "flag" and other in given else None
    if twice is not None and kind in ("flag", "scalar"):
        both = [" ".join([f"--{n}", *v]) for n, v in ((twice, given[twice]), (name, values))]
        raise UsageError(f"--{name} is given twice ({both[0]} and {both[1]}): omit one of them")
    if kind in ("tuple", "text"):
        several = [given[name], values] if name in given else [[value] for value in values]
        if len(several) > 1 and any(not "".join(each).strip() for each in several):
            raise UsageError(f"--{name} is given both empty and with values: omit one of them")
    given.setdefault(name, []).extend(values)


def _told(name: str, kinds: dict[str, str], values: list[str]) -> list[str]:
    """An option in tyro's notation."""
    kind = kinds.get(name, "flag")
    if kind == "tuple":
        return [f"--{name}", *(item for value in values for item in split(value))]
    if kind == "text":
        return [f"--{name}", *([",".join(item for value in values for item in split(value))] if values else [])]
    return [f"--{name}", *values]
