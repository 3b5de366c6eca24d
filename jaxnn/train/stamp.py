"""A digest of a traced program and its data, by which a folder knows the runs that it holds."""

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
    """The same for the same program and data, in any process.

    Args:
        program: traced anew: `jax.jit` gives the old trace of a function whose globals have changed since.
        data: pytree of arrays and typed keys.

    Raises:
        ValueError: the program calls a Python function, which nothing tells from another of the same name.

    Example:
        >>> one, two = (jax.make_jaxpr(lambda x, b=b: b * x)(1.0) for b in (1.0, 2.0))
        >>> stamp(one, ()) == stamp(one, ()), stamp(one, ()) == stamp(two, ())
        (True, False)
    """
    # Addresses of functions differ from process to process.
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())
    for leaf in (*jax.tree.leaves(data), *_arrays(program)):
        keys = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        values = np.asarray(jax.random.key_data(leaf) if keys else leaf)
        digest.update(f"{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _arrays(part: Any) -> Iterator[Any]:
    """The arrays in a part of a program: its text has their shapes alone, and those of inner programs are not lifted
    out of them.
    """
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
        case Literal() if np.ndim(part.val):  # of scalars the text has the value
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
            f"{getattr(function, '__name__', function)}: whether a later call's is the same function cannot be told, "
            "and old runs could be given back for new ones. Leave out folder=, or compute its values before and pass "
            "them in inputs or shared."
        )
