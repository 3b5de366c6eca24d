"""What makes two runs the same: a short text for each of network, optimizer, loss, data, batches and seed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnn.data import Draws
from jaxnn.layers import Layer
from jaxnn.optim.spec import Fixed, Numbers, Structure, spec
from jaxnn.types import Key, PyTree

ROWS = 64
"""The largest number of examples that a fingerprint of data reads."""


def identity(
    net: Layer,
    loss: Any,
    opt: Any,
    train: PyTree,
    key: Key,
    *,
    batch_size: int,
    partial: Any,
    others: Mapping[str, Any],
) -> dict[str, str]:
    """A text for each part of a run, equal in every process that makes the same run.

    The body of a function is not read: one of the same name may have changed.
    """
    named = {name: described(value) for name, value in others.items() if value is not None}
    return {
        "network": described(net),
        "loss": described(loss),
        "optimizer": described(opt),
        "data": fingerprint(train),
        "batch size": str(batch_size),
        "partial": str(getattr(partial, "value", partial)),
        "seed": f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}",
        **named,
    }


def differences(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A sentence for each part in which two runs differ."""
    none = "nothing"
    return [
        f"{name}: saved {_short(saved.get(name, none))}, now {_short(now.get(name, none))}"
        for name in [*saved, *(name for name in now if name not in saved)]
        if saved.get(name, none) != now.get(name, none)
    ]


def described(value: Any, depth: int = 4) -> str:
    """A text for a network, an optimizer, a function, a setting.

    A function is known by its name and by what its closure holds, `depth` functions deep: `losses.l2(1e-4)` is not
    `losses.l2(1e-3)`.
    """
    if isinstance(value, str):
        return value
    inner = functools.partial(described, depth=depth)
    if isinstance(value, Layer):
        options = [f"{name}={inner(option)}" for name, option in value.options.items()]
        return f"{value.kind.name}({', '.join([*options, *map(inner, value.parts)])})"
    if isinstance(value, functools.partial):
        given = [inner(each) for each in value.args] + [f"{k}={inner(v)}" for k, v in value.keywords.items()]
        return f"{inner(value.func)}({', '.join(given)})"
    if hasattr(value, "init") and hasattr(value, "update"):
        known = spec(value)
        return _call(*known, depth) if known else inner((value.init, value.update))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {inner(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(inner, value))})"
    if isinstance(value, jax.Array | np.ndarray):
        return fingerprint(value) if value.size > 1 else str(np.asarray(value).tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f"{field.name}={inner(getattr(value, field.name))}" for field in dataclasses.fields(value)]
        return f"{type(value).__qualname__}({', '.join(fields)})"
    if isinstance(value, types.FunctionType):
        made = depth and "<locals>" in value.__qualname__  # the decorators of a module's function are no settings
        cells = ", ".join(inner(cell, depth=depth - 1) for cell in _closed_over(value)) if made else ""
        return f"{value.__module__}.{value.__qualname__}" + (f"({cells})" if cells else "")
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _closed_over(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    return [each for each in found if each is not function]


def _call(structure: Structure, numbers: Numbers, depth: int) -> str:
    """An optimizer as the call of its factory with all arguments."""
    given = [
        f"{name}={_call(leaf, numbers[name], depth)}" if isinstance(leaf, Structure)
        else f"{name}={described(leaf.value if isinstance(leaf, Fixed) else numbers[name], depth)}"
        for name, leaf in zip(structure.names, structure.leaves, strict=True)
    ]  # fmt: skip
    return f"{structure.rule.__name__}({', '.join(given)})"


def fingerprint(source: Any) -> str:
    """A text for training data: its own `fingerprint()`, or shapes, dtypes and a digest of at most 64 examples."""
    own = getattr(source, "fingerprint", None)
    if callable(own):
        return str(own())
    if isinstance(source, Draws):
        return f"{described(source.draw)} of {fingerprint(source.arrays)}, {source.steps} batches"
    if not (hasattr(source, "shape") or hasattr(source, "x") or isinstance(source, tuple | list | dict)):
        return described(source)  # a stream
    leaves = jax.tree.leaves(source)
    return ", ".join(map(_of_array, leaves)) or "nothing"


def _of_array(array: Any) -> str:
    array = array if hasattr(array, "shape") else np.asarray(array)
    about = f"{array.dtype}{list(array.shape)}"
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        return about  # the examples are in other processes
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = array.addressable_data(0)
    rows = array
    if array.ndim:
        picked = np.unique(np.linspace(0, max(len(array) - 1, 0), min(ROWS, len(array))).round().astype(int))
        rows = array[picked]
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]
    return f"{about} {digest}"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."
