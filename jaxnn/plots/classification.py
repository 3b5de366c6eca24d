"""The errors of a classifier: the confusion matrix, and the misclassified images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxnn.plots.pictures import pictures
from jaxnn.plots.style import figure

LEAST_SCALE = 5.0
"""Smallest percentage of a class that the darkest colour stands for, so that rare mistakes stay light."""


def confusion(matrix: np.ndarray, classes: Sequence[str], *, title: str = "Confusion matrix") -> Figure:
    """A table of the counts of (true class, predicted class), mistakes coloured by their fraction of the true class.

    Args:
        matrix: (K, K) ints, rows true, columns predicted, from `metrics.confusion_matrix`.
        classes: K names.

    Raises:
        ValueError: the matrix is not (K, K).

    Example:
        >>> fig = confusion(np.array([[9, 1], [0, 5]]), ["cat", "dog"])
        >>> fig.axes[0].get_xlabel()
        'predicted class'
    """
    matrix = np.asarray(matrix)
    k = len(classes)
    if matrix.shape != (k, k):
        raise ValueError(f"confusion: expected a matrix {(k, k)} for {k} classes, got {matrix.shape}.")
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    off = np.ma.masked_where(np.eye(k, dtype=bool) | (matrix == 0), share)
    top = max(float(off.max()) if off.count() else 0.0, LEAST_SCALE)
    fig, ax = figure(width=1.6 + 0.55 * k, height=1.2 + 0.5 * k)
    image = ax.imshow(off, cmap="Oranges", vmin=0, vmax=top)
    fig.colorbar(image, ax=ax, label="mistakes (% of the true class)", shrink=0.8)
    for i in range(k):
        for j in range(k):
            if matrix[i, j]:
                ax.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9,
                        color="white" if i != j and share[i, j] > 0.6 * top else "black",
                        fontweight="bold" if i == j else "normal")  # fmt: skip
    long = max(map(len, classes)) > 3
    ax.set_xticks(range(k), classes, rotation=45 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(k), classes)
    ax.set_xlabel("predicted class", fontsize=11)
    ax.set_ylabel("true class", fontsize=11)
    wrong = matrix.sum() - np.trace(matrix)
    ax.set_title(f"{title}\n{wrong} of {matrix.sum()} wrong ({100 * wrong / max(matrix.sum(), 1):.2f}%)", fontsize=12)
    return fig


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    most: int = 40,
    title: str = "Mistakes",
) -> Figure:
    """The misclassified images with label, prediction and confidence, the most confident mistakes first.

    Args:
        images: (N, H, W) or (N, H, W, C), C = 1 or 3, values in [0, 1].
        labels: (N,) ints in 0 .. K - 1.
        probabilities: (N, K) of the classifier; the prediction is the largest, its confidence that probability.
        classes: K names.
        most: the largest number of images shown.

    Example:
        >>> fig = mistakes(np.zeros((2, 8, 8, 1)), np.array([0, 1]), np.array([[0.1, 0.9], [0.2, 0.8]]), ["a", "b"])
        >>> fig.axes[0].get_title()
        'true a\\nguess b 90%'
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    captions = [f"true {classes[labels[i]]}\nguess {classes[guesses[i]]} {confidence[i]:.0%}" for i in shown]
    heading = f"{title}: {len(wrong)} of {len(labels)}"
    heading += f", the {len(shown)} most confident" if len(shown) < len(wrong) else ""
    return pictures([images[i] for i in shown], captions, title=heading)
