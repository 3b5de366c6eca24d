"""Random keys in optimizer states, kept as uint32 arrays that every checkpoint format can hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_key
from jaxnn.types import Array, Key


def given_key(where: str, key: Any) -> Key:
    """A typed random key from a typed key, an integer, or raw data of the default generator; None raises ValueError."""
    if key is not None and not isinstance(key, str):
        kind, shape = jnp.result_type(key), jnp.shape(key)
        if shape == () and jnp.issubdtype(kind, jnp.integer):
            return jax.random.key(key)
        if kind == jnp.uint32 and shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))
    require_key(where, key)
    return key


def raw_key(key: Key) -> Array:
    """The uint32 data of a typed key for a state; a copy, so that the state may be donated."""
    return jnp.array(jax.random.key_data(key), copy=True)


def typed_key(kept: Array, first: Key) -> Key:
    """The typed key of a state's key data, with the generator of `first`; a typed key of an old state is unchanged."""
    if jnp.issubdtype(kept.dtype, jax.dtypes.prng_key):
        return kept
    return jax.random.wrap_key_data(kept, impl=jax.random.key_impl(first))
