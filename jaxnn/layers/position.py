"""Position encodings added to the features: learned, or sines and cosines.

Rotary encodings and ALiBi act inside attention: see `Attention`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_floating, require_positive_int
from jaxnn.initializers import Initializer, normal
from jaxnn.layers.base import Kind, Layer, param, param_dtype
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar, State

LEARNED, SINUSOIDAL = Kind("learned_positions"), Kind("sinusoidal_positions")
SMALL = normal(0.02)


def add_learned(params: Params, x: Array, first: Scalar = 0) -> Array:
    """y_nt = x_nt + w_(first + t).

    Args:
        params: {"w": (L, D)}.
        x: (N, T, D), floating, with T <= L.
        first: position of x_n0; may be traced, and is then not checked.

    Raises:
        ValueError: more positions than L, or other features than D.

    Reference: Gehring, J., Auli, M., Grangier, D., Yarats, D. & Dauphin, Y. N. (2017). Convolutional sequence to
        sequence learning, section 3.1.

    Example:
        >>> add_learned({"w": jnp.array([[1.0], [2.0], [3.0]])}, jnp.zeros((1, 2, 1))).ravel()
        Array([1., 2.], dtype=float32)
    """
    w = param("learned_positions", params, "w")
    require_features("learned_positions", x, w.shape[1])
    last = x.shape[1] + (first if isinstance(first, int) else 0)
    if last > w.shape[0]:
        raise ValueError(
            f"learned_positions: x has {last} positions, but the layer was made for {w.shape[0]}. Make it with "
            f"LearnedPositions({last}), or cut x; rotary encodings and ALiBi take any length."
        )
    start = jnp.asarray(first, jnp.int32)
    rows = lax.dynamic_slice_in_dim(w, start, x.shape[1]) if not isinstance(first, int) else w[first:last]
    return (accumulate(x) + accumulate(rows)[None]).astype(jnp.promote_types(x.dtype, w.dtype))


def add_sinusoidal(x: Array, first: Scalar = 0, *, base: Scalar = 10_000.0) -> Array:
    """y_t = x_t + p_t, with p_(t, 2i) = sin(t base^(-2i/D)) and p_(t, 2i + 1) = cos(t base^(-2i/D)).

    Args:
        x: (N, T, D), floating, D even.
        first: position of x_n0; may be traced.
        base: see the formula.

    Reference: Vaswani, A. et al. (2017). Attention is all you need, section 3.5.

    Example:
        >>> add_sinusoidal(jnp.zeros((1, 2, 2)))[0]
        Array([[0.        , 1.        ],
               [0.84147096, 0.5403023 ]], dtype=float32)
    """
    return (accumulate(x) + sinusoids(x, first, base)[None]).astype(x.dtype)


def sinusoids(x: Array, first: Scalar, base: Scalar) -> Array:
    """The encodings p (T, D) for x (N, T, D).

    Example:
        >>> sinusoids(jnp.zeros((1, 1, 4)), 0, 10_000.0)
        Array([[0., 1., 0., 1.]], dtype=float32)
    """
    require_features("sinusoidal_positions", x, x.shape[-1])
    features, dtype = x.shape[-1], accumulation_dtype(x.dtype)
    if features % 2:
        raise ValueError(f"sinusoidal_positions: the number of features must be even, got {features}.")
    places = (jnp.arange(x.shape[1], dtype=jnp.int32) + jnp.asarray(first, jnp.int32)).astype(dtype)
    rates = jnp.asarray(base, dtype) ** -(jnp.arange(0, features, 2, dtype=dtype) / features)
    turns = places[:, None] * rates[None]
    return jnp.stack([jnp.sin(turns), jnp.cos(turns)], axis=-1).reshape(x.shape[1], features)


def require_features(where: str, x: Array, features: int) -> None:
    """Raise unless x is (N, T, features), floating."""
    require_floating(where, "x", x.dtype, "Put Embedding in front for tokens.")
    if x.ndim != 3 or x.shape[-1] != features:
        raise ValueError(f"{where}: x must have shape (N, T, {features}), got {x.shape}.")


def LearnedPositions(length: int, *, w_init: Initializer = SMALL, dtype: DTypeLike | None = None) -> Layer:
    """A learned vector per position, added to inputs (N, T, D) with T <= length.

    Args:
        length: L, the largest number of positions.
        w_init: initializer of w (L, D), by default N(0, 0.02^2).
        dtype: of w; None for that of the example.

    Example:
        >>> import jax
        >>> layer = LearnedPositions(10)
        >>> params, state = layer.init(jax.random.key(0), (5, 4))
        >>> params["w"].shape, layer.predict(params, state, jnp.ones((2, 7, 4))).shape
        ((10, 4), (2, 7, 4))
    """
    length = require_positive_int("LearnedPositions", "length", length)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        return {"w": w_init(key, (length, example.shape[-1]), dtype or param_dtype(example))}, ()

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        return add_learned(params, x, first_of(state)), after(state, x)

    return Layer(init, apply, LEARNED, MappingProxyType({"length": length, "w_init": w_init}))


def SinusoidalPositions(*, base: Scalar = 10_000.0) -> Layer:
    """Sines and cosines of the position, added to inputs (N, T, D), D even; see `add_sinusoidal`.

    Example:
        >>> SinusoidalPositions().predict((), (), jnp.zeros((1, 3, 4))).shape
        (1, 3, 4)
    """

    def init(key: Key, example: Any) -> tuple[Params, State]:
        return (), ()

    def apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        return add_sinusoidal(x, first_of(state), base=base), after(state, x)

    return Layer(init, apply, SINUSOIDAL, MappingProxyType({"base": base}))


def start() -> State:
    """The state that counts the positions before, for decoding."""
    return {"length": jnp.zeros((), jnp.int32)}


def first_of(state: State) -> Scalar:
    """The position of the first input: in decoding, the number of those before it."""
    return state["length"] if state else 0


def after(state: State, x: Array) -> State:
    """The state after x (N, T, D)."""
    return {"length": state["length"] + x.shape[1]} if state else state
