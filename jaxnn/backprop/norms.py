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

References:
    Ioffe, S. & Szegedy, C. (2015). Batch normalization, section 3.
    Ba, J. L., Kiros, J. R. & Hinton, G. E. (2016). Layer normalization, section 3.
    Wu, Y. & He, K. (2018). Group normalization.
    Zhang, B. & Sennrich, R. (2019). Root mean square layer normalization.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxnn.backprop.rule import Cache, Rule, register
from jaxnn.layers import batch_norm, group_norm, layer_norm, rms_norm
from jaxnn.layers.base import Layer
from jaxnn.layers.moments import mean_and_variance
from jaxnn.numerics import accumulate
from jaxnn.tape import Addition, Scaling, positions
from jaxnn.types import Array, Key, Params, PyTree, Scalar, State


def _scaled(params: Params, dy: Array) -> Array:
    """dC/dxhat = scale dC/dy, in the accumulation dtype."""
    wide = accumulate(dy)
    return wide * lax.broadcast_in_dim(params["scale"].astype(wide.dtype), wide.shape, (wide.ndim - 1,))


def _uses(layer: Layer, params: Params, cache: Cache, dy: Array) -> PyTree:
    """The uses in y = scale xhat + shift."""
    xhat, delta = positions(cache[0].reshape(dy.shape)), positions(dy)
    shift = {"shift": (Addition(delta),)} if "shift" in params else {}
    return {"scale": (Scaling(xhat, delta),)} | shift


def _unstandardize(xhat: Array, inverse: Array, error: Array, axes: Sequence[int], *, centred: bool = True) -> Array:
    """dC/dx = inverse (error - mean error - xhat mean(xhat error)), error = dC/dxhat; RMS: no mean error."""
    back = error - xhat * jnp.mean(xhat * error, tuple(axes), keepdims=True)
    return inverse * (back - jnp.mean(error, tuple(axes), keepdims=True) if centred else back)


def _batch_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    y, new_state = layer.apply(params, state, x, key=key, train=train)
    if train:
        mean, variance = mean_and_variance(x, range(x.ndim - 1))
    else:
        shape = (1,) * (x.ndim - 1) + (-1,)
        mean, variance = (state[name].astype(accumulate(x).dtype).reshape(shape) for name in ("mean", "var"))
    inverse = lax.rsqrt(variance + jnp.asarray(layer.options["eps"], variance.dtype))
    return y, new_state, ((accumulate(x) - mean) * inverse, inverse, train)


def _batch_input_grad(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    xhat, inverse, train = cache
    error = _scaled(params, dy)
    dx = _unstandardize(xhat, inverse, error, range(dy.ndim - 1)) if train else inverse * error
    return dx.astype(dy.dtype)


def _batch_couples(layer: Layer, train: bool) -> bool:
    return train


BATCH_NORM = register(batch_norm.KIND, Rule(_batch_forward, _batch_input_grad, _uses, _batch_couples))
"""dx = r (e - mean(e) - xhat mean(e xhat)), means over examples and positions; r e in evaluation mode."""


def _layer_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    mean, variance = mean_and_variance(x, (x.ndim - 1,))
    inverse = lax.rsqrt(variance + jnp.asarray(layer.options["eps"], variance.dtype))
    return y, state, ((accumulate(x) - mean) * inverse, inverse)


def _layer_input_grad(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    xhat, inverse = cache
    return _unstandardize(xhat, inverse, _scaled(params, dy), (dy.ndim - 1,)).astype(dy.dtype)


LAYER_NORM = register(layer_norm.KIND, Rule(_layer_forward, _layer_input_grad, _uses))
"""As batch normalization in training, the means over the last axis."""


def _group_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    groups = layer.options["groups"]
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    mean, variance = mean_and_variance(grouped, (*range(1, x.ndim - 1), x.ndim))
    inverse = lax.rsqrt(variance + jnp.asarray(layer.options["eps"], variance.dtype))
    return y, state, ((accumulate(grouped) - mean) * inverse, inverse)


def _group_input_grad(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    xhat, inverse = cache
    error = _scaled(params, dy).reshape(xhat.shape)
    dx = _unstandardize(xhat, inverse, error, (*range(1, dy.ndim - 1), dy.ndim))
    return dx.reshape(dy.shape).astype(dy.dtype)


GROUP_NORM = register(group_norm.KIND, Rule(_group_forward, _group_input_grad, _uses))
"""As batch normalization in training, the means over positions and channels of one group of one example."""


def rms_standardized(x: Array, eps: Scalar) -> tuple[Array, Array]:
    """(xhat, r) of RMS normalization over the last axis, in the accumulation dtype: xhat = x r."""
    wide = accumulate(x)
    mean_square = jnp.mean(jnp.square(wide), -1, keepdims=True)
    inverse = lax.rsqrt(mean_square + jnp.asarray(eps, wide.dtype))
    return wide * inverse, inverse


def rms_input_grad(params: Params, standardized: tuple[Array, Array], dy: Array) -> Array:
    """dC/dx of RMS normalization, from what `rms_standardized` returned."""
    xhat, inverse = standardized
    return _unstandardize(xhat, inverse, _scaled(params, dy), (dy.ndim - 1,), centred=False).astype(dy.dtype)


def _rms_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    y, state = layer.apply(params, state, x, key=key, train=train)
    return y, state, rms_standardized(x, layer.options["eps"])


def _rms_input_grad(layer: Layer, params: Params, cache: Cache, dy: Array) -> Array:
    return rms_input_grad(params, cache, dy)


RMS_NORM = register(rms_norm.KIND, Rule(_rms_forward, _rms_input_grad, _uses))
"""dx = r (e - xhat mean(e xhat)), the mean over the last axis."""
