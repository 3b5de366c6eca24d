"""The gated recurrent unit: a recurrent layer whose update is a weighted mean of the old state and a candidate.

Texts that write W a for a column a have W = w', U = u', (out, in); here rows are examples, w and u are (in, out).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_positive_int
from jaxnn.initializers import Initializer, lecun_normal, orthogonal, zeros
from jaxnn.layers.base import Layer, param
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
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = RecurrentKind("gru")
ORTHOGONAL = orthogonal()


def init(
    key: Key,
    features: int,
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
    reset_after: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D, 3H), "u": (H, 3H), "b": (3H,), "b_u": (H,)}; without biases if `b_init` is None.

    Blocks of H columns, in this order: reset gate r, update gate z, candidate n. "b_u" is the bias of h u in the
    candidate, inside the reset; with `reset_after=False` there is none.

    Args:
        features, hidden: D and H.
        w_init, u_init: initializers of each block, by default N(0, 1 / D) and orthogonal.
        b_init: initializer of b and b_u.
        reset_after: as in `apply`.
        dtype: of all.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), 3, 4))
        {'b': (12,), 'b_u': (4,), 'u': (4, 12), 'w': (3, 12)}
    """
    d, h = require_positive_int("gru", "features", features), require_positive_int("gru", "hidden", hidden)
    w_key, u_key, b_key, b_u_key = jax.random.split(key, 4)
    params = {"w": blocks(w_key, w_init, d, h, 3, dtype), "u": blocks(u_key, u_init, h, h, 3, dtype)}
    if b_init is not None:
        params["b"] = b_init(b_key, (3 * h,), dtype)
        if reset_after:
            params["b_u"] = b_init(b_u_key, (h,), dtype)
    return params


def apply(
    params: Params, x: Array, *, carry: Carry | None = None, mask: Array | None = None, reset_after: bool = True
) -> tuple[Array, Carry]:
    """The gated recurrent unit, from h_0 = 0 or the carry; blocks a_r, a_z, a_n of x_t w + b, and u_r, u_z, u_n of u.

    r = sigmoid(a_r + h_(t-1) u_r),   z = sigmoid(a_z + h_(t-1) u_z)
    n = tanh(a_n + r (h_(t-1) u_n + b_u))     reset after the product, one product for all three
    n = tanh(a_n + (r h_(t-1)) u_n)           reset before it, as published
    h_t = (1 - z) n + z h_(t-1)

    Some texts exchange z and 1 - z.

    Args:
        params: {"w": (D, 3H), "u": (H, 3H)} and, optionally, "b" (3H,), "b_u" (H,). torch's order of the gates is the
            same: its weight_ih is w', weight_hh u'; of bias_ih and bias_hh, b is the sum for r and z and bias_ih for n,
            and b_u is bias_hh for n.
        x: (N, T, D), floating.
        carry: {"h": (N, H)}, what position 0 starts from; None for zeros.
        mask: (N, T) bools; where False, x is not read, h is held and the output is 0.
        reset_after: the default is that of cuDNN and torch.

    Returns:
        The outputs h (N, T, H) in the promoted dtype of x and w, and the last carry. The carry is float32 (float64 for
        float64) between positions, and rounded to the dtype of u for the product.

    Reference: Cho, K., van Merrienboer, B., Gulcehre, C., et al. (2014). Learning phrase representations using RNN
        encoder-decoder for statistical machine translation, equations 5 to 8.

    Example:
        >>> params = {"w": jnp.zeros((1, 3)), "u": jnp.zeros((1, 3))}
        >>> apply(params, jnp.ones((1, 3, 1)), carry={"h": jnp.full((1, 1), 8.0)})[0].ravel()
        Array([4., 2., 1.], dtype=float32)
    """
    return unrolled(params, x, carry, mask, reset_after)[:2]


def unrolled(
    params: Params, x: Array, carry: Carry | None = None, mask: Array | None = None, reset_after: bool = True
) -> tuple[Array, Carry, History]:
    """`apply`, and the history: of each position r, z, n are kept, and with `reset_after` m = h u_n + b_u: (N, 4H).

    Example:
        >>> params = {"w": jnp.zeros((1, 3)), "u": jnp.zeros((1, 3))}
        >>> unrolled(params, jnp.ones((1, 3, 1)))[2].kept[0]
        Array([[0.5, 0.5, 0. , 0. ]], dtype=float32)
    """
    hidden = param("gru", params, "u").shape[0]
    step = _reset_after if reset_after else functools.partial(_reset_before, 2 * hidden)
    return run("gru", step, params, x, carry, mask, KIND.carry)


def _reset_after(params: Params, carry: Carry, a: Array) -> tuple[Carry, Array]:
    h = carry["h"]
    (a_r, a_z, a_n), (g_r, g_z, m) = split(a, 3), split(recurrent_product(params["u"], h), 3)
    m = add_bias(m, params["b_u"]) if "b_u" in params else m
    r, z = lax.logistic(a_r + g_r), lax.logistic(a_z + g_z)
    n = jnp.tanh(a_n + r * m)
    return {"h": n + z * (h - n)}, jnp.concatenate([r, z, n, m], axis=-1)


def _reset_before(gates: int, params: Params, carry: Carry, a: Array) -> tuple[Carry, Array]:
    h, u = carry["h"], params["u"]
    a_r, a_z, a_n = split(a, 3)
    g_r, g_z = split(recurrent_product(u[:, :gates], h), 2)
    r, z = lax.logistic(a_r + g_r), lax.logistic(a_z + g_z)
    n = jnp.tanh(a_n + recurrent_product(u[:, gates:], r * h))
    return {"h": n + z * (h - n)}, jnp.concatenate([r, z, n], axis=-1)


def GRU(
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
    reset_after: bool = True,
) -> Layer:
    """The gated recurrent unit, (N, T, D) -> (N, T, H); the equations are at `gru.apply`.

    Its state is `()`, and every sequence starts from h = 0; or the carry, see `models.begin`.

    Args:
        hidden: H.
        w_init, u_init, b_init: as in `init`; `b_init=None` omits the biases.
        reset_after: whether the reset gate acts after the recurrent product, as in cuDNN and torch, or before it.

    Example:
        >>> layer = GRU(4)
        >>> params, state = layer.init(jax.random.key(0), (5, 3))
        >>> layer.predict(params, state, jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
    """
    inits = {"w_init": w_init, "u_init": u_init, "b_init": b_init}
    return recurrent_layer(
        KIND,
        functools.partial(init, reset_after=bool(reset_after)),
        apply,
        hidden,
        inits,
        {"reset_after": bool(reset_after)},
    )
