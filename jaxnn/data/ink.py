"""Grey images as binary vectors: 1 where there is ink, 0 where there is none."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from jaxnn.checks import require_between, require_positive_int
from jaxnn.data.dataset import Dataset
from jaxnn.data.warp import require_images


def binarised(dataset: Dataset, *, side: int = 16, threshold: float = 0.5) -> Dataset:
    """Grey images as vectors of side x side bits, row by row: the 16 x 16 = 256 inputs of a digit.

    bit = 1 if the grey level of the resampled image is at least `threshold`, else 0

    Images are resampled by linear interpolation; a smaller one is averaged by a triangular window as wide as the
    distance of the new pixels, so that thin strokes do not vanish between them.

    Args:
        dataset: of images (N, H, W, 1), ink near 1, such as `digits()` or `mnist().train`.
        side: rows and columns of the result, >= 1.
        threshold: the grey level from which a pixel is ink, in (0, 1].

    Returns:
        A Dataset of x (N, side^2) float32, each 0 or 1, on the host, with the same labels, classes and name.

    Raises:
        ValueError: images of another shape or not finite, or a setting out of range.
        TypeError: not a Dataset, such as splits in place of one of them, or images that are not floating.

    Example:
        >>> from jaxnn.data import digits
        >>> few = binarised(digits())
        >>> few.x.shape, sorted(set(few.x.ravel().tolist()))
        ((1797, 256), [0.0, 1.0])
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"binarised: expected one Dataset, got {type(dataset).__name__}. Pass one part, such as splits.train, or "
            "data.make_dataset(x, y)."
        )
    require_images("binarised", dataset.x)
    if not dataset.x.size or not np.isfinite(dataset.x).all():
        raise ValueError(f"binarised: images must have pixels, and finite ones only, got shape {dataset.x.shape}.")
    if dataset.x.shape[-1] != 1:
        raise ValueError(
            f"binarised: images must be grey, (N, H, W, 1), got {dataset.x.shape}. Average the colours: "
            "x.mean(axis=-1, keepdims=True)."
        )
    side = require_positive_int("binarised", "side", side)
    require_between("binarised", "threshold", threshold, 0, 1)
    if not threshold:
        raise ValueError("binarised: threshold must be > 0, got 0: every pixel would be ink.")
    n = len(dataset)
    grey = np.asarray(jax.image.resize(dataset.x, (n, side, side, 1), "linear"))
    ink = (grey.reshape(n, side * side) >= threshold).astype(np.float32)
    return dataclasses.replace(dataset, x=ink)
