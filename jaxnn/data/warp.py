"""Resampling of images: source coordinates, bilinear interpolation, smoothing.

Shared by the geometric augmentations, which differ only in their coordinates. Row indices increase downwards, column
indices to the right; pixel centres are at integers; everything outside the image is 0.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.checks import require_floating
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array, Scalar


def require_images(where: str, images: Array) -> None:
    """Raise ValueError unless `images` are (N, H, W, C), TypeError unless they are floating.

    Example:
        >>> require_images("flip", jnp.zeros((2, 8, 8)))
        Traceback (most recent call last):
        ValueError: flip: images must have shape (N, H, W, C), got (2, 8, 8). ...
    """
    if jnp.ndim(images) != 4:
        raise ValueError(
            f"{where}: images must have shape (N, H, W, C), got {jnp.shape(images)}. "
            "Add the missing axis: images[..., None] for grey images, image[None] for a single one."
        )
    require_floating(where, "images", images.dtype, "Convert bytes: images.astype(jnp.float32) / 255.")


def sample_bilinear(images: Array, rows: Array, columns: Array) -> Array:
    """Each image at real-valued coordinates, by bilinear interpolation of the 4 nearest pixels; 0 outside.

    out(i, j) = (1 - f)(1 - g) I(r, c) + (1 - f) g I(r, c + 1) + f (1 - g) I(r + 1, c) + f g I(r + 1, c + 1), where
    r + f = rows(i, j), c + g = columns(i, j), r and c whole, 0 <= f, g < 1. Exact at integer coordinates (for
    finite images). Four gathers: on CPU several times cheaper than products with interpolation matrices.

    Args:
        images: (N, H, W, C), floating.
        rows: (N, h, w), in pixels; interpolated in float32 (float64 for float64 images).
        columns: (N, h, w).

    Returns:
        (N, h, w, C), in the dtype of `images`, within the range of the pixels and 0 (up to rounding).

    Raises:
        ValueError, TypeError: images not (N, H, W, C) or not floating; coordinates of other shapes.

    Example:
        >>> import jax
        >>> image = jnp.array([[0.0, 1.0], [2.0, 3.0]])[None, :, :, None]
        >>> jax.jit(sample_bilinear)(image, jnp.array([[[0.5]]]), jnp.array([[[0.5]]])).item()
        1.5
    """
    require_images("sample_bilinear", images)
    n, height, width, channels = images.shape
    if rows.ndim != 3 or rows.shape != columns.shape or rows.shape[0] != n:
        raise ValueError(
            f"sample_bilinear: rows and columns must both have shape (N, h, w) with N = {n}, "
            f"got {rows.shape} and {columns.shape}."
        )
    # A border of zeros represents everything outside: coordinates beyond it are clipped onto it.
    border = jnp.pad(accumulate(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = border.reshape(-1, channels)
    rows, columns = jnp.clip(rows, -1, height), jnp.clip(columns, -1, width)
    top, left = jnp.minimum(jnp.floor(rows), height - 1), jnp.minimum(jnp.floor(columns), width - 1)
    down, right = (rows - top)[..., None].astype(pixels.dtype), (columns - left)[..., None].astype(pixels.dtype)
    image = jnp.arange(n, dtype=jnp.int32)[:, None, None]
    start = (image * (height + 2) + (top.astype(jnp.int32) + 1)) * (width + 2) + (left.astype(jnp.int32) + 1)

    def corner(offset: int) -> Array:
        return pixels.at[start + offset].get(mode="promise_in_bounds")

    upper = corner(0) * (1 - right) + corner(1) * right
    lower = corner(width + 2) * (1 - right) + corner(width + 3) * right
    return (upper * (1 - down) + lower * down).astype(images.dtype)


def affine_coordinates(
    height: int, width: int, *, degrees: Array, scale: Array, shear: Array, shift: Array
) -> tuple[Array, Array]:
    """Source coordinates of a transformation: scale, shear, rotate (all about the centre c) and shift, in this order.

    Content at p goes to q = R K S (p - c) + c + shift, with S = diag(scale), K = [[1, 0], [shear, 1]] and
    R = [[cos, -sin], [sin, cos]] in (row, column) order; so the pixel at q is sampled at
    S^-1 K^-1 R^-1 (q - c - shift) + c.

    Args:
        height, width: size of the images; c = ((height - 1) / 2, (width - 1) / 2).
        degrees: (N,), positive is counterclockwise with row 0 on top, as in `np.rot90`.
        scale: (N, 2), factors of rows and columns, > 0; 2 doubles the size.
        shear: (N,), columns to the right per row downward.
        shift: (N, 2), pixels down and to the right.

    Returns:
        rows (N, height, width) and columns (N, height, width), in the dtype of `degrees`.

    Example:
        >>> import jax
        >>> one, zero = jnp.ones((1, 2)), jnp.zeros(1)
        >>> lattice = jax.jit(affine_coordinates, static_argnums=(0, 1))
        >>> rows, _ = lattice(2, 2, degrees=zero, scale=one, shear=zero, shift=one)
        >>> rows[0, :, 0]
        Array([-1.,  0.], dtype=float32)
    """
    dtype = degrees.dtype
    sine, cosine = jnp.sin(jnp.deg2rad(degrees)), jnp.cos(jnp.deg2rad(degrees))
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row = jnp.arange(height, dtype=dtype)[None, :, None] - middle_row - shift[:, 0, None, None]
    column = jnp.arange(width, dtype=dtype)[None, None, :] - middle_column - shift[:, 1, None, None]

    def combine(a: Array, b: Array, factor: Array, middle: float) -> Array:
        return (a / factor)[:, None, None] * row + (b / factor)[:, None, None] * column + middle

    return (
        combine(cosine, sine, scale[:, 0], middle_row),
        combine(-sine - shear * cosine, cosine - shear * sine, scale[:, 1], middle_column),
    )


def smooth(fields: Array, sigma: Scalar) -> Array:
    """Convolve the last two axes with a Gaussian of standard deviation `sigma`; zeros outside.

    Two products with the banded matrices G_ij = exp(-(i - j)^2 / (2 sigma^2)) / Z, Z the sum over the distances
    -(n - 1) .. n - 1, n the length of the axis: the kernel has mass 1 and reaches across the whole image.

    Args:
        fields: (..., H, W), floating.
        sigma: in pixels, > 0.

    Returns:
        (..., H, W), in the dtype of `fields`.

    Example:
        >>> import jax
        >>> round(float(jax.jit(smooth)(jnp.ones((1, 9, 9)), 0.5)[0, 4, 4]), 5)
        1.0
    """
    dtype = accumulation_dtype(fields.dtype)

    def gaussian(n: int) -> Array:
        distance = jnp.arange(2 * n - 1, dtype=dtype) - (n - 1)
        kernel = jnp.exp(-0.5 * (distance / jnp.asarray(sigma, dtype)) ** 2)
        kernel = kernel / jnp.sum(kernel)
        return kernel[jnp.arange(n)[:, None] - jnp.arange(n)[None, :] + (n - 1)]

    height, width = fields.shape[-2:]
    smoothed = jnp.einsum("ij,...jk,lk->...il", gaussian(height), fields.astype(dtype), gaussian(width))
    return smoothed.astype(fields.dtype)
