"""Random keys in the states of optimizers, kept as arrays of uint32 that every format of checkpoints can hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key
from jaxnn.types import Array, Key


def given_key(where: str, key: Any) -> Key:
    """A typed random key from a typed key, an integer, or the raw data of a key.

    Raises:
        ValueError: None.
        TypeError: none of these; raw data of another generator than the default one.
    """
    if key is not None and not isinstance(key, str):
        kind, shape = jnp.result_type(key), jnp.shape(key)
        if shape == () and jnp.issubdtype(kind, jnp.integer):
            return jax.random.key(key)
        if kind == jnp.uint32 and shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))
    require_key(where, key)
    return key


def raw_key(key: Key) -> Array:
    """The data of a typed key, uint32, as a state keeps it: a copy, so that the state may be donated."""
    return jnp.array(jax.random.key_data(key), copy=True)


def typed_key(kept: Array, first: Key) -> Key:
    """The typed key of what a state keeps, of the generator of the first key; a typed one from an old state stays."""
    if jnp.issubdtype(kept.dtype, jax.dtypes.prng_key):
        return kept
    return jax.random.wrap_key_data(kept, impl=jax.random.key_impl(first))
