"""Examples with their labels, and seeded splits of them into train, validation and test. Floor 2."""

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
    """Inputs and their targets, a pytree whose leaves are `x` and `y`: `jax.device_put` moves it, `jax.jit` takes it.

    Attributes:
        x: inputs, images (N, H, W, C) or vectors (N, D), floating; images lie in [0, 1] (grey level / largest level).
        y: targets (N,), int32 class numbers 0 .. K - 1, or floating values for regression.
        name: what the data are called.
        classes: the K names of the classes; empty for regression.

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
        y: targets (N,): whole numbers become int32 labels, others float32.
        levels: the value that becomes 1.0: 255 for bytes, 16 for `digits`; 1 leaves `x` as it is.
        name: what the data are called.
        classes: the names of the classes, K of them; if given, labels must lie in 0 .. K - 1.

    Returns:
        The Dataset, its arrays NumPy's.

    Raises:
        ValueError: no example, an `x` of another rank, unequal lengths, a `y` of another rank, a label out of range.

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
        raise ValueError("make_dataset: x has no example, at least 1 is needed.")
    whole = np.issubdtype(targets.dtype, np.integer)
    if classes and (not whole or targets.min() < 0 or targets.max() >= len(classes)):
        raise ValueError(
            f"make_dataset: labels must be whole numbers in 0 .. {len(classes) - 1} for {len(classes)} classes, "
            f"got {targets.dtype} values from {targets.min()} to {targets.max()}."
        )
    if whole and (targets.min() < INT32.min or targets.max() > INT32.max):
        raise ValueError(f"make_dataset: labels must fit into int32, got {targets.min()} to {targets.max()}.")
    scaled = inputs.astype(np.float32) / np.float32(levels)
    return Dataset(scaled, targets.astype(np.int32 if whole else np.float32), name, tuple(classes))


def select(dataset: Dataset, indices: Any) -> Dataset:
    """The examples of these indices, in their order; on the host for NumPy arrays.

    Args:
        dataset: N examples.
        indices: (M,) whole numbers in 0 .. N - 1, or a slice.

    Returns:
        A Dataset of M examples with the same name and classes.

    Example:
        >>> select(make_dataset(np.zeros((3, 2)), [4, 5, 6]), slice(0, 2)).y
        array([4, 5], dtype=int32)
    """
    return dataclasses.replace(dataset, x=dataset.x[indices], y=dataset.y[indices])


def split(dataset: Dataset, sizes: Sequence[float], *, seed: int, stratify: bool = False) -> tuple[Dataset, ...]:
    """Divide the examples at random into disjoint parts that together hold every example once.

    The parts depend on N, `sizes`, `seed` (and the labels, if stratified) only, so a split can be made again. Fractions
    that do not give whole counts are rounded so that the counts add up to N, largest remainder first (ties to the
    earlier part).

    Args:
        dataset: N examples.
        sizes: one entry for each part: whole counts that add up to N, or fractions that add up to 1.
        seed: whole number >= 0; another seed, another split.
        stratify: whether each part holds the classes in the proportions of the whole (to within two examples a class;
            the parts keep their exact sizes). Labels must be whole numbers.

    Returns:
        One Dataset for each entry of `sizes`, its examples in random order: `train, validation, test = split(...)`.

    Raises:
        ValueError: sizes that are empty, negative, do not add up, or leave a part without an example; `stratify`
            without whole-number labels.

    Example:
        >>> data = make_dataset(np.zeros((10, 2)), np.arange(10))
        >>> [len(part) for part in split(data, (0.6, 0.2, 0.2), seed=0)]
        [6, 2, 2]
    """
    n = len(dataset)
    counts = _counts(n, sizes)
    # An argsort of the generator's uniform numbers, not its own shuffle, whose algorithm NumPy is free to change.
    order = np.argsort(np.random.default_rng(require_positive_int("split", "seed", seed, 0)).random(n), kind="stable")
    parts = np.repeat(np.arange(len(counts)), counts)
    if stratify:
        labels = np.asarray(dataset.y)
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"split: stratify needs whole-number labels, got {labels.dtype}. Leave stratify=False for regression."
            )
        # Examples sorted by label are dealt to parts in an order that spreads each part evenly over the whole row.
        when = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        by_label = np.argsort(labels[order], kind="stable")
        dealt = np.empty(n, parts.dtype)
        dealt[by_label] = parts[np.argsort(when, kind="stable")]
        parts = dealt
    return tuple(select(dataset, order[parts == part]) for part in range(len(counts)))


def _counts(n: int, sizes: Sequence[float]) -> list[int]:
    """Whole counts for `sizes`, adding up to n; ValueError where that cannot be."""
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
        counts = [math.floor(share + 1e-9) for share in shares]
        by_remainder = sorted(range(len(values)), key=lambda part: counts[part] - shares[part])
        for part in by_remainder[: n - sum(counts)]:
            counts[part] += 1
    if min(counts) == 0:
        raise ValueError(f"split: each part must hold at least one example, {got}: the counts would be {counts}.")
    return counts
