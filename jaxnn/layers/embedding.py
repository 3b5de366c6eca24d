"""Embedding: a learned vector per token of a vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn.checks import require_integer, require_positive_int
from jaxnn.initializers import Initializer, normal
from jaxnn.layers.base import Kind, Layer, stateless
from jaxnn.ops.gather import take_rows
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = Kind("embedding")
STANDARD_NORMAL = normal(1.0)
_REMEDY = (
    "Tokens are integers: x.astype(jnp.int32); at init, jax.ShapeDtypeStruct(shape, jnp.int32) stands for one example."
)


def init(
    key: Key, vocabulary: int, features: int, *, w_init: Initializer = STANDARD_NORMAL, dtype: DTypeLike = jnp.float32
) -> Params:
    """Parameters {"w": (V, D)}; by default w ~ N(0, 1), so that the outputs have unit variance.

    Args:
        vocabulary, features: V and D.
        w_init: initializer.
        dtype: of w.

    Example:
        >>> init(jax.random.key(0), 100, 8)["w"].shape
        (100, 8)
    """
    v = require_positive_int("embedding", "vocabulary", vocabulary)
    return {"w": w_init(key, (v, require_positive_int("embedding", "features", features)), dtype)}


def apply(params: Params, x: Array) -> Array:
    """y[n, ...] = w[x[n, ...]].

    Args:
        params: {"w": (V, D)}.
        x: (N, ...), integers in [0, V).

    Returns:
        (N, ..., D) in the dtype of w. A traced index outside [0, V), e.g. -1, gives a row of NaN.

    Raises:
        TypeError: x is not integer.
        ValueError: a concrete index lies outside [0, V).

    Reference: Bengio, Y., Ducharme, R., Vincent, P. & Jauvin, C. (2003). A neural probabilistic language model, section
        2.

    Example:
        >>> apply({"w": jnp.array([[1.0], [2.0]])}, jnp.array([1, 0, 1])).ravel()
        Array([2., 1., 2.], dtype=float32)
    """
    require_integer("embedding", "x", x.dtype, _REMEDY)
    return take_rows(params["w"], x)


def Embedding(
    vocabulary: int, features: int, *, w_init: Initializer = STANDARD_NORMAL, dtype: DTypeLike = jnp.float32
) -> Layer:
    """A learned vector of `features` numbers per token, on integer inputs (N, ...) in [0, vocabulary); see `init`.

    Example:
        >>> layer = Embedding(100, 8)
        >>> params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((5,), jnp.int32))
        >>> layer.predict(params, state, jnp.zeros((2, 5), jnp.int32)).shape
        (2, 5, 8)
    """
    require_positive_int("embedding", "vocabulary", vocabulary)
    require_positive_int("embedding", "features", features)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        require_integer("embedding", "an example", example.dtype, _REMEDY)
        return init(key, vocabulary, features, w_init=w_init, dtype=dtype)

    return stateless(KIND, apply, layer_init, vocabulary=vocabulary, features=features, w_init=w_init, dtype=dtype)
