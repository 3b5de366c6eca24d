"""What layers made of other libraries' models share: the mode's argument, the packages, their backward rule."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax

from jaxnn.backprop.rule import AUTOMATIC, register
from jaxnn.layers import Kind, Layer
from jaxnn.types import Array, Params, PyTree

MODES = MappingProxyType(
    {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
)
"""Arguments by which the models of other libraries take the mode, with their values in training."""


def package(where: str, name: str, module: str) -> Any:
    """A module of another library, imported on first use."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{where}: needs {name}. Install it: pip install {name}.") from error


def arguments_of(where: str, call: Callable[..., Any], given: Sequence[str], remedy: str) -> tuple[str, ...]:
    """The arguments of a bound `__call__` that are in `given` or in `MODES`.

    Raises:
        TypeError: it needs others, besides the first.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    others = [p for p in list(inspect.signature(call).parameters.values())[1:] if p.kind in named]
    known = tuple(p.name for p in others if p.name in (*given, *MODES))
    needed = [p.name for p in others if p.default is p.empty and p.name not in known]
    if needed:
        raise TypeError(f"{where}: __call__ needs arguments besides the inputs and the mode, {needed}. Pass {remedy}.")
    return known


def require_maker(where: str, make: Callable[..., Any], argument: str, remedy: str) -> None:
    """Raise TypeError unless a function, or class, can be called with one positional argument."""
    if dataclasses.is_dataclass(make) and not isinstance(make, type):  # as modules of linen and equinox are
        got = f"an instance of {type(make).__module__}.{type(make).__qualname__}"
        raise TypeError(f"{where}: expected a module of that library, or a function of {argument}, got {got}.")
    is_class = isinstance(make, type)
    try:
        # Of a class itself it may be that of a metaclass, which takes anything.
        signature = inspect.signature(make.__init__ if is_class else make)
    except (TypeError, ValueError):  # of some functions that are not written in Python
        return
    try:
        signature.bind(*(None, None) if is_class else (None,))
    except TypeError as error:
        got = f"the {'class' if is_class else 'function'} {getattr(make, '__name__', make)}"
        raise TypeError(
            f"{where}: expected a module, or a function of {argument} alone, got {got}: {error}. Pass {remedy}."
        ) from None


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """What is fixed in a model of another library, among a layer's options: what a run is known by, and not shown."""

    values: Any = dataclasses.field(repr=False)


def mode(names: Sequence[str], train: bool) -> dict[str, bool]:
    """The arguments among these names that say the mode."""
    return {name: MODES[name] is train for name in names if name in MODES}


def _uses(layer: Layer, params: Params, cache: Any, dy: Array) -> PyTree:
    if cache.train and jax.tree.leaves(cache.state):
        raise ValueError(
            f"{layer.kind.name}: per-example gradients are undefined in training mode with running statistics, where "
            "every example's loss may depend on the whole batch. Record in evaluation mode, train=False."
        )
    return AUTOMATIC.uses(layer, params, cache, dy)


FLAX, NNX, EQUINOX = Kind("flax"), Kind("nnx"), Kind("equinox")
for kind in (FLAX, NNX, EQUINOX):
    register(kind, dataclasses.replace(AUTOMATIC, uses=_uses))
