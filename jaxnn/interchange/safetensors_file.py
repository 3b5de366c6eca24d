"""Pytrees of arrays in safetensors files, the format of Hugging Face: a header of names, dtypes and shapes, then bytes.

The package `safetensors` is an extra; nothing of it is imported before a file is written or read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import nearest_name
from jaxnn.files import write_bytes
from jaxnn.interchange.host import host_array
from jaxnn.tree import named_leaves
from jaxnn.types import PyTree

DTYPES = {
    "BOOL": "bool", "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""The dtypes of the format, by its codes, that NumPy has too (by `ml_dtypes`, which comes with JAX)."""

LISTED = 8
"""How many differences a message lists."""


def save_safetensors(path: str | os.PathLike[str], tree: PyTree, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a pytree of arrays to a safetensors file, and return its path.

    Names are the paths of `tree.named_leaves`, joined with "/": `({"w": x}, {"scale": s})` has "0/w" and "1/scale"; a
    flat dict keeps its keys, so that `to_torch` and `save_safetensors` together write a file for PyTorch. The file is
    written completely or not at all.

    Args:
        path: of the file, usually with the suffix .safetensors; the folder must exist.
        tree: arrays of JAX, NumPy or PyTorch, of any dtype of the format: bools, integers of 8 to 64 bits, float16,
            bfloat16, float32, float64, complex64, and the 8-bit floats e4m3fn, e5m2, e8m0fnu, e4m3fnuz, e5m2fnuz.
            Arrays that are sharded over devices are gathered.
        metadata: texts by name, stored in the header; see `safetensors_metadata`.

    Raises:
        ImportError: the package `safetensors` is not installed.
        OSError: the file could not be written (`files.UnwrittenError`); an existing one is unchanged.
        TypeError: a leaf is not an array, has typed random keys or a dtype that the format has not; metadata that are
            not texts.
        ValueError: two leaves have one name, or a name that the format reserves.

    Example:
        >>> save_safetensors("model.safetensors", {"w": jnp.eye(2)})  # doctest: +SKIP
        PosixPath('model.safetensors')
    """
    where = "save_safetensors"
    library = _library(where)
    arrays = {name: _stored(where, name, leaf) for name, leaf in _named(where, tree).items()}
    if "__metadata__" in arrays:
        raise ValueError(f"{where}: the name '__metadata__' is reserved by the format. Rename it.")
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{where}: metadata must map texts to texts, got {key!r}: {text!r}. Convert it by str().")
    # Of no arrays and metadata {} the library (0.8) makes a file that it cannot read.
    return write_bytes(path, library.numpy.save(arrays, metadata=dict(metadata) if metadata else None))


def load_safetensors(path: str | os.PathLike[str], like: PyTree = None) -> PyTree:
    """The arrays in a safetensors file, whoever wrote it.

    Args:
        path: of the file.
        like: a pytree of arrays or `jax.ShapeDtypeStruct`, such as `jax.eval_shape` returns: names, shapes and dtypes
            must be equal to its own. None takes any.

    Returns:
        A pytree with the structure of `like`: JAX arrays with the shardings of its leaves, where these have one, and
        NumPy arrays where they are NumPy's. Without `like` a dict name -> NumPy array: no dtype is changed (JAX has no
        float64 unless jax_enable_x64 is set), and nothing is placed on a device.

    Raises:
        ImportError: the package `safetensors` is not installed.
        OSError: the file does not exist (FileNotFoundError) or cannot be read.
        ValueError: one line with the file's name: damaged, truncated, not a safetensors file, a dtype that NumPy has
            not; or a list of names, shapes and dtypes that differ from `like`.

    Example:
        >>> params, state = load_safetensors("model.safetensors", like=(params, state))  # doctest: +SKIP
    """
    where = "load_safetensors"
    library = _library(where)
    content = Path(path).read_bytes()
    with _readable(path, library):
        found = dict(library.deserialize(content))
    for name, one in found.items():
        if one["dtype"] not in DTYPES:
            raise ValueError(f"{os.fspath(path)}: {name!r} has dtype {one['dtype']}, which NumPy has not.")
    arrays = {
        name: np.frombuffer(one["data"], np.dtype(DTYPES[one["dtype"]])).reshape(one["shape"])
        for name, one in sorted(found.items())
    }
    if like is None:
        return arrays
    wanted = _named(where, like)
    if faults := _differences(where, wanted, arrays):
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise ValueError(
            f"{where}: {os.fspath(path)} does not hold a pytree like `like`: {'; '.join(faults[:LISTED])}{more}. "
            "Without `like` all arrays are returned as they are, by name."
        )
    placed = [_placed(where, name, arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def safetensors_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata in a safetensors file, texts by name; only its header is read.

    Raises:
        ImportError, OSError, ValueError: as `load_safetensors`.

    Example:
        >>> safetensors_metadata("model.safetensors")  # doctest: +SKIP
        {'format': 'pt'}
    """
    library = _library("safetensors_metadata")
    open(path, "rb").close()  # one kind of error for a file that is not there, or a folder
    with _readable(path, library), library.safe_open(os.fspath(path), "np") as file:
        return dict(file.metadata() or {})


def _library(where: str) -> Any:
    """The package `safetensors`."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{where}: needs the package safetensors. Install it: pip install 'jaxnn[safetensors]'."
        ) from error
    return safetensors


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str], library: Any) -> Iterator[None]:
    """Turn the library's errors about the content of a file into one ValueError with the file's name."""
    try:
        yield
    except (library.SafetensorError, UnicodeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{os.fspath(path)} is not a safetensors file that can be read; it is damaged or truncated: {told}."
        ) from None


def _named(where: str, tree: PyTree) -> dict[str, Any]:
    """The leaves by name; ValueError if two have one name."""
    named = named_leaves(tree)
    if len(named) < len(jax.tree.leaves(tree)):
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]
        twice = next((path for path in paths if paths.count(path) > 1), "")
        raise ValueError(f"{where}: two leaves are called {twice!r}. Rename a key of a dict.")
    return named


def _stored(where: str, name: str, leaf: Any) -> np.ndarray[Any, Any]:
    """A leaf as the library takes it: contiguous, little-endian, of a dtype of the format."""
    array = host_array(where, name, leaf)
    if array.dtype.name not in DTYPES.values():
        raise TypeError(
            f"{where}: {name!r} has dtype {array.dtype}, which the format has not. It has {', '.join(DTYPES.values())}."
        )
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _differences(where: str, wanted: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[str]:
    """What a file has other than the leaves of `like`."""
    faults = []
    for name, leaf in wanted.items():
        if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{where}: the leaf {name!r} of like must be an array or jax.ShapeDtypeStruct, and no typed random "
                f"keys, got {leaf!r:.60}."
            )
        if name not in arrays:
            faults.append(f"{name!r} is missing{nearest_name(name, arrays)}")
        elif (arrays[name].shape, arrays[name].dtype) != (leaf.shape, leaf.dtype):
            expected, got = (f"{x.dtype}{list(x.shape)}" for x in (leaf, arrays[name]))
            faults.append(f"{name!r} must be {expected}, got {got}")
    return faults + [f"{name!r} is not expected" for name in arrays if name not in wanted]


def _placed(where: str, name: str, array: np.ndarray[Any, Any], leaf: Any) -> Any:
    """An array like the leaf of `like`: of NumPy, or of JAX with its sharding."""
    if isinstance(leaf, np.ndarray | np.generic):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"{where}: {name!r} is {array.dtype}, which JAX has only if jax_enable_x64 is set. Set it, or use a NumPy "
            "array in `like`."
        )
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return jnp.array(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
