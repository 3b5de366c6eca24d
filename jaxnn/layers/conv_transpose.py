"""Transposed convolutions: the adjoint of a convolution as a layer, from few positions to many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxnn.checks import pair, require_floating, require_positive_int
from jaxnn.initializers import Initializer, he_normal, zeros
from jaxnn.layers.base import Kind, Layer, param, param_dtype, stateless
from jaxnn.layers.conv import init, spatial_axes
from jaxnn.ops.conv import Padding, conv_input_grad, require_padding_form, resolve_padding
from jaxnn.ops.matmul import add_bias
from jaxnn.types import Array, Params, Shape

KIND = Kind("conv_transpose")


def apply(
    params: Params,
    x: Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
) -> Array:
    """y[n, m, c] = sum over (o, k) with o s + k d - p = m, and i, of x[n, o, i] w[k, i, c], + b_c.

    The adjoint of the convolution with the same window, stride, padding and dilation from C_out to C_in channels, as in
    PyTorch: each input position adds the kernel, times its value, to the outputs. (`jax.lax.conv_transpose` by default
    does so with the kernel reversed.)

    Args:
        params: {"w": (*window, C_in, C_out)} and, optionally, "b" (C_out,); made by `layers.conv.init`.
        x: (N, *spatial, C_in), floating, one spatial axis for each axis of the window.
        stride, dilation: of the convolution; an int, or one for each spatial axis.
        padding: of the convolution: "VALID" gives (size - 1) stride + span outputs, span = (window - 1) dilation + 1;
            "SAME" size stride; a (low, high) pair for each axis removes so many outputs of "VALID" at its ends.

    Returns:
        (N, *spatial', C_out) in the promoted dtype of x and w.

    Reference: Zeiler, M. D., Krishnan, D., Taylor, G. W. & Fergus, R. (2010). Deconvolutional networks; Dumoulin, V. &
        Visin, F. (2016). A guide to convolution arithmetic for deep learning, section 4.

    Example:
        >>> params = {"w": jnp.array([1.0, 2.0]).reshape(2, 1, 1)}
        >>> apply(params, jnp.array([1.0, 10.0]).reshape(1, 2, 1), stride=2).ravel()
        Array([ 1.,  2., 10., 20.], dtype=float32)
    """
    require_fit(params, x)
    w = params["w"]
    dtype = jnp.promote_types(x.dtype, w.dtype)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    sizes = output_sizes(x.shape[1:-1], w.shape[:-2], stride, padding, dilation)
    y = conv_input_grad(jnp.swapaxes(w, -1, -2).astype(dtype), x.astype(dtype), sizes, **settings)  # type: ignore[arg-type]
    return add_bias(y, params["b"]).astype(y.dtype) if "b" in params else y


def output_sizes(
    sizes: Shape, window: Shape, stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int]
) -> Shape:
    """The spatial sizes of the outputs.

    Example:
        >>> output_sizes((4, 4), (3, 3), 2, "VALID", 1), output_sizes((4, 4), (3, 3), 2, "SAME", 1)
        ((9, 9), (8, 8))
    """
    steps = pair("conv_transpose", "stride", stride, len(sizes))
    gaps = pair("conv_transpose", "dilation", dilation, len(sizes))
    whole = tuple((n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(sizes, window, steps, gaps, strict=True))
    if padding == "SAME":
        return tuple(n * s for n, s in zip(sizes, steps, strict=True))
    pads = resolve_padding("conv_transpose", padding, whole, window, steps, gaps)
    found = tuple(n - low - high for n, (low, high) in zip(whole, pads, strict=True))
    if min(found) < 1:
        raise ValueError(f"conv_transpose: padding {pads} leaves no output of {whole}. Use less padding.")
    return found


def require_fit(params: Params, x: Array) -> None:
    """Raise what `apply` raises for an input that does not match the parameters.

    Example:
        >>> require_fit({"w": jnp.ones((3, 2, 4))}, jnp.ones((1, 5, 3)))
        Traceback (most recent call last):
        ValueError: conv_transpose: x must be (N, 1 spatial axes, 2) to match w (3, 2, 4), got x (1, 5, 3)...
    """
    require_floating("conv_transpose", "x", x.dtype, "Convert it: x.astype(jnp.float32).")
    w = param("conv_transpose", params, "w")
    if x.ndim != w.ndim or x.shape[-1] != w.shape[-2]:
        raise ValueError(
            f"conv_transpose: x must be (N, {w.ndim - 2} spatial axes, {w.shape[-2]}) to match w {w.shape}, got x "
            f"{x.shape}. Add the missing batch axis (x[None]) or channel axis (x[..., None])."
        )


def ConvTranspose(
    features: int,
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
) -> Layer:
    """A transposed convolution to `features` channels on inputs (N, *spatial, C_in), with any number of spatial axes.

    Args:
        features: C_out.
        window: sizes of the kernel, one for each spatial axis; an int applies to all.
        stride, padding, dilation: as for `apply`; a stride of 2 doubles the positions.
        w_init, b_init: initializers of w and b; `b_init=None` omits the bias.

    Example:
        >>> layer = ConvTranspose(8, 3, stride=2, padding="SAME")
        >>> params, state = layer.init(jax.random.key(0), (7, 7, 16))
        >>> layer.predict(params, state, jnp.ones((2, 7, 7, 16))).shape
        (2, 14, 14, 8)
    """
    features = require_positive_int("ConvTranspose", "features", features)
    require_padding_form("ConvTranspose", padding)

    def layer_init(key: jax.Array, example: jax.ShapeDtypeStruct) -> Params:
        sizes = pair("ConvTranspose", "window", window, spatial_axes("ConvTranspose", example))
        return init(key, sizes, example.shape[-1], features, w_init=w_init, b_init=b_init, dtype=param_dtype(example))

    settings = {"stride": stride, "padding": padding, "dilation": dilation}
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
