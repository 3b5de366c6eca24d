"""The leaves of a checkpoint: their names in the file, and those that a file can hold."""

from __future__ import annotations

import reprlib
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxnn import npz, tree
from jaxnn.types import PyTree

ABOUT = "__about__"
"""The name of the JSON text in a file."""

IMPLEMENTATIONS = MappingProxyType({"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"})
"""The names by which `jax.random.wrap_key_data` knows the implementations of typed keys."""

NAME_BYTES = 2**16 - 1 - len(".npy")
"""The longest name of an entry of a zip archive, in UTF-8."""


def named(values: PyTree) -> dict[str, Any]:
    """The leaves by path, "params/1/w"; a bare leaf is called "value".

    Where two paths coincide, or one is no name in an archive, all are written as in code, "['a']['b']".

    Raises:
        ValueError: two leaves have one path: a node of a class that gives its children the same key.

    Example:
        >>> list(named({"a": {"b": 1}})), list(named({"a/b": 1, "a": {"b": 2}}))
        (['a/b'], ["['a']['b']", "['a/b']"])
    """
    found = {name or "value": leaf for name, leaf in tree.named_leaves(values).items()}
    count = len(jax.tree.leaves(values))
    if len(found) == count and all(map(_is_name, found)):
        return found
    paths = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(values)]
    found = dict(paths)
    if len(found) < count:
        names = [name for name, _ in paths]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"checkpoint: two leaves are called {_shown(twice)}. Give the children of a node other keys.")
    return found


def is_key(leaf: Any) -> bool:
    """Whether a leaf has typed keys."""
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def require_storable(values: PyTree) -> None:
    """Raise unless each leaf comes back from a file as it is.

    Raises:
        TypeError: a leaf that is no array, typed key or number, or one of which a part would be lost.
        ValueError: too long a name, too many leaves, impossible shapes.

    Example:
        >>> require_storable({"name": "mlp"})
        Traceback (most recent call last):
        TypeError: checkpoint: name must be an array, a typed key or a number, got str. Leave it out; ...
    """
    leaves = named(values)
    if len(leaves) >= npz.MAX_ARRAYS:
        raise ValueError(
            f"checkpoint: a file holds fewer than {npz.MAX_ARRAYS:,} leaves, got {len(leaves):,}. Stack them."
        )
    for name, leaf in leaves.items():
        if (size := len(name.encode())) > NAME_BYTES:
            raise ValueError(
                f"checkpoint: {_shown(name)} is a name of {size:,} bytes, expected at most {NAME_BYTES:,}. "
                "Shorten the keys on its path."
            )
        _require_leaf(_shown(name), leaf)


def _require_leaf(name: str, leaf: Any) -> None:
    if is_key(leaf):
        if str(leaf.dtype) not in IMPLEMENTATIONS:
            known = ", ".join(IMPLEMENTATIONS.values())
            raise TypeError(
                f"checkpoint: {name} has {leaf.dtype}, expected keys of {known}. Write jax.random.key_data(keys)."
            )
        return
    if isinstance(leaf, jax.Array):
        return
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        if np.asarray(leaf).dtype.kind == "O":
            raise TypeError(
                f"checkpoint: {name} must have at most 64 bits, got the integer {reprlib.repr(leaf)}. Keep it in "
                "about=, which is JSON."
            )
        return
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(
            f"checkpoint: {name} must be a plain array, got a masked one, whose mask would be lost. Write its data and "
            "its mask as two leaves."
        )
    if isinstance(leaf, np.ndarray) and type(leaf) not in (np.ndarray, np.memmap):
        raise TypeError(
            f"checkpoint: {name} must be a plain array, got {type(leaf).__name__}, whose class would be lost. Pass "
            "np.asarray(x)."
        )
    if not isinstance(leaf, np.ndarray | np.generic):
        raise TypeError(
            f"checkpoint: {name} must be an array, a typed key or a number, got {type(leaf).__name__}. Leave it out; "
            "texts may go into about=, and equinox.filter(module, equinox.is_array) has the arrays of a module."
        )
    if leaf.dtype.kind not in "biufc" and leaf.dtype.isbuiltin != 2:  # 2: bfloat16, int4, ...
        raise TypeError(
            f"checkpoint: {name} must have a dtype of numbers or bools, got {leaf.dtype}. Convert it, e.g. "
            "x.view(np.int64) of dates, or leave it out."
        )
    if not npz.is_possible(leaf.shape):
        raise ValueError(
            f"checkpoint: {name} has shape {leaf.shape}, expected at most {npz.MAX_AXES} axes. Reshape it."
        )


def _is_name(name: str) -> bool:
    """Whether a zip archive keeps a name: it ends at a null byte, and must be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name != ABOUT and "\0" not in name


def _shown(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
