"""The switch of all kernels: off unless switched on."""

from __future__ import annotations

import contextlib

import jax

_context = jax.make_user_context(False)
"""Part of the key of JAX's caches: a function that was traced with kernels is traced anew without them."""


def use(on: bool) -> contextlib.AbstractContextManager[None]:
    """A context inside which functions are traced with kernels, or without.

    Switch them on only where every NVIDIA GPU of a program is of the Hopper generation (H100, H200): lowering knows
    that a program is for CUDA, not for which GPU, and others cannot run these kernels.

    Args:
        on: whether to use kernels. Inside nested contexts the innermost counts.

    Raises:
        TypeError: `on` is not a bool.

    Example:
        >>> with use(True):
        ...     used()
        True
        >>> used()
        False
    """
    if not isinstance(on, bool):
        raise TypeError(f"kernels.use: expected True or False, got {on!r}: with kernels.use(True): ...")
    context: contextlib.AbstractContextManager[None] = _context(on)
    return context


def used() -> bool:
    """Whether kernels are switched on here."""
    return bool(_context.value)
