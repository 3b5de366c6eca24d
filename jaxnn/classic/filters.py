"""Filters: a small kernel that scans an image frame by frame, and some kernels made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxnn.checks import as_numpy, pair, require_number
from jaxnn.types import ArrayLike, Scalar

FILTERS: Mapping[str, np.ndarray] = MappingProxyType(
    {
        "horizontal edges": np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]]),
        "vertical edges": np.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
        "diagonal edges": np.array([[0.0, 1, 1], [-1, 0, 1], [-1, -1, 0]]),
        "outline": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
        "blur": np.full((3, 3), 1 / 9),
    }
)
"""3 x 3 kernels by what they find: differences of neighbouring rows, columns and corners, of a pixel and its
neighbours; the mean."""


class Frame(NamedTuple):
    """One position of a filter on an image, and the output so far.

    Attributes:
        row, column: of the output, from 0.
        top, left: of the window, in pixels; negative in the padding.
        window: (h, w) or (h, w, C), the pixels under the kernel.
        products: window * kernel.
        total: sum of the products, plus the bias: the output at (row, column).
        output: (H', W'), NaN where not yet computed.
    """

    row: int
    column: int
    top: int
    left: int
    window: np.ndarray
    products: np.ndarray
    total: float
    output: np.ndarray


def scan(
    image: ArrayLike, kernel: ArrayLike, *, bias: Scalar = 0.0, stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> list[Frame]:  # fmt: skip
    """The frames of a convolution, row by row: y[i, j] = sum_uv x[i s + u - p, j s + v - p] w[u, v] + b.

    As in `layers.Conv` the kernel is not flipped. The last output is that of the layer.

    Args:
        image: (H, W) or (H, W, C).
        kernel: (h, w) or (h, w, C), at most as large as the padded image.
        bias: b.
        stride: s, pixels from one window to the next, down and right.
        padding: p, zeros on each side, above and below, left and right.

    Returns:
        H' W' frames, H' = (H + 2 p - h) // s + 1.

    Raises:
        TypeError: complex numbers.
        ValueError: image and kernel differ in axes or channels, or the kernel does not fit.

    Reference: LeCun, Y., Boser, B., Denker, J. S., et al. (1989). Backpropagation applied to handwritten zip code
        recognition.

    Example:
        >>> frames = scan(np.arange(9.0).reshape(3, 3), [[0, 1], [0, 0]])
        >>> len(frames), frames[-1].output.tolist()
        (4, [[1.0, 2.0], [4.0, 5.0]])
    """
    x, w = (as_numpy("filters.scan", name, value) for name, value in (("image", image), ("kernel", kernel)))
    for name, values in (("image", x), ("kernel", w)):
        if np.iscomplexobj(values):
            raise TypeError(f"filters.scan: {name} must hold real numbers, got dtype {values.dtype}.")
    x, w = x.astype(np.float64), w.astype(np.float64)  # products of small integers would wrap
    steps, pads = pair("filters.scan", "stride", stride), pair("filters.scan", "padding", padding, minimum=0)
    require_number("filters.scan", "bias", bias)
    if x.ndim not in (2, 3) or x.ndim != w.ndim or x.shape[2:] != w.shape[2:] or not w.size:
        raise ValueError(
            f"filters.scan: expected an image (H, W) and a kernel (h, w), or both with the same channels on a third "
            f"axis, got {x.shape} and {w.shape}."
        )
    padded = np.pad(x, [(p, p) for p in pads] + [(0, 0)] * (x.ndim - 2))
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(padded.shape, w.shape, steps, strict=False))
    if rows < 1 or columns < 1:
        raise ValueError(f"filters.scan: kernel {w.shape} does not fit the padded image {padded.shape}; pad more.")
    output, frames = np.full((rows, columns), np.nan), []
    for row, column in np.ndindex(rows, columns):
        top, left = row * steps[0], column * steps[1]
        window = padded[top : top + w.shape[0], left : left + w.shape[1]]
        products = window * w
        output[row, column] = total = float(products.sum()) + float(bias)
        frames.append(Frame(row, column, top - pads[0], left - pads[1], window, products, total, output.copy()))
    return frames


def response(image: ArrayLike, kernel: ArrayLike, **settings: Any) -> np.ndarray:
    """The output (H', W') of the whole scan; arguments and settings as for `scan`.

    Example:
        >>> response(np.eye(3), FILTERS["blur"]).round(2)
        array([[0.33]])
    """
    return scan(image, kernel, **settings)[-1].output
