"""The LSTM: a recurrent layer with a cell c that gates write, keep and read.

Texts that write W a for a column a have W = w', U = u', (out, in); here rows are examples, w and u are (in, out).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_number, require_positive_int
from jaxnn.initializers import Initializer, lecun_normal, orthogonal, zeros
from jaxnn.layers.base import Layer
from jaxnn.layers.recurrence import (
    Carry,
    History,
    RecurrentKind,
    blocks,
    recurrent_layer,
    recurrent_product,
    run,
    split,
)
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND = RecurrentKind("lstm", ("h", "c"))
ORTHOGONAL = orthogonal()


def init(
    key: Key,
    features: int,
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
    forget_bias: Scalar = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D, 4H), "u": (H, 4H), "b": (4H,)}; without "b" if `b_init` is None.

    Blocks of H columns, in this order: input gate i, forget gate f, candidate g, output gate o.

    Args:
        features, hidden: D and H.
        w_init, u_init: initializers of each block, by default N(0, 1 / D) and orthogonal.
        b_init: initializer of b.
        forget_bias: added to the forget gate's bias: the cell keeps sigmoid(1) = 0.73 at first, so that gradients reach
            back far enough to be learned from (Gers et al. 2000, section 3.2).
        dtype: of all three.

    Example:
        >>> params = init(jax.random.key(0), 3, 2)
        >>> params["w"].shape, params["u"].shape, params["b"]
        ((3, 8), (2, 8), Array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32))
    """
    d, h = require_positive_int("lstm", "features", features), require_positive_int("lstm", "hidden", hidden)
    require_number("lstm", "forget_bias", forget_bias)
    w_key, u_key, b_key = jax.random.split(key, 3)
    params = {"w": blocks(w_key, w_init, d, h, 4, dtype), "u": blocks(u_key, u_init, h, h, 4, dtype)}
    if b_init is None:
        return params
    return params | {"b": b_init(b_key, (4 * h,), dtype).at[h : 2 * h].add(jnp.asarray(forget_bias, dtype))}


def apply(params: Params, x: Array, *, carry: Carry | None = None, mask: Array | None = None) -> tuple[Array, Carry]:
    """The LSTM with forget gates, from h_0 = c_0 = 0 or the carry.

    i, f, g, o = x_t w + h_(t-1) u + b, split into four blocks
    c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

    Args:
        params: {"w": (D, 4H), "u": (H, 4H)} and, optionally, "b" (4H,). torch's order of the gates is the same: its
            weight_ih is w', weight_hh u', and b the sum of its two biases.
        x: (N, T, D), floating.
        carry: {"h": (N, H), "c": (N, H)}, what position 0 starts from; None for zeros.
        mask: (N, T) bools; where False, x is not read, h and c are held and the output is 0.

    Returns:
        The outputs h (N, T, H) in the promoted dtype of x and w, and the last carry. The carry is float32 (float64 for
        float64) between positions; h is rounded to the dtype of u for the product.

    References:
        Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory.
        Gers, F. A., Schmidhuber, J. & Cummins, F. (2000). Learning to forget: continual prediction with LSTM.

    Example:
        >>> params = {"w": jnp.zeros((1, 4)), "u": jnp.zeros((1, 4))}
        >>> carry = {"h": jnp.zeros((1, 1)), "c": jnp.full((1, 1), 8.0)}  # half of c is forgotten, half of tanh(c) read
        >>> apply(params, jnp.ones((1, 3, 1)), carry=carry)[1]["c"]
        Array([[1.]], dtype=float32)
    """
    return unrolled(params, x, carry, mask)[:2]


def unrolled(
    params: Params, x: Array, carry: Carry | None = None, mask: Array | None = None
) -> tuple[Array, Carry, History]:
    """`apply`, and the history: of each position the activations of the four gates (N, 4H) are kept.

    Example:
        >>> params = {"w": jnp.zeros((1, 4)), "u": jnp.zeros((1, 4))}
        >>> unrolled(params, jnp.ones((1, 3, 1)))[2].kept[0]
        Array([[0.5, 0.5, 0. , 0.5]], dtype=float32)
    """
    return run("lstm", _step, params, x, carry, mask, KIND.carry)


def _step(params: Params, carry: Carry, z: Array) -> tuple[Carry, Array]:
    i, f, g, o = split(z + recurrent_product(params["u"], carry["h"]), 4)
    i, f, g, o = lax.logistic(i), lax.logistic(f), jnp.tanh(g), lax.logistic(o)
    c = f * carry["c"] + i * g
    # One array of gates, not four: kept, XLA computes it once; else it computes the gates again wherever they are read.
    return {"h": o * jnp.tanh(c), "c": c}, jnp.concatenate([i, f, g, o], axis=-1)


def LSTM(
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
    forget_bias: Scalar = 1.0,
) -> Layer:
    """Long short-term memory, (N, T, D) -> (N, T, H); the equations are at `lstm.apply`.

    Its state is `()`, and every sequence starts from h = c = 0; or the carry, see `models.begin`.

    Args:
        hidden: H.
        w_init, u_init, b_init, forget_bias: as in `init`; `b_init=None` omits the bias.

    Example:
        >>> layer = LSTM(4)
        >>> params, state = layer.init(jax.random.key(0), (5, 3))
        >>> layer.predict(params, state, jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
    """
    inits = {"w_init": w_init, "u_init": u_init, "b_init": b_init, "forget_bias": forget_bias}
    return recurrent_layer(KIND, init, apply, hidden, inits)
