"""The rules of `jaxnn.optim` by name, with options as words: `adamw`, `b1=0.8,nesterov=true`."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import jax.numpy as jnp

from jaxnn import optim
from jaxnn.checks import nearest_name
from jaxnn.compare.entries import words as split
from jaxnn.types import Params

RATE = "learning_rate"

PARTS = ("scale_by_", "add_", "clip_", "conditionally_", "normalize", "measure_")
"""Name prefixes of transformations that are parts of rules."""

WHOLE = {"polyak_sgd"}
"""Complete rules without an argument learning_rate."""

UNFIT = {
    "dpsgd": "needs per-example gradients, which train does not compute; see per_example.dp_sgd",
    "differentially_private_aggregate": "needs per-example gradients, which train does not compute",
}
"""Rules that need more than `train.make_step` and `train.fit` pass."""

_KINDS = {
    "Scalar": "a number", "ScalarOrSchedule": "a number", "float": "a number", "int": "an integer",
    "bool": "true or false", "str": "a word", "DTypeLike": "a dtype, such as bfloat16", "None": "none",
}  # fmt: skip


@functools.cache
def rules() -> dict[str, Callable[..., optim.Optimizer]]:
    """The rules that `jaxnn train` can use, by name."""
    return {name: rule for name, rule in _optimizers().items() if _unfit(name, rule) is None}


def require_rule(name: str) -> Callable[..., optim.Optimizer]:
    """The rule of that name; ValueError with the nearest names, or why it cannot be used."""
    known, all_of_them = rules(), _optimizers()
    if name in known:
        return known[name]
    if name in all_of_them:
        raise ValueError(f"train: --optimizer {name} {_unfit(name, all_of_them[name])}.")
    raise ValueError(f"train: no optimizer {name!r}{nearest_name(name, known)}; there are: {', '.join(known)}.")


def parse_options(name: str, options: Sequence[str]) -> dict[str, Any]:
    """The options of a rule as keyword arguments, converted to the types of its signature.

    ValueError: an unknown, repeated, missing or malformed option; TypeError: a text that its type does not accept.
    """
    parameters = _parameters(name)
    found: dict[str, Any] = {}
    for word in options:
        option, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not option:
            raise ValueError(f"train: --optimizer-options expects name=value, such as b1=0.8, got {word!r}.")
        if option == RATE:
            raise ValueError("train: the learning rate is set by --learning-rate, not by --optimizer-options.")
        if option not in parameters:
            raise ValueError(
                f"train: {name} has no option {option!r}{nearest_name(option, parameters)}; there are: "
                f"{', '.join(parameters) or 'none'}."
            )
        if option in found:
            raise ValueError(f"train: --optimizer-options sets {option} twice; omit one of them.")
        found[option] = _value(name, parameters[option], text)
    missing = [option for option, p in parameters.items() if p.default is p.empty and option not in found]
    if missing:
        raise ValueError(f"train: {name} needs --optimizer-options {','.join(f'{option}=...' for option in missing)}.")
    return found


def takes(name: str, argument: str) -> bool:
    """Whether the rule has an argument of that name."""
    return argument in inspect.signature(require_rule(name)).parameters


def takes_schedule(name: str) -> bool:
    """Whether its learning rate may be a schedule."""
    rate = inspect.signature(require_rule(name)).parameters.get(RATE)
    return rate is not None and "Schedule" in str(rate.annotation)


def evaluated_at(name: str) -> Callable[[Any, Params], Params] | None:
    """(opt_state, params) -> the parameters at which a network trained by the rule is evaluated; None for `params`."""
    return optim.schedule_free_eval_params if name.startswith("schedule_free") else None


def own_rate(name: str, otherwise: float) -> Any:
    """The default of the rule's learning rate, None where it adapts its own; `otherwise` if it is required."""
    default = inspect.signature(require_rule(name)).parameters[RATE].default
    return otherwise if default is inspect.Parameter.empty else default


@functools.cache
def _optimizers() -> dict[str, Callable[..., Any]]:
    """Every function of `jaxnn.optim` that returns an Optimizer, by name, sorted."""
    found = {name: each for name, each in vars(optim).items() if name in optim.__all__ and inspect.isfunction(each)}
    return {
        name: found[name]
        for name in sorted(found)
        if str(inspect.signature(found[name]).return_annotation).endswith("Optimizer")
    }


def _unfit(name: str, rule: Callable[..., Any]) -> str | None:
    """Why `train` cannot use it; None if it can."""
    if name in UNFIT:
        return UNFIT[name]
    parameters = inspect.signature(rule).parameters
    needed = [p for p in parameters.values() if p.default is p.empty and p.name != RATE and not _accepted(rule, p)]
    if needed and not name.startswith(PARTS):
        return f"needs {needed[0].name}, which only a script can pass"
    if name.startswith(PARTS) or (RATE not in parameters and name not in WHOLE):
        return "is a part of rules, not a complete one: it does not descend by itself"
    return None


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a rule besides the learning rate."""
    parameters = inspect.signature(require_rule(name)).parameters.values()
    return {p.name: p for p in parameters if p.name != RATE}


def _accepted(rule: Callable[..., Any], p: inspect.Parameter) -> list[Any]:
    """The kinds of text that a parameter accepts: names of types, Literals and tuples of those; [] if none."""
    found: list[Any] = []
    for part in _parts(str(p.annotation), "|"):
        if part in _KINDS:
            found.append(part)
        elif part.startswith("tuple[") and "..." not in part:
            found.append(tuple(_named(rule, each) for each in _parts(part[6:-1], ",")))
        else:
            found += _named(rule, part)
    if not found and isinstance(p.default, tuple) and all(isinstance(each, float) for each in p.default):
        found.append((["Scalar"],) * len(p.default))
    return found if any(each != "None" for each in found) else []


def _named(rule: Callable[..., Any], part: str) -> list[Any]:
    """A type by its name, which may be an alias for a Literal in the rule's module."""
    if part in _KINDS:
        return [part]
    meant = inspect.unwrap(rule).__globals__.get(part)
    if part.startswith("Literal["):
        meant = Literal[ast.literal_eval(f"({part[8:-1]},)")]
    members = get_args(meant) if get_origin(meant) is not Literal else (meant,)
    return [m if get_origin(m) is Literal else "None" for m in members if get_origin(m) is Literal or m is type(None)]


def _parts(text: str, mark: str) -> list[str]:
    """The text split at marks outside of brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        found = [*found, ""] if letter == mark and not depth else [*found[:-1], found[-1] + letter]
    return [part.strip() for part in found]


def _value(name: str, p: inspect.Parameter, text: str) -> Any:
    """The text converted to the parameter's type."""
    accepted = _accepted(require_rule(name), p)
    if not accepted:
        raise ValueError(f"train: {name}'s option {p.name} can be set in a script only (it is a {p.annotation}).")
    try:
        return _first(accepted, text)
    except ValueError:
        pass
    expected = " or ".join(_described(kind) for kind in accepted)
    raise TypeError(f"train: {name}'s option {p.name} must be {expected}, got {text!r}.")


def _read(kind: Any, text: str) -> Any:
    """The text converted to one kind; ValueError if that fails."""
    if isinstance(kind, tuple):
        inner = split(text[1:-1]) if text[:1] + text[-1:] in ("()", "[]") else []
        return tuple(_first(kinds, word) for kinds, word in zip(kind, inner, strict=True))
    if get_origin(kind) is Literal:
        return _chosen({str(each): each for each in get_args(kind)}, text)
    if kind == "None":
        return _chosen({"none": None}, text.lower())
    if kind == "bool":
        return _chosen({"true": True, "false": False}, text.lower())
    if kind == "DTypeLike":
        return _dtype(text)
    if kind == "str":
        return text
    if kind == "int" or re.fullmatch(r"[+-]?\d{1,15}", text):
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _first(kinds: Sequence[Any], text: str) -> Any:
    """The text converted to the first kind that matches; ValueError if none does."""
    for kind in kinds:
        try:
            return _read(kind, text)
        except ValueError:
            continue
    raise ValueError(text)


def _chosen(known: Mapping[str, Any], text: str) -> Any:
    if text not in known:
        raise ValueError(text)
    return known[text]


def _dtype(text: str) -> Any:
    try:
        dtype = jnp.dtype(text)
    except TypeError:
        raise ValueError(text) from None
    return _chosen({text: dtype} if jnp.issubdtype(dtype, jnp.floating) else {}, text)


def _described(kind: Any) -> str:
    if isinstance(kind, tuple):
        return f"({', '.join(' or '.join(map(_described, kinds)) for kinds in kind)})"
    return " or ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _KINDS[kind]
