"""Rules of linear layers: dense, conv, transposed conv, embedding, flatten, reshape, upsample, dropout.

In index form, a is the input, z the output, delta = dC/dz its cotangent; n counts examples.

**Dense.** z_nk = sum_j a_nj w_jk + b_k (n also counts the positions within an example). Rows of a are examples and w is
(in, out): the W of z = W a + b for a column a is w', and its delta^l = (W^(l+1))' delta^(l+1) is here delta w'. By the
chain rule
dC/da_nj = sum_k (dC/dz_nk) (dz_nk/da_nj), and likewise for w and b:

    dC/da_nj = sum_k delta_nk w_jk          delta w'
    dC/dw_jk = sum_n a_nj delta_nk          a' delta
    dC/db_k  = sum_n delta_nk

**Convolution**, stride s, dilation d, low padding p; o are output positions, m input positions, k kernel positions:
z[n, o, c] = sum_(k, i) a[n, o s + k d - p, i] w[k, i, c] + b_c. An input position m enters every z[n, o] for which some
k has o s + k d - p = m, with the factor w[k]:

    dC/da[n, m, i] = sum over (o, k, c) with o s + k d - p = m of delta[n, o, c] w[k, i, c]
    dC/dw[k, i, c] = sum_(n, o) a[n, o s + k d - p, i] delta[n, o, c]
    dC/db_c        = sum_(n, o) delta[n, o, c]

With u = o s the first is sum_k up[m + p - k d] w[k], up = delta dilated by the stride: a convolution with the FLIPPED
kernel. With groups, i and c run over one group at a time.

**Transposed convolution**, z = A' a for the convolution A with the same window from C_out to C_in channels:
z[n, m, c] = sum over (o, k, i) with o s + k d - p = m of a[n, o, i] w[k, i, c]. An input a[n, o, i] enters z[n, m] with
w[k, i], m = o s + k d - p: its cotangent is the convolution of delta, and the gradient a times the patches of delta.

    dC/da[n, o, i] = sum_(k, c) delta[n, o s + k d - p, c] w[k, i, c]
    dC/dw[k, i, c] = sum_(n, o) a[n, o, i] delta[n, o s + k d - p, c]

**Embedding.** z_nt = w[index_nt], a product of one-hot rows with w: dC/dw[v] = sum of delta_nt over the (n, t) with
index_nt = v. Indices are integers and have no derivative.

**Flatten, reshape.** dC/dx is dC/dy reshaped back. **Upsampling** repeats each x_m; dC/dx_m is the sum over its copies.

**Dropout.** y = x m / (1 - rate), the mask m kept from the forward pass: dC/dx = dC/dy m / (1 - rate). The identity in
evaluation mode.

References:
    Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating errors.
    LeCun, Y., Boser, B., Denker, J. S., et al. (1989). Backpropagation applied to handwritten zip code recognition.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.backprop.rule import AtLogits, Cache, Collect, Rule, computed_once, keep_input, register
from jaxnn.layers import conv, conv_transpose, dense, dropout, embedding, flatten, reshape
from jaxnn.layers.base import Layer
from jaxnn.numerics import accumulate
from jaxnn.ops.conv import conv_input_grad, conv_value
from jaxnn.ops.matmul import add_bias, linear_input_grad
from jaxnn.ops.patches import conv_patches
from jaxnn.ops.views import Reshape, Transpose, View
from jaxnn.tape import Addition, Convolution, Lookup, Placed, Product, positions
from jaxnn.types import Array, Key, Params, PyTree, State


@dataclasses.dataclass(frozen=True)
class _Linear(Rule):
    """A rule that reads delta two or three times: for dC/da, dC/dw and dC/db."""

    def backward(
        self, layer: Layer, params: Params, cache: Cache, dy: Array | AtLogits, collect: Collect
    ) -> tuple[Array, PyTree]:
        delta: Any = computed_once(dy)
        return self.input_grad(layer, params, cache, delta), collect(self)(layer, params, cache, delta)


def _dense_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return linear_input_grad(params["w"], dy).astype(x.dtype)


def _dense_uses(layer: Layer, params: Params, x: Array, dy: Array) -> PyTree:
    delta = positions(dy)
    return {"w": (Product(positions(x), delta),)} | _bias(params, delta)


def _bias(params: Params, delta: Array) -> dict[str, Any]:
    return {"b": (Addition(delta),)} if "b" in params else {}


DENSE = register(dense.KIND, _Linear(keep_input, _dense_input_grad, _dense_uses))
"""dC/da = delta w'; dC/dw = a' delta; dC/db = sum_n delta."""


def _conv_settings(layer: Layer, x: Array) -> dict[str, Any]:
    options = layer.options
    groups = x.shape[-1] if options["groups"] is None else options["groups"]  # None: depthwise
    return {name: options[name] for name in ("stride", "padding", "dilation")} | {"groups": groups}


def _conv_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    settings = _conv_settings(layer, x)
    conv.require_fit(params, x, settings["groups"])
    y = conv_value(x, params["w"], **settings)
    return (add_bias(y, params["b"]).astype(y.dtype) if "b" in params else y), state, x


def _conv_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return conv_input_grad(params["w"], dy, x.shape[1:-1], **_conv_settings(layer, x)).astype(x.dtype)


def _conv_uses(layer: Layer, params: Params, x: Array, dy: Array) -> PyTree:
    use = Convolution(x, dy, params["w"].shape[:-2], **_conv_settings(layer, x))
    return {"w": (use,)} | _bias(params, positions(dy))


CONV = register(conv.KIND, _Linear(_conv_forward, _conv_input_grad, _conv_uses))
"""dC/da: delta with the flipped kernel; dC/dw: a correlated with delta; dC/db = sum of delta over n and o."""


def _geometry(layer: Layer) -> dict[str, Any]:
    return {name: layer.options[name] for name in ("stride", "padding", "dilation")}


def _transpose_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return conv_value(dy, jnp.swapaxes(params["w"], -1, -2).astype(dy.dtype), **_geometry(layer)).astype(x.dtype)


def _transpose_uses(layer: Layer, params: Params, x: Array, dy: Array) -> PyTree:
    *window, c_in, c_out = params["w"].shape
    patches = conv_patches(dy, tuple(window), **_geometry(layer))[:, :, 0]
    inputs_first = Transpose((len(window), *range(len(window)), len(window) + 1))
    view = View(params["w"].shape).then(inputs_first).then(Reshape((c_in, math.prod(window) * c_out)))
    return {"w": (Placed(Product(positions(x), patches), view),)} | _bias(params, positions(dy))


CONV_TRANSPOSE = register(conv_transpose.KIND, _Linear(keep_input, _transpose_input_grad, _transpose_uses))
"""dC/da: the convolution of delta; dC/dw: a times the patches of delta."""


def _embedding_input_grad(layer: Layer, params: Params, indices: Array, dy: Array) -> Array:
    return zero_cotangent(indices)


def _embedding_uses(layer: Layer, params: Params, indices: Array, dy: Array) -> PyTree:
    flat = indices.reshape(indices.shape[0], -1)
    return {"w": (Lookup(flat, dy.reshape(*flat.shape, dy.shape[-1]), params["w"].shape[0]),)}


def zero_cotangent(x: Array) -> Array:
    """The cotangent of an integer array: zeros of dtype float0, as `jax.grad(..., allow_int=True)` returns."""
    return np.zeros(x.shape, jax.dtypes.float0)  # type: ignore[return-value]


EMBEDDING = register(embedding.KIND, Rule(keep_input, _embedding_input_grad, _embedding_uses))
"""dC/dw[v] = sum of delta over the uses of row v; indices have no derivative."""


def _flatten_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return dy.reshape(x.shape)


FLATTEN = register(flatten.KIND, Rule(keep_input, _flatten_input_grad))
RESHAPE = register(reshape.RESHAPE, Rule(keep_input, _flatten_input_grad))
"""dC/dx = dC/dy in the shape of x."""


def _upsample_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    sizes = [part for n, m in zip(x.shape[1:-1], dy.shape[1:-1], strict=True) for part in (n, m // n)]
    copies = accumulate(dy).reshape(x.shape[0], *sizes, x.shape[-1])
    return jnp.sum(copies, axis=tuple(range(2, 2 * (x.ndim - 1), 2))).astype(x.dtype)


UPSAMPLE = register(reshape.UPSAMPLE, Rule(keep_input, _upsample_input_grad))
"""dC/dx is the sum of dC/dy over the copies of x."""


def _dropout_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    if not train:
        return x, state, None
    rate = layer.options["rate"]
    dropout.require_key("dropout", key)
    kept = dropout.mask(key, x.shape, rate)  # type: ignore[arg-type]
    return dropout.apply_mask(x, kept, rate), state, kept


def _dropout_input_grad(layer: Layer, params: Params, kept: Cache, dy: Array) -> Array:
    return dy if kept is None else dropout.apply_mask(dy, kept, layer.options["rate"])


DROPOUT = register(dropout.KIND, Rule(_dropout_forward, _dropout_input_grad))
"""dC/dx = dC/dy m / (1 - rate), m the mask of the forward pass."""
