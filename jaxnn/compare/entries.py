"""Entries of a race by name: rules of ours or of optax with settings, and grids of learning rates."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optax

from jaxnn import optim
from jaxnn.checks import nearest_name, require_function

NO_RULES = ("scale_by_", "inject_", "sqrt_")
"""Prefixes of names that have an argument learning_rate but are not optimizers by themselves."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer as a function of its learning rate.

    Attributes:
        name: in tables and figures.
        make: learning rate (traced in a race) -> optimizer, ours or optax's.

    Example:
        >>> Entry("my sgd", lambda rate: optim.sgd(rate, momentum=0.8)).name
        'my sgd'
    """

    name: str
    make: Callable[[Any], Any]

    def __post_init__(self) -> None:
        require_function(f"entry {self.name!r}", "make", self.make, "lambda rate: optim.adam(rate)", optional=False)


def entry(text: str | Entry) -> Entry:
    """An entry by its name: `adam`, `sgd:momentum=0.9`, `optax:adamw:weight_decay=1e-3`.

    Args:
        text: a rule of `jaxnn.optim`, or after `optax:` one of optax or optax.contrib, with an argument learning_rate
            and no other required one; then settings, each after a colon, their values Python literals. An Entry is
            returned unchanged.

    Raises:
        ValueError: no such rule (the nearest name is suggested), one without a learning rate, or an unknown or
            malformed setting.
        TypeError: text is neither a string nor an Entry.

    Example:
        >>> entry("optax:sgd:momentum=0.9").name
        'optax:sgd:momentum=0.9'
        >>> entry("adma")
        Traceback (most recent call last):
        ValueError: no optimizer 'adma' (did you mean 'adamax', 'adan' or 'adam'?); there are: acprop, ...
    """
    if isinstance(text, Entry):
        return text
    if not isinstance(text, str):
        raise TypeError(f"an optimizer of a race is a name or an Entry(name, make), got {text!r}.")
    library, parts = "ours", text.strip().split(":")
    if parts[0] == "optax":
        library, parts = "optax", parts[1:] or [""]
    name, known = parts[0], rules(library)
    if name not in known:
        raise ValueError(f"no optimizer {text!r}{nearest_name(name, known)}; there are: {', '.join(known)}.")
    rule, settings = known[name], dict(_setting(text, word) for word in parts[1:])
    if unknown := sorted(set(settings) - set(inspect.signature(rule).parameters)):
        arguments = [argument for argument in inspect.signature(rule).parameters if argument != "learning_rate"]
        raise ValueError(
            f"optimizer {text!r}: no setting {unknown[0]!r}{nearest_name(unknown[0], arguments)}; {name} has: "
            f"{', '.join(arguments)}."
        )
    return Entry(text.strip(), lambda rate: rule(learning_rate=rate, **settings))


def entries(optimizers: str | Iterable[str | Entry]) -> tuple[Entry, ...]:
    """Several entries, from a comma-separated text or a list.

    Raises:
        ValueError: no entry, or two with the same name.
    """
    found = tuple(entry(each) for each in (words(optimizers) if isinstance(optimizers, str) else optimizers))
    require_distinct("optimizers", [e.name for e in found], "adam,lion")
    return found


def require_distinct(what: str, names: list[str], example: str) -> None:
    """Raise ValueError unless there is at least one name and none is repeated."""
    if not names:
        raise ValueError(f"race: expected at least one of {what}, such as {example}, got none.")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"race: the names of {what} must differ, got {', '.join(doubled)} more than once.")


def rules(library: str) -> dict[str, Callable[..., Any]]:
    """The optimizers of one library by name: those with an argument learning_rate and no other required one.

    Args:
        library: "ours" or "optax".
    """
    rooms = (optim,) if library == "ours" else (optax.contrib, optax)
    found = {}
    for room in rooms:
        for name, rule in vars(room).items():
            if inspect.isfunction(rule) and not name.startswith(("_", *NO_RULES)) and _needs_only_a_rate(rule):
                found[name] = rule
    return dict(sorted(found.items()))


def grid(text: str | Iterable[float]) -> np.ndarray:
    """Distinct learning rates in ascending order, from `log:LOW:HIGH:N`, `1e-3,1e-2,1e-1` or numbers.

    Raises:
        ValueError: no rate, one that is not a finite number > 0, or another notation.

    Example:
        >>> grid("log:1e-3:1:4").round(4).tolist()
        [0.001, 0.01, 0.1, 1.0]
    """
    wanted = "learning rates must be finite numbers > 0: log:LOW:HIGH:N, such as log:1e-4:1:13, or 1e-3,1e-2,1e-1"
    try:
        if isinstance(text, str) and text.startswith("log:"):
            low, high, n = text.split(":")[1:]
            rates = np.geomspace(float(low), float(high), int(n)) if min(float(low), float(high)) > 0 else np.zeros(0)
        else:
            rates = np.array([float(word) for word in (words(text) if isinstance(text, str) else text)])
    except ValueError:
        raise ValueError(f"{wanted}; got {text!r}.") from None
    if not rates.size or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"{wanted}; got {text if isinstance(text, str) else rates.tolist()!r}.")
    return np.unique(rates)


def _needs_only_a_rate(rule: Callable[..., Any]) -> bool:
    """Whether learning_rate is an argument, and every other has a default."""
    parameters = inspect.signature(rule).parameters
    return "learning_rate" in parameters and all(
        p.default is not p.empty or name == "learning_rate" or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        for name, p in parameters.items()
    )


def _setting(text: str, word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    try:
        if equals:
            return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        pass
    raise ValueError(f"optimizer {text!r}: settings read name=value, such as momentum=0.9, got {word!r}.")


def words(text: str) -> list[str]:
    """The comma-separated words of a text; commas inside () or [] do not separate."""
    found, depth = [""], 0
    for letter in text:
        depth = max(depth + (letter in "([") - (letter in ")]"), 0)
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [word.strip() for word in found if word.strip()]
