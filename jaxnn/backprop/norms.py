"""Rules of the normalization layers: y = scale xhat + shift, xhat = (x - m) r, r = 1 / sqrt(v + eps).

eps > 0 keeps r finite where the entries are constant (v = 0); it is part of the function, and so of its derivative.
m and v are the mean and the variance of the n entries that are normalized together: of a channel over the batch (batch
normalization), of one position of one example (layer), of one group of channels of one example (group). Let
e = dC/dxhat = scale dC/dy. An entry x_j acts directly, dxhat_j/dx_j = r; through the mean, dm/dx_j = 1/n; and through
the variance, dv/dx_j = 2 (x_j - m) / n (the dependence of v on m drops out, since sum (x_i - m) = 0), with
dr/dv = -r^3 / 2. The sum is

    dC/dx_j = r e_j - (r/n) sum_i e_i - r^3 (x_j - m) (1/n) sum_i e_i (x_i - m)
            = r (e_j - mean(e) - xhat_j mean(e xhat))

Batch normalization in evaluation mode takes the constants m and v from its state: dC/dx = r e. RMS normalization has no
m, and the mean square instead of v: dC/dx = r (e - xhat mean(e xhat)). For the parameters, over all entries of a
channel, dC/dscale = sum xhat dC/dy and dC/dshift = sum dC/dy.

Kept from the forward pass are x, m and r, not xhat: x in its own dtype, half the size of a float32 xhat where it is
bfloat16, and mostly kept already as the outputs of the layer before.

References:
    Ioffe, S. & Szegedy, C. (2015). Batch normalization, section 3.
    Ba, J. L., Kiros, J. R. & Hinton, G. E. (2016). Layer normalization, section 3.
    Wu, Y. & He, K. (2018). Group normalization.
    Zhang, B. & Sennrich, R. (2019). Root mean square layer normalization.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.rule import Rule, register
from jaxnn.layers import batch_norm, group_norm, layer_norm, rms_norm
from jaxnn.layers.base import Layer
from jaxnn.layers.moments import mean_and_variance
from jaxnn.numerics import accumulate, sum_of_products
from jaxnn.tape import Addition, Scaling, positions
from jaxnn.types import Array, Key, Params, PyTree, Scalar, State


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """What the backward pass of a normalization needs.

    Attributes:
        x: the inputs, of group normalization (..., groups, channels of a group).
        inverse: r, in the accumulation dtype; broadcasts to x.
        mean: m likewise, or None for RMS normalization.
        constant: whether m and r do not depend on x.
    """

    x: Array
    inverse: Array
    mean: Array | None = None
    constant: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def xhat(self) -> Array:
        """(x - m) r, in the accumulation dtype."""
        x = accumulate(self.x)
        return (x if self.mean is None else x - self.mean) * self.inverse


def _moments(x: Array, mean: Array | None, variance: Array, eps: Scalar, *, constant: bool = False) -> Moments:
    """From the variance, or the mean square."""
    return Moments(x, lax.rsqrt(variance + jnp.asarray(eps, variance.dtype)), mean, constant)


def _scaled(params: Params, dy: Array) -> Array:
    """dC/dxhat = scale dC/dy, in the accumulation dtype."""
    wide = accumulate(dy)
    return wide * lax.broadcast_in_dim(params["scale"].astype(wide.dtype), wide.shape, (wide.ndim - 1,))


def _uses(layer: Layer, params: Params, moments: Moments, dy: Array) -> PyTree:
    """The uses in y = scale xhat + shift."""
    xhat, delta = positions(moments.xhat.reshape(dy.shape)), positions(dy)
    shift = {"shift": (Addition(delta),)} if "shift" in params else {}
    return {"scale": (Scaling(xhat, delta),)} | shift


def _unstandardize(xhat: Array, inverse: Array, error: Array, axes: Sequence[int], *, centred: bool = True) -> Array:
    """dC/dx = inverse (error - mean error - xhat mean(xhat error)), error = dC/dxhat; RMS: no mean error."""
    count = math.prod(error.shape[axis] for axis in axes)
    back = error - xhat * (sum_of_products(xhat, error, axes) / count)
    return inverse * (back - jnp.mean(error, tuple(axes), keepdims=True) if centred else back)


def _batch_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Moments]:
    y, new_state = layer.apply(params, state, x, key=key, train=train)
    if train:
        mean, variance = mean_and_variance(x, range(x.ndim - 1))
    else:
        shape = (1,) * (x.ndim - 1) + (-1,)
        mean, variance = (state[name].astype(accumulate(x).dtype).reshape(shape) for name in ("mean", "var"))
    return y, new_state, _moments(x, mean, variance, layer.options["eps"], constant=not train)


def _batch_input_grad(layer: Layer, params: Params, moments: Moments, dy: Array) -> Array:
    error = _scaled(params, dy)
    if moments.constant:
        return (moments.inverse * error).astype(dy.dtype)
    return _unstandardize(moments.xhat, moments.inverse, error, range(dy.ndim - 1)).astype(dy.dtype)


def _batch_couples(layer: Layer, train: bool) -> bool:
    return train


BATCH_NORM = register(batch_norm.KIND, Rule(_batch_forward, _batch_input_grad, _uses, _batch_couples))
"""dx = r (e - mean(e) - xhat mean(e xhat)), means over examples and positions; r e in evaluation mode."""


def _layer_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Moments]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    return y, state, _moments(x, *mean_and_variance(x, (x.ndim - 1,)), layer.options["eps"])


def _layer_input_grad(layer: Layer, params: Params, moments: Moments, dy: Array) -> Array:
    return _unstandardize(moments.xhat, moments.inverse, _scaled(params, dy), (dy.ndim - 1,)).astype(dy.dtype)


LAYER_NORM = register(layer_norm.KIND, Rule(_layer_forward, _layer_input_grad, _uses))
"""As batch normalization in training, the means over the last axis."""


def _group_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Moments]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    groups = layer.options["groups"]
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    mean, variance = mean_and_variance(grouped, (*range(1, x.ndim - 1), x.ndim))
    return y, state, _moments(grouped, mean, variance, layer.options["eps"])


def _group_input_grad(layer: Layer, params: Params, moments: Moments, dy: Array) -> Array:
    error = _scaled(params, dy).reshape(moments.x.shape)
    dx = _unstandardize(moments.xhat, moments.inverse, error, (*range(1, dy.ndim - 1), dy.ndim))
    return dx.reshape(dy.shape).astype(dy.dtype)


GROUP_NORM = register(group_norm.KIND, Rule(_group_forward, _group_input_grad, _uses))
"""As batch normalization in training, the means over positions and channels of one group of one example."""


def rms_moments(x: Array, eps: Scalar) -> Moments:
    """What the backward pass of RMS normalization over the last axis needs."""
    return _moments(x, None, jnp.mean(jnp.square(accumulate(x)), -1, keepdims=True), eps)


def rms_input_grad(params: Params, moments: Moments, dy: Array) -> Array:
    """dC/dx of RMS normalization."""
    error = _scaled(params, dy)
    return _unstandardize(moments.xhat, moments.inverse, error, (dy.ndim - 1,), centred=False).astype(dy.dtype)


def _rms_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Moments]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    return y, state, rms_moments(x, layer.options["eps"])


def _rms_input_grad(layer: Layer, params: Params, moments: Moments, dy: Array) -> Array:
    return rms_input_grad(params, moments, dy)


RMS_NORM = register(rms_norm.KIND, Rule(_rms_forward, _rms_input_grad, _uses))
"""dx = r (e - xhat mean(e xhat)), the mean over the last axis."""
