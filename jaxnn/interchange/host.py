"""Arrays of JAX, NumPy and PyTorch as NumPy arrays on the host."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def host_array(where: str, name: str, value: Any) -> np.ndarray[Any, Any]:
    """An array as a NumPy array of the same dtype; an array sharded over several devices is gathered.

    Args:
        where, name: function and name of the array, for the message.
        value: an array of JAX or NumPy, a NumPy scalar, or a tensor of PyTorch, on any device.

    Raises:
        TypeError: not an array, or typed random keys.
        ValueError: of several processes, this one has only a part of the array.

    Example:
        >>> host_array("save", "w", jnp.ones(2, jnp.bfloat16)).dtype
        dtype(bfloat16)
    """
    if hasattr(value, "detach"):
        return _of_tensor(value.detach().cpu())
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise TypeError(
            f"{where}: {name!r} must be an array, got {type(value).__name__}. Convert numbers and lists: "
            "jnp.asarray(value)."
        )
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{where}: {name!r} has typed random keys. Pass their numbers: jax.random.key_data(keys).")
    if isinstance(value, jax.Array) and not (value.is_fully_addressable or value.is_fully_replicated):
        raise ValueError(
            f"{where}: this process has only a part of {name!r}. Gather it first: "
            "jax.experimental.multihost_utils.process_allgather(tree, tiled=True)."
        )
    return np.asarray(value)


def _of_tensor(tensor: Any) -> np.ndarray[Any, Any]:
    """A tensor on the host; NumPy itself has no bfloat16 and 8-bit floats."""
    try:
        return tensor.numpy()
    except TypeError:
        return np.asarray(jnp.from_dlpack(tensor.contiguous()))
