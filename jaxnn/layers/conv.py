"""Convolution layers over one, two or more spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxnn.checks import pair, require_floating, require_positive_int
from jaxnn.initializers import Initializer, he_normal, zeros
from jaxnn.layers.base import Kind, Layer, param, param_dtype, stateless
from jaxnn.ops.conv import Padding, require_padding_form
from jaxnn.ops.conv import conv as conv_op
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, DTypeLike, Key, Params

KIND = Kind("conv")


def init(
    key: Key,
    window: int | Sequence[int],
    in_channels: int,
    out_channels: int,
    *,
    groups: int = 1,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Parameters {"w": (*window, C_in / groups, C_out), "b": (C_out,)}; without "b" if `b_init` is None.

    Args:
        window: sizes of the kernel, one per spatial axis; an int means two equal axes.
        in_channels, out_channels: C_in and C_out, both multiples of `groups`.
        groups: number of channel groups; `groups=in_channels` is a depthwise convolution.
        w_init, b_init: initializers; the default w ~ N(0, 2 / fan_in), fan_in = prod(window) C_in / groups, b = 0.
        dtype: of w and b.

    Example:
        >>> jax.tree.map(jnp.shape, init(jax.random.key(0), (3, 3), 1, 32))
        {'b': (32,), 'w': (3, 3, 1, 32)}
    """
    sizes = pair("conv", "window", window, 2 if hasattr(window, "__index__") else len(window))
    c_in = require_positive_int("conv", "in_channels", in_channels)
    c_out = require_positive_int("conv", "out_channels", out_channels)
    groups = require_positive_int("conv", "groups", groups)
    if c_in % groups or c_out % groups:
        raise ValueError(
            f"conv: groups must divide the channels, got groups={groups}, in_channels={c_in}, out_channels={c_out}."
        )
    w_key, b_key = jax.random.split(key)
    params = {"w": w_init(w_key, (*sizes, c_in // groups, c_out), dtype)}
    return params if b_init is None else params | {"b": b_init(b_key, (c_out,), dtype)}


def apply(
    params: Params,
    x: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """y = conv(x, w) + b, channels last.

    Args:
        params: {"w": (*window, C_in / groups, C_out)} and, optionally, "b" (C_out,).
        x: (N, *spatial, C_in), floating, one spatial axis for each axis of the window.
        stride, dilation: an int, or one for each spatial axis.
        padding: "SAME", "VALID", or a (low, high) pair for each spatial axis.
        groups: as at `init`.

    Returns:
        (N, *spatial', C_out) in the promoted dtype of x and w.

    Reference: LeCun, Y., Boser, B., Denker, J. S., et al. (1989). Backpropagation applied to handwritten zip code
        recognition.

    Example:
        >>> params = init(jax.random.key(0), (3, 3), 1, 32)
        >>> jax.jit(lambda x: apply(params, x, padding="SAME"))(jnp.zeros((8, 28, 28, 1))).shape
        (8, 28, 28, 32)
    """
    require_fit(params, x, groups)
    y = conv_op(x, params["w"], stride=stride, padding=padding, dilation=dilation, groups=groups)
    return add_bias(y, params["b"]).astype(y.dtype) if "b" in params else y


def require_fit(params: Params, x: Array, groups: int) -> None:
    """Raise what `apply` raises for an input that does not match the parameters.

    Example:
        >>> require_fit({"w": jnp.ones((3, 3, 1, 2))}, jnp.ones((1, 5, 5)), 1)
        Traceback (most recent call last):
        ValueError: conv: x must be (N, 2 spatial axes, C_in) to match w (3, 3, 1, 2), got x (1, 5, 5)...
    """
    require_floating("conv", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    w = param("conv", params, "w")
    if x.ndim != w.ndim:
        raise ValueError(
            f"conv: x must be (N, {w.ndim - 2} spatial axes, C_in) to match w {w.shape}, got x {x.shape}. "
            "Add the missing batch axis (x[None]) or channel axis (x[..., None])."
        )
    if x.shape[-1] != w.shape[-2] * groups:
        raise ValueError(
            f"conv: x must have {w.shape[-2] * groups} channels on its last axis to match w {w.shape} with "
            f"groups={groups}, got x {x.shape}. Images are channels-last (N, H, W, C)."
        )
    if w.shape[-1] % groups:
        raise ValueError(f"conv: groups must divide the output channels, got groups={groups} and w {w.shape}.")


def Conv(
    features: int,
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
) -> Layer:
    """A convolution to `features` channels on inputs (N, *spatial, C_in): y = conv(x, w) + b.

    Args:
        features: C_out.
        window: sizes of the kernel, one for each spatial axis; an int applies to all.
        stride, dilation: steps between outputs, and between the inputs of one output; an int, or one per axis.
        padding: "VALID" (none), "SAME" (ceil(size / stride) outputs), or a (low, high) pair for each spatial axis.
        groups: number of channel groups, a divisor of C_in and C_out; output group g sees only input group g.
        w_init, b_init: initializers of w and b; `b_init=None` omits the bias, e.g. before batch normalization.

    Example:
        >>> params, state = Conv(32, 3).init(jax.random.key(0), (28, 28, 1))
        >>> params["w"].shape
        (3, 3, 1, 32)
    """
    features = require_positive_int("Conv", "features", features)
    require_padding_form("Conv", padding)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        sizes = pair("Conv", "window", window, spatial_axes("Conv", example))
        c, dtype = example.shape[-1], param_dtype(example)
        return init(key, sizes, c, features, groups=groups, w_init=w_init, b_init=b_init, dtype=dtype)

    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return stateless(
        KIND,
        partial(apply, **settings),  # type: ignore[arg-type]
        layer_init,
        features=features,
        window=window,
        **settings,
        w_init=w_init,
        b_init=b_init,
    )


def DepthwiseConv(
    window: int | Sequence[int],
    *,
    multiplier: int = 1,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
) -> Layer:
    """A depthwise convolution, groups = C_in: each input channel separately, to `multiplier` channels.

    Args:
        window, stride, padding, dilation, w_init, b_init: as for `Conv`.
        multiplier: output channels per input channel.

    Reference: Howard, A. G. et al. (2017). MobileNets: efficient convolutional neural networks for mobile vision
        applications, section 3.1.

    Example:
        >>> params, state = DepthwiseConv(3).init(jax.random.key(0), (28, 28, 16))
        >>> params["w"].shape
        (3, 3, 1, 16)
    """
    multiplier = require_positive_int("DepthwiseConv", "multiplier", multiplier)
    require_padding_form("DepthwiseConv", padding)

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> Params:
        sizes = pair("DepthwiseConv", "window", window, spatial_axes("DepthwiseConv", example))
        c = example.shape[-1]
        return init(key, sizes, c, c * multiplier, groups=c, w_init=w_init, b_init=b_init, dtype=param_dtype(example))

    def layer_apply(params: Params, x: Array) -> Array:
        return apply(params, x, stride=stride, padding=padding, dilation=dilation, groups=x.shape[-1])

    return stateless(
        KIND,
        layer_apply,
        layer_init,
        window=window,
        multiplier=multiplier,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=None,
    )


def spatial_axes(where: str, example: jax.ShapeDtypeStruct) -> int:
    """The number of spatial axes of an example (*spatial, C); raises if there is none.

    Example:
        >>> spatial_axes("Conv", jax.ShapeDtypeStruct((28, 28, 1), jnp.float32))
        2
    """
    if len(example.shape) < 2:
        raise ValueError(
            f"{where}: an example must be (*spatial, channels), such as (28, 28, 1), got shape {example.shape}."
        )
    return len(example.shape) - 1
