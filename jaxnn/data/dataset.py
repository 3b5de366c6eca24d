"""Labelled examples, and their seeded splits into train, validation and test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.checks import as_numpy, require_positive_int
from jaxnn.types import ArrayLike

INT32 = np.iinfo(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets, a pytree with leaves `x` and `y`, for `jax.device_put`, `jax.jit` and so on.

    Attributes:
        x: inputs, images (N, H, W, C) or vectors (N, D), floating; images lie in [0, 1] (grey level / largest level).
        y: targets (N,), int32 class indices 0 .. K - 1, or floating values for regression.
        name: of the data set.
        classes: the K names of the classes; empty for regression or unnamed classes.

    Example:
        >>> data = make_dataset(np.zeros((3, 2)), [0, 1, 1], name="toy", classes=("no", "yes"))
        >>> len(data), data.x.dtype, data.classes
        (3, dtype('float32'), ('no', 'yes'))
    """

    x: Any
    y: Any
    name: str = ""
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of examples, N."""
        return int(self.x.shape[0])


jax.tree_util.register_dataclass(Dataset, data_fields=["x", "y"], meta_fields=["name", "classes"])


class Splits(NamedTuple):
    """Three disjoint sets: fit on `train`, choose on `validation`, look at `test` once, at the end."""

    train: Dataset
    validation: Dataset
    test: Dataset


class TrainTest(NamedTuple):
    """The two sets that a benchmark publishes; `split` the first to hold out a validation set."""

    train: Dataset
    test: Dataset


def make_dataset(
    x: ArrayLike, y: ArrayLike, *, levels: float = 1.0, name: str = "", classes: Sequence[str] = ()
) -> Dataset:
    """A checked `Dataset` on the host: x / levels as float32, labels as int32.

    Args:
        x: inputs (N, H, W, C) or (N, D), any real dtype.
        y: targets (N,): integers become int32 labels, floats and bools float32.
        levels: the value that becomes 1.0: 255 for bytes, 16 for `digits`; 1 keeps the values of `x`.
        name: of the data set.
        classes: the K names of the classes; if not empty, labels must be integers in 0 .. K - 1.

    Returns:
        The Dataset, with NumPy arrays.

    Raises:
        ValueError: no example, wrong ranks, unequal lengths, a label outside int32, or not among `classes`.
        TypeError: `x` or `y` is not an array of numbers.

    Example:
        >>> make_dataset(np.full((1, 2, 2, 1), 255, np.uint8), [7], levels=255).x.max()
        np.float32(1.0)
    """
    inputs, targets = as_numpy("make_dataset", "x", x), as_numpy("make_dataset", "y", y)
    if inputs.ndim not in (2, 4):
        raise ValueError(
            f"make_dataset: x must be images (N, H, W, C) or vectors (N, D), got shape {inputs.shape}. "
            "Grey images need a channel axis: x[..., None]."
        )
    if targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"make_dataset: y must have shape {inputs.shape[:1]}, one target for each example of x {inputs.shape}, "
            f"got {targets.shape}."
        )
    if len(inputs) == 0:
        raise ValueError("make_dataset: x must have at least 1 example, got none.")
    whole = np.issubdtype(targets.dtype, np.integer)
    if classes and (not whole or targets.min() < 0 or targets.max() >= len(classes)):
        raise ValueError(
            f"make_dataset: labels must be integers in 0 .. {len(classes) - 1} for {len(classes)} classes, "
            f"got {targets.dtype} values from {targets.min()} to {targets.max()}."
        )
    if whole and (targets.min() < INT32.min or targets.max() > INT32.max):
        raise ValueError(f"make_dataset: labels must fit into int32, got {targets.min()} to {targets.max()}.")
    scaled = inputs.astype(np.float32) / np.float32(levels)
    return Dataset(scaled, targets.astype(np.int32 if whole else np.float32), name, tuple(classes))


def select(dataset: Dataset, indices: Any) -> Dataset:
    """The examples at these indices, in the order of the indices; on the host for NumPy arrays.

    Args:
        indices: (M,) integers in 0 .. N - 1, or a slice.

    Returns:
        A Dataset of M examples with the same name and classes.

    Example:
        >>> select(make_dataset(np.zeros((3, 2)), [4, 5, 6]), slice(0, 2)).y
        array([4, 5], dtype=int32)
    """
    return dataclasses.replace(dataset, x=dataset.x[indices], y=dataset.y[indices])


def split(dataset: Dataset, sizes: Sequence[float], *, seed: int, stratify: bool = False) -> tuple[Dataset, ...]:
    """A random partition of the examples into disjoint parts.

    It depends only on N, `sizes`, `seed` (and the labels, if stratified), so it is reproducible. Fractions are rounded
    to counts that sum to N, largest remainder first (ties to the earlier part).

    Args:
        sizes: one per part: counts (all ints) that sum to N, or fractions (floats) that sum to 1 within 1e-6.
        seed: int >= 0.
        stratify: whether each part has the class proportions of the whole: to within one example per class for two
            parts, two for three, more for more parts; sizes stay exact. Labels must be integers.

    Returns:
        One Dataset per part, its examples in random order: `train, validation, test = split(...)`.

    Raises:
        ValueError: sizes that are empty, negative, do not sum to N or 1, or leave a part empty; `stratify` without
            integer labels.

    Example:
        >>> data = make_dataset(np.zeros((10, 2)), np.arange(10))
        >>> [len(part) for part in split(data, (0.6, 0.2, 0.2), seed=0)]
        [6, 2, 2]
    """
    n = len(dataset)
    counts = _counts(n, sizes)
    # An argsort of uniform numbers, not the generator's shuffle, whose algorithm NumPy may change.
    order = np.argsort(np.random.default_rng(require_positive_int("split", "seed", seed, 0)).random(n), kind="stable")
    parts = np.repeat(np.arange(len(counts)), counts)
    if stratify:
        labels = np.asarray(dataset.y)
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"split: stratify needs integer labels, got {labels.dtype}. Leave stratify=False for regression."
            )
        # Examples sorted by label are dealt to the parts in an order that spreads each part evenly over them.
        when = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        by_label = np.argsort(labels[order], kind="stable")
        dealt = np.empty(n, parts.dtype)
        dealt[by_label] = parts[np.argsort(when, kind="stable")]
        parts = dealt
    return tuple(select(dataset, order[parts == part]) for part in range(len(counts)))


def _counts(n: int, sizes: Sequence[float]) -> list[int]:
    """Counts for `sizes` that sum to n; ValueError if there are none."""
    values = list(sizes)
    got = f"got {tuple(values)} for {n} examples"
    if not values or any(not math.isfinite(v) or v < 0 for v in values):
        raise ValueError(f"split: sizes must be one count >= 0 or fraction in [0, 1] for each part, {got}.")
    if all(hasattr(v, "__index__") for v in values):
        counts = [int(v) for v in values]
        if sum(counts) != n:
            raise ValueError(f"split: counts must add up to {n}, {got}: they add up to {sum(counts)}.")
    else:
        if abs(sum(values) - 1) > 1e-6:
            raise ValueError(f"split: fractions must add up to 1, {got}: they add up to {sum(values):g}.")
        shares = [float(v) * n for v in values]
        counts = [math.floor(share + 1e-9) for share in shares]  # 1e-9: 0.29 * 100 rounds below 29
        by_remainder = sorted(range(len(values)), key=lambda part: counts[part] - shares[part])
        for part in by_remainder[: n - sum(counts)]:
            counts[part] += 1
    if min(counts) == 0:
        raise ValueError(f"split: each part must have at least one example, {got}: the counts would be {counts}.")
    return counts
