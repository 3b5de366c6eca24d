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
        TypeError: not an array, typed random keys, or a tensor without plain values: sparse, quantized, on "meta".
        ValueError: of several processes, this one has only a part of the array.

    Example:
        >>> host_array("save", "w", jnp.ones(2, jnp.bfloat16)).dtype
        dtype(bfloat16)
    """
    if hasattr(value, "detach"):
        return _of_tensor(where, name, value)
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


def _of_tensor(where: str, name: str, tensor: Any) -> np.ndarray[Any, Any]:
    """A tensor on the host."""
    if getattr(tensor, "is_meta", False):
        raise TypeError(
            f"{where}: {name!r} must have values, got a tensor on the device meta. Materialize it: "
            'module.to_empty(device="cpu"), then load its weights.'
        )
    if getattr(tensor, "is_quantized", False):
        raise TypeError(f"{where}: {name!r} must be plain, got {tensor.dtype}. Pass tensor.dequantize().")
    if getattr(tensor, "is_nested", False):
        raise TypeError(f"{where}: {name!r} must be one array, got a nested tensor. Pass its parts, tensor.unbind().")
    if (layout := str(getattr(tensor, "layout", "torch.strided"))) != "torch.strided":
        raise TypeError(f"{where}: {name!r} must be dense, got the layout {layout}. Pass tensor.to_dense().")
    try:
        return _values(tensor)
    except Exception as error:  # torch and JAX raise all kinds: a lazy parameter, a dtype that JAX has not
        told = " ".join(str(error).split())
        raise TypeError(
            f"{where}: {name!r} must be a plain tensor, got {type(tensor).__name__} of {tensor.dtype} ({told:.100}). "
            "Initialize it, or convert it to a dtype of NumPy."
        ) from error


def _values(tensor: Any) -> np.ndarray[Any, Any]:
    """The values of a dense tensor; NumPy itself has no bfloat16 and 8-bit floats."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()  # views that have yet to be conjugated or negated
    try:
        return plain.numpy()
    except TypeError:
        return np.asarray(jnp.from_dlpack(plain.contiguous()))
