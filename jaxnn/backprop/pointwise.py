"""Rules of activations, without and with parameters, and of pooling.

**Activation**, a = s(z) element-wise: delta = dC/dz = s'(z) . dC/da, s' as defined in `jaxnn.activations`, which also
fixes its value at a kink (0 at 0 for ReLU, whose s' is the same at a as at z).

**Activation with a parameter**, a = s(z, p), one p for each channel or for the layer: dC/dz = (ds/dz) dC/da, and
dC/dp = sum (ds/dp) dC/da over all entries of the channel (of the layer), a use of p as the scale of ds/dp.

**Softmax**, p_k = e^(z_k) / sum_j e^(z_j): dp_k/dz_j = p_k (1[j = k] - p_j), so
dC/dz_j = sum_k (dC/dp_k) p_k (1[j = k] - p_j) = p_j (g_j - sum_k p_k g_k), g = dC/dp.
**Log-softmax**, l_k = z_k - log sum_j e^(z_j): dl_k/dz_j = 1[j = k] - p_j, so dC/dz_j = g_j - p_j sum_k g_k, g = dC/dl.

**Max-pooling**, y_o = max of the window o: the derivative is 1 at the maximum and 0 elsewhere, so dC/dx_m is the sum of
dC/dy_o over the windows whose maximum is at m. A tie goes to the first in row-major order.

**Average pooling**, y_o = (1/m_o) sum of the window: each of its entries gets dC/dy_o / m_o, summed over windows.

The global poolings are those with one window, the whole of an example.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import activations
from jaxnn.activations.table import DERIVATIVES
from jaxnn.backprop.rule import Cache, Rule, keep_input, register
from jaxnn.layers import activation, parametric, pooling
from jaxnn.layers.base import Layer
from jaxnn.numerics import accumulate
from jaxnn.ops.pooling import average_pool_input_grad, max_pool_input_grad, max_pool_winners
from jaxnn.tape import Scaling, positions
from jaxnn.types import Array, Key, Params, PyTree, State

VECTOR_VJPS = {activations.softmax: activations.softmax_vjp, activations.log_softmax: activations.log_softmax_vjp}
"""(z, dy) -> dz of the activations that are not element-wise."""

SAME_AT_OUTPUT = (activations.relu,)
"""Functions s with s'(s(z)) = s'(z): the output is cached, as it is by a layer above, and z can be freed."""


def _activation_forward(
    layer: Layer, params: Params, state: State, z: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    a, state = layer.apply(params, state, z, key=key, train=train)
    return a, state, a if layer.options["function"] in SAME_AT_OUTPUT else z


def _activation_input_grad(layer: Layer, params: Params, z: Array, dy: Array) -> Array:
    settings = dict(layer.options)
    function = settings.pop("function")
    if function in VECTOR_VJPS:
        return VECTOR_VJPS[function](z, dy, **settings)
    if function in DERIVATIVES:
        wide = accumulate(z)
        return (accumulate(dy) * DERIVATIVES[function](wide, **settings)).astype(z.dtype)
    return jax.vjp(lambda z: function(z, **settings), z)[1](dy)[0]


def _activation_by_hand(layer: Layer) -> bool:
    return layer.options["function"] in VECTOR_VJPS or layer.options["function"] in DERIVATIVES


ACTIVATION = register(activation.KIND, Rule(_activation_forward, _activation_input_grad, by_hand=_activation_by_hand))
"""delta = s'(z) . dC/da, or p . (g - p'g); any other function is differentiated by `jax.vjp`."""


def _parametric_input_grad(layer: Layer, params: Params, z: Array, dy: Array) -> Array:
    form = layer.options["form"]
    return (accumulate(dy) * form.input_slope(*parametric.spread(params, z, form))).astype(z.dtype)


def _parametric_uses(layer: Layer, params: Params, z: Array, dy: Array) -> PyTree:
    form = layer.options["form"]
    slope = form.param_slope(*parametric.spread(params, z, form))
    if params[form.param].shape[0] == z.shape[-1]:
        return {form.param: (Scaling(positions(slope), positions(dy)),)}
    each = (z.shape[0], math.prod(z.shape[1:]), 1)  # one parameter, used at every entry
    return {form.param: (Scaling(slope.reshape(each), dy.reshape(each)),)}


PARAMETRIC = register(parametric.KIND, Rule(keep_input, _parametric_input_grad, _parametric_uses))
"""delta = ds/dz . dC/da; the parameter scales ds/dp."""


def _max_pool_forward(
    layer: Layer, params: Params, state: State, x: Array, *, key: Key | None, train: bool
) -> tuple[Array, State, Cache]:
    y, winners = max_pool_winners(x, **layer.options)
    return y, state, winners


def _max_pool_input_grad(layer: Layer, params: Params, winners: Cache, dy: Array) -> Array:
    return max_pool_input_grad(winners, dy)


MAX_POOL = register(pooling.MAX_POOL, Rule(_max_pool_forward, _max_pool_input_grad))
"""dC/dy goes to the first maximum of each window in row-major order."""


def _average_pool_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    return average_pool_input_grad(dy, x.shape[1:-1], **layer.options).astype(x.dtype)


AVERAGE_POOL = register(pooling.AVERAGE_POOL, Rule(keep_input, _average_pool_input_grad))
"""Each of the m entries of a window gets dC/dy / m."""


def _over_positions(x: Array, dy: Array) -> Array:
    """dy (N, C) at every position of x (N, *spatial, C)."""
    return lax.broadcast_in_dim(dy, x.shape, (0, x.ndim - 1))


def _global_average_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    share = accumulate(dy) / math.prod(x.shape[1:-1])
    return _over_positions(x, share).astype(x.dtype)


GLOBAL_AVERAGE_POOL = register(pooling.GLOBAL_AVERAGE_POOL, Rule(keep_input, _global_average_input_grad))
"""Each of the m positions gets dC/dy / m."""


def _global_max_input_grad(layer: Layer, params: Params, x: Array, dy: Array) -> Array:
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    first = jnp.argmax(flat, axis=1, keepdims=True)
    chosen = lax.broadcasted_iota(first.dtype, flat.shape, 1) == first
    return jnp.where(chosen, dy[:, None, :], jnp.zeros((), dy.dtype)).reshape(x.shape).astype(x.dtype)


GLOBAL_MAX_POOL = register(pooling.GLOBAL_MAX_POOL, Rule(keep_input, _global_max_input_grad))
"""dC/dy goes to the first maximum in row-major order."""
