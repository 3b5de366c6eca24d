"""The simple recurrent layer, h_t = f(x_t w + h_(t-1) u + b).

Texts that write W a for a column a have W = w', U = u', (out, in); here rows are examples, w and u are (in, out).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn import activations
from jaxnn.checks import require_positive_int
from jaxnn.initializers import Initializer, lecun_normal, orthogonal, zeros
from jaxnn.layers.base import Layer
from jaxnn.layers.recurrence import Carry, History, RecurrentKind, recurrent_layer, recurrent_product, run
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = RecurrentKind("rnn")
ORTHOGONAL = orthogonal()


def init(
    key: Key,
    features: int,
    hidden: int,
    *,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (D, H), "u": (H, H), "b": (H,)}; without "b" if `b_init` is None.

    Args:
        features, hidden: D and H.
        w_init, u_init, b_init: initializers; by default w ~ N(0, 1 / D) and u is orthogonal.
        dtype: of all three.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), 3, 4))
        {'b': (4,), 'u': (4, 4), 'w': (3, 4)}
    """
    d, h = require_positive_int("rnn", "features", features), require_positive_int("rnn", "hidden", hidden)
    w_key, u_key, b_key = jax.random.split(key, 3)
    params = {"w": w_init(w_key, (d, h), dtype), "u": u_init(u_key, (h, h), dtype)}
    return params if b_init is None else params | {"b": b_init(b_key, (h,), dtype)}


def apply(
    params: Params,
    x: Array,
    *,
    carry: Carry | None = None,
    mask: Array | None = None,
    activation: Callable[[Array], Array] = activations.tanh,
) -> tuple[Array, Carry]:
    """h_t = f(x_t w + h_(t-1) u + b).

    Args:
        params: {"w": (D, H), "u": (H, H)} and, optionally, "b" (H,). torch's weight_ih is w', weight_hh u', and b the
            sum of its two biases.
        x: (N, T, D), floating.
        carry: {"h": (N, H)}, what position 0 starts from; None for zeros.
        mask: (N, T) bools; where False, x is not read, h is held and the output is 0.
        activation: f, `activations.tanh` or `activations.relu`.

    Returns:
        The outputs h (N, T, H) in the promoted dtype of x and w, and the last carry. The carry is float32 (float64 for
        float64) between positions, and rounded to the dtype of u for the product.

    Reference: Elman, J. L. (1990). Finding structure in time.

    Example:
        >>> params = {"w": jnp.ones((1, 1)), "u": jnp.ones((1, 1))}
        >>> apply(params, jnp.array([[[1.0], [1.0]]]), activation=activations.relu)[0].ravel()
        Array([1., 2.], dtype=float32)
    """
    return unrolled(params, x, carry, mask, activation)[:2]


def unrolled(
    params: Params,
    x: Array,
    carry: Carry | None = None,
    mask: Array | None = None,
    activation: Callable[[Array], Array] = activations.tanh,
) -> tuple[Array, Carry, History]:
    """`apply`, and the history: of each position h is kept.

    Example:
        >>> params = {"w": jnp.ones((1, 1)), "u": jnp.ones((1, 1))}
        >>> unrolled(params, jnp.ones((1, 2, 1)))[2].kept.shape
        (2, 1, 1)
    """

    def step(params: Params, carry: Carry, z: Array) -> tuple[Carry, Array]:
        h = activation(z + recurrent_product(params["u"], carry["h"]))
        return {"h": h}, h

    return run("rnn", step, params, x, carry, mask, KIND.carry)


def RNN(
    hidden: int,
    *,
    activation: Callable[[Array], Array] = activations.tanh,
    w_init: Initializer = lecun_normal,
    u_init: Initializer = ORTHOGONAL,
    b_init: Initializer | None = zeros,
) -> Layer:
    """The simple recurrent layer, (N, T, D) -> (N, T, H): h_t = f(x_t w + h_(t-1) u + b).

    Its state is `()`, and every sequence starts from h = 0; or the carry, see `models.begin`.

    Args:
        hidden: H.
        activation: f, `activations.tanh` or `activations.relu`.
        w_init, u_init, b_init: as in `init`; `b_init=None` omits the bias.

    Raises:
        ValueError: another activation.

    Example:
        >>> layer = RNN(4)
        >>> params, state = layer.init(jax.random.key(0), (5, 3))
        >>> layer.predict(params, state, jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
    """
    if activation not in (activations.tanh, activations.relu):
        raise ValueError(f"RNN: activation must be activations.tanh or activations.relu, got {activation!r}.")
    inits = {"w_init": w_init, "u_init": u_init, "b_init": b_init}
    return recurrent_layer(KIND, init, apply, hidden, inits, {"activation": activation})
