"""Activations with parameters of their own, one for each channel or one for the layer: PReLU, Swish, and your own.

Such a layer is a `Form`: the function s(z, p) of a pre-activation z and a parameter p, and its two derivatives, by
which `backprop` forms dC/dz = (ds/dz) dC/da and dC/dp = sum (ds/dp) dC/da.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import concrete_number, require_floating, require_number, require_positive_int
from jaxnn.layers.base import Kind, Layer, param, param_dtype, stateless
from jaxnn.layers.moments import example_channels
from jaxnn.numerics import accumulate
from jaxnn.types import Array, DTypeLike, Key, Params, Scalar

KIND = Kind("parametric_activation")


class Form(NamedTuple):
    """An activation s(z, p) with its derivatives, each a function of arrays z and p of the same shape and dtype.

    Attributes:
        name: of the layer, for messages.
        param: the key of p in the parameters.
        value: s(z, p).
        input_slope: ds/dz.
        param_slope: ds/dp.
    """

    name: str
    param: str
    value: Callable[[Array, Array], Array]
    input_slope: Callable[[Array, Array], Array]
    param_slope: Callable[[Array, Array], Array]

    def __repr__(self) -> str:
        return self.name


def _swish_input_slope(z: Array, beta: Array) -> Array:
    gate = lax.logistic(beta * z)
    return gate * (1 + beta * z * (1 - gate))


def _swish_param_slope(z: Array, beta: Array) -> Array:
    gate = lax.logistic(beta * z)
    # Not z^2 s (1 - s): z^2 may overflow where s (1 - s) is 0.
    return (z * gate) * (z * (1 - gate))


PRELU = Form(
    "prelu",
    "slope",
    lambda z, slope: jnp.where(z <= 0, slope * z, z),
    lambda z, slope: jnp.where(z <= 0, slope, jnp.ones_like(z)),
    lambda z, slope: jnp.where(z <= 0, z, jnp.zeros_like(z)),
)
"""s = z if z > 0, slope z if z <= 0; at the kink z = 0 the derivative is slope, as that of `leaky_relu`."""

SWISH = Form("swish", "beta", lambda z, beta: z * lax.logistic(beta * z), _swish_input_slope, _swish_param_slope)
"""s = z sigmoid(beta z): `silu` for beta = 1, half of z for beta = 0, ReLU in the limit of large beta."""


def init(form: Form, features: int, start: Scalar, *, dtype: DTypeLike = jnp.float32) -> Params:
    """Parameters {form.param: (features,)}, all `start`; deterministic, so without a key.

    Example:
        >>> init(PRELU, 2, 0.25)
        {'slope': Array([0.25, 0.25], dtype=float32)}
    """
    require_floating(form.name, "dtype", dtype, "Parameters are floating.")
    return {form.param: jnp.full((require_positive_int(form.name, "features", features),), start, dtype)}


def apply(params: Params, z: Array, *, form: Form) -> Array:
    """a = s(z, p), p the same at every position.

    Args:
        params: {form.param: (C,)}, or (1,) for one parameter.
        z: (N, ..., C), floating.
        form: `PRELU`, `SWISH` or another.

    Returns:
        (N, ..., C) in the dtype of z; computed in float32 (float64 for float64).

    Example:
        >>> apply({"slope": jnp.array([0.5, 0.1])}, jnp.array([[-2.0, -2.0]]), form=PRELU)
        Array([[-1. , -0.2]], dtype=float32)
    """
    wide, p = spread(params, z, form)
    return form.value(wide, p).astype(z.dtype)


def spread(params: Params, z: Array, form: Form) -> tuple[Array, Array]:
    """z and the parameter at every entry of z, both in the accumulation dtype.

    Example:
        >>> spread({"slope": jnp.array([0.5])}, jnp.ones((1, 2)), PRELU)[1]
        Array([[0.5, 0.5]], dtype=float32)
    """
    require_floating(form.name, "z", z.dtype, "Convert it: z.astype(jnp.float32).")
    p = param(form.name, params, form.param)
    if z.ndim < 2 or p.ndim != 1 or p.shape[0] not in (1, z.shape[-1]):
        raise ValueError(
            f"{form.name}: z must be (N, ..., {p.shape[0] if p.ndim else 'C'}) to match {form.param} {p.shape}, got z "
            f"{z.shape}. Add the missing batch axis (z[None]), or initialise with the shape of one example of this z."
        )
    wide = accumulate(z)
    return wide, jnp.broadcast_to(p.astype(wide.dtype).reshape((1,) * (z.ndim - 1) + (-1,)), z.shape)


def Parametric(form: Form, *, start: Scalar, shared: bool = False) -> Layer:
    """A layer of inputs (N, ..., C) that applies an activation with a parameter, learned with the weights.

    Args:
        form: the activation and its derivatives.
        start: the initial value of the parameter, finite.
        shared: False: one parameter for each channel, (C,); True: one for the layer, (1,).

    Raises:
        TypeError: form is not a Form, or start not a number.
        ValueError: start is not finite.

    Example:
        >>> from jaxnn.layers.parametric import Form
        >>> square = Form("square", "c", lambda z, c: c * z**2, lambda z, c: 2 * c * z, lambda z, c: z**2)
        >>> params, state = Parametric(square, start=0.5, shared=True).init(jax.random.key(0), (3,))
        >>> Parametric(square, start=0.5).predict(params, state, jnp.array([[1.0, 2.0, 3.0]]))
        Array([[0.5, 2. , 4.5]], dtype=float32)
    """
    if not isinstance(form, Form):
        raise TypeError(f"Parametric: form must be a Form, such as layers.parametric.PRELU, got {form!r}.")
    require_number(form.name, "start", start)
    number = concrete_number(start)
    if number is not None and not abs(number) < float("inf"):
        raise ValueError(f"{form.name}: start must be finite, got {start}.")

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        features = example_channels(form.name, example.shape)
        return init(form, 1 if shared else features, start, dtype=param_dtype(example))

    def layer_apply(params: Params, z: Array) -> Array:
        return apply(params, z, form=form)

    return stateless(KIND, layer_apply, layer_init, form=form, start=start, shared=shared)


def PRelu(*, start: Scalar = 0.25, shared: bool = False) -> Layer:
    """The parametric rectifier: a = z if z > 0, slope z if z <= 0, the slope learned, one for each channel.

    At z = 0 the derivative is the slope. The paper applies no weight decay to slopes; neither do the penalties of
    `jaxnn.losses` by default.

    Args:
        start: the initial slope; the paper's 0.25.
        shared: True for one slope in the layer ("channel-shared").

    Reference: He, K., Zhang, X., Ren, S. & Sun, J. (2015). Delving deep into rectifiers, section 2.1.

    Example:
        >>> params, state = PRelu().init(jax.random.key(0), (28, 28, 3))
        >>> params
        {'slope': Array([0.25, 0.25, 0.25], dtype=float32)}
    """
    return Parametric(PRELU, start=start, shared=shared)


def Swish(*, start: Scalar = 1.0, shared: bool = False) -> Layer:
    """The self-gated unit with a learned gate: a = z sigmoid(beta z), beta one for each channel.

    Args:
        start: the initial beta; 1 is `Silu`.
        shared: True for one beta in the layer.

    Reference: Ramachandran, P., Zoph, B. & Le, Q. V. (2017). Searching for activation functions, section 4.

    Example:
        >>> params, state = Swish(shared=True).init(jax.random.key(0), (8,))
        >>> params
        {'beta': Array([1.], dtype=float32)}
    """
    return Parametric(SWISH, start=start, shared=shared)
