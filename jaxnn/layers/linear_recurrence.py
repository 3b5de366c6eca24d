"""The gated linear recurrence: a recurrent layer whose positions are computed in parallel.

Texts that write W a for a column a have W = w', (out, in); here rows are examples and w is (in, out).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_number, require_positive_int
from jaxnn.initializers import Initializer, lecun_normal, zeros
from jaxnn.layers.base import Layer
from jaxnn.layers.recurrence import (
    Carry,
    History,
    RecurrentKind,
    biased,
    blocks,
    cast_like,
    first_carry,
    input_product,
    output_dtype,
    recurrent_layer,
    split,
)
from jaxnn.layers.sequences import only
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND = RecurrentKind("linear_recurrence")


def init(
    key: Key,
    features: int,
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    b_init: Initializer | None = zeros,
    forget_bias: Scalar = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D, 2H), "b": (2H,)}; without "b" if `b_init` is None.

    Blocks of H columns, in this order: forget gate f, value v.

    Args:
        features, hidden: D and H.
        w_init: initializer of each block, by default N(0, 1 / D).
        b_init: initializer of b.
        forget_bias: added to the forget gate's bias, as in the LSTM.
        dtype: of both.

    Example:
        >>> params = init(jax.random.key(0), 3, 2)
        >>> params["w"].shape, params["b"]
        ((3, 4), Array([1., 1., 0., 0.], dtype=float32))
    """
    where = "linear_recurrence"
    d, h = require_positive_int(where, "features", features), require_positive_int(where, "hidden", hidden)
    require_number(where, "forget_bias", forget_bias)
    w_key, b_key = jax.random.split(key)
    params = {"w": blocks(w_key, w_init, d, h, 2, dtype)}
    if b_init is None:
        return params
    return params | {"b": b_init(b_key, (2 * h,), dtype).at[:h].add(jnp.asarray(forget_bias, dtype))}


def apply(params: Params, x: Array, *, carry: Carry | None = None, mask: Array | None = None) -> tuple[Array, Carry]:
    """A running mean of values with gates that depend on the input alone, from h_0 = 0 or the carry.

    f_t, v_t = x_t w + b, split into two blocks
    h_t = sigmoid(f_t) h_(t-1) + (1 - sigmoid(f_t)) v_t

    Linear in h, element by element: all positions are computed in O(log T) steps by an associative scan over the pairs
    (a, c) of h -> a h + c, whose composition is (a_1, c_1) then (a_2, c_2) = (a_1 a_2, a_2 c_1 + c_2).

    Args:
        params: {"w": (D, 2H)} and, optionally, "b" (2H,).
        x: (N, T, D), floating.
        carry: {"h": (N, H)}, what position 0 starts from; None for zeros.
        mask: (N, T) bools; where False, x is not read, h is held and the output is 0.

    Returns:
        The outputs h (N, T, H) in the promoted dtype of x and w, and the last carry; h is float32 (float64 for float64)
        between positions.

    References:
        Martin, E. & Cundy, C. (2018). Parallelizing linear recurrent neural nets over sequence length (there the gated
        impulse linear recurrence, with a nonlinearity on v).
        Feng, L., Tung, F., Ahmed, M. O., Bengio, Y. & Hajimirsadeghi, H. (2024). Were RNNs all we needed? (there the
        minGRU).

    Example:
        >>> params = {"w": jnp.array([[0.0, 1.0]])}
        >>> apply(params, jnp.array([[[4.0], [0.0], [8.0]]]))[0].ravel()
        Array([2. , 1. , 4.5], dtype=float32)
    """
    return unrolled(params, x, carry, mask)[:2]


def unrolled(
    params: Params, x: Array, carry: Carry | None = None, mask: Array | None = None
) -> tuple[Array, Carry, History]:
    """`apply`, and the history: of each position the pair (sigmoid(f), v) is kept, each (N, H).

    Example:
        >>> unrolled({"w": jnp.array([[0.0, 1.0]])}, jnp.ones((1, 2, 1)))[2].kept[0].shape
        (2, 1, 1)
    """
    where = "linear_recurrence"
    x, z = input_product(where, params, x, mask)
    f, v = split(biased(params, z), 2)
    f = lax.logistic(f)
    first = first_carry(where, carry, z, {"h": f.shape[2]}, params)["h"]
    counts = None if mask is None else mask.T
    kept, added = held_factor(f, counts), only(counts, (1 - f) * v)
    through, h = lax.associative_scan(composed, (kept, added))
    if carry is not None:
        h = h + through * first[None]
    before = jnp.concatenate([first[None], h[:-1]])
    y = only(mask, jnp.swapaxes(h, 0, 1).astype(output_dtype(params, x)))
    return y, cast_like({"h": h[-1]}, carry), History(x, {"h": before}, (f, v), counts)


def held_factor(f: Array, counts: Array | None) -> Array:
    """The factors of h (T, N, H): f, and 1 where masked."""
    return f if counts is None else jnp.where(counts[..., None], f, jnp.ones((), f.dtype))


def composed(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
    """The map h -> a h + c of `first`, followed by that of `then`."""
    (a_1, c_1), (a_2, c_2) = first, then
    return a_1 * a_2, a_2 * c_1 + c_2


def LinearRecurrence(
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    b_init: Initializer | None = zeros,
    forget_bias: Scalar = 1.0,
) -> Layer:
    """The gated linear recurrence, (N, T, D) -> (N, T, H), parallel over positions; see `linear_recurrence.apply`.

    Its state is `()`, and every sequence starts from h = 0; or the carry, see `models.begin`.

    Args:
        hidden: H.
        w_init, b_init, forget_bias: as in `init`; `b_init=None` omits the bias.

    Example:
        >>> layer = LinearRecurrence(4)
        >>> params, state = layer.init(jax.random.key(0), (5, 3))
        >>> layer.predict(params, state, jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
    """
    inits = {"w_init": w_init, "b_init": b_init, "forget_bias": forget_bias}
    return recurrent_layer(KIND, init, apply, hidden, inits)
