"""A digest of a traced program and its data, which identifies the runs in a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxnn.types import PyTree

HOSTS = ("pure_callback", "io_callback")
"""Operations whose results come from a Python function; those of `jax.debug` return nothing."""


def stamp(program: ClosedJaxpr, data: PyTree) -> str:
    """A SHA-256 digest that is equal for the same program and data, in any process.

    Args:
        program: freshly traced: `jax.jit` returns the cached trace of a function even if its globals have changed.
        data: pytree of arrays and typed keys.

    Raises:
        ValueError: the program calls a Python function, whose identity cannot be checked.
    """
    # Function addresses differ between processes.
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())
    for leaf in (*jax.tree.leaves(data), *_arrays(program)):
        keys = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        values = np.asarray(jax.random.key_data(leaf) if keys else leaf)
        digest.update(f"{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _arrays(part: Any) -> Iterator[Any]:
    """The constant arrays of a program, inner programs included: its text shows only their shapes."""
    match part:
        case ClosedJaxpr() | Jaxpr():  # one class since JAX 0.12
            yield from getattr(part, "consts", ())
            inner = getattr(part, "jaxpr", part)
            for eqn in inner.eqns:
                _require_no_host(eqn)
                yield from _arrays((*eqn.invars, *eqn.params.values()))
            yield from _arrays(tuple(inner.outvars))
        case tuple() | list():
            for each in part:
                yield from _arrays(each)
        case Literal() if np.ndim(part.val):  # the text shows the value of a scalar
            yield part.val
        case np.ndarray() | jax.Array():
            yield part
        case export.Exported():
            yield np.frombuffer(part.mlir_module_serialized, np.uint8)


def _require_no_host(eqn: JaxprEqn) -> None:
    if eqn.primitive.name in HOSTS:
        function = getattr(eqn.params["callback"], "callback_func", eqn.params["callback"])
        raise ValueError(
            f"map_runs: with folder=, the program must not call Python, got {eqn.primitive.name} of "
            f"{getattr(function, '__name__', function)}: a later call may pass another function of this name, "
            "and runs of the old one would be returned for it. Omit folder=, or compute its values before and pass "
            "them in inputs or shared."
        )
